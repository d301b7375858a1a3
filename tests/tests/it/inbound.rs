//! Mail that comes in: who may bring it, what is made of it, and that nothing of it is lost.

use domain::{Lane, MessageId, Token, TrackingSite, verp};
use mailfleet_tests::{Fleet, Kind, mail, token_keys};
use proto::v1::{self, MessageState};
use std::{net::SocketAddr, time::Duration};
use testkit::{Fault, until};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
};

/// The mailbox of reports.
const REPORTS: &str = "fbl@reports.example.com";

/// A fleet that takes mail in, and where it does.
pub(crate) async fn start() -> (Fleet, SocketAddr) {
    let mut fleet = prepared().await;
    fleet.launch_feedback().await;
    let at = fleet.settings.feedback.inbound.as_ref().unwrap().listen;
    (fleet, at)
}

async fn prepared() -> Fleet {
    let inbound = feedback::InboundConfig {
        listen: "127.0.0.1:0".parse().unwrap(),
        report_mailboxes: vec![REPORTS.parse().unwrap()],
        max_strangers: 2.try_into().unwrap(),
        poll: Duration::from_millis(100),
        spool: feedback::InboundSpoolConfig { replay_every: Duration::from_millis(100), ..Default::default() },
        ..feedback::InboundConfig::default()
    };
    let mut site = TrackingSite::new("https://click.example.com".parse().unwrap());
    site.mailto = true;
    let builder = Fleet::builder().settings(|settings| {
        settings.tracking = Some(site);
        settings.feedback.inbound = Some(inbound);
    });
    let fleet = builder.start().await;
    fleet.ready().await;
    fleet
}

/// A client that says what it is told to, and hears the answers.
pub(crate) struct Client(BufReader<TcpStream>);

impl Client {
    pub(crate) async fn connect(at: SocketAddr) -> Self {
        let mut client = Self(BufReader::new(TcpStream::connect(at).await.unwrap()));
        assert!(client.answer().await.starts_with("220 "));
        assert!(client.say("EHLO mx.receiver.test").await.starts_with("250"));
        client
    }

    async fn say(&mut self, line: &str) -> String {
        self.0.get_mut().write_all(format!("{line}\r\n").as_bytes()).await.unwrap();
        self.answer().await
    }

    /// The last line of an answer; empty when the connection was closed.
    async fn answer(&mut self) -> String {
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line).await.unwrap();
            if line.as_bytes().get(3) != Some(&b'-') {
                return line.trim_end().to_owned();
            }
        }
    }

    /// Brings a mail; the answer to the dot, or to whatever was refused before.
    pub(crate) async fn bring(&mut self, from: &str, to: &str, body: &str) -> String {
        for line in [format!("MAIL FROM:<{from}>"), format!("RCPT TO:<{to}>"), "DATA".to_owned()] {
            let answer = self.say(&line).await;
            if !answer.starts_with(['2', '3']) {
                return answer;
            }
        }
        self.say(&format!("{}\r\n.", body.replace('\n', "\r\n"))).await
    }
}

async fn bring(at: SocketAddr, to: &str, body: &str) -> String {
    Client::connect(at).await.bring("", to, body).await
}

/// Sends a bulk mail; its id and its return path.
pub(crate) async fn delivered(fleet: &Fleet, to: &str) -> (MessageId, String) {
    let id = fleet.submit(mail().lane(Lane::Bulk).to(to)).await;
    assert_eq!(fleet.ended(id).await.state(), MessageState::Delivered);
    let seen = fleet.sink.mails_to(to).pop().unwrap();
    let sender = seen.sender.to_string();
    assert_eq!(verp::message_of_return_path(&sender.parse().unwrap(), Some(&token_keys())), Some(id));
    (id, sender)
}

/// A delivery report.
fn bounce(recipient: &str, status: &str, diagnostic: &str) -> String {
    format!(
        "From: MAILER-DAEMON@mx.receiver.test\nSubject: Undelivered Mail Returned to Sender\nMIME-Version: 1.0\n\
         Content-Type: multipart/report; report-type=delivery-status; boundary=b\n\n--b\nContent-Type: text/plain\n\n\
         Your mail could not be delivered.\n\n--b\nContent-Type: message/delivery-status\n\n\
         Reporting-MTA: dns; mx.receiver.test\n\nFinal-Recipient: rfc822; {recipient}\nAction: failed\n\
         Status: {status}\nRemote-MTA: dns; in.receiver.test\nDiagnostic-Code: smtp; {diagnostic}\n\n--b--\n"
    )
}

