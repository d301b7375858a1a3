//! The renderer between a real Postgres and a real broker.

#![allow(clippy::unwrap_used)]

mod fixture;
mod zone;

use bus::{BusConfig, Letter, MAX_MIME_BYTES};
use domain::{Closing, Lane, fact::FactKind};
use fixture::{Fleet, Mail, config, press_of, variables};
use mail_auth::DkimResult;
use press::Verdict;
use service::Sealer;
use std::{sync::Arc, time::Duration};
use store::Whereabouts;
use testkit::until;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chunk_becomes_finished_mail_that_another_implementation_verifies() {
    let fleet = Fleet::start().await;
    fleet.renderer(config()).await;
    let jobs = fleet.release(Lane::Bulk, &Mail::small(), &variables(20)).await;
    fleet.publish(jobs.clone()).await;
    let letters = fleet.letters(Lane::Bulk, jobs.len()).await;
    for (letter, job) in letters.iter().zip(&jobs) {
        assert_eq!((letter.job.message, letter.job.release), (job.message, job.release));
        assert!(letter.job.variables.is_empty(), "finished mail travels without its variables");
        assert!(letter.sender.as_str().ends_with("@bounce.sender.test"));
        let mime = letter.mime.as_deref().unwrap();
        assert_eq!(fleet.zone.verify(mime).await, [DkimResult::Pass, DkimResult::Pass]);
        let text = str::from_utf8(mime).unwrap();
        assert!(text.contains(&format!("To: {}\r\n", job.recipient)));
        assert!(text.contains(&format!("Hello {}", job.recipient.local())));
    }
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_variable_fails_its_recipient_alone_and_is_named() {
    let fleet = Fleet::start().await;
    fleet.renderer(config()).await;
    let mut given = variables(3);
    given[1] = "{}".to_owned();
    let jobs = fleet.release(Lane::Transactional, &Mail::small(), &given).await;
    fleet.publish(jobs.clone()).await;
    let letters = fleet.letters(Lane::Transactional, 2).await;
    assert_eq!(letters.iter().map(|letter| letter.job.message).collect::<Vec<_>>(), [jobs[0].message, jobs[2].message]);

    fleet.place(jobs[1].message, |place| *place == Whereabouts::Closed(Closing::Failed)).await;
    let view = fleet.store.message(None, jobs[1].message).await.unwrap().unwrap();
    let closing = view.events.iter().find(|event| event.kind == FactKind::Final).unwrap();
    assert_eq!(closing.detail.class.as_deref(), Some("missing_variable"));
    assert!(closing.detail.text.as_deref().unwrap().contains("variable name is missing"), "{:?}", closing.detail.text);
    for job in [&jobs[0], &jobs[2]] {
        fleet.place(job.message, |place| matches!(place, Whereabouts::Released { .. })).await;
    }
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_big_mail_travels_as_a_reference_that_its_sender_can_render() {
    let fleet = Fleet::start().await;
    fleet.renderer(config()).await;
    let jobs = fleet.release(Lane::Bulk, &Mail::of_size(MAX_MIME_BYTES + 1), &variables(2)).await;
    fleet.publish(jobs.clone()).await;
    for (letter, job) in fleet.letters(Lane::Bulk, 2).await.iter().zip(&jobs) {
        assert_eq!((&letter.mime, &letter.job), (&None, job));
        let rendered = fleet.press.render(&letter.job).await.unwrap();
        assert!(rendered.mime.len() > MAX_MIME_BYTES);
        assert_eq!(rendered.envelope.sender, letter.sender);
    }
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mail_that_the_broker_has_no_room_for_goes_back_to_rest() {
    let fleet = Fleet::with_bus(|bus| BusConfig { send_max_bytes: 32 * 1024, ..bus }).await;
    fleet.renderer(config()).await;
    let jobs = fleet.release(Lane::Bulk, &Mail::of_size(20_000), &variables(6)).await;
    fleet.publish(jobs.clone()).await;
    for job in &jobs {
        fleet.place(job.message, |place| matches!(place, Whereabouts::Waiting { attempt: 0, .. })).await;
    }
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chunk_that_comes_again_renders_to_the_same_bytes() {
    let fleet = Fleet::with_bus(|bus| BusConfig { ack_wait: Duration::from_millis(500), ..bus }).await;
    let jobs = fleet.release(Lane::Bulk, &Mail::small(), &variables(5)).await;
    fleet.publish(jobs.clone()).await;
    {
        // A renderer that dies between the delivery and the acknowledgement.
        let mut dying = fleet.bus.render_jobs(Lane::Bulk);
        dying.next().await;
    }
    fleet.renderer(config()).await;
    let first = fleet.letters(Lane::Bulk, 5).await;
    // Other members in the chunk, so another key: the broker takes it, and a second copy is rendered.
    fleet.publish(jobs[1..].to_vec()).await;
    let second = fleet.letters(Lane::Bulk, 4).await;
    assert_eq!(second, first[1..]);
    // A process that has cached nothing renders the same.
    let elsewhere = press_of(&fleet.store, Sealer::new(&fixture::MASTER_KEY));
    for Letter { job, mime, .. } in &first {
        let job = jobs.iter().find(|other| other.message == job.message).unwrap();
        assert_eq!(Some(elsewhere.render(job).await.unwrap().mime), *mime);
    }
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_does_not_open_keeps_mail_back_and_fails_none() {
    let fleet = Fleet::start().await;
    let press = press_of(&fleet.store, Sealer::new(&[9; 32]));
    fleet.renderer_with(config(), fleet.store.clone(), press).await;
    let jobs = fleet.release(Lane::Bulk, &Mail::small(), &variables(2)).await;
    fleet.publish(jobs.clone()).await;
    for job in &jobs {
        fleet.place(job.message, |place| matches!(place, Whereabouts::Waiting { .. })).await;
    }
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chunk_waits_with_the_broker_while_the_database_is_away() {
    let fleet = Fleet::start().await;
    let away = fleet.database.store().await;
    away.close().await;
    let press = press_of(&away, Sealer::new(&fixture::MASTER_KEY));
    let (life, metrics) = fleet.renderer_with(config(), away, press).await;
    let jobs = fleet.release(Lane::Bulk, &Mail::small(), &variables(2)).await;
    fleet.publish(jobs.clone()).await;
    until("the chunk is held", async || metrics.encode().contains("held_chunks_total{class=\"outage\"}")).await;
    assert!(life.drain(testkit::LIMIT).await, "ends when it is asked to");

    fleet.renderer(config()).await;
    assert_eq!(fleet.letters(Lane::Bulk, 2).await.len(), 2);
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_been_loaded_once_needs_the_database_no_more() {
    let fleet = Fleet::start().await;
    let store = fleet.database.store().await;
    let press = press_of(&store, Sealer::new(&fixture::MASTER_KEY));
    let jobs = fleet.release(Lane::Bulk, &Mail::small(), &variables(2)).await;
    let other = fleet.release(Lane::Bulk, &Mail::of_size(100), &variables(1)).await;
    let first = press.render(&jobs[0]).await.unwrap();
    store.close().await;
    assert_eq!(press.render(&jobs[0]).await.unwrap(), first);
    assert_ne!(press.render(&jobs[1]).await.unwrap(), first);
    assert_eq!(press.render(&other[0]).await.unwrap_err().verdict(), Verdict::Hold);
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn urgent_mail_overtakes_bulk_that_waits() {
    let fleet = Fleet::start().await;
    let bulk = fleet.release(Lane::Bulk, &Mail::of_size(50_000), &variables(300)).await;
    let urgent = fleet.release(Lane::Transactional, &Mail::small(), &variables(1)).await;
    fleet.publish(bulk.clone()).await;
    fleet.publish(urgent).await;
    let (_, metrics) = fleet.renderer(config()).await;
    fleet.letters(Lane::Transactional, 1).await;
    let done = "renderer_chunk_seconds_count{lane=\"bulk\"} 3";
    assert!(!metrics.encode().contains(done), "bulk was done before urgent mail");
    assert_eq!(fleet.letters(Lane::Bulk, bulk.len()).await.len(), bulk.len());
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_tenants_content_is_not_found() {
    let fleet = Fleet::start().await;
    let mut jobs = fleet.release(Lane::Bulk, &Mail::small(), &variables(1)).await;
    jobs[0].tenant = domain::TenantId::new(service::clock::now());
    let error = fleet.press.render(&jobs[0]).await.unwrap_err();
    assert_eq!(error.class(), "no_content");
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readiness_follows_the_neighbours() {
    let fleet = Fleet::start().await;
    let health = service::Health::new(service::Lifecycle::new());
    let press = Arc::clone(&fleet.press);
    let metrics = service::Metrics::new("test");
    let store = fleet.database.store().await;
    let renderer = mailfleet_renderer::Renderer::build(
        config(),
        fixture::shards(),
        store.clone(),
        fleet.bus.clone(),
        press,
        &metrics,
        &health,
    );
    assert!(!health.readiness().ok, "not ready before it runs");
    renderer.run(&fleet.life);
    until("it is ready", async || health.readiness().ok).await;
    store.close().await;
    until("it is not ready", async || !health.readiness().ok).await;
    assert_eq!(health.readiness().checks["nats"], "ok");
    fleet.end().await;
}
