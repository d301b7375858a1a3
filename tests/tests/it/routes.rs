//! The ways to a receiver: a relay with and without TLS, and MX hosts out of DNS.

use domain::ShardCount;
use mailfleet_tests::{
    Fleet,
    dns::{DnsServer, Table, Trouble},
    mail,
};
use proto::v1::MessageState;
use sender::{AddressPolicy, DirectConfig, RelayConfig, RouteConfig, TlsMode};
use std::{
    net::{IpAddr, Ipv4Addr},
    num::NonZeroU16,
    time::Duration,
};
use testkit::{LIMIT, sink::SinkTls, until};

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// Loopback too, where nobody listens.
const NOBODY: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 99));

async fn over_relay(tls: TlsMode, offered: SinkTls) -> Fleet {
    Fleet::builder()
        .sink(|sink| sink.tls = offered)
        .settings(|settings| {
            settings.sender.route = Some(RouteConfig::Relay(RelayConfig { tls, ..RelayConfig::default() }))
        })
        .start()
        .await
}

async fn over_mx(dns: &DnsServer, addresses: AddressPolicy) -> Fleet {
    over_mx_with(dns, addresses, Duration::from_secs(1)).await
}

async fn over_mx_with(dns: &DnsServer, addresses: AddressPolicy, dns_timeout: Duration) -> Fleet {
    let resolvers = vec![dns.address()];
    Fleet::builder()
        .settings(|settings| {
            // Every domain behind the same intake.
            settings.shards = ShardCount(NonZeroU16::MIN);
            let direct = DirectConfig { resolvers, addresses, dns_timeout, ..DirectConfig::default() };
            settings.sender.route = Some(RouteConfig::Direct(direct));
        })
        .start()
        .await
}

#[tokio::test]
async fn a_relay_that_offers_tls_gets_the_mail_under_tls() {
    let fleet = over_relay(TlsMode::Opportunistic, SinkTls::SelfSigned(vec!["localhost".to_owned()])).await;
    let id = fleet.submit(mail().to("ann@receiver.test")).await;
    let seen = fleet.ended(id).await;
    assert!(!seen.timeline.last().unwrap().tls.is_empty());
    assert!(fleet.sink.mails_to("ann@receiver.test")[0].tls);
    fleet.assert_sound().await;
}

#[tokio::test]
async fn mail_that_must_go_under_verified_tls_never_goes_without() {
    for offered in [SinkTls::Off, SinkTls::SelfSigned(vec!["localhost".to_owned()])] {
        let fleet = over_relay(TlsMode::Required, offered).await;
        let id = fleet.submit(mail().to("ann@receiver.test")).await;
        let seen = fleet.settled(id).await;
        assert_eq!(seen.state(), MessageState::Queued, "{seen:?}");
        assert_eq!(fleet.sink.stats().accepted, 0);
        fleet.assert_sound_so_far().await;
    }
}

#[tokio::test]
async fn mail_goes_to_the_hosts_that_dns_names() {
    let dns = DnsServer::start(
        Table::default()
            .mx("good.test", &[(10, "mx.good.test.")])
            .host("mx.good.test", LOOPBACK)
            .mx("fallback.test", &[(5, "dead.good.test."), (10, "mx.good.test.")])
            .host("dead.good.test", NOBODY)
            .host("implicit.test", LOOPBACK),
    )
    .await;
    let fleet = over_mx(&dns, AddressPolicy::Any).await;
    for domain in ["good.test", "fallback.test", "implicit.test"] {
        let id = fleet.submit(mail().to(&format!("ann@{domain}"))).await;
        let seen = fleet.ended(id).await;
        assert_eq!(seen.state(), MessageState::Delivered, "{domain}: {seen:?}");
    }
    fleet.assert_sound().await;
}

#[tokio::test]
async fn domains_without_mail_bounce_and_failing_servers_defer() {
    let dns = DnsServer::start(
        Table::default()
            .mx("null.test", &[(0, ".")])
            .failing("broken.test")
            .mx("good.test", &[(10, "mx.good.test.")])
            .host("mx.good.test", LOOPBACK),
    )
    .await;
    let fleet = over_mx(&dns, AddressPolicy::Any).await;
    for domain in ["null.test", "nowhere.test"] {
        let id = fleet.submit(mail().to(&format!("ann@{domain}"))).await;
        let seen = fleet.ended(id).await;
        assert_eq!(seen.state(), MessageState::Bounced, "{domain}: {seen:?}");
        assert_eq!(seen.timeline.last().unwrap().bounce_class, "bad_domain", "{domain}");
    }
    let broken = fleet.submit(mail().to("ann@broken.test")).await;
    let good = fleet.submit(mail().to("ann@good.test")).await;
    assert_eq!(fleet.ended(good).await.state(), MessageState::Delivered);
    let seen = fleet.settled(broken).await;
    assert_eq!(
        (seen.state(), seen.timeline.last().unwrap().bounce_class.as_str()),
        (MessageState::Queued, "dns_failure")
    );
    fleet.assert_sound_so_far().await;
}

#[tokio::test]
async fn a_domain_whose_name_servers_are_silent_holds_up_no_other() {
    let dns = DnsServer::start(
        Table::default()
            .troubled("silent.test", Trouble::Silent)
            .mx("good.test", &[(10, "mx.good.test.")])
            .host("mx.good.test", LOOPBACK),
    )
    .await;
    // Whoever waits for the silent ones waits longer than this test.
    let fleet = over_mx_with(&dns, AddressPolicy::Any, 3 * LIMIT).await;
    let (_, ids) = fleet.submit_batch(mail().to_all(["ann@silent.test", "ann@good.test", "bob@good.test"])).await;
    for id in &ids[1..] {
        assert_eq!(fleet.ended(id.unwrap()).await.state(), MessageState::Delivered);
    }
    fleet.assert_sound_so_far().await;
}

#[tokio::test]
async fn a_sender_that_stops_waits_for_no_connection() {
    let dns = DnsServer::start(Table::default().troubled("silent.test", Trouble::Silent)).await;
    let mut fleet = over_mx_with(&dns, AddressPolicy::Any, 3 * LIMIT).await;
    let id = fleet.submit(mail().to("ann@silent.test")).await;
    until("it is claimed", async || fleet.get(id).await.state() == MessageState::Sending).await;
    fleet.stop("sender").await;
    let seen = fleet.get(id).await;
    // The dispatcher may have released it again meanwhile.
    let rests = matches!(seen.state(), MessageState::Queued | MessageState::Released);
    assert!(rests && seen.attempts == 0, "{seen:?}");
    fleet.assert_sound_so_far().await;
}

#[tokio::test]
async fn a_receiver_cannot_make_the_fleet_talk_to_its_own_network() {
    let dns = DnsServer::start(
        Table::default()
            .mx("evil.test", &[(10, "mx.evil.test.")])
            .host("mx.evil.test", LOOPBACK)
            .host("implicit.test", IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254))),
    )
    .await;
    let fleet = over_mx(&dns, AddressPolicy::Public).await;
    for domain in ["evil.test", "implicit.test"] {
        let id = fleet.submit(mail().to(&format!("ann@{domain}"))).await;
        let seen = fleet.ended(id).await;
        assert_eq!(seen.state(), MessageState::Bounced, "{domain}: {seen:?}");
    }
    assert_eq!(fleet.sink.stats().connections, 0);
    fleet.assert_sound().await;
}
