//! A service's start and its way out.

use crate::{
    Chain, ConfigError, Health, HttpConfig, HttpError, HttpServer, Layers, Lifecycle, Metrics, RuntimeConfig,
    TelemetryConfig, TraceConfig,
    config::{self, Problem},
    env, logging, ops_router, trace,
};
use failpoint::Faults;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{
    error::Error,
    io::Write,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};
use tokio::signal::unix::{SignalKind, signal};

/// The configuration is wrong (`EX_USAGE` of sysexits.h).
const EXIT_CONFIG: u8 = 64;
/// A neighbour is not there (`EX_UNAVAILABLE`).
const EXIT_UNAVAILABLE: u8 = 69;
/// Something failed inside (`EX_SOFTWARE`).
const EXIT_INTERNAL: u8 = 70;
/// Names the directory of armed failpoints. Tests set it.
const FAILPOINTS: &str = "MAILFLEET_FAILPOINTS";
/// How often calls go wrong on purpose: a rate, or a rate and a seed. Tests set it.
const FAULTS: &str = "MAILFLEET_FAULTS";
/// How long tasks that block may take to end once everything else has.
const BLOCKING_GRACE: Duration = Duration::from_secs(2);

/// What the command line says about a run.
#[derive(Clone, Debug, Default)]
pub struct RunOptions {
    /// The TOML file, if there is one.
    pub config_file: Option<PathBuf>,
    /// Whether to print the effective configuration and stop.
    pub check_config: bool,
}

/// Why a service ended before it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A neighbour is not there, or a port is taken.
    #[error("{what} is not available")]
    Unavailable {
        /// The neighbour.
        what: &'static str,
        /// How it shows.
        source: Box<dyn Error + Send + Sync>,
    },
    /// Something failed inside.
    #[error("cannot {what}")]
    Internal {
        /// What was being done.
        what: &'static str,
        /// How it failed.
        source: Box<dyn Error + Send + Sync>,
    },
}

impl ServiceError {
    /// `what` (Postgres, NATS, a port) is not there.
    pub fn unavailable(what: &'static str, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Unavailable { what, source: source.into() }
    }

    /// Doing `what` ("read the master key") failed.
    pub fn internal(what: &'static str, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Internal { what, source: source.into() }
    }

    fn exit_code(&self) -> u8 {
        match self {
            Self::Config(ConfigError::Checked) => 0,
            Self::Config(_) => EXIT_CONFIG,
            Self::Unavailable { .. } => EXIT_UNAVAILABLE,
            Self::Internal { .. } => EXIT_INTERNAL,
        }
    }
}

/// What a service is given to start with.
#[derive(Debug)]
pub struct Boot {
    service: &'static str,
    layers: Layers,
    /// What is wrong with the sections that the start itself read.
    problems: Vec<Problem>,
    check_config: bool,
    life: Lifecycle,
    health: Health,
    metrics: Metrics,
    faults: Option<Faults>,
}

impl Boot {
    /// For tests and for programs that run several services: no file, no environment, no signals.
    pub fn for_tests(service: &'static str) -> Self {
        Self::new(service, Layers::default(), Vec::new(), false)
    }

    fn new(service: &'static str, layers: Layers, problems: Vec<Problem>, check_config: bool) -> Self {
        let life = Lifecycle::new();
        let health = Health::new(life.clone());
        let metrics = Metrics::new(service);
        Self { service, layers, problems, check_config, life, health, metrics, faults: None }
    }

    /// The name of the service.
    pub fn service(&self) -> &'static str {
        self.service
    }

    /// The configuration of this service. The fields of `T` are its sections.
    ///
    /// # Errors
    /// With every problem there is; or, when it was only to be checked, after it has been printed.
    pub fn config<T: DeserializeOwned + Default + Serialize>(&self) -> Result<T, ConfigError> {
        self.config_that(|_| Ok(()))
    }

    /// The same, when it is more than well-formed: `check` tells what of it cannot be meant.
    ///
    /// # Errors
    /// As [`Boot::config`], and those of `check`.
    pub fn config_that<T: DeserializeOwned + Default + Serialize>(
        &self,
        check: impl FnOnce(&T) -> Result<(), ConfigError>,
    ) -> Result<T, ConfigError> {
        let config: T = match self.layers.read() {
            Err(ConfigError::Invalid(mut problems)) => {
                problems.extend(
                    self.problems.iter().filter(|problem| !problems.contains(problem)).cloned().collect::<Vec<_>>(),
                );
                return Err(ConfigError::Invalid(problems));
            }
            read => read?,
        };
        if !self.problems.is_empty() {
            return Err(ConfigError::Invalid(self.problems.clone()));
        }
        check(&config)?;
        if self.check_config {
            // Nobody reads it: then there is nobody to tell.
            let _unread = std::io::stdout().write_all(config::show(&config).as_bytes());
            return Err(ConfigError::Checked);
        }
        Ok(config)
    }

    /// The life of this service.
    pub fn lifecycle(&self) -> Lifecycle {
        self.life.clone()
    }

    /// Its health.
    pub fn health(&self) -> Health {
        self.health.clone()
    }

    /// Its metrics.
    pub fn metrics(&self) -> Metrics {
        self.metrics.clone()
    }

    /// What goes wrong on purpose with calls of its store and bus; `None` but for tests.
    pub fn faults(&self) -> Option<Faults> {
        self.faults.clone()
    }

    /// Binds and serves `/metrics` and `/healthz/…`; returns what it bound.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn serve_ops(&self, config: &HttpConfig) -> Result<SocketAddr, HttpError> {
        let server = HttpServer::bind(config).await?;
        let address = server.local_addr();
        let router = ops_router(self.health.clone(), self.metrics.clone());
        server.spawn("http.ops", router, &self.life);
        tracing::info!(%address, "serves metrics and health");
        Ok(address)
    }
}

