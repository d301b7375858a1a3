//! One Postgres and one NATS for the tests of every crate, which run as processes of their own, in parallel.
//!
//! `MAILFLEET_TEST_DATABASE_URL` and `MAILFLEET_TEST_NATS_URL` name servers that run; what is not named is
//! started under `target/testkit` by whoever needs it first, and goes on running for the next. Commits do not
//! wait for the disk there: a kill loses nothing, only a power loss would.

use crate::{
    LaunchError,
    nats::{NatsOptions, NatsServer},
    postgres::{FIRST_DATABASE, PostgresOptions, PostgresServer},
    process::{self, is_alive},
};
use serde::Deserialize;
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

/// Pages of streams, of about a thousand each, that are looked through for those to delete.
const MAX_PAGES: usize = 20;

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
        None => {
            let options = NatsOptions { max_mem: 2 << 30, ..NatsOptions::default() };
            let url = NatsServer::start(&folder().join("nats"), options).await?.url();
            if let Err(error) = sweep(&url).await {
                tracing::warn!(%error, "cannot delete the streams of tests that are gone");
            }
            url
        }
    };
    Ok(Shared { database_url, nats_url })
}

/// Deletes the streams of processes that are gone: those that were killed would fill the broker's memory.
async fn sweep(url: &str) -> Result<(), async_nats::Error> {
    #[derive(Deserialize)]
    struct Names {
        /// Nothing beyond the last page.
        streams: Option<Vec<String>>,
        total: usize,
    }
    let client = async_nats::connect(url).await?;
    let mut seen = 0;
    for _ in 0..MAX_PAGES {
        let page = serde_json::json!({"offset": seen}).to_string();
        let answer = client.request("$JS.API.STREAM.NAMES", page.into()).await?;
        let Names { streams, total } = serde_json::from_slice(&answer.payload)?;
        let streams = streams.unwrap_or_default();
        for name in &streams {
            if process_of(name).is_some_and(|pid| !is_alive(pid)) {
                client.request(format!("$JS.API.STREAM.DELETE.{name}"), "".into()).await?;
            } else {
                seen += 1;
            }
        }
        if streams.is_empty() || seen >= total {
            break;
        }
    }
    Ok(())
}

/// The process that made a stream: its prefix is a word and the process's id, as in `E2E4711-1_SEND_0`.
fn process_of(stream: &str) -> Option<i32> {
    let head = stream.split(['-', '_']).next()?;
    let digits = head.len() - head.trim_end_matches(|c: char| c.is_ascii_digit()).len();
    head[head.len() - digits..].parse().ok()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_streams_of_processes_that_are_gone_are_deleted_and_no_others() {
        let folder = std::env::temp_dir().join(format!("mailfleet-sweep-{}", std::process::id()));
        let options = NatsOptions { stop_on_drop: true, ..NatsOptions::default() };
        let server = NatsServer::start(&folder, options).await.unwrap();
        let client = async_nats::connect(server.url()).await.unwrap();
        let (gone, alive) = (4_194_305, std::process::id());
        let names =
            [format!("E2E{gone}-1_SEND_0"), format!("REND{gone}_A"), format!("E2E{alive}-1_SEND_0"), "OURS".into()];
        for name in &names {
            let stream = serde_json::json!({"name": name, "subjects": [format!("{name}.>")], "storage": "memory"});
            client.request(format!("$JS.API.STREAM.CREATE.{name}"), stream.to_string().into()).await.unwrap();
        }
        sweep(&server.url()).await.unwrap();
        let answer = client.request("$JS.API.STREAM.NAMES", "".into()).await.unwrap();
        let left: serde_json::Value = serde_json::from_slice(&answer.payload).unwrap();
        assert_eq!(left["streams"], serde_json::json!([names[2], names[3]]));
        drop(server);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
