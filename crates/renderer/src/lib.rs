//! The renderer: turns chunks of references into chunks of finished mail.
//!
//! # The road of a chunk
//! One task for each lane takes chunks off the bus ([`desk`]), as many at a time as
//! [`RendererConfig::chunks_under_way`] says. For each, what its mails are made from is loaded, its mails are
//! rendered on a thread apart ([`chunk`]; places of the transactional lane stay free of bulk), packed by lane
//! and slot, and published for the owners of their shards. Only when every member is with the broker, closed
//! or put back to rest is the chunk acknowledged.
//!
//! # What becomes of a member
//! - Rendered: published, as finished mail up to 256 KiB, as a reference above it.
//! - Never renderable (a variable is missing): closed as failed, with a reason that names what is wrong.
//! - Refused by the broker, or not renderable now: back to rest; no attempt is counted.
//! - Database away, or the broker's answer unknown: the chunk stays with the broker and comes again.
//!
//! # What a crash leaves
//! Nothing but work to be done again. Renderers keep no state and share the durable consumer; a chunk that was
//! not acknowledged comes again, renders to the same bytes, and its second copy is dropped by the broker's
//! de-duplication or loses the claim. Closing and parking are compare-and-set on the release number.

mod chunk;
mod config;
mod desk;
mod metrics;

pub use config::RendererConfig;

use bus::Bus;
use domain::{Lane, ShardCount};
use metrics::Metrics;
use press::Press;
use service::{Chain, Check, Health, Lifecycle};
use std::sync::Arc;
use store::Store;
use tokio::time::MissedTickBehavior;

/// A renderer that is ready to run.
pub struct Renderer {
    office: Arc<Office>,
    nats: Check,
    postgres: Check,
}

/// What every part of a renderer needs.
pub(crate) struct Office {
    pub(crate) config: RendererConfig,
    pub(crate) shards: ShardCount,
    pub(crate) store: Store,
    pub(crate) bus: Bus,
    pub(crate) press: Arc<Press>,
    pub(crate) metrics: Metrics,
}

impl Renderer {
    /// A renderer on these neighbours. Nothing is taken before [`Renderer::run`].
    pub fn build(
        config: RendererConfig,
        shards: ShardCount,
        store: Store,
        bus: Bus,
        press: Arc<Press>,
        metrics: &service::Metrics,
        health: &Health,
    ) -> Self {
        let metrics = metrics.register(Metrics::register);
        let office = Office { config, shards, store, bus, press, metrics };
        Self { office: Arc::new(office), nats: health.check("nats"), postgres: health.check("postgres") }
    }

    /// Spawns the renderer's tasks; they end, with their chunks finished, when `life` is asked to.
    pub fn run(self, life: &Lifecycle) {
        let Self { office, nats, postgres } = self;
        for (lane, name) in [(Lane::Transactional, "renderer.transactional"), (Lane::Bulk, "renderer.bulk")] {
            life.spawn(name, desk::work(Arc::clone(&office), lane, life.token()));
        }
        let stop = life.token();
        life.spawn("renderer.health", async move {
            let mut turns = tokio::time::interval(office.config.health_interval);
            turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
            while stop.run_until_cancelled(turns.tick()).await.is_some() {
                look(&office, &nats, &postgres).await;
            }
        });
    }
}

/// Looks whether the neighbours answer.
async fn look(office: &Office, nats: &Check, postgres: &Check) {
    let limit = office.config.health_timeout;
    let (bus, store) = tokio::join!(office.bus.probe(limit), tokio::time::timeout(limit, office.store.ping()));
    nats.set(bus.map(drop).map_err(|error| Chain(&error).to_string()));
    postgres.set(match store {
        Ok(answer) => answer.map_err(|error| Chain(&error).to_string()),
        Err(_) => Err("does not answer in time".to_owned()),
    });
}

impl std::fmt::Debug for Renderer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Renderer").field("config", &self.office.config).finish_non_exhaustive()
    }
}
