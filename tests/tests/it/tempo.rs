//! What receivers say about the pace, what comes of it, and how an operator sees why.

use crate::addresses;
use domain::AimdPolicy;
use mailfleet_tests::{Fleet, Kind, mail};
use proto::v1::{DescribeSiteRequest, DescribeSiteResponse, LiftSiteRequest, MessageState, TempoChange};
use serde_json::json;
use std::time::Duration;
use testkit::until;

async fn site(fleet: &Fleet) -> DescribeSiteResponse {
    let request = DescribeSiteRequest { site: "receiver.test".to_owned(), changes: 0 };
    fleet.delivery().describe_site(request).await.unwrap().into_inner()
}

/// The newest change with this cause, once there is one.
async fn change(fleet: &Fleet, cause: &str) -> TempoChange {
    until(&format!("a change by {cause}"), async || site(fleet).await.changes.iter().any(|one| one.cause == cause))
        .await;
    site(fleet).await.changes.into_iter().find(|one| one.cause == cause).unwrap()
}

/// A fleet whose sender takes what the sink says when it is busy for a wish for less.
async fn fleet(adapt: AimdPolicy) -> Fleet {
    let mut fleet = Fleet::builder().without(Kind::Sender).start().await;
    fleet.settings.sender.adapt = adapt;
    fleet.settings.shape(json!({"default": {"rate": "100/s", "connection_rate": "none"}}));
    fleet.settings.sender.reactions = fleet.file(
        "reactions.toml",
        "version = \"ours\"\n[[reaction]]\nname = \"busy\"\ncodes = [421]\ntexts = [\"busy\"]\ndo = { cut = 0.5 }\n\
         examples = [\"421 4.3.2 busy\"]\n",
    );
    fleet.launch(Kind::Sender, "sender").await;
    fleet.ready().await;
    fleet
}

#[tokio::test]
async fn a_site_that_asks_to_slow_down_is_slowed_and_the_next_owner_goes_on_until_it_is_lifted() {
    let mut fleet = fleet(AimdPolicy::default()).await;
    let id = fleet.submit(mail().to("busy-once@receiver.test")).await;
    fleet.settled(id).await;
    let slowed = change(&fleet, "busy").await;
    let (before, after) = (slowed.before.unwrap(), slowed.after.unwrap());
    assert_eq!(before.rate, Some(100.0));
    assert!(after.rate < before.rate && after.connections == before.connections, "{after:?}");
    assert!(slowed.reply.starts_with("421"), "{}", slowed.reply);
    assert_eq!((slowed.message_id, slowed.route), (id.to_string(), "relay".to_owned()));
    let seen = site(&fleet).await;
    assert_eq!((seen.tempos.len(), seen.tempos[0].rate), (1, after.rate));

    fleet.crash("sender").await;
    fleet.launch(Kind::Sender, "sender").await;
    fleet.ready().await;
    let other = fleet.submit(mail().to("ann@receiver.test")).await;
    assert_eq!(fleet.ended(other).await.state(), MessageState::Delivered);
    let lift = LiftSiteRequest { site: "receiver.test".to_owned(), route: String::new() };
    assert_eq!(fleet.delivery().lift_site(lift.clone()).await.unwrap().into_inner().lifted, 1);
    let lifted = change(&fleet, "lifted").await;
    assert_eq!(lifted.before.unwrap().rate, after.rate, "the new owner went on with what the old one had been told");
    assert_eq!(lifted.after.unwrap().rate, Some(100.0));
    assert!(site(&fleet).await.tempos.is_empty());
    assert_eq!(fleet.delivery().lift_site(lift).await.unwrap().into_inner().lifted, 0);
    fleet.assert_sound_so_far().await;
}

#[tokio::test]
async fn a_rate_climbs_back_by_itself_and_each_step_is_told() {
    let step_every = Duration::from_millis(300);
    let fleet = fleet(AimdPolicy { step_every, increase: 0.5, ..AimdPolicy::default() }).await;
    let id = fleet.submit(mail().to("busy-once@receiver.test")).await;
    fleet.settled(id).await;
    let slowed = change(&fleet, "busy").await;
    until("it is as fast as before", async || {
        let newest = site(&fleet).await.changes.into_iter().next().unwrap();
        newest.cause == "recovered" && newest.after.unwrap().rate == Some(100.0)
    })
    .await;
    let seen = site(&fleet).await;
    assert!(seen.tempos.is_empty(), "{:?}", seen.tempos);
    let rates: Vec<f64> = seen.changes.iter().rev().map(|one| one.after.unwrap().rate.unwrap()).collect();
    assert_eq!(rates.first().copied(), slowed.after.unwrap().rate);
    assert!(rates.is_sorted() && rates.len() >= 3, "{rates:?}");
    fleet.assert_sound_so_far().await;
}

