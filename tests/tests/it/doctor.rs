//! `doctor domain` at a name server that answers.

use content::SigningKey;
use mailfleet_tests::{
    dns::{DnsServer, Table},
    processes::program,
};
use serde_json::Value;
use std::net::IpAddr;

const SOURCE: &str = "192.0.2.10";
/// A public key of 1,024 bits, which is little.
const WEAK: &str = "MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQC9HChwQFMK32FUakhpIKJHRGQWeInqw9fBGbUkmHjJ\
                    SQ+fVZw9QtkVP8RQ9dRSNBii7sBsmKGSL+gIz6DO2+vrKmvfIvMcKzH8Uck4yBdlfoKa6u2YBlzqWw5V\
                    0prDv7B0W/9eTUxSUYn52AQg3JHRnl/cA+9HGgWOPHvWsjhSJQIDAQAB";
/// A public key of 512 bits, which anybody breaks.
const BROKEN: &str = "MFwwDQYJKoZIhvcNAQEBBQADSwAwSAJBAKntSMvhcPNPZgMRUFRM6Qrg0MwBwshJ9GnvPDJiJ6nsc36+\
                      LX1QezSKhXUsqzYb7Vq6gXxHEu3dXpHEjHKSW58CAwEAAQ==";

/// A domain with nothing wrong.
fn sound() -> Table {
    let source: IpAddr = SOURCE.parse().unwrap();
    let [rsa, ed25519] = [SigningKey::generate_rsa_2048().unwrap(), SigningKey::generate_ed25519().unwrap()];
    Table::default()
        .mx("shop.test", &[(10, "mx.shop.test.")])
        .mx("bounces.shop.test", &[(10, "in.fleet.test.")])
        .text("bounces.shop.test", "v=spf1 include:_spf.fleet.test -all")
        .text("_spf.fleet.test", "v=spf1 ip4:192.0.2.0/28 ip6:2001:db8::/64 a:out.fleet.test ~all")
        .host("out.fleet.test", "192.0.2.99".parse().unwrap())
        .host("out1.fleet.test", source)
        .pointer("10.2.0.192.in-addr.arpa", "out1.fleet.test")
        .text("r._domainkey.shop.test", &rsa.dns_txt)
        .text("e._domainkey.shop.test", &ed25519.dns_txt)
        .text("_dmarc.shop.test", "v=DMARC1; p=none; rua=mailto:dmarc@shop.test")
}

/// Every check of a domain as (check, result, found), and the exit code.
async fn examined(table: Table, words: &[&str]) -> (Option<i32>, Vec<(String, String, String)>) {
    let dns = DnsServer::start(table).await;
    let program = tokio::task::spawn_blocking(program).await.unwrap();
    let output = tokio::process::Command::new(program)
        .args(["--json", "doctor", "domain", "shop.test", "--resolver", &dns.address()])
        .args(words)
        .output()
        .await
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let checks = text.lines().map(|line| {
        let check: Value = serde_json::from_str(line).unwrap();
        let word = |field: &str| check[field].as_str().unwrap().to_owned();
        (word("check"), word("result"), word("found"))
    });
    (output.status.code(), checks.collect())
}

const WORDS: [&str; 6] = ["--selector", "r", "--selector", "e", "--source", SOURCE];

