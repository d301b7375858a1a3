//! What can go wrong between mailfleet and Postgres.

/// Why a call to the store failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The server could not be reached, or refused the connection.
    #[error("cannot connect to postgres")]
    Connect {
        /// The driver's error.
        source: sqlx::Error,
    },
    /// The schema is not the one that this program was built for.
    #[error("the database schema is not the one this program needs; run `mailfleet migrate`")]
    NotMigrated,
    /// A migration failed.
    #[error("cannot migrate the database")]
    Migrate {
        /// The driver's error.
        source: Box<sqlx::migrate::MigrateError>,
    },
    /// The call ran out of time. Whether it took effect is not known.
    #[error("postgres did not answer in time")]
    Timeout,
    /// A statement failed.
    #[error("a database statement failed")]
    Statement {
        /// The driver's error.
        #[from]
        source: sqlx::Error,
    },
    /// A stored value is not one that this program writes.
    #[error("{table}.{column} of {id} holds a value that cannot be")]
    Corrupt {
        /// The table.
        table: &'static str,
        /// The column.
        column: &'static str,
        /// The row.
        id: String,
    },
    /// Something of this name exists already.
    #[error("{what} exists already")]
    Exists {
        /// What exists.
        what: &'static str,
    },
}

impl StoreError {
    /// Whether the same call may succeed later without a change to it.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::Timeout => true,
            Self::Statement { source } => match source {
                sqlx::Error::Database(error) => {
                    // Serialisation, deadlock, out of resources, operator intervention, connection failures, a
                    // server that starts or stops, a standby that is not yet promoted, a password that is being
                    // changed, and failing disks.
                    error.code().is_some_and(|code| {
                        ["40", "53", "57", "08", "28", "58"].iter().any(|class| code.starts_with(class))
                            || code == "55P03"
                            || code == "25006"
                            // Our transaction lay idle, as when this process was stopped.
                            || code == "25P03"
                    })
                }
                sqlx::Error::Io(_)
                | sqlx::Error::Tls(_)
                | sqlx::Error::PoolTimedOut
                | sqlx::Error::PoolClosed
                | sqlx::Error::Protocol(_)
                | sqlx::Error::WorkerCrashed => true,
                _ => false,
            },
            Self::NotMigrated | Self::Migrate { .. } | Self::Corrupt { .. } | Self::Exists { .. } => false,
        }
    }

    /// Whether a unique constraint refused a row.
    pub(crate) fn or_exists(source: sqlx::Error, what: &'static str) -> Self {
        match source {
            sqlx::Error::Database(error) if error.is_unique_violation() => Self::Exists { what },
            source => Self::Statement { source },
        }
    }
}