/// A complaint about a mail with this token.
fn complaint(token: &str) -> String {
    format!(
        "From: abuse@receiver.test\nSubject: complaint\nMIME-Version: 1.0\n\
         Content-Type: multipart/report; report-type=feedback-report; boundary=b\n\n--b\nContent-Type: text/plain\n\n\
         A complaint.\n\n--b\nContent-Type: message/feedback-report\n\nFeedback-Type: abuse\nUser-Agent: x/1\nVersion: 1\n\n\
         --b\nContent-Type: message/rfc822\n\nFrom: news@example.com\nTo: ann@receiver.test\n\
         X-Mailfleet-Token: {token}\nSubject: News\n\nNews\n\n--b--\n"
    )
}

pub(crate) async fn events(fleet: &Fleet, id: MessageId, event: &str) -> Vec<v1::MessageEvent> {
    fleet.get(id).await.timeline.into_iter().filter(|one| one.event == event).collect()
}

async fn list(fleet: &Fleet, filter: v1::InboundFilter) -> Vec<v1::InboundMail> {
    let request = v1::ListInboundRequest { filter: Some(filter), ..Default::default() };
    fleet.inbound().list_inbound(request).await.unwrap().into_inner().mails
}

async fn texts(fleet: &Fleet, sql: &'static str) -> Vec<String> {
    sqlx::query_scalar(sql).fetch_all(&mut fleet.connection().await).await.unwrap()
}

#[tokio::test]
async fn a_hard_bounce_to_the_return_path_is_told_once_and_ends_all_mail_to_its_recipient() {
    let (fleet, at) = start().await;
    let (id, sender) = delivered(&fleet, "ann@receiver.test").await;
    let report = bounce("ann@receiver.test", "5.1.1", "550 5.1.1 no such user");
    for _ in 0..2 {
        assert_eq!(bring(at, &sender.to_uppercase(), &report).await, "250 2.0.0 kept");
    }
    until("it is told", async || !events(&fleet, id, "returned").await.is_empty()).await;
    until("both are read", async || list(&fleet, Default::default()).await.iter().all(|one| one.kind == "bounce"))
        .await;
    let told = events(&fleet, id, "returned").await;
    let [told] = told.as_slice() else { panic!("{told:?}") };
    assert_eq!((told.enhanced_status.as_str(), told.bounce_class.as_str()), ("5.1.1", "invalid_recipient"));
    assert_eq!((told.source.as_str(), told.host.as_str()), ("mail", "in.receiver.test"));
    let urgent = fleet.submit(mail().lane(Lane::Transactional).to("ann@receiver.test")).await;
    assert_eq!(fleet.ended(urgent).await.state(), MessageState::Suppressed);

    // Read anew, it is told no second time.
    let request = v1::ReplayInboundRequest { filter: Some(Default::default()), ..Default::default() };
    assert_eq!(fleet.inbound().replay_inbound(request).await.unwrap().into_inner().replayed, 2);
    until("they are read anew", async || list(&fleet, Default::default()).await.iter().all(|one| one.kind == "bounce"))
        .await;
    assert_eq!(events(&fleet, id, "returned").await.len(), 1);
    fleet.assert_sound().await;
}

