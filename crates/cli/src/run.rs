//! `run SERVICE`: one service as one process. Reads its sections, connects, builds, runs, drains.

use crate::{
    args::{RunArgs, Service},
    reach::postgres_url,
};
use bus::{Bus, BusConfig};
use domain::TrackingSite;
use press::{Press, PressConfig};
use serde::{Deserialize, Serialize};
use service::{
    Boot, Chain, Check, ConfigError, FleetConfig, HttpConfig, Lifecycle, PostgresConfig, RunOptions, Sealer,
    SecretsConfig, ServiceError,
};
use std::{path::PathBuf, process::ExitCode, sync::Arc, time::Duration};
use store::{Store, StoreConfig};

/// How often a service's neighbours are looked at for readiness.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How long a neighbour may take to answer that look.
const LOOK_LIMIT: Duration = Duration::from_secs(2);

/// The shared sections and a service's own.
macro_rules! sections {
    ($($name:ident { $($field:ident: $type:ty),+ })+) => {$(
        #[derive(Debug, Default, Serialize, Deserialize)]
        #[serde(default)]
        struct $name {
            postgres: PostgresConfig,
            nats: BusConfig,
            fleet: FleetConfig,
            http: HttpConfig,
            secrets: SecretsConfig,
            $($field: $type,)+
        }
    )+};
}

sections! {
    IngestSections { ingest: ingest::IngestConfig }
    DispatcherSections { dispatcher: dispatcher::DispatcherConfig }
    RendererSections { renderer: renderer::RendererConfig }
    // Mails too large for the broker are rendered by the sender, as the renderer would.
    SenderSections { sender: sender::SenderConfig, renderer: renderer::RendererConfig }
    FeedbackSections { feedback: feedback::FeedbackConfig }
    AnalyticsSections { analytics: analytics::AnalyticsConfig }
}

/// Runs a service until it is told to end.
pub fn run(args: &RunArgs, config_file: Option<PathBuf>) -> ExitCode {
    let options = RunOptions { config_file, check_config: args.check_config };
    let name = args.service.name();
    match args.service {
        Service::Ingest => service::run(name, options, run_ingest),
        Service::Dispatcher => service::run(name, options, run_dispatcher),
        Service::Renderer => service::run(name, options, run_renderer),
        Service::Sender => service::run(name, options, run_sender),
        Service::Feedback => service::run(name, options, run_feedback),
        Service::Analytics => service::run(name, options, run_analytics),
    }
}

async fn run_ingest(boot: Boot) -> Result<(), ServiceError> {
    let config: IngestSections = boot.config()?;
    let store = connect_store(&boot, &config.postgres).await?;
    let bus = connect_bus(&boot, config.nats).await?;
    let sealer = config.secrets.master_key_file.as_ref().map(|file| open_sealer(file.path())).transpose()?;
    let neighbours = ingest::Neighbours {
        store: store.clone(),
        bus,
        shards: config.fleet.shards,
        tracked: config.fleet.tracking.is_some(),
        sealer,
        health: boot.health(),
    };
    let ingest = ingest::Ingest::build(config.ingest, neighbours).await.map_err(|error| match error {
        ingest::IngestError::Config(error) => ServiceError::Config(error),
        error => ServiceError::unavailable("what ingest needs", error),
    })?;
    boot.metrics().register(|registry| ingest.metrics().register(registry));
    serve_ops(&boot, &config.http).await?;
    let ended = ingest.run(boot.lifecycle()).await;
    store.close().await;
    ended.map_err(|error| ServiceError::internal("serve the API", error))
}

async fn run_dispatcher(boot: Boot) -> Result<(), ServiceError> {
    let config: DispatcherSections = boot.config()?;
    let store = connect_store(&boot, &config.postgres).await?;
    let bus = connect_bus(&boot, config.nats).await?;
    let neighbours = dispatcher::Neighbours {
        store: store.clone(),
        bus: bus.clone(),
        shards: config.fleet.shards,
        owner: owner(&boot),
        health: boot.health(),
    };
    let dispatcher = dispatcher::Dispatcher::build(config.dispatcher, neighbours)?;
    boot.metrics().register(|registry| dispatcher.metrics().register(registry));
    serve_ops(&boot, &config.http).await?;
    dispatcher.run(boot.lifecycle()).await;
    bus.flush(LOOK_LIMIT).await;
    store.close().await;
    Ok(())
}

