//! The sink, seen by the delivering client.

#![allow(clippy::disallowed_methods, clippy::unwrap_used, missing_docs)]

use bytes::Bytes;
use domain::{EnvelopeSender, Mailbox};
use mailfleet_testkit::sink::{Sink, SinkConfig, SinkStore, SinkTls, Watch, read_index};
use smtp::{
    TlsContext,
    client::{Attempt, ClientConfig, ConnectError, Connection, Envelope, Stage, TlsPolicy},
};
use std::{io::Write, time::Duration};

const LIMIT: Duration = Duration::from_secs(20);

fn config() -> ClientConfig {
    ClientConfig::new("client.test".parse().unwrap(), TlsContext::new().unwrap())
}

async fn connect(sink: &Sink) -> Connection {
    Connection::connect(sink.addr(), "sink.test", &config()).await.unwrap()
}

fn mail(id: u32) -> Bytes {
    Bytes::from(format!("From: a@client.test\r\nMessage-ID: <{id}@client.test>\r\n\r\n.hello\r\n"))
}

async fn send(connection: &mut Connection, to: &str, id: u32) -> Attempt {
    let sender = EnvelopeSender(Some("bounces@client.test".parse().unwrap()));
    let recipient: Mailbox = to.parse().unwrap();
    let envelope = Envelope { sender: &sender, recipient: &recipient, smtputf8: false };
    connection.send(&envelope, &mail(id), || Ok(())).await
}

/// The end of an attempt on a connection of its own, in one word.
async fn end(sink: &Sink, to: &str, id: u32) -> String {
    match send(&mut connect(sink).await, to, id).await {
        Attempt::Delivered(reply) => format!("{}", reply.code),
        Attempt::Refused { stage, reply } => format!("{stage} {}", reply.code),
        Attempt::Unsendable(_) => "unsendable".into(),
        Attempt::NotStarted(_) => "not started".into(),
        Attempt::CutBeforeDot(_) => "before dot".into(),
        Attempt::NoReplyAfterDot(_) => "in doubt".into(),
    }
}

#[tokio::test]
async fn the_recipient_scripts_the_sink() {
    let sink = Sink::start(SinkConfig { hang: Duration::from_millis(50), ..SinkConfig::default() }).await.unwrap();
    for (id, (local, expected, copies)) in (1..).zip([
        ("ann", &["250", "250"][..], 2),
        ("greylist", &["rcpt 450", "250", "250"], 2),
        ("tempfail", &["rcpt 451", "rcpt 451"], 0),
        ("tempfail-once", &["rcpt 451", "250"], 1),
        ("unknown3", &["rcpt 550"], 0),
        ("full", &["rcpt 552"], 0),
        ("busy", &["rcpt 421", "rcpt 421"], 0),
        ("reject-data", &["dot 554"], 0),
        ("drop-before-dot-once", &["before dot", "250"], 1),
        ("cut-body-once", &["in doubt", "250"], 1),
        ("drop-after-dot", &["in doubt", "in doubt"], 2),
        ("drop-after-dot-once", &["in doubt", "250"], 2),
        ("hang-after-dot-once", &["in doubt", "250"], 2),
        ("slow-10ms", &["250"], 1),
    ]) {
        let to = format!("{local}@sink.test");
        for expected in expected {
            assert_eq!(end(&sink, &to, id).await, *expected, "{local}");
        }
        assert_eq!(sink.copies_of(&to), copies, "{local}");
        assert_eq!(sink.mails_to(&to).len(), copies as usize, "{local}");
    }
    let stats = sink.stats();
    assert_eq!((stats.accepted, stats.duplicated), (14, 5));
    assert_eq!(stats.dropped, 6);
    let kept = &sink.mails_to("Ann@sink.test")[0];
    assert_eq!((&kept.body, kept.message_id.as_deref()), (&mail(1), Some("<1@client.test>")));
}

#[tokio::test]
async fn a_slow_domain_takes_its_time_and_few_connections() {
    let config = SinkConfig { slow_connections: 1, slow_delay: Duration::from_millis(30), ..SinkConfig::default() };
    let sink = Sink::start(config).await.unwrap();
    let (mut first, mut second) = (connect(&sink).await, connect(&sink).await);
    let began = std::time::Instant::now();
    assert!(matches!(send(&mut first, "ann@slow.test", 1).await, Attempt::Delivered(_)));
    assert!(began.elapsed() >= Duration::from_millis(30));
    let refused = send(&mut second, "bob@slow.test", 2).await;
    assert!(matches!(refused, Attempt::Refused { stage: Stage::Rcpt, reply } if reply.closes()));
    first.quit().await;
    assert!(sink.wait_for(|sink| sink.stats().open == 0, LIMIT).await);
    assert_eq!(end(&sink, "bob@slow.test", 2).await, "250");
}

