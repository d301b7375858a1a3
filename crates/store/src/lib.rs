//! Postgres: the schema, its migrations, and every statement that mailfleet makes.
//!
//! Postgres holds the backlog and the truth. A message is in exactly one of `waiting` and `moving`, or it is
//! closed and its closing fact is written. Only compare-and-set statements move it, each named for what it does
//! in the table of transitions (`domain::TRANSITIONS`): accept, release, claim, record, park, repair, refuse,
//! doubt. Whoever moves a message inserts what happened into `facts` in the same transaction; [`Store::fold`]
//! turns facts into the log and the roll-ups.
//!
//! The statements of the hot path stand in `src/sql`, since the plan test explains the same text. They run with
//! sequential scans switched off for their transaction only (`SET LOCAL`, which a transaction-mode pooler keeps
//! apart): a plan cached while a table was empty must not walk it when it holds a million rows.
//!
//! Every call ends within [`StoreConfig::call_timeout`]: the driver has no keepalive, so a query to a server that
//! vanished would wait for ever. The connection of a call that ran out of time is closed, not reused.

mod accept;
pub mod admin;
mod audit_log;
mod bus_state;
mod clock;
mod contents;
mod dead_letters;
mod dispatch;
mod domain_keys;
mod domains;
mod endpoints;
mod error;
mod faults;
mod feedback;
mod inbound;
mod keeper;
mod leases;
mod listing;
mod log;
mod marks;
mod messages;
mod metrics;
mod moving;
mod queues;
mod quotas;
mod replies;
mod sites;
mod suppressions;
mod tail;
mod templates;
mod tempos;
mod tenants;
mod warmups;

pub use accept::{AcceptCall, AcceptOutcome, Idempotency, NewContent, NewMessage, Replay};
pub use audit_log::{Actor, AuditEvent};
pub use bus_state::BusState;
pub use contents::{Content, ContentKind};
pub use dead_letters::{DeadLetter, Given, Requeue};
pub use dispatch::{DoubtPolicy, DueQueue, InMotion, Quota, Released, Repaired};
pub use domain_keys::{DomainKey, KeyState};
pub use domains::{DkimAlgorithm, NewDkimKey, SealedKey, SendingDomain};
pub use endpoints::{Endpoint, EndpointChange, EndpointState, NewEndpoint, ParkedEvent, Progress, TakenEndpoint};
pub use error::StoreError;
pub use feedback::{Correspondent, Effect, Engagement, Feedback, RecordedFeedback};
pub use inbound::{
    Door, DueInbound, InboundEntry, InboundFilter, InboundMail, InboundOutcome, InboundState, NewDmarcReport,
    NewDmarcRow, NewTlsReport,
};
pub use keeper::{KeptLease, LeaseKeeper, LeaseTerms};
pub use leases::{Lease, LeaseHolder};
pub use listing::{ListFilter, ListPosition, Listed};
pub use log::{Audit, Fold, LogHead, SiteFigures};
pub use marks::UnsettledMark;
pub use messages::{Event, MessageView, Whereabouts};
pub use metrics::{Dimensions, MetricBucket, MetricRow, MetricsQuery};
pub use moving::{Claim, Claimed, Failed, Orphan, Outcome, Parked, Recorded, Verdict, What};
pub use queues::{Pause, PauseSelector, QueueKey, QueueView};
pub use quotas::{Ask, Lent, Loan, QuotaPeriod, Quotas};
pub use replies::{ReplyPage, StoredReply};
pub use sites::SiteEvents;
pub use suppressions::{
    NewSuppression, Suppressed, Suppression, SuppressionCause, SuppressionEntry, SuppressionFilter, SuppressionPlace,
};
pub use tail::{LogEntry, LogPage};
pub use templates::{
    NewTemplateVersion, Template, TemplateContent, TemplateVersion, TemplateVersionSource, TemplateVersionSummary,
};
pub use tempos::{NewTempoChange, TempoChange, TempoLift, TempoPlace};
pub use tenants::{ApiKey, MAX_PREVIOUS_SECRETS, NewApiKey, PreviousSecret, Rotated, Tenant};
pub use warmups::{NewWarmup, Warmup, WarmupDay, WarmupSlice};

