//! How old a post may be.

use chrono::{DateTime, TimeDelta, Utc};
use std::time::Duration;

/// How far the time that a post names may lie from ours. A wider window takes posts that were retried with their first
/// time, and costs a longer memory of what has been seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// The oldest, before now.
    pub past: Duration,
    /// The newest, after now: how much the clocks may differ.
    pub ahead: Duration,
}

/// Why a time lies outside of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Untimely {
    /// It lies too far back.
    #[error("is older than {} s", .0.as_secs())]
    Stale(Duration),
    /// It lies too far ahead.
    #[error("is more than {} s ahead of our clock", .0.as_secs())]
    Ahead(Duration),
}

impl Window {
    /// Five minutes either way, as the libraries of Standard Webhooks have it.
    pub const STANDARD: Self = Self { past: Duration::from_secs(300), ahead: Duration::from_secs(300) };

    /// Whether `at` lies within it.
    ///
    /// # Errors
    /// It lies before, or behind.
    pub fn check(self, at: DateTime<Utc>, now: DateTime<Utc>) -> Result<(), Untimely> {
        let age = now.signed_duration_since(at);
        if age > delta(self.past) {
            return Err(Untimely::Stale(self.past));
        }
        if -age > delta(self.ahead) {
            return Err(Untimely::Ahead(self.ahead));
        }
        Ok(())
    }

    /// When `at` begins to be refused as stale: nothing has to be remembered longer.
    pub fn end(self, at: DateTime<Utc>) -> DateTime<Utc> {
        at.checked_add_signed(delta(self.past)).unwrap_or(DateTime::<Utc>::MAX_UTC)
    }
}

fn delta(duration: Duration) -> TimeDelta {
    TimeDelta::from_std(duration).unwrap_or(TimeDelta::MAX)
}

/// The time that whole seconds since 1970 name, as decimal digits and nothing else.
pub fn unix_seconds(text: &str) -> Option<DateTime<Utc>> {
    let digits = !text.is_empty() && text.len() <= 12 && text.bytes().all(|byte| byte.is_ascii_digit());
    let seconds = if digits { text.parse().ok()? } else { return None };
    DateTime::from_timestamp(seconds, 0)
}