async fn run_renderer(boot: Boot) -> Result<(), ServiceError> {
    let config: RendererSections =
        boot.config_that(|config: &RendererSections| check_tracking(&config.fleet, &config.secrets))?;
    let press_config = config.renderer.press.clone();
    let sealer = sealer(&config.secrets)?;
    let store = connect_store(&boot, &config.postgres).await?;
    let bus = connect_bus(&boot, config.nats).await?;
    let press = press(&store, sealer, &press_config, config.fleet.tracking);
    let life = boot.lifecycle();
    let (metrics, health) = (boot.metrics(), boot.health());
    let shards = config.fleet.shards;
    renderer::Renderer::build(config.renderer, shards, store, bus, press, &metrics, &health).run(&life);
    serve_ops(&boot, &config.http).await?;
    // What it spawned is waited for, and its connections close with it.
    life.shutdown_requested().await;
    Ok(())
}

async fn run_sender(boot: Boot) -> Result<(), ServiceError> {
    let config: SenderSections = boot.config_that(|config: &SenderSections| {
        check_tracking(&config.fleet, &config.secrets)?;
        config.sender.check().map_err(|problem| ConfigError::invalid(problem.field, problem.text))
    })?;
    let sealer = sealer(&config.secrets)?;
    let store = connect_store(&boot, &config.postgres).await?;
    let bus = connect_bus(&boot, config.nats).await?;
    let press = press(&store, sealer, &config.renderer.press, config.fleet.tracking);
    let (life, metrics) = (boot.lifecycle(), boot.metrics());
    let built =
        sender::Sender::build(config.sender, config.fleet.shards, store.clone(), bus.clone(), press, &metrics, life);
    let sender = built.await.map_err(|error| ServiceError::unavailable("what the sender needs", error))?;
    tell_readiness(&boot, store.clone(), bus.clone());
    serve_ops(&boot, &config.http).await?;
    sender.run().await;
    bus.flush(LOOK_LIMIT).await;
    store.close().await;
    Ok(())
}

async fn run_feedback(boot: Boot) -> Result<(), ServiceError> {
    let config: FeedbackSections = boot.config()?;
    let sealer = sealer(&config.secrets)?;
    let tokens = press::token_keys(sealer.as_ref());
    let store = connect_store(&boot, &config.postgres).await?;
    let (life, metrics, health) = (boot.lifecycle(), boot.metrics(), boot.health());
    let built = feedback::FeedbackService::build(config.feedback, store, tokens, sealer, &metrics, &health).await;
    let service = built.map_err(|error| ServiceError::unavailable("what feedback needs", error))?;
    serve_ops(&boot, &config.http).await?;
    service.run(&life);
    // What it spawned is waited for, and its connections close with it.
    life.shutdown_requested().await;
    Ok(())
}

async fn run_analytics(boot: Boot) -> Result<(), ServiceError> {
    let config: AnalyticsSections = boot.config()?;
    let store = connect_store(&boot, &config.postgres).await?;
    let bus = connect_bus(&boot, config.nats).await?;
    let neighbours = analytics::Neighbours {
        store: store.clone(),
        bus: Some(bus.clone()),
        owner: owner(&boot),
        health: boot.health(),
    };
    let analytics = analytics::Analytics::build(config.analytics, neighbours)?;
    boot.metrics().register(|registry| analytics.metrics().register(registry));
    serve_ops(&boot, &config.http).await?;
    analytics.run(boot.lifecycle()).await;
    bus.flush(LOOK_LIMIT).await;
    store.close().await;
    Ok(())
}

/// The name under which this process holds leases.
fn owner(boot: &Boot) -> String {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    format!("{}@{host}/{}", boot.service(), std::process::id())
}

