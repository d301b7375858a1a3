//! The sections that several services read. `[nats]` is `bus::BusConfig`.

use super::{SecretFile, SecretUrl};
use domain::{Rate, ShardCount, TrackingSite};
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
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FleetConfig {
    /// How many shards the slots are spread over, at least 1. More let more senders share the work; each
    /// costs a lease and two consumers at the broker.
    pub shards: ShardCount,
    /// Where opens, clicks and unsubscriptions are answered. Absent: mails are signed and not tracked. Needs
    /// `secrets.master_key_file`, from which the key of the signatures derives.
    pub tracking: Option<TrackingSite>,
}

/// `[telemetry]`: logs and traces.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TelemetryConfig {
    /// Filter of log lines, such as `info` or `info,sender=debug`. `MAILFLEET_LOG` wins.
    pub log: String,
    /// Their form.
    pub format: LogFormat,
    /// Traces.
    pub traces: TraceConfig,
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self { log: "info".to_owned(), format: LogFormat::Auto, traces: TraceConfig::default() }
    }
}

/// `[telemetry.traces]`: traces over OTLP.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TraceConfig {
    /// The collector's gRPC endpoint, such as `http://collector:4317`. Empty: no traces. `OTEL_EXPORTER_OTLP_HEADERS`
    /// adds metadata, such as a token.
    pub endpoint: String,
    /// The share of calls that are sampled when their caller does not say, from 0 to 1. Default 0.01. What a caller
    /// samples is sampled.
    pub ratio: f64,
    /// The most recipients of one call whose messages are told step by step: the first ones. Default 10.
    pub messages_per_call: usize,
    /// How many failures that nobody samples a process tells, such as calls that fail here and attempts that are put
    /// off, refused or in doubt. Default 20 a second.
    pub failures: Rate,
    /// Spans that wait for the collector; what comes beyond is dropped. Default 2,048, about 2 MB.
    pub queue: NonZeroUsize,
    /// How long spans are gathered before they are sent. Default 5 s.
    #[serde(with = "humantime_serde")]
    pub delay: Duration,
    /// Longest wait for the collector. Default 5 s.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
}

impl Default for TraceConfig {
    fn default() -> Self {
        Self {
            endpoint: String::new(),
            ratio: 0.01,
            messages_per_call: 10,
            failures: Rate::new(20, Duration::from_secs(1)).expect("it is a rate"),
            queue: const { NonZeroUsize::new(2_048).expect("not zero") },
            delay: Duration::from_secs(5),
            timeout: Duration::from_secs(5),
        }
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
    /// The key that seals DKIM keys at rest, and that those derive from which sign return paths and links: 32 bytes, raw
    /// or as base64.
    pub master_key_file: Option<SecretFile>,
}
