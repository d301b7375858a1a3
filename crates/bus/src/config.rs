//! The `[nats]` section: where the broker is, and the bounds of what is entrusted to it.

use failpoint::Faults;
use serde::{Deserialize, Serialize, Serializer};
use std::{fmt, path::PathBuf, str::FromStr, time::Duration};

const MIB: u64 = 1024 * 1024;

/// Everything that this crate can be told. Each duration is a value of its own, so that tests can run at
/// a tenth.
#[derive(Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct BusConfig {
    /// The servers, `nats://host:port`, several by comma. Credentials in it are never shown.
    #[serde(serialize_with = "without_credentials")]
    pub url: String,
    /// First token of every subject and, in capitals, of every stream name. Fleets and tests that share a
    /// broker differ in it.
    pub prefix: Prefix,
    /// A NATS credentials file (JWT and nkey seed).
    pub credentials_file: Option<PathBuf>,
    /// Certificates to trust, PEM; demands TLS.
    pub ca_file: Option<PathBuf>,
    /// Whether [`Bus::connect`](crate::Bus::connect) returns before the first connection stands and goes
    /// on trying. Otherwise an absent broker is an error at start.
    pub retry_on_initial_connect: bool,
    /// How long one connection attempt may take.
    #[serde(with = "humantime_serde")]
    pub connect_timeout: Duration,
    /// Between pings; a peer that leaves two unanswered is dead. Larger: a vanished broker is noticed later.
    #[serde(with = "humantime_serde")]
    pub ping_interval: Duration,
    /// How long to wait for the answer to a publish before its fate counts as unknown.
    #[serde(with = "humantime_serde")]
    pub publish_timeout: Duration,
    /// How long to wait for the answer to a question about streams and consumers.
    #[serde(with = "humantime_serde")]
    pub api_timeout: Duration,
    /// First pause before a lost connection or consumer is tried again; doubles up to `backoff_max`.
    #[serde(with = "humantime_serde")]
    pub backoff_min: Duration,
    /// Longest pause between tries.
    #[serde(with = "humantime_serde")]
    pub backoff_max: Duration,
    /// Publishes of this process that wait for their answer at the same time.
    pub max_publishes_in_flight: usize,
    /// Memory for both `RENDER` streams together, in bytes; bulk gets three quarters.
    pub render_max_bytes: u64,
    /// Memory for both `SEND` streams together, in bytes; bulk gets three quarters. The server's `max_mem`
    /// should be twice the sum of this and `render_max_bytes`.
    pub send_max_bytes: u64,
    /// Copies of each stream in a cluster: 1, 3 or 5.
    pub replicas: usize,
    /// How long the broker remembers the keys of publishes. It only trims the noise of repeated publishes;
    /// larger costs memory.
    #[serde(with = "humantime_serde")]
    pub duplicate_window: Duration,
    /// How long a consumer may hold a chunk before the broker hands it to another.
    #[serde(with = "humantime_serde")]
    pub ack_wait: Duration,
    /// Chunks of one lane that all renderers together may hold.
    pub render_max_ack_pending: i64,
    /// Chunks of one shard and lane that its sender may hold.
    pub send_max_ack_pending: i64,
    /// Chunks that one pull asks for. Keep it below twice what the consumer works on at a time: what
    /// waits in this process ages against `ack_wait`.
    pub pull_batch: usize,
    /// How long a pull stays open at the broker.
    #[serde(with = "humantime_serde")]
    pub pull_expires: Duration,
    /// How often the broker shows a sign of life on an idle pull; after two without one the pull is
    /// rebuilt. At most half of `pull_expires`.
    #[serde(with = "humantime_serde")]
    pub pull_heartbeat: Duration,
    /// Which publishes, pulls and answers go wrong. For tests; no section of a file says so.
    #[serde(skip)]
    pub faults: Option<Faults>,
}