/// The sections that the start itself reads.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct OwnConfig {
    runtime: RuntimeConfig,
    telemetry: TelemetryConfig,
}

/// Runs a service as the process: configuration, logs, signals, the service, its way out.
///
/// `body` builds the service, spawns its tasks on the lifecycle and returns when its work is done, which is
/// after the shutdown was requested. What it spawned is waited for here.
pub fn run(
    name: &'static str,
    options: RunOptions,
    body: impl AsyncFnOnce(Boot) -> Result<(), ServiceError>,
) -> ExitCode {
    match start(name, options, body) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(EXIT_INTERNAL),
        Err(error) => {
            if !matches!(error, ServiceError::Config(ConfigError::Checked)) {
                tell(name, &error);
            }
            ExitCode::from(error.exit_code())
        }
    }
}

/// Returns whether nothing failed on the way.
fn start(
    name: &'static str,
    options: RunOptions,
    body: impl AsyncFnOnce(Boot) -> Result<(), ServiceError>,
) -> Result<bool, ServiceError> {
    let layers = Layers::load(options.config_file.as_deref())?;
    let (OwnConfig { runtime: own, telemetry }, mut problems) = match layers.read() {
        // Told by the service, together with what is wrong with its own sections.
        Err(ConfigError::Invalid(problems)) => (OwnConfig::default(), problems),
        read => (read?, Vec::new()),
    };
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if let Some(threads) = own.worker_threads {
        builder.worker_threads(threads.get());
    }
    let runtime = builder
        .thread_name(name)
        .enable_all()
        .build()
        .map_err(|error| ServiceError::internal("start the runtime", error))?;
    problems.extend(problems_of(&telemetry.traces));
    if problems.is_empty() {
        let _within = runtime.enter();
        trace::install(name, &telemetry.traces)
            .map_err(|error| ConfigError::invalid("telemetry.traces.endpoint", error.to_string()))?;
    }
    // After the traces, since logs tell which trace they belong to.
    logging::install(&telemetry, env::var("MAILFLEET_LOG").as_deref())
        .map_err(|message| ConfigError::invalid("telemetry.log", message))?;
    let mut boot = Boot::new(name, layers, problems, options.check_config);
    boot.faults = break_on_purpose()?;
    let life = boot.lifecycle();
    let result = runtime.block_on(async {
        watch_signals(&life)?;
        if !options.check_config {
            tracing::info!(service = name, version = env!("CARGO_PKG_VERSION"), "starts");
        }
        let result = body(boot).await;
        let in_time = life.drain(own.grace).await;
        let limit = telemetry.traces.timeout;
        // Nobody misses a span when it panics.
        let _told = tokio::task::spawn_blocking(move || trace::finish(limit)).await;
        result.map(|()| in_time && !life.has_failed())
    });
    runtime.shutdown_timeout(BLOCKING_GRACE);
    if let Ok(clean) = &result {
        tracing::info!(service = name, clean, "ended");
    }
    result
}

/// What is wrong with values that their types can hold.
fn problems_of(traces: &TraceConfig) -> Vec<Problem> {
    let problem = |key: &str, message: &str| Problem { key: key.to_owned(), message: message.to_owned(), origin: None };
    let mut problems = Vec::new();
    if !(0.0..=1.0).contains(&traces.ratio) {
        problems.push(problem("telemetry.traces.ratio", "must be a share from 0 to 1"));
    }
    if !traces.endpoint.is_empty() && !["http://", "https://"].iter().any(|head| traces.endpoint.starts_with(head)) {
        problems.push(problem("telemetry.traces.endpoint", "must begin with http:// or https://"));
    }
    problems
}

/// Arms the failpoints and reads the faults that a test asked for; see the crate `failpoint`.
fn break_on_purpose() -> Result<Option<Faults>, ConfigError> {
    if let Some(directory) = env::var(FAILPOINTS) {
        tracing::warn!(directory, "dies, waits and fails where the files of this directory say so");
        failpoint::arm(Path::new(&directory));
    }
    let Some(text) = env::var(FAULTS) else { return Ok(None) };
    let faults =
        text.parse().map_err(|error: failpoint::FaultsError| ConfigError::invalid(FAULTS, error.to_string()))?;
    tracing::warn!(faults = text, "calls of the store and the bus go wrong on purpose");
    Ok(Some(faults))
}

/// The first signal requests the shutdown, the second ends the process at once.
fn watch_signals(life: &Lifecycle) -> Result<(), ServiceError> {
    let listen = |kind| signal(kind).map_err(|error| ServiceError::internal("listen for signals", error));
    let (mut terminate, mut interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    let requested = life.clone();
    watch(async move {
        for second in [false, true] {
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            };
            if second {
                tracing::error!(signal = name, "aborts at the second signal");
                std::process::exit(i32::from(EXIT_INTERNAL));
            }
            tracing::info!(signal = name, "shutdown requested");
            requested.trigger_shutdown();
        }
    });
    Ok(())
}

/// Outlives the lifecycle on purpose: the second signal is for when that does not end.
#[expect(clippy::disallowed_methods, reason = "no task of the service; the shutdown must not wait for it")]
fn watch(signals: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(signals);
}

/// Tells why there is no service, once: as a log line when there are logs, else in plain words.
fn tell(name: &str, error: &ServiceError) {
    if let ServiceError::Config(error) = error {
        // For the person who wrote the configuration; a list does not belong in one log line.
        let _unread = writeln!(std::io::stderr(), "mailfleet {name}: {}", Chain(error));
    } else {
        tracing::error!(service = name, error = %Chain(error), "cannot go on");
    }
}
