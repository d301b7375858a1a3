//! Configuration: defaults in code, one TOML file, the environment; the later wins. Secrets come by file
//! path.
//!
//! One file serves the whole fleet: each service reads its own section and the shared ones, and passes over
//! the sections of others. A key that its section does not have, and a section that nobody has, is an error.

mod layers;
mod secret;
mod shared;

pub(crate) use layers::show;
pub use layers::{ConfigError, Layers, Problem};
pub use secret::{SecretError, SecretFile, SecretUrl};
pub use shared::{
    FleetConfig, HttpConfig, LogFormat, PostgresConfig, RuntimeConfig, SecretsConfig, TelemetryConfig, TraceConfig,
};
