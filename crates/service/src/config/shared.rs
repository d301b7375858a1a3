//! The sections that several services read. `[nats]` is `bus::BusConfig`.

use super::{SecretFile, SecretUrl};
use domain::ShardCount;
use serde::{Deserialize, Serialize};
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    num::{NonZeroU32, NonZeroUsize},
    time::Duration,
};

/// `[postgres]`: where the backlog and the truth are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PostgresConfig {
    /// `postgres://user:password@host:port/database`; absent, `DATABASE_URL` is used. A transaction-mode
    /// pooler works.
    pub url: SecretUrl,
    /// The password, when it is not in the URL.
    pub password_file: Option<SecretFile>,
    /// Most connections of this process. Larger: more of the server's own limit is taken.
    pub max_connections: NonZeroU32,
    /// How long to wait for a free connection, or for a new one.
    #[serde(with = "humantime_serde")]
    pub acquire_timeout: Duration,
    /// How long a statement may run, as the server sees it.
    #[serde(with = "humantime_serde")]
    pub statement_timeout: Duration,
    /// How long a statement may wait for a lock.
    #[serde(with = "humantime_serde")]
    pub lock_timeout: Duration,
    /// How long a transaction may lie idle. A service that vanishes within one holds its rows for as long.
    #[serde(with = "humantime_serde")]
    pub idle_in_transaction_timeout: Duration,
    /// How long the answer to a statement is waited for here. Longer than `statement_timeout`; after it the
    /// server is taken for gone, and the connection is closed.
    #[serde(with = "humantime_serde")]
    pub client_timeout: Duration,
}

impl Default for PostgresConfig {
    fn default() -> Self {
        Self {
            url: SecretUrl::new("postgres://127.0.0.1:5432/mailfleet"),
            password_file: None,
            max_connections: const { NonZeroU32::new(10).expect("not zero") },
            acquire_timeout: Duration::from_secs(5),
            statement_timeout: Duration::from_secs(10),
            lock_timeout: Duration::from_secs(5),
            idle_in_transaction_timeout: Duration::from_secs(10),
            client_timeout: Duration::from_secs(15),
        }
    }
}

/// `[fleet]`: what must be the same in every service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FleetConfig {
    /// How many shards the slots are spread over, at least 1. More let more senders share the work; each
    /// costs a lease and two consumers at the broker.
    pub shards: ShardCount,
}

/// `[telemetry]`: logs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TelemetryConfig {
    /// Filter of log lines, such as `info` or `info,sender=debug`. `MAILFLEET_LOG` wins.
    pub log: String,
    /// Their form.
    pub format: LogFormat,
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self { log: "info".to_owned(), format: LogFormat::Auto }
    }
}

/// The form of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people on a terminal, JSON elsewhere.
    #[default]
    Auto,
    /// One JSON object a line.
    Json,
    /// For people.
    Human,
}

/// `[runtime]`: threads and the way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RuntimeConfig {
    /// Threads that run tasks; absent, one for each core.
    pub worker_threads: Option<NonZeroUsize>,
    /// How long a shutdown may take. Below the pod's `terminationGracePeriodSeconds`.
    #[serde(with = "humantime_serde")]
    pub grace: Duration,
}

impl Default for RuntimeConfig {
    fn default() -> Self {
        Self { worker_threads: None, grace: Duration::from_secs(25) }
    }
}

/// `[http]`: the service's own endpoint for metrics and health, and the limits of every HTTP server of the
/// fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpConfig {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Most connections at a time; who comes beyond waits in the kernel's queue.
    pub max_connections: NonZeroUsize,
    /// Largest request body, in bytes.
    pub max_body: usize,
    /// How long a client may take for the head of a request, or keep an idle connection.
    #[serde(with = "humantime_serde")]
    pub header_timeout: Duration,
    /// How long a request may take, its body included.
    #[serde(with = "humantime_serde")]
    pub request_timeout: Duration,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0),
            max_connections: const { NonZeroUsize::new(256).expect("not zero") },
            max_body: 1024 * 1024,
            header_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(30),
        }
    }
}

/// `[secrets]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SecretsConfig {
    /// The key that seals DKIM keys at rest: 32 bytes, raw or as base64.
    pub master_key_file: Option<SecretFile>,
}
