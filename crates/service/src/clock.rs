//! The wall clock. Leases, due times and expiry are Postgres' business (`mailfleet.clock()`); everything
//! else takes the time as a parameter, and what hands it in gets it here.

use chrono::{DateTime, Utc};

/// The time now.
#[expect(clippy::disallowed_methods, reason = "this is the one reader of the wall clock")]
pub fn now() -> DateTime<Utc> {
    Utc::now()
}
