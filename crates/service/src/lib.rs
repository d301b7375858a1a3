//! What every service shares: its start and its way out, configuration, logs, metrics, health, the keys
//! at rest. The only reader of the environment, of signals and of the wall clock.
//!
//! A service is three lines:
//!
//! ```no_run
//! # use mailfleet_service::{self as service, Boot, RunOptions, ServiceError};
//! # #[derive(Default, serde::Serialize, serde::Deserialize)] #[serde(default)] struct MyConfig {}
//! fn run(options: RunOptions) -> std::process::ExitCode {
//!     service::run("renderer", options, async |boot: Boot| {
//!         let config: MyConfig = boot.config()?;   // every problem listed, nothing bound yet
//!         // build: connect, bind, fail fast; then spawn on boot.lifecycle() and wait
//!         boot.lifecycle().shutdown_requested().await;
//!         Ok(())
//!     })
//! }
//! ```
//!
//! The way out is the same everywhere: a signal (or a task that ended too early) requests the shutdown;
//! readiness turns false; the service stops taking work and ends; what was spawned is waited for, by name,
//! for the grace period. A second signal aborts. Exit codes: 0 done, 64 the configuration is wrong, 69 a
//! neighbour is unavailable, 70 an internal failure.

mod backoff;
mod boot;
mod health;
mod http;
mod lifecycle;
mod logging;
mod metrics;
mod sealer;

pub mod clock;
pub mod config;
pub mod env;
pub mod trace;

pub use backoff::{Backoff, retry};
pub use boot::{Boot, RunOptions, ServiceError, run};
pub use config::{
    ConfigError, FleetConfig, HttpConfig, Layers, LogFormat, PostgresConfig, RuntimeConfig, SecretFile, SecretUrl,
    SecretsConfig, TelemetryConfig, TraceConfig,
};
pub use health::{Check, Health, Pulse, Report};
pub use http::{HttpError, HttpServer, Peer, ops_router};
pub use lifecycle::{Ending, Lifecycle};
pub use metrics::Metrics;
pub use sealer::{SealError, Sealer};

use std::{error::Error, fmt};

/// Prints an error with its whole chain of sources, once: `cannot connect: refused: no route`.
pub struct Chain<'a>(pub &'a (dyn Error + 'a));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = self.0.to_string();
        f.write_str(&text)?;
        let mut next = self.0.source();
        while let Some(source) = next {
            // Some libraries repeat their source in their own text.
            let source_text = source.to_string();
            if !text.ends_with(&source_text) {
                write!(f, ": {source_text}")?;
            }
            text = source_text;
            next = source.source();
        }
        Ok(())
    }
}

impl fmt::Debug for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