#[tokio::test]
async fn a_distant_sink_hears_each_flight_a_round_trip_later() {
    const ROUND_TRIP: Duration = Duration::from_millis(20);
    let sink = Sink::start(SinkConfig { round_trip: ROUND_TRIP, ..SinkConfig::default() }).await.unwrap();
    let began = std::time::Instant::now();
    let mut connection = connect(&sink).await;
    assert!(began.elapsed() >= 2 * ROUND_TRIP, "greeting and EHLO");
    let began = std::time::Instant::now();
    assert!(matches!(send(&mut connection, "ann@sink.test", 1).await, Attempt::Delivered(_)));
    assert!(began.elapsed() >= 2 * ROUND_TRIP, "the envelope, and the body");
    assert_eq!(sink.mails_to("ann@sink.test")[0].body, mail(1));
    connection.quit().await;
    assert!(sink.wait_for(|sink| sink.stats().open == 0, LIMIT).await, "the end arrives as well");
}

#[tokio::test]
async fn who_watches_a_domain_is_told_of_its_copies_alone() {
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let watch = Some(Watch { domain: "watched.test".to_owned(), tell });
    let sink = Sink::start(SinkConfig { watch, store: SinkStore::Discard, ..SinkConfig::default() }).await.unwrap();
    for (to, id) in [("ann@other.test", 1), ("bob@watched.test", 2)] {
        assert_eq!(end(&sink, to, id).await, "250");
    }
    let arrival = told.try_recv().unwrap();
    assert_eq!((arrival.recipient.as_str(), arrival.body), ("bob@watched.test", mail(2)));
    assert_eq!(arrival.at_us, sink.stats().last_us);
    assert!(told.try_recv().is_err());
}

#[tokio::test]
async fn a_crowded_sink_says_421() {
    let sink = Sink::start(SinkConfig { max_connections: 1, ..SinkConfig::default() }).await.unwrap();
    let first = connect(&sink).await;
    let second = Connection::connect(sink.addr(), "sink.test", &config()).await.unwrap_err();
    assert!(matches!(second, ConnectError::Refused { stage: Stage::Banner, reply } if reply.closes()));
    drop(first);
}

#[tokio::test]
async fn a_folder_has_the_copies_and_knows_them_after_a_restart() {
    let path = std::env::temp_dir().join(format!("mailfleet-sink-{}", std::process::id()));
    let config =
        || SinkConfig { store: SinkStore::Directory(path.clone()), files_per_domain: 2, ..SinkConfig::default() };
    let sink = Sink::start(config()).await.unwrap();
    for id in 1..=3 {
        assert_eq!(end(&sink, "ann@one.test", id).await, "250");
    }
    assert_eq!(end(&sink, "bob@two.test", 4).await, "250");
    sink.stop().await;
    let mut index = std::fs::OpenOptions::new().append(true).open(path.join("index.jsonl")).unwrap();
    index.write_all(b"{\"cut off by a ki").unwrap();

    let sink = Sink::start(config()).await.unwrap();
    assert_eq!(end(&sink, "bob@two.test", 4).await, "250");
    assert_eq!((sink.stats().accepted, sink.stats().duplicated, sink.copies_of("bob@two.test")), (1, 1, 2));

    let lines = read_index(&path).unwrap();
    assert_eq!(lines.len(), 5);
    let files: Vec<Option<&str>> = lines.iter().map(|line| line.file.as_deref()).collect();
    let some = |file| Some(file);
    let expected = [some("one.test/00000001.eml"), some("one.test/00000002.eml"), None, some("two.test/00000003.eml")];
    assert_eq!(files[..4], expected);
    assert_eq!(lines[3].key(), Some("<4@client.test>"));
    assert_eq!(std::fs::read(path.join("two.test/00000003.eml")).unwrap(), mail(4));
    drop(sink);
    std::fs::remove_dir_all(&path).unwrap();
}

#[tokio::test]
async fn waiting_ends_when_the_copy_is_there() {
    let sink = Sink::start(SinkConfig::default()).await.unwrap();
    let (arrived, ended) = tokio::join!(
        sink.wait_for(|sink| sink.copies_of("slow-20ms@sink.test") == 1, LIMIT),
        end(&sink, "slow-20ms@sink.test", 1),
    );
    assert!(arrived);
    assert_eq!(ended, "250");
    assert!(!sink.wait_for(|sink| sink.stats().accepted == 2, Duration::from_millis(20)).await);
}

#[tokio::test]
async fn its_certificate_verifies() {
    let tls = SinkTls::SelfSigned(vec!["sink.test".into()]);
    let sink = Sink::start(SinkConfig { tls, ..SinkConfig::default() }).await.unwrap();
    let verified = ClientConfig {
        tls: TlsPolicy::Required { name: None },
        tls_context: TlsContext::with_roots(sink.certificate().cloned()).unwrap(),
        ..config()
    };
    let mut connection = Connection::connect(sink.addr(), "sink.test", &verified).await.unwrap();
    assert!(matches!(send(&mut connection, "ann@sink.test", 1).await, Attempt::Delivered(_)));
    assert!(sink.mails()[0].tls);
}
