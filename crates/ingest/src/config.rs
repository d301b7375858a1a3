//! What ingest can be told.

use content::Limits;
use domain::DomainName;
use serde::{Deserialize, Serialize};
use service::ConfigError;
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    num::{NonZeroU32, NonZeroUsize},
    time::Duration,
};

/// `[ingest]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IngestConfig {
    /// Where to listen for gRPC; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Whether to answer server reflection, so that tools find the API by themselves.
    pub reflection: bool,
    /// Bounds on one rendering; the same as the renderers'.
    pub limits: Limits,
    /// Bounds on clients.
    pub server: ServerLimits,
    /// How accepted calls are committed.
    pub accept: AcceptConfig,
    /// What goes straight on its way.
    pub fast_lane: FastLaneConfig,
    /// Bounds on those who watch events.
    pub watch: WatchConfig,
    /// Bounds on imports and exports.
    pub transfers: TransferConfig,
    /// How long a key is remembered, and so the longest time until a revocation holds everywhere. Smaller: more
    /// look-ups.
    #[serde(with = "humantime_serde")]
    pub key_term: Duration,
    /// How long a tenant's sending domains, the latest version of a template and the site of a domain are remembered.
    /// Smaller: more look-ups; larger: a newly published version is used later by other instances.
    #[serde(with = "humantime_serde")]
    pub name_term: Duration,
    /// How long the answer to an idempotency key is kept.
    #[serde(with = "humantime_serde")]
    pub idempotency_term: Duration,
    /// How quotas are kept to.
    pub quotas: QuotaConfig,
    /// What to publish in DNS beside DKIM keys.
    pub dns: DnsConfig,
    /// Take mail only for sending domains that `VerifyDomain` found in DNS. Default true; a fleet that reaches nobody but
    /// a sink of its own, as the local one, needs no DNS.
    pub require_verified_domains: bool,
    /// How often the database's clock, the pauses and the health of the broker are looked at.
    #[serde(with = "humantime_serde")]
    pub look_every: Duration,
}

impl Default for IngestConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7025),
            reflection: true,
            limits: Limits::default(),
            server: ServerLimits::default(),
            accept: AcceptConfig::default(),
            fast_lane: FastLaneConfig::default(),
            watch: WatchConfig::default(),
            transfers: TransferConfig::default(),
            key_term: Duration::from_secs(5),
            name_term: Duration::from_secs(1),
            idempotency_term: Duration::from_secs(24 * 3600),
            quotas: QuotaConfig::default(),
            dns: DnsConfig::default(),
            require_verified_domains: true,
            look_every: Duration::from_millis(500),
        }
    }
}

impl IngestConfig {
    /// What contradicts itself.
    ///
    /// # Errors
    /// The first such value.
    pub fn check(&self) -> Result<(), ConfigError> {
        let least = self.server.max_request_bytes;
        if self.accept.max_queued_bytes < least {
            let message = "must not be below ingest.server.max_request_bytes, or the largest call is never taken";
            return Err(ConfigError::invalid("ingest.accept.max_queued_bytes", message));
        }
        if self.key_term.is_zero() || self.look_every.is_zero() {
            return Err(ConfigError::invalid("ingest.key_term, ingest.look_every", "must be above zero"));
        }
        if self.quotas.term.is_zero() {
            return Err(ConfigError::invalid("ingest.quotas.term", "must be above zero"));
        }
        if self.watch.poll.is_zero() || self.watch.heartbeat.is_zero() || self.watch.page == 0 {
            return Err(ConfigError::invalid(
                "ingest.watch.poll, ingest.watch.heartbeat, ingest.watch.page",
                "must be above zero",
            ));
        }
        self.dns.check()
    }
}

