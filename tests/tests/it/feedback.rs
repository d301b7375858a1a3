//! What recipients do with a mail, and what becomes of it.

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use chrono::{DateTime, TimeDelta, Utc};
use domain::{
    Lane, MessageId, Token, TrackingSite,
    fact::{FactDetail, FactKind},
};
use mailfleet_tests::{Fleet, Kind, mail, token_keys};
use proto::v1::{MessageState, MetricBucket, QueryMetricsRequest};
use std::{collections::BTreeMap, net::SocketAddr, time::Duration};
use store::{Effect, Feedback};
use testkit::{Fault, until};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const PERSON: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";
const ONE_CLICK: &str = "List-Unsubscribe=One-Click";

/// A fleet whose clock is a minute ahead of this machine's, by which hits are noted: nothing follows its delivery at once.
async fn start() -> Fleet {
    let site = TrackingSite::new("https://click.example.com".parse().unwrap());
    let fleet = Fleet::builder().settings(|settings| settings.tracking = Some(site)).start().await;
    fleet.clock.advance(Duration::from_secs(60)).await;
    fleet.ready().await;
    fleet
}

/// A request as a recipient's program makes it; the whole answer.
async fn ask(at: SocketAddr, method: &str, path: &str, agent: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(at).await.unwrap();
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: click.example.com\r\nUser-Agent: {agent}\r\nConnection: close\r\n\
         Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

fn path(way: &str, token: &Token) -> String {
    format!("/{way}/{}", token_keys().seal(token))
}

fn link(message: MessageId, place: u16) -> String {
    let url = "https://shop.test/?a=1&b=2".to_owned();
    path("c", &Token::Click { message, place, url })
}

async fn delivered(fleet: &Fleet, to: &str) -> MessageId {
    let id = fleet.submit(mail().lane(Lane::Bulk).to(to)).await;
    assert_eq!(fleet.ended(id).await.state(), MessageState::Delivered);
    id
}

async fn has(fleet: &Fleet, id: MessageId, event: &str) -> bool {
    fleet.get(id).await.timeline.iter().any(|one| one.event == event)
}

async fn figures(fleet: &Fleet) -> BTreeMap<String, u64> {
    let mut analytics = proto::v1::analytics_service_client::AnalyticsServiceClient::new(fleet.line(&fleet.key));
    let now = fleet.store.now().await.unwrap();
    let stamp = |at: DateTime<Utc>| Some(prost_types::Timestamp { seconds: at.timestamp(), nanos: 0 });
    let request = QueryMetricsRequest {
        start: stamp(now - TimeDelta::hours(2)),
        end: stamp(now + TimeDelta::hours(1)),
        bucket: MetricBucket::Hour.into(),
        ..QueryMetricsRequest::default()
    };
    let answer = analytics.query_metrics(request).await.unwrap().into_inner();
    let mut counts = BTreeMap::new();
    for row in answer.rows {
        *counts.entry(row.event).or_default() += row.count;
    }
    counts
}

#[tokio::test]
async fn an_open_a_click_and_one_click_become_events_and_figures_and_bulk_mail_ends() {
    let mut fleet = start().await;
    let web = fleet.launch_feedback().await;
    let id = delivered(&fleet, "ann@receiver.test").await;
    let image = ask(web, "GET", &path("o", &Token::Open(id)), PERSON, "").await;
    assert!(image.starts_with("HTTP/1.1 200") && image.contains("image/gif") && image.contains("no-store"), "{image}");
    let led = ask(web, "GET", &link(id, 0), PERSON, "").await;
    assert!(led.starts_with("HTTP/1.1 302") && led.contains("location: https://shop.test/?a=1&b=2\r\n"), "{led}");
    let out = path("u", &Token::Unsubscribe(id));
    let done = ask(web, "POST", &out, "Mail program", ONE_CLICK).await;
    assert!(done.starts_with("HTTP/1.1 200") && done.contains("You are unsubscribed"), "{done}");

    // It was answered for: no claim from now on succeeds, but for mail that one waits for.
    let next = fleet.submit(mail().lane(Lane::Bulk).to("ann@receiver.test")).await;
    assert_eq!(fleet.ended(next).await.state(), MessageState::Suppressed);
    let urgent = fleet.submit(mail().lane(Lane::Transactional).to("ann@receiver.test")).await;
    assert_eq!(fleet.ended(urgent).await.state(), MessageState::Delivered);
    for event in ["opened", "clicked", "unsubscribed"] {
        until(event, async || has(&fleet, id, event).await).await;
    }
    until("they are counted", async || {
        let counts = figures(&fleet).await;
        counts.get("unsubscribed") == Some(&1) && counts.get("delivered") == Some(&2)
    })
    .await;
    let counts = figures(&fleet).await;
    assert_eq!((counts.get("opened"), counts.get("clicked")), (Some(&1), Some(&1)));

    let back = ask(web, "POST", &out, PERSON, "action=resubscribe").await;
    assert!(back.starts_with("HTTP/1.1 200") && back.contains("subscribed again"), "{back}");
    delivered(&fleet, "ann@receiver.test").await;
    fleet.assert_sound().await;
}

#[tokio::test]
async fn what_only_looks_changes_nothing_and_what_is_forged_leads_nowhere() {
    let mut fleet = start().await;
    let web = fleet.launch_feedback().await;
    let id = delivered(&fleet, "ann@receiver.test").await;
    let out = path("u", &Token::Unsubscribe(id));
    let page = ask(web, "GET", &out, PERSON, "").await;
    assert!(page.starts_with("HTTP/1.1 200") && page.contains("a…@receiver.test"), "{page}");
    assert!(page.contains("content-security-policy: default-src 'none'"), "{page}");
    for (method, path, body) in
        [("HEAD", out.as_str(), ""), ("POST", &out, ""), ("POST", &out, "x=y"), ("PUT", &out, ONE_CLICK)]
    {
        let answer = ask(web, method, path, PERSON, body).await;
        assert!(!answer.contains("You are unsubscribed"), "{method} {body}: {answer}");
    }
    let mut forged = link(id, 0);
    let last = forged.pop().unwrap();
    forged.push(if last == 'A' { 'B' } else { 'A' });
    for path in [forged.as_str(), "/c/https:%2F%2Fevil.test", "/c/x", &path("c", &Token::Open(id)), "/nothing"] {
        let answer = ask(web, "GET", path, PERSON, "").await;
        assert!(answer.starts_with("HTTP/1.1 404") && !answer.contains("location:"), "{path}: {answer}");
    }
    let script = Token::Click { message: id, place: 0, url: "javascript:alert(1)".to_owned() };
    let answer = ask(web, "GET", &self::path("c", &script), PERSON, "").await;
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    // A token for one thing is none for another.
    let answer = ask(web, "POST", &path("u", &Token::Open(id)), PERSON, ONE_CLICK).await;
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    delivered(&fleet, "ann@receiver.test").await;
    assert!(!has(&fleet, id, "unsubscribed").await);
    fleet.assert_sound().await;
}

#[tokio::test]
async fn programs_are_told_from_people() {
    let mut fleet = start().await;
    let web = fleet.launch_feedback().await;
    let id = delivered(&fleet, "ann@receiver.test").await;
    ask(web, "GET", &path("o", &Token::Open(id)), "Mozilla/5.0", "").await;
    until("Apple's fetch is told", async || has(&fleet, id, "opened_machine").await).await;
    let all = async |agent| {
        for place in 0..4 {
            ask(web, "GET", &link(id, place), agent, "").await;
        }
    };
    all(PERSON).await;
    until("the scanner is told", async || {
        let seen = fleet.get(id).await;
        seen.timeline.iter().filter(|one| one.event == "clicked_machine").count() == 4
    })
    .await;
    assert!(!has(&fleet, id, "clicked").await && !has(&fleet, id, "opened").await);
    fleet.assert_sound().await;
}

#[tokio::test]
async fn an_unsubscription_reaches_what_is_queued() {
    let mut fleet = start().await;
    let web = fleet.launch_feedback().await;
    let id = delivered(&fleet, "ann@receiver.test").await;
    let later = fleet.store.now().await.unwrap() + TimeDelta::hours(1);
    let queued = fleet.submit(mail().lane(Lane::Bulk).at(later).to("ann@receiver.test")).await;
    let other = fleet.submit(mail().lane(Lane::Bulk).at(later).to("ben@receiver.test")).await;
    ask(web, "POST", &path("u", &Token::Unsubscribe(id)), "Mail program", ONE_CLICK).await;
    assert_eq!(fleet.get(queued).await.state(), MessageState::Suppressed);
    fleet.clock.advance(Duration::from_secs(3_700)).await;
    assert_eq!(fleet.ended(other).await.state(), MessageState::Delivered);
    fleet.assert_sound().await;
}

#[tokio::test]
async fn while_postgres_is_away_links_lead_and_wishes_are_kept_through_a_crash() {
    let mut fleet = start().await;
    let id = delivered(&fleet, "ann@receiver.test").await;
    let proxy = fleet.before_postgres().await;
    fleet.launch_through(Kind::Feedback, "feedback", &proxy).await;
    let web = fleet.settings.feedback.web.listen;
    proxy.set(Fault::Cut);
    let led = ask(web, "GET", &link(id, 0), PERSON, "").await;
    assert!(led.starts_with("HTTP/1.1 302"), "{led}");
    let page = ask(web, "GET", &path("u", &Token::Unsubscribe(id)), PERSON, "").await;
    assert!(page.starts_with("HTTP/1.1 200") && page.contains("no more of these mails?"), "{page}");
    let done = ask(web, "POST", &path("u", &Token::Unsubscribe(id)), "Mail program", ONE_CLICK).await;
    assert!(done.starts_with("HTTP/1.1 200"), "{done}");
    fleet.crash("feedback").await;
    assert!(!has(&fleet, id, "unsubscribed").await, "it never reached Postgres");

    fleet.launch(Kind::Feedback, "feedback").await;
    for event in ["unsubscribed", "clicked"] {
        until(event, async || has(&fleet, id, event).await).await;
    }
    let next = fleet.submit(mail().lane(Lane::Bulk).to("ann@receiver.test")).await;
    assert_eq!(fleet.ended(next).await.state(), MessageState::Suppressed);
    fleet.assert_sound().await;
}

/// A post as Postmark makes it.
async fn post(at: SocketAddr, login: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(at).await.unwrap();
    let (login, length) = (BASE64.encode(login), body.len());
    let request = format!(
        "POST /webhooks/theirs HTTP/1.1\r\nHost: hooks.example.com\r\nConnection: close\r\nAuthorization: Basic {login}\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer).lines().next().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn what_a_provider_posts_reaches_its_mail_once_and_a_hard_bounce_ends_all_mail() {
    let mut fleet = start().await;
    let file = fleet.file("postmark", "fleet:a-long-password-of-ours\n");
    let hook = serde_json::json!({"provider": "postmark", "credentials_file": file});
    fleet.settings.feedback.webhooks.insert("theirs".to_owned(), serde_json::from_value(hook).unwrap());
    let proxy = fleet.before_postgres().await;
    fleet.launch_through(Kind::Feedback, "feedback", &proxy).await;
    let web = fleet.settings.feedback.web.listen;
    let id = delivered(&fleet, "ann@receiver.test").await;
    let at = fleet.store.now().await.unwrap().to_rfc3339();
    let body = serde_json::json!({
        "RecordType": "Bounce", "ID": 42, "Type": "HardBounce", "TypeCode": 1, "MessageID": "00000000-0000-0000-0000-00000000002a",
        "Email": "ann@receiver.test", "BouncedAt": at, "Details": "smtp;550 5.1.1 no such user", "Metadata": {"mid": id.to_string()},
    })
    .to_string();
    let login = "fleet:a-long-password-of-ours";
    assert!(post(web, "fleet:another-long-password", &body).await.contains(" 401 "));
    assert!(post(web, login, "{").await.starts_with("HTTP/1.1 4"), "what cannot be read");
    proxy.set(Fault::Cut);
    assert!(post(web, login, &body).await.contains(" 503 "), "the provider is to come again");
    assert!(!has(&fleet, id, "returned").await);
    proxy.set(Fault::Nothing);
    until("it is taken", async || post(web, login, &body).await.contains(" 200 ")).await;
    assert!(post(web, login, &body).await.contains(" 200 "), "and once more");
    until("it is told", async || has(&fleet, id, "returned").await).await;
    let seen = fleet.get(id).await;
    assert_eq!(seen.state(), MessageState::Delivered);
    let told: Vec<_> = seen.timeline.iter().filter(|one| one.event == "returned").collect();
    assert_eq!((told.len(), told[0].enhanced_status.as_str()), (1, "5.1.1"), "{told:?}");
    let urgent = fleet.submit(mail().lane(Lane::Transactional).to("ann@receiver.test")).await;
    assert_eq!(fleet.ended(urgent).await.state(), MessageState::Suppressed);
    fleet.assert_sound().await;
}

#[tokio::test]
async fn whatever_comes_twice_and_in_whatever_order_is_counted_once() {
    let fleet = start().await;
    let mut ids = Vec::new();
    for to in ["a@receiver.test", "b@receiver.test", "c@receiver.test"] {
        ids.push(delivered(&fleet, to).await);
    }
    let at = fleet.store.now().await.unwrap();
    let kinds = [
        (FactKind::Opened, Effect::Nothing),
        (FactKind::OpenedByMachine, Effect::Nothing),
        (FactKind::Clicked, Effect::Nothing),
        (FactKind::Confirmed, Effect::Nothing),
        (FactKind::ReturnedSoft, Effect::Nothing),
        (FactKind::Complained, Effect::Complaint),
        (FactKind::Returned, Effect::Gone),
    ];
    let mut all = Vec::new();
    for id in &ids {
        for (kind, effect) in kinds {
            for source in ["one", "two"] {
                let detail = FactDetail { source: Some("http".to_owned()), ..FactDetail::default() };
                all.push(Feedback { message: *id, kind, source: source.to_owned(), at, detail, effect });
            }
        }
    }
    // Three rounds, each turned round another way and cut up otherwise, at the same time.
    let mut rounds = tokio::task::JoinSet::new();
    for round in 0..3_usize {
        let (store, mut items) = (fleet.store.clone(), all.clone());
        let turn = round * 11 % items.len();
        items.rotate_left(turn);
        if round % 2 == 1 {
            items.reverse();
        }
        rounds.spawn(async move {
            for chunk in items.chunks(3 + round * 4) {
                // A deadlock with another round is no loss: it is tried again.
                while store.record_feedback(chunk).await.is_err() {}
            }
        });
    }
    while let Some(done) = rounds.join_next().await {
        done.unwrap();
    }
    let unknown = Feedback { message: MessageId::new(at), ..all[0].clone() };
    assert_eq!(fleet.store.record_feedback(&[unknown]).await.unwrap().unknown, 1);
    until("all is counted", async || figures(&fleet).await.get("returned") == Some(&6)).await;
    let counts = figures(&fleet).await;
    for event in ["opened", "opened_machine", "clicked", "confirmed", "returned_soft", "complained"] {
        assert_eq!(counts.get(event), Some(&6), "{event}: {counts:?}");
    }
    let again = fleet.store.record_feedback(&all).await.unwrap();
    assert_eq!((again.written, again.repeated), (0, all.len()));
    for to in ["a@receiver.test", "b@receiver.test"] {
        let id = fleet.submit(mail().lane(Lane::Transactional).to(to)).await;
        assert_eq!(fleet.ended(id).await.state(), MessageState::Suppressed, "there is nobody");
    }
    fleet.assert_sound().await;
}
