//! Where the links that a fleet puts into its mails lead, and which mails bear them.

use crate::{DomainName, Lane};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

/// Longest base address, in octets: a link of 2,048 octets made into a token still fits a mail's line once encoded,
/// and a header line holds an unsubscribe address whole.
const LONGEST_BASE: usize = 200;

/// `[fleet.tracking]`: where the service that answers opens, clicks and unsubscriptions is reached from outside.
/// Absent: no mail is tracked, and none bears an address to unsubscribe at but what its caller gives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrackingSite {
    /// Before `/o/`, `/c/` and `/u/` in every link: `https://click.example.com`. Required.
    pub base_url: BaseUrl,
    /// Whether bulk mail tells when it is opened, unless its call, template or recipient says otherwise. Default true.
    #[serde(default = "yes")]
    pub opens: bool,
    /// Whether links of bulk mail lead through the base address, likewise. Default true.
    #[serde(default = "yes")]
    pub clicks: bool,
    /// Whether tracked HTML bears a link that no reader sees, so that who follows it is known for a program.
    /// Default false.
    #[serde(default)]
    pub honeypot: bool,
    /// Whether `List-Unsubscribe` also names a mailbox below the return path's domain, which needs `[feedback.inbound]`
    /// and that domain's MX record. Default false.
    #[serde(default)]
    pub mailto: bool,
    /// Base addresses of single sending domains, and of what lies below them; the longest domain that fits wins.
    /// Receivers trust links more that lead to the domain a mail comes from.
    #[serde(default)]
    pub domains: BTreeMap<DomainName, BaseUrl>,
}

const fn yes() -> bool {
    true
}

impl TrackingSite {
    /// A site with one address for all domains, and the defaults.
    pub const fn new(base_url: BaseUrl) -> Self {
        Self { base_url, opens: true, clicks: true, honeypot: false, mailto: false, domains: BTreeMap::new() }
    }

    /// The address before the links of mail that this domain signs.
    pub fn base_for(&self, signing: &DomainName) -> &BaseUrl {
        let fits = self.domains.iter().filter(|(domain, _)| signing.is_within(domain.as_str()));
        fits.max_by_key(|(domain, _)| domain.as_str().len()).map_or(&self.base_url, |(_, base)| base)
    }

    /// Every address that links may lead through.
    pub fn bases(&self) -> impl Iterator<Item = &BaseUrl> {
        std::iter::once(&self.base_url).chain(self.domains.values())
    }
}

/// What a call or a template says about tracking; what it leaves open is decided by whoever comes after.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrackingChoice {
    /// Whether opens are told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub opens: Option<bool>,
    /// Whether clicks are told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clicks: Option<bool>,
}

impl TrackingChoice {
    /// Whether it leaves everything open.
    pub const fn is_open(&self) -> bool {
        self.opens.is_none() && self.clicks.is_none()
    }

    /// Whether it asks for something to be tracked.
    pub const fn asks(&self) -> bool {
        matches!(self.opens, Some(true)) || matches!(self.clicks, Some(true))
    }

    /// Whether opens and clicks are tracked: whoever says no wins, else whoever says yes, else bulk mail goes by the
    /// defaults of the fleet and transactional mail is not tracked.
    pub fn decide(site: &TrackingSite, lane: Lane, call: Self, template: Self) -> (bool, bool) {
        let one = |default: bool, said: [Option<bool>; 2]| {
            let asked = said.contains(&Some(true)) || (default && lane == Lane::Bulk);
            asked && !said.contains(&Some(false))
        };
        (one(site.opens, [call.opens, template.opens]), one(site.clicks, [call.clicks, template.clicks]))
    }
}

/// What links start with: `https://HOST[:PORT][/PATH]`, without a slash at its end. `http` is taken for loopback
/// addresses alone.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BaseUrl {
    text: String,
    host: String,
}

/// Why a text is no base address. Each says what to write instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BaseUrlError {
    /// Neither https nor http.
    #[error("is not an https address; write it as https://click.example.com")]
    Scheme,
    /// http to somewhere else than this machine.
    #[error("is an http address of another machine; use https, since links of mails pass foreign networks")]
    Insecure,
    /// No host, or one that is none.
    #[error("has no host; write a domain, or an address for trials on one machine, after https://")]
    Host,
    /// No port.
    #[error("has a port that is none; write a number from 1 to 65535 after the host, or leave it out")]
    Port,
    /// User, query, fragment, or characters that would have to be encoded.
    #[error("holds more than a host, a port and a plain path; leave out user, query and fragment")]
    Extra,
    /// More octets than a base may have.
    #[error("is too long; keep it within 200 octets")]
    TooLong,
}

impl BaseUrl {
    /// The address, without a slash at its end.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Its host, in lower case.
    pub fn host(&self) -> &str {
        &self.host
    }
}

impl FromStr for BaseUrl {
    type Err = BaseUrlError;

