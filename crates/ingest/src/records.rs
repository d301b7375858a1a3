//! What a sending domain publishes in DNS.

use crate::{config::DnsConfig, wire::timestamp};
use chrono::{DateTime, TimeDelta, Utc};
use proto::v1::{DnsRecord, DomainKeyState, SendingDomain};
use store::{DomainKey, KeyState};

/// How long the record of a retired key is needed: mail that it signed was tried for 7 days at most, and waited for its
/// reader's checks a day more.
const KEEP: TimeDelta = TimeDelta::days(8);

/// A sending domain for the wire, with the records that it needs now.
pub fn wire(
    domain: &store::SendingDomain,
    keys: &[DomainKey],
    config: &DnsConfig,
    now: DateTime<Utc>,
) -> SendingDomain {
    let keys: Vec<&DomainKey> = keys.iter().filter(|key| keep_until(key).is_none_or(|until| until > now)).collect();
    let (dns_records, notes) = records(domain, &keys, config);
    SendingDomain {
        domain_id: domain.id.to_string(),
        domain: domain.domain.as_str().to_owned(),
        return_path_domain: domain.return_path_domain.as_str().to_owned(),
        created_at: Some(timestamp(domain.created_at)),
        dns_records,
        unsigned: domain.unsigned,
        keys: keys.into_iter().map(wire_key).collect(),
        notes,
        verified_at: domain.verified_at.map(timestamp),
    }
}

fn keep_until(key: &DomainKey) -> Option<DateTime<Utc>> {
    key.retired_at.map(|at| at + KEEP)
}

fn wire_key(key: &DomainKey) -> proto::v1::DomainKey {
    let state = match key.state {
        KeyState::Pending => DomainKeyState::Pending,
        KeyState::Active => DomainKeyState::Active,
        KeyState::Retired => DomainKeyState::Retired,
    };
    proto::v1::DomainKey {
        selector: key.selector.clone(),
        algorithm: key.algorithm.as_str().to_owned(),
        state: state.into(),
        created_at: Some(timestamp(key.created_at)),
        activated_at: key.activated_at.map(timestamp),
        retired_at: key.retired_at.map(timestamp),
        keep_until: keep_until(key).map(timestamp),
    }
}

/// The records, and what cannot be told of them.
fn records(domain: &store::SendingDomain, keys: &[&DomainKey], config: &DnsConfig) -> (Vec<DnsRecord>, Vec<String>) {
    let name = domain.domain.as_str();
    let return_path = domain.return_path_domain.as_str();
    let record = |kind: &str, name: String, value: String, purpose: String| DnsRecord {
        r#type: kind.to_owned(),
        name,
        value,
        purpose,
    };
    let mut records: Vec<DnsRecord> = keys
        .iter()
        .map(|key| {
            let purpose = format!("dkim-{}", key.algorithm.as_str());
            record("TXT", format!("{}._domainkey.{name}", key.selector), key.dns_txt.clone(), purpose)
        })
        .collect();
    let mut notes = Vec::new();
    if config.spf.is_empty() {
        notes.push(format!(
            "an SPF record for {return_path} is needed; ingest.dns.spf does not tell where mail leaves this fleet"
        ));
    } else {
        records.push(record("TXT", return_path.to_owned(), config.spf.clone(), "spf".to_owned()));
    }
    if config.bounce_hosts.is_empty() {
        notes.push(format!(
            "an MX record for {return_path} is needed; ingest.dns.bounce_hosts does not tell who takes bounces"
        ));
    }
    let preferences = (1..).map(|place| place * 10);
    for (host, preference) in config.bounce_hosts.iter().zip(preferences) {
        let value = format!("{preference} {}", host.as_str());
        records.push(record("MX", return_path.to_owned(), value, "bounces".to_owned()));
    }
    // What a key of ours proves by being published, another record has to.
    if domain.unsigned {
        let value = format!("mailfleet-domain={}", domain.id);
        records.push(record("TXT", format!("_mailfleet.{name}"), value, "ownership".to_owned()));
    }
    records.push(record("TXT", format!("_dmarc.{name}"), config.dmarc.clone(), "dmarc".to_owned()));
    (records, notes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::{DkimKeyId, SendingDomainId, TenantId};
    use store::DkimAlgorithm;

    fn now() -> DateTime<Utc> {
        DateTime::from_timestamp(1_790_000_000, 0).expect("is a time")
    }

    fn key(selector: &str, state: KeyState, retired_at: Option<DateTime<Utc>>) -> DomainKey {
        DomainKey {
            id: DkimKeyId::new(now()),
            selector: selector.to_owned(),
            algorithm: DkimAlgorithm::Rsa,
            dns_txt: "v=DKIM1; k=rsa; p=AAAA".to_owned(),
            state,
            created_at: now(),
            activated_at: None,
            retired_at,
        }
    }

    fn domain() -> store::SendingDomain {
        store::SendingDomain {
            id: SendingDomainId::new(now()),
            tenant: TenantId::new(now()),
            domain: "example.com".parse().expect("is a domain"),
            return_path_domain: "bounces.example.com".parse().expect("is a domain"),
            unsigned: false,
            created_at: now(),
            verified_at: None,
        }
    }

    #[test]
    fn the_records_of_a_retired_key_go_when_its_mail_is_over() {
        let keys = [
            key("new", KeyState::Pending, None),
            key("old", KeyState::Retired, Some(now() - KEEP + TimeDelta::hours(1))),
            key("gone", KeyState::Retired, Some(now() - KEEP)),
        ];
        let shown = wire(&domain(), &keys, &DnsConfig::default(), now());
        assert_eq!(shown.keys.iter().map(|key| key.selector.as_str()).collect::<Vec<_>>(), ["new", "old"]);
        let names: Vec<&str> = shown.dns_records.iter().map(|record| record.name.as_str()).collect();
        assert_eq!(names, ["new._domainkey.example.com", "old._domainkey.example.com", "_dmarc.example.com"]);
        assert_eq!(shown.notes.len(), 2);
    }

    #[test]
    fn a_configured_fleet_tells_every_record() {
        let config = DnsConfig {
            spf: "v=spf1 ip4:192.0.2.1 -all".to_owned(),
            bounce_hosts: vec![
                "mx1.fleet.example".parse().expect("is a host"),
                "mx2.fleet.example".parse().expect("is"),
            ],
            ..DnsConfig::default()
        };
        let shown = wire(&domain(), &[], &config, now());
        let told: Vec<(&str, &str, &str)> = shown
            .dns_records
            .iter()
            .map(|record| (record.r#type.as_str(), record.name.as_str(), record.value.as_str()))
            .collect();
        assert_eq!(
            told,
            [
                ("TXT", "bounces.example.com", "v=spf1 ip4:192.0.2.1 -all"),
                ("MX", "bounces.example.com", "10 mx1.fleet.example"),
                ("MX", "bounces.example.com", "20 mx2.fleet.example"),
                ("TXT", "_dmarc.example.com", "v=DMARC1; p=none"),
            ]
        );
        assert!(shown.notes.is_empty());
    }
}
