//! SPF as a receiver evaluates it (RFC 7208), with its look-ups counted.

use crate::{Dns, NoAnswer};
use hickory_resolver::proto::rr::{RData, RecordType};
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

/// Most terms that may ask DNS (RFC 7208, 4.6.4).
pub const MOST_LOOKUPS: u32 = 10;
/// Most look-ups that may find nothing (RFC 7208, 4.6.4).
const MOST_VOID: u32 = 2;
/// Most hosts of one `mx` (RFC 7208, 4.6.4).
const MOST_HOSTS: usize = 10;

/// What becomes of mail from an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may send.
    Pass,
    /// It may not.
    Fail,
    /// It probably may not.
    SoftFail,
    /// The record does not say.
    Neutral,
}

impl Verdict {
    /// The result's name (RFC 7208, 2.6).
    pub const fn word(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::SoftFail => "softfail",
            Self::Neutral => "neutral",
        }
    }
}

/// Why a record cannot be evaluated.
#[derive(Debug, thiserror::Error)]
pub enum SpfError {
    /// There is no record.
    #[error("{domain} publishes no SPF record")]
    None {
        /// Whose.
        domain: String,
    },
    /// More than one record is an error (RFC 7208, 4.5).
    #[error("{domain} publishes {count} SPF records, and more than one is an error")]
    Several {
        /// Whose.
        domain: String,
        /// How many there are.
        count: usize,
    },
    /// More terms ask DNS than may.
    #[error("more than {MOST_LOOKUPS} terms ask DNS, and receivers stop there")]
    TooManyLookups,
    /// More look-ups find nothing than may.
    #[error("more than {MOST_VOID} look-ups find nothing, and receivers stop there")]
    TooManyVoid,
    /// A term that is none.
    #[error("{term:?} is no term of SPF")]
    Syntax {
        /// The term.
        term: String,
    },
    /// A term that only a mail can fill in.
    #[error("{term:?} has a macro, which depends on each mail and is not evaluated here")]
    Macro {
        /// The term.
        term: String,
    },
    /// DNS did not answer.
    #[error(transparent)]
    Dns(#[from] NoAnswer),
}

/// What a record came to.
#[derive(Clone, Copy, Debug)]
pub struct Evaluated {
    /// What becomes of the mail.
    pub verdict: Verdict,
    /// Terms that asked DNS on the way.
    pub lookups: u32,
}

/// The one SPF record of a domain.
async fn record(dns: &Dns, domain: &str) -> Result<String, SpfError> {
    let texts = dns.txt(domain).await?;
    let is_spf = |text: &String| text.split(' ').next().is_some_and(|word| word.eq_ignore_ascii_case("v=spf1"));
    let mut found: Vec<String> = texts.into_iter().filter(is_spf).collect();
    match (found.len(), found.pop()) {
        (1, Some(record)) => Ok(record),
        (0, _) | (_, None) => Err(SpfError::None { domain: domain.to_owned() }),
        (count, _) => Err(SpfError::Several { domain: domain.to_owned(), count }),
    }
}

/// Evaluates the record of a domain for an address; for none, every term is walked and only `all` matches.
///
/// # Errors
/// When the record is missing or wrong, or DNS does not answer.
pub async fn evaluate(dns: &Dns, domain: &str, source: Option<IpAddr>) -> Result<Evaluated, SpfError> {
    let mut walk = Walk { dns, source, lookups: 0, void: 0 };
    let verdict = walk.domain(domain.to_owned()).await?.unwrap_or(Verdict::Neutral);
    Ok(Evaluated { verdict, lookups: walk.lookups })
}

/// A record, parsed as a whole: one wrong term anywhere makes all of it wrong (RFC 7208, 4.6).
#[derive(Debug, PartialEq, Eq)]
struct Record {
    mechanisms: Vec<(Verdict, Mechanism)>,
    redirect: Option<String>,
}

/// What an address may match (RFC 7208, 5); a target that is left out is the record's own domain.
#[derive(Debug, PartialEq, Eq)]
enum Mechanism {
    All,
    Net(IpAddr, u8),
    Include(String),
    A(Option<String>, (u8, u8)),
    Mx(Option<String>, (u8, u8)),
    Exists(String),
    Ptr,
}

impl FromStr for Record {
    type Err = SpfError;

