//! From the call to the receiver.

use domain::Lane;
use mail_auth::DkimResult;
use mailfleet_tests::{Fleet, mail};
use proto::v1::{self, MessageState, mail::Content};

#[tokio::test]
async fn a_mail_is_accepted_rendered_signed_and_delivered() {
    let fleet = Fleet::start().await;
    let id = fleet.submit(mail().to("ann@receiver.test")).await;
    let seen = fleet.ended(id).await;
    assert_eq!(seen.state(), MessageState::Delivered);
    let events: Vec<&str> = seen.timeline.iter().map(|event| event.event.as_str()).collect();
    assert_eq!(events, ["accepted", "delivered"]);
    assert_eq!(seen.timeline[1].smtp_code, 250);

    let copies = fleet.sink.mails_to("ann@receiver.test");
    assert_eq!(copies.len(), 1);
    let copy = &copies[0];
    assert!(copy.sender.ends_with("@bounces.example.com"), "{}", copy.sender);
    assert_eq!(fleet.zone.verify(&copy.body).await, [DkimResult::Pass, DkimResult::Pass]);
    let text = String::from_utf8(copy.body.to_vec()).unwrap();
    for line in ["From: News <news@example.com>", "To: ann@receiver.test", "Subject: Hello you", "MIME-Version: 1.0"] {
        assert!(text.contains(&format!("{line}\r\n")), "no {line:?} in {text}");
    }
    assert!(text.contains(&format!("Message-ID: <{id}@example.com>\r\n")));
    assert!(text.contains("text/plain") && text.contains("text/html"));
    assert!(!text.contains("{{"));
    fleet.assert_sound().await;
}

#[tokio::test]
async fn mail_of_an_unsigned_domain_bears_no_signature_and_its_neighbours_still_do() {
    let fleet = Fleet::start().await;
    let request = v1::CreateDomainRequest {
        domain: "plain.test".to_owned(),
        unsigned: true,
        ..v1::CreateDomainRequest::default()
    };
    let made = fleet.domains_with(&fleet.key).create_domain(request).await.unwrap().into_inner().domain.unwrap();
    assert!(made.unsigned);
    assert_eq!(
        made.dns_records.iter().map(|record| record.purpose.as_str()).collect::<Vec<_>>(),
        ["ownership", "dmarc"]
    );
    let from = |address: &str| v1::Address { email: address.to_owned(), name: "News".to_owned() };
    let plain = mail().to("ann@receiver.test").with(|mail| mail.from = Some(from("news@plain.test")));
    let plain = fleet.submit(plain).await;
    let signed = fleet.submit(mail().to("bob@receiver.test")).await;
    for id in [plain, signed] {
        assert_eq!(fleet.ended(id).await.state(), MessageState::Delivered);
    }
    let copy = &fleet.sink.mails_to("ann@receiver.test")[0];
    assert!(!copy.body.windows(15).any(|part| part.eq_ignore_ascii_case(b"DKIM-Signature:")));
    let copy = &fleet.sink.mails_to("bob@receiver.test")[0];
    assert_eq!(fleet.zone.verify(&copy.body).await, [DkimResult::Pass, DkimResult::Pass]);
    fleet.assert_sound().await;
}

#[tokio::test]
async fn bulk_mail_says_how_to_leave_and_every_receiver_can_verify_that() {
    let fleet = Fleet::start().await;
    let post = mail().lane(Lane::Bulk).campaign("0190a0b0-0000-7000-8000-00000000c001").with(|mail| {
        mail.list_unsubscribe = Some(v1::ListUnsubscribe {
            url: "https://example.com/leave/{{ name }}".to_owned(),
            mailto: "leave@example.com".to_owned(),
            one_click: true,
            hosted: false,
        });
        mail.headers = vec![v1::Header { name: "X-Order".to_owned(), value: "for {{ name }}".to_owned() }];
    });
    let id = fleet.submit(post.to("ann@receiver.test")).await;
    fleet.ended(id).await;
    let copy = &fleet.sink.mails_to("ann@receiver.test")[0];
    assert_eq!(fleet.zone.verify(&copy.body).await, [DkimResult::Pass, DkimResult::Pass]);
    let text = String::from_utf8(copy.body.to_vec()).unwrap().replace("\r\n ", " ");
    for line in ["List-Unsubscribe-Post: List-Unsubscribe=One-Click", "X-Order: for you"] {
        assert!(text.contains(&format!("{line}\r\n")), "no {line:?} in {text}");
    }
    assert!(text.contains("<https://example.com/leave/you>") && text.contains("<mailto:leave@example.com>"), "{text}");
    assert!(text.contains("\nList-Id: ") && text.contains("\nFeedback-ID: "), "{text}");
    fleet.assert_sound().await;
}

#[tokio::test]
async fn a_finished_mail_is_sent_as_it_is_whatever_its_lines_look_like() {
    let fleet = Fleet::start().await;
    // Dots that would end the data, and what an attacker would put behind them.
    let body = ".\r\n..\r\nline\n.\nMAIL FROM:<eve@evil.test>\r\nlast without an end";
    let raw = format!("From: News <news@example.com>\r\nSubject: raw\r\n\r\n{body}");
    let post = mail().with(|mail| mail.content = Some(Content::RawMime(raw.into())));
    let id = fleet.submit(post.to("ann@receiver.test")).await;
    assert_eq!(fleet.ended(id).await.state(), MessageState::Delivered);
    let copies = fleet.sink.mails();
    assert_eq!(copies.len(), 1, "one mail, and no second one smuggled in");
    let text = String::from_utf8(copies[0].body.to_vec()).unwrap();
    let (_, received) = text.split_once("\r\n\r\n").unwrap();
    assert_eq!(received.trim_end(), body.replace("\r\n", "\n").replace('\n', "\r\n"));
    assert_eq!(fleet.zone.verify(&copies[0].body).await, [DkimResult::Pass, DkimResult::Pass]);
    fleet.assert_sound().await;
}

#[tokio::test]
async fn a_mail_too_large_for_the_broker_is_delivered_all_the_same() {
    let fleet = Fleet::start().await;
    let line = "A line of plain words that goes on for a while and then ends.\n";
    let large = mail().with(|mail| {
        if let Some(Content::Inline(inline)) = &mut mail.content {
            inline.text = line.repeat(7_000);
        }
    });
    let ids = fleet.submit_all(large.to_all(crate::addresses(5, "large", "receiver.test"))).await;
    for id in ids {
        assert_eq!(fleet.ended(id).await.state(), MessageState::Delivered);
    }
    let copy = &fleet.sink.mails_to("large.0@receiver.test")[0];
    assert!(copy.body.len() > 400_000);
    assert_eq!(fleet.zone.verify(&copy.body).await, [DkimResult::Pass, DkimResult::Pass]);
    fleet.assert_sound().await;
}
