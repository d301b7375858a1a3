//! The launchers against the real servers.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use mailfleet_testkit as testkit;
use std::path::PathBuf;
use testkit::{NatsOptions, NatsServer, PostgresOptions, PostgresServer};

/// A folder of its own for a test, empty.
fn folder(name: &str) -> PathBuf {
    let folder = testkit::shared::folder().join("launch").join(name);
    let _ = std::fs::remove_dir_all(&folder);
    folder
}

fn quick() -> PostgresOptions {
    PostgresOptions {
        fsync: false,
        shared_buffers: "16MB".to_owned(),
        stop_on_drop: true,
        ..PostgresOptions::default()
    }
}

#[tokio::test]
async fn a_private_postgres_is_found_again_survives_a_kill_and_ends_when_told() {
    let dir = folder("postgres");
    let mut first = PostgresServer::start(&dir, quick()).await.unwrap();
    let url = first.url("postgres");
    assert!(store::admin::create_database(&url, "kept", None).await.unwrap());

    let second = PostgresServer::start(&dir, quick()).await.unwrap();
    assert_eq!((second.pid(), second.url("postgres")), (first.pid(), url.clone()));
    drop(second);

    let pid = first.pid();
    first.kill9().await.unwrap();
    assert!(!PostgresServer::is_running(&dir));
    first.restart().await.unwrap();
    assert_ne!(first.pid(), pid);
    assert_eq!(first.url("postgres"), url);
    assert_eq!(store::admin::databases(&url, "kept").await.unwrap(), ["kept"]);

    first.stop().await.unwrap();
    assert!(!PostgresServer::is_running(&dir));
    let again = PostgresServer::start(&dir, quick()).await.unwrap();
    assert_eq!(again.url("postgres"), url);
}

#[tokio::test]
async fn data_goes_elsewhere_when_the_database_user_cannot_reach_the_folder() {
    use std::os::unix::fs::PermissionsExt;
    let closed = folder("closed");
    std::fs::create_dir_all(&closed).unwrap();
    std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o700)).unwrap();
    let dir = closed.join("postgres");
    let server = PostgresServer::start(&dir, quick()).await.unwrap();
    let (data, url) = (server.data_dir().to_owned(), server.url("postgres"));
    // Only root's instance runs as somebody else.
    assert_eq!(data.starts_with(&dir), rustix::process::geteuid().as_raw() != 0);
    let again = PostgresServer::start(&dir, quick()).await.unwrap();
    assert_eq!(again.url("postgres"), url);
    drop(server);
    PostgresServer::remove(&dir).await.unwrap();
    assert!(!data.exists() && !dir.exists());
}

#[tokio::test]
async fn a_postgres_that_cannot_start_says_why() {
    let dir = folder("postgres-broken");
    let settings = vec![("no_such_setting".to_owned(), "1".to_owned())];
    let error = PostgresServer::start(&dir, PostgresOptions { settings, ..quick() }).await.unwrap_err();
    assert!(error.to_string().contains("no_such_setting"), "{error}");
}

#[tokio::test]
async fn a_private_nats_is_found_again_and_forgets_when_wiped() {
    let dir = folder("nats");
    let options = NatsOptions { stop_on_drop: true, ..NatsOptions::default() };
    let mut first = NatsServer::start(&dir, options.clone()).await.unwrap();
    let second = NatsServer::start(&dir, options).await.unwrap();
    assert_eq!((second.pid(), second.url()), (first.pid(), first.url()));

    let stream = async_nats::jetstream::stream::Config {
        name: "KEPT".to_owned(),
        subjects: vec!["kept".to_owned()],
        ..Default::default()
    };
    let names = async |url: String| {
        let jetstream = async_nats::jetstream::new(async_nats::connect(url).await.unwrap());
        jetstream.get_stream("KEPT").await.is_ok()
    };
    let url = first.url();
    let jetstream = async_nats::jetstream::new(async_nats::connect(&url).await.unwrap());
    jetstream.create_stream(stream).await.unwrap();
    first.kill9().await.unwrap();
    first.restart().await.unwrap();
    assert_eq!(first.url(), url);
    assert!(names(url.clone()).await);
    first.wipe().await.unwrap();
    assert_eq!(first.url(), url);
    assert!(!names(url).await);
    first.stop().await.unwrap();
    assert!(!NatsServer::is_running(&dir));
}

#[tokio::test]
async fn the_shared_servers_are_the_same_for_all() {
    let shared = testkit::shared().await;
    let again = testkit::shared::start().await.unwrap();
    assert_eq!((&shared.database_url, &shared.nats_url), (&again.database_url, &again.nats_url));
    store::admin::databases(&shared.database_url, "postgres").await.unwrap();
}

#[tokio::test]
async fn every_test_has_an_empty_database_of_its_own_with_a_clock_of_its_own() {
    let (one, two) = (testkit::TestDatabase::create().await, testkit::TestDatabase::create().await);
    assert_ne!(one.name(), two.name());
    let (first, second) = (one.store().await, two.store().await);
    let before = second.now().await.unwrap();
    testkit::VirtualClock::of(&first).advance(std::time::Duration::from_secs(3_600)).await;
    let (ahead, here) = (first.now().await.unwrap(), second.now().await.unwrap());
    assert!(ahead - before >= chrono::TimeDelta::hours(1));
    assert!(here - before < chrono::TimeDelta::minutes(5));

    let (name, url) = (one.name().to_owned(), testkit::shared().await.database_url.clone());
    drop(one);
    assert!(!store::admin::databases(&url, &name).await.unwrap().contains(&name));
}
