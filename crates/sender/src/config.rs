//! What an operator decides about sending.

use domain::{AimdPolicy, Reactions, RetryPolicy, RulesError, Ruleset, Shaping, SiteId, SiteLimits};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs, io,
    num::NonZeroU32,
    path::{Path, PathBuf},
    time::Duration,
};

mod routes;

pub use routes::{
    AddressPolicy, BreakerConfig, DirectConfig, PoolConfig, PoolRouteConfig, ProviderConfig, RelayConfig, RouteConfig,
    TlsMode, Transport,
};

/// Octets of a file of rules.
const MAX_RULES_FILE: u64 = 1024 * 1024;

/// Why a file of rules cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RulesFileError {
    /// It cannot be read.
    #[error("cannot read {}", .file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is wrong.
    #[error("{}: {source}", .file.display())]
    Wrong {
        /// The file.
        file: PathBuf,
        /// All that is wrong with it.
        source: RulesError,
    },
}

/// Reads an operator's rules for replies, which come before those that are built in.
///
/// # Errors
/// When the file cannot be read, is larger than 1 MiB, or holds a mistake.
pub fn read_rules(file: &Path) -> Result<Ruleset, RulesFileError> {
    Ruleset::parse_own(&read(file)?).map_err(|source| RulesFileError::Wrong { file: file.to_owned(), source })
}

/// Reads an operator's reactions to replies, which come before those that are built in.
///
/// # Errors
/// When the file cannot be read, is larger than 1 MiB, or holds a mistake.
pub fn read_reactions(file: &Path) -> Result<Reactions, RulesFileError> {
    Reactions::parse_own(&read(file)?).map_err(|source| RulesFileError::Wrong { file: file.to_owned(), source })
}

fn read(file: &Path) -> Result<String, RulesFileError> {
    let read = || {
        if fs::metadata(file)?.len() > MAX_RULES_FILE {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "is larger than 1 MiB"));
        }
        fs::read_to_string(file)
    };
    read().map_err(|source| RulesFileError::Read { file: file.to_owned(), source })
}

/// Configuration of a sender. Durations are texts such as `500ms`, `30s`, `10m`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SenderConfig {
    /// The name under which this sender takes leases; unique in the fleet, the same after a restart on the same
    /// volume. Default: host name and the journal's directory name.
    pub name: String,
    /// The only way out, for a fleet that has no more than one. Default: a relay on this host, so that nothing leaves
    /// the machine until somebody says so. Excludes `routes` and `pools`.
    pub route: Option<RouteConfig>,
    /// Several ways out, by name: up to 32 characters `a-z`, `0-9`, `-`, and up to 32 of them.
    pub routes: BTreeMap<String, RouteConfig>,
    /// Who takes which of them, by name. One pool, and only one, is for everybody whom no other names.
    pub pools: BTreeMap<String, PoolConfig>,
    /// When a route that fails is left alone.
    pub breaker: BreakerConfig,
    /// Limits by destination site.
    pub shaping: Shaping,
    /// When deferred mail goes again, by what the deferral says and by lane.
    pub retry: RetryPolicy,
    /// Leases on shards.
    pub lease: LeaseConfig,
    /// What is held and claimed.
    pub desk: DeskConfig,
    /// How outcomes are written.
    pub record: RecordConfig,
    /// The local journal.
    pub journal: JournalConfig,
    /// How long each phase of an SMTP session may take.
    pub deadlines: Deadlines,
    /// A file of rules for replies, which come before those that are built in; empty: none. See `mailfleet classify`.
    pub reply_rules: PathBuf,
    /// A file of reactions to replies, which come before those that are built in; empty: none. Its form stands at the
    /// head of `crates/domain/rules/reactions.toml`.
    pub reactions: PathBuf,
    /// How far a rate is cut by default and how it climbs back.
    pub adapt: AimdPolicy,
    /// How long a shutdown waits for transactions under way before the process ends without them, which leaves them
    /// in doubt. Default 11 min, one more than a receiver may take to answer the final dot.
    #[serde(with = "humantime_serde")]
    pub grace: Duration,
}

