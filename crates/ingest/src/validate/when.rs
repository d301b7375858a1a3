//! Times: when a mail goes, and when it is no longer worth sending.

use super::{Faults, Violation};
use chrono::{DateTime, TimeDelta, Utc};
use domain::Lane;

/// How far ahead a mail may be scheduled.
pub const MAX_AHEAD: TimeDelta = TimeDelta::days(30);
/// Shortest time to live.
pub const MIN_TTL: TimeDelta = TimeDelta::minutes(1);
/// Longest time to live.
pub const MAX_TTL: TimeDelta = TimeDelta::days(7);
/// Time to live of transactional mail whose call names none.
pub const TRANSACTIONAL_TTL: TimeDelta = TimeDelta::days(1);
/// Time to live of bulk mail whose call names none.
pub const BULK_TTL: TimeDelta = TimeDelta::days(3);

/// When a mail goes and ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// Not before this; `None`: at once.
    pub send_at: Option<DateTime<Utc>>,
    /// The end of its time to live.
    pub expires_at: DateTime<Utc>,
}

/// A point in time of the wire.
///
/// # Errors
/// The fault.
pub fn timestamp(field: &str, given: &prost_types::Timestamp) -> Result<DateTime<Utc>, Violation> {
    u32::try_from(given.nanos)
        .ok()
        .filter(|nanos| *nanos < 1_000_000_000)
        .and_then(|nanos| DateTime::from_timestamp(given.seconds, nanos))
        .ok_or_else(|| Violation::new(field, "is not a point in time; give a valid google.protobuf.Timestamp"))
}

/// Looks at the times of a mail.
pub fn times(
    faults: &mut Faults,
    send_at: Option<&prost_types::Timestamp>,
    time_to_live: Option<&prost_types::Duration>,
    lane: Lane,
    now: DateTime<Utc>,
) -> Option<Times> {
    let send_at = match send_at {
        Some(given) => Some(faults.take(timestamp("mail.send_at", given))?),
        None => None,
    };
    if send_at.is_some_and(|at| at > now + MAX_AHEAD) {
        faults.add("mail.send_at", format!("is too far ahead; give at most {} days", MAX_AHEAD.num_days()));
        return None;
    }
    let send_at = send_at.filter(|at| *at > now);
    let ttl = match time_to_live {
        None if lane == Lane::Transactional => TRANSACTIONAL_TTL,
        None => BULK_TTL,
        Some(given) => {
            let ttl = u32::try_from(given.nanos).ok().and_then(|nanos| TimeDelta::new(given.seconds, nanos));
            match ttl.filter(|ttl| (MIN_TTL..=MAX_TTL).contains(ttl)) {
                Some(ttl) => ttl,
                None => {
                    faults.add("mail.time_to_live", "is out of range; give 60 seconds to 7 days");
                    return None;
                }
            }
        }
    };
    Some(Times { send_at, expires_at: send_at.unwrap_or(now) + ttl })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> DateTime<Utc> {
        DateTime::from_timestamp(1_790_000_000, 0).expect("is a time")
    }

    fn at(seconds: i64) -> prost_types::Timestamp {
        prost_types::Timestamp { seconds: now().timestamp() + seconds, nanos: 0 }
    }

    #[test]
    fn the_time_to_live_counts_from_the_schedule() {
        let mut faults = Faults::default();
        let ttl = prost_types::Duration { seconds: 3600, nanos: 0 };
        let found = times(&mut faults, Some(&at(600)), Some(&ttl), Lane::Bulk, now()).expect("is valid");
        assert_eq!(found.expires_at, now() + TimeDelta::seconds(4200));
        let past = times(&mut faults, Some(&at(-600)), None, Lane::Transactional, now()).expect("is valid");
        assert_eq!(past, Times { send_at: None, expires_at: now() + TRANSACTIONAL_TTL });
        assert!(faults.is_empty());
    }

    #[test]
    fn impossible_times_are_refused() {
        for (send_at, ttl) in [
            (Some(at(31 * 86_400)), None),
            (Some(prost_types::Timestamp { seconds: i64::MAX, nanos: 0 }), None),
            (Some(prost_types::Timestamp { seconds: 0, nanos: -1 }), None),
            (None, Some(prost_types::Duration { seconds: 59, nanos: 0 })),
            (None, Some(prost_types::Duration { seconds: -60, nanos: 0 })),
            (None, Some(prost_types::Duration { seconds: i64::MAX, nanos: i32::MAX })),
            (None, Some(prost_types::Duration { seconds: 8 * 86_400, nanos: 0 })),
        ] {
            let mut faults = Faults::default();
            assert_eq!(times(&mut faults, send_at.as_ref(), ttl.as_ref(), Lane::Bulk, now()), None);
            assert_eq!(faults.into_vec().len(), 1);
        }
    }
}