    fn from_str(text: &str) -> Result<Self, SpfError> {
        let mut parsed = Self { mechanisms: Vec::new(), redirect: None };
        for term in text.split_ascii_whitespace().skip(1) {
            if let Some((name, value)) = term.split_once('=')
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
            {
                if name.eq_ignore_ascii_case("redirect") {
                    parsed.redirect = Some(no_macro(value, term)?);
                }
                continue;
            }
            let (verdict, mechanism) = match term.as_bytes()[0] {
                b'+' => (Verdict::Pass, &term[1..]),
                b'-' => (Verdict::Fail, &term[1..]),
                b'~' => (Verdict::SoftFail, &term[1..]),
                b'?' => (Verdict::Neutral, &term[1..]),
                _ => (Verdict::Pass, term),
            };
            parsed.mechanisms.push((verdict, self::mechanism(term, mechanism)?));
        }
        Ok(parsed)
    }
}

fn mechanism(term: &str, text: &str) -> Result<Mechanism, SpfError> {
    let syntax = || SpfError::Syntax { term: term.to_owned() };
    let cut = text.find([':', '/']).unwrap_or(text.len());
    let (name, rest) = text.split_at(cut);
    let name = name.to_ascii_lowercase();
    // The colons of an address are no end of it, its slash is.
    let (value, prefix) = match rest.strip_prefix(':') {
        Some(value) => value.split_once('/').unwrap_or((value, "")),
        None => ("", rest.strip_prefix('/').unwrap_or_default()),
    };
    let target = if value.is_empty() { None } else { Some(no_macro(value, term)?) };
    let is_whole = prefix.is_empty();
    match (name.as_str(), target) {
        ("all", None) if rest.is_empty() => Ok(Mechanism::All),
        ("ip4", Some(net)) => {
            let net: Ipv4Addr = net.parse().map_err(|_| syntax())?;
            Ok(Mechanism::Net(net.into(), length(prefix, 32).ok_or_else(syntax)?))
        }
        ("ip6", Some(net)) => {
            let net: Ipv6Addr = net.parse().map_err(|_| syntax())?;
            Ok(Mechanism::Net(net.into(), length(prefix, 128).ok_or_else(syntax)?))
        }
        ("include", Some(target)) if is_whole => Ok(Mechanism::Include(target)),
        ("a", target) => Ok(Mechanism::A(target, lengths(prefix).ok_or_else(syntax)?)),
        ("mx", target) => Ok(Mechanism::Mx(target, lengths(prefix).ok_or_else(syntax)?)),
        ("exists", Some(target)) if is_whole => Ok(Mechanism::Exists(target)),
        ("ptr", _) if is_whole => Ok(Mechanism::Ptr),
        _ => Err(syntax()),
    }
}

struct Walk<'a> {
    dns: &'a Dns,
    source: Option<IpAddr>,
    lookups: u32,
    void: u32,
}

