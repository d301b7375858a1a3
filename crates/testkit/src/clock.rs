//! The clock of one test.

use chrono::{DateTime, Utc};
use std::time::Duration;
use store::Store;

/// The clock by which the database judges leases, due times and expiry; it can be moved forward. Every
/// database has its own, so tests that run side by side do not disturb each other.
#[derive(Clone)]
pub struct VirtualClock {
    store: Store,
}

impl VirtualClock {
    /// The clock of this database.
    pub fn of(store: &Store) -> Self {
        Self { store: store.clone() }
    }

    /// Moves it forward.
    ///
    /// # Panics
    /// When the database does not answer.
    pub async fn advance(&self, by: Duration) {
        self.store.advance_clock(by).await.expect("the test database answers");
    }

    /// What it says.
    ///
    /// # Panics
    /// When the database does not answer.
    pub async fn now(&self) -> DateTime<Utc> {
        self.store.now().await.expect("the test database answers")
    }
}
