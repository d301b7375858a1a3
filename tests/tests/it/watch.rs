//! Events as they happen, told in the order of the log.

use domain::{Lane, MessageId};
use mailfleet_tests::{Fleet, Kind, Line, mail, reason};
use proto::v1::{
    self, KeyScope, WatchEventsRequest, WatchEventsResponse, WatchedEvent, mail_service_client::MailServiceClient,
};
use std::{collections::BTreeMap, num::NonZeroUsize, time::Duration};
use testkit::{LIMIT, until};
use tonic::{Code, Status, Streaming};

/// Mails of a load.
const LOAD: usize = 200;

fn from(seq: u64) -> WatchEventsRequest {
    WatchEventsRequest { after_seq: Some(seq), ..WatchEventsRequest::default() }
}

async fn watch(
    client: &mut MailServiceClient<Line>,
    request: WatchEventsRequest,
) -> Result<Streaming<WatchEventsResponse>, Status> {
    Ok(client.watch_events(request).await?.into_inner())
}

async fn next(stream: &mut Streaming<WatchEventsResponse>) -> WatchEventsResponse {
    let response = tokio::time::timeout(LIMIT, stream.message()).await.expect("something is told in time");
    response.unwrap().expect("does not end")
}

/// The next `count` events, with their places.
async fn events(stream: &mut Streaming<WatchEventsResponse>, count: usize) -> Vec<(u64, WatchedEvent)> {
    let mut told = Vec::with_capacity(count);
    while told.len() < count {
        let WatchEventsResponse { seq, event } = next(stream).await;
        told.extend(event.map(|event| (seq, event)));
    }
    told
}

fn words(told: &[(u64, WatchedEvent)]) -> Vec<String> {
    told.iter().map(|(_, event)| event.event.clone().unwrap().event).collect()
}

/// That nothing is told twice and the places rise.
fn assert_rising(told: &[(u64, WatchedEvent)]) {
    assert!(told.windows(2).all(|pair| pair[0].0 < pair[1].0), "a place comes twice or too early");
}

#[tokio::test]
async fn a_watcher_that_comes_back_while_the_broker_is_wiped_misses_nothing_and_is_told_nothing_twice() {
    let mut fleet = Fleet::builder().private_nats().start().await;
    // The number of the accepts and deliveries of the load.
    const EVENTS: usize = 2 * LOAD;
    let mut client = fleet.mails();
    let mut stream = watch(&mut client, from(0)).await.unwrap();
    assert_eq!(next(&mut stream).await, WatchEventsResponse { seq: 0, event: None });
    let post = mail().to_all(crate::addresses(LOAD, "slow-20ms", "receiver.test"));
    let (_, ids) = fleet.submit_batch(post).await;
    let mut told = Vec::new();
    for _ in 0..4 {
        let piece = EVENTS / 5;
        told.extend(events(&mut stream, piece).await);
        fleet.nats().wipe().await.unwrap();
        // Cut off in the middle, with more on its way to him.
        drop(stream);
        stream = watch(&mut client, from(told.last().unwrap().0)).await.unwrap();
    }
    told.extend(events(&mut stream, EVENTS - told.len()).await);
    assert_rising(&told);
    let mut happened: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (_, event) in &told {
        happened.entry(event.message_id.clone()).or_default().push(event.event.clone().unwrap().event);
    }
    // A wipe may cost a release, never more.
    for id in ids.into_iter().flatten() {
        let mut words = happened.remove(&id.to_string()).unwrap_or_default();
        words.retain(|word| word != "lost_release");
        assert_eq!(words.first().map(String::as_str), Some("accepted"), "{id}: {words:?}");
    }
    assert!(happened.is_empty());
    // The rest, and the whole once more: the log tells everybody the same.
    let audit = async || fleet.store.audit().await.unwrap();
    until("all is over and folded", async || {
        let audit = audit().await;
        audit.open == 0 && audit.facts == 0
    })
    .await;
    let all = usize::try_from(audit().await.events).unwrap();
    told.extend(events(&mut stream, all - told.len()).await);
    let mut again = watch(&mut client, from(0)).await.unwrap();
    let again = events(&mut again, all).await;
    assert_eq!(again, told);
    assert_eq!(told.iter().map(|(seq, _)| *seq).collect::<Vec<_>>(), (1..=all as u64).collect::<Vec<_>>(), "no gap");
    drop(stream);
    fleet.assert_sound().await;
}