async fn connect_store(boot: &Boot, config: &PostgresConfig) -> Result<Store, ServiceError> {
    let url = postgres_url(config).map_err(|error| {
        ServiceError::Config(service::ConfigError::invalid("postgres.password_file", error.to_string()))
    })?;
    let config = StoreConfig {
        url,
        max_connections: config.max_connections.get(),
        acquire_timeout: config.acquire_timeout,
        call_timeout: config.client_timeout,
        statement_timeout: config.statement_timeout,
        lock_timeout: config.lock_timeout,
        idle_in_transaction_timeout: config.idle_in_transaction_timeout,
        application: format!("mailfleet-{}", boot.service()),
    };
    let store = Store::connect(&config).await.map_err(|error| ServiceError::unavailable("postgres", error))?;
    Ok(store.with_faults(boot.faults().map(|faults| faults.apart("store"))))
}

/// The broker may come later: mail is accepted and kept without it.
async fn connect_bus(boot: &Boot, config: BusConfig) -> Result<Bus, ServiceError> {
    let faults = boot.faults().map(|faults| faults.apart("bus"));
    let config = BusConfig { retry_on_initial_connect: true, faults, ..config };
    let bus = Bus::connect(config).await.map_err(|error| ServiceError::unavailable("nats", error))?;
    boot.metrics().register(|registry| bus.stats().register(registry));
    Ok(bus)
}

fn sealer(config: &SecretsConfig) -> Result<Arc<Sealer>, ServiceError> {
    let file = config.master_key_file.as_ref().ok_or_else(|| {
        service::ConfigError::invalid(
            "secrets.master_key_file",
            "is needed here; it opens the DKIM keys and signs return paths and links",
        )
    })?;
    open_sealer(file.path())
}

/// Links are signed with a key that derives from the master key; said before anything starts.
fn check_tracking(fleet: &FleetConfig, secrets: &SecretsConfig) -> Result<(), ConfigError> {
    if fleet.tracking.is_some() && secrets.master_key_file.is_none() {
        let text = "is needed for fleet.tracking, whose links are signed; name the file, or leave fleet.tracking out";
        return Err(ConfigError::invalid("secrets.master_key_file", text));
    }
    Ok(())
}

fn open_sealer(path: &std::path::Path) -> Result<Arc<Sealer>, ServiceError> {
    let wrong = |error: service::SealError| {
        ServiceError::Config(service::ConfigError::invalid("secrets.master_key_file", Chain(&error).to_string()))
    };
    Sealer::from_file(path).map(Arc::new).map_err(wrong)
}

fn press(store: &Store, sealer: Arc<Sealer>, config: &PressConfig, site: Option<TrackingSite>) -> Arc<Press> {
    Arc::new(Press::new(store.clone(), sealer, config, site))
}

async fn serve_ops(boot: &Boot, config: &HttpConfig) -> Result<(), ServiceError> {
    let served = boot.serve_ops(config).await;
    served.map(drop).map_err(|error| ServiceError::unavailable("the port for metrics and health", error))
}

/// Looks at the neighbours again and again, for a service that does not do so itself.
fn tell_readiness(boot: &Boot, store: Store, bus: Bus) {
    let (postgres, nats) = (boot.health().check("postgres"), boot.health().check("nats"));
    let life: Lifecycle = boot.lifecycle();
    let stop = life.token();
    life.spawn("readiness", async move {
        let mut turns = tokio::time::interval(LOOK_EVERY);
        while stop.run_until_cancelled(turns.tick()).await.is_some() {
            look(&store, &bus, &postgres, &nats).await;
        }
    });
}

async fn look(store: &Store, bus: &Bus, postgres: &Check, nats: &Check) {
    let (answer, probe) = tokio::join!(tokio::time::timeout(LOOK_LIMIT, store.ping()), bus.probe(LOOK_LIMIT));
    postgres.set(match answer {
        Ok(answer) => answer.map_err(|error| Chain(&error).to_string()),
        Err(_) => Err("does not answer in time".to_owned()),
    });
    nats.set(probe.map(drop).map_err(|error| Chain(&error).to_string()));
}