use failpoint::Faults;
use sqlx::{
    PgPool, Postgres,
    pool::PoolConnection,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use std::{str::FromStr, sync::Arc, time::Duration};

/// The migrations, in order.
pub static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!();

/// How a service reaches Postgres.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// `postgres://user@host/database`.
    pub url: String,
    /// Most connections of this process, 1 to 1,000. More let more calls run at once and cost the server memory.
    pub max_connections: u32,
    /// Longest wait for a free connection before a call fails as unavailable.
    pub acquire_timeout: Duration,
    /// Longest time for one call, its transaction included. After it the server is taken for gone, and the
    /// connection is closed. The three below are enforced by the server, and never longer than this.
    pub call_timeout: Duration,
    /// Longest time for one statement.
    pub statement_timeout: Duration,
    /// Longest wait for a lock.
    pub lock_timeout: Duration,
    /// How long a transaction may lie idle before the server ends it: what a vanished caller holds, others wait for.
    pub idle_in_transaction_timeout: Duration,
    /// What the server shows as this connection's application.
    pub application: String,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            url: "postgres://localhost/mailfleet".to_owned(),
            max_connections: 8,
            acquire_timeout: Duration::from_secs(5),
            call_timeout: Duration::from_secs(15),
            statement_timeout: Duration::from_secs(10),
            lock_timeout: Duration::from_secs(5),
            idle_in_transaction_timeout: Duration::from_secs(10),
            application: "mailfleet".to_owned(),
        }
    }
}

/// The database. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    pool: PgPool,
    call_timeout: Duration,
    known: Arc<Known>,
    faults: Option<Faults>,
    actor: Option<Actor>,
}

/// What this process has seen stored and what never changes once it is.
#[derive(Default)]
struct Known {
    queues: std::sync::RwLock<std::collections::HashMap<QueueKey, i64>>,
    contents: std::sync::RwLock<std::collections::HashSet<domain::ContentId>>,
}

/// How many queues or contents a process remembers as stored, before it forgets all and asks again.
const KNOWN_LIMIT: usize = 200_000;

impl Store {
    /// Connects and checks that every migration has been applied.
    ///
    /// # Errors
    /// When the server cannot be reached, or the schema is older or newer than this program.
    pub async fn connect(config: &StoreConfig) -> Result<Self, StoreError> {
        let store = Self::connect_unchecked(config).await?;
        store.check_schema().await?;
        Ok(store)
    }

    /// Connects without a look at the schema; for migrations and administration.
    ///
    /// # Errors
    /// When the server cannot be reached.
    pub async fn connect_unchecked(config: &StoreConfig) -> Result<Self, StoreError> {
        let millis = |limit: Duration| format!("{}ms", limit.min(config.call_timeout).as_millis().max(1));
        let options = PgConnectOptions::from_str(&config.url)
            .map_err(|source| StoreError::Connect { source })?
            .application_name(&config.application)
            .options([
                ("statement_timeout", millis(config.statement_timeout)),
                ("lock_timeout", millis(config.lock_timeout)),
                ("idle_in_transaction_session_timeout", millis(config.idle_in_transaction_timeout)),
                ("jit", "off".to_owned()),
                ("timezone", "UTC".to_owned()),
            ]);
        let pool = PgPoolOptions::new()
            .max_connections(config.max_connections)
            .acquire_timeout(config.acquire_timeout)
            .test_before_acquire(false)
            .connect_with(options)
            .await
            .map_err(|source| StoreError::Connect { source })?;
        Ok(Self { pool, call_timeout: config.call_timeout, known: Arc::default(), faults: None, actor: None })
    }

    /// The same store, of whose calls on a message's road some go wrong. For tests.
    #[must_use]
    pub fn with_faults(self, faults: Option<Faults>) -> Self {
        Self { faults, ..self }
    }

