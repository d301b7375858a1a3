//! A sending domain, as receivers see it in DNS.

use super::{
    Findings, Grade,
    spf::{self, SpfError, Verdict},
};
use crate::{
    exit::{Exit, Failure},
    output::Output,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use clap::Args;
use domain::DomainName;
use hickory_resolver::{
    TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolverConfig, ResolverOpts},
    net::runtime::TokioRuntimeProvider,
    proto::rr::{RData, RecordType},
};
use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

/// Shortest RSA key that receivers should be asked to trust (RFC 8301 takes 1,024 and advises 2,048).
const GOOD_RSA_BITS: usize = 2048;
/// Shortest RSA key that receivers take (RFC 8301, 3.2).
const LEAST_RSA_BITS: usize = 1024;
/// Most domains above the sender's that are asked for a DMARC record (RFC 9989, the tree walk).
const MOST_PARENTS: usize = 8;

#[derive(Debug, Args)]
pub struct DomainArgs {
    /// The domain of the authors' addresses
    domain: DomainName,
    /// The domain of the return path  [default: `bounces.` before the domain]
    #[arg(long, value_name = "DOMAIN")]
    return_path: Option<DomainName>,
    /// A selector under which a DKIM key is published; can be given again
    #[arg(long = "selector", value_name = "SELECTOR")]
    selectors: Vec<String>,
    /// An address that mail leaves from: must pass SPF and have a name that leads back to it; can be given again
    #[arg(long = "source", value_name = "ADDRESS")]
    sources: Vec<IpAddr>,
    /// A name server to ask, instead of the system's: 192.0.2.53, [2001:db8::53]:5353; can be given again
    #[arg(long = "resolver", value_name = "ADDRESS[:PORT]")]
    resolvers: Vec<String>,
    /// Longest wait for each answer, such as 5s
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = humantime::parse_duration)]
    within: Duration,
}

/// A question that DNS did not answer.
#[derive(Debug, thiserror::Error)]
#[error("no answer about {name}: {reason}")]
pub(super) struct NoAnswer {
    name: String,
    reason: String,
}

/// DNS with a limit to the wait.
pub(super) struct Dns {
    resolver: TokioResolver,
    within: Duration,
}

impl Dns {
    fn new(servers: &[String], within: Duration) -> anyhow::Result<Self> {
        let mut options = ResolverOpts::default();
        // Names are absolute: a search list must never turn one domain into another.
        options.ndots = 0;
        options.attempts = 2;
        options.timeout = within / 2;
        let builder = if servers.is_empty() {
            TokioResolver::builder_tokio()?
        } else {
            let servers = servers.iter().map(|text| server(text)).collect::<Result<_, _>>()?;
            let config = ResolverConfig::from_parts(None, Vec::new(), servers);
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
        };
        Ok(Self { resolver: builder.with_options(options).build()?, within })
    }

    /// The records of a name; none when there are none, or there is no such name.
    pub(super) async fn records(&self, name: &str, kind: RecordType) -> Result<Vec<RData>, NoAnswer> {
        let failed = |reason: String| NoAnswer { name: name.to_owned(), reason };
        let asked = format!("{}.", name.trim_end_matches('.'));
        let found = tokio::time::timeout(self.within, self.resolver.lookup(asked, kind)).await;
        match found.map_err(|_| failed("not in time".to_owned()))? {
            Ok(found) => {
                let records = found.answers().iter().map(|record| record.data.clone());
                Ok(records.filter(|data| data.record_type() == kind).collect())
            }
            Err(error) if error.is_nx_domain() || error.is_no_records_found() => Ok(Vec::new()),
            Err(error) => Err(failed(error.to_string())),
        }
    }

    /// The texts of a name, the strings of each put together.
    pub(super) async fn txt(&self, name: &str) -> Result<Vec<String>, NoAnswer> {
        let texts = self.records(name, RecordType::TXT).await?.into_iter().filter_map(|data| match data {
            RData::TXT(txt) => Some(String::from_utf8_lossy(&txt.txt_data.concat()).into_owned()),
            _ => None,
        });
        Ok(texts.collect())
    }
}