    fn from_str(text: &str) -> Result<Self, BaseUrlError> {
        if text.len() > LONGEST_BASE {
            return Err(BaseUrlError::TooLong);
        }
        let secure = text.strip_prefix("https://").map(|rest| ("https", rest));
        let (scheme, rest) =
            secure.or_else(|| Some(("http", text.strip_prefix("http://")?))).ok_or(BaseUrlError::Scheme)?;
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
        let of_authority = |byte: u8| byte.is_ascii_alphanumeric() || b"-.:[]".contains(&byte);
        if !path.bytes().all(is_plain) || !authority.bytes().all(of_authority) {
            return Err(BaseUrlError::Extra);
        }
        let authority = authority.to_ascii_lowercase();
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, Some(port)),
            _ => (authority.as_str(), None),
        };
        if let Some(port) = port
            && (port.starts_with('0') || port.parse::<u16>().is_err())
        {
            return Err(BaseUrlError::Port);
        }
        let is_loopback = match ip_of(host) {
            Some(ip) => ip.is_loopback(),
            None if host == "localhost" => true,
            None => host.parse::<DomainName>().map(|_| false).map_err(|_| BaseUrlError::Host)?,
        };
        if scheme == "http" && !is_loopback {
            return Err(BaseUrlError::Insecure);
        }
        Ok(Self { text: format!("{scheme}://{authority}{}", path.trim_end_matches('/')), host: host.to_owned() })
    }
}

fn ip_of(host: &str) -> Option<IpAddr> {
    match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(inner) => inner.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        None => host.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
    }
}

impl TryFrom<String> for BaseUrl {
    type Error = BaseUrlError;

    fn try_from(text: String) -> Result<Self, BaseUrlError> {
        text.parse()
    }
}

impl From<BaseUrl> for String {
    fn from(base: BaseUrl) -> Self {
        base.text
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BaseUrl({})", self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base(text: &str) -> BaseUrl {
        text.parse().unwrap()
    }

    #[test]
    fn base_addresses_are_https_with_a_host_or_of_this_machine() {
        for (given, taken, host) in [
            ("https://click.example.com", "https://click.example.com", "click.example.com"),
            ("https://Click.Example.com:8443/a/b/", "https://click.example.com:8443/a/b", "click.example.com"),
            ("http://127.0.0.1:8025", "http://127.0.0.1:8025", "127.0.0.1"),
            ("http://[::1]:8025/", "http://[::1]:8025", "[::1]"),
            ("http://localhost", "http://localhost", "localhost"),
        ] {
            assert_eq!((base(given).as_str(), base(given).host()), (taken, host));
        }
        use BaseUrlError::*;
        for (bad, why) in [
            ("click.example.com", Scheme),
            ("ftp://click.example.com", Scheme),
            ("http://click.example.com", Insecure),
            ("http://192.0.2.1", Insecure),
            ("https://", Host),
            ("https:///x", Host),
            ("https://a b.example", Extra),
            ("https://user@click.example.com", Extra),
            ("https://click.example.com?x=1", Extra),
            ("https://click.example.com/a#b", Extra),
            ("https://click.example.com/\"><script>", Extra),
            ("https://click.example.com:0", Port),
            ("https://click.example.com:99999", Port),
            ("https://click.example.com:", Port),
            ("https://[::1", Host),
        ] {
            assert_eq!(bad.parse::<BaseUrl>(), Err(why), "{bad}");
        }
        assert_eq!(format!("https://{}.com", "x.".repeat(120)).parse::<BaseUrl>(), Err(TooLong));
    }

    #[test]
    fn a_domain_of_its_own_base_has_it_and_what_lies_below_as_well() {
        let mut site = TrackingSite::new(base("https://click.example.net"));
        site.domains.insert("example.com".parse().unwrap(), base("https://l.example.com"));
        site.domains.insert("news.example.com".parse().unwrap(), base("https://n.example.com"));
        for (signing, expected) in [
            ("example.org", "https://click.example.net"),
            ("notexample.com", "https://click.example.net"),
            ("example.com", "https://l.example.com"),
            ("shop.example.com", "https://l.example.com"),
            ("a.news.example.com", "https://n.example.com"),
        ] {
            assert_eq!(site.base_for(&signing.parse().unwrap()).as_str(), expected, "{signing}");
        }
    }

    #[test]
    fn whoever_says_no_wins_and_transactional_mail_has_to_ask() {
        let (yes, no) = (Some(true), Some(false));
        for (default, lane, call, template, tracked) in [
            (true, Lane::Bulk, None, None, true),
            (false, Lane::Bulk, None, None, false),
            (false, Lane::Bulk, yes, None, true),
            (true, Lane::Transactional, None, None, false),
            (true, Lane::Transactional, yes, None, true),
            (true, Lane::Transactional, None, yes, true),
            (true, Lane::Bulk, no, yes, false),
            (true, Lane::Bulk, yes, no, false),
            (true, Lane::Bulk, None, no, false),
        ] {
            let site =
                TrackingSite { opens: default, clicks: !default, ..TrackingSite::new(base("https://c.test.example")) };
            let said = |opens| TrackingChoice { opens, clicks: no };
            let decided = TrackingChoice::decide(&site, lane, said(call), said(template));
            assert_eq!(decided, (tracked, false), "{default} {lane} {call:?} {template:?}");
        }
    }
}
