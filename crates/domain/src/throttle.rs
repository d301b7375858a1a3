//! How each receiver wants its mail: connections, messages per connection, rates, TLS. Data, with defaults
//! for the big receivers; configuration changes single values and adds sites.
//!
//! These limits are the ceiling; what adapts moves below it.

use crate::{DomainName, Rate, SiteId, Slot, sandbox::SANDBOX};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, num::NonZeroU16, time::Duration};

/// The limits of one route at one site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SiteLimits {
    /// Connections open at once.
    pub max_connections: NonZeroU16,
    /// Messages after which a connection is closed.
    pub messages_per_connection: NonZeroU16,
    /// Messages; `None`: as fast as the connections go.
    pub rate: Option<Rate>,
    /// Messages that may go at once on top of the rate.
    pub burst: NonZeroU16,
    /// New connections; `None`: any number.
    pub connection_rate: Option<Rate>,
    /// An idle connection is closed after this time.
    pub idle_timeout: Duration,
    /// Whether a plain connection will do.
    pub tls: TlsNeed,
}

/// Whether a plain connection will do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TlsNeed {
    /// TLS when it is offered and works, else plain.
    Opportunistic,
    /// No TLS, no mail: it waits.
    Required,
}

/// The limits of every site.
///
/// As configuration: `default` and `sites.NAME`, each with any of the fields of [`SiteLimits`]; a rate is
/// `"100/s"`, or `"none"` to lift it. A name is that of a named site (`google`), or a domain with a dot,
/// which holds for the sites below it as well. A name that is neither is an error: a rule that matches
/// nothing would be a rule that is silently not obeyed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub struct Shaping {
    default: SiteLimits,
    named: BTreeMap<String, SiteLimits>,
    domains: BTreeMap<DomainName, SiteLimits>,
}

/// Why shaping is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShapingError {
    /// A rule's name is no known site and no domain.
    #[error("sites.{name:?} is neither a named site ({known}) nor a domain name with a dot")]
    UnknownSite {
        /// The name.
        name: String,
        /// The names that are known.
        known: String,
    },
}

const fn count(value: u16) -> NonZeroU16 {
    NonZeroU16::new(value).expect("limits are not zero")
}

impl SiteLimits {
    /// 10 connections, 100 messages each, 100 messages per second, 100 new connections per minute, closed
    /// when idle for 60 s, TLS when offered.
    fn shipped() -> Self {
        Self {
            max_connections: count(10),
            messages_per_connection: count(100),
            rate: Rate::new(100, Duration::from_secs(1)).ok(),
            burst: count(10),
            connection_rate: Rate::new(100, Duration::from_secs(60)).ok(),
            idle_timeout: Duration::from_secs(60),
            tls: TlsNeed::Opportunistic,
        }
    }
}

/// What ships for a named site: connections, messages per connection, and whether TLS is needed. Yahoo's
/// 20 is official; the others are what large senders found.
const SHIPPED: &[(&str, u16, u16, TlsNeed)] = &[
    ("google", 5, 50, TlsNeed::Required),
    ("microsoft", 5, 50, TlsNeed::Opportunistic),
    ("microsoft365", 5, 50, TlsNeed::Opportunistic),
    ("yahoo", 10, 20, TlsNeed::Opportunistic),
    ("apple", 10, 5, TlsNeed::Opportunistic),
    ("comcast", 25, 1_000, TlsNeed::Required),
    ("gmx", 4, 20, TlsNeed::Required),
    ("orange", 2, 100, TlsNeed::Required),
    ("mimecast", 10, 100, TlsNeed::Opportunistic),
    ("barracuda", 10, 15, TlsNeed::Required),
    ("qq", 4, 8, TlsNeed::Opportunistic),
    ("netease", 4, 7, TlsNeed::Opportunistic),
    ("yahoo-japan", 2, 20, TlsNeed::Opportunistic),
];

impl Shaping {
    /// The limits of `site`: its own, else those of the nearest domain above it that has a rule, else the
    /// default. The sandbox has no receiver who would want to be spared.
    pub fn limits_for(&self, site: &SiteId) -> SiteLimits {
        if site.as_str() == SANDBOX {
            return SiteLimits { rate: None, connection_rate: None, ..self.default };
        }
        if let Some(limits) = self.named.get(site.as_str()) {
            return *limits;
        }
        let nearest = self.domains.iter().filter(|(domain, _)| is_within(site.as_str(), domain.as_str()));
        nearest.max_by_key(|(domain, _)| domain.as_str().len()).map_or(self.default, |(_, limits)| *limits)
    }

    fn of(written: Written) -> Result<Self, ShapingError> {
        let shipped = SiteLimits::shipped();
        let mut named = BTreeMap::new();
        for (name, connections, messages, tls) in SHIPPED {
            let patch = Patch {
                max_connections: Some(count(*connections)),
                messages_per_connection: Some(count(*messages)),
                tls: Some(*tls),
                rate: (*name == "yahoo-japan").then(|| Limit(Rate::new(10, Duration::from_secs(1)).ok())),
                idle_timeout: (*name == "comcast").then_some(Duration::from_secs(30)),
                ..Patch::default()
            };
            named.insert((*name).to_owned(), patch);
        }
        // A changed default holds where nothing more special was shipped, so it goes below it.
        let default = written.default.over(shipped);
        let mut named: BTreeMap<_, _> = named.into_iter().map(|(name, patch)| (name, patch.over(default))).collect();
        let mut domains = BTreeMap::new();
        for (name, patch) in written.sites {
            if Slot::all().any(|slot| slot.named_site() == Some(&name)) {
                let limits = patch.over(named.get(&name).copied().unwrap_or(default));
                named.insert(name, limits);
            } else if let Ok(domain) = name.parse::<DomainName>() {
                domains.insert(domain, patch.over(default));
            } else {
                let known: Vec<_> = Slot::all().filter_map(Slot::named_site).collect();
                return Err(ShapingError::UnknownSite { name, known: known.join(", ") });
            }
        }
        Ok(Self { default, named, domains })
    }
}

