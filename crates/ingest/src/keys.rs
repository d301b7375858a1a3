//! API keys: `mf_<id>_<secret><checksum>`.
//!
//! The prefix and the checksum let a leak scanner recognise a key, the id finds its row, the secret (192 random
//! bits) proves it. Only the SHA-256 of the secret is kept: with so many random bits a slow hash adds nothing.

use crate::auth::Scope;
use aws_lc_rs::{constant_time, rand};
use chrono::{DateTime, Utc};
use domain::ApiKeyId;
use sha2::{Digest, Sha256};
use std::fmt::Write;
use store::NewApiKey;

const PREFIX: &str = "mf_";
/// Octets of the secret.
const SECRET_LEN: usize = 24;
/// Octets of the checksum.
const CHECK_LEN: usize = 4;

/// The system gave no randomness.
#[derive(Debug, thiserror::Error)]
#[error("the system gave no randomness")]
pub struct NoRandomness;

/// A new key: the one time that its secret is at hand.
pub struct MintedKey {
    /// What the caller keeps.
    pub token: String,
    /// What is kept here.
    pub secret_sha256: [u8; 32],
}

impl MintedKey {
    /// Makes a key with this id.
    ///
    /// # Errors
    /// When the system gives no randomness.
    pub fn new(id: ApiKeyId) -> Result<Self, NoRandomness> {
        let mut secret = [0; SECRET_LEN];
        rand::fill(&mut secret).map_err(|_| NoRandomness)?;
        let mut token = format!("{PREFIX}{}_", id.as_uuid().simple());
        push_hex(&mut token, &secret);
        let check = checksum(&token);
        push_hex(&mut token, &check);
        Ok(Self { token, secret_sha256: Sha256::digest(secret).into() })
    }
}

/// A new key that administers the fleet: what is to be stored of it, and the token, which is known here alone.
///
/// # Errors
/// When the system gives no randomness.
pub fn fleet_key(name: &str, now: DateTime<Utc>) -> Result<(NewApiKey, String), NoRandomness> {
    let id = ApiKeyId::new(now);
    let MintedKey { token, secret_sha256 } = MintedKey::new(id)?;
    let scopes = vec![Scope::Admin.as_str().to_owned()];
    Ok((NewApiKey { id, tenant: None, name: name.to_owned(), secret_sha256, scopes, expires_at: None }, token))
}

/// A key as a caller presents it: its form is right, nothing else is known.
#[derive(Clone, Copy)]
pub struct PresentedKey {
    /// Which key it claims to be.
    pub id: ApiKeyId,
    secret_sha256: [u8; 32],
}

impl PresentedKey {
    /// Reads a key; `None` when it cannot be one that was made here.
    pub fn parse(token: &str) -> Option<Self> {
        let rest = token.strip_prefix(PREFIX)?;
        let (id, tail) = rest.split_once('_')?;
        let lower_hex = |text: &str| text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if id.len() != 32 || tail.len() != 2 * (SECRET_LEN + CHECK_LEN) || !lower_hex(id) || !lower_hex(tail) {
            return None;
        }
        let (secret, check) = tail.split_at(2 * SECRET_LEN);
        let mut expected = String::with_capacity(2 * CHECK_LEN);
        push_hex(&mut expected, &checksum(&token[..token.len() - 2 * CHECK_LEN]));
        if expected != check {
            return None;
        }
        let mut octets = [0; SECRET_LEN];
        for (octet, pair) in octets.iter_mut().zip(secret.as_bytes().chunks_exact(2)) {
            *octet = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(Self { id: id.parse().ok()?, secret_sha256: Sha256::digest(octets).into() })
    }

    /// Whether its secret is the one behind `stored`; takes the same time whatever differs.
    pub fn proves(&self, stored: &[u8]) -> bool {
        constant_time::verify_slices_are_equal(&self.secret_sha256, stored).is_ok()
    }
}

fn checksum(text: &str) -> [u8; CHECK_LEN] {
    let digest = Sha256::digest(text.as_bytes());
    [digest[0], digest[1], digest[2], digest[3]]
}

fn push_hex(text: &mut String, octets: &[u8]) {
    for octet in octets {
        write!(text, "{octet:02x}").expect("a string takes all that is written");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minted() -> (ApiKeyId, MintedKey) {
        let id = ApiKeyId::new(chrono::DateTime::UNIX_EPOCH);
        (id, MintedKey::new(id).expect("the system has randomness"))
    }

    #[test]
    fn a_minted_key_proves_itself_and_no_other() {
        let (id, key) = minted();
        let presented = PresentedKey::parse(&key.token).expect("its form is right");
        assert_eq!(presented.id, id);
        assert!(presented.proves(&key.secret_sha256));
        assert!(!presented.proves(&minted().1.secret_sha256));
        assert!(!presented.proves(b""));
    }

    #[test]
    fn a_mistyped_key_is_told_without_a_look_into_the_database() {
        let (_, key) = minted();
        for at in PREFIX.len()..key.token.len() {
            let mut wrong = key.token.clone().into_bytes();
            wrong[at] = if wrong[at] == b'0' { b'1' } else { b'0' };
            assert!(PresentedKey::parse(std::str::from_utf8(&wrong).expect("ascii")).is_none(), "at {at}");
        }
        for wrong in ["", "mf_", "mf__", "Bearer", &key.token[..key.token.len() - 1], &key.token.to_uppercase()] {
            assert!(PresentedKey::parse(wrong).is_none());
        }
    }

    #[test]
    fn what_is_kept_does_not_hold_the_secret() {
        let (_, key) = minted();
        let mut kept = String::new();
        push_hex(&mut kept, &key.secret_sha256);
        assert!(!key.token.contains(&kept[..16]));
    }
}
