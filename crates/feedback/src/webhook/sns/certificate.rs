//! The certificates with which SNS signs.

use super::{SnsVersion, TopicArn};
use aws_lc_rs::signature::{ParsedPublicKey, RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY, RSA_PKCS1_2048_8192_SHA256};
use chrono::{DateTime, Utc};
use std::{fmt, sync::Arc};
use x509_parser::{oid_registry::OID_PKCS1_RSAENCRYPTION, pem::parse_x509_pem};

/// Longest address of a certificate.
const LONGEST_URL: usize = 256;
/// Largest file of a certificate that is read.
const LARGEST: usize = 64 * 1024;

/// Where a certificate of SNS is: https, the host of SNS in the topic's own region, no port, user or query.
///
/// The documented pattern for the host would also fit names that others can have, such as a bucket called `sns` in
/// an old region of S3; here it is compared with the one host that the topic's ARN names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CertificateUrl(String);

impl CertificateUrl {
    pub(super) fn of_topic(topic: &TopicArn, text: &str) -> Option<Self> {
        let path = text.strip_prefix("https://")?.strip_prefix(topic.host().as_str())?.strip_prefix('/')?;
        let plain = path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte));
        let fits = text.len() <= LONGEST_URL && plain && !path.contains("..") && path.ends_with(".pem");
        fits.then(|| Self(text.to_owned()))
    }

    /// The address. It is to be fetched over TLS that is verified, without following a redirect.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The certificates that the caller keeps. He fetches what a [`super::super::Reason::CertificateMissing`] names, no
/// more often than he likes (a forger who knows a topic can name any file of SNS's host), and keeps it by its address.
pub trait Certificates: Send + Sync {
    /// The certificate from this address, when it is at hand.
    fn get(&self, url: &CertificateUrl) -> Option<Arc<Certificate>>;
}

impl<F: Fn(&CertificateUrl) -> Option<Arc<Certificate>> + Send + Sync> Certificates for F {
    fn get(&self, url: &CertificateUrl) -> Option<Arc<Certificate>> {
        self(url)
    }
}

/// A certificate with which SNS signs. It is trusted because of where it was fetched from.
pub struct Certificate {
    sha1: ParsedPublicKey,
    sha256: ParsedPublicKey,
    from: i64,
    until: i64,
}

/// Why a file is no certificate that can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// It is larger than 64 KB.
    #[error("the file has more than 65536 octets")]
    TooLarge,
    /// It is no X.509 certificate in PEM.
    #[error("the file is not an X.509 certificate in PEM")]
    Form,
    /// Its key is not RSA of 2,048 bits or more.
    #[error("the certificate's key is not RSA of at least 2048 bits")]
    Key,
}

impl Certificate {
    /// Reads the first certificate of a PEM file.
    ///
    /// # Errors
    /// It is too large, no certificate, or has another kind of key.
    pub fn from_pem(pem: &[u8]) -> Result<Self, CertificateError> {
        if pem.len() > LARGEST {
            return Err(CertificateError::TooLarge);
        }
        let (_, block) = parse_x509_pem(pem).map_err(|_| CertificateError::Form)?;
        if block.label != "CERTIFICATE" {
            return Err(CertificateError::Form);
        }
        let certificate = block.parse_x509().map_err(|_| CertificateError::Form)?;
        let key = certificate.public_key();
        if key.algorithm.algorithm != OID_PKCS1_RSAENCRYPTION {
            return Err(CertificateError::Key);
        }
        let bytes: &[u8] = &key.subject_public_key.data;
        let parse = |algorithm| ParsedPublicKey::new(algorithm, bytes).map_err(|_| CertificateError::Key);
        Ok(Self {
            sha1: parse(&RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY)?,
            sha256: parse(&RSA_PKCS1_2048_8192_SHA256)?,
            from: certificate.validity().not_before.timestamp(),
            until: certificate.validity().not_after.timestamp(),
        })
    }

    /// Whether it is valid now.
    pub fn is_valid_at(&self, now: DateTime<Utc>) -> bool {
        (self.from..=self.until).contains(&now.timestamp())
    }

    pub(super) fn verifies(&self, version: SnsVersion, signed: &[u8], signature: &[u8]) -> bool {
        let key = match version {
            SnsVersion::One => &self.sha1,
            SnsVersion::Two => &self.sha256,
        };
        key.verify_sig(signed, signature).is_ok()
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate").field("from", &self.from).field("until", &self.until).finish_non_exhaustive()
    }
}