fn server(text: &str) -> anyhow::Result<NameServerConfig> {
    let wrong = || Failure::usage(format!("--resolver: {text:?} is no ADDRESS or ADDRESS:PORT, such as 192.0.2.53"));
    let (ip, port) = match text.parse::<SocketAddr>() {
        Ok(address) => (address.ip(), address.port()),
        Err(_) => (text.parse::<IpAddr>().map_err(|_| wrong())?, 53),
    };
    let with_port = |mut connection: ConnectionConfig| {
        connection.port = port;
        connection
    };
    let connections = vec![with_port(ConnectionConfig::udp()), with_port(ConnectionConfig::tcp())];
    Ok(NameServerConfig::new(ip, true, connections))
}

/// Looks at a domain.
pub(super) async fn run(args: DomainArgs, out: Output) -> anyhow::Result<Exit> {
    let dns = Dns::new(&args.resolvers, args.within)?;
    let return_path = match &args.return_path {
        Some(domain) => domain.clone(),
        None => format!("bounces.{}", args.domain)
            .parse()
            .map_err(|_| Failure::usage("the domain is too long for bounces. before it; give --return-path"))?,
    };
    let mut look = Look { dns, domain: args.domain, return_path, findings: Findings::new(out) };
    look.replies().await;
    look.bounces().await;
    let spf = look.spf(&args.sources).await;
    let dkim = look.dkim(&args.selectors).await;
    let dmarc = look.dmarc().await;
    let names = look.names(&args.sources).await;
    look.transport().await;
    look.bulk(&[("SPF", spf), ("DKIM", dkim), ("DMARC", dmarc), ("reverse names", names)]);
    Ok(look.findings.exit())
}

/// A domain that is looked at.
struct Look {
    dns: Dns,
    domain: DomainName,
    return_path: DomainName,
    findings: Findings,
}

impl Look {
    async fn replies(&mut self) {
        let begun = Instant::now();
        let (grade, found, advice) = match self.takes_mail(self.domain.as_str()).await {
            Err(error) => unanswered(&error),
            Ok(Mail::Hosts(hosts)) => (Grade::Ok, format!("replies to {} go to {hosts}", self.domain), ""),
            Ok(Mail::Implicit) => (
                Grade::Warn,
                format!("{} has an address and no MX", self.domain),
                "replies go to that address; publish an MX record that says so",
            ),
            Ok(Mail::Refused) => (
                Grade::Warn,
                format!("{} takes no mail: null MX", self.domain),
                "replies cannot come, and some receivers refuse mail that cannot be answered",
            ),
            Ok(Mail::Nowhere) => (
                Grade::Fail,
                format!("{} has neither MX nor address", self.domain),
                "receivers refuse mail from a domain that cannot take any; publish an MX record",
            ),
        };
        self.findings.tell("replies", grade, begun.elapsed(), found, advice);
    }

    async fn bounces(&mut self) {
        let begun = Instant::now();
        let (grade, found, advice) = match self.takes_mail(self.return_path.as_str()).await {
            Err(error) => unanswered(&error),
            Ok(Mail::Hosts(hosts)) => (Grade::Ok, format!("bounces to {} go to {hosts}", self.return_path), ""),
            Ok(Mail::Implicit | Mail::Refused | Mail::Nowhere) => (
                Grade::Fail,
                format!("{} has no MX host", self.return_path),
                "bounces are lost, and receivers refuse the sender; publish the MX record that GetDomain shows, or give \
                 --return-path",
            ),
        };
        self.findings.tell("bounces", grade, begun.elapsed(), found, advice);
    }

