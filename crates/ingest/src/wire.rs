//! Between our types and those of the wire.

use chrono::{DateTime, Utc};
use prost_types::{Duration, Timestamp};

/// A point in time.
pub fn timestamp(at: DateTime<Utc>) -> Timestamp {
    let nanos = i32::try_from(at.timestamp_subsec_nanos()).unwrap_or(0);
    Timestamp { seconds: at.timestamp(), nanos }
}

/// A span of the wire; `None` for one that is negative or has another form. (The conversion of prost panics at the least
/// number of seconds.)
pub fn span(given: Duration) -> Option<std::time::Duration> {
    let nanos = u32::try_from(given.nanos).ok().filter(|nanos| *nanos < 1_000_000_000)?;
    Some(std::time::Duration::new(u64::try_from(given.seconds).ok()?, nanos))
}

/// A span of time.
pub fn duration(span: std::time::Duration) -> Duration {
    Duration {
        seconds: i64::try_from(span.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(span.subsec_nanos()).unwrap_or(0),
    }
}

/// A number that cannot be negative.
pub fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
