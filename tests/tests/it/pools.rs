//! Several ways out: who takes which, what fails over, and what never does.

use crate::addresses;
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use domain::{Closing, Lane, MessageId};
use mailfleet_tests::{
    Fleet, Kind,
    dns::{DnsServer, Table},
    mail,
};
use proto::v1::{self, MessageState};
use sender::SenderConfig;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
};
use testkit::{Fault, FaultProxy, sink::SinkTls, until};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufStream},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

/// A relay that wants a password, and hands what follows to the sink.
struct Gate {
    address: SocketAddr,
    /// User names and passwords as they came.
    logins: Arc<Mutex<Vec<(String, String)>>>,
    _serving: JoinSet<()>,
}

impl Gate {
    async fn start(upstream: SocketAddr, password: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let logins: Arc<Mutex<Vec<(String, String)>>> = Arc::default();
        let (password, noted) = (password.to_owned(), Arc::clone(&logins));
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut sessions = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (password, noted) = (password.clone(), Arc::clone(&noted));
                // A client that goes away ends its session.
                sessions.spawn(async move { session(stream, upstream, &password, &noted).await.unwrap_or_default() });
            }
        });
        Self { address, logins, _serving: serving }
    }

    fn logins(&self) -> Vec<(String, String)> {
        self.logins.lock().unwrap().clone()
    }
}

async fn session(
    stream: TcpStream,
    upstream: SocketAddr,
    password: &str,
    logins: &Mutex<Vec<(String, String)>>,
) -> std::io::Result<()> {
    let mut client = BufStream::new(stream);
    client.write_all(b"220 gate.test ESMTP\r\n").await?;
    loop {
        client.flush().await?;
        let mut line = String::new();
        if client.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        if line.starts_with("EHLO ") {
            client.write_all(b"250-gate.test\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 AUTH PLAIN LOGIN\r\n").await?;
        } else if let Some(response) = line.trim_end().strip_prefix("AUTH PLAIN ") {
            let plain = String::from_utf8(BASE64.decode(response).unwrap()).unwrap();
            let (username, given) = plain[1..].split_once('\0').unwrap();
            logins.lock().unwrap().push((username.to_owned(), given.to_owned()));
            if given == password {
                client.write_all(b"235 2.7.0 welcome\r\n").await?;
                break;
            }
            client.write_all(b"535 5.7.8 credentials are not valid\r\n").await?;
        } else {
            client.write_all(b"530 5.7.0 who are you\r\n").await?;
        }
    }
    client.flush().await?;
    let mut sink = BufStream::new(TcpStream::connect(upstream).await?);
    let mut line = String::new();
    sink.read_line(&mut line).await?;
    sink.write_all(b"EHLO gate.test\r\n").await?;
    sink.flush().await?;
    while !line.starts_with("250 ") {
        line.clear();
        sink.read_line(&mut line).await?;
    }
    tokio::io::copy_bidirectional(&mut client, &mut sink).await.map(|_| ())
}

/// Gives a fleet a sender with these routes and pools, as configuration would say them.
async fn send_by(fleet: &mut Fleet, routes: Value, pools: Value) {
    let config: SenderConfig = serde_json::from_value(json!({ "routes": routes, "pools": pools })).unwrap();
    let sender = &mut fleet.settings.sender;
    (sender.route, sender.routes, sender.pools) = (None, config.routes, config.pools);
    fleet.launch(Kind::Sender, "sender").await;
    fleet.ready().await;
}

async fn without_sender() -> Fleet {
    Fleet::builder().without(Kind::Sender).start().await
}

/// A relay at this address.
fn relay(address: SocketAddr) -> Value {
    json!({"kind": "relay", "host": address.ip(), "port": address.port(), "tls": "none"})
}

/// The same pool for everybody.
fn all_by(routes: Value) -> Value {
    json!({ "all": { "routes": routes } })
}

/// The routes that the attempts of these took, by message.
async fn routes_of(fleet: &Fleet, ids: &[MessageId]) -> BTreeMap<MessageId, Vec<String>> {
    let mut routes = BTreeMap::new();
    for id in ids {
        let seen = fleet.get(*id).await;
        let taken = seen.timeline.into_iter().map(|event| event.route).filter(|route| !route.is_empty());
        routes.insert(*id, taken.collect());
    }
    routes
}

async fn all_end(fleet: &Fleet, ids: &[Option<MessageId>]) -> Vec<MessageId> {
    let ids: Vec<MessageId> = ids.iter().map(|id| id.unwrap()).collect();
    for id in &ids {
        assert_eq!(fleet.ended(*id).await.state(), MessageState::Delivered);
    }
    ids
}