#[tokio::test]
async fn events_are_told_live_without_any_broker() {
    let mut fleet = Fleet::builder().private_nats().start().await;
    let mut client = fleet.mails();
    let mut stream = watch(&mut client, WatchEventsRequest::default()).await.unwrap();
    let begun = next(&mut stream).await;
    assert_eq!(begun.event, None);
    fleet.nats().stop().await.unwrap();
    let id = fleet.submit(mail().to("ann@receiver.test")).await;
    let told = events(&mut stream, 1).await;
    assert_eq!((told[0].1.message_id.clone(), words(&told)), (id.to_string(), vec!["accepted".to_owned()]));
    assert!(told[0].0 > begun.seq);
    fleet.nats().restart().await.unwrap();
    assert_eq!(words(&events(&mut stream, 1).await).len(), 1);
    drop(stream);
    fleet.ended(id).await;
    fleet.assert_sound().await;
}

#[tokio::test]
async fn a_stream_is_narrowed_by_kind_campaign_and_tag_and_bears_what_messages_are_called() {
    let fleet = Fleet::builder()
        .settings(|settings| settings.ingest.watch.heartbeat = Duration::from_millis(300))
        .start()
        .await;
    let campaign = "0190a0b0-0000-7000-8000-00000000c0de";
    let mut client = fleet.mails();
    let begin = async |client: &mut MailServiceClient<Line>, events: &[&str], campaign: &str, tag: &str| {
        let request = WatchEventsRequest {
            after_seq: Some(0),
            events: events.iter().map(|word| (*word).to_owned()).collect(),
            campaign_id: campaign.to_owned(),
            tag: tag.to_owned(),
        };
        watch(client, request).await.unwrap()
    };
    let mut bounced = begin(&mut client, &["bounced"], "", "").await;
    let mut tagged = begin(&mut client, &[], "", "invoice").await;
    let mut of_campaign = begin(&mut client, &["accepted", "delivered"], campaign, "").await;
    let plain = fleet.submit(mail().to("unknown@receiver.test")).await;
    let labelled = mail().to("ann@receiver.test").campaign(campaign).with(|mail| {
        mail.tags = vec!["invoice".to_owned()];
        mail.metadata = BTreeMap::from([("order".to_owned(), "17".to_owned())]);
    });
    let labelled = fleet.submit(labelled).await;
    let told = events(&mut bounced, 1).await;
    assert_eq!((told[0].1.message_id.as_str(), words(&told)), (&*plain.to_string(), vec!["bounced".to_owned()]));
    let told = events(&mut tagged, 2).await;
    assert_eq!(words(&told), ["accepted", "delivered"]);
    let event = &told[1].1;
    assert_eq!((event.message_id.as_str(), event.recipient.as_str()), (&*labelled.to_string(), "ann@receiver.test"));
    assert_eq!((&event.tags[..], &event.metadata["order"][..]), (&["invoice".to_owned()][..], "17"));
    assert_eq!(
        (event.campaign_id.as_str(), event.lane(), event.site.as_str()),
        (campaign, v1::Lane::Transactional, "receiver.test")
    );
    assert_eq!(event.event.as_ref().unwrap().smtp_code, 250);
    assert_eq!(words(&events(&mut of_campaign, 2).await), ["accepted", "delivered"]);
    // Nothing passes any more, and the place goes on all the same.
    let place = loop {
        let WatchEventsResponse { seq, event } = next(&mut bounced).await;
        assert_eq!(event, None);
        if seq >= 4 {
            break seq;
        }
    };
    assert_eq!(place, 4);
    drop((bounced, tagged, of_campaign));
    fleet.assert_sound().await;
}

