//! The servers that a fleet stands on: shared ones, or private ones that a test may kill.

use std::{
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
};
use testkit::{NatsOptions, NatsServer, PostgresOptions, PostgresServer, TestDatabase, shared};

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// Where the database is.
pub(crate) enum Database {
    /// On the shared server.
    Shared(TestDatabase),
    /// On a server of its own.
    Private { server: Box<PostgresServer>, url: String },
}

impl Database {
    pub(crate) fn url(&self) -> String {
        match self {
            Self::Shared(database) => database.url(),
            Self::Private { url, .. } => url.clone(),
        }
    }

    /// A new one on a server of its own.
    pub(crate) async fn private(folder: &Folder) -> Self {
        let options =
            PostgresOptions { fsync: false, stop_on_drop: true, max_connections: 100, ..PostgresOptions::default() };
        let server = PostgresServer::start(&folder.path().join("postgres"), options).await.unwrap();
        store::admin::create_database(&server.url("postgres"), "mailfleet", None).await.unwrap();
        let url = server.url("mailfleet");
        store::migrate(&url).await.unwrap();
        Self::Private { server: Box::new(server), url }
    }
}

/// A broker of its own.
pub(crate) async fn private_nats(folder: &Folder) -> NatsServer {
    let options = NatsOptions { stop_on_drop: true, ..NatsOptions::default() };
    NatsServer::start(&folder.path().join("nats"), options).await.unwrap()
}

/// The shared broker's URL.
pub(crate) async fn shared_nats() -> String {
    shared().await.nats_url.clone()
}

/// A folder that goes away with its value.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        let name = format!("e2e-{}", tag());
        let path = testkit::shared::folder().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &std::path::Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left of a failed test may be of use; what cannot be deleted harms nobody.
        if !std::thread::panicking() {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}

/// A name that no other fleet of this machine has now.
pub(crate) fn tag() -> String {
    format!("{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed))
}
