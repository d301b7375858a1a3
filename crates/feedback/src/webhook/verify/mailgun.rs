//! The signature in the body of Mailgun's webhooks: HMAC over a timestamp and a token.

use crate::webhook::{Reason, ReplayKey, Window, window::unix_seconds};
use aws_lc_rs::{constant_time, hmac};
use chrono::{DateTime, Utc};
use serde::Deserialize;

/// Longest token; those that are seen have 50 characters.
const LONGEST_TOKEN: usize = 100;

/// The part of the body that proves who posts. The rest is passed over here.
#[derive(Deserialize)]
struct Body {
    signature: Signature,
    /// Of the parent account, in events of a subaccount.
    #[serde(default, rename = "parent-signature")]
    parent: Option<Signature>,
}

#[derive(Deserialize)]
struct Signature {
    timestamp: Seconds,
    token: String,
    signature: String,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Seconds {
    Text(String),
    Number(u64),
}

/// An HTTP webhook signing key.
pub(super) fn key(text: &str) -> Option<hmac::Key> {
    let fits = (16..=256).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    fits.then(|| hmac::Key::new(hmac::HMAC_SHA256, text.as_bytes()))
}

pub(super) fn verify(keys: &[hmac::Key], body: &[u8], window: Window, now: DateTime<Utc>) -> Result<ReplayKey, Reason> {
    let malformed = |what| Reason::Malformed { what };
    let body: Body = serde_json::from_slice(body).map_err(|_| malformed("the body has no signature of Mailgun"))?;
    let given = std::iter::once(body.signature).chain(body.parent);
    let signature = given.into_iter().find(|given| keys.iter().any(|key| given.is_of(key)));
    let signature = signature.ok_or(Reason::WrongSignature)?;
    let at = unix_seconds(&signature.timestamp.text()).ok_or(malformed("the timestamp is not a number of seconds"))?;
    window.check(at, now).map_err(Reason::Untimely)?;
    let token = signature.token;
    let fits = (1..=LONGEST_TOKEN).contains(&token.len()) && token.bytes().all(|byte| byte.is_ascii_graphic());
    if !fits {
        return Err(malformed("the token is empty, too long, or no token"));
    }
    Ok(ReplayKey::new(token, window.end(at)))
}

impl Signature {
    fn is_of(&self, key: &hmac::Key) -> bool {
        let mut mac = hmac::Context::with_key(key);
        mac.update(self.timestamp.text().as_bytes());
        mac.update(self.token.as_bytes());
        let expected = hex::encode(mac.sign().as_ref());
        constant_time::verify_slices_are_equal(expected.as_bytes(), self.signature.as_bytes()).is_ok()
    }
}

impl Seconds {
    fn text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Number(number) => number.to_string(),
        }
    }
}
