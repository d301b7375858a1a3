//! The database's clock, by which leases, due times and expiry are judged.

use crate::{Store, StoreError, call};
use chrono::{DateTime, Utc};
use std::time::Duration;

impl Store {
    /// What `mailfleet.clock()` says.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn now(&self) -> Result<DateTime<Utc>, StoreError> {
        call!(self, conn => { sqlx::query_scalar!(r#"select mailfleet.clock() as "now!""#).fetch_one(conn).await? })
    }

    /// Moves the clock of this database forward. For tests: leases run out and waits come due.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn advance_clock(&self, by: Duration) -> Result<(), StoreError> {
        call!(self, conn => {
            sqlx::query!(
                "update mailfleet.clock_offset set shift = shift + $1::double precision * interval '1 second'",
                by.as_secs_f64()
            )
            .execute(conn)
            .await?;
        })
    }
}
