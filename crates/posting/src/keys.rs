//! Keys of Standard Webhooks: `whsec_` (HMAC, shared), `whsk_` and `whpk_` (Ed25519, private and public).

use aws_lc_rs::{
    hmac, rand,
    signature::{ED25519, Ed25519KeyPair, KeyPair, ParsedPublicKey},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use std::{fmt, str::FromStr};

const SHARED: &str = "whsec_";
const PRIVATE: &str = "whsk_";
const PUBLIC: &str = "whpk_";
/// Octets of a shared secret, as the specification has it.
const SHARED_LEN: std::ops::RangeInclusive<usize> = 24..=64;
/// Octets of the seed of an Ed25519 key, and of its public half.
const SEED_LEN: usize = 32;
/// Longest text of a key that is looked at.
const LONGEST: usize = 256;

/// The version of a signature: HMAC.
const V1: &str = "v1";
/// The version of a signature: Ed25519.
const V1A: &str = "v1a";

/// Why a text is no key. It is never repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// It begins as none.
    #[error("must begin with {expected}")]
    Prefix {
        /// How it would have to begin.
        expected: &'static str,
    },
    /// What follows is not base64.
    #[error("must be base64 with padding behind its prefix")]
    Base64,
    /// What follows has another length.
    #[error("must have {expected} octets behind its prefix")]
    Length {
        /// How many.
        expected: &'static str,
    },
    /// The two halves of a private key do not belong together, or the public one is no point of the curve.
    #[error("is not a key of Ed25519")]
    Ed25519,
}

/// A key that signs our posts. Its `Display` would be a secret: see [`SigningKey::to_secret_text`].
pub struct SigningKey(Signing);

enum Signing {
    Hmac { bytes: Vec<u8>, key: Box<hmac::Key> },
    Ed25519 { seed: [u8; SEED_LEN], pair: Ed25519KeyPair },
}

impl SigningKey {
    /// A fresh shared secret of 32 octets. Whoever verifies with it could sign as well.
    pub fn generate_hmac() -> Self {
        let mut bytes = vec![0; 32];
        rand::fill(&mut bytes).expect("the system has random numbers");
        Self::hmac(bytes)
    }

    /// A fresh pair of keys: those who verify cannot sign.
    pub fn generate_ed25519() -> Self {
        let mut seed = [0; SEED_LEN];
        rand::fill(&mut seed).expect("the system has random numbers");
        Self::ed25519(seed).expect("any 32 octets are a seed")
    }

    fn hmac(bytes: Vec<u8>) -> Self {
        let key = Box::new(hmac::Key::new(hmac::HMAC_SHA256, &bytes));
        Self(Signing::Hmac { bytes, key })
    }

    fn ed25519(seed: [u8; SEED_LEN]) -> Result<Self, KeyError> {
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).map_err(|_| KeyError::Ed25519)?;
        Ok(Self(Signing::Ed25519 { seed, pair }))
    }

    /// The key as it is kept: `whsec_…`, or `whsk_…` with the seed and the public half, as the libraries have it.
    pub fn to_secret_text(&self) -> String {
        match &self.0 {
            Signing::Hmac { bytes, .. } => format!("{SHARED}{}", STANDARD.encode(bytes)),
            Signing::Ed25519 { seed, pair } => {
                let both = [&seed[..], pair.public_key().as_ref()].concat();
                format!("{PRIVATE}{}", STANDARD.encode(both))
            }
        }
    }

    /// What the receiver gets: `whpk_…`, or the shared secret itself.
    pub fn to_receiver_text(&self) -> String {
        match &self.0 {
            Signing::Hmac { .. } => self.to_secret_text(),
            Signing::Ed25519 { pair, .. } => format!("{PUBLIC}{}", STANDARD.encode(pair.public_key().as_ref())),
        }
    }

    /// `v1,…` or `v1a,…` over these octets.
    pub(crate) fn sign(&self, signed: &[u8]) -> String {
        match &self.0 {
            Signing::Hmac { key, .. } => format!("{V1},{}", STANDARD.encode(hmac::sign(key, signed).as_ref())),
            Signing::Ed25519 { pair, .. } => format!("{V1A},{}", STANDARD.encode(pair.sign(signed).as_ref())),
        }
    }
}

