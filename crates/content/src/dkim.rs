//! DKIM signatures (RFC 6376; RFC 8463 for Ed25519): relaxed/relaxed, oversigned, never with `l=`.

use crate::RenderError;
use crate::header::Fields;
use aws_lc_rs::digest::{self, SHA256};
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair};
use base64::{Engine, engine::general_purpose::STANDARD};
use domain::DomainName;
use std::{fmt, sync::Arc};

/// The smallest RSA modulus taken, in octets: 2,048 bits (RFC 8301, 3.2 asks signers for it).
const MIN_RSA_BYTES: usize = 256;

/// Fields that are signed when present, and whose absence, or presence no more often than now, is signed
/// too: each is listed once more than it occurs, so that adding another breaks the signature.
const SIGNED: [&str; 19] = [
    "From",
    "To",
    "Cc",
    "Subject",
    "Date",
    "Message-ID",
    "Reply-To",
    "Sender",
    "In-Reply-To",
    "References",
    "MIME-Version",
    "Content-Type",
    "Content-Transfer-Encoding",
    "List-Unsubscribe",
    "List-Unsubscribe-Post",
    "List-Id",
    "Feedback-ID",
    "X-Mailfleet-Id",
    "X-Mailfleet-Token",
];

/// The algorithm of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyAlgorithm {
    /// `rsa-sha256`.
    Rsa,
    /// `ed25519-sha256`.
    Ed25519,
}

impl KeyAlgorithm {
    /// The word in `k=`: `rsa` or `ed25519`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rsa => "rsa",
            Self::Ed25519 => "ed25519",
        }
    }
}

/// Why a key cannot be made or used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not the PKCS#8 form of a key of this kind.
    #[error("the key is not PKCS#8 of its kind")]
    NotAKey,
    /// An RSA key of less than 2,048 bits.
    #[error("the RSA key has less than 2048 bits")]
    Weak,
    /// Not a label sequence that can stand before `._domainkey`.
    #[error("the selector is not a sequence of letters, digits and hyphens, with dots between")]
    Selector,
    /// The system's random source failed.
    #[error("no key could be generated")]
    Generate,
}

/// A fresh key pair.
pub struct GeneratedKey {
    /// Which kind.
    pub algorithm: KeyAlgorithm,
    /// The private key, PKCS#8 DER.
    pub pkcs8: Vec<u8>,
    /// The TXT record's text for `SELECTOR._domainkey.DOMAIN`.
    pub dns_txt: String,
}

impl fmt::Debug for GeneratedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GeneratedKey").field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

enum Pair {
    Rsa(RsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

struct Inner {
    domain: DomainName,
    selector: String,
    pair: Pair,
}

/// A private key, parsed once, with the domain and selector its public half stands under. Cheap to clone.
#[derive(Clone)]
pub struct SigningKey(Arc<Inner>);

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").field("domain", &self.0.domain).field("selector", &self.0.selector).finish()
    }
}

impl SigningKey {
    /// An RSA key of 2,048 bits or more.
    ///
    /// # Errors
    /// When the octets are no such key, it is weak, or the selector is none.
    pub fn rsa_from_pkcs8(domain: DomainName, selector: &str, der: &[u8]) -> Result<Self, KeyError> {
        let pair = RsaKeyPair::from_pkcs8(der).map_err(|_| KeyError::NotAKey)?;
        if pair.public_modulus_len() < MIN_RSA_BYTES {
            return Err(KeyError::Weak);
        }
        Self::new(domain, selector, Pair::Rsa(pair))
    }

