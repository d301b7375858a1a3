//! A database per test, copied from a template to which all migrations have been applied.

use crate::{
    LaunchError,
    process::{self, is_alive},
    shared::{self, chain, shared},
    wait,
};
use std::{
    collections::HashSet,
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    path::Path,
    sync::{
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
    time::Duration,
};
use store::{Store, StoreConfig, StoreError, admin};
use tokio::sync::OnceCell;

/// Names of the databases of tests: this, the process, and a number within it.
const PREFIX: &str = "mailfleet_test_";
/// Names of templates: this and a hash of the migrations.
const TEMPLATE: &str = "mailfleet_template_";
/// How long a copy is tried while somebody still holds the template.
const COPY_LIMIT: Duration = Duration::from_secs(30);
/// How long a test waits until its database is dropped.
const DROP_LIMIT: Duration = Duration::from_secs(2);

static TEMPLATE_NAME: OnceCell<String> = OnceCell::const_new();
static NUMBER: AtomicU32 = AtomicU32::new(0);

/// A migrated, empty database. Dropped with this value, or, when the test failed, by a later run.
#[derive(Debug)]
pub struct TestDatabase {
    server: String,
    name: String,
}

impl TestDatabase {
    /// Makes one on the shared Postgres.
    ///
    /// # Panics
    /// When that fails: the test cannot go on then.
    pub async fn create() -> Self {
        match Self::try_create().await {
            Ok(database) => database,
            Err(error) => panic!("no database for the test: {}", chain(&error)),
        }
    }

    async fn try_create() -> Result<Self, LaunchError> {
        let server = shared().await.database_url.clone();
        let template = TEMPLATE_NAME.get_or_try_init(|| template(&server)).await?;
        let name = format!("{PREFIX}{}_{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let mut last = None;
        // The server refuses while anybody, such as its own vacuum, is connected to the template.
        let made =
            wait::eventually(COPY_LIMIT, async || match admin::create_database(&server, &name, Some(template)).await {
                Ok(_) => Some(()),
                Err(error) => {
                    last = Some(error);
                    None
                }
            });
        match (made.await, last) {
            (None, Some(source)) => Err(LaunchError::Database { what: "make", name, source }),
            _ => Ok(Self { server, name }),
        }
    }

    /// `postgres://…` of this database.
    pub fn url(&self) -> String {
        on(&self.server, &self.name)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A pool of up to 8 connections to it.
    ///
    /// # Panics
    /// When it cannot be reached.
    pub async fn store(&self) -> Store {
        let config = StoreConfig { url: self.url(), application: "test".to_owned(), ..StoreConfig::default() };
        Store::connect(&config).await.expect("the test database was made a moment ago")
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // Kept to be looked at; a later run drops it.
            return;
        }
        let (server, name) = (self.server.clone(), self.name.clone());
        // A thread and runtime of its own: the test's may be about to end, and this must be done first. But not for ever:
        // the server waits for whoever is just connecting, who may be of this test and wait for this very thread.
        let (done, dropped) = mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let dropped = runtime.map(|runtime| runtime.block_on(admin::drop_database(&server, &name)));
            let _late = done.send(matches!(dropped, Ok(Ok(()))));
        });
        if !matches!(dropped.recv_timeout(DROP_LIMIT), Ok(true)) {
            tracing::warn!(database = %self.name, "test database not dropped");
        }
    }
}

/// The same server, another database.
fn on(url: &str, database: &str) -> String {
    let (base, query) = url.split_once('?').map_or((url, None), |(base, query)| (base, Some(query)));
    let server = match base.find("://").and_then(|at| base[at + 3..].find('/').map(|slash| at + 3 + slash)) {
        Some(slash) => &base[..slash],
        None => base,
    };
    match query {
        Some(query) => format!("{server}/{database}?{query}"),
        None => format!("{server}/{database}"),
    }
}

/// The template for the present migrations, made by whoever comes first while the others wait.
async fn template(server: &str) -> Result<String, LaunchError> {
    let mut hash = DefaultHasher::new();
    for migration in store::MIGRATOR.iter() {
        (migration.version, &migration.checksum).hash(&mut hash);
    }
    let name = format!("{TEMPLATE}{:016x}", hash.finish());
    let folder = shared::folder().join("template");
    let _lock = process::lock(&folder).await?;
    let failed = |what: &'static str| {
        let name = name.clone();
        move |source: StoreError| LaunchError::Database { what, name, source }
    };
    sweep(server).await.map_err(failed("sweep before"))?;
    // Says that the migrations of that database went through; one without may be half made.
    let done = folder.join(&name);
    let there = admin::databases(server, &name).await.map_err(failed("look for"))?.contains(&name);
    if there && is_of(&done, server) {
        return Ok(name);
    }
    admin::drop_database(server, &name).await.map_err(failed("drop"))?;
    admin::create_database(server, &name, None).await.map_err(failed("make"))?;
    store::migrate(&on(server, &name)).await.map_err(failed("migrate"))?;
    fs::write(&done, server).map_err(|source| LaunchError::Files { what: "write", path: done, source })?;
    Ok(name)
}

fn is_of(done: &Path, server: &str) -> bool {
    fs::read_to_string(done).is_ok_and(|written| written == server)
}

/// Drops the databases of processes that are gone, unless the server is another machine's, whose processes
/// nobody here can see.
async fn sweep(server: &str) -> Result<(), StoreError> {
    if !["@127.0.0.1", "@localhost", "@[::1]", "//127.0.0.1", "//localhost"].iter().any(|local| server.contains(local))
    {
        return Ok(());
    }
    let mut living = HashSet::new();
    for name in admin::databases(server, PREFIX).await? {
        let Some(pid) = name[PREFIX.len()..].split('_').next().and_then(|pid| pid.parse().ok()) else { continue };
        if !living.contains(&pid) {
            if is_alive(pid) {
                living.insert(pid);
            } else {
                admin::drop_database(server, &name).await?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_can_name_another_database() {
        for (given, made) in [
            ("postgres://u:p@127.0.0.1:1/postgres", "postgres://u:p@127.0.0.1:1/x"),
            ("postgres://u@h", "postgres://u@h/x"),
            ("postgres://u@h/a?sslmode=disable", "postgres://u@h/x?sslmode=disable"),
        ] {
            assert_eq!(on(given, "x"), made);
        }
    }
}