#[tokio::test]
async fn a_campaign_that_a_site_does_not_want_waits_and_no_other_mail_with_it() {
    let mut fleet = Fleet::builder().without(Kind::Sender).start().await;
    let file = fleet.file(
        "reactions.toml",
        "version = \"ours\"\n[[reaction]]\nname = \"hold-campaign\"\nsites = [\"receiver.test\"]\ntexts = [\"over quota\", \
         \"full\"]\nscope = \"campaign\"\ncount = 2\ndo = \"suspend\"\nlasts = \"1h\"\nexamples = [\"552 5.2.2 mailbox full\"]\n",
    );
    fleet.settings.sender.reactions = file;
    fleet.launch(Kind::Sender, "sender").await;
    fleet.ready().await;
    let [one, other] = [1, 2].map(|number| format!("0190a0b0-0000-7000-8000-0000000000{number:02}"));
    let ids = fleet.submit_all(mail().campaign(&one).to_all(["full.a@receiver.test", "full.b@receiver.test"])).await;
    for id in ids {
        fleet.settled(id).await;
    }
    let held = change(&fleet, "hold-campaign").await;
    assert_eq!((held.campaign_id, held.route.as_str()), (one.clone(), ""));
    assert!(held.after.unwrap().suspended);

    let (_, ids) = fleet
        .submit_batch(mail().time_to_live(Duration::from_secs(7 * 24 * 3_600)).campaign(&one).to_all(addresses(
            20,
            "r",
            "receiver.test",
        )))
        .await;
    let free = fleet.submit_all(mail().campaign(&other).to_all(addresses(3, "free", "receiver.test"))).await;
    for id in free {
        assert_eq!(fleet.ended(id).await.state(), MessageState::Delivered);
    }
    fleet.at_rest().await;
    for id in ids.iter().flatten() {
        let seen = fleet.get(*id).await;
        assert_eq!((seen.state(), seen.attempts), (MessageState::Queued, 0), "a wait of our own is no attempt");
    }
    let lift = LiftSiteRequest { site: "receiver.test".to_owned(), route: String::new() };
    assert_eq!(fleet.delivery().lift_site(lift).await.unwrap().into_inner().lifted, 1);
    // The desks look for lifts once a second. What rests is due in an hour, and rests another one when it comes first.
    let last = ids.last().copied().flatten().unwrap();
    until("the suspension is over", async || {
        let queues = fleet.store.queues(None).await.unwrap();
        if queues.iter().all(|queue| queue.moving == 0 && queue.due == 0) {
            fleet.clock.advance(Duration::from_secs(3_601)).await;
        }
        fleet.get(last).await.state() == MessageState::Delivered
    })
    .await;
    for id in ids.into_iter().flatten() {
        assert_eq!(fleet.ended(id).await.state(), MessageState::Delivered);
    }
    fleet.assert_sound_so_far().await;
}

#[tokio::test]
async fn only_who_administers_the_fleet_sees_and_lifts_what_sites_say() {
    let fleet = Fleet::start().await;
    let mut mine = proto::v1::delivery_service_client::DeliveryServiceClient::new(fleet.line(&fleet.key));
    let request = DescribeSiteRequest { site: "receiver.test".to_owned(), changes: 0 };
    assert_eq!(mine.describe_site(request).await.unwrap_err().code(), tonic::Code::PermissionDenied);
    let request = DescribeSiteRequest { site: " ".to_owned(), changes: 201 };
    let refused = fleet.delivery().describe_site(request).await.unwrap_err();
    assert_eq!(mailfleet_tests::fields(&refused), ["changes"]);
}

#[tokio::test]
async fn a_site_that_takes_fewer_connections_is_not_left_alone_for_that() {
    let mut fleet = Fleet::builder().without(Kind::Sender).start().await;
    fleet.settings.shape(json!({"default": {"rate": "none", "connection_rate": "none"}}));
    // Longer than this test: once the site were left alone, nothing would come.
    fleet.settings.sender.desk.pause = Duration::from_secs(3600);
    fleet.launch(Kind::Sender, "sender").await;
    fleet.ready().await;
    let (_, ids) = fleet.submit_batch(mail().to_all(addresses(60, "r", "slow.test"))).await;
    until("connections above what the site takes are refused", async || fleet.sink.stats().refused > 0).await;
    until("all came", async || {
        fleet.clock.advance(Duration::from_secs(60)).await;
        fleet.sink.stats().accepted == 60
    })
    .await;
    for id in ids.into_iter().flatten() {
        assert_eq!(fleet.ended(id).await.state(), MessageState::Delivered);
    }
    fleet.assert_sound().await;
}