    /// An Ed25519 key, PKCS#8 version 1 or 2.
    ///
    /// # Errors
    /// When the octets are no such key, or the selector is none.
    pub fn ed25519_from_pkcs8(domain: DomainName, selector: &str, der: &[u8]) -> Result<Self, KeyError> {
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).map_err(|_| KeyError::NotAKey)?;
        Self::new(domain, selector, Pair::Ed25519(pair))
    }

    /// A key of this kind.
    ///
    /// # Errors
    /// As [`Self::rsa_from_pkcs8`] and [`Self::ed25519_from_pkcs8`].
    pub fn from_pkcs8(
        algorithm: KeyAlgorithm,
        domain: DomainName,
        selector: &str,
        der: &[u8],
    ) -> Result<Self, KeyError> {
        match algorithm {
            KeyAlgorithm::Rsa => Self::rsa_from_pkcs8(domain, selector, der),
            KeyAlgorithm::Ed25519 => Self::ed25519_from_pkcs8(domain, selector, der),
        }
    }

    /// A fresh RSA key of 2,048 bits. Takes a tenth of a second or more: not for a reactor thread.
    ///
    /// # Errors
    /// When the system's random source fails.
    pub fn generate_rsa_2048() -> Result<GeneratedKey, KeyError> {
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).map_err(|_| KeyError::Generate)?;
        let der = AsDer::<Pkcs8V1Der<'_>>::as_der(&pair).map_err(|_| KeyError::Generate)?;
        let pkcs8 = der.as_ref().to_vec();
        Ok(GeneratedKey { algorithm: KeyAlgorithm::Rsa, pkcs8, dns_txt: Pair::Rsa(pair).dns_txt() })
    }

    /// A fresh Ed25519 key.
    ///
    /// # Errors
    /// When the system's random source fails.
    pub fn generate_ed25519() -> Result<GeneratedKey, KeyError> {
        let pair = Ed25519KeyPair::generate().map_err(|_| KeyError::Generate)?;
        let pkcs8 = pair.to_pkcs8().map_err(|_| KeyError::Generate)?.as_ref().to_vec();
        Ok(GeneratedKey { algorithm: KeyAlgorithm::Ed25519, pkcs8, dns_txt: Pair::Ed25519(pair).dns_txt() })
    }

    fn new(domain: DomainName, selector: &str, pair: Pair) -> Result<Self, KeyError> {
        let label = |text: &str| {
            !text.is_empty()
                && text.len() <= 63
                && !text.starts_with('-')
                && !text.ends_with('-')
                && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
        };
        if !selector.split('.').all(label) {
            return Err(KeyError::Selector);
        }
        Ok(Self(Arc::new(Inner { domain, selector: selector.to_owned(), pair })))
    }

    /// The domain that signs.
    pub fn domain(&self) -> &DomainName {
        &self.0.domain
    }

    /// The selector.
    pub fn selector(&self) -> &str {
        &self.0.selector
    }

    /// Which kind of key it is.
    pub fn algorithm(&self) -> KeyAlgorithm {
        match self.0.pair {
            Pair::Rsa(_) => KeyAlgorithm::Rsa,
            Pair::Ed25519(_) => KeyAlgorithm::Ed25519,
        }
    }

    /// The text of the TXT record at [`Self::dns_name`].
    pub fn dns_txt(&self) -> String {
        self.0.pair.dns_txt()
    }

    /// Where the TXT record goes: `selector._domainkey.domain`.
    pub fn dns_name(&self) -> String {
        format!("{}._domainkey.{}", self.0.selector, self.0.domain)
    }

    /// Appends the complete `DKIM-Signature` field over `fields` and a body with this hash.
    pub(crate) fn sign_into(
        &self,
        out: &mut Vec<u8>,
        fields: &Fields,
        body_hash: &BodyHash,
        seconds: i64,
    ) -> Result<(), RenderError> {
        // The field as sent is folded; as signed every fold is a single space, and the value of b= is empty.
        let mut sent = String::with_capacity(1_200);
        let mut signed = Vec::with_capacity(4_096);
        signed_fields(fields, &mut sent, &mut signed);
        let head = format!(
            "v=1; a={}-sha256; c=relaxed/relaxed;\r\n\td={}; s={};\r\n\tt={seconds}; bh={};\r\n\th={sent};\r\n\tb=",
            self.algorithm().as_str(),
            self.0.domain.as_str(),
            self.0.selector,
            body_hash.0,
        );
        signed.extend_from_slice(b"dkim-signature:");
        signed.extend_from_slice(head.replace("\r\n\t", " ").as_bytes());

        let signature = self.0.pair.sign(&signed).ok_or(RenderError::Sign)?;
        out.extend_from_slice(b"DKIM-Signature: ");
        out.extend_from_slice(head.as_bytes());
        let text = STANDARD.encode(signature);
        for (index, piece) in text.as_bytes().chunks(72).enumerate() {
            if index > 0 {
                out.extend_from_slice(b"\r\n\t");
            }
            out.extend_from_slice(piece);
        }
        out.extend_from_slice(b"\r\n");
        Ok(())
    }
}