#[tokio::test]
async fn what_says_nothing_against_the_recipient_suppresses_nobody() {
    let (fleet, at) = start().await;
    let cases = [
        ("returned_soft", bounce("ann@receiver.test", "4.2.2", "452 4.2.2 over quota")),
        ("returned_block", bounce("ann@receiver.test", "5.7.1", "554 5.7.1 blocked using zen.spamhaus.org")),
    ];
    for (event, report) in cases {
        let (id, sender) = delivered(&fleet, "ann@receiver.test").await;
        assert_eq!(bring(at, &sender, &report).await, "250 2.0.0 kept");
        until(event, async || events(&fleet, id, event).await.len() == 1).await;
    }
    let (id, sender) = delivered(&fleet, "ann@receiver.test").await;
    let answer =
        "From: ann@receiver.test\nSubject: Automatic reply: News\nAuto-Submitted: auto-replied\n\nI am away.\n";
    // A list that he forwards to lost a member.
    let others = bounce("ann@receiver.test", "4.2.2", "452 4.2.2 full").replace(
        "\n--b--\n",
        "Final-Recipient: rfc822; member@elsewhere.test\nAction: failed\nStatus: 5.1.1\n\n--b--\n",
    );
    assert_eq!(bring(at, &sender, answer).await, "250 2.0.0 kept");
    assert_eq!(bring(at, &sender, &others).await, "250 2.0.0 kept");
    until("both are read", async || {
        let about = v1::InboundFilter { message_id: id.to_string(), ..Default::default() };
        let kinds: Vec<_> = list(&fleet, about).await.into_iter().map(|one| one.kind).collect();
        kinds.len() == 2 && kinds.contains(&"auto_reply".to_owned()) && kinds.contains(&"bounce".to_owned())
    })
    .await;
    delivered(&fleet, "ann@receiver.test").await;
    fleet.assert_sound().await;
}

#[tokio::test]
async fn whoever_writes_to_no_address_of_ours_is_refused_and_then_sent_away() {
    let (fleet, at) = start().await;
    let (id, sender) = delivered(&fleet, "ann@receiver.test").await;
    let mut client = Client::connect(at).await;
    assert_eq!(client.say("MAIL FROM:<>").await, "250 2.1.0 sender ok");
    let forged = sender.replace("bounce+", "unsubscribe+");
    let changed = format!("{}0{}", &sender[..20], &sender[21..]);
    for stranger in [&forged, if changed == sender { &forged } else { &changed }] {
        assert!(client.say(&format!("RCPT TO:<{stranger}>")).await.starts_with("550 5.1.1"), "{stranger}");
    }
    assert!(client.say(&format!("RCPT TO:<{sender}>")).await.starts_with("250 "), "it may still name one of ours");
    assert!(client.say("RCPT TO:<postmaster@example.com>").await.starts_with("421 4.7.0"));
    assert_eq!(client.answer().await, "", "it is sent away");
    assert!(list(&fleet, Default::default()).await.is_empty(), "{id}");
    fleet.assert_sound().await;
}

#[tokio::test]
async fn a_complaint_counts_where_it_bears_the_token_of_its_mail() {
    let (fleet, at) = start().await;
    let (id, _) = delivered(&fleet, "ann@receiver.test").await;
    assert_eq!(bring(at, REPORTS, &complaint("AQQAnothing")).await, "250 2.0.0 kept");
    assert_eq!(bring(at, REPORTS, &complaint(&token_keys().seal(&Token::Open(id)))).await, "250 2.0.0 kept");
    until("they are read", async || list(&fleet, Default::default()).await.iter().all(|one| one.kind == "complaint"))
        .await;
    assert!(events(&fleet, id, "complained").await.is_empty(), "neither token is one of reports");
    assert_eq!(bring(at, REPORTS, &complaint(&token_keys().seal(&Token::Report(id)))).await, "250 2.0.0 kept");
    until("it is told", async || events(&fleet, id, "complained").await.len() == 1).await;
    let next = fleet.submit(mail().lane(Lane::Bulk).to("ann@receiver.test")).await;
    assert_eq!(fleet.ended(next).await.state(), MessageState::Suppressed);
    fleet.assert_sound().await;
}

#[tokio::test]
async fn a_mail_to_the_address_in_the_header_unsubscribes_and_a_programs_answer_does_not() {
    let (fleet, at) = start().await;
    let (id, _) = delivered(&fleet, "ann@receiver.test").await;
    let seen = fleet.sink.mails_to("ann@receiver.test").pop().unwrap();
    let body = String::from_utf8_lossy(&seen.body).replace("\r\n ", " ");
    let header = body.lines().find(|line| line.starts_with("List-Unsubscribe: ")).unwrap();
    let address = header.split("<mailto:").nth(1).and_then(|rest| rest.split('?').next()).unwrap();
    let away = "From: ann@receiver.test\nSubject: Out of office\nAuto-Submitted: auto-replied\n\nAway.\n";
    assert_eq!(bring(at, address, away).await, "250 2.0.0 kept");
    until("it is read", async || list(&fleet, Default::default()).await.iter().all(|one| one.kind == "auto_reply"))
        .await;
    assert!(events(&fleet, id, "unsubscribed").await.is_empty());
    let wish = "From: ann@receiver.test\nSubject: unsubscribe\n\n";
    assert_eq!(Client::connect(at).await.bring("ann@receiver.test", address, wish).await, "250 2.0.0 kept");
    until("it is told", async || events(&fleet, id, "unsubscribed").await.len() == 1).await;
    let next = fleet.submit(mail().lane(Lane::Bulk).to("ann@receiver.test")).await;
    assert_eq!(fleet.ended(next).await.state(), MessageState::Suppressed);
    fleet.assert_sound().await;
}