impl Default for BusConfig {
    fn default() -> Self {
        Self {
            url: "nats://127.0.0.1:4222".to_owned(),
            prefix: Prefix::default(),
            credentials_file: None,
            ca_file: None,
            retry_on_initial_connect: false,
            connect_timeout: Duration::from_secs(2),
            ping_interval: Duration::from_secs(5),
            publish_timeout: Duration::from_secs(2),
            api_timeout: Duration::from_secs(5),
            backoff_min: Duration::from_millis(50),
            backoff_max: Duration::from_secs(1),
            max_publishes_in_flight: 512,
            render_max_bytes: 32 * MIB,
            send_max_bytes: 96 * MIB,
            replicas: 1,
            duplicate_window: Duration::from_secs(60),
            ack_wait: Duration::from_secs(30),
            render_max_ack_pending: 1_000,
            send_max_ack_pending: 1_000,
            pull_batch: 16,
            pull_expires: Duration::from_secs(30),
            pull_heartbeat: Duration::from_secs(5),
            faults: None,
        }
    }
}

impl BusConfig {
    /// The pause before try number `attempt` (from 0): doubling from `backoff_min` to `backoff_max`, less
    /// up to a quarter at random so that many clients do not come back in step.
    pub(crate) fn backoff(&self, attempt: usize) -> Duration {
        let factor = 1_u32 << attempt.min(16);
        let full = self.backoff_min.saturating_mul(factor).min(self.backoff_max);
        full.mul_f64(1.0 - 0.25 * random_fraction())
    }
}

/// A number in `[0, 1)` from the randomness that the standard library seeds its maps with; good enough
/// to spread reconnects.
fn random_fraction() -> f64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    let bits = RandomState::new().build_hasher().finish();
    f64::from(u32::try_from(bits >> 32).unwrap_or(0)) / (f64::from(u32::MAX) + 1.0)
}

impl fmt::Debug for BusConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BusConfig").field("url", &hide(&self.url)).field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

fn without_credentials<S: Serializer>(url: &str, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&hide(url))
}

/// The URLs with everything before an `@` replaced.
fn hide(urls: &str) -> String {
    let one = |url: &str| match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://***@{host}"),
        (None, Some((_, host))) => format!("***@{host}"),
        _ => url.to_owned(),
    };
    urls.split(',').map(one).collect::<Vec<_>>().join(",")
}

/// The first token of a fleet's subjects: a lower-case letter, then up to 31 lower-case letters, digits,
/// `-` or `_`, so that its capitals name streams without two prefixes meeting.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Prefix(String);

/// A text that cannot be a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be a lower-case letter followed by at most 31 lower-case letters, digits, hyphens or underscores")]
pub struct PrefixError;

impl Prefix {
    /// The token.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Prefix {
    fn default() -> Self {
        Self("mailfleet".to_owned())
    }
}

impl FromStr for Prefix {
    type Err = PrefixError;

    fn from_str(text: &str) -> Result<Self, PrefixError> {
        text.to_owned().try_into()
    }
}

impl TryFrom<String> for Prefix {
    type Error = PrefixError;

    fn try_from(text: String) -> Result<Self, PrefixError> {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte);
        let fits = text.len() <= 32 && text.starts_with(|c: char| c.is_ascii_lowercase()) && text.bytes().all(plain);
        fits.then_some(Self(text)).ok_or(PrefixError)
    }
}

impl From<Prefix> for String {
    fn from(prefix: Prefix) -> Self {
        prefix.0
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_never_shown() {
        let config = BusConfig { url: "nats://me:secret@a:1,nats://b:2".to_owned(), ..BusConfig::default() };
        assert!(!format!("{config:?}").contains("secret"));
        assert_eq!(hide(&config.url), "nats://***@a:1,nats://b:2");
    }

    #[test]
    fn the_pause_grows_and_is_bounded() {
        let config = BusConfig::default();
        assert!(config.backoff(0) <= config.backoff_min);
        for attempt in [0, 1, 5, 16, 1_000] {
            assert!(config.backoff(attempt) <= config.backoff_max);
            assert!(config.backoff(attempt) >= config.backoff_min.mul_f64(0.74));
        }
    }

    #[test]
    fn a_prefix_is_one_plain_token() {
        assert!("t-1_a".parse::<Prefix>().is_ok());
        for bad in ["", "A", "1a", "a.b", "a b", "a*", "a>", &"a".repeat(33)] {
            assert_eq!(bad.parse::<Prefix>(), Err(PrefixError), "{bad:?}");
        }
    }
}
