//! Routes through providers' HTTP APIs.

use bytes::Bytes;
use domain::MessageId;
use mail_auth::DkimResult;
use mail_parser::{MessageParser, MimeHeaders};
use mailfleet_tests::{Fleet, Kind, mail};
use proto::v1::{self, MessageState};
use sender::SenderConfig;
use serde_json::{Value, json};
use testkit::{
    provider::{Account, FakeProvider, Mood},
    until,
};

async fn mailgun() -> FakeProvider {
    FakeProvider::start(Account::Mailgun { domain: "mg.example.com".to_owned(), key: "key-1".to_owned() })
        .await
        .unwrap()
}

async fn sparkpost() -> FakeProvider {
    FakeProvider::start(Account::Sparkpost { key: "key-1".to_owned() }).await.unwrap()
}

/// A fleet whose only pool has these in this order.
async fn fleet(routes: impl FnOnce(&Fleet) -> Vec<Value>) -> Fleet {
    let mut fleet = Fleet::builder()
        .without(Kind::Sender)
        .settings(|settings| {
            settings.dispatcher.resend_transactional = false;
            settings.sender.deadlines.dot = std::time::Duration::from_secs(2);
        })
        .start()
        .await;
    let all = routes(&fleet);
    let pool: Vec<Value> =
        (0..all.len()).map(|index| json!({"route": format!("r{index}"), "order": index + 1})).collect();
    let routes: Value = all.into_iter().enumerate().map(|(index, route)| (format!("r{index}"), route)).collect();
    let config = json!({ "routes": routes, "pools": { "all": { "routes": pool } } });
    let config: SenderConfig = serde_json::from_value(config).unwrap();
    let sender = &mut fleet.settings.sender;
    (sender.route, sender.routes, sender.pools) = (None, config.routes, config.pools);
    fleet.launch(Kind::Sender, "sender").await;
    fleet.ready().await;
    fleet
}

fn by_mailgun(fleet: &Fleet, at: &FakeProvider, key: &str) -> Value {
    let file = fleet.file("mailgun-key", &format!("{key}\n"));
    json!({
        "kind": "mailgun", "transport": "http", "domain": "mg.example.com", "base_url": at.url(), "password_file": file,
    })
}

fn by_sparkpost(fleet: &Fleet, at: &FakeProvider) -> Value {
    let file = fleet.file("sparkpost-key", "key-1\n");
    json!({"kind": "sparkpost", "transport": "http", "base_url": at.url(), "password_file": file})
}

async fn ended(fleet: &Fleet, id: MessageId) -> (MessageState, Vec<String>) {
    let seen = fleet.ended(id).await;
    let routes = seen.timeline.iter().map(|event| event.route.clone()).filter(|route| !route.is_empty()).collect();
    (seen.state(), routes)
}

async fn a_file_arrives_by(fleet: &Fleet, provider: &FakeProvider) {
    let data: Bytes = (0..50_000_usize).map(|index| (index.wrapping_mul(2_654_435_761) >> 11) as u8).collect();
    let post = mail().to("ann@receiver.test").with(|mail| {
        mail.attachments = vec![v1::Attachment {
            file_name: "a.pdf".to_owned(),
            content_type: "application/pdf".to_owned(),
            content_id: String::new(),
            data: data.clone(),
        }];
    });
    let id = fleet.submit(post).await;
    assert_eq!(ended(fleet, id).await, (MessageState::Delivered, vec!["r0".to_owned()]));
    let taken = provider.taken();
    assert_eq!(taken.len(), 1);
    assert_eq!((taken[0].recipient.as_str(), taken[0].mid.clone()), ("ann@receiver.test", id.to_string()));
    assert_eq!(fleet.zone.verify(&taken[0].mime).await, [DkimResult::Pass, DkimResult::Pass]);
    let message = MessageParser::new().parse(&taken[0].mime[..]).unwrap();
    let file = message.attachment(0).unwrap();
    assert_eq!((file.attachment_name(), file.contents()), (Some("a.pdf"), &data[..]));
}

async fn stand_in(account: Account) -> FakeProvider {
    FakeProvider::start(account).await.unwrap()
}

fn route(fleet: &Fleet, kind: &str, at: &FakeProvider) -> Value {
    let file = fleet.file(&format!("{kind}-key"), "key-1\n");
    let mut route = json!({"kind": kind, "transport": "http", "base_url": at.url(), "password_file": file});
    if kind == "ses" {
        route["region"] = json!("eu-central-1");
        route["username"] = json!("AKIAEXAMPLE");
        route["stream"] = json!("events");
    }
    route
}