    async fn takes_mail(&self, domain: &str) -> Result<Mail, NoAnswer> {
        let mut hosts: Vec<(u16, String)> = Vec::new();
        for data in self.dns.records(domain, RecordType::MX).await? {
            if let RData::MX(mx) = data {
                hosts.push((mx.preference, mx.exchange.to_ascii()));
            }
        }
        hosts.sort();
        if hosts.iter().any(|(_, host)| host == ".") {
            return Ok(Mail::Refused);
        }
        if !hosts.is_empty() {
            let names: Vec<&str> = hosts.iter().map(|(_, host)| host.trim_end_matches('.')).collect();
            return Ok(Mail::Hosts(names.join(", ")));
        }
        for kind in [RecordType::A, RecordType::AAAA] {
            if !self.dns.records(domain, kind).await?.is_empty() {
                return Ok(Mail::Implicit);
            }
        }
        Ok(Mail::Nowhere)
    }

    /// Receivers look at the SPF record of the return path.
    async fn spf(&mut self, sources: &[IpAddr]) -> Option<bool> {
        let begun = Instant::now();
        let domain = self.return_path.as_str().to_owned();
        let whole = spf::evaluate(&self.dns, &domain, None).await;
        let (grade, found, advice) = match whole {
            Err(SpfError::Dns(error)) => unanswered(&error),
            Err(error @ SpfError::Macro { .. }) => {
                (Grade::Warn, format!("{domain}: {error}"), "look-ups are not counted; a receiver evaluates it")
            }
            Err(error @ (SpfError::TooManyLookups | SpfError::TooManyVoid)) => (
                Grade::Fail,
                format!("{domain}: {error}"),
                "take out includes that are not needed, or name their addresses with ip4: and ip6:",
            ),
            Err(error @ SpfError::Syntax { .. }) => {
                (Grade::Fail, format!("{domain}: {error}"), "receivers ignore the whole record; mend the term")
            }
            Err(error @ (SpfError::None { .. } | SpfError::Several { .. })) => {
                (Grade::Fail, error.to_string(), "publish one record; for the return path it is what GetDomain shows")
            }
            Ok(found) => {
                let text = format!("{domain}: {} of {} look-ups", found.lookups, spf::MOST_LOOKUPS);
                match found.verdict {
                    Verdict::Fail | Verdict::SoftFail => (Grade::Ok, text, ""),
                    Verdict::Neutral => {
                        (Grade::Warn, format!("{text}; says nothing of others"), "end the record with ~all or -all")
                    }
                    Verdict::Pass => (
                        Grade::Fail,
                        format!("{text}; lets everybody send"),
                        "end the record with ~all or -all: +all makes it worthless",
                    ),
                }
            }
        };
        let mut is_good = grade != Grade::Fail;
        self.findings.tell("spf", grade, begun.elapsed(), found, advice);
        for source in sources {
            let begun = Instant::now();
            let (grade, found, advice) = match spf::evaluate(&self.dns, &domain, Some(*source)).await {
                Err(SpfError::Dns(error)) => unanswered(&error),
                Err(error @ SpfError::Macro { .. }) => {
                    (Grade::Warn, format!("{source}: {error}"), "send a mail and look at its Authentication-Results")
                }
                Err(error) => (Grade::Fail, format!("{source}: {error}"), "mail from it does not pass"),
                Ok(found) if found.verdict == Verdict::Pass => (Grade::Ok, format!("{source} passes"), ""),
                Ok(found) => (
                    Grade::Fail,
                    format!("{source}: {}", found.verdict.word()),
                    "mail leaves from an address that the record does not name; add ip4: or ip6: with it",
                ),
            };
            is_good &= grade != Grade::Fail;
            self.findings.tell("spf", grade, begun.elapsed(), found, advice);
        }
        Some(is_good)
    }

    async fn dkim(&mut self, selectors: &[String]) -> Option<bool> {
        if selectors.is_empty() {
            self.findings.tell(
                "dkim",
                Grade::Warn,
                Duration::ZERO,
                "not looked at: no --selector was given".to_owned(),
                "give the selectors of the active keys, as GetDomain shows them",
            );
            return None;
        }
        let mut is_good = true;
        for selector in selectors {
            let begun = Instant::now();
            let name = format!("{selector}._domainkey.{}", self.domain);
            let (grade, found, advice) = match self.dns.txt(&name).await {
                Err(error) => unanswered(&error),
                Ok(texts) => match &texts[..] {
                    [] => (Grade::Fail, format!("{name} has no record"), "publish it as GetDomain shows it"),
                    [text] => key(&name, text),
                    _ => (
                        Grade::Fail,
                        format!("{name} has {} records", texts.len()),
                        "receivers may look at any of them; keep one",
                    ),
                },
            };
            is_good &= grade != Grade::Fail;
            self.findings.tell("dkim", grade, begun.elapsed(), found, advice);
        }
        Some(is_good)
    }

