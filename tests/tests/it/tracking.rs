//! What a receiver finds in a mail that feedback can be told by.

use domain::verp::message_of_return_path;
use domain::{Lane, MessageId, Token, TrackingSite};
use mail_auth::DkimResult;
use mail_parser::MessageParser;
use mailfleet_tests::{Fleet, Post, fields, mail, recipient, token_keys};
use proto::v1::{self, mail::Content};

const BASE: &str = "https://click.example.com";
const CAMPAIGN: &str = "0190a0b0-0000-7000-8000-00000000c0de";
const LINK: &str = "https://shop.test/?a=1&b=2";

async fn fleet() -> Fleet {
    let site = TrackingSite::new(BASE.parse().unwrap());
    Fleet::builder().settings(|settings| settings.tracking = Some(site)).start().await
}

fn linked() -> Post {
    mail().with(|mail| {
        mail.content = Some(Content::Inline(v1::InlineContent {
            subject: "News".to_owned(),
            html: "<html><body><p>{{ name }}</p><a href=\"https://shop.test/?a=1&amp;b=2\">look</a>\
                   <a href=\"{{ unsubscribe_url }}\">leave</a></body></html>"
                .to_owned(),
            text: "Look at https://shop.test/?a=1&b=2 or leave at {{ unsubscribe_url }}".to_owned(),
        }));
    })
}

/// What one mail at the sink says.
struct Seen {
    html: String,
    text: String,
    sender: String,
    body: Vec<u8>,
}

impl Seen {
    fn of(fleet: &Fleet, recipient: &str) -> Self {
        let copies = fleet.sink.mails_to(recipient);
        assert_eq!(copies.len(), 1, "{recipient}");
        let body = copies[0].body.to_vec();
        let parsed = MessageParser::new().parse(&body).unwrap();
        let (html, text) = (parsed.body_html(0).unwrap().into_owned(), parsed.body_text(0).unwrap().into_owned());
        Self { html, text, sender: copies[0].sender.clone(), body }
    }

    fn header(&self, name: &str) -> Option<String> {
        let parsed = MessageParser::new().parse(&self.body).unwrap();
        parsed.header_raw(name).map(|value| value.trim().to_owned())
    }

    /// The tokens of the HTML part's links that lead there.
    fn tokens(&self, way: &str) -> Vec<Option<Token>> {
        let start = format!("\"{BASE}/{way}/");
        let links = self.html.split(&start).skip(1);
        links.map(|rest| token_keys().open(rest.split('"').next().unwrap())).collect()
    }

    fn click(message: MessageId) -> Vec<Option<Token>> {
        vec![Some(Token::Click { message, place: 0, url: LINK.to_owned() })]
    }
}

#[tokio::test]
async fn a_bulk_mail_bears_signed_links_an_image_and_a_way_out_under_its_signature() {
    let fleet = fleet().await;
    let id = fleet.submit(linked().lane(Lane::Bulk).campaign(CAMPAIGN).to("ann@receiver.test")).await;
    fleet.ended(id).await;
    let seen = Seen::of(&fleet, "ann@receiver.test");
    assert_eq!(seen.tokens("c"), Seen::click(id));
    assert_eq!(seen.tokens("o"), [Some(Token::Open(id))]);
    assert_eq!(seen.tokens("u"), [Some(Token::Unsubscribe(id))]);
    assert!(seen.text.contains(LINK) && seen.text.contains(&format!("{BASE}/u/")), "{}", seen.text);
    let leave = seen.header("List-Unsubscribe").unwrap();
    let token = leave.strip_prefix(&format!("<{BASE}/u/")).and_then(|rest| rest.strip_suffix('>')).unwrap();
    assert_eq!(token_keys().open(token), Some(Token::Unsubscribe(id)));
    assert_eq!(seen.header("List-Unsubscribe-Post").as_deref(), Some("List-Unsubscribe=One-Click"));
    assert_eq!(token_keys().open(&seen.header("X-Mailfleet-Token").unwrap()), Some(Token::Report(id)));
    let sender = seen.sender.parse().unwrap();
    assert_eq!(message_of_return_path(&sender, Some(&token_keys())), Some(id));

    assert_eq!(fleet.zone.verify(&seen.body).await, [DkimResult::Pass, DkimResult::Pass]);
    let mail = String::from_utf8(seen.body.clone()).unwrap();
    for name in ["List-Unsubscribe", "List-Unsubscribe-Post", "X-Mailfleet-Token"] {
        let changed = mail.replacen(&format!("\r\n{name}: "), &format!("\r\n{name}: x"), 1);
        assert_ne!(changed, mail);
        let verdicts = fleet.zone.verify(changed.as_bytes()).await;
        assert!(verdicts.iter().all(|verdict| *verdict != DkimResult::Pass), "{name} is signed");
    }
    fleet.assert_sound().await;
}

