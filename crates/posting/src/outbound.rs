//! Signs the posts that mailfleet sends to its users' endpoints, as Standard Webhooks has it, and verifies such posts.
//!
//! A post bears `webhook-id` (the same in every attempt: receivers remember it), `webhook-timestamp` (of this attempt)
//! and `webhook-signature`: one signature for each key, so that a key is rotated by signing with the old and the new
//! one until every receiver knows the new.

use super::{Untimely, VerifyingKey, Window, header, keys::SigningKey, window::unix_seconds};
use chrono::{DateTime, Utc};
use http::HeaderMap;

/// The most keys that sign one post: more than a rotation needs is a mistake, and each costs every attempt.
pub const MAX_KEYS: usize = 4;
/// Longest id of a post.
pub const LONGEST_ID: usize = 128;
/// The most signatures of a post that are looked at; each is tried with each key.
const MAX_SIGNATURES: usize = 16;

/// Signs posts.
#[derive(Debug)]
pub struct Signer {
    keys: Vec<SigningKey>,
}

/// Why keys or an id cannot be used to sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// No key, or too many.
    #[error("must have from 1 to {MAX_KEYS} keys")]
    Keys,
    /// An id could be read as another with another time.
    #[error("the id must have from 1 to {LONGEST_ID} visible ASCII characters and no dot")]
    Id,
    /// A time before 1970.
    #[error("the time must not lie before 1970")]
    Time,
}

/// The headers of a signed post.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedHeaders {
    id: String,
    timestamp: String,
    signature: String,
}

impl SignedHeaders {
    /// Names and values.
    pub fn fields(&self) -> [(&'static str, &str); 3] {
        let [id, timestamp, signature] = Names::STANDARD.all();
        [(id, &self.id), (timestamp, &self.timestamp), (signature, &self.signature)]
    }
}

impl Signer {
    /// A signer whose posts bear a signature of each of these keys.
    ///
    /// # Errors
    /// There is no key, or there are more than [`MAX_KEYS`].
    pub fn new(keys: Vec<SigningKey>) -> Result<Self, SignError> {
        if keys.is_empty() || keys.len() > MAX_KEYS { Err(SignError::Keys) } else { Ok(Self { keys }) }
    }

    /// The headers of one attempt to post `body`.
    ///
    /// # Errors
    /// The id cannot be signed, or the time lies before 1970.
    pub fn sign(&self, id: &str, attempt_at: DateTime<Utc>, body: &[u8]) -> Result<SignedHeaders, SignError> {
        let fits =
            (1..=LONGEST_ID).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'.');
        if !fits {
            return Err(SignError::Id);
        }
        if attempt_at.timestamp() < 0 {
            return Err(SignError::Time);
        }
        let timestamp = attempt_at.timestamp().to_string();
        let signed = signed(id, &timestamp, body);
        let signatures: Vec<String> = self.keys.iter().map(|key| key.sign(&signed)).collect();
        Ok(SignedHeaders { id: id.to_owned(), timestamp, signature: signatures.join(" ") })
    }
}

/// A post whose signature holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// Its id, the same in every attempt: what was seen before is not handled again.
    pub id: String,
    /// When this attempt was made.
    pub at: DateTime<Utc>,
}

/// Why a post is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// A header is missing.
    #[error("the header {0} is missing")]
    Missing(&'static str),
    /// A header is there more than once, or holds other than visible ASCII.
    #[error("the header {0} must be there once, as visible ASCII")]
    Ambiguous(&'static str),
    /// A header holds what it cannot.
    #[error("the header {0} has another form than the specification has it")]
    Form(&'static str),
    /// The time lies outside of the window.
    #[error("the time of the post {0}")]
    Untimely(Untimely),
    /// No signature is of one of the keys.
    #[error("no signature fits any of the keys")]
    Signature,
}

/// Verifies a post: one signature of one key is enough, unknown versions are passed over.
///
/// # Errors
/// See [`VerifyError`].
pub fn verify(
    keys: &[VerifyingKey],
    headers: &HeaderMap,
    body: &[u8],
    window: Window,
    now: DateTime<Utc>,
) -> Result<Checked, VerifyError> {
    verify_named(Names::STANDARD, keys, headers, body, window, now)
}

/// How the three headers are called.
#[derive(Clone, Copy)]
pub struct Names {
    id: &'static str,
    timestamp: &'static str,
    signature: &'static str,
}

impl Names {
    /// Those of the specification.
    pub const STANDARD: Self =
        Self { id: "webhook-id", timestamp: "webhook-timestamp", signature: "webhook-signature" };
    /// Of senders that Svix hosts.
    pub const SVIX: Self = Self { id: "svix-id", timestamp: "svix-timestamp", signature: "svix-signature" };

    const fn all(self) -> [&'static str; 3] {
        [self.id, self.timestamp, self.signature]
    }

    /// Svix's own names where the request has its id, else those of the specification.
    pub fn of(headers: &HeaderMap) -> Self {
        if headers.contains_key(Self::STANDARD.id) && !headers.contains_key(Self::SVIX.id) {
            Self::STANDARD
        } else {
            Self::SVIX
        }
    }
}

/// [`verify`], with headers of other names.
///
/// # Errors
/// See [`VerifyError`].
pub fn verify_named(
    names: Names,
    keys: &[VerifyingKey],
    headers: &HeaderMap,
    body: &[u8],
    window: Window,
    now: DateTime<Utc>,
) -> Result<Checked, VerifyError> {
    let only = |name| {
        header::only(headers, name).map_err(|unusable| match unusable {
            header::Unusable::Missing => VerifyError::Missing(name),
            header::Unusable::Ambiguous => VerifyError::Ambiguous(name),
        })
    };
    let [id, timestamp, signatures] = [only(names.id)?, only(names.timestamp)?, only(names.signature)?];
    // With a dot in it, the same octets could be signed for another id and time.
    if id.is_empty() || id.len() > LONGEST_ID || id.contains('.') {
        return Err(VerifyError::Form(names.id));
    }
    let at = unix_seconds(timestamp).ok_or(VerifyError::Form(names.timestamp))?;
    window.check(at, now).map_err(VerifyError::Untimely)?;
    let signed = signed(id, timestamp, body);
    let mut given = signatures.split(' ').filter(|signature| !signature.is_empty()).take(MAX_SIGNATURES);
    if given.any(|signature| keys.iter().any(|key| key.verifies(&signed, signature))) {
        Ok(Checked { id: id.to_owned(), at })
    } else {
        Err(VerifyError::Signature)
    }
}

/// What is signed.
fn signed(id: &str, timestamp: &str, body: &[u8]) -> Vec<u8> {
    [id.as_bytes(), b".", timestamp.as_bytes(), b".", body].concat()
}
