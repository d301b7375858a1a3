//! The exchange of DKIM keys while mail goes out.

use mail_auth::DkimResult;
use mailfleet_tests::{Fleet, Zone, mail};
use proto::v1::{self, DomainKeyState, MessageState};
use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};
use testkit::until;

/// How long keys are kept before they are looked up again.
const KEY_TTL: Duration = Duration::from_millis(100);

/// The selectors that a mail is signed under.
fn selectors(mail: &[u8]) -> BTreeSet<String> {
    let text = String::from_utf8_lossy(mail).into_owned();
    let tags = text.split([';', ' ', '\r', '\n', '\t']).filter_map(|tag| tag.strip_prefix("s="));
    // What is no selector of ours is a piece of a signature.
    tags.filter(|selector| selector.starts_with("mf")).map(str::to_owned).collect()
}

fn of_state(domain: &v1::SendingDomain, state: DomainKeyState) -> BTreeSet<String> {
    domain.keys.iter().filter(|key| key.state() == state).map(|key| key.selector.clone()).collect()
}

#[tokio::test]
async fn mail_verifies_before_during_and_after_a_rotation_of_keys() {
    let fleet = Fleet::builder().settings(|settings| settings.renderer.press.key_ttl = KEY_TTL).start().await;
    let mut domains = fleet.domains_with(&fleet.key);
    let domain = "example.com".to_owned();
    let deliver = async |to: &str| {
        let id = fleet.submit(mail().to(to)).await;
        assert_eq!(fleet.ended(id).await.state(), MessageState::Delivered);
        fleet.sink.mails_to(to)[0].body.clone()
    };
    let before = deliver("before@receiver.test").await;
    let rotate = v1::RotateDomainKeysRequest { domain: domain.clone() };
    let rotated = domains.rotate_domain_keys(rotate).await.unwrap().into_inner().domain.unwrap();
    let (old, new) = (of_state(&rotated, DomainKeyState::Active), of_state(&rotated, DomainKeyState::Pending));
    assert_eq!((old.len(), new.len(), selectors(&before)), (2, 2, old.clone()));
    // Until every cache has looked again.
    let begun = Instant::now();
    let mut during = Vec::new();
    while begun.elapsed() < 3 * KEY_TTL {
        during.push(deliver(&format!("during{}@receiver.test", during.len())).await);
    }
    assert!(during.iter().all(|mail| selectors(mail) == old), "what is pending signs nothing");

    let activate = v1::ActivateDomainKeysRequest { domain, selectors: new.iter().cloned().collect() };
    let activated = domains.activate_domain_keys(activate).await.unwrap().into_inner().domain.unwrap();
    assert_eq!(of_state(&activated, DomainKeyState::Retired), old);
    let mut after = Vec::new();
    until("the new keys sign", async || {
        let number = after.len();
        after.push(deliver(&format!("after{number}@receiver.test")).await);
        selectors(&after[number]) == new
    })
    .await;
    let zone = Zone::publish(&activated.dns_records);
    for mail in after.iter().chain(&during).chain([&before]) {
        assert_eq!(zone.verify(mail).await, [DkimResult::Pass, DkimResult::Pass]);
    }
    fleet.assert_sound().await;
}
