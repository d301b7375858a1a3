//! The limits of a connection, which the server enforces.

use crate::desk::Desk;
use sqlx::postgres::PgConnectOptions;
use std::time::Duration;
use store::{Store, StoreConfig, StoreError};
use testkit::{Fault, FaultProxy};

/// The store under test waits less long than what it waits for.
async fn impatient(desk: &Desk, limit: impl FnOnce(&mut StoreConfig)) -> Store {
    let mut config = StoreConfig { url: desk.database.url(), ..StoreConfig::default() };
    limit(&mut config);
    Store::connect(&config).await.unwrap()
}

/// The SQLSTATE that the server ended a call with.
fn state(error: &StoreError) -> Option<String> {
    match error {
        StoreError::Statement { source } => source.as_database_error()?.code().map(|code| code.into_owned()),
        _ => None,
    }
}

#[tokio::test]
async fn who_waits_for_a_lock_longer_than_the_limit_is_told_to_try_again() {
    let desk = Desk::new().await;
    let message = desk.waiting("ada@receiver.test").await;
    let store = impatient(&desk, |config| config.lock_timeout = Duration::from_millis(50)).await;
    let pool = desk.pool().await;
    let mut held = pool.begin().await.unwrap();
    sqlx::query("lock table mailfleet.marks in access exclusive mode").execute(&mut *held).await.unwrap();
    let error = store.cancel_message(desk.tenant, message).await.unwrap_err();
    assert_eq!((state(&error).as_deref(), error.is_retryable()), (Some("55P03"), true), "{error:?}");
    held.rollback().await.unwrap();
    assert!(store.cancel_message(desk.tenant, message).await.unwrap());
}

#[tokio::test]
async fn a_statement_that_takes_longer_than_the_limit_is_ended_by_the_server() {
    let desk = Desk::new().await;
    let message = desk.waiting("ada@receiver.test").await;
    let store = impatient(&desk, |config| config.statement_timeout = Duration::from_millis(50)).await;
    let pool = desk.pool().await;
    let mut held = pool.begin().await.unwrap();
    sqlx::query("lock table mailfleet.marks in access exclusive mode").execute(&mut *held).await.unwrap();
    let error = store.cancel_message(desk.tenant, message).await.unwrap_err();
    assert_eq!((state(&error).as_deref(), error.is_retryable()), (Some("57014"), true), "{error:?}");
}

#[tokio::test]
async fn a_call_that_is_dropped_while_its_transaction_begins_leaves_none_open() {
    let desk = Desk::new().await;
    let url = desk.database.url();
    let server: PgConnectOptions = url.parse().unwrap();
    let server = format!("{}:{}", server.get_host(), server.get_port());
    let proxy = FaultProxy::start(&server).await.unwrap();
    let store = impatient(&desk, |config| {
        config.url = url.replace(&server, &proxy.address().to_string());
        config.max_connections = 1;
    })
    .await;
    let elsewhere = impatient(&desk, |config| config.lock_timeout = Duration::from_secs(1)).await;
    store.ping().await.unwrap();
    // Time enough between the `begin` and its answer to drop who waits for it.
    proxy.set(Fault::Delay(Duration::from_millis(300)));
    let before = proxy.passed();
    tokio::select! {
        answered = store.log_range() => panic!("{answered:?}"),
        () = testkit::until("more than a ping is sent", async || proxy.passed() > before + 20) => {}
    }
    proxy.set(Fault::Nothing);
    let message = desk.waiting("ada@receiver.test").await;
    assert!(store.cancel_message(desk.tenant, message).await.unwrap(), "in a transaction that may only read");
    assert!(elsewhere.cancel_message(desk.tenant, message).await.unwrap(), "its locks are held on");
}
