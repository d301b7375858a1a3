//! The sender: delivers what the throttle lets go, and records what became of it.
//!
//! # The road of a letter
//! A sender owns shards by lease ([`ownership`]). For each, one task ([`desk`]) takes chunks of finished mail off
//! the bus, holds letters by site, and claims those that the site's limits let go within the next half second, many
//! in one statement. Claimed letters go to the site's connections ([`line`]), which deliver them ([`attempt`]) and
//! hand what came of it to the recorder ([`recorder`]), which writes outcomes to Postgres in batches.
//!
//! # What a crash leaves
//! - Before the claim: nothing. The chunk was not acknowledged; it comes again, or repair releases its rows again.
//! - Between claim and record: rows in `sending` under an epoch that ends. The journal ([`journal`]), read by the next
//!   process on this volume, tells which of them had their final dot sent; without it all of them are in doubt.
//! - After the record: nothing; the bus may deliver the chunk again, and its claims find no row.
//!
//! # What keeps two copies from being sent
//! The claim is a compare-and-set under a live lease, flushed before the first dot. Before each final dot the lease's
//! end is compared with the monotonic clock; past it the connection is closed without a dot. A dot that went out and
//! was not answered is doubt, never a deferral.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test ends at its first surprise"))]

mod api;
mod attempt;
mod config;
mod desk;
mod ear;
mod intake;
mod journal;
mod letters;
mod line;
mod metrics;
mod ownership;
mod pace;
mod provider;
mod recorder;
mod resolve;
mod route;
mod routes;
mod sessions;
mod tenure;
mod warmup;

pub use config::{
    AddressPolicy, BreakerConfig, Deadlines, DeskConfig, DirectConfig, JournalConfig, LeaseConfig, PoolConfig,
    PoolRouteConfig, ProviderConfig, RecordConfig, RelayConfig, RouteConfig, RulesFileError, SenderConfig, TlsMode,
    Transport, read_reactions, read_rules,
};
pub use route::RouteError;
pub use routes::RoutesError;

use domain::ShardCount;
use metrics::SenderMetrics;
use std::{sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;

/// Why a sender cannot start.
#[derive(Debug, thiserror::Error)]
pub enum SenderError {
    /// The database cannot be used.
    #[error("cannot use the database")]
    Store(#[from] store::StoreError),
    /// The routes cannot be used.
    #[error(transparent)]
    Routes(#[from] RoutesError),
    /// The rules for replies cannot be used.
    #[error(transparent)]
    Rules(#[from] RulesFileError),
    /// The journal cannot be used.
    #[error("cannot use the journal in {directory}")]
    Journal {
        /// Where it lies.
        directory: String,
        /// Why.
        source: std::io::Error,
    },
}

/// What cannot be meant by a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigProblem {
    /// The field.
    pub field: String,
    /// What is wrong with it, and the fix.
    pub text: String,
}

impl SenderConfig {
    /// Whether a sender could start with it, as far as this host can tell: files are read, nobody is talked to.
    ///
    /// # Errors
    /// With the first problem.
    pub fn check(&self) -> Result<(), ConfigProblem> {
        self.rules()
            .map_err(|error| ConfigProblem { field: "sender.reply_rules".to_owned(), text: error.to_string() })?;
        self.reactions()
            .map_err(|error| ConfigProblem { field: "sender.reactions".to_owned(), text: error.to_string() })?;
        if let Some(problem) = self.adapt.problem() {
            return Err(ConfigProblem { field: "sender.adapt".to_owned(), text: problem.to_owned() });
        }
        routes::Routes::new(self).map(|_| ()).map_err(|error| {
            let text = error.to_string();
            let (field, text) = text.split_once(": ").unwrap_or(("sender", &text));
            ConfigProblem { field: field.to_owned(), text: text.to_owned() }
        })
    }
}

/// What every part of a sender needs.
pub(crate) struct Office {
    pub(crate) config: SenderConfig,
    pub(crate) store: store::Store,
    pub(crate) bus: bus::Bus,
    pub(crate) press: Arc<press::Press>,
    pub(crate) routes: routes::Routes,
    pub(crate) rules: domain::Ruleset,
    pub(crate) reactions: domain::Reactions,
    pub(crate) tempos: ear::Tempos,
    pub(crate) warmups: warmup::Warmups,
    pub(crate) journal: journal::Journal,
    pub(crate) recorder: recorder::Recorder,
    pub(crate) metrics: SenderMetrics,
    /// KiB that letters rendered here may take, of each lane.
    pub(crate) rendered: [Arc<tokio::sync::Semaphore>; 2],
    pub(crate) shards: ShardCount,
    pub(crate) life: service::Lifecycle,
}

/// A sender that is ready to run.
pub struct Sender {
    office: Arc<Office>,
    recording: recorder::Recording,
    clerk: ear::TempoClerk,
    name: String,
}

impl Sender {
    /// Opens the journal, resolves what an earlier process on this volume left behind, and prepares the routes.
    ///
    /// # Errors
    /// When the database, the journal or a route cannot be used.
    pub async fn build(
        config: SenderConfig,
        shards: ShardCount,
        store: store::Store,
        bus: bus::Bus,
        press: Arc<press::Press>,
        registry: &service::Metrics,
        life: service::Lifecycle,
    ) -> Result<Self, SenderError> {
        let metrics = SenderMetrics::register(registry);
        let rules = config.rules()?;
        tracing::info!(version = rules.version(), "judges replies by these rules");
        let reactions = config.reactions()?;
        tracing::info!(version = reactions.version(), "reacts to replies by these rules");
        let (tempos, clerk) = ear::tempos();
        let routes = routes::Routes::new(&config)?;
        let name = config.instance_name();
        let directory = config.journal.directory.clone();
        let opened = journal::Journal::open(&config.journal, &name)
            .map_err(|source| SenderError::Journal { directory: directory.display().to_string(), source })?;
        let (journal, left) = opened;
        journal::resolve(&store, left, &config, &metrics).await?;
        let (recorder, recording) = recorder::recorder(&config.record);
        let room = (config.desk.rendered_bytes / intake::KIB / 2).max(1);
        let rendered = [room, room].map(|room| Arc::new(tokio::sync::Semaphore::new(room)));
        let office = Office {
            config,
            store,
            bus,
            press,
            routes,
            rules,
            reactions,
            tempos,
            warmups: warmup::Warmups::default(),
            journal,
            recorder,
            metrics,
            rendered,
            shards,
            life,
        };
        Ok(Self { office: Arc::new(office), recording, clerk, name })
    }

    /// The name under which this sender takes leases.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Owns shards and delivers until the shutdown is requested; then finishes what is under way, records it and gives
    /// its shards up.
    pub async fn run(self) {
        let Self { office, recording, clerk, name } = self;
        let stop = office.life.token();
        let recording = recording.run(Arc::clone(&office));
        let done = CancellationToken::new();
        let clerk = clerk.run(Arc::clone(&office), done.clone());
        let warming = warmup::keep(Arc::clone(&office), done.clone());
        let owning = async {
            ownership::own(Arc::clone(&office), name, stop.clone()).await;
            office.recorder.close();
            done.cancel();
            office.routes.close_unused(Duration::ZERO).await;
        };
        let idle = office.config.desk.idle;
        let closing = async {
            while stop.run_until_cancelled(tokio::time::sleep(idle / 2)).await.is_some() {
                office.routes.close_unused(idle).await;
            }
        };
        tokio::join!(recording, owning, closing, clerk, warming);
    }
}
