//! A sending domain, as receivers see it in DNS.

use super::{Finding, Findings, Grade};
use crate::{
    exit::{Exit, Failure},
    output::Output,
};
use clap::Args;
use dns::{
    Dns, NoAnswer,
    dkim::{self, Key, tag},
    dmarc::{self, Policy},
    reverse,
    spf::{self, SpfError, Verdict},
};
use domain::DomainName;
use hickory_resolver::proto::rr::{RData, RecordType};
use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

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

/// Looks at a domain.
pub(super) async fn run(args: DomainArgs, out: Output) -> anyhow::Result<Exit> {
    let dns = Dns::new(&args.resolvers, args.within)
        .map_err(|error| Failure::usage(format!("--resolver: {}", service::Chain(&error))))?;
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
                    [text] => judged_key(&name, text),
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
        let (grade, found, advice) = match dmarc::policy(&self.dns, &self.domain).await {
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

/// What a published key is worth.
fn judged_key(name: &str, text: &str) -> Finding {
    const AS_SHOWN: &str = "publish it as GetDomain shows it";
    match dkim::key(text) {
        Key::Revoked => (Grade::Fail, format!("{name} has no key in it"), "an empty p= says that the key is revoked"),
        Key::NotBase64 => (Grade::Fail, format!("{name}: p= is not base64"), AS_SHOWN),
        Key::Test => {
            (Grade::Warn, format!("{name} is marked as a test (t=y)"), "receivers may not count it; leave t=y out")
        }
        Key::Ed25519 => (Grade::Ok, format!("{name}: Ed25519"), ""),
        Key::NotEd25519 => (Grade::Fail, format!("{name}: is no Ed25519 key"), AS_SHOWN),
        Key::NotRsa => (Grade::Fail, format!("{name}: is no RSA key"), AS_SHOWN),
        Key::Rsa(bits) if bits < dkim::LEAST_RSA_BITS => {
            (Grade::Fail, format!("{name}: RSA with {bits} bits"), "receivers ignore it; make a new key")
        }
        Key::Rsa(bits) if bits < dkim::GOOD_RSA_BITS => {
            (Grade::Warn, format!("{name}: RSA with {bits} bits"), "short; make a new key of 2,048 bits")
        }
        Key::Rsa(bits) => (Grade::Ok, format!("{name}: RSA with {bits} bits"), ""),
        Key::Unknown(kind) => (Grade::Fail, format!("{name}: k={kind} is no known kind"), "use rsa or ed25519"),
    }
}

fn unanswered(error: &NoAnswer) -> Finding {
    (Grade::Fail, error.to_string(), "receivers wait then, or refuse; look at the domain's name servers")
}