impl Pair {
    fn dns_txt(&self) -> String {
        match self {
            Self::Rsa(pair) => {
                // SubjectPublicKeyInfo, which is what every verifier reads (RFC 6376, errata 3017).
                let der = AsDer::<PublicKeyX509Der<'_>>::as_der(pair.public_key());
                let der = der.expect("the public half of a parsed key has a DER form");
                format!("v=DKIM1; k=rsa; p={}", STANDARD.encode(der.as_ref()))
            }
            Self::Ed25519(pair) => format!("v=DKIM1; k=ed25519; p={}", STANDARD.encode(pair.public_key().as_ref())),
        }
    }

    fn sign(&self, data: &[u8]) -> Option<Vec<u8>> {
        match self {
            Self::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), data, &mut signature).ok()?;
                Some(signature)
            }
            // RFC 8463, 3: PureEdDSA over the SHA-256 hash.
            Self::Ed25519(pair) => Some(pair.sign(digest::digest(&SHA256, data).as_ref()).as_ref().to_vec()),
        }
    }
}

/// Writes the folded list for `h=` and the canonical fields in its order.
fn signed_fields(fields: &Fields, list: &mut String, signed: &mut Vec<u8>) {
    let mut column = "\th=".len();
    let mut add = |name: &str| {
        if !list.is_empty() {
            list.push(':');
            column += 1;
            if column + name.len() > 74 {
                list.push_str("\r\n\t");
                column = 1;
            }
        }
        list.push_str(name);
        column += name.len();
    };
    for name in SIGNED {
        // Several fields of one name are signed from the last to the first (RFC 6376, 5.4.2).
        for (_, value) in fields.iter().rev().filter(|(field, _)| field.eq_ignore_ascii_case(name.as_bytes())) {
            add(name);
            relaxed_field(name, value, signed);
        }
        add(name);
    }
}