impl Default for SenderConfig {
    fn default() -> Self {
        Self {
            name: String::new(),
            route: None,
            routes: BTreeMap::new(),
            pools: BTreeMap::new(),
            breaker: BreakerConfig::default(),
            shaping: Shaping::default(),
            retry: RetryPolicy::default(),
            lease: LeaseConfig::default(),
            desk: DeskConfig::default(),
            record: RecordConfig::default(),
            journal: JournalConfig::default(),
            deadlines: Deadlines::default(),
            reply_rules: PathBuf::new(),
            reactions: PathBuf::new(),
            adapt: AimdPolicy::default(),
            grace: Duration::from_secs(660),
        }
    }
}

impl SenderConfig {
    /// The rules for replies.
    ///
    /// # Errors
    /// When there is a file of them that cannot be used.
    pub fn rules(&self) -> Result<Ruleset, RulesFileError> {
        if self.reply_rules.as_os_str().is_empty() {
            Ok(Ruleset::builtin().clone())
        } else {
            read_rules(&self.reply_rules)
        }
    }

    /// The reactions to replies.
    ///
    /// # Errors
    /// When there is a file of them that cannot be used.
    pub fn reactions(&self) -> Result<Reactions, RulesFileError> {
        if self.reactions.as_os_str().is_empty() {
            Ok(Reactions::builtin().clone())
        } else {
            read_reactions(&self.reactions)
        }
    }

    /// The limits at a site, of each route by its name.
    pub fn limits(&self, site: &SiteId) -> Vec<(String, SiteLimits)> {
        let of = |name: &str, route: &RouteConfig| {
            let shaping = route.shaping().unwrap_or(&self.shaping);
            (name.to_owned(), shaping.limits_for(site))
        };
        match (&self.route, self.routes.is_empty()) {
            (Some(route), true) => vec![of(crate::routes::kind(route), route)],
            (None, true) => vec![("relay".to_owned(), self.shaping.limits_for(site))],
            (_, false) => self.routes.iter().map(|(name, route)| of(name, route)).collect(),
        }
    }

    /// The configured name, or the host's with the journal's directory.
    pub fn instance_name(&self) -> String {
        if !self.name.is_empty() {
            return self.name.clone();
        }
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let volume = self.journal.directory.file_name().map_or_else(String::new, |name| name.to_string_lossy().into());
        format!("{host}/{volume}")
    }
}

/// Leases on shards.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LeaseConfig {
    /// How long a lease lasts without renewal. A longer one delays the take-over of a dead sender's shards. Default 10 s.
    #[serde(with = "humantime_serde")]
    pub term: Duration,
    /// How often leases are renewed. Default 3 s.
    #[serde(with = "humantime_serde")]
    pub renew_every: Duration,
    /// How long before its end a lease counts as over here. Default 2 s.
    #[serde(with = "humantime_serde")]
    pub margin: Duration,
    /// How often free shards are looked for. Default 1 s.
    #[serde(with = "humantime_serde")]
    pub look_every: Duration,
}

impl Default for LeaseConfig {
    fn default() -> Self {
        Self {
            term: Duration::from_secs(10),
            renew_every: Duration::from_secs(3),
            margin: Duration::from_secs(2),
            look_every: Duration::from_secs(1),
        }
    }
}

