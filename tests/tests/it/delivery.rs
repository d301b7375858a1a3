//! From the call to the receiver.

use mail_auth::DkimResult;
use mailfleet_tests::{Fleet, mail};
use proto::v1::MessageState;

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