/// `[ingest.server]`: the bounds on clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServerLimits {
    /// Most connections at a time; who comes beyond waits in the kernel's queue.
    pub max_connections: NonZeroUsize,
    /// Most calls of one connection at a time, as HTTP/2 streams.
    pub max_streams: NonZeroU32,
    /// Most calls at a time over all connections; beyond it they are refused with a delay.
    pub max_calls: NonZeroUsize,
    /// Largest request, in octets.
    pub max_request_bytes: usize,
    /// Largest answer, in octets.
    pub max_response_bytes: usize,
    /// Largest header list of a request, in octets.
    pub max_header_bytes: u32,
    /// Longest time for one call, whatever deadline it names.
    #[serde(with = "humantime_serde")]
    pub call_timeout: Duration,
    /// How long a connection may be idle before it is asked for a sign of life.
    #[serde(with = "humantime_serde")]
    pub keepalive_interval: Duration,
    /// How long it may take for one.
    #[serde(with = "humantime_serde")]
    pub keepalive_timeout: Duration,
    /// How long a connection lives before its client is asked to make a new one, so that load spreads again.
    #[serde(with = "humantime_serde")]
    pub max_connection_age: Duration,
    /// How long calls under way may take to end then.
    #[serde(with = "humantime_serde")]
    pub connection_grace: Duration,
    /// What a refused caller is told to wait.
    #[serde(with = "humantime_serde")]
    pub retry_after: Duration,
    /// Mails of one stream that are taken in ahead of their answers.
    pub stream_window: NonZeroUsize,
    /// How long connections may take to end when the service stops; then they are cut. Below `runtime.grace`.
    #[serde(with = "humantime_serde")]
    pub drain: Duration,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            max_connections: const { NonZeroUsize::new(1_000).expect("not zero") },
            max_streams: const { NonZeroU32::new(100).expect("not zero") },
            max_calls: const { NonZeroUsize::new(1_000).expect("not zero") },
            max_request_bytes: 32 * 1024 * 1024,
            max_response_bytes: 32 * 1024 * 1024,
            max_header_bytes: 16 * 1024,
            call_timeout: Duration::from_secs(30),
            keepalive_interval: Duration::from_secs(30),
            keepalive_timeout: Duration::from_secs(10),
            max_connection_age: Duration::from_secs(30 * 60),
            connection_grace: Duration::from_secs(60),
            retry_after: Duration::from_secs(1),
            stream_window: const { NonZeroUsize::new(256).expect("not zero") },
            drain: Duration::from_secs(10),
        }
    }
}

/// `[ingest.accept]`: the group commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AcceptConfig {
    /// Commits at the same time. While one waits for the disk, the next gathers; more gather less.
    pub committers: NonZeroUsize,
    /// Most messages of one group; a larger call is committed alone. Larger: fewer commits, longer ones.
    pub max_group_messages: usize,
    /// Most octets of one group; likewise.
    pub max_group_bytes: usize,
    /// Most calls that wait for their commit; beyond it calls are refused with a delay.
    pub max_queued_calls: NonZeroUsize,
    /// Most octets that wait for their commit; beyond it calls are refused with a delay.
    pub max_queued_bytes: usize,
}

impl Default for AcceptConfig {
    fn default() -> Self {
        Self {
            committers: const { NonZeroUsize::new(2).expect("not zero") },
            max_group_messages: 2_000,
            max_group_bytes: 8 * 1024 * 1024,
            max_queued_calls: const { NonZeroUsize::new(4_096).expect("not zero") },
            max_queued_bytes: 256 * 1024 * 1024,
        }
    }
}

/// `[ingest.fast_lane]`: transactional mail that nothing holds back goes straight to the renderers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FastLaneConfig {
    /// Messages for one slot that may go straight in `window`; more wait for the dispatcher, which knows how full the
    /// slot is. Larger: a burst fills the broker before it is bounded.
    pub credit: u32,
    /// The time that the credit is for.
    #[serde(with = "humantime_serde")]
    pub window: Duration,
    /// Messages that may wait here for their publish; beyond it they wait for the dispatcher.
    pub max_pending: usize,
    /// Publishes at the same time.
    pub in_flight: NonZeroUsize,
    /// How long a message rests whose publish was refused.
    #[serde(with = "humantime_serde")]
    pub park: Duration,
    /// How long a publish of the health probe may take.
    #[serde(with = "humantime_serde")]
    pub probe_timeout: Duration,
}

impl Default for FastLaneConfig {
    fn default() -> Self {
        Self {
            credit: 1_000,
            window: Duration::from_secs(3),
            max_pending: 5_000,
            in_flight: const { NonZeroUsize::new(64).expect("not zero") },
            park: Duration::from_secs(1),
            probe_timeout: Duration::from_secs(1),
        }
    }
}

/// `[ingest.quotas]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QuotaConfig {
    /// How long a tenant's quotas are remembered, and so the longest time until new ones hold everywhere. Smaller: more
    /// look-ups.
    #[serde(with = "humantime_serde")]
    pub term: Duration,
    /// How often the backlog of a tenant with a quota on it is counted while calls come. Smaller: more exact with many
    /// instances, and more work for the database; a count that takes long is made less often by itself.
    #[serde(with = "humantime_serde")]
    pub count_every: Duration,
}

impl Default for QuotaConfig {
    fn default() -> Self {
        Self { term: Duration::from_secs(5), count_every: Duration::from_secs(1) }
    }
}

/// Longest wait for DNS within a call.
const LONGEST_LOOK: Duration = Duration::from_secs(30);

