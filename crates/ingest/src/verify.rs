//! What DNS has of a sending domain, against what it should have.

use dns::{Dns, NoAnswer, dkim, dmarc};
use domain::DomainName;
use futures_util::future::join_all;
use hickory_resolver::proto::rr::{RData, RecordType};
use proto::v1::{DnsCheck, DnsCheckState, DnsRecord, SendingDomain};

/// Most records told of a name; a name may have many that are no concern of ours.
const MAX_FOUND: usize = 10;

/// Looks for each record that the domain is to publish. The keys at the names in `idle` sign nothing now.
pub async fn check(dns: &Dns, domain: &SendingDomain, idle: &[String]) -> Vec<DnsCheck> {
    let checks = domain.dns_records.iter().map(|record| async {
        let is_required = record.purpose != "dmarc" && !idle.contains(&record.name);
        let (state, found, explanation) = match look(dns, domain, record).await {
            Ok(seen) => (seen.state, seen.found, seen.explanation),
            Err(error) => {
                let text = format!("{}: {}; the servers of the name are to be looked at", error.name, error.reason);
                (DnsCheckState::Unanswered, Vec::new(), text)
            }
        };
        DnsCheck { record: Some(record.clone()), state: state.into(), found, explanation, required: is_required }
    });
    join_all(checks).await
}

/// Whether nothing is missing that has to be there. A domain of which nothing can be told is not verified.
pub fn is_good(checks: &[DnsCheck]) -> bool {
    let mut required = checks.iter().filter(|check| check.required).peekable();
    required.peek().is_some() && required.all(|check| check.state() == DnsCheckState::Ok)
}

#[derive(Debug, PartialEq, Eq)]
struct Seen {
    state: DnsCheckState,
    found: Vec<String>,
    explanation: String,
}

impl Seen {
    fn new(state: DnsCheckState, mut found: Vec<String>, explanation: impl Into<String>) -> Self {
        found.truncate(MAX_FOUND);
        for text in &mut found {
            *text = domain::text::sanitise(text, 600);
        }
        Self { state, found, explanation: explanation.into() }
    }
}

async fn look(dns: &Dns, domain: &SendingDomain, record: &DnsRecord) -> Result<Seen, NoAnswer> {
    Ok(match record.purpose.as_str() {
        "bounces" => mail_hosts(record, exchanges(dns, &record.name).await?),
        "dmarc" => policy(dns, domain).await?,
        "spf" => spf(record, dns.txt(&record.name).await?),
        "ownership" => ownership(record, dns.txt(&record.name).await?),
        _ => key(record, dns.txt(&record.name).await?),
    })
}

async fn exchanges(dns: &Dns, name: &str) -> Result<Vec<(u16, String)>, NoAnswer> {
    let found = dns.records(name, RecordType::MX).await?.into_iter().filter_map(|data| match data {
        RData::MX(mx) => Some((mx.preference, mx.exchange.to_lowercase().to_utf8().trim_end_matches('.').to_owned())),
        _ => None,
    });
    Ok(found.collect())
}

