//! TLS of both sides. Built once a process, shared by every connection.

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, ServerConfig, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature},
    pki_types::{
        CertificateDer, PrivateKeyDer, ServerName, UnixTime,
        pem::{self, PemObject},
    },
};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

/// The TLS set-up could not be made. Only bad custom roots or an unusable crypto provider lead here.
#[derive(Debug, thiserror::Error)]
pub enum TlsSetupError {
    /// A custom root certificate cannot be used.
    #[error("cannot use the given root certificates")]
    Roots(#[source] Error),
    /// No root certificate was given, so nothing could ever be verified.
    #[error("no root certificates were given")]
    NoRoots,
    /// A file of root certificates cannot be read.
    #[error("cannot read certificates from {}", .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: pem::Error,
    },
    /// A certificate and a key do not go together, or cannot be used.
    #[error("cannot use the certificate in {}", .path.display())]
    Certificate {
        /// Where the certificate is.
        path: PathBuf,
        /// Why.
        source: Error,
    },
    /// The crypto provider supports no protocol version.
    #[error("cannot set up TLS")]
    Provider(#[source] Error),
}

/// Both ways to speak TLS to a receiver: with its name verified, and encrypted to whoever answers.
#[derive(Clone, Debug)]
pub struct TlsContext {
    pub(crate) verified: Arc<ClientConfig>,
    pub(crate) opportunistic: Arc<ClientConfig>,
}

impl TlsContext {
    /// Trusts Mozilla's roots.
    ///
    /// # Errors
    /// [`TlsSetupError::Provider`].
    pub fn new() -> Result<Self, TlsSetupError> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().cloned());
        Self::build(roots)
    }

    /// Trusts these roots and no others.
    ///
    /// # Errors
    /// One of [`TlsSetupError`]'s.
    pub fn with_roots(certificates: impl IntoIterator<Item = CertificateDer<'static>>) -> Result<Self, TlsSetupError> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates {
            roots.add(certificate).map_err(TlsSetupError::Roots)?;
        }
        Self::build(roots)
    }

    /// Trusts the certificates in this file (PEM) and no others.
    ///
    /// # Errors
    /// One of [`TlsSetupError`]'s.
    pub fn with_file(path: &Path) -> Result<Self, TlsSetupError> {
        let wrong = |source| TlsSetupError::File { path: path.to_owned(), source };
        let certificates = CertificateDer::pem_file_iter(path).map_err(wrong)?.collect::<Result<Vec<_>, _>>();
        Self::with_roots(certificates.map_err(wrong)?)
    }

    /// Verifies the name and certificate of whoever answers; for others than mail servers too.
    #[must_use]
    pub fn verified(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.verified)
    }

    fn build(roots: RootCertStore) -> Result<Self, TlsSetupError> {
        if roots.is_empty() {
            return Err(TlsSetupError::NoRoots);
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
            .build()
            .map_err(|_| TlsSetupError::NoRoots)?;
        let verified = builder(&provider)?.with_webpki_verifier(verifier).with_no_client_auth();
        let anyone = Arc::new(Anyone { algorithms: provider.signature_verification_algorithms });
        let opportunistic =
            builder(&provider)?.dangerous().with_custom_certificate_verifier(anyone).with_no_client_auth();
        Ok(Self { verified: Arc::new(verified), opportunistic: Arc::new(opportunistic) })
    }
}

/// What a server shows: the chain in `certificate` and the key in `key` (PEM).
///
/// # Errors
/// One of [`TlsSetupError`]'s.
pub fn server_tls(certificate: &Path, key: &Path) -> Result<Arc<ServerConfig>, TlsSetupError> {
    let wrong = |path: &Path| {
        let path = path.to_owned();
        move |source| TlsSetupError::File { path, source }
    };
    let chain = CertificateDer::pem_file_iter(certificate)
        .map_err(wrong(certificate))?
        .collect::<Result<Vec<_>, _>>()
        .map_err(wrong(certificate))?;
    let key = PrivateKeyDer::from_pem_file(key).map_err(wrong(key))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(TlsSetupError::Provider)?;
    let config = builder.with_no_client_auth().with_single_cert(chain, key);
    Ok(Arc::new(config.map_err(|source| TlsSetupError::Certificate { path: certificate.to_owned(), source })?))
}

fn builder(
    provider: &Arc<CryptoProvider>,
) -> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>, TlsSetupError> {
    ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(TlsSetupError::Provider)
}

/// Takes any certificate: opportunistic TLS (RFC 7435) is better than none, and most MX hosts bear names
/// that nobody could verify. The peer must still own the key of the certificate that it shows.
#[derive(Debug)]
struct Anyone {
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if end_entity.is_empty() {
            return Err(Error::InvalidCertificate(CertificateError::BadEncoding));
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