/// What is held and claimed by the owner of a shard.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DeskConfig {
    /// Most letters that one shard holds unclaimed, of each lane. More cost memory, 10 to 100 KB each. Default 2,000.
    pub held: NonZeroU32,
    /// Longest time a letter is held unclaimed; then it is parked. Default 5 s.
    #[serde(with = "humantime_serde")]
    pub hold: Duration,
    /// How far ahead the throttle is asked. Default 500 ms.
    #[serde(with = "humantime_serde")]
    pub ahead: Duration,
    /// Most letters in one claim. Default 200.
    pub claim: NonZeroU32,
    /// Shortest time between two claims of a shard that are not full. Longer ones cost latency and save CPU.
    /// Default 20 ms; transactional mail does not wait for it.
    #[serde(with = "humantime_serde")]
    pub claim_every: Duration,
    /// Most letters claimed ahead for one connection. Default 20.
    pub ahead_per_connection: NonZeroU32,
    /// Longest time a claimed letter waits for its connection; then it is given back. Default 5 s.
    #[serde(with = "humantime_serde")]
    pub start_within: Duration,
    /// Idle connections are closed after this. Default 30 s.
    #[serde(with = "humantime_serde")]
    pub idle: Duration,
    /// First pause of a site after a connection failed or a reply asked to slow down; doubles up to 64 times as long
    /// while it goes on. Default 1 s.
    #[serde(with = "humantime_serde")]
    pub pause: Duration,
    /// Octets that mails take which are too large for the bus and so are rendered here, over all shards, half of
    /// them for each lane. What finds no room within `hold` rests for as long. At least one mail of a lane goes,
    /// whatever its size. Default 256 MiB.
    pub rendered_bytes: usize,
}

impl Default for DeskConfig {
    fn default() -> Self {
        Self {
            held: const { NonZeroU32::new(2_000).expect("not zero") },
            hold: Duration::from_secs(5),
            ahead: Duration::from_millis(500),
            claim: const { NonZeroU32::new(200).expect("not zero") },
            claim_every: Duration::from_millis(20),
            ahead_per_connection: const { NonZeroU32::new(20).expect("not zero") },
            start_within: Duration::from_secs(5),
            idle: Duration::from_secs(30),
            pause: Duration::from_secs(1),
            rendered_bytes: 256 * 1024 * 1024,
        }
    }
}

/// How outcomes are written.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RecordConfig {
    /// Most outcomes in one statement. Default 500.
    pub batch: NonZeroU32,
    /// How long the first outcome of a batch waits for others. Default 5 ms.
    #[serde(with = "humantime_serde")]
    pub linger: Duration,
}

impl Default for RecordConfig {
    fn default() -> Self {
        Self { batch: const { NonZeroU32::new(500).expect("not zero") }, linger: Duration::from_millis(5) }
    }
}

/// The local journal.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct JournalConfig {
    /// Its directory; one sender's alone. On a volume that outlives the process, it keeps a crash from putting every
    /// claim in doubt. Default `journal`.
    pub directory: PathBuf,
    /// Size at which the next file is begun, in bytes. Default 16 MiB.
    pub segment_bytes: u64,
}

impl Default for JournalConfig {
    fn default() -> Self {
        Self { directory: PathBuf::from("journal"), segment_bytes: 16 * 1024 * 1024 }
    }
}

/// How long each phase of an SMTP session may take. Defaults: RFC 5321, 4.5.3.2.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Deadlines {
    /// TCP connect. Default 60 s.
    #[serde(with = "humantime_serde")]
    pub connect: Duration,
    /// The greeting, and EHLO. Default 5 min.
    #[serde(with = "humantime_serde")]
    pub greeting: Duration,
    /// STARTTLS and the handshake, each. Default 30 s.
    #[serde(with = "humantime_serde")]
    pub starttls: Duration,
    /// MAIL, RCPT, each. Default 5 min.
    #[serde(with = "humantime_serde")]
    pub envelope: Duration,
    /// DATA to its 354. Default 2 min.
    #[serde(with = "humantime_serde")]
    pub data: Duration,
    /// The body without any progress. Default 3 min.
    #[serde(with = "humantime_serde")]
    pub body: Duration,
    /// The final dot to its reply. A shorter one makes duplicates. Default 10 min.
    #[serde(with = "humantime_serde")]
    pub dot: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(60),
            greeting: Duration::from_secs(300),
            starttls: Duration::from_secs(30),
            envelope: Duration::from_secs(300),
            data: Duration::from_secs(120),
            body: Duration::from_secs(180),
            dot: Duration::from_secs(600),
        }
    }
}