fn missing(record: &DnsRecord) -> Seen {
    let text = format!("there is no such {} record at {}; publish it", record.r#type, record.name);
    Seen::new(DnsCheckState::Missing, Vec::new(), text)
}

fn mail_hosts(record: &DnsRecord, found: Vec<(u16, String)>) -> Seen {
    if found.is_empty() {
        return missing(record);
    }
    let wanted = record.value.rsplit(' ').next().unwrap_or_default();
    let is_there = found.iter().any(|(_, host)| host.eq_ignore_ascii_case(wanted));
    let told = found.iter().map(|(preference, host)| format!("{preference} {host}")).collect();
    if is_there {
        Seen::new(DnsCheckState::Ok, told, "")
    } else {
        let text = format!("bounces would go to other hosts; publish {} in their place", record.value);
        Seen::new(DnsCheckState::Different, told, text)
    }
}

async fn policy(dns: &Dns, domain: &SendingDomain) -> Result<Seen, NoAnswer> {
    let Ok(name) = domain.domain.parse::<DomainName>() else {
        return Ok(Seen::new(DnsCheckState::Different, Vec::new(), "the domain is no name"));
    };
    Ok(match dmarc::policy(dns, &name).await? {
        dmarc::Policy::One(_, text) => Seen::new(DnsCheckState::Ok, vec![text], ""),
        dmarc::Policy::Several(name, count) => {
            let text = format!("{name} has {count} DMARC records, which receivers take for none; leave one");
            Seen::new(DnsCheckState::Different, Vec::new(), text)
        }
        dmarc::Policy::None => {
            let text = "there is none, here or above; Google and Yahoo want one of whoever sends in bulk";
            Seen::new(DnsCheckState::Missing, Vec::new(), text)
        }
    })
}

fn spf(record: &DnsRecord, found: Vec<String>) -> Seen {
    let records: Vec<String> = found.into_iter().filter(|text| is_spf(text)).collect();
    let one = match &records[..] {
        [] => return missing(record),
        [one] => one.to_ascii_lowercase(),
        several => {
            let text = format!("{} SPF records are an error for receivers (RFC 7208, 4.5); leave one", several.len());
            return Seen::new(DnsCheckState::Different, records, text);
        }
    };
    let terms: Vec<&str> = one.split_ascii_whitespace().map(|term| term.trim_start_matches('+')).collect();
    let wanted = record.value.to_ascii_lowercase();
    let is_own = |term: &&str| term.trim_start_matches(['+', '-', '~', '?']) != "all" && !term.starts_with("v=");
    let lacking: Vec<&str> =
        wanted.split_ascii_whitespace().filter(is_own).filter(|term| !terms.contains(term)).collect();
    if lacking.is_empty() {
        return Seen::new(DnsCheckState::Ok, records, "");
    }
    let text = format!("it does not name {}; add that before its last term", lacking.join(" "));
    Seen::new(DnsCheckState::Different, records, text)
}

fn is_spf(text: &str) -> bool {
    text.split_ascii_whitespace().next().is_some_and(|version| version.eq_ignore_ascii_case("v=spf1"))
}

fn ownership(record: &DnsRecord, found: Vec<String>) -> Seen {
    if found.iter().any(|text| text.trim() == record.value) {
        return Seen::new(DnsCheckState::Ok, found, "");
    }
    if found.is_empty() {
        return missing(record);
    }
    Seen::new(DnsCheckState::Different, found, "it names another sending domain of a fleet; publish what is wanted")
}

fn key(record: &DnsRecord, found: Vec<String>) -> Seen {
    let public = |text: &str| {
        let key = dkim::tag(text, "p")?;
        Some(key.chars().filter(|char| !char.is_whitespace()).collect::<String>())
    };
    let wanted = public(&record.value);
    match &found[..] {
        [] => missing(record),
        [one] if public(one) == wanted => Seen::new(DnsCheckState::Ok, found, ""),
        [one] => {
            let text = match public(one) {
                None => "the record is no DKIM key; publish what is wanted, whole",
                Some(key) if key.is_empty() => "the key is revoked; publish what is wanted",
                Some(key) if wanted.is_some_and(|wanted| wanted.starts_with(&key)) => {
                    "the key is cut off; a text above 255 octets is published as several strings of one record"
                }
                Some(_) => "it is another key; publish what is wanted",
            };
            Seen::new(DnsCheckState::Different, found, text)
        }
        several => {
            let text = format!("{} records are one too many: which one counts is undefined; leave ours", several.len());
            Seen::new(DnsCheckState::Different, found, text)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: &str, value: &str) -> DnsRecord {
        DnsRecord {
            r#type: kind.to_owned(),
            name: "x.test".to_owned(),
            value: value.to_owned(),
            purpose: String::new(),
        }
    }

    fn texts(all: &[&str]) -> Vec<String> {
        all.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn a_key_is_the_same_however_its_record_is_spaced() {
        use DnsCheckState::{Different, Missing, Ok};
        let wanted = record("TXT", "v=DKIM1; k=rsa; p=QUJDRA==");
        for (found, state, word) in [
            (&["v=DKIM1;k=rsa;p=QUJD RA=="][..], Ok, ""),
            (&[], Missing, "publish"),
            (&["v=DKIM1; p="], Different, "revoked"),
            (&["v=DKIM1; p=QUJD"], Different, "cut off"),
            (&["v=DKIM1; p=RUZH"], Different, "another key"),
            (&["hello"], Different, "no DKIM key"),
            (&["v=DKIM1; p=QUJDRA==", "v=DKIM1; p=x"], Different, "too many"),
        ] {
            let seen = key(&wanted, texts(found));
            assert_eq!(seen.state, state, "{found:?}");
            assert!(seen.explanation.contains(word), "{}", seen.explanation);
        }
    }

    #[test]
    fn an_spf_record_may_name_more_than_this_fleet() {
        let wanted = record("TXT", "v=spf1 ip4:192.0.2.1 include:_spf.fleet.example -all");
        let state = |found: &[&str]| spf(&wanted, texts(found)).state;
        assert_eq!(state(&["v=spf1 a +ip4:192.0.2.1 include:_SPF.fleet.example ~all", "other"]), DnsCheckState::Ok);
        assert_eq!(state(&["other"]), DnsCheckState::Missing);
        assert_eq!(state(&["v=spf10 ip4:192.0.2.1"]), DnsCheckState::Missing);
        let seen = spf(&wanted, texts(&["v=spf1 ip4:192.0.2.1 -all"]));
        assert_eq!(seen.state, DnsCheckState::Different);
        assert!(seen.explanation.contains("include:_spf.fleet.example"), "{}", seen.explanation);
        assert_eq!(state(&["v=spf1 -all", "v=spf1 +all"]), DnsCheckState::Different);
        let wanted = record("TXT", "v=spf1 include:spf.smallmall -all");
        assert_eq!(spf(&wanted, texts(&["v=spf1 -all"])).state, DnsCheckState::Different);
    }

    #[test]
    fn bounces_have_to_come_here() {
        let wanted = record("MX", "10 mx1.fleet.example");
        let state = |found: &[(u16, &str)]| {
            mail_hosts(&wanted, found.iter().map(|(preference, host)| (*preference, (*host).to_owned())).collect())
                .state
        };
        assert_eq!(state(&[(5, "mx1.fleet.example")]), DnsCheckState::Ok);
        assert_eq!(state(&[(10, "mx.other.example")]), DnsCheckState::Different);
        assert_eq!(state(&[]), DnsCheckState::Missing);
    }

    #[test]
    fn nothing_that_can_be_told_is_not_enough() {
        let check = |required, state: DnsCheckState| DnsCheck { required, state: state.into(), ..DnsCheck::default() };
        assert!(!is_good(&[]));
        assert!(!is_good(&[check(false, DnsCheckState::Ok)]));
        assert!(!is_good(&[check(true, DnsCheckState::Ok), check(true, DnsCheckState::Missing)]));
        assert!(is_good(&[check(true, DnsCheckState::Ok), check(false, DnsCheckState::Missing)]));
    }
}
