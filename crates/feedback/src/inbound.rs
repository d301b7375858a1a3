//! Mail that comes in: to the return paths of the fleet's mails, to the addresses at which recipients unsubscribe, and to
//! the mailboxes of reports.
//!
//! A mail is answered for once it is committed as it came, or synced in the spool; what it says is read afterwards
//! ([`read`]), by whichever process comes first, and read anew when an operator asks for it.

mod config;
mod desk;
mod read;
mod session;
mod spool;

pub use config::{InboundConfig, InboundSpoolConfig, InboundTls};

use crate::{
    FeedbackError, Office,
    report::{Limits, Reader},
};
use desk::{Desk, Intake};
use domain::Ruleset;
use service::{Check, Health, Lifecycle};
use session::Session;
use smtp::{
    client::HeloName,
    server::{Crowd, Listener, ServerConfig},
};
use spool::MailSpool;
use std::{net::SocketAddr, path::Path, sync::Arc};
use tokio::sync::{Notify, Semaphore};

/// What every part needs.
pub(crate) struct Inbound {
    pub(crate) config: InboundConfig,
    pub(crate) office: Arc<Office>,
    /// Places for bodies that come in.
    pub(crate) bodies: Arc<Semaphore>,
    /// Reads them.
    pub(crate) reader: Reader,
    /// Rung when mails have been committed.
    pub(crate) bell: Notify,
    /// Whether what comes in can be kept.
    pub(crate) keeping: Check,
}

/// Rules of an operator's own for what receivers say, before those that are built in.
fn own_rules(path: &Path) -> Result<Ruleset, FeedbackError> {
    let wrong = |text: String| FeedbackError::Rules { path: path.to_owned(), text };
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    Ruleset::parse_own(&text).map_err(|error| wrong(error.to_string()))
}

/// A bound port, ready to take mail in.
pub(crate) struct Gate {
    inbound: Arc<Inbound>,
    listener: Listener,
    intake: Intake,
    desk: Desk,
}

impl Gate {
    /// Binds the port and opens the spool.
    pub(crate) async fn build(
        config: InboundConfig,
        office: Arc<Office>,
        health: &Health,
    ) -> Result<Self, FeedbackError> {
        let name: HeloName = config.hostname.parse().map_err(FeedbackError::Hostname)?;
        let tls = match &config.tls {
            Some(tls) => Some(smtp::server_tls(&tls.certificate_file, tls.key_file.path())?),
            None => None,
        };
        let server = ServerConfig {
            max_recipients: config.max_recipients.get(),
            max_size: config.max_octets.get(),
            idle: config.idle,
            session: config.session,
            tls,
            ..ServerConfig::new(name.as_str())
        };
        let crowd =
            Crowd { sessions: config.max_sessions, per_address: config.max_sessions_per_address, grace: config.grace };
        let listener = Listener::bind(config.listen, server, crowd)
            .await
            .map_err(|source| FeedbackError::Inbound { address: config.listen, source })?;
        tracing::info!(address = %listener.local_addr(), "takes mail in");
        let directory = config.spool.directory.display().to_string();
        let spool =
            MailSpool::open(config.spool.clone()).map_err(|source| FeedbackError::Spool { directory, source })?;
        let (intake, desk) = desk::desk(spool);
        let keeping = health.check("keeping_mail");
        keeping.pass();
        let bodies = Arc::new(Semaphore::new(config.max_bodies.get().min(Semaphore::MAX_PERMITS)));
        let rules = config.reply_rules.as_deref().map_or_else(|| Ok(Ruleset::builtin().clone()), own_rules)?;
        let reader = Reader::new(rules, Limits { octets: config.max_octets.get(), ..Limits::default() });
        let inbound = Arc::new(Inbound { config, office, bodies, reader, bell: Notify::new(), keeping });
        Ok(Self { inbound, listener, intake, desk })
    }

    /// Where mail comes in.
    pub(crate) const fn local_addr(&self) -> SocketAddr {
        self.listener.local_addr()
    }

    /// Takes mail in and reads it until the shutdown is requested; then lets sessions end, and commits or spools what
    /// they brought.
    pub(crate) fn run(self, life: &Lifecycle) {
        let Self { inbound, listener, intake, desk } = self;
        let token = life.token();
        let sessions = {
            let inbound = Arc::clone(&inbound);
            async move {
                let handler = move |peer| Session::new(Arc::clone(&inbound), intake.clone(), peer);
                listener.run(handler, token.cancelled_owned()).await;
            }
        };
        life.spawn("feedback.inbound", sessions);
        // Ends when the last session has, and with it the intake.
        life.spawn_finite("feedback.inbound.desk", desk.run(Arc::clone(&inbound)));
        life.spawn("feedback.inbound.read", read::run(inbound, life.token()));
    }
}
