//! What the services stand on: Postgres and NATS, private ones or those that were named; the schema, the streams,
//! the keys.

use super::state::write_private;
use crate::{exit::Failure, operate::mint_admin_key};
use anyhow::Context;
use bus::{Bus, BusConfig};
use domain::ShardCount;
use ingest::keys::PresentedKey;
use service::Sealer;
use std::{
    fs,
    path::{Path, PathBuf},
};
use store::{Store, StoreConfig};
use testkit::{LaunchError, NatsOptions, NatsServer, PostgresOptions, PostgresServer};

/// The database of a private Postgres.
const DATABASE: &str = "mailfleet";

/// Postgres and NATS, ready to be used.
pub struct Neighbours {
    /// Where Postgres is, with its password.
    pub postgres_url: String,
    /// Where NATS is.
    pub nats_url: String,
    postgres: Option<PostgresServer>,
    nats: Option<NatsServer>,
}

impl Neighbours {
    /// Starts what was not named.
    pub async fn start(dir: &Path, postgres: Option<String>, nats: Option<String>) -> anyhow::Result<Self> {
        let (postgres, nats) = tokio::try_join!(start_postgres(dir, postgres), start_nats(dir, nats))?;
        Ok(Self { postgres_url: postgres.0, nats_url: nats.0, postgres: postgres.1, nats: nats.1 })
    }

    /// Stops what was started.
    pub async fn stop(&mut self) -> Result<(), LaunchError> {
        let nats = match &mut self.nats {
            Some(nats) => nats.stop().await,
            None => Ok(()),
        };
        if let Some(postgres) = &mut self.postgres {
            postgres.stop().await?;
        }
        nats
    }

    /// Stops private instances that a killed supervisor left behind.
    pub async fn stop_left_behind(dir: &Path) -> anyhow::Result<()> {
        if NatsServer::is_running(&nats_dir(dir)) {
            NatsServer::start(&nats_dir(dir), NatsOptions::default()).await.map_err(launch)?.stop().await?;
        }
        if PostgresServer::is_running(&postgres_dir(dir)) {
            PostgresServer::start(&postgres_dir(dir), postgres_options()).await.map_err(launch)?.stop().await?;
        }
        Ok(())
    }

    /// Brings schema and streams up to date.
    pub async fn prepare(&self) -> anyhow::Result<()> {
        store::migrate(&self.postgres_url).await?;
        let bus = Bus::connect(BusConfig { url: self.nats_url.clone(), ..BusConfig::default() }).await?;
        bus::topology::apply(&bus, ShardCount::default()).await?;
        Ok(())
    }

    /// The key that administers the fleet: the one of last time if the database knows it, else a new one.
    pub async fn admin_key(&self, dir: &Path) -> anyhow::Result<PathBuf> {
        let file = dir.join("admin.key");
        let config = StoreConfig { url: self.postgres_url.clone(), max_connections: 1, ..StoreConfig::default() };
        let store = Store::connect(&config).await?;
        let kept = fs::read_to_string(&file).ok().and_then(|text| PresentedKey::parse(text.trim()));
        let known = match kept {
            None => false,
            Some(kept) => store
                .api_key(kept.id)
                .await?
                .is_some_and(|key| key.revoked_at.is_none() && key.tenant.is_none() && kept.proves(&key.secret_sha256)),
        };
        if !known {
            let (_, token) = mint_admin_key(&store, "local fleet").await?;
            write_private(&file, format!("{token}\n").as_bytes())?;
        }
        store.close().await;
        Ok(file)
    }
}

/// The key that seals DKIM keys at rest; made at the first start.
pub fn master_key(dir: &Path) -> anyhow::Result<PathBuf> {
    let file = dir.join("master.key");
    if !file.exists() {
        Sealer::generate_key_file(&file)?;
    }
    Sealer::from_file(&file).context("the master key is damaged; `make clean-local` starts afresh")?;
    Ok(file)
}

async fn start_postgres(dir: &Path, url: Option<String>) -> anyhow::Result<(String, Option<PostgresServer>)> {
    if let Some(url) = url {
        return Ok((url, None));
    }
    let server = PostgresServer::start(&postgres_dir(dir), postgres_options()).await.map_err(launch)?;
    store::admin::create_database(&server.url(testkit::postgres::FIRST_DATABASE), DATABASE, None).await?;
    Ok((server.url(DATABASE), Some(server)))
}

async fn start_nats(dir: &Path, url: Option<String>) -> anyhow::Result<(String, Option<NatsServer>)> {
    if let Some(url) = url {
        return Ok((url, None));
    }
    let server = NatsServer::start(&nats_dir(dir), NatsOptions::default()).await.map_err(launch)?;
    Ok((server.url(), Some(server)))
}

/// A server that is not installed is for the user to mend.
fn launch(error: LaunchError) -> anyhow::Error {
    match error {
        error @ LaunchError::NoProgram { .. } => Failure::unavailable(format!("{error}; or run: make deps")),
        error => error.into(),
    }
}

fn postgres_options() -> PostgresOptions {
    PostgresOptions::default()
}

fn postgres_dir(dir: &Path) -> PathBuf {
    dir.join("postgres")
}

fn nats_dir(dir: &Path) -> PathBuf {
    dir.join("nats")
}
