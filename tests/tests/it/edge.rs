//! Hostile input: refused at the edge, by name, with nothing stored.

use mailfleet_tests::{Fleet, Kind, Post, fields, mail};
use proto::v1::{self, mail::Content};
use tonic::Code;

/// What must not stand in any line of text.
const HOSTILE_TEXTS: [&str; 6] =
    ["a\r\nBcc: eve@evil.test", "a\nb", "a\rb", "a\0b", "a\u{202e}b", "a\r\n.\r\nMAIL FROM:<x@evil.test>"];

/// What is no address that mail is sent to.
const HOSTILE_ADDRESSES: [&str; 25] = [
    "",
    "@receiver.test",
    "ann@",
    "ann",
    "ann@receiver.test\r\nRCPT TO:<eve@evil.test>",
    "ann@receiver.test\n",
    "ann @receiver.test",
    "ann@receiver.test,eve@evil.test",
    "ann@receiver.test;eve@evil.test",
    "Ann <ann@receiver.test>",
    "<ann@receiver.test>",
    "ann(comment)@receiver.test",
    "ann@receiver.test (comment)",
    "@relay.test:ann@receiver.test",
    "eve%evil.test@receiver.test\0",
    "\"ann\"@receiver.test",
    "\"a\\\"@evil.test\"@receiver.test",
    "friends: ann@receiver.test;",
    "ann@receiver..test",
    "ann@-receiver.test",
    "ann@[127.0.0.1]",
    "ann@receiver.test@evil.test",
    "ann@receiver\u{202e}tset.",
    "ann@rec\u{200b}eiver.test",
    "ann@xn--\u{fffd}.test",
];

fn header(name: &str, value: &str) -> v1::Header {
    v1::Header { name: name.to_owned(), value: value.to_owned() }
}

fn address(email: &str, name: &str) -> v1::Address {
    v1::Address { email: email.to_owned(), name: name.to_owned() }
}

/// Each field of a call that holds a line of text, with this text in it.
fn with_text(text: &str) -> Vec<(Post, String)> {
    let good = || mail().to("ann@receiver.test");
    let at = |field: &str, change: &dyn Fn(&mut v1::Mail)| (good().with(change), field.to_owned());
    let list = |url: &str, mailto: &str| {
        Some(v1::ListUnsubscribe { url: url.to_owned(), mailto: mailto.to_owned(), one_click: false, hosted: false })
    };
    vec![
        at("mail.from.name", &|mail| mail.from.as_mut().unwrap().name = text.to_owned()),
        at("mail.from.email", &|mail| mail.from.as_mut().unwrap().email = format!("{text}@example.com")),
        at("mail.reply_to.email", &|mail| mail.reply_to = Some(address(&format!("{text}@example.com"), ""))),
        at("mail.reply_to.name", &|mail| mail.reply_to = Some(address("a@example.com", text))),
        at("mail.header_to[0].name", &|mail| mail.header_to = vec![address("a@example.com", text)]),
        at("mail.header_cc[0].email", &|mail| mail.header_cc = vec![address(text, "")]),
        at("mail.headers[0].name", &|mail| mail.headers = vec![header(text, "x")]),
        at("mail.headers[0].value", &|mail| mail.headers = vec![header("X-A", text)]),
        at("mail.inline.subject", &|mail| {
            if let Some(Content::Inline(inline)) = &mut mail.content {
                inline.subject = text.to_owned();
            }
        }),
        at("mail.list_id", &|mail| mail.list_id = text.to_owned()),
        at("mail.campaign_id", &|mail| mail.campaign_id = text.to_owned()),
        at("mail.list_unsubscribe.url", &|mail| {
            mail.list_unsubscribe = list(&format!("https://example.com/{text}"), "");
        }),
        at("mail.list_unsubscribe.mailto", &|mail| {
            mail.list_unsubscribe = list("", &format!("{text}@example.com"));
        }),
        (good().key(text), "idempotency_key".to_owned()),
        (mail().to(&format!("{text}@receiver.test")), "recipients[0].email".to_owned()),
        (mail().to(&format!("ann@{text}.test")), "recipients[0].email".to_owned()),
    ]
}

