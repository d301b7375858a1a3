//! The feedback service: listens to everything that answers a mail.
//!
//! [`web`] answers recipients' programs: images, links, unsubscriptions. What they did is judged by rules ([`hits`]) and
//! committed in batches, or kept on disk while Postgres is away. [`inbound`] takes in the mails that come back, which
//! [`report`] reads; [`webhook`] reads what providers post.
//!
//! # What is promised
//! - An unsubscription is answered for once it is committed, or synced in the spool; nothing answered for is lost.
//! - A link is followed whatever else is down. Opens and clicks that come while Postgres is away are kept on disk; what
//!   waits when the process is killed, at most a second's worth, is not counted.
//! - What comes twice is counted once.
//! - A mail that comes in is taken once it is committed as it came, or synced in a spool.
//! - An event is posted to a tenant's endpoints until it is taken, or its owner is told that it was given up.
//! - A provider's post is answered for once it is committed; else the provider is told to come again.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod report;
pub mod webhook;

mod config;
mod desk;
mod hits;
mod hooks;
mod inbound;
mod metrics;
mod notify;
mod page;
mod spool;
mod web;

pub use config::{FeedbackConfig, SnsConfig, SpoolConfig, WebhookConfig};
pub use inbound::{InboundConfig, InboundSpoolConfig, InboundTls};
pub use notify::NotifyConfig;

use desk::Desk;
use domain::TokenKeys;
use metrics::Metrics;
use service::{Check, Health, HttpError, HttpServer, Lifecycle, Sealer};
use spool::Spool;
use std::{net::SocketAddr, sync::Arc};
use store::Store;

/// Why feedback cannot start.
#[derive(Debug, thiserror::Error)]
pub enum FeedbackError {
    /// A provider's posts cannot be verified.
    #[error("feedback.webhooks.{name}.{field}: {text}")]
    Webhook {
        /// As it is configured.
        name: String,
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        text: String,
    },
    /// The address for recipients cannot be bound.
    #[error("cannot serve recipients")]
    Web(#[from] HttpError),
    /// The port for mail cannot be bound.
    #[error("feedback.inbound.listen: cannot listen on {address}")]
    Inbound {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// It would call itself by what is no name.
    #[error("feedback.inbound.hostname")]
    Hostname(#[source] smtp::client::HeloNameError),
    /// The rules for what receivers say do not hold.
    #[error("feedback.inbound.reply_rules: {}: {text}", .path.display())]
    Rules {
        /// The file.
        path: std::path::PathBuf,
        /// What is wrong with it.
        text: String,
    },
    /// A certificate, or the roots that others are checked against, cannot be used.
    #[error("cannot set up TLS")]
    Tls(#[from] smtp::TlsSetupError),
    /// The spool cannot be used.
    #[error("cannot use the spool in {directory}")]
    Spool {
        /// Where it lies.
        directory: String,
        /// Why.
        source: std::io::Error,
    },
}

/// A feedback service that is ready to run.
pub struct FeedbackService {
    office: Arc<Office>,
    server: HttpServer,
    intake: desk::Intake,
    desk: Desk,
    gate: Option<inbound::Gate>,
    notifier: Option<Arc<notify::Notifier>>,
}

/// What every part needs.
pub(crate) struct Office {
    pub(crate) config: FeedbackConfig,
    pub(crate) store: Store,
    pub(crate) tokens: TokenKeys,
    pub(crate) metrics: Metrics,
    pub(crate) hooks: hooks::Hooks,
    /// Whether what is asked for can be kept. Postgres may be away: links are followed and wishes kept without it.
    pub(crate) keeping: Check,
}

impl FeedbackService {
    /// Binds the address and opens the spool.
    ///
    /// # Errors
    /// When either cannot be used.
    pub async fn build(
        config: FeedbackConfig,
        store: Store,
        tokens: TokenKeys,
        sealer: Arc<Sealer>,
        metrics: &service::Metrics,
        health: &Health,
    ) -> Result<Self, FeedbackError> {
        let metrics = metrics.register(Metrics::register);
        let hooks = hooks::open(&config)?;
        let server = HttpServer::bind(&config.web).await?;
        tracing::info!(address = %server.local_addr(), "answers recipients");
        let directory = config.spool.directory.display().to_string();
        let spool = Spool::open(config.spool.clone()).map_err(|source| FeedbackError::Spool { directory, source })?;
        let (intake, desk) = desk::desk(usize::try_from(config.queue.get()).unwrap_or(usize::MAX), spool);
        let keeping = health.check("keeping");
        keeping.pass();
        let office = Arc::new(Office { config, store, tokens, metrics, keeping, hooks });
        let gate = match office.config.inbound.clone() {
            Some(config) => Some(inbound::Gate::build(config, Arc::clone(&office), health).await?),
            None => None,
        };
        let notifier = if office.config.notify.enabled {
            let (config, metrics) = (office.config.notify.clone(), office.metrics.clone());
            Some(Arc::new(notify::Notifier::new(config, office.store.clone(), sealer, metrics)?))
        } else {
            None
        };
        Ok(Self { office, server, intake, desk, gate, notifier })
    }

    /// Where recipients reach it.
    pub fn web_addr(&self) -> SocketAddr {
        self.server.local_addr()
    }

    /// Where mail comes in, if it does.
    pub fn inbound_addr(&self) -> Option<SocketAddr> {
        self.gate.as_ref().map(inbound::Gate::local_addr)
    }

    /// Serves until the shutdown is requested; then answers what is under way and commits or spools it.
    pub fn run(self, life: &Lifecycle) {
        let Self { office, server, intake, desk, gate, notifier } = self;
        let router = web::router(Arc::clone(&office), intake);
        // Ends when the last request has its answer, and with it the router.
        server.spawn("feedback.web", router, life);
        life.spawn_finite("feedback.desk", desk.run(office));
        if let Some(gate) = gate {
            gate.run(life);
        }
        if let Some(notifier) = notifier {
            life.spawn("feedback.notify", notifier.run(life.token()));
        }
    }
}
