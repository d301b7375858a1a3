//! Fields of events, which providers write now as a number and now as a string.

use super::{MAX_ID, MAX_URL, MAX_USER_AGENT, MID};
use crate::webhook::EventError;
use chrono::{DateTime, Datelike, Utc};
use domain::{Mailbox, MessageId, text::sanitise};
use serde_json::Value;
use std::net::IpAddr;

/// Years in which an event can have happened: what lies outside is a mistake, and would fit into no partition.
const YEARS: std::ops::Range<i32> = 2000..2200;
/// Longest address of a mailbox, with a name before it, that is looked at.
const LONGEST_MAILBOX: usize = 1_000;

/// The field, as text: a string, or a number as it is written. `None` when it is empty or something else.
pub(super) fn text(item: &Value, key: &str) -> Option<String> {
    match item.get(key)? {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Null | Value::Bool(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

/// The field, borrowed, when it is a string; else an empty one.
pub(super) fn str<'a>(item: &'a Value, key: &str) -> &'a str {
    item.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// The field as an object or array; `null` when it is missing.
pub(super) fn part<'a>(item: &'a Value, key: &str) -> &'a Value {
    const NULL: &Value = &Value::Null;
    item.get(key).unwrap_or(NULL)
}

/// The field on one line and bounded.
pub(super) fn shown(item: &Value, key: &str, most: usize) -> Option<String> {
    Some(sanitise(&text(item, key)?, most)).filter(|text| !text.is_empty())
}

/// An id or a name.
pub(super) fn id(item: &Value, key: &str) -> Option<String> {
    shown(item, key, MAX_ID)
}

/// The field that is needed, as text.
pub(super) fn needed(item: &Value, key: &'static str) -> Result<String, EventError> {
    text(item, key).ok_or(EventError::Missing(key))
}

/// A whole number, also one that is written as a string.
pub(super) fn number(item: &Value, key: &str) -> Option<i64> {
    match item.get(key)? {
        Value::Number(number) => number.as_i64(),
        Value::String(text) => text.trim().parse().ok(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

/// A truth, also one that is written as a string or a digit.
pub(super) fn flag(item: &Value, key: &str) -> Option<bool> {
    match item.get(key)? {
        Value::Bool(flag) => Some(*flag),
        Value::String(text) => match text.as_str() {
            "true" | "True" | "1" => Some(true),
            "false" | "False" | "0" => Some(false),
            _ => None,
        },
        Value::Number(number) => number.as_u64().map(|number| number != 0),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// Seconds since 1970, whole or with a fraction, as a number or a string.
pub(super) fn unix(item: &Value, key: &'static str) -> Result<DateTime<Utc>, EventError> {
    let wrong = EventError::Wrong(key);
    if let Some(seconds) = number(item, key) {
        return sensible(DateTime::from_timestamp(seconds, 0)).ok_or(wrong);
    }
    let seconds: f64 = needed(item, key)?.trim().parse().map_err(|_| wrong)?;
    // Microseconds are what a float of this size holds. What is too large or no number saturates and is refused.
    sensible(DateTime::from_timestamp_micros((seconds * 1e6).round() as i64)).ok_or(wrong)
}

/// A time as RFC 3339 has it.
pub(super) fn rfc3339(item: &Value, key: &'static str) -> Result<DateTime<Utc>, EventError> {
    parse_rfc3339(&needed(item, key)?).ok_or(EventError::Wrong(key))
}

pub(super) fn parse_rfc3339(text: &str) -> Option<DateTime<Utc>> {
    sensible(DateTime::parse_from_rfc3339(text.trim()).ok().map(|at| at.with_timezone(&Utc)))
}

fn sensible(at: Option<DateTime<Utc>>) -> Option<DateTime<Utc>> {
    at.filter(|at| YEARS.contains(&at.year()))
}

/// A mailbox: `local@domain`, also with a name before it and in angle brackets.
pub(super) fn mailbox(text: &str) -> Option<Mailbox> {
    if text.len() > LONGEST_MAILBOX {
        return None;
    }
    let text = text.trim();
    let bare = match text.strip_suffix('>').and_then(|rest| rest.rsplit_once('<')) {
        Some((_, address)) => address,
        None => text,
    };
    bare.parse().ok()
}

/// The mailbox in a field.
pub(super) fn recipient(item: &Value, key: &str) -> Option<Mailbox> {
    mailbox(str(item, key))
}

/// The one mailbox of a list; `None` when there are several, since then nobody knows which it was.
pub(super) fn only_recipient(list: &Value) -> Option<Mailbox> {
    match list.as_array().map(Vec::as_slice) {
        Some([Value::String(only)]) => mailbox(only),
        Some(_) | None => None,
    }
}

/// Our message id among what the provider gave back: an object of values, of lists, or a list of names and values.
pub(super) fn mid(given: &Value) -> Option<MessageId> {
    let value = match given {
        Value::Object(fields) => fields.get(MID)?,
        Value::Array(pairs) => part(pairs.iter().find(|pair| str(pair, "name") == MID)?, "value"),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => return None,
    };
    let text = match value {
        Value::Array(values) => values.first()?.as_str()?,
        other => other.as_str()?,
    };
    text.parse().ok()
}

/// Our message id in the header that each of our mails bears, where a provider gives headers back.
pub(super) fn mid_of_headers(headers: &Value) -> Option<MessageId> {
    let named = |pair: &&Value| str(pair, "name").eq_ignore_ascii_case("X-Mailfleet-Id");
    str(headers.as_array()?.iter().find(named)?, "value").trim().parse().ok()
}

/// The address of a link.
pub(super) fn url(item: &Value, key: &str) -> Option<String> {
    shown(item, key, MAX_URL)
}

/// A user agent.
pub(super) fn user_agent(item: &Value, key: &str) -> Option<String> {
    shown(item, key, MAX_USER_AGENT)
}

/// An IP address.
pub(super) fn ip(item: &Value, key: &str) -> Option<IpAddr> {
    str(item, key).trim().parse().ok()
}
