//! Calls of the services that fail, succeed without an answer, or happen twice: `MAILFLEET_FAULTS` makes them do so in
//! every test of this suite, and these do by themselves.

use crate::addresses;
use domain::Closing;
use failpoint::Faults;
use mailfleet_tests::{Fleet, mail};
use std::time::Duration;
use testkit::until;

const LOAD: usize = 40;

async fn fleet(faults: &Faults) -> Fleet {
    Fleet::builder()
        .settings(|settings| {
            settings.faults = Some(faults.clone());
            // Leases that are lost for want of a renewal are another story.
            settings.sender.lease.term = Duration::from_secs(5);
        })
        .start()
        .await
}

#[tokio::test]
async fn with_calls_going_wrong_all_along_the_road_every_mail_still_has_its_one_ending() {
    let faults = Faults::new(0.2, 7);
    let fleet = fleet(&faults).await;
    let one_to = |head: &str| mail().to_all(addresses(LOAD, head, "receiver.test")).key(head);
    fleet.submit_batch(one_to("accept")).await;
    fleet.submit_batch(one_to("unknown")).await;
    fleet.submit_batch(one_to("tempfail-once")).await;
    until("each was tried", async || {
        let stats = fleet.sink.stats();
        stats.accepted >= LOAD as u64 && stats.refused >= 2 * LOAD as u64
    })
    .await;
    fleet.at_rest().await;
    fleet.clock.advance(Duration::from_secs(60)).await;
    let verdict = fleet.assert_sound().await;
    assert_eq!(verdict.of(Closing::Delivered), 2 * LOAD, "{verdict:?}");
    assert_eq!(verdict.of(Closing::Bounced), LOAD, "{verdict:?}");
    assert!(faults.injected().iter().all(|(_, count)| *count > 10), "{faults:?}");
}

/// A claim of a second copy that fails is undone, and must not give back what the first copy's claim has in hand.
#[tokio::test]
async fn letters_whose_chunks_come_again_while_they_are_in_hand_go_once() {
    let faults = Faults::new(0.3, 11);
    let fleet = fleet(&faults).await;
    for index in 0..2 * LOAD {
        let post = mail().to(&format!("slow-300ms@receiver{index}.test")).key(&format!("slow-{index}"));
        fleet.submit(post).await;
    }
    let verdict = fleet.assert_sound().await;
    assert_eq!(verdict.of(Closing::Delivered), 2 * LOAD, "{verdict:?}");
}