    async fn dmarc(&mut self) -> Option<bool> {
        let begun = Instant::now();
        let (grade, found, advice) = match self.policy().await {
            Err(error) => unanswered(&error),
            Ok(Policy::Several(name, count)) => (
                Grade::Fail,
                format!("{name} has {count} DMARC records"),
                "receivers then act as if there were none; keep one",
            ),
            Ok(Policy::None) => (
                Grade::Fail,
                format!("neither {} nor a domain above it has a DMARC record", self.domain),
                "Google, Yahoo and Microsoft refuse bulk mail without one; v=DMARC1; p=none is enough to begin with",
            ),
            Ok(Policy::One(name, text)) => self.judged(&name, &text),
        };
        self.findings.tell("dmarc", grade, begun.elapsed(), found, advice);
        Some(grade != Grade::Fail)
    }

    fn judged(&self, name: &str, text: &str) -> Finding {
        let policy = tag(text, "p").unwrap_or_default().to_ascii_lowercase();
        if !["none", "quarantine", "reject"].contains(&policy.as_str()) {
            let found = format!("{name}: p={policy} is no policy");
            return (Grade::Fail, found, "say p=none, p=quarantine or p=reject");
        }
        let found = format!("{name}: p={policy}");
        let is_strict = tag(text, "aspf").is_some_and(|mode| mode.eq_ignore_ascii_case("s"));
        if is_strict && self.return_path != self.domain {
            let found = format!("{found}, aspf=s, and the return path is {}", self.return_path);
            return (Grade::Warn, found, "SPF never aligns so; DKIM alone carries DMARC. Leave aspf=s out");
        }
        if !self.return_path.is_within(self.domain.as_str()) {
            let found = format!("{found}, and the return path {} is outside the domain", self.return_path);
            return (Grade::Warn, found, "SPF may not align; DKIM alone carries DMARC");
        }
        if tag(text, "rua").is_none() {
            return (Grade::Warn, found, "no rua: nobody tells you who sends in this name; add one to get reports");
        }
        (Grade::Ok, found, "")
    }

    /// The DMARC record of the domain, or of the nearest domain above it that has one.
    async fn policy(&self) -> Result<Policy, NoAnswer> {
        let mut domain = self.domain.as_str();
        for _ in 0..MOST_PARENTS {
            let name = format!("_dmarc.{domain}");
            let mut texts = self.dns.txt(&name).await?;
            texts.retain(|text| text.split(';').next().is_some_and(|version| version.trim() == "v=DMARC1"));
            match (texts.len(), texts.pop()) {
                (1, Some(text)) => return Ok(Policy::One(name, text)),
                (0, _) | (_, None) => {}
                (count, _) => return Ok(Policy::Several(name, count)),
            }
            match domain.split_once('.') {
                Some((_, parent)) if parent.contains('.') => domain = parent,
                _ => break,
            }
        }
        Ok(Policy::None)
    }

    /// An address has a name, and the name has the address.
    async fn names(&mut self, sources: &[IpAddr]) -> Option<bool> {
        let mut is_good = None;
        for source in sources {
            let begun = Instant::now();
            let (grade, found, advice) = match self.confirmed(*source).await {
                Err(error) => unanswered(&error),
                Ok((names, _)) if names.is_empty() => (
                    Grade::Fail,
                    format!("{source} has no name"),
                    "receivers refuse mail from an address without a reverse name (PTR); its owner sets one",
                ),
                Ok((_, Some(name))) => (Grade::Ok, format!("{source} is {name}, and {name} is {source}"), ""),
                Ok((names, None)) => (
                    Grade::Fail,
                    format!("{source} is {}, which has another address", names.join(", ")),
                    "give that name an A or AAAA record with the address, and use it with EHLO (helo)",
                ),
            };
            is_good = Some(is_good.unwrap_or(true) && grade != Grade::Fail);
            self.findings.tell("ptr", grade, begun.elapsed(), found, advice);
        }
        is_good
    }