#[tokio::test]
async fn a_domain_with_nothing_wrong_passes_every_check() {
    let (code, checks) = examined(sound(), &WORDS).await;
    let is_ok = checks.iter().all(|(_, result, _)| result == "ok");
    assert!(code == Some(0) && is_ok, "{checks:?}");
    for (check, part) in [
        ("spf", "2 of 10 look-ups"),
        ("dkim", "RSA with 2048 bits"),
        ("dkim", "Ed25519"),
        ("bulk", "SPF ok, DKIM ok, DMARC ok, reverse names ok"),
    ] {
        assert!(checks.iter().any(|(one, _, found)| one == check && found.contains(part)), "{part}: {checks:?}");
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_domain_is_named() {
    let spf = |record: &str| {
        Table::default().text("bounces.shop.test", record).text("other.test", "v=spf1 ~all").name("void.test")
    };
    let many: String = (0..11).map(|_| "include:other.test ").collect();
    let [weak, broken] = [WEAK, BROKEN].map(|key| format!("v=DKIM1; k=rsa; p={key}"));
    for (table, words, check, result, part) in [
        (Table::default().name("shop.test"), &[][..], "replies", "fail", "neither MX nor address"),
        (Table::default().mx("shop.test", &[(0, ".")]), &[], "replies", "warn", "null MX"),
        (Table::default().failing("shop.test"), &[], "replies", "fail", "no answer about shop.test"),
        (Table::default(), &[], "bounces", "fail", "bounces.shop.test has no MX host"),
        (Table::default(), &[], "spf", "fail", "publishes no SPF record"),
        (spf("v=spf1 -all").text("bounces.shop.test", "v=spf1 ~all"), &[], "spf", "fail", "publishes 2 SPF records"),
        (spf(&format!("v=spf1 {many}-all")), &[], "spf", "fail", "more than 10 terms ask DNS"),
        (spf("v=spf1 a:void.test a:void.test a:void.test -all"), &[], "spf", "fail", "more than 2 look-ups find"),
        (spf("v=spf1 include:bounces.shop.test -all"), &[], "spf", "fail", "more than 10 terms ask DNS"),
        (spf("v=spf1 +all"), &[], "spf", "fail", "lets everybody send"),
        (spf("v=spf1 ip4:192.0.2.300 -all"), &[], "spf", "fail", "\"ip4:192.0.2.300\" is no term"),
        (spf("v=spf1 exists:%{i}.other.test -all"), &[], "spf", "warn", "has a macro"),
        (spf("v=spf1 exists:%{i}.other.test -all"), &["--source", SOURCE], "spf", "warn", "192.0.2.10: "),
        (spf("v=spf1 -all ip4:wrong"), &["--source", SOURCE], "spf", "fail", "192.0.2.10: \"ip4:wrong\" is no term"),
        (spf("v=spf1 mx:other.test/24 ?all"), &[], "spf", "warn", "says nothing of others"),
        (spf("v=spf1 redirect=other.test"), &["--source", SOURCE], "spf", "fail", "192.0.2.10: softfail"),
        (spf("v=spf1 -all"), &[], "dkim", "warn", "no --selector was given"),
        (spf("v=spf1 -all"), &["--selector", "x"], "dkim", "fail", "x._domainkey.shop.test has no record"),
        (
            Table::default().text("x._domainkey.shop.test", "v=DKIM1; p="),
            &["--selector", "x"],
            "dkim",
            "fail",
            "no key in it",
        ),
        (
            Table::default().text("x._domainkey.shop.test", &weak),
            &["--selector", "x"],
            "dkim",
            "warn",
            "RSA with 1024 bits",
        ),
        (
            Table::default().text("x._domainkey.shop.test", &broken),
            &["--selector", "x"],
            "dkim",
            "fail",
            "RSA with 512 bits",
        ),
        (Table::default(), &[], "dmarc", "fail", "nor a domain above it has a DMARC record"),
        (Table::default().text("_dmarc.shop.test", "v=DMARC1; p=maybe"), &[], "dmarc", "fail", "p=maybe is no policy"),
        (
            Table::default().text("_dmarc.shop.test", "v=DMARC1; p=reject; aspf=s; rua=mailto:a@shop.test"),
            &[],
            "dmarc",
            "warn",
            "aspf=s, and the return path is bounces.shop.test",
        ),
        (Table::default(), &["--source", SOURCE], "ptr", "fail", "192.0.2.10 has no name"),
        (
            Table::default().pointer("10.2.0.192.in-addr.arpa", "other.test").name("other.test"),
            &["--source", SOURCE],
            "ptr",
            "fail",
            "which has another address",
        ),
        (Table::default(), &[], "bulk", "fail", "SPF MISSING, DKIM not looked at, DMARC MISSING"),
    ] {
        let (_, checks) = examined(table, words).await;
        let is_told =
            checks.iter().any(|(one, graded, found)| one == check && graded == result && found.contains(part));
        assert!(is_told, "{check} {result} {part}: {checks:?}");
    }
    let (code, _) = examined(Table::default(), &[]).await;
    assert_eq!(code, Some(1));
}

#[tokio::test]
async fn a_resolver_that_is_no_address_is_refused_with_its_option() {
    let program = tokio::task::spawn_blocking(program).await.unwrap();
    let words = ["doctor", "domain", "shop.test", "--resolver", "dns.shop.test"];
    let output = tokio::process::Command::new(program).args(words).output().await.unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(told.contains("--resolver: \"dns.shop.test\" is not an address"), "{told}");
}