#[tokio::test]
async fn routes_of_a_pool_get_their_shares_and_a_mail_that_comes_again_goes_the_same_way() {
    let mut fleet = without_sender().await;
    let sink = fleet.sink.addr();
    let routes = json!({"one": relay(sink), "two": relay(sink)});
    let pool = json!([{"route": "one", "weight": 3}, {"route": "two"}]);
    send_by(&mut fleet, routes, all_by(pool)).await;
    let (_, ids) = fleet.submit_batch(mail().to_all(addresses(200, "tempfail-once", "receiver.test"))).await;
    until("each was tried", async || fleet.sink.stats().refused >= 200).await;
    fleet.at_rest().await;
    fleet.clock.advance(std::time::Duration::from_secs(60)).await;
    let ids = all_end(&fleet, &ids).await;
    let taken = routes_of(&fleet, &ids).await;
    assert!(taken.values().all(|taken| taken.len() == 2 && taken[0] == taken[1]), "{taken:?}");
    let one = taken.values().filter(|taken| taken[0] == "one").count();
    assert!((120..=180).contains(&one), "{one} of 200");
    fleet.assert_sound().await;
}

#[tokio::test]
async fn the_share_of_a_route_that_fails_goes_over_the_others_without_an_attempt() {
    let mut fleet = without_sender().await;
    let sink = fleet.sink.addr();
    let proxy = FaultProxy::start(sink.to_string()).await.unwrap();
    proxy.set(Fault::Cut);
    let routes = json!({"one": relay(proxy.address()), "two": relay(sink), "reserve": relay(sink)});
    let pool = json!([{"route": "one", "weight": 9}, {"route": "two"}, {"route": "reserve", "order": 2}]);
    send_by(&mut fleet, routes, all_by(pool)).await;
    let (_, ids) = fleet.submit_batch(mail().to_all(addresses(100, "r", "receiver.test"))).await;
    let ids = all_end(&fleet, &ids).await;
    let taken = routes_of(&fleet, &ids).await;
    assert!(taken.values().all(|taken| *taken == ["two"]), "{taken:?}");
    // It gets its share back once it works.
    proxy.set(Fault::Nothing);
    let mut count = 0;
    until("the first route is used again", async || {
        count += 1;
        let id = fleet.submit(mail().to(&format!("again.{count}@receiver.test"))).await;
        fleet.ended(id).await;
        routes_of(&fleet, &[id]).await[&id] == ["one"]
    })
    .await;
    let verdict = fleet.assert_sound().await;
    assert_eq!((verdict.deferred, verdict.doubts, verdict.surplus), (0, 0, 0), "{verdict:?}");
}

#[tokio::test]
async fn mail_for_a_domain_that_takes_none_bounces_and_what_cannot_be_reached_goes_by_the_relay() {
    let hosts = Table::default().mx("null.test", &[(0, ".")]).mx("dead.test", &[(10, "mx.dead.test.")]);
    let dns = DnsServer::start(hosts.host("mx.dead.test", [127, 0, 0, 99].into())).await;
    let mut fleet = without_sender().await;
    let own =
        json!({"kind": "direct", "resolvers": [dns.address()], "addresses": "any", "port": fleet.sink.addr().port()});
    let routes = json!({"own": own, "relay": relay(fleet.sink.addr())});
    send_by(&mut fleet, routes, all_by(json!([{"route": "own"}, {"route": "relay", "order": 2}]))).await;
    let none = fleet.submit(mail().to("ann@null.test")).await;
    let seen = fleet.ended(none).await;
    assert_eq!(seen.state(), MessageState::Bounced);
    assert_eq!(seen.timeline.last().unwrap().route, "own");
    let dead = fleet.submit(mail().to("ann@dead.test")).await;
    let seen = fleet.ended(dead).await;
    assert_eq!((seen.state(), seen.attempts), (MessageState::Delivered, 1));
    assert_eq!(seen.timeline.last().unwrap().route, "relay");
    fleet.assert_sound().await;
}

