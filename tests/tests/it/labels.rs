//! Tags, metadata, lists, and what a recipient has of his own.

use domain::{Closing, MessageId};
use mail_auth::DkimResult;
use mailfleet_tests::{Fleet, Kind, Post, fields, mail, reason, recipient};
use proto::v1::{self, KeyScope, MessageState, recipient_result::Outcome};
use std::collections::BTreeMap;
use tonic::Code;

const CAMPAIGN: &str = "0190a0b0-0000-7000-8000-00000000c0de";

fn map(key: &str, value: &str) -> BTreeMap<String, String> {
    BTreeMap::from([(key.to_owned(), value.to_owned())])
}

fn tagged(post: Post, tag: &str) -> Post {
    post.with(|mail| {
        mail.tags = vec![tag.to_owned()];
        mail.metadata = map("order", "17");
    })
}

/// Every message of a list, by pages of this size.
async fn list(fleet: &Fleet, key: &str, page_size: u32, request: v1::ListMessagesRequest) -> Vec<v1::MessageSummary> {
    let mut request = v1::ListMessagesRequest { page_size, ..request };
    let mut found = Vec::new();
    loop {
        let page = fleet.mails_with(key).list_messages(request.clone()).await.unwrap().into_inner();
        assert!(page.messages.len() <= page_size as usize);
        found.extend(page.messages);
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            return found;
        }
    }
}

#[tokio::test]
async fn messages_are_listed_by_what_is_asked_for_and_bear_what_they_are_called() {
    let fleet = Fleet::start().await;
    let first = fleet.submit_all(tagged(mail(), "welcome").to("ann@receiver.test").to("unknown@receiver.test")).await;
    let (_, second) = fleet
        .submit_batch(tagged(mail(), "news").campaign(CAMPAIGN).to_all(crate::addresses(20, "r", "receiver.test")))
        .await;
    let second: Vec<MessageId> = second.into_iter().flatten().collect();
    for id in first.iter().chain(&second) {
        fleet.ended(*id).await;
    }
    let reads = fleet.new_key(&fleet.tenant, &[KeyScope::Read]).await.api_key;
    let ids = |found: Vec<v1::MessageSummary>| -> Vec<MessageId> {
        found.into_iter().map(|one| one.message_id.parse().unwrap()).collect()
    };
    let request = v1::ListMessagesRequest::default;
    for page in [1, 7, 500] {
        let all = ids(list(&fleet, &reads, page, request()).await);
        assert_eq!(all, [&second[..], &first[..]].concat(), "pages of {page}");
    }
    let welcome = list(&fleet, &reads, 100, v1::ListMessagesRequest { tag: "welcome".to_owned(), ..request() }).await;
    assert_eq!((welcome[0].state(), welcome[1].state()), (MessageState::Delivered, MessageState::Bounced));
    assert_eq!((&welcome[0].tags[..], &welcome[0].metadata), (&["welcome".to_owned()][..], &map("order", "17")));
    assert!(welcome[0].closed_at.is_some() && !welcome[0].sandbox);
    assert_eq!(ids(welcome), first);
    let campaign = v1::ListMessagesRequest { campaign_id: CAMPAIGN.to_owned(), ..request() };
    assert_eq!(ids(list(&fleet, &reads, 100, campaign).await), second);
    let recipient = v1::ListMessagesRequest { recipient: "R.7@receiver.test".to_owned(), ..request() };
    assert_eq!(ids(list(&fleet, &reads, 100, recipient).await), [second[7]]);
    let bounced = v1::ListMessagesRequest { state: MessageState::Bounced.into(), ..request() };
    assert_eq!(ids(list(&fleet, &reads, 100, bounced).await), [first[1]]);
    let seen = fleet.get(first[0]).await;
    assert_eq!((seen.tags, seen.metadata, seen.sandbox), (vec!["welcome".to_owned()], map("order", "17"), false));

    // A page of one list is no page of another, and nobody else's.
    let page = v1::ListMessagesRequest { page_size: 1, ..request() };
    let token = fleet.mails_with(&reads).list_messages(page.clone()).await.unwrap().into_inner().next_page_token;
    let other = v1::ListMessagesRequest { page_token: token.clone(), tag: "news".to_owned(), ..page.clone() };
    let refused = fleet.mails_with(&reads).list_messages(other).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::InvalidArgument, "PAGE_TOKEN_INVALID"));
    let (_, stranger) = fleet.new_tenant("stranger").await;
    assert!(list(&fleet, &stranger, 100, request()).await.is_empty());
    let stolen = v1::ListMessagesRequest { page_token: token, ..page };
    assert!(fleet.mails_with(&stranger).list_messages(stolen).await.is_err());
    let sends = fleet.new_key(&fleet.tenant, &[KeyScope::Send]).await.api_key;
    assert_eq!(fleet.mails_with(&sends).list_messages(request()).await.unwrap_err().code(), Code::PermissionDenied);
    for (bad, field) in [
        (v1::ListMessagesRequest { page_size: 501, ..request() }, "page_size"),
        (v1::ListMessagesRequest { tag: "a b".to_owned(), ..request() }, "tag"),
        (v1::ListMessagesRequest { recipient: "nobody".to_owned(), ..request() }, "recipient"),
        (v1::ListMessagesRequest { state: 99, ..request() }, "state"),
        (v1::ListMessagesRequest { page_token: "x".to_owned(), ..request() }, "page_token"),
    ] {
        assert_eq!(fields(&fleet.mails_with(&reads).list_messages(bad).await.unwrap_err()), [field]);
    }
    fleet.assert_sound().await;
}