#[tokio::test]
async fn whoever_says_no_is_not_tracked_and_transactional_mail_has_to_ask() {
    let fleet = fleet().await;
    let choice = |opens, clicks| move |mail: &mut v1::Mail| mail.tracking = Some(v1::Tracking { opens, clicks });
    let bulk = || linked().lane(Lane::Bulk).campaign(CAMPAIGN);
    let mut two = bulk().to("yes@receiver.test");
    two.recipients.push(v1::Recipient { untracked: true, ..recipient("no@receiver.test") });
    let ids = fleet.submit_all(two).await;
    let part = fleet.submit(bulk().with(choice(Some(false), None)).to("part@receiver.test")).await;
    let plain = fleet.submit(linked().to("plain@receiver.test")).await;
    let hosted = |mail: &mut v1::Mail| {
        mail.list_unsubscribe = Some(v1::ListUnsubscribe { hosted: true, ..v1::ListUnsubscribe::default() });
    };
    let asked = linked().with(choice(None, Some(true))).with(hosted).to("asked@receiver.test");
    let asked = fleet.submit(asked).await;
    for id in ids.iter().chain(&[part, plain, asked]) {
        fleet.ended(*id).await;
    }
    for (who, id, opens, clicks, leaves) in [
        ("yes", ids[0], true, true, true),
        ("no", ids[1], false, false, true),
        ("part", part, false, true, true),
        ("plain", plain, false, false, false),
        ("asked", asked, false, true, true),
    ] {
        let seen = Seen::of(&fleet, &format!("{who}@receiver.test"));
        assert_eq!(seen.tokens("o"), if opens { vec![Some(Token::Open(id))] } else { vec![] }, "{who}");
        assert_eq!(seen.tokens("c"), if clicks { Seen::click(id) } else { vec![] }, "{who}");
        assert_eq!(seen.tokens("u"), [Some(Token::Unsubscribe(id))], "{who}");
        assert_eq!(seen.header("List-Unsubscribe-Post").is_some(), leaves, "{who}");
        assert_eq!(fleet.zone.verify(&seen.body).await, [DkimResult::Pass, DkimResult::Pass], "{who}");
    }
    fleet.assert_sound().await;
}

#[tokio::test]
async fn a_template_may_say_that_its_mails_are_not_tracked_and_a_preview_shows_them_as_written() {
    let fleet = fleet().await;
    let create = v1::CreateTemplateRequest { name: "news".to_owned() };
    fleet.templates().create_template(create).await.unwrap();
    let source = v1::PublishTemplateVersionRequest {
        template: "news".to_owned(),
        subject: "News".to_owned(),
        body: Some(v1::publish_template_version_request::Body::Html(format!(
            "<p><a href=\"{LINK}\">look</a> <a href=\"{{{{ unsubscribe_url }}}}\">unsubscribe</a></p>"
        ))),
        lane: v1::Lane::Bulk.into(),
        tracking: Some(v1::Tracking { opens: Some(false), clicks: Some(false) }),
        ..v1::PublishTemplateVersionRequest::default()
    };
    let published = fleet.templates().publish_template_version(source.clone()).await.unwrap().into_inner();
    let told = format!("{published:?}");
    assert!(!told.contains("unsubscribe_url"), "nobody has to give it: {told}");
    let template = v1::TemplateRef { template: "news".to_owned(), version: 0 };
    let what = Some(v1::preview_template_request::What::Template(template.clone()));
    let preview = v1::PreviewTemplateRequest { what, ..v1::PreviewTemplateRequest::default() };
    let preview = fleet.templates().preview_template(preview).await.unwrap().into_inner();
    assert!(preview.html.contains("href=\"https://shop.test/?a=1&amp;b=2\""), "{}", preview.html);
    assert!(preview.html.contains("https://example.com/unsubscribe"), "{}", preview.html);
    let post = mail().lane(Lane::Bulk).with(|mail| mail.content = Some(Content::Template(template)));
    let id = fleet.submit(post.to("ann@receiver.test")).await;
    fleet.ended(id).await;
    let seen = Seen::of(&fleet, "ann@receiver.test");
    assert_eq!((seen.tokens("o"), seen.tokens("c")), (vec![], vec![]));
    assert_eq!(seen.tokens("u"), [Some(Token::Unsubscribe(id))]);
    fleet.assert_sound().await;
}

#[tokio::test]
async fn a_fleet_without_a_site_signs_return_paths_and_refuses_to_track() {
    let fleet = Fleet::start().await;
    let id = fleet.submit(mail().lane(Lane::Bulk).campaign(CAMPAIGN).to("ann@receiver.test")).await;
    fleet.ended(id).await;
    let seen = Seen::of(&fleet, "ann@receiver.test");
    assert_eq!(message_of_return_path(&seen.sender.parse().unwrap(), Some(&token_keys())), Some(id));
    assert_eq!(message_of_return_path(&seen.sender.parse().unwrap(), None), None);
    assert_eq!(token_keys().open(&seen.header("X-Mailfleet-Token").unwrap()), Some(Token::Report(id)));
    assert!(!seen.html.contains("<img") && seen.header("List-Unsubscribe").is_none());
    let asking = mail().with(|mail| {
        mail.tracking = Some(v1::Tracking { opens: Some(true), clicks: None });
        mail.list_unsubscribe = Some(v1::ListUnsubscribe { hosted: true, ..v1::ListUnsubscribe::default() });
    });
    let refused = fleet.mails().send_message(asking.to("ann@receiver.test").message()).await.unwrap_err();
    assert_eq!(fields(&refused), ["mail.tracking", "mail.list_unsubscribe.hosted"]);
    fleet.assert_sound().await;
}