impl Walk<'_> {
    fn count(&mut self) -> Result<(), SpfError> {
        self.lookups += 1;
        if self.lookups > MOST_LOOKUPS { Err(SpfError::TooManyLookups) } else { Ok(()) }
    }

    async fn found(&mut self, name: &str, kind: RecordType) -> Result<Vec<RData>, SpfError> {
        let found = self.dns.records(name, kind).await?;
        if found.is_empty() {
            self.void += 1;
            if self.void > MOST_VOID {
                return Err(SpfError::TooManyVoid);
            }
        }
        Ok(found)
    }

    /// The verdict of the first mechanism that matches. Each step deeper is one look-up more, which bounds the depth.
    async fn domain(&mut self, domain: String) -> Result<Option<Verdict>, SpfError> {
        let record: Record = record(self.dns, &domain).await?.parse()?;
        for (verdict, mechanism) in record.mechanisms {
            if self.matches(&domain, mechanism).await? {
                return Ok(Some(verdict));
            }
        }
        let Some(target) = record.redirect else { return Ok(None) };
        self.count()?;
        Box::pin(self.domain(target)).await
    }

    async fn matches(&mut self, domain: &str, mechanism: Mechanism) -> Result<bool, SpfError> {
        let or_own = |target: Option<String>| target.unwrap_or_else(|| domain.to_owned());
        if !matches!(mechanism, Mechanism::All | Mechanism::Net(..)) {
            self.count()?;
        }
        match mechanism {
            Mechanism::All => Ok(true),
            Mechanism::Net(net, bits) => Ok(self.source.is_some_and(|source| within(source, net, bits))),
            Mechanism::Include(target) => {
                Ok(Box::pin(self.domain(target)).await? == Some(Verdict::Pass) && self.source.is_some())
            }
            Mechanism::A(target, lengths) => self.host(&or_own(target), lengths).await,
            Mechanism::Mx(target, lengths) => {
                for host in self.found(&or_own(target), RecordType::MX).await?.iter().take(MOST_HOSTS) {
                    if let RData::MX(mx) = host
                        && self.host(&mx.exchange.to_ascii(), lengths).await?
                    {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            Mechanism::Exists(target) => {
                Ok(!self.found(&target, RecordType::A).await?.is_empty() && self.source.is_some())
            }
            // Not to be used (RFC 7208, 5.5), and slow: counted, and taken to match nothing.
            Mechanism::Ptr => Ok(false),
        }
    }

    async fn host(&mut self, name: &str, (v4, v6): (u8, u8)) -> Result<bool, SpfError> {
        let (kind, bits) = match self.source {
            Some(IpAddr::V6(_)) => (RecordType::AAAA, v6),
            Some(IpAddr::V4(_)) | None => (RecordType::A, v4),
        };
        let found = self.found(name, kind).await?;
        let Some(source) = self.source else { return Ok(false) };
        Ok(found.iter().any(|data| match data {
            RData::A(address) => within(source, IpAddr::V4(address.0), bits),
            RData::AAAA(address) => within(source, IpAddr::V6(address.0), bits),
            _ => false,
        }))
    }
}

fn no_macro(value: &str, term: &str) -> Result<String, SpfError> {
    if value.contains('%') { Err(SpfError::Macro { term: term.to_owned() }) } else { Ok(value.to_owned()) }
}

/// A prefix length; all bits when it is left out.
fn length(text: &str, most: u8) -> Option<u8> {
    if text.is_empty() { Some(most) } else { text.parse().ok().filter(|bits| *bits <= most) }
}

/// Both prefix lengths of `a` and `mx`: `24`, `24//64`, `/64`.
fn lengths(text: &str) -> Option<(u8, u8)> {
    let (v4, v6) = match text.strip_prefix('/') {
        Some(v6) => ("", v6),
        None => text.split_once("//").unwrap_or((text, "")),
    };
    Some((length(v4, 32)?, length(v6, 128)?))
}

fn within(address: IpAddr, net: IpAddr, bits: u8) -> bool {
    match (address, net) {
        (IpAddr::V4(address), IpAddr::V4(net)) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
            (address.to_bits() ^ net.to_bits()) & mask == 0
        }
        (IpAddr::V6(address), IpAddr::V6(net)) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
            (address.to_bits() ^ net.to_bits()) & mask == 0
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_net_holds_what_begins_as_it_does() {
        let ip = |text: &str| text.parse::<IpAddr>().expect("is an address");
        let is_within = |address: &str, net: &str, bits| within(ip(address), ip(net), bits);
        assert!(is_within("192.0.2.77", "192.0.2.0", 24) && !is_within("192.0.3.1", "192.0.2.0", 24));
        assert!(is_within("8.8.8.8", "192.0.2.0", 0) && !is_within("192.0.2.1", "192.0.2.0", 32));
        assert!(is_within("2001:db8::9", "2001:db8::", 64) && !is_within("2001:db8:1::", "2001:db8::", 48));
        assert!(!is_within("::ffff:192.0.2.1", "192.0.2.1", 32));
    }

    #[test]
    fn one_wrong_term_makes_a_record_wrong_wherever_it_stands() {
        let parsed = |text: &str| text.parse::<Record>();
        for term in [
            "ip4:x",
            "ip4:192.0.2.0/33",
            "ip6:192.0.2.1",
            "ip6:2001:db8::/129",
            "include",
            "include:a.test/8",
            "all:a.test",
            "mx/33",
            "a//129",
            "exists",
            "word",
        ] {
            let found = parsed(&format!("v=spf1 -all {term}"));
            assert!(matches!(&found, Err(SpfError::Syntax { term: told }) if told == term), "{term}: {found:?}");
        }
        let found = parsed("v=spf1 ip6:2001:db8::/32 A:x.test/24//64 ?mx unknown=x redirect=y.test").expect("is one");
        let target = Some("x.test".to_owned());
        let expected = Record {
            mechanisms: vec![
                (Verdict::Pass, Mechanism::Net("2001:db8::".parse().expect("is one"), 32)),
                (Verdict::Pass, Mechanism::A(target, (24, 64))),
                (Verdict::Neutral, Mechanism::Mx(None, (32, 128))),
            ],
            redirect: Some("y.test".to_owned()),
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn the_lengths_of_hosts_are_told_apart() {
        assert_eq!(lengths(""), Some((32, 128)));
        assert_eq!(lengths("24"), Some((24, 128)));
        assert_eq!(lengths("24//64"), Some((24, 64)));
        assert_eq!(lengths("/64"), Some((32, 64)));
        assert_eq!((lengths("33"), lengths("24//129"), lengths("x")), (None, None, None));
    }
}