#[tokio::test]
async fn while_postgres_is_away_mail_is_kept_on_disk_through_a_crash() {
    let mut fleet = prepared().await;
    let (id, sender) = delivered(&fleet, "ann@receiver.test").await;
    let proxy = fleet.before_postgres().await;
    fleet.launch_through(Kind::Feedback, "feedback", &proxy).await;
    let at = fleet.settings.feedback.inbound.as_ref().unwrap().listen;
    proxy.set(Fault::Cut);
    let report = bounce("ann@receiver.test", "5.1.1", "550 5.1.1 no such user");
    assert_eq!(bring(at, &sender, &report).await, "250 2.0.0 kept");
    fleet.crash("feedback").await;
    assert!(list(&fleet, Default::default()).await.is_empty(), "it never reached Postgres");
    fleet.launch(Kind::Feedback, "feedback").await;
    until("it is told", async || events(&fleet, id, "returned").await.len() == 1).await;
    fleet.assert_sound().await;
}

#[tokio::test]
async fn what_nothing_can_be_made_of_is_kept_for_a_person_with_its_octets() {
    let (fleet, at) = start().await;
    let report = "From: d@receiver.test\nSubject: Report Domain: example.com Submitter: receiver.test Report-ID: 1\n\
                  MIME-Version: 1.0\nContent-Type: application/gzip; name=\"a!b!1!2.xml.gz\"\n\
                  Content-Transfer-Encoding: base64\n\nbm90IGd6aXA=\n";
    assert_eq!(bring(at, REPORTS, report).await, "250 2.0.0 kept");
    let dead = || v1::InboundFilter { state: v1::InboundState::Dead.into(), ..Default::default() };
    until("it is dead", async || list(&fleet, dead()).await.len() == 1).await;
    let mail = list(&fleet, dead()).await.remove(0);
    assert!(mail.outcome.contains("cannot be read"), "{mail:?}");
    let request = v1::GetInboundRequest { inbound_id: mail.inbound_id.clone() };
    let whole = fleet.inbound().get_inbound(request).await.unwrap().into_inner();
    assert!(whole.raw.starts_with(b"From: d@receiver.test\r\n"));
    assert_eq!(
        (mail.helo.as_str(), mail.remote.as_str(), mail.door.as_str()),
        ("mx.receiver.test", "127.0.0.1", "reports")
    );
    fleet.assert_sound().await;
}

#[tokio::test]
async fn reports_about_a_domain_become_rows_once() {
    let (fleet, at) = start().await;
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/../crates/feedback/tests/corpus");
    for name in ["dmarc-gzip", "dmarc-zip", "tls-gzip"] {
        let mail = std::fs::read_to_string(format!("{corpus}/{name}.eml")).unwrap();
        assert_eq!(bring(at, REPORTS, &mail).await, "250 2.0.0 kept", "{name}");
    }
    until("they are read", async || {
        list(&fleet, Default::default()).await.iter().filter(|one| one.kind.ends_with("_report")).count() == 3
    })
    .await;
    let sources =
        texts(&fleet, "select mails || ' ' || aligned || ' ' || host(source) from mailfleet.dmarc_sources").await;
    assert_eq!(sources, ["12 12 192.0.2.10"]);
    let sessions =
        texts(&fleet, "select domain || ' ' || successes || ' ' || failures from mailfleet.tls_sessions").await;
    assert_eq!(sessions, ["shop.example 5326 3"]);
    fleet.assert_sound().await;
}
