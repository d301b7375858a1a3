//! Sending domains are verified in DNS before mail is taken for them.

use client::{Client, Error};
use mailfleet_tests::{
    Fleet,
    dns::{DnsServer, Table},
    mail,
    processes::program,
};
use proto::v1::{self, DnsCheckState, DnsRecord, ErrorReason};
use serde_json::Value;
use tokio::process::Command;

const DOMAIN: &str = "example.com";

async fn fleet(dns: &DnsServer) -> Fleet {
    let servers = vec![dns.address()];
    Fleet::builder()
        .settings(move |settings| {
            settings.ingest.require_verified_domains = true;
            settings.ingest.dns.servers = servers;
            settings.ingest.dns.spf = "v=spf1 ip4:192.0.2.1 -all".to_owned();
            settings.ingest.dns.bounce_hosts = vec!["mx.fleet.example".parse().unwrap()];
        })
        .start()
        .await
}

async fn shown(fleet: &Fleet, domain: &str) -> v1::SendingDomain {
    let request = v1::GetDomainRequest { domain: domain.to_owned() };
    fleet.domains_with(&fleet.key).get_domain(request).await.unwrap().into_inner().domain.unwrap()
}

/// What an owner publishes who does as he is told.
fn published(records: &[DnsRecord]) -> Table {
    records.iter().fold(Table::default(), |table, record| match record.value.split_once(' ') {
        Some((preference, host)) if record.r#type == "MX" => {
            table.mx(&record.name, &[(preference.parse().unwrap(), &format!("{host}."))])
        }
        _ => table.text(&record.name, &record.value),
    })
}

async fn verified(fleet: &Fleet, domain: &str) -> (bool, Vec<(String, DnsCheckState)>) {
    let request = v1::VerifyDomainRequest { domain: domain.to_owned() };
    let answer = fleet.domains_with(&fleet.key).verify_domain(request).await.unwrap().into_inner();
    let checks = answer.checks.iter().map(|check| (check.record.as_ref().unwrap().purpose.clone(), check.state()));
    (answer.domain.unwrap().verified_at.is_some(), checks.collect())
}

async fn refusal(fleet: &Fleet) -> Option<ErrorReason> {
    let client = Client::builder(&fleet.endpoint).key(&fleet.key).connect_lazy().unwrap();
    match client.send(mail().to("ann@receiver.test").message()).await {
        Ok(_) => None,
        Err(Error::Refused(refused)) => Some(refused.reason),
        Err(other) => panic!("{other}"),
    }
}

#[tokio::test]
async fn mail_is_taken_once_dns_has_what_the_domain_needs() {
    use DnsCheckState::{Different, Missing, Ok};
    let dns = DnsServer::start(Table::default()).await;
    let fleet = fleet(&dns).await;
    let all = |states: [DnsCheckState; 5]| {
        let purposes = ["dkim-rsa", "dkim-ed25519", "spf", "bounces", "dmarc"];
        purposes.map(str::to_owned).into_iter().zip(states).collect::<Vec<_>>()
    };
    let records = shown(&fleet, DOMAIN).await.dns_records;
    assert_eq!(refusal(&fleet).await, Some(ErrorReason::SendingDomainUnverified));
    assert_eq!(verified(&fleet, DOMAIN).await, (false, all([Missing; 5])));

    // All but the host of bounces, which is another's.
    let but: Vec<DnsRecord> = records.iter().filter(|record| record.r#type != "MX").cloned().collect();
    let bounces = "bounces.example.com";
    dns.publish(published(&but).mx(bounces, &[(10, "mx.other.example.")]));
    assert_eq!(verified(&fleet, DOMAIN).await, (false, all([Ok, Ok, Ok, Different, Ok])));
    assert_eq!(refusal(&fleet).await, Some(ErrorReason::SendingDomainUnverified));

    // DMARC is advice.
    let but: Vec<DnsRecord> = records.iter().filter(|record| record.purpose != "dmarc").cloned().collect();
    dns.publish(published(&but));
    assert_eq!(verified(&fleet, DOMAIN).await, (true, all([Ok, Ok, Ok, Ok, Missing])));
    assert_eq!(refusal(&fleet).await, None);

    // Whoever is verified stays so: a name server that fails must not stop his mail.
    dns.publish(Table::default());
    assert_eq!(verified(&fleet, DOMAIN).await, (true, all([Missing; 5])));
    assert_eq!(refusal(&fleet).await, None);
    assert_eq!(fleet.store.audit().await.unwrap().messages, 2);
}

#[tokio::test]
async fn a_domain_without_keys_is_proved_by_a_record_that_names_it() {
    let dns = DnsServer::start(Table::default()).await;
    let fleet = fleet(&dns).await;
    let mut domains = fleet.domains_with(&fleet.key);
    let request = v1::CreateDomainRequest { domain: "relay.example".to_owned(), unsigned: true, ..Default::default() };
    let made = domains.create_domain(request).await.unwrap().into_inner().domain.unwrap();
    let but: Vec<_> = made.dns_records.iter().filter(|record| record.purpose != "ownership").cloned().collect();
    dns.publish(published(&but));
    assert!(!verified(&fleet, "relay.example").await.0);
    dns.publish(published(&made.dns_records));
    assert!(verified(&fleet, "relay.example").await.0);
}

#[tokio::test]
async fn the_command_shows_what_differs_and_its_exit_code_tells() {
    let dns = DnsServer::start(Table::default()).await;
    let fleet = fleet(&dns).await;
    let program = tokio::task::spawn_blocking(program).await.unwrap();
    let key = fleet.file("key", &fleet.key).to_string_lossy().into_owned();
    let run = async || {
        let words = ["--endpoint", &fleet.endpoint, "--api-key-file", &key, "--json", "domain", "verify", DOMAIN];
        let output = Command::new(&program).args(words).output().await.unwrap();
        let said: Value = serde_json::from_slice(&output.stdout).unwrap();
        (output.status.code(), said)
    };
    let records = shown(&fleet, DOMAIN).await.dns_records;
    dns.publish(published(&records[1..]).text(&records[0].name, "v=DKIM1; k=rsa; p="));
    let (code, said) = run().await;
    assert_eq!((code, &said["verified_at"]), (Some(1), &Value::Null));
    let check = &said["checks"][0];
    assert_eq!((&check["state"], &check["required"]), (&Value::from("different"), &Value::from(true)));
    assert!(check["explanation"].as_str().unwrap().contains("revoked"), "{check}");
    dns.publish(published(&records));
    let (code, said) = run().await;
    assert_eq!((code, said["verified_at"].is_string()), (Some(0), true));
}
