//! The time by which due times and expiry are judged: the database's, as far as this process knows it.
//!
//! Due times and expiry are compared in SQL by the database's clock. What is made from a caller's words here takes
//! the same clock: this machine's plus the offset that was last seen.

use chrono::{DateTime, Utc};
use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};
use store::{Store, StoreError};

/// A clock that follows the database's.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    offset_micros: Arc<AtomicI64>,
}

impl Clock {
    /// Now, by the database's clock.
    pub fn now(&self) -> DateTime<Utc> {
        service::clock::now() + chrono::TimeDelta::microseconds(self.offset_micros.load(Ordering::Relaxed))
    }

    /// Now, by this machine's clock: ids are made from it.
    pub fn machine_now(&self) -> DateTime<Utc> {
        service::clock::now()
    }

    /// Asks the database what time it is.
    ///
    /// # Errors
    /// When it does not answer; the last offset stays.
    pub async fn follow(&self, store: &Store) -> Result<(), StoreError> {
        let theirs = store.now().await?;
        let offset = (theirs - service::clock::now()).num_microseconds().unwrap_or(0);
        self.offset_micros.store(offset, Ordering::Relaxed);
        Ok(())
    }
}