impl FromStr for SigningKey {
    type Err = KeyError;

    /// Reads `whsec_…`, or `whsk_…` with the seed alone or with the public half behind it.
    fn from_str(text: &str) -> Result<Self, KeyError> {
        if let Some(rest) = text.strip_prefix(PRIVATE) {
            let bytes = decode(rest)?;
            let (seed, public) = match bytes.len() {
                SEED_LEN => (&bytes[..], None),
                64 => (&bytes[..SEED_LEN], Some(&bytes[SEED_LEN..])),
                _ => return Err(KeyError::Length { expected: "32 or 64" }),
            };
            let key = Self::ed25519(seed.try_into().map_err(|_| KeyError::Ed25519)?)?;
            return match (&key.0, public) {
                (Signing::Ed25519 { pair, .. }, Some(public)) if pair.public_key().as_ref() != public => {
                    Err(KeyError::Ed25519)
                }
                (Signing::Hmac { .. } | Signing::Ed25519 { .. }, _) => Ok(key),
            };
        }
        let rest = text.strip_prefix(SHARED).ok_or(KeyError::Prefix { expected: "whsec_ or whsk_" })?;
        Ok(Self::hmac(shared(rest)?))
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey(<hidden>)")
    }
}

/// A key that verifies: a shared secret, or the public half of a pair.
#[derive(Clone)]
pub struct VerifyingKey(Verifying);

#[derive(Clone)]
enum Verifying {
    Hmac(Box<hmac::Key>),
    Ed25519(ParsedPublicKey),
}

impl VerifyingKey {
    /// Whether `signature`, of the form `v1,…` or `v1a,…`, is this key's over these octets. Another version, also an
    /// unknown one, is none of its.
    pub(crate) fn verifies(&self, signed: &[u8], signature: &str) -> bool {
        let Some((version, encoded)) = signature.split_once(',') else { return false };
        // Nothing that is longer than a signature of Ed25519 is decoded.
        if encoded.len() > 88 {
            return false;
        }
        match &self.0 {
            Verifying::Hmac(key) if version == V1 => {
                STANDARD.decode(encoded).is_ok_and(|given| hmac::verify(key, signed, &given).is_ok())
            }
            Verifying::Ed25519(key) if version == V1A => {
                STANDARD.decode(encoded).is_ok_and(|given| key.verify_sig(signed, &given).is_ok())
            }
            Verifying::Hmac(_) | Verifying::Ed25519(_) => false,
        }
    }
}

impl FromStr for VerifyingKey {
    type Err = KeyError;

    /// Reads `whsec_…` or `whpk_…`.
    fn from_str(text: &str) -> Result<Self, KeyError> {
        if let Some(rest) = text.strip_prefix(PUBLIC) {
            let bytes = decode(rest)?;
            if bytes.len() != SEED_LEN {
                return Err(KeyError::Length { expected: "32" });
            }
            let key = ParsedPublicKey::new(&ED25519, bytes).map_err(|_| KeyError::Ed25519)?;
            return Ok(Self(Verifying::Ed25519(key)));
        }
        let rest = text.strip_prefix(SHARED).ok_or(KeyError::Prefix { expected: "whsec_ or whpk_" })?;
        Ok(Self(Verifying::Hmac(Box::new(hmac::Key::new(hmac::HMAC_SHA256, &shared(rest)?)))))
    }
}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("VerifyingKey(<hidden>)")
    }
}

fn decode(text: &str) -> Result<Vec<u8>, KeyError> {
    if text.len() > LONGEST {
        return Err(KeyError::Length { expected: "at most 64" });
    }
    STANDARD.decode(text).map_err(|_| KeyError::Base64)
}

fn shared(text: &str) -> Result<Vec<u8>, KeyError> {
    let bytes = decode(text)?;
    if SHARED_LEN.contains(&bytes.len()) { Ok(bytes) } else { Err(KeyError::Length { expected: "from 24 to 64" }) }
}