#[tokio::test]
async fn watchers_are_few_read_alone_and_see_their_own_tenant_alone() {
    let fleet = Fleet::builder()
        .settings(|settings| {
            settings.ingest.watch.max_per_tenant = 2;
            settings.ingest.watch.max_watchers = 3;
        })
        .start()
        .await;
    let reads = fleet.new_key(&fleet.tenant, &[KeyScope::Read]).await;
    let (_, stranger) = fleet.new_tenant("stranger").await;
    let mut own = fleet.mails_with(&reads.api_key);
    let mut other = fleet.mails_with(&stranger);
    let mut stream = watch(&mut own, from(0)).await.unwrap();
    let second = watch(&mut own, from(0)).await.unwrap();
    let refused = watch(&mut own, from(0)).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::ResourceExhausted, "WATCHERS_EXHAUSTED"));
    let mut elsewhere = watch(&mut other, from(0)).await.unwrap();
    assert_eq!(reason(&watch(&mut other, from(0)).await.unwrap_err()), "WATCHERS_EXHAUSTED", "of the process");
    drop(second);
    until("the place is free again", async || watch(&mut own, from(0)).await.is_ok()).await;

    let id = fleet.submit(mail().to("ann@receiver.test")).await;
    assert_eq!(words(&events(&mut stream, 2).await), ["accepted", "delivered"]);
    let nothing = tokio::time::timeout(Duration::from_millis(500), events(&mut elsewhere, 1)).await;
    assert!(nothing.is_err(), "another tenant's event is told: {nothing:?}");

    let sends = fleet.new_key(&fleet.tenant, &[KeyScope::Send]).await.api_key;
    let refused = watch(&mut fleet.mails_with(&sends), from(0)).await.unwrap_err();
    assert_eq!(reason(&refused), "SCOPE_MISSING");
    drop(elsewhere);
    until("the future is refused", async || {
        let refused = watch(&mut other, from(1_000)).await.unwrap_err();
        reason(&refused) == "SEQ_OUT_OF_RANGE" && refused.code() == Code::OutOfRange
    })
    .await;
    let unknown = WatchEventsRequest { events: vec!["sent".to_owned()], ..from(0) };
    assert_eq!(watch(&mut other, unknown).await.unwrap_err().code(), Code::InvalidArgument);

    // A key that is revoked ends the stream that it began.
    fleet.tenants().revoke_api_key(v1::RevokeApiKeyRequest { api_key_id: reads.api_key_id }).await.unwrap();
    let ended = async {
        loop {
            // What happens wakes him.
            fleet.submit(mail().to("bob@receiver.test")).await;
            match stream.message().await {
                Ok(Some(_)) => {}
                ended => break ended,
            }
        }
    };
    let ended = tokio::time::timeout(LIMIT, ended).await.expect("ends in time");
    assert_eq!(ended.unwrap_err().code(), Code::Unauthenticated);
    fleet.ended(id).await;
    fleet.assert_sound().await;
}

#[tokio::test]
async fn who_does_not_read_is_held_back_and_told_everything_later() {
    let fleet = Fleet::builder()
        .settings(|settings| {
            settings.ingest.watch.page = 20;
            settings.ingest.watch.kept = NonZeroUsize::MIN;
        })
        .without(Kind::Dispatcher)
        .start()
        .await;
    let mut client = fleet.mails();
    let mut slow = watch(&mut client, from(0)).await.unwrap();
    let mut quick = watch(&mut client, from(0)).await.unwrap();
    // More than the windows of a connection and what is kept for all can hold: each event bears 10 KB.
    const MAILS: usize = 400;
    let heavy: BTreeMap<String, String> = (0..20).map(|key| (format!("k{key}"), "x".repeat(500))).collect();
    let mut ids: Vec<MessageId> = Vec::new();
    for chunk in crate::addresses(MAILS, "r", "receiver.test").chunks(50) {
        ids.extend(
            fleet.submit_all(mail().lane(Lane::Bulk).to_all(chunk).with(|mail| mail.metadata = heavy.clone())).await,
        );
        assert_eq!(events(&mut quick, chunk.len()).await.len(), chunk.len());
    }
    let told = events(&mut slow, MAILS).await;
    assert_rising(&told);
    let mut seen: Vec<String> = told.into_iter().map(|(_, event)| event.message_id).collect();
    let mut expected: Vec<String> = ids.iter().map(MessageId::to_string).collect();
    seen.sort_unstable();
    expected.sort_unstable();
    assert_eq!(seen, expected);
    drop((slow, quick));
    fleet.assert_sound_so_far().await;
}

#[tokio::test]
async fn a_service_that_stops_ends_its_streams_and_another_goes_on() {
    let mut fleet = Fleet::start().await;
    let mut client = fleet.mails();
    let mut stream = watch(&mut client, from(0)).await.unwrap();
    fleet.submit(mail().to("ann@receiver.test")).await;
    let told = events(&mut stream, 2).await;
    let (ended, ()) = tokio::join!(stream.message(), fleet.stop("ingest"));
    assert!(!matches!(ended, Ok(Some(_))), "{ended:?}");
    fleet.launch(Kind::Ingest, "ingest").await;
    let mut client = fleet.mails();
    let mut stream = watch(&mut client, from(told[1].0)).await.unwrap();
    fleet.submit(mail().to("bob@receiver.test")).await;
    let more = events(&mut stream, 2).await;
    assert!(more[0].0 > told[1].0);
    assert!(more.iter().all(|(_, event)| event.recipient == "bob@receiver.test"));
    drop(stream);
    fleet.assert_sound().await;
}
