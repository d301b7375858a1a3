//! The service: built, run, and ended without losing what was taken in.

use crate::{
    accept::{Committers, acceptor},
    analytics::Analytics,
    auth::KeyRing,
    clock::Clock,
    config::{IngestConfig, ServerLimits},
    connections::incoming,
    delivery::Delivery,
    domains::Domains,
    endpoints::Endpoints,
    gate::{Gate, GateLayer},
    holds::Holds,
    inbound::Inbound,
    intake::{Good, Intake},
    launch::{Launches, launcher},
    mail::Mail,
    metrics::Metrics,
    names::Names,
    queues::Queues,
    quota::QuotaBook,
    sites::Sites,
    suppressions::Suppressions,
    templates::Templates,
    tenants::Tenants,
    transfers::Transfers,
    watch::Watchers,
};
use bus::Bus;
use domain::ShardCount;
use proto::v1::{
    analytics_service_server::{self, AnalyticsServiceServer},
    delivery_service_server::{self, DeliveryServiceServer},
    domain_service_server::{self, DomainServiceServer},
    endpoint_service_server::{self, EndpointServiceServer},
    inbound_service_server::{self, InboundServiceServer},
    mail_service_server::{self, MailServiceServer},
    queue_service_server::{self, QueueServiceServer},
    suppression_service_server::{self, SuppressionServiceServer},
    template_service_server::{self, TemplateServiceServer},
    tenant_service_server::{self, TenantServiceServer},
};
use service::{Chain, Check, ConfigError, Health, Lifecycle, Sealer};
use std::{io, net::SocketAddr, sync::Arc, time::Duration};
use store::{Store, StoreError};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, mpsc, watch},
};
use tonic::{codec::CompressionEncoding, service::Routes, transport::Server};
use tonic_health::{ServingStatus, server::HealthReporter};

/// Names under which health tells whether calls are served: the whole, as a probe asks, and each service.
const READY_NAMES: [&str; 12] = [
    "",
    "readiness",
    analytics_service_server::SERVICE_NAME,
    delivery_service_server::SERVICE_NAME,
    domain_service_server::SERVICE_NAME,
    endpoint_service_server::SERVICE_NAME,
    inbound_service_server::SERVICE_NAME,
    mail_service_server::SERVICE_NAME,
    queue_service_server::SERVICE_NAME,
    suppression_service_server::SERVICE_NAME,
    template_service_server::SERVICE_NAME,
    tenant_service_server::SERVICE_NAME,
];
/// Window of one HTTP/2 stream: a large batch is sent without waiting for each 64 KB.
const STREAM_WINDOW: u32 = 1024 * 1024;
/// Window of one connection.
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;
/// Streams that a client may reset before they were looked at, against floods of resets.
const MAX_PENDING_RESETS: usize = 20;
/// Streams that were reset here because of a client's faults, likewise.
const MAX_ERROR_RESETS: usize = 256;
/// How long the last publishes may take on the way out.
const FLUSH: Duration = Duration::from_secs(1);

