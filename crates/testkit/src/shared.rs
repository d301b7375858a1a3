//! One Postgres and one NATS for the tests of every crate, which run as processes of their own, in parallel.
//!
//! `MAILFLEET_TEST_DATABASE_URL` and `MAILFLEET_TEST_NATS_URL` name servers that run; what is not named is
//! started under `target/testkit` by whoever needs it first, and goes on running for the next. Commits do not
//! wait for the disk there: a kill loses nothing, only a power loss would.

use crate::{
    LaunchError,
    nats::{NatsOptions, NatsServer},
    postgres::{FIRST_DATABASE, PostgresOptions, PostgresServer},
    process,
};
use std::path::PathBuf;
use tokio::sync::OnceCell;

/// The variable that names a running Postgres: the URL of a superuser on a database that is there.
pub const DATABASE_VARIABLE: &str = "MAILFLEET_TEST_DATABASE_URL";
/// The variable that names a running NATS.
pub const NATS_VARIABLE: &str = "MAILFLEET_TEST_NATS_URL";

/// Where the shared servers are.
#[derive(Clone, Debug)]
pub struct Shared {
    /// A superuser's URL; tests make databases of their own, see [`TestDatabase`](crate::TestDatabase).
    pub database_url: String,
    /// The broker; tests use subject prefixes of their own.
    pub nats_url: String,
}

static SHARED: OnceCell<Shared> = OnceCell::const_new();

/// The shared servers, started if need be.
///
/// # Panics
/// When they cannot be started: no test can go on then.
pub async fn shared() -> &'static Shared {
    SHARED
        .get_or_init(|| async {
            match start().await {
                Ok(shared) => shared,
                Err(error) => panic!("the servers for tests cannot be started: {}", chain(&error)),
            }
        })
        .await
}

/// Starts what the environment does not name; what `make test` calls before the tests.
///
/// # Errors
/// When a server is not installed or does not start.
pub async fn start() -> Result<Shared, LaunchError> {
    let given = |name| process::variable(name).and_then(|url| url.into_string().ok());
    let database_url = match given(DATABASE_VARIABLE) {
        Some(url) => url,
        None => PostgresServer::start(&folder().join("postgres"), postgres_options()).await?.url(FIRST_DATABASE),
    };
    let nats_url = match given(NATS_VARIABLE) {
        Some(url) => url,
        None => NatsServer::start(&folder().join("nats"), NatsOptions { max_mem: 2 << 30, ..NatsOptions::default() })
            .await?
            .url(),
    };
    Ok(Shared { database_url, nats_url })
}

/// Ends the servers under `target/testkit`, if they run.
///
/// # Errors
/// When one does not end.
pub async fn stop() -> Result<(), LaunchError> {
    let (postgres, nats) = (folder().join("postgres"), folder().join("nats"));
    if PostgresServer::is_running(&postgres) {
        PostgresServer::start(&postgres, postgres_options()).await?.stop().await?;
    }
    if NatsServer::is_running(&nats) {
        NatsServer::start(&nats, NatsOptions::default()).await?.stop().await?;
    }
    Ok(())
}

/// `target/testkit` of the workspace.
pub fn folder() -> PathBuf {
    let target = process::variable("CARGO_TARGET_DIR").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../target")),
        |given| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join(given),
    );
    let folder = target.join("testkit");
    // Short and without `..`, once it is there: a Unix socket has little room for its path.
    let _ = std::fs::create_dir_all(&folder);
    folder.canonicalize().unwrap_or(folder)
}

fn postgres_options() -> PostgresOptions {
    PostgresOptions {
        fsync: false,
        max_connections: 400,
        settings: [("wal_level", "minimal"), ("max_wal_senders", "0"), ("autovacuum_naptime", "10min")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        ..PostgresOptions::default()
    }
}

/// An error with its causes.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}