#[tokio::test]
async fn a_relay_may_be_verified_by_a_certificate_of_ones_own() {
    let tls = SinkTls::SelfSigned(vec!["localhost".to_owned()]);
    let mut fleet = Fleet::builder().without(Kind::Sender).sink(|sink| sink.tls = tls).start().await;
    let root = BASE64.encode(fleet.sink.certificate().unwrap());
    let root = fleet.file("root.pem", &format!("-----BEGIN CERTIFICATE-----\n{root}\n-----END CERTIFICATE-----\n"));
    let mut verified = relay(fleet.sink.addr());
    verified["host"] = json!("localhost");
    verified["tls"] = json!("required");
    verified["ca_file"] = json!(root);
    send_by(&mut fleet, json!({"verified": verified}), all_by(json!([{"route": "verified"}]))).await;
    let id = fleet.submit(mail().to("ann@receiver.test")).await;
    assert_eq!(fleet.ended(id).await.state(), MessageState::Delivered);
    assert!(fleet.sink.mails_to("ann@receiver.test")[0].tls);
    fleet.assert_sound().await;
}

#[tokio::test]
async fn a_relay_that_refuses_the_password_is_left_alone_and_the_reserve_takes_over() {
    let mut fleet = without_sender().await;
    let sink = fleet.sink.addr();
    let gate = Gate::start(sink, "right").await;
    let file = fleet.file("password", "wrong\n");
    let mut closed = relay(gate.address);
    for (field, value) in [
        ("username", json!("fleet")),
        ("password_file", json!(file)),
        ("allow_password_without_tls", json!(true)),
        ("max_connections", json!(4)),
    ] {
        closed[field] = value;
    }
    let routes = json!({"closed": closed, "reserve": relay(sink)});
    let pool = json!([{"route": "closed"}, {"route": "reserve", "order": 2}]);
    send_by(&mut fleet, routes, all_by(pool)).await;
    for round in 0..3 {
        let (_, ids) = fleet.submit_batch(mail().to_all(addresses(50, &format!("r{round}"), "receiver.test"))).await;
        let ids = all_end(&fleet, &ids).await;
        let taken = routes_of(&fleet, &ids).await;
        assert!(taken.values().all(|taken| *taken == ["reserve"]), "{taken:?}");
    }
    let logins = gate.logins();
    assert!(!logins.is_empty() && logins.len() <= 4, "no more than were under way at once: {}", logins.len());
    let verdict = fleet.assert_sound().await;
    assert_eq!((verdict.of(Closing::Delivered), verdict.deferred), (150, 0), "{verdict:?}");
}

#[tokio::test]
async fn a_relay_that_turns_everybody_away_is_left_alone_and_each_try_counts() {
    let mut fleet = without_sender().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let busy = listener.local_addr().unwrap();
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            // Whether it is heard does not matter.
            let _ = stream.write_all(b"421 4.3.2 too busy for anybody\r\n").await;
        }
    });
    send_by(&mut fleet, json!({"busy": relay(busy)}), all_by(json!([{"route": "busy"}]))).await;
    let ids = fleet.submit_all(mail().to_all(addresses(20, "r", "receiver.test"))).await;
    let seen = fleet.settled(ids[0]).await;
    assert_eq!((seen.state(), seen.attempts), (MessageState::Queued, 1), "{seen:?}");
    assert_eq!(seen.timeline.last().unwrap().route, "busy");
    fleet.assert_sound_so_far().await;
}

#[tokio::test]
async fn what_is_in_doubt_at_one_route_is_never_sent_by_another() {
    let mut fleet = Fleet::builder()
        .without(Kind::Sender)
        .settings(|settings| {
            settings.dispatcher.resend_transactional = false;
            settings.sender.deadlines.dot = std::time::Duration::from_millis(500);
        })
        .start()
        .await;
    let sink = fleet.sink.addr();
    let routes = json!({"one": relay(sink), "two": relay(sink)});
    send_by(&mut fleet, routes, all_by(json!([{"route": "one"}, {"route": "two", "order": 2}]))).await;
    let id = fleet.submit(mail().to("hang-after-dot@receiver.test")).await;
    assert_eq!(fleet.ended(id).await.state(), MessageState::Unknown);
    assert_eq!(fleet.sink.mails_to("hang-after-dot@receiver.test").len(), 1);
    let verdict = fleet.assert_sound().await;
    assert_eq!((verdict.of(Closing::Unknown), verdict.doubts, verdict.surplus), (1, 1, 0), "{verdict:?}");
}