/// Sends a mail with a text, an image within it and a file; returns the JSON that the provider took.
async fn parts_arrive_by(kind: &str, account: Account) -> Value {
    let provider = stand_in(account).await;
    let fleet = fleet(|fleet| vec![route(fleet, kind, &provider)]).await;
    let attachment = |name: &str, kind: &str, id: &str, data: &'static [u8]| v1::Attachment {
        file_name: name.to_owned(),
        content_type: kind.to_owned(),
        content_id: id.to_owned(),
        data: Bytes::from_static(data),
    };
    let post = mail().to("ann@receiver.test").with(|mail| {
        mail.attachments = vec![
            attachment("logo.png", "image/png", "logo", b"\x89PNG"),
            attachment("preis\u{fc}bersicht.pdf", "application/pdf", "", b"%PDF-\xff"),
        ];
        mail.reply_to = Some(v1::Address { email: "help@example.com".to_owned(), name: "Help".to_owned() });
    });
    let id = fleet.submit(post).await;
    assert_eq!(ended(&fleet, id).await, (MessageState::Delivered, vec!["r0".to_owned()]));
    let taken = provider.taken();
    assert_eq!(taken.len(), 1);
    assert_eq!((taken[0].recipient.as_str(), taken[0].mid.clone()), ("ann@receiver.test", id.to_string()));
    serde_json::from_slice(&taken[0].mime).unwrap()
}

#[tokio::test]
async fn a_mail_goes_through_sendgrid_in_its_parts() {
    let json = parts_arrive_by("sendgrid", Account::Sendgrid { key: "key-1".to_owned() }).await;
    assert_eq!(json["from"], json!({"email": "news@example.com", "name": "News"}));
    assert_eq!(json["reply_to_list"], json!([{"email": "help@example.com", "name": "Help"}]));
    assert_eq!((&json["subject"], &json["content"][0]["type"]), (&json!("Hello you"), &json!("text/plain")));
    assert_eq!(json["content"][1]["value"], "<p>Hello <b>you</b>, this is for you.</p>");
    let (logo, file) = (&json["attachments"][0], &json["attachments"][1]);
    assert_eq!((&logo["content_id"], &logo["content"]), (&json!("logo"), &json!("iVBORw==")));
    assert_eq!((&file["filename"], &file["content"]), (&json!("preis\u{fc}bersicht.pdf"), &json!("JVBERi3/")));
}

#[tokio::test]
async fn a_mail_goes_through_postmark_in_its_parts() {
    let json = parts_arrive_by("postmark", Account::Postmark { token: "key-1".to_owned() }).await;
    assert_eq!((&json["From"], &json["To"]), (&json!("\"News\" <news@example.com>"), &json!("ann@receiver.test")));
    assert_eq!((&json["Subject"], &json["ReplyTo"]), (&json!("Hello you"), &json!("\"Help\" <help@example.com>")));
    assert_eq!(json["HtmlBody"], "<p>Hello <b>you</b>, this is for you.</p>");
    assert_eq!(
        (&json["Attachments"][0]["ContentID"], &json["Attachments"][1]["Content"]),
        (&json!("cid:logo"), &json!("JVBERi3/"))
    );
    let names: Vec<_> = json["Headers"].as_array().unwrap().iter().map(|header| &header["Name"]).collect();
    assert!(names.contains(&&json!("Message-ID")) && names.contains(&&json!("X-PM-KeepID")), "{names:?}");
}

#[tokio::test]
async fn a_mail_goes_through_resend_in_its_parts() {
    let json = parts_arrive_by("resend", Account::Resend { key: "key-1".to_owned() }).await;
    assert_eq!((&json["from"], &json["to"]), (&json!("\"News\" <news@example.com>"), &json!(["ann@receiver.test"])));
    assert_eq!(json["reply_to"], json!(["\"Help\" <help@example.com>"]));
    assert_eq!(json["html"], "<p>Hello <b>you</b>, this is for you.</p>");
    assert_eq!(
        (&json["attachments"][0]["content_id"], &json["attachments"][1]["content"]),
        (&json!("logo"), &json!("JVBERi3/"))
    );
}

