//! What a provider that does not sign sends with each post: HTTP Basic, or a field of its own.

use aws_lc_rs::{constant_time, digest};
use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderName, header::AUTHORIZATION};
use std::fmt;

/// Shortest password or value: a shorter one can be guessed over the network.
const SHORTEST: usize = 16;
/// Longest user, password or value.
const LONGEST: usize = 1024;

/// A secret that comes with each post. Only its hash is kept.
#[derive(Clone)]
pub struct Credential {
    place: Place,
    digest: [u8; 32],
}

#[derive(Clone, PartialEq, Eq)]
enum Place {
    /// `Authorization: Basic`.
    Basic,
    /// The whole value of this field.
    Field(HeaderName),
}

/// Why a credential cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CredentialError {
    /// The name is none that a field can have.
    #[error("the name of the header must be a token such as X-Webhook-Secret")]
    Name,
    /// A user name with a colon ends at the colon (RFC 7617, 2).
    #[error("the user name must not hold a colon or a control, and has at most 1024 characters")]
    User,
    /// Too short to be a secret, or too long.
    #[error("the secret must have from 16 to 1024 visible ASCII characters: make one with `openssl rand -hex 32`")]
    Secret,
}

impl Credential {
    /// HTTP Basic (RFC 7617).
    ///
    /// # Errors
    /// The user name has a colon, or the password is too short or too long.
    pub fn basic(user: &str, password: &str) -> Result<Self, CredentialError> {
        if user.len() > LONGEST || user.contains(':') || user.chars().any(char::is_control) {
            return Err(CredentialError::User);
        }
        secret(password)?;
        Ok(Self { place: Place::Basic, digest: sha256(format!("{user}:{password}").as_bytes()) })
    }

    /// A field whose whole value is the secret.
    ///
    /// # Errors
    /// The name is none, or the value is too short or too long.
    pub fn field(name: &str, value: &str) -> Result<Self, CredentialError> {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| CredentialError::Name)?;
        secret(value)?;
        Ok(Self { place: Place::Field(name), digest: sha256(value.as_bytes()) })
    }

    /// An OAuth 2 access token, `Authorization: Bearer` (RFC 6750).
    ///
    /// # Errors
    /// The token is too short or too long.
    pub fn bearer(token: &str) -> Result<Self, CredentialError> {
        secret(token)?;
        Ok(Self { place: Place::Field(AUTHORIZATION), digest: sha256(format!("Bearer {token}").as_bytes()) })
    }

    /// Whether the request bears it; `None` when it bears nothing in that place. The time that it takes does not depend
    /// on where two secrets differ.
    pub(super) fn matches(&self, headers: &HeaderMap) -> Option<bool> {
        let name = match &self.place {
            Place::Basic => &AUTHORIZATION,
            Place::Field(name) => name,
        };
        let mut all = headers.get_all(name).iter();
        let first = all.next()?;
        let given = match &self.place {
            Place::Basic => basic(first.as_bytes()).unwrap_or_default(),
            Place::Field(_) => first.as_bytes().to_vec(),
        };
        let same = constant_time::verify_slices_are_equal(&sha256(&given), &self.digest).is_ok();
        // One field in two places could be read as either.
        Some(same && all.next().is_none())
    }

    /// Whether a client that has sent nothing is to be asked for it (RFC 7235, 4.1): SNS sends it only then.
    pub(super) fn is_basic(&self) -> bool {
        self.place == Place::Basic
    }
}

fn secret(text: &str) -> Result<(), CredentialError> {
    let fits = (SHORTEST..=LONGEST).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    if fits { Ok(()) } else { Err(CredentialError::Secret) }
}

/// `user:password` of an `Authorization: Basic`.
fn basic(value: &[u8]) -> Option<Vec<u8>> {
    let (scheme, rest) = value.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    STANDARD.decode(rest.trim_ascii()).ok()
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    hash
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credential(<hidden>)")
    }
}
