//! Makes events of what providers post.

mod json;
mod mailgun;
mod postmark;
mod reply;
mod resend;
mod sendgrid;
mod ses;
mod sparkpost;

use super::{Batch, Event, EventError, Provider, ReadError, Unreadable};
use aws_lc_rs::digest;
use serde_json::{Value, value::RawValue};

/// The name under which a provider gives our message id back: a custom argument, variable, tag or metadata.
pub const MID: &str = "mid";
/// Longest reply that is kept, in characters.
pub const MAX_REPLY: usize = 500;
/// Longest address of a link that is kept, in characters.
pub const MAX_URL: usize = 2_048;
/// Longest user agent that is kept, in characters.
pub const MAX_USER_AGENT: usize = 512;
/// Longest id, name or word of a provider that is kept, in characters.
pub const MAX_ID: usize = 200;

/// How much of a post is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest body, in octets; 2 MiB. SendGrid posts up to 768 KB at once, SparkPost some 350 events. Reading one
    /// takes up to some ten times its size in memory.
    pub body: usize,
    /// The most events of one post; 10,000.
    pub events: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { body: 2 * 1024 * 1024, events: 10_000 }
    }
}

/// Reads a body in the shape that the provider documents. [`super::Verified::read`] is the door for posts from outside.
///
/// An item that cannot be read is told in [`Batch::unreadable`] and the rest is read all the same. Octets that are no
/// UTF-8 are read as U+FFFD, so that one bad name does not lose a batch.
///
/// # Errors
/// The body is too large, has too many items, or is not JSON of the provider's shape at all.
pub fn read(provider: Provider, body: &[u8], limits: &Limits) -> Result<Batch, ReadError> {
    read_as(provider, body, limits, None)
}

/// [`read`], with the id that the post's headers bore: Resend's events have none of their own.
pub(super) fn read_as(
    provider: Provider,
    body: &[u8],
    limits: &Limits,
    post: Option<&str>,
) -> Result<Batch, ReadError> {
    if body.len() > limits.body {
        return Err(ReadError::TooLarge { limit: limits.body });
    }
    let text = String::from_utf8_lossy(body);
    let mut batch = Batch::default();
    match provider {
        Provider::Sendgrid => many(&text, limits, "an array of events", &mut batch, sendgrid::read)?,
        Provider::Sparkpost => many(&text, limits, "an array of objects with \"msys\"", &mut batch, sparkpost::read)?,
        Provider::Mailgun => one(&text, "an object with \"signature\" and \"event-data\"", &mut batch, mailgun::read)?,
        Provider::Postmark => one(&text, "an object with \"RecordType\"", &mut batch, postmark::read)?,
        Provider::Ses => ses::read(&text, &mut batch)?,
        Provider::Resend => {
            one(&text, "an object with \"type\" and \"data\"", &mut batch, |item| resend::read(item, post))?;
        }
    }
    Ok(batch)
}

/// What an item gave: no event where it says nothing about a delivery.
type Found = Result<Vec<Event>, EventError>;

fn many(
    text: &str,
    limits: &Limits,
    expected: &'static str,
    batch: &mut Batch,
    read: impl Fn(&Value) -> Found,
) -> Result<(), ReadError> {
    // Each item by itself: one that holds what cannot be kept is passed over as text.
    let items: Vec<&RawValue> = serde_json::from_str(text).map_err(|error| shape(expected, &error))?;
    if items.len() > limits.events {
        return Err(ReadError::TooMany { limit: limits.events });
    }
    for (index, item) in items.into_iter().enumerate() {
        keep(batch, index, item.get(), &read);
    }
    Ok(())
}

fn one(text: &str, expected: &'static str, batch: &mut Batch, read: impl Fn(&Value) -> Found) -> Result<(), ReadError> {
    let item: &RawValue = serde_json::from_str(text).map_err(|error| shape(expected, &error))?;
    if !item.get().starts_with('{') {
        return Err(ReadError::Shape { expected, line: 1, column: 1 });
    }
    keep(batch, 0, item.get(), &read);
    Ok(())
}

fn keep(batch: &mut Batch, index: usize, text: &str, read: impl Fn(&Value) -> Found) {
    let found = serde_json::from_str::<Value>(text)
        .map_err(|_| EventError::NotJson)
        .and_then(|item| if item.is_object() { read(&item) } else { Err(EventError::NotAnObject) });
    match found {
        Ok(events) if events.is_empty() => batch.ignored += 1,
        Ok(events) => batch.events.extend(events),
        Err(reason) => batch.unreadable.push(Unreadable { index, reason }),
    }
}

fn shape(expected: &'static str, error: &serde_json::Error) -> ReadError {
    ReadError::Shape { expected, line: error.line(), column: error.column() }
}

/// The key of an event, of the parts that only its copies share. One short part stays readable; several, or one that
/// may hold anything, are hashed, so that no address stands in a key.
fn dedupe(provider: Provider, parts: &[&str]) -> String {
    if let &[part] = parts
        && (1..=100).contains(&part.len())
        && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_=.+/".contains(&byte))
    {
        return format!("{provider}/{part}");
    }
    let mut hash = digest::Context::new(&digest::SHA256);
    for part in parts {
        hash.update(&(part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    format!("{provider}/sha256:{}", hex::encode(hash.finish().as_ref()))
}