#[tokio::test]
async fn hostile_text_is_refused_in_every_field_by_name_and_nothing_is_stored() {
    let fleet = Fleet::builder().without(Kind::Renderer).without(Kind::Sender).start().await;
    let mut taken = Vec::new();
    for text in HOSTILE_TEXTS {
        for (post, field) in with_text(text) {
            match fleet.mails().send_message(post.message()).await {
                Ok(_) => taken.push((field, text, vec!["accepted".to_owned()])),
                Err(refused) => {
                    let named = fields(&refused);
                    if refused.code() != Code::InvalidArgument || named != [field.as_str()] {
                        taken.push((field, text, named));
                    }
                }
            }
        }
    }
    assert!(taken.is_empty(), "{taken:#?}");
    for email in HOSTILE_ADDRESSES {
        let refused = fleet.mails().send_message(mail().to(email).message()).await;
        let refused = refused.err().unwrap_or_else(|| panic!("{email:?} was accepted"));
        assert_eq!((refused.code(), fields(&refused)), (Code::InvalidArgument, vec!["recipients[0].email".to_owned()]));
    }
    let audit = fleet.store.audit().await.unwrap();
    assert_eq!((audit.messages, audit.open), (0, 0));
}

#[tokio::test]
async fn bombs_and_oversized_mail_are_refused_or_fail_their_own_message_alone() {
    let fleet = Fleet::start().await;
    let inline = |html: &str| {
        let html = html.to_owned();
        mail().to("ann@receiver.test").with(move |mail| {
            if let Some(Content::Inline(inline)) = &mut mail.content {
                inline.html = html;
            }
        })
    };
    for refused in [
        inline(&"x".repeat(600 * 1024)),
        inline("{% for a in b"),
        inline("{{ name | no_such_filter }}"),
        inline("{% include '/etc/passwd' %}"),
        mail().to("ann@receiver.test").with(|mail| mail.headers = vec![header("X-A", "a"); 51]),
        mail().to("ann@receiver.test").with(|mail| mail.headers = vec![header("X-A", &"a".repeat(5_000))]),
        mail().to("ann@receiver.test").with(|mail| mail.headers = vec![header("DKIM-Signature", "v=1")]),
        mail().to_all(crate::addresses(51, "r", "receiver.test")),
        mail().to_with("ann@receiver.test", serde_json::json!({"name": "x".repeat(70_000)})),
    ] {
        let status = fleet.mails().send_message(refused.message()).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
        assert!(!fields(&status).is_empty(), "{status:?}");
    }
    assert_eq!(fleet.store.audit().await.unwrap().messages, 0);
    let loops = "{% for a in range(90000) %}{% for b in range(90000) %}{{ name }}{% endfor %}{% endfor %}";
    let bomb = fleet.mails().send_message(inline(loops).message()).await;
    let good = fleet.submit(mail().to("bob@receiver.test")).await;
    assert_eq!(fleet.ended(good).await.state(), v1::MessageState::Delivered);
    if let Ok(bomb) = bomb {
        let id = fleet.know(&bomb.into_inner().message_ids)[0];
        assert_eq!(fleet.ended(id).await.state(), v1::MessageState::Failed);
    }
    fleet.assert_sound().await;
}

#[tokio::test]
async fn international_addresses_travel_as_what_they_are() {
    let fleet = Fleet::start().await;
    let idn = fleet.submit(mail().to("ann@b\u{fc}cher.test")).await;
    assert_eq!(fleet.ended(idn).await.state(), v1::MessageState::Delivered);
    // One domain only, the one that was checked: its A-label.
    assert_eq!(fleet.sink.mails_to("ann@xn--bcher-kva.test").len(), 1);
    let local = fleet.submit(mail().to("\u{fc}nal@receiver.test")).await;
    assert_eq!(fleet.ended(local).await.state(), v1::MessageState::Delivered);
    assert_eq!(fleet.sink.mails_to("\u{fc}nal@receiver.test").len(), 1);
    fleet.assert_sound().await;
}