impl Default for Shaping {
    fn default() -> Self {
        Self::of(Written::default()).expect("shipped names are named sites")
    }
}

/// Whether a site is the one of this name, or below this domain.
pub(crate) fn is_within(site: &str, parent: &str) -> bool {
    site.strip_suffix(parent).is_some_and(|head| head.is_empty() || head.ends_with('.'))
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Written {
    default: Patch,
    sites: BTreeMap<String, Patch>,
}

impl TryFrom<Written> for Shaping {
    type Error = ShapingError;

    fn try_from(written: Written) -> Result<Self, ShapingError> {
        Self::of(written)
    }
}

#[derive(Clone, Copy, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Patch {
    max_connections: Option<NonZeroU16>,
    messages_per_connection: Option<NonZeroU16>,
    rate: Option<Limit>,
    burst: Option<NonZeroU16>,
    connection_rate: Option<Limit>,
    #[serde(with = "humantime_serde")]
    idle_timeout: Option<Duration>,
    tls: Option<TlsNeed>,
}

impl Patch {
    fn over(self, base: SiteLimits) -> SiteLimits {
        SiteLimits {
            max_connections: self.max_connections.unwrap_or(base.max_connections),
            messages_per_connection: self.messages_per_connection.unwrap_or(base.messages_per_connection),
            rate: self.rate.map_or(base.rate, |limit| limit.0),
            burst: self.burst.unwrap_or(base.burst),
            connection_rate: self.connection_rate.map_or(base.connection_rate, |limit| limit.0),
            idle_timeout: self.idle_timeout.unwrap_or(base.idle_timeout),
            tls: self.tls.unwrap_or(base.tls),
        }
    }
}

impl From<Shaping> for Written {
    fn from(shaping: Shaping) -> Self {
        let domains = shaping.domains.into_iter().map(|(domain, limits)| (domain.to_string(), limits));
        let sites = shaping.named.into_iter().chain(domains).map(|(name, limits)| (name, limits.into())).collect();
        Self { default: shaping.default.into(), sites }
    }
}

impl From<SiteLimits> for Patch {
    fn from(limits: SiteLimits) -> Self {
        Self {
            max_connections: Some(limits.max_connections),
            messages_per_connection: Some(limits.messages_per_connection),
            rate: Some(Limit(limits.rate)),
            burst: Some(limits.burst),
            connection_rate: Some(Limit(limits.connection_rate)),
            idle_timeout: Some(limits.idle_timeout),
            tls: Some(limits.tls),
        }
    }
}

/// `"100/s"` or `"none"`.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
struct Limit(Option<Rate>);

impl TryFrom<String> for Limit {
    type Error = crate::RateError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        if text == "none" { Ok(Self(None)) } else { text.parse().map(|rate| Self(Some(rate))) }
    }
}

impl From<Limit> for String {
    fn from(limit: Limit) -> String {
        limit.0.map_or_else(|| "none".to_owned(), String::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(name: &str) -> SiteId {
        SiteId::from_stored(name.to_owned())
    }

    fn read(text: &str) -> Result<Shaping, serde_json::Error> {
        serde_json::from_str(text)
    }

    #[test]
    fn the_big_receivers_have_limits_of_their_own() {
        let shaping = Shaping::default();
        let google = shaping.limits_for(&SiteId::of_domain("gmail.com"));
        assert_eq!((google.max_connections.get(), google.messages_per_connection.get()), (5, 50));
        assert_eq!(google.tls, TlsNeed::Required);
        assert_eq!(shaping.limits_for(&site("yahoo")).messages_per_connection.get(), 20);
        assert_eq!(shaping.limits_for(&site("yahoo-japan")).rate, "10/s".parse().ok());
        assert_eq!(shaping.limits_for(&site("mx.example.org")), SiteLimits::shipped());
    }

    #[test]
    fn every_named_site_has_shipped_limits() {
        for name in Slot::all().filter_map(Slot::named_site) {
            assert!(SHIPPED.iter().any(|(shipped, ..)| *shipped == name), "{name}");
        }
    }

    #[test]
    fn configuration_changes_single_values() {
        let shaping = read(
            r#"{"default": {"burst": 3}, "sites": {"google": {"rate": "none"}, "example.org": {"max_connections": 1},
                "slow.example.org": {"rate": "1/min"}}}"#,
        )
        .unwrap();
        let google = shaping.limits_for(&site("google"));
        assert_eq!((google.rate, google.max_connections.get(), google.burst.get()), (None, 5, 3));
        assert_eq!(shaping.limits_for(&site("mx.example.org")).max_connections.get(), 1);
        assert_eq!(shaping.limits_for(&site("mx.slow.example.org")).rate, "1/min".parse().ok());
        assert_eq!(shaping.limits_for(&site("notexample.org")).max_connections.get(), 10);
        assert_eq!(read(&serde_json::to_string(&shaping).unwrap()).unwrap(), shaping);
    }

    #[test]
    fn a_rule_for_nobody_is_an_error() {
        for (wrong, why) in [
            (r#"{"sites": {"gmail": {}}}"#, "gmail"),
            (r#"{"sites": {"google": {"rat": "1/s"}}}"#, "rat"),
            (r#"{"sites": {"google": {"rate": "fast"}}}"#, "rate such as"),
            (r#"{"default": {"max_connections": 0}}"#, "nonzero"),
        ] {
            assert!(read(wrong).unwrap_err().to_string().contains(why), "{wrong}");
        }
    }
}