    /// The names of an address, and the first that leads back to it.
    async fn confirmed(&self, source: IpAddr) -> Result<(Vec<String>, Option<String>), NoAnswer> {
        let names = self.dns.records(&reverse(source), RecordType::PTR).await?;
        let names: Vec<String> = names
            .into_iter()
            .filter_map(|data| match data {
                RData::PTR(name) => Some(name.0.to_ascii().trim_end_matches('.').to_owned()),
                _ => None,
            })
            .collect();
        let kind = if source.is_ipv4() { RecordType::A } else { RecordType::AAAA };
        for name in &names {
            let addresses = self.dns.records(name, kind).await?;
            if addresses.iter().any(|data| data.ip_addr() == Some(source)) {
                return Ok((names.clone(), Some(name.clone())));
            }
        }
        Ok((names, None))
    }

    /// Both protect mail that comes to the domain; none is needed to send.
    async fn transport(&mut self) {
        for (check, name, version) in [
            ("mta-sts", format!("_mta-sts.{}", self.domain), "v=STSv1"),
            ("tls-rpt", format!("_smtp._tls.{}", self.domain), "v=TLSRPTv1"),
        ] {
            let begun = Instant::now();
            let (grade, found, advice) = match self.dns.txt(&name).await {
                Err(error) => unanswered(&error),
                Ok(texts) => match texts.iter().find(|text| text.split(';').next() == Some(version)) {
                    Some(text) => (Grade::Ok, format!("{name}: {text}"), ""),
                    None => (Grade::Ok, format!("{name} has no record; not needed to send"), ""),
                },
            };
            self.findings.tell(check, grade, begun.elapsed(), found, advice);
        }
    }

    fn bulk(&mut self, parts: &[(&str, Option<bool>)]) {
        let word = |good: Option<bool>| match good {
            Some(true) => "ok",
            Some(false) => "MISSING",
            None => "not looked at",
        };
        let told: Vec<String> = parts.iter().map(|(name, good)| format!("{name} {}", word(*good))).collect();
        let is_bad = parts.iter().any(|(_, good)| *good == Some(false));
        let (grade, advice) = if is_bad {
            (Grade::Fail, "Google, Yahoo and Microsoft want all of it of whoever sends them 5,000 mails a day")
        } else if parts.iter().any(|(_, good)| good.is_none()) {
            (Grade::Warn, "give --selector and --source to look at all that Google, Yahoo and Microsoft want")
        } else {
            (Grade::Ok, "")
        };
        self.findings.tell("bulk", grade, Duration::ZERO, told.join(", "), advice);
    }
}

/// Where mail to a domain goes.
enum Mail {
    Hosts(String),
    /// To the address of the domain itself (RFC 5321, 5.1).
    Implicit,
    /// Nowhere, and it says so (RFC 7505).
    Refused,
    Nowhere,
}

enum Policy {
    One(String, String),
    Several(String, usize),
    None,
}

type Finding = (Grade, String, &'static str);

fn unanswered(error: &NoAnswer) -> Finding {
    (Grade::Fail, error.to_string(), "receivers wait then, or refuse; look at the domain's name servers")
}

/// A tag of a list such as `v=DKIM1; p=…` (RFC 6376, 3.2).
fn tag<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let tags = text.split(';').filter_map(|part| part.split_once('='));
    tags.map(|(tag, value)| (tag.trim(), value.trim())).find(|(tag, _)| *tag == name).map(|(_, value)| value)
}