#[tokio::test]
async fn all_receivers_together_never_have_more_sessions_with_a_relay_than_it_takes() {
    let mut fleet = without_sender().await;
    let mut narrow = relay(fleet.sink.addr());
    narrow["max_connections"] = json!(3);
    narrow["messages_per_connection"] = json!(20);
    send_by(&mut fleet, json!({"narrow": narrow}), all_by(json!([{"route": "narrow"}]))).await;
    let to = (0..200).map(|index| format!("slow-20ms.{index}@receiver{}.test", index % 20));
    fleet.submit_batch(mail().to_all(to)).await;
    until("bulk is under way", async || fleet.sink.stats().accepted > 10).await;
    let urgent = fleet.submit(mail().lane(Lane::Transactional).to("ann@another.test")).await;
    assert_eq!(fleet.ended(urgent).await.state(), MessageState::Delivered);
    assert!(fleet.sink.stats().accepted < 200, "it waited for all of them");
    until("all are taken", async || fleet.sink.stats().accepted == 201).await;
    let stats = fleet.sink.stats();
    assert!(stats.peak <= 3 && stats.connections >= 201 / 20, "{stats:?}");
    let verdict = fleet.assert_sound().await;
    assert_eq!((verdict.of(Closing::Delivered), verdict.deferred), (201, 0), "{verdict:?}");
}

#[tokio::test]
async fn a_tenants_mail_goes_by_his_pool_and_bears_our_id_where_the_provider_repeats_it() {
    let mut fleet = without_sender().await;
    let sink = fleet.sink.addr();
    let gate = Gate::start(sink, "secret").await;
    let file = fleet.file("key", "secret\n");
    let account = |kind: &str| {
        json!({
            "kind": kind, "host": gate.address.ip(), "port": gate.address.port(), "tls": "none",
            "password_file": file, "allow_password_without_tls": true,
        })
    };
    let with = |mut account: Value, field: &str, value: &str| {
        account[field] = json!(value);
        account
    };
    let routes = json!({
        "own": relay(sink),
        "sendgrid": account("sendgrid"),
        "mailgun": with(account("mailgun"), "username", "postmaster@mg.example.com"),
        "ses": with(account("ses"), "username", "AKIAEXAMPLE"),
        "postmark": with(account("postmark"), "stream", "news"),
        "sparkpost": account("sparkpost"),
        "resend": account("resend"),
    });
    let expected = [
        ("sendgrid", "apikey", r#"X-SMTPAPI: {"unique_args":{"mid":"$"}}"#),
        ("mailgun", "postmaster@mg.example.com", r#"X-Mailgun-Variables: {"mid":"$"}"#),
        ("ses", "AKIAEXAMPLE", "X-SES-MESSAGE-TAGS: mid=$"),
        ("postmark", "secret", "X-PM-Metadata-mid: $\r\nX-PM-KeepID: true\r\nX-PM-Message-Stream: news"),
        ("sparkpost", "SMTP_Injection", r#"X-MSYS-API: {"metadata":{"mid":"$"}}"#),
        ("resend", "resend", "Resend-Idempotency-Key: $"),
    ];
    let mut pools = json!({"others": {"routes": [{"route": "own"}]}});
    let mut keys = Vec::new();
    for (route, ..) in expected {
        let (tenant, key) = fleet.new_tenant(route).await;
        let domain = format!("{route}.example.net");
        let create = v1::CreateDomainRequest { domain: domain.clone(), ..Default::default() };
        fleet.domains_with(&key).create_domain(create).await.unwrap();
        // Half of them are known by the tenant, half by his domain.
        pools[route] = match keys.len() % 2 {
            0 => json!({"tenants": [tenant], "routes": [{"route": route}]}),
            _ => json!({"domains": [domain], "routes": [{"route": route}]}),
        };
        keys.push((key, domain));
    }
    send_by(&mut fleet, routes, pools).await;
    for ((route, username, header), (key, domain)) in expected.into_iter().zip(keys) {
        let to = format!("ann@{route}.test");
        let post = mail().to(&to).with(|mail| mail.from.as_mut().unwrap().email = format!("news@{domain}"));
        let sent = fleet.mails_with(&key).send_message(post.message()).await.unwrap().into_inner();
        let id = fleet.know(&sent.message_ids)[0];
        until("it is there", async || !fleet.sink.mails_to(&to).is_empty()).await;
        let copy = fleet.sink.mails_to(&to)[0].clone();
        let text = String::from_utf8_lossy(&copy.body);
        let header = header.replace('$', &id.to_string());
        assert!(text.starts_with(&format!("{header}\r\n")), "{route}: {text}");
        assert_eq!(gate.logins().pop(), Some((username.to_owned(), "secret".to_owned())));
    }
    let id = fleet.submit(mail().to("ann@others.test")).await;
    fleet.ended(id).await;
    assert_eq!(routes_of(&fleet, &[id]).await[&id], ["own"]);
    fleet.assert_sound().await;
}