/// `[ingest.dns]`: what is told to publish beside DKIM keys, and how it is looked for. What is empty is not told, since
/// this fleet cannot know it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DnsConfig {
    /// The SPF record of return-path domains, which names the addresses or relays that mail leaves from:
    /// `v=spf1 ip4:192.0.2.1 -all`.
    pub spf: String,
    /// The hosts that take bounces, the MX of return-path domains, the preferred one first.
    pub bounce_hosts: Vec<DomainName>,
    /// The DMARC record of sending domains. Default: one that asks for nothing.
    pub dmarc: String,
    /// The resolvers that `VerifyDomain` asks, `ADDRESS` or `ADDRESS:PORT`. Default: the system's.
    pub servers: Vec<String>,
    /// How long an answer of theirs is waited for. Default 5 s.
    #[serde(with = "humantime_serde")]
    pub within: Duration,
}

impl Default for DnsConfig {
    fn default() -> Self {
        Self {
            spf: String::new(),
            bounce_hosts: Vec::new(),
            dmarc: "v=DMARC1; p=none".to_owned(),
            servers: Vec::new(),
            within: Duration::from_secs(5),
        }
    }
}

impl DnsConfig {
    fn check(&self) -> Result<(), ConfigError> {
        let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
        if !(self.spf.is_empty() || self.spf.starts_with("v=spf1 ") && plain(&self.spf)) {
            return Err(ConfigError::invalid("ingest.dns.spf", "must begin with `v=spf1 ` (RFC 7208, 4.5)"));
        }
        if !(self.dmarc.starts_with("v=DMARC1;") && plain(&self.dmarc)) {
            return Err(ConfigError::invalid("ingest.dns.dmarc", "must begin with `v=DMARC1;` (RFC 7489, 6.3)"));
        }
        let is_address = |text: &String| text.parse::<SocketAddr>().is_ok() || text.parse::<IpAddr>().is_ok();
        if let Some(server) = self.servers.iter().find(|server| !is_address(server)) {
            let problem = format!("{server:?} is no address; give ADDRESS or ADDRESS:PORT");
            return Err(ConfigError::invalid("ingest.dns.servers", &problem));
        }
        if self.within.is_zero() || self.within > LONGEST_LOOK {
            return Err(ConfigError::invalid("ingest.dns.within", "must be above zero, and 30 s at most"));
        }
        Ok(())
    }
}

/// `[ingest.watch]`: those who watch events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WatchConfig {
    /// Most watchers of this process; beyond it they are refused with a delay. Each may have a page in memory.
    pub max_watchers: usize,
    /// Most watchers of one tenant in this process, likewise.
    pub max_per_tenant: usize,
    /// How often the log is looked at while somebody watches and the broker tells of nothing new. Smaller: events are
    /// told sooner while the broker is away, and the database is asked more often.
    #[serde(with = "humantime_serde")]
    pub poll: Duration,
    /// How often a watcher is told how far the stream has come while nothing passes his filters.
    #[serde(with = "humantime_serde")]
    pub heartbeat: Duration,
    /// Entries of the log that one look goes through, of all tenants. Larger: watchers that are behind catch up with
    /// fewer looks, each of which takes longer and more memory.
    pub page: u32,
    /// Looks that are kept for watchers which do not read fast enough; who is further behind reads the log himself.
    pub kept: NonZeroUsize,
    /// Watchers that read the log themselves at the same time; each takes a connection to the database while it does.
    pub readers: NonZeroUsize,
}

impl Default for WatchConfig {
    fn default() -> Self {
        Self {
            max_watchers: 200,
            max_per_tenant: 10,
            poll: Duration::from_secs(1),
            heartbeat: Duration::from_secs(15),
            page: 500,
            kept: const { NonZeroUsize::new(64).expect("not zero") },
            readers: const { NonZeroUsize::new(2).expect("not zero") },
        }
    }
}

/// `[ingest.transfers]`: imports and exports of suppression lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TransferConfig {
    /// Most imports and exports of this process at the same time; beyond it they are refused with a delay. Each may
    /// have a piece in memory, and takes a connection to the database while it works on it. Default 8.
    pub max_transfers: usize,
    /// Most of one tenant in this process, likewise. Default 2.
    pub max_per_tenant: usize,
    /// Longest wait for a caller to send or to take the next piece. Default 60 s.
    #[serde(with = "humantime_serde")]
    pub idle: Duration,
    /// Most entries of one import. Default 10,000,000.
    pub max_entries: u64,
}

impl Default for TransferConfig {
    fn default() -> Self {
        Self { max_transfers: 8, max_per_tenant: 2, idle: Duration::from_secs(60), max_entries: 10_000_000 }
    }
}