/// A published DKIM key (RFC 6376, 3.6.1).
fn key(name: &str, text: &str) -> Finding {
    let value: String = tag(text, "p").unwrap_or_default().split_ascii_whitespace().collect();
    if value.is_empty() {
        return (Grade::Fail, format!("{name} has no key in it"), "an empty p= says that the key is revoked");
    }
    let Ok(octets) = STANDARD.decode(&value) else {
        return (Grade::Fail, format!("{name}: p= is not base64"), "publish it as GetDomain shows it");
    };
    if tag(text, "t").is_some_and(|flags| flags.split(':').any(|flag| flag.trim() == "y")) {
        return (Grade::Warn, format!("{name} is marked as a test (t=y)"), "receivers may not count it; leave t=y out");
    }
    match tag(text, "k").unwrap_or("rsa") {
        "ed25519" if octets.len() == 32 => (Grade::Ok, format!("{name}: Ed25519"), ""),
        "ed25519" => (Grade::Fail, format!("{name}: is no Ed25519 key"), "publish it as GetDomain shows it"),
        "rsa" => match rsa_bits(&octets) {
            None => (Grade::Fail, format!("{name}: is no RSA key"), "publish it as GetDomain shows it"),
            Some(bits) if bits < LEAST_RSA_BITS => {
                (Grade::Fail, format!("{name}: RSA with {bits} bits"), "receivers ignore it; make a new key")
            }
            Some(bits) if bits < GOOD_RSA_BITS => {
                (Grade::Warn, format!("{name}: RSA with {bits} bits"), "short; make a new key of 2,048 bits")
            }
            Some(bits) => (Grade::Ok, format!("{name}: RSA with {bits} bits"), ""),
        },
        other => (Grade::Fail, format!("{name}: k={other} is no known kind"), "use rsa or ed25519"),
    }
}

/// The length of the modulus of a key: SubjectPublicKeyInfo, or the RSAPublicKey inside it (RFC 6376 has had both).
fn rsa_bits(octets: &[u8]) -> Option<usize> {
    let (0x30, outer, _) = element(octets)? else { return None };
    let modulus = match element(outer)? {
        (0x02, modulus, _) => modulus,
        (0x30, _, rest) => {
            let (0x03, bits, _) = element(rest)? else { return None };
            let (0x30, key, _) = element(bits.strip_prefix(&[0])?)? else { return None };
            let (0x02, modulus, _) = element(key)? else { return None };
            modulus
        }
        _ => return None,
    };
    let first = modulus.iter().position(|octet| *octet != 0)?;
    Some((modulus.len() - first) * 8 - modulus[first].leading_zeros() as usize)
}

/// The first element of DER: its tag, what is in it, and what follows it.
fn element(octets: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, first], rest) = octets.split_first_chunk::<2>()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81 | 0x82 => {
            let (length, rest) = rest.split_at_checked(usize::from(first & 0x0f))?;
            (length.iter().fold(0, |sum, octet| sum << 8 | usize::from(*octet)), rest)
        }
        _ => return None,
    };
    let (inside, rest) = rest.split_at_checked(length)?;
    Some((tag, inside, rest))
}

/// The name under which DNS keeps the name of an address (RFC 1035, 3.5; RFC 3596, 2.5).
fn reverse(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        IpAddr::V6(v6) => {
            let digits = v6.octets().into_iter().rev().flat_map(|octet| [octet & 0xf, octet >> 4]);
            digits.map(|digit| format!("{digit:x}.")).chain(["ip6.arpa".to_owned()]).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_an_address_is_turned_around() {
        assert_eq!(reverse("192.0.2.1".parse().expect("is one")), "1.2.0.192.in-addr.arpa");
        let v6 = reverse("2001:db8::1".parse().expect("is one"));
        assert!(v6.starts_with("1.0.0.0.") && v6.ends_with("8.b.d.0.1.0.0.2.ip6.arpa"), "{v6}");
    }

    #[test]
    fn keys_that_are_cut_short_are_none() {
        assert_eq!(rsa_bits(&[]), None);
        assert_eq!(rsa_bits(&[0x30, 0x82, 0xff, 0xff, 0x02]), None);
        assert_eq!(rsa_bits(&[0x30, 0x03, 0x02, 0x01, 0x00]), None);
        assert_eq!(rsa_bits(&[0x30, 0x04, 0x02, 0x02, 0x01, 0x00]), Some(9));
    }
}