/// Why ingest cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// The configuration contradicts itself.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The database cannot be used.
    #[error("cannot use the database")]
    Store(#[from] StoreError),
    /// The address cannot be bound.
    #[error("cannot listen on {address}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The descriptors of the API cannot be served.
    #[error("cannot serve reflection")]
    Reflection(#[source] tonic_reflection::server::Error),
    /// The server failed.
    #[error("the gRPC server failed")]
    Serve(#[source] tonic::transport::Error),
}

/// What ingest works with.
#[derive(Clone)]
pub struct Neighbours {
    /// The backlog and the truth.
    pub store: Store,
    /// What is in motion. To be connected with `retry_on_initial_connect`: mail is accepted without a broker.
    pub bus: Bus,
    /// How many shards the fleet has.
    pub shards: ShardCount,
    /// Whether the fleet has a site for opens, clicks and unsubscriptions. Without it a call that asks for them is
    /// refused.
    pub tracked: bool,
    /// Seals new DKIM keys; without it no sending domain can be created.
    pub sealer: Option<Arc<Sealer>>,
    /// Where readiness is told.
    pub health: Health,
}

/// Ingest, bound and ready to run.
pub struct Ingest {
    config: IngestConfig,
    neighbours: Neighbours,
    clock: Clock,
    holds: Arc<Holds>,
    keys: Arc<KeyRing>,
    intake: Arc<Intake>,
    committers: Arc<Committers>,
    launches: Launches,
    watchers: Arc<Watchers>,
    metrics: Arc<Metrics>,
    listener: TcpListener,
    address: SocketAddr,
}

impl Ingest {
    /// Checks the configuration, binds the address, and looks once at what it goes by.
    ///
    /// # Errors
    /// When a value cannot work, the address is taken, or the database does not answer.
    pub async fn build(config: IngestConfig, neighbours: Neighbours) -> Result<Self, IngestError> {
        config.check()?;
        let bind = |source| IngestError::Bind { address: config.listen, source };
        let listener = TcpListener::bind(config.listen).await.map_err(bind)?;
        let address = listener.local_addr().map_err(bind)?;
        let Neighbours { store, bus, shards, tracked, .. } = &neighbours;
        let metrics = Arc::new(Metrics::default());
        let clock = Clock::default();
        let (launcher, launches) = launcher(store.clone(), bus.clone(), *shards, config.fast_lane, metrics.clone());
        let holds = Arc::new(Holds::new(bus.clone(), launcher.clone(), config.fast_lane));
        clock.follow(store).await?;
        holds.look(store).await?;
        let retry_after = config.server.retry_after;
        let (acceptor, committers) =
            acceptor(store.clone(), clock.clone(), launcher, config.accept, retry_after, metrics.clone());
        let intake = Arc::new(Intake {
            acceptor,
            clock: clock.clone(),
            names: Arc::new(Names::new(store.clone(), config.name_term, config.require_verified_domains)),
            quotas: Arc::new(QuotaBook::new(store.clone(), clock.clone(), config.quotas)),
            sites: Sites::new(store.clone(), config.name_term),
            holds: holds.clone(),
            limits: config.limits.clone(),
            tracked: *tracked,
            idempotency_term: config.idempotency_term,
            metrics: metrics.clone(),
            good: Good::default(),
        });
        let keys = Arc::new(KeyRing::new(store.clone(), clock.clone(), config.key_term));
        let watchers = Arc::new(Watchers::new(store.clone(), keys.clone(), config.watch, retry_after, &metrics));
        Ok(Self {
            config,
            clock,
            holds,
            keys,
            intake,
            committers,
            launches,
            watchers,
            metrics,
            listener,
            address,
            neighbours,
        })
    }

    /// What it bound.
    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// What it counts; to be registered by the caller.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Serves until the shutdown; returns when all that was taken in has been committed, answered and published.
    ///
    /// # Errors
    /// When the server fails.
    pub async fn run(self, life: Lifecycle) -> Result<(), IngestError> {
        let routes = self.routes(&life).await?;
        let Self {
            config,
            neighbours,
            clock,
            holds,
            keys,
            committers,
            launches,
            watchers,
            metrics,
            listener,
            address,
            ..
        } = self;
        let Neighbours { store, bus, health, .. } = neighbours;

        let (reporter, health_server) = tonic_health::server::health_reporter();
        tell(&reporter, true).await;
        let ready = health.check("postgres");
        let looks = look_at_store(store, clock, holds, ready, health, reporter.clone(), config.look_every);
        spawn_until_shutdown(&life, "ingest.looks", looks);
        let probes = probe(bus.clone(), config.look_every, config.fast_lane.probe_timeout);
        spawn_until_shutdown(&life, "ingest.probe", probes);
        spawn_until_shutdown(&life, "ingest.watch", watchers.follow(bus.clone()));

        let (close_commits, commits_closed) = watch::channel(false);
        let (committing, mut committed) = mpsc::channel::<()>(1);
        for _ in 0..config.accept.committers.get() {
            let (run, ended) = (committers.clone().run(commits_closed.clone()), committing.clone());
            life.spawn_finite("ingest.commit", async move {
                run.await;
                drop(ended);
            });
        }
        drop((committers, committing));
        let (close_launches, launches_closed) = watch::channel(false);
        let (launching, mut launched) = mpsc::channel::<()>(1);
        life.spawn_finite("ingest.launch", async move {
            launches.run(launches_closed).await;
            drop(launching);
        });

        let gate = Gate {
            keys,
            calls: Arc::new(Semaphore::new(config.server.max_calls.get())),
            call_timeout: config.server.call_timeout,
            retry_after: config.server.retry_after,
            metrics: metrics.clone(),
        };
        let stop = life.clone();
        let signal = async move {
            stop.shutdown_requested().await;
            tell(&reporter, false).await;
        };
        let serving = builder(&config.server)
            .layer(GateLayer(Arc::new(gate)))
            .add_routes(routes.add_service(health_server))
            .serve_with_incoming_shutdown(incoming(listener, config.server.max_connections.get(), metrics), signal);
        tracing::info!(%address, "accepts mail");
        let drained = async {
            life.shutdown_requested().await;
            tokio::time::sleep(config.server.drain).await;
        };
        let served = tokio::select! {
            served = serving => served.map_err(IngestError::Serve),
            () = drained => {
                tracing::warn!("connections did not end in time; cutting them");
                Ok(())
            }
        };
        // Nothing new comes in from here on: what waits is committed and answered, then published.
        close_commits.send_replace(true);
        // Ends when the last committer has dropped its end.
        let _none = committed.recv().await;
        close_launches.send_replace(true);
        let _none = launched.recv().await;
        bus.flush(FLUSH).await;
        served
    }

    /// The services of the API, each with its limits, and reflection.
    async fn routes(&self, life: &Lifecycle) -> Result<Routes, IngestError> {
        let ServerLimits { max_request_bytes, max_response_bytes, .. } = self.config.server;
        let Neighbours { store, bus, sealer, .. } = &self.neighbours;
        let (clock, names) = (&self.clock, &self.intake.names);
        macro_rules! limited {
            ($server:ident, $service:expr) => {
                $server::new($service)
                    .accept_compressed(CompressionEncoding::Gzip)
                    .max_decoding_message_size(max_request_bytes)
                    .max_encoding_message_size(max_response_bytes)
            };
        }
        let mail = Mail {
            intake: self.intake.clone(),
            store: store.clone(),
            keys: self.keys.clone(),
            life: life.clone(),
            stream_window: self.config.server.stream_window.get(),
            stream_bytes: max_request_bytes,
            watchers: self.watchers.clone(),
        };
        let templates = Templates::new(store.clone(), clock.clone(), names.clone(), self.config.limits.clone());
        let (keys, quotas) = (self.keys.clone(), self.intake.quotas.clone());
        let tenants = Tenants { store: store.clone(), clock: clock.clone(), keys: keys.clone(), quotas };
        let retry_after = self.config.server.retry_after;
        let transfers = Transfers::new(self.config.transfers, retry_after, &self.metrics, life.clone());
        let suppressions = Suppressions { store: store.clone(), keys, transfers };
        let queues = Queues { store: store.clone(), clock: clock.clone(), holds: self.holds.clone(), bus: bus.clone() };
        let domains = Domains::new(store.clone(), clock.clone(), sealer.clone(), self.config.dns.clone());
        let endpoints = Endpoints { store: store.clone(), clock: clock.clone(), sealer: sealer.clone() };
        let mut routes = Routes::new(limited!(MailServiceServer, mail))
            .add_service(limited!(TemplateServiceServer, templates))
            .add_service(limited!(DomainServiceServer, domains))
            .add_service(limited!(SuppressionServiceServer, suppressions))
            .add_service(limited!(AnalyticsServiceServer, Analytics { store: store.clone() }))
            .add_service(limited!(TenantServiceServer, tenants))
            .add_service(limited!(QueueServiceServer, queues))
            .add_service(limited!(DeliveryServiceServer, Delivery { store: store.clone() }))
            .add_service(limited!(EndpointServiceServer, endpoints))
            .add_service(limited!(InboundServiceServer, Inbound { store: store.clone() }));
        if self.config.reflection {
            let builder = || {
                tonic_reflection::server::Builder::configure()
                    .register_encoded_file_descriptor_set(proto::FILE_DESCRIPTOR_SET)
                    .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            };
            routes = routes
                .add_service(builder().build_v1().map_err(IngestError::Reflection)?)
                // Older tools know only this one.
                .add_service(builder().build_v1alpha().map_err(IngestError::Reflection)?);
        }
        Ok(routes)
    }
}

fn builder(limits: &ServerLimits) -> Server {
    Server::builder()
        .concurrency_limit_per_connection(usize::try_from(limits.max_streams.get()).unwrap_or(usize::MAX))
        .max_concurrent_streams(limits.max_streams.get())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_connection_age(limits.max_connection_age)
        .max_connection_age_grace(limits.connection_grace)
        .http2_keepalive_interval(Some(limits.keepalive_interval))
        .http2_keepalive_timeout(Some(limits.keepalive_timeout))
        .http2_max_header_list_size(limits.max_header_bytes)
        .http2_max_pending_accept_reset_streams(Some(MAX_PENDING_RESETS))
        .http2_max_local_error_reset_streams(Some(MAX_ERROR_RESETS))
}

/// Runs a loop that ends with the shutdown.
fn spawn_until_shutdown(life: &Lifecycle, name: &'static str, work: impl Future<Output = ()> + Send + 'static) {
    let stop = life.clone();
    life.spawn(name, async move {
        tokio::select! {
            () = work => {}
            () = stop.shutdown_requested() => {}
        }
    });
}

async fn tell(reporter: &HealthReporter, is_ready: bool) {
    let status = if is_ready { ServingStatus::Serving } else { ServingStatus::NotServing };
    for name in READY_NAMES {
        reporter.set_service_status(name, status).await;
    }
    reporter.set_service_status("liveness", ServingStatus::Serving).await;
}

/// Keeps up with the database's clock and the pauses; ready is who can.
async fn look_at_store(
    store: Store,
    clock: Clock,
    holds: Arc<Holds>,
    ready: Check,
    health: Health,
    reporter: HealthReporter,
    every: Duration,
) {
    loop {
        let looked = async {
            clock.follow(&store).await?;
            holds.look(&store).await
        };
        ready.set(looked.await.map_err(|error: StoreError| Chain(&error).to_string()));
        tell(&reporter, health.readiness().ok).await;
        tokio::time::sleep(every).await;
    }
}

/// Keeps up with the health of the broker, on which it depends whether mail goes straight.
async fn probe(bus: Bus, every: Duration, limit: Duration) {
    loop {
        if let Err(error) = bus.probe(limit).await {
            tracing::debug!(error = %Chain(&error), "the broker does not answer");
        }
        tokio::time::sleep(every).await;
    }
}
