//! NATS, as mailfleet uses it: typed subjects, chunks, streams and consumers.
//!
//! The broker is trusted with nothing. What it holds is in motion and can be made again from Postgres, so
//! the job streams live in memory and are gone when the broker restarts. Therefore:
//!
//! - A publish is awaited, and ends as done, as not done, or as unknown ([`PublishError::is_unknown`]). A
//!   caller whose publish was refused gives its rows back; one that does not know leaves them to repair.
//! - A [`Puller`] outlives its consumer: streams that are gone are waited for, never created here.
//!   [`topology::apply`] creates them; the dispatcher's lease holder calls it within a second of a loss,
//!   which [`topology::look`] finds out.
//! - Every chunk may come twice, or never. Acknowledge it once each member has been claimed, parked or
//!   refused in Postgres.
//! - [`Bus::probe`] publishes and waits for the answer: an open socket proves nothing.
//!
//! The doorbell and the events are core NATS, best effort: who misses one finds out by looking.

mod chunk;
mod config;
mod publish;
mod pull;
mod signal;
mod stats;
mod subject;

pub mod topology;

pub use chunk::{
    DecodeError, Job, Letter, MAX_CHUNK_BYTES, MAX_JOB_BYTES, MAX_JOBS, MAX_LETTERS, MAX_MIME_BYTES, Payload,
    RenderChunk, SendChunk, cut_jobs, cut_letters,
};
pub use config::{BusConfig, Prefix, PrefixError};
pub use publish::PublishError;
pub use pull::{AckError, AckHandle, Delivery, Puller};
pub use signal::{Doorbells, Event, Events};
pub use stats::Stats;
pub use subject::{EventSubject, RenderSubject, SendSubject, Stage, SubjectError, WorkSubject};

use async_nats::{Client, ConnectOptions, connection::State, jetstream};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// Commands that wait in this process while there is no connection.
const CLIENT_QUEUE: usize = 2_048;
/// Messages that wait unread in one subscription; a pull never has as many, and a doorbell may be lost.
const SUBSCRIPTION_QUEUE: usize = 8_192;
/// The oldest server with the features used here.
const OLDEST_SERVER: (i64, i64, i64) = (2, 9, 0);

/// One connection to the broker; clones share it.
#[derive(Clone)]
pub struct Bus {
    inner: Arc<Inner>,
}

struct Inner {
    config: BusConfig,
    client: Client,
    /// For publishes: short time-out, bounded in flight.
    publisher: jetstream::Context,
    /// For questions about streams and consumers.
    api: jetstream::Context,
    stats: Stats,
    /// Whether the last probe came back.
    healthy: AtomicBool,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The credentials or certificates cannot be read.
    #[error("cannot read the NATS credentials file")]
    Credentials(#[source] std::io::Error),
    /// Nobody answers, or refuses us.
    #[error("cannot connect to NATS")]
    Connect(#[source] async_nats::ConnectError),
    /// The server lacks what is needed.
    #[error("the NATS server has version {found}; 2.9.0 is the oldest that is supported")]
    TooOld {
        /// Its version.
        found: String,
    },
}

impl Bus {
    /// Connects, and keeps the connection up from then on.
    ///
    /// # Errors
    /// When credentials cannot be read, nobody answers (unless told to go on trying), or the server is too
    /// old.
    pub async fn connect(config: BusConfig) -> Result<Self, ConnectError> {
        let mut options = ConnectOptions::new()
            .name("mailfleet")
            .ping_interval(config.ping_interval)
            .connection_timeout(config.connect_timeout)
            .client_capacity(CLIENT_QUEUE)
            .subscription_capacity(SUBSCRIPTION_QUEUE)
            .max_reconnects(None)
            .reconnect_delay_callback({
                let config = config.clone();
                move |attempts| if attempts <= 1 { Duration::ZERO } else { config.backoff(attempts - 2) }
            })
            .event_callback(|event| async move { report(&event) });
        if let Some(path) = &config.credentials_file {
            options = options.credentials_file(path).await.map_err(ConnectError::Credentials)?;
        }
        if let Some(path) = &config.ca_file {
            options = options.add_root_certificates(path.clone()).require_tls(true);
        }
        if config.retry_on_initial_connect {
            options = options.retry_on_initial_connect();
        }
        let servers: Vec<String> = config.url.split(',').map(|url| url.trim().to_owned()).collect();
        let client = options.connect(servers).await.map_err(ConnectError::Connect)?;
        let (major, minor, patch) = OLDEST_SERVER;
        if let Some(info) = client.try_server_info()
            && !client.is_server_compatible(major, minor, patch)
        {
            return Err(ConnectError::TooOld { found: info.version });
        }
        let publisher = jetstream::context::ContextBuilder::new()
            .timeout(config.publish_timeout)
            .max_ack_inflight(config.max_publishes_in_flight)
            .backpressure_on_inflight(true)
            .build(client.clone());
        let api = jetstream::context::ContextBuilder::new().timeout(config.api_timeout).build(client.clone());
        let inner = Inner { config, client, publisher, api, stats: Stats::default(), healthy: AtomicBool::new(false) };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// What it was told.
    pub fn config(&self) -> &BusConfig {
        &self.inner.config
    }

    /// The first token of its subjects.
    pub fn prefix(&self) -> &Prefix {
        &self.inner.config.prefix
    }

    /// What it counts.
    pub fn stats(&self) -> &Stats {
        &self.inner.stats
    }

    /// Publishes to a tiny stream and waits for the answer, at most `limit`; returns how long that took.
    ///
    /// # Errors
    /// When it did not come back.
    pub async fn probe(&self, limit: Duration) -> Result<Duration, PublishError> {
        let begun = tokio::time::Instant::now();
        let result = match tokio::time::timeout(limit, self.publish_probe()).await {
            Ok(result) => result,
            Err(_) => Err(PublishError::Timeout),
        };
        let healthy = result.is_ok();
        if self.inner.healthy.swap(healthy, Ordering::Relaxed) != healthy {
            tracing::info!(healthy, "the health of the bus changed");
        }
        self.inner.stats.healthy.set(i64::from(healthy));
        result.map(|()| begun.elapsed())
    }

    /// Whether the last [`Bus::probe`] came back.
    pub fn is_healthy(&self) -> bool {
        self.inner.healthy.load(Ordering::Relaxed)
    }

    /// Whether a socket is open; says nothing about health.
    pub fn is_connected(&self) -> bool {
        self.inner.client.connection_state() == State::Connected
    }

    /// Sends what waits in this process, at most for `limit`; the last step before exit.
    pub async fn flush(&self, limit: Duration) {
        if self.is_connected() && tokio::time::timeout(limit, self.inner.client.flush()).await.is_err() {
            tracing::warn!("could not flush the bus in time");
        }
    }
}

impl std::fmt::Debug for Bus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bus").field("config", &self.inner.config).finish_non_exhaustive()
    }
}

fn report(event: &async_nats::Event) {
    match event {
        async_nats::Event::Connected => tracing::info!("connected to nats"),
        async_nats::Event::Disconnected => tracing::warn!("lost the connection to nats"),
        async_nats::Event::SlowConsumer(_) => tracing::warn!("dropped messages of a subscription that is not read"),
        other => tracing::debug!(event = %other, "nats connection event"),
    }
}
