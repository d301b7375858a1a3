//! Mail that is only tried.

use domain::{Closing, Lane};
use mailfleet_tests::{Fleet, Post, mail};
use proto::v1::MessageState;
use std::time::Duration;
use testkit::until;

fn tried(post: Post) -> Post {
    post.with(|mail| mail.sandbox = true)
}

#[tokio::test]
async fn tried_mail_goes_all_the_way_and_leaves_nothing_at_the_receiver() {
    let fleet = Fleet::start().await;
    let mut ids = Vec::new();
    for lane in [Lane::Transactional, Lane::Bulk] {
        let post = tried(mail().lane(lane).to_all(crate::addresses(20, lane.as_str(), "receiver.test")));
        ids.extend(fleet.submit_all(post).await);
    }
    // One that the sender renders itself.
    let large = tried(mail().to("large@receiver.test")).with(|mail| {
        mail.attachments = vec![proto::v1::Attachment {
            file_name: "a.bin".to_owned(),
            data: vec![7; 400_000].into(),
            ..Default::default()
        }];
    });
    ids.push(fleet.submit(large).await);
    let real = fleet.submit(mail().to("ann@receiver.test")).await;
    for id in ids {
        let seen = fleet.ended(id).await;
        assert_eq!((seen.state(), seen.sandbox, seen.site.as_str()), (MessageState::Delivered, true, "sandbox"));
        let last = seen.timeline.last().unwrap();
        assert_eq!((last.event.as_str(), last.route.as_str(), last.smtp_code), ("delivered", "sandbox", 250));
    }
    let seen = fleet.ended(real).await;
    assert_eq!((seen.state(), seen.sandbox), (MessageState::Delivered, false));
    assert_eq!(seen.timeline.last().unwrap().route, "relay");
    assert_eq!(fleet.sink.stats().accepted, 1, "the one that is real");
    until("the figures tell them apart", async || {
        let figures = fleet.store.site_figures(None, None).await.unwrap();
        let delivered: Vec<_> = figures.iter().map(|one| (one.site.as_str(), one.delivered)).collect();
        delivered == [("sandbox", 41), ("receiver.test", 1)]
    })
    .await;
    assert_eq!(fleet.assert_sound().await.of(Closing::Delivered), 42);
}

#[tokio::test]
async fn local_parts_script_what_the_receiver_would_have_said() {
    let fleet = Fleet::start().await;
    let submit = async |local: &str| fleet.submit(tried(mail().to(&format!("{local}@receiver.test")))).await;
    for (local, code, class) in
        [("unknown", 550, "invalid_recipient"), ("full.ann", 552, "quota_issues"), ("reject-data", 554, "")]
    {
        let seen = fleet.ended(submit(local).await).await;
        let last = seen.timeline.last().unwrap();
        assert_eq!((seen.state(), last.smtp_code), (MessageState::Bounced, code), "{local}: {last:?}");
        assert!(class.is_empty() || last.bounce_class == class, "{local}: {last:?}");
    }
    let greylisted = submit("greylist").await;
    let seen = fleet.settled(greylisted).await;
    assert_eq!((seen.state(), seen.attempts), (MessageState::Queued, 1));
    fleet.clock.advance(Duration::from_secs(600)).await;
    assert_eq!(fleet.ended(greylisted).await.state(), MessageState::Delivered);
    // What cannot be rendered fails as it would in earnest, and what is cancelled or unwanted does not go.
    let broken = tried(mail().to_with("ann@receiver.test", serde_json::json!({})));
    assert_eq!(fleet.ended(fleet.submit(broken).await).await.state(), MessageState::Failed);
    let request =
        proto::v1::AddSuppressionRequest { emails: vec!["gone@receiver.test".to_owned()], ..Default::default() };
    fleet.suppressions().add_suppression(request).await.unwrap();
    assert_eq!(fleet.ended(submit("gone").await).await.state(), MessageState::Suppressed);
    assert_eq!(fleet.sink.stats().connections, 0);
    fleet.assert_sound().await;
}
