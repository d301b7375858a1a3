//! What the dispatcher knows of the broker.

use crate::{Store, StoreError, call};

/// The broker as it was last seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BusState {
    /// Raised whenever the streams are other ones than before.
    pub epoch: i64,
    /// Names the streams that were there under this epoch.
    pub identity: String,
}

impl Store {
    /// The broker as it was last seen.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn bus_state(&self) -> Result<BusState, StoreError> {
        call!(self, conn => {
            sqlx::query_as!(BusState, "select epoch, identity from mailfleet.bus_state").fetch_one(conn).await?
        })
    }

    /// Notes that the streams are those of `identity`; raises the epoch when they were other ones. Returns the epoch.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn observe_bus(&self, identity: &str) -> Result<i64, StoreError> {
        call!(self, conn => {
            sqlx::query_scalar!(
                "update mailfleet.bus_state
                 set epoch = epoch + (identity <> $1)::integer, identity = $1
                 returning epoch",
                identity
            )
            .fetch_one(conn)
            .await?
        })
    }
}