/// RFC 6376, 3.4.2.
fn relaxed_field(name: &str, value: &[u8], out: &mut Vec<u8>) {
    out.extend(name.bytes().map(|byte| byte.to_ascii_lowercase()));
    out.push(b':');
    let mut first = true;
    let words = value.split(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n'));
    for word in words.filter(|word| !word.is_empty()) {
        if !std::mem::take(&mut first) {
            out.push(b' ');
        }
        out.extend_from_slice(word);
    }
    out.extend_from_slice(b"\r\n");
}

/// The base64 of a body's hash in relaxed form.
#[derive(Clone)]
pub(crate) struct BodyHash(String);

impl BodyHash {
    /// Hashes a body whose lines end in CRLF, in one pass (RFC 6376, 3.4.4).
    pub(crate) fn of(body: &[u8]) -> Self {
        let mut context = digest::Context::new(&SHA256);
        let mut buffer = Vec::with_capacity(16 * 1024);
        let mut empty = 0_usize;
        for line in body.split(|byte| *byte == b'\n') {
            let line = line.strip_suffix(b"\r").unwrap_or(line).trim_ascii_end_wsp();
            if line.is_empty() {
                empty += 1;
                continue;
            }
            for _ in 0..std::mem::take(&mut empty) {
                buffer.extend_from_slice(b"\r\n");
            }
            compress(line, &mut buffer);
            buffer.extend_from_slice(b"\r\n");
            if buffer.len() > 15 * 1024 {
                context.update(&buffer);
                buffer.clear();
            }
        }
        context.update(&buffer);
        Self(STANDARD.encode(context.finish().as_ref()))
    }
}

/// Copies a line with every run of spaces and tabs made one space.
fn compress(line: &[u8], out: &mut Vec<u8>) {
    // Without early exit, so that the compiler can take many octets at a time.
    let is_plain = line
        .iter()
        .zip(line.iter().skip(1))
        .fold(true, |plain, (one, two)| plain & !((*one == b' ') & (*two == b' ')) & (*one != b'\t'));
    if is_plain {
        out.extend_from_slice(line);
        return;
    }
    let mut blank = false;
    for byte in line {
        let is_blank = matches!(byte, b' ' | b'\t');
        match (is_blank, blank) {
            (true, true) => {}
            (true, false) => out.push(b' '),
            (false, _) => out.push(*byte),
        }
        blank = is_blank;
    }
}

trait TrimWsp {
    fn trim_ascii_end_wsp(&self) -> &[u8];
}

impl TrimWsp for [u8] {
    fn trim_ascii_end_wsp(&self) -> &[u8] {
        let end = self.iter().rposition(|byte| !matches!(byte, b' ' | b'\t')).map_or(0, |last| last + 1);
        &self[..end]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relaxed_body_loses_blanks_at_line_ends_and_empty_lines_at_its_end() {
        let one = BodyHash::of(b" C \r\nD \t E\r\n\r\n\r\n");
        assert_eq!(one.0, BodyHash::of(b" C\r\nD E\r\n").0);
        assert_ne!(one.0, BodyHash::of(b"C\r\nD E\r\n").0);
        // A line of blanks alone is an empty one, at the end too.
        assert_eq!(BodyHash::of(b" c\r\n \r\n\t\r\n").0, BodyHash::of(b" c\r\n").0);
        assert_eq!(BodyHash::of(b" \r\n").0, BodyHash::of(b"").0);
        assert_ne!(BodyHash::of(b"a\r\n\r\nb\r\n").0, BodyHash::of(b"a\r\nb\r\n").0);
        // RFC 6376, 3.4.4: the hash of an empty body.
        assert_eq!(BodyHash::of(b"").0, "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=");
        assert_eq!(BodyHash::of(b"\r\n").0, BodyHash::of(b"").0);
    }

    #[test]
    fn a_relaxed_field_is_the_example_of_the_rfc() {
        let mut out = Vec::new();
        relaxed_field("SUBJect", b" AbC\r\n", &mut out);
        relaxed_field("b", b" Y\t\r\n\tZ  ", &mut out);
        assert_eq!(out, b"subject:AbC\r\nb:Y Z\r\n");
    }

    #[test]
    fn weak_and_foreign_keys_are_refused() {
        let domain: DomainName = "example.com".parse().unwrap();
        let ed = SigningKey::generate_ed25519().unwrap();
        assert_eq!(
            SigningKey::rsa_from_pkcs8(domain.clone(), "s", &ed.pkcs8).map(|_| ()).unwrap_err(),
            KeyError::NotAKey
        );
        assert_eq!(
            SigningKey::ed25519_from_pkcs8(domain.clone(), "a b", &ed.pkcs8).map(|_| ()).unwrap_err(),
            KeyError::Selector
        );
        let key = SigningKey::ed25519_from_pkcs8(domain, "s1", &ed.pkcs8).unwrap();
        assert_eq!(key.dns_txt(), ed.dns_txt);
        assert_eq!(key.dns_name(), "s1._domainkey.example.com");
        assert!(!format!("{key:?}{ed:?}").contains("pkcs8: ["));
    }
}