#[tokio::test]
async fn each_recipient_may_have_subject_fields_and_labels_of_his_own_under_the_signature() {
    let fleet = Fleet::start().await;
    let header = |name: &str, value: &str| v1::Header { name: name.to_owned(), value: value.to_owned() };
    let own = |email: &str, number: u32| v1::Recipient {
        subject: format!("Grüße, Nummer {number} {{{{ name }}}}"),
        headers: vec![header("X-Number", &number.to_string())],
        tags: vec![format!("n{number}")],
        metadata: map("number", &number.to_string()),
        ..recipient(email)
    };
    let mut post = tagged(mail(), "all").with(|mail| mail.headers = vec![header("X-Number", "none")]);
    post.recipients = vec![
        own("ann@receiver.test", 1),
        own("bob@receiver.test", 2),
        recipient("cem@receiver.test"),
        v1::Recipient { subject: "a\r\nBcc: eve@evil.test".to_owned(), ..recipient("dan@receiver.test") },
        v1::Recipient { headers: vec![header("X-A", "a\nBcc: eve@evil.test")], ..recipient("eli@receiver.test") },
        v1::Recipient { headers: vec![header("Bcc", "eve@evil.test")], ..recipient("fay@receiver.test") },
    ];
    let (answer, ids) = fleet.submit_batch(post).await;
    let refused: Vec<&str> = answer
        .results
        .iter()
        .filter_map(|result| match &result.outcome {
            Some(Outcome::Refused(refusal)) => Some(refusal.field.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(refused, ["recipients[3].subject", "recipients[4].headers[0].value", "recipients[5].headers[0].name"]);
    for (index, (email, subject, number)) in [
        ("ann@receiver.test", "Grüße, Nummer 1 {{ name }}", "1"),
        ("bob@receiver.test", "Grüße, Nummer 2 {{ name }}", "2"),
        ("cem@receiver.test", "Hello you", "none"),
    ]
    .into_iter()
    .enumerate()
    {
        let seen = fleet.ended(ids[index].unwrap()).await;
        assert_eq!(seen.state(), MessageState::Delivered);
        let copy = &fleet.sink.mails_to(email)[0];
        assert_eq!(fleet.zone.verify(&copy.body).await, [DkimResult::Pass, DkimResult::Pass]);
        let message = mail_parser::MessageParser::new().parse(&copy.body[..]).unwrap();
        assert_eq!(message.subject(), Some(subject));
        let fields: Vec<_> = message.header_values("X-Number").filter_map(|value| value.as_text()).collect();
        assert_eq!(fields, [number]);
        assert_eq!(seen.tags.join(" "), if number == "none" { "all".to_owned() } else { format!("all n{number}") });
        assert_eq!(seen.metadata.get("number").map(String::as_str), Some(number).filter(|number| *number != "none"));
        assert_eq!(seen.metadata["order"], "17");
    }
    let found =
        list(&fleet, &fleet.key, 100, v1::ListMessagesRequest { tag: "n2".to_owned(), ..Default::default() }).await;
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].recipient, "bob@receiver.test");
    assert_eq!(fleet.assert_sound().await.of(Closing::Delivered), 3);
}

#[tokio::test]
async fn a_recipients_own_survive_a_deferral_and_a_large_mail() {
    let fleet = Fleet::start().await;
    let mut post = mail().lane(domain::Lane::Bulk).with(|mail| {
        mail.attachments =
            vec![v1::Attachment { file_name: "a.bin".to_owned(), data: vec![7; 400_000].into(), ..Default::default() }];
    });
    post.recipients = vec![v1::Recipient { subject: "mine".to_owned(), ..recipient("tempfail-once@receiver.test") }];
    let id = fleet.submit(post).await;
    fleet.settled(id).await;
    fleet.clock.advance(std::time::Duration::from_secs(60)).await;
    assert_eq!(fleet.ended(id).await.state(), MessageState::Delivered);
    let copy = &fleet.sink.mails_to("tempfail-once@receiver.test")[0];
    assert!(String::from_utf8_lossy(&copy.body).contains("\r\nSubject: mine\r\n"));
    fleet.assert_sound().await;
}

#[tokio::test]
async fn a_tenant_sends_from_each_of_its_domains_under_that_domains_signature_and_answers_go_where_it_says() {
    let mut fleet = Fleet::start().await;
    let request = v1::CreateDomainRequest { domain: "shop.test".to_owned(), ..Default::default() };
    let made = fleet.domains_with(&fleet.key).create_domain(request).await.unwrap().into_inner().domain.unwrap();
    fleet.zone.add(&made.dns_records);
    let address = |email: &str| v1::Address { email: email.to_owned(), name: "N".to_owned() };
    let from = |from: &str, to: &str| {
        mail().to(to).with(|mail| {
            mail.from = Some(address(from));
            mail.reply_to = Some(address("answers@elsewhere.test"));
        })
    };
    for (author, to, domain) in [
        ("news@example.com", "ann@receiver.test", "example.com"),
        ("news@shop.test", "bob@receiver.test", "shop.test"),
        ("news@mail.shop.test", "cem@receiver.test", "shop.test"),
    ] {
        let id = fleet.submit(from(author, to)).await;
        assert_eq!(fleet.ended(id).await.state(), MessageState::Delivered);
        let copy = &fleet.sink.mails_to(to)[0];
        assert_eq!(fleet.zone.verify(&copy.body).await, [DkimResult::Pass, DkimResult::Pass]);
        let text = String::from_utf8(copy.body.to_vec()).unwrap();
        assert_eq!(text.matches(&format!("d={domain};")).count(), 2, "{text}");
        assert!(text.contains("\r\nReply-To: N <answers@elsewhere.test>\r\n"), "{text}");
        assert!(copy.sender.ends_with(&format!("@bounces.{domain}")), "{}", copy.sender);
    }
    let refused = fleet.mails().send_message(from("news@other.test", "ann@receiver.test").message()).await.unwrap_err();
    assert_eq!(reason(&refused), "SENDING_DOMAIN_UNKNOWN");
    fleet.assert_sound().await;
}

#[tokio::test]
async fn a_repeat_with_other_labels_is_another_call() {
    let fleet = Fleet::builder().without(Kind::Sender).start().await;
    let post = |tag: &str| tagged(mail().to("ann@receiver.test").key("k"), tag);
    let first = fleet.mails().send_message(post("a").message()).await.unwrap().into_inner();
    let again = fleet.mails().send_message(post("a").message()).await.unwrap().into_inner();
    assert_eq!((first.message_ids, again.replayed), (again.message_ids, true));
    let other = fleet.mails().send_message(post("b").message()).await.unwrap_err();
    assert_eq!(reason(&other), "IDEMPOTENCY_KEY_REUSED");
}