#[tokio::test]
async fn a_mail_with_a_file_goes_through_amazon_ses_as_it_was_signed() {
    let (region, key_id, secret) = ("eu-central-1".to_owned(), "AKIAEXAMPLE".to_owned(), "key-1".to_owned());
    let provider = stand_in(Account::Ses { region, key_id, secret }).await;
    let fleet = fleet(|fleet| vec![route(fleet, "ses", &provider)]).await;
    a_file_arrives_by(&fleet, &provider).await;
}

#[tokio::test]
async fn a_provider_that_does_not_know_the_sender_yet_is_asked_again_and_keeps_its_other_senders() {
    let provider = stand_in(Account::Postmark { token: "key-1".to_owned() }).await;
    let fleet = fleet(|fleet| vec![route(fleet, "postmark", &provider)]).await;
    let stranger = mail().to("ann@receiver.test").with(|mail| {
        mail.from = Some(v1::Address { email: "stranger@example.com".to_owned(), name: String::new() });
    });
    fleet.submit(stranger).await;
    until("it was refused for now", async || provider.requests() == 1).await;
    let known = fleet.submit(mail().to("bob@receiver.test")).await;
    assert_eq!(ended(&fleet, known).await.0, MessageState::Delivered);
    fleet.at_rest().await;
    fleet.clock.advance(std::time::Duration::from_secs(3600)).await;
    until("the first was asked for again", async || provider.requests() == 3).await;
    assert_eq!(provider.taken().len(), 1);
}

#[tokio::test]
async fn a_mail_with_a_file_goes_through_mailgun_as_it_was_signed() {
    let provider = mailgun().await;
    let fleet = fleet(|fleet| vec![by_mailgun(fleet, &provider, "key-1")]).await;
    a_file_arrives_by(&fleet, &provider).await;
}

#[tokio::test]
async fn a_mail_with_a_file_goes_through_sparkpost_as_it_was_signed() {
    let provider = sparkpost().await;
    let fleet = fleet(|fleet| vec![by_sparkpost(fleet, &provider)]).await;
    a_file_arrives_by(&fleet, &provider).await;
}

#[tokio::test]
async fn a_key_that_is_refused_leaves_the_mail_to_the_next_route() {
    let (closed, open) = (mailgun().await, sparkpost().await);
    let fleet = fleet(|fleet| vec![by_mailgun(fleet, &closed, "wrong"), by_sparkpost(fleet, &open)]).await;
    for _ in 0..3 {
        let id = fleet.submit(mail().to("ann@receiver.test")).await;
        assert_eq!(ended(&fleet, id).await, (MessageState::Delivered, vec!["r1".to_owned()]));
    }
    assert_eq!((closed.requests(), closed.taken().len(), open.taken().len()), (1, 0, 3));
}

#[tokio::test]
async fn a_request_that_was_written_and_not_answered_is_in_doubt_and_goes_nowhere_else() {
    let (first, second) = (mailgun().await, sparkpost().await);
    let fleet = fleet(|fleet| vec![by_mailgun(fleet, &first, "key-1"), by_sparkpost(fleet, &second)]).await;
    for (mood, to) in [(Mood::Cuts, "ann@one.test"), (Mood::Stalls, "ann@two.test")] {
        first.set(mood);
        let id = fleet.submit(mail().to(to)).await;
        assert_eq!(fleet.ended(id).await.state(), MessageState::Unknown);
    }
    assert_eq!((first.taken().len(), second.taken().len()), (2, 0));
}

#[tokio::test]
async fn an_account_that_has_had_its_share_is_asked_again_when_it_said() {
    let provider = mailgun().await;
    let fleet = fleet(|fleet| vec![by_mailgun(fleet, &provider, "key-1")]).await;
    provider.set(Mood::Answers(429, "retry-after: 3\r\n".to_owned()));
    let id = fleet.submit(mail().to("ann@receiver.test")).await;
    until("it was asked", async || provider.requests() == 1).await;
    let asked = std::time::Instant::now();
    provider.set(Mood::Takes);
    fleet.at_rest().await;
    fleet.clock.advance(std::time::Duration::from_secs(3600)).await;
    assert_eq!(fleet.ended(id).await.state(), MessageState::Delivered);
    assert!(asked.elapsed() >= std::time::Duration::from_millis(2_900), "{:?}", asked.elapsed());
    assert_eq!(provider.requests(), 2);
}