    async fn check_schema(&self) -> Result<(), StoreError> {
        let applied: Vec<i64> =
            sqlx::query_scalar("select version from public._sqlx_migrations where success order by version")
                .fetch_all(&self.pool)
                .await
                .map_err(|source| match source {
                    sqlx::Error::Database(error) if error.code().as_deref() == Some("42P01") => StoreError::NotMigrated,
                    source => StoreError::Connect { source },
                })?;
        let wanted: Vec<i64> = MIGRATOR.iter().map(|migration| migration.version).collect();
        if applied == wanted { Ok(()) } else { Err(StoreError::NotMigrated) }
    }

    /// Whether the server answers.
    ///
    /// # Errors
    /// When it does not, within the call's time.
    pub async fn ping(&self) -> Result<(), StoreError> {
        call!(self, conn => {
            sqlx::query("select 1").execute(&mut *conn).await?;
        })
    }

    /// Closes every connection, waiting for calls under way.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

/// Applies what is missing of the migrations.
///
/// # Errors
/// When the server cannot be reached, or a migration fails or was changed after it had been applied.
pub async fn migrate(url: &str) -> Result<(), StoreError> {
    use sqlx::Connection;
    let mut conn = sqlx::PgConnection::connect(url).await.map_err(|source| StoreError::Connect { source })?;
    // Once there is a schema `mailfleet`, a user of that name would look there first, and find no migration applied.
    sqlx::query("set search_path = public").execute(&mut conn).await?;
    MIGRATOR.run(&mut conn).await.map_err(|source| StoreError::Migrate { source: Box::new(source) })?;
    conn.close().await?;
    Ok(())
}

/// Begins a transaction of the hot path: index scans only, and durable before it is answered.
const HOT: &str = "begin; set local enable_seqscan = off; set local synchronous_commit = on";
/// As [`HOT`], for statements whose loss only makes work be done again.
const PLAIN: &str = "begin";

/// A connection on which a transaction begins. The driver rolls back what is dropped later, but not what is dropped
/// before the server has answered the `begin`: the pool would lend the connection with that transaction open, and
/// what the next caller writes would wait in it, answered and not committed. So it is closed.
pub(crate) struct Beginning {
    pub(crate) pooled: PoolConnection<Postgres>,
    pub(crate) has_begun: bool,
}

impl Drop for Beginning {
    fn drop(&mut self) {
        if !self.has_begun {
            self.pooled.close_on_drop();
        }
    }
}

/// Runs a block with a connection, within the store's call time; the connection is closed when the time ran out.
macro_rules! call {
    ($store:expr, $conn:ident => $body:block) => {
        $crate::faults::perhaps!($store, {
            let mut pooled = $store.pool.acquire().await?;
            let outcome = tokio::time::timeout($store.call_timeout, async {
                let $conn = &mut *pooled;
                let value = $body;
                Ok::<_, $crate::StoreError>(value)
            })
            .await;
            match outcome {
                Ok(outcome) => outcome,
                Err(_) => {
                    pooled.close_on_drop();
                    Err($crate::StoreError::Timeout)
                }
            }
        })
    };
}

/// As `call!`, in a transaction begun by `$begin` and committed after the block.
macro_rules! transaction {
    ($store:expr, $begin:expr, $conn:ident => $body:block) => {
        $crate::faults::perhaps!($store, {
            let mut beginning = $crate::Beginning { pooled: $store.pool.acquire().await?, has_begun: false };
            let outcome = tokio::time::timeout($store.call_timeout, async {
                let $crate::Beginning { pooled, has_begun } = &mut beginning;
                let mut tx = sqlx::Connection::begin_with(&mut **pooled, $begin).await?;
                *has_begun = true;
                let $conn = &mut *tx;
                let value = $body;
                tx.commit().await?;
                Ok::<_, $crate::StoreError>(value)
            })
            .await;
            match outcome {
                Ok(outcome) => outcome,
                Err(_) => {
                    beginning.pooled.close_on_drop();
                    Err($crate::StoreError::Timeout)
                }
            }
        })
    };
}
use {call, transaction};
