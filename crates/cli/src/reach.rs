//! How a command finds the fleet: by what it was told, else by what the local fleet left in its folder.

use crate::{args::Global, exit::Failure, fleet::State};
use anyhow::Context;
use bus::{Bus, BusConfig};
use client::Client;
use domain::TenantId;
use proto::v1::GetTenantRequest;
use serde::{Deserialize, Serialize};
use service::{FleetConfig, Layers, PostgresConfig};
use std::{fs, path::PathBuf, time::Duration};
use store::{Store, StoreConfig};

/// Longest time for one of the command's own statements; an audit sets its own.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);

/// The sections that the commands read.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Sections {
    pub fleet: FleetConfig,
    pub nats: BusConfig,
    pub postgres: PostgresConfig,
}

/// The way to a fleet.
#[derive(Clone, Debug)]
pub struct Reach {
    global: Global,
}

impl Reach {
    /// By these options.
    pub fn new(global: &Global) -> Self {
        Self { global: global.clone() }
    }

    /// The local fleet, when one runs.
    pub fn local(&self) -> anyhow::Result<Option<State>> {
        State::running(&self.global.dir)
    }

    fn local_or_fail(&self, instead: &str) -> anyhow::Result<State> {
        self.local()?.ok_or_else(|| {
            Failure::config(format!(
                "no local fleet runs in {}; start one with `mailfleet up`, or name another with {instead}",
                self.global.dir.display()
            ))
        })
    }

    /// The configuration file: the one named, or the local fleet's.
    fn config_file(&self) -> anyhow::Result<PathBuf> {
        match &self.global.config {
            Some(file) => Ok(file.clone()),
            None => Ok(self.local_or_fail("--config FILE")?.config),
        }
    }

    /// The shared sections of the configuration.
    pub fn sections(&self) -> anyhow::Result<Sections> {
        let layers = Layers::load(Some(&self.config_file()?)).map_err(|error| Failure::config(error.to_string()))?;
        layers.read().map_err(|error| Failure::config(error.to_string()))
    }

    /// The senders' section of the configuration, where there is a configuration to read.
    pub fn sender(&self) -> Option<sender::SenderConfig> {
        #[derive(Default, Serialize, Deserialize)]
        #[serde(default)]
        struct OfSenders {
            sender: sender::SenderConfig,
        }
        let layers = Layers::load(Some(&self.config_file().ok()?)).ok()?;
        layers.read().ok().map(|OfSenders { sender }| sender)
    }

    /// The database, after a look at its schema.
    pub async fn store(&self) -> anyhow::Result<Store> {
        Ok(Store::connect(&store_config(&self.sections()?.postgres)?).await?)
    }

    /// The URL of the database.
    pub fn postgres_url(&self) -> anyhow::Result<String> {
        postgres_url(&self.sections()?.postgres)
    }

    /// The broker.
    pub async fn bus(&self) -> anyhow::Result<(Bus, FleetConfig)> {
        let sections = self.sections()?;
        Ok((Bus::connect(sections.nats).await?, sections.fleet))
    }

    /// The API, acting for the tenant that was named.
    pub async fn api(&self) -> anyhow::Result<Client> {
        let api = self.api_of_fleet().await?;
        match &self.global.tenant {
            None => Ok(api),
            Some(tenant) => {
                let id = self.tenant_id(tenant).await?;
                Ok(api.with_key(&self.key()?, Some(&id.to_string()))?)
            }
        }
    }

    /// The API, acting for a tenant: the one named, or the only one there is.
    pub async fn api_for_tenant(&self) -> anyhow::Result<Client> {
        if self.global.tenant.is_some() || self.global.api_key_file.is_some() {
            return self.api().await;
        }
        let tenants = self.store().await?.tenants().await?;
        let id = match tenants.as_slice() {
            [only] => only.id,
            [] => return Err(Failure::finding("there is no tenant yet; `mailfleet demo` makes one")),
            several => {
                let names: Vec<&str> = several.iter().map(|tenant| tenant.name.as_str()).take(10).collect();
                return Err(Failure::usage(format!("name the tenant with --tenant: {}", names.join(", "))));
            }
        };
        Ok(self.api_of_fleet().await?.with_key(&self.key()?, Some(&id.to_string()))?)
    }

    async fn api_of_fleet(&self) -> anyhow::Result<Client> {
        let endpoint = match &self.global.endpoint {
            Some(endpoint) => endpoint.clone(),
            None => self.local_or_fail("--endpoint URL")?.endpoint,
        };
        Ok(Client::builder(endpoint).key(&self.key()?).connect().await?)
    }

    fn key(&self) -> anyhow::Result<String> {
        let file = match &self.global.api_key_file {
            Some(file) => file.clone(),
            None => self.local_or_fail("--api-key-file FILE")?.admin_key_file,
        };
        fs::read_to_string(&file)
            .map(|key| key.trim().to_owned())
            .map_err(|error| Failure::config(format!("cannot read the API key in {}: {error}", file.display())))
    }

    /// The tenant that was named, by its id.
    pub async fn named_tenant(&self) -> anyhow::Result<Option<TenantId>> {
        match &self.global.tenant {
            None => Ok(None),
            Some(tenant) => self.tenant_id(tenant).await.map(Some),
        }
    }

    /// A tenant by its name or id.
    pub async fn tenant_id(&self, tenant: &str) -> anyhow::Result<TenantId> {
        if let Ok(id) = tenant.parse() {
            return Ok(id);
        }
        // Whoever names an endpoint need not reach the database.
        if self.global.endpoint.is_some() {
            let request = GetTenantRequest { tenant: tenant.to_owned() };
            let answer = self.api_of_fleet().await?.tenants().get_tenant(request).await;
            let found = answer.context("cannot look up the tenant by its name; give its id instead")?.into_inner();
            return Ok(found.tenant.unwrap_or_default().tenant_id.parse()?);
        }
        let store = self.store().await.context("cannot look up the tenant by its name; give its id instead")?;
        let tenants = store.tenants().await?;
        tenants
            .iter()
            .find(|known| known.name == tenant)
            .map(|known| known.id)
            .ok_or_else(|| Failure::finding(format!("there is no tenant {tenant:?}")))
    }
}

/// The URL with the password out of its file, when it has one.
pub fn postgres_url(config: &PostgresConfig) -> anyhow::Result<String> {
    let url = config.url.expose().to_owned();
    let Some(file) = &config.password_file else { return Ok(url) };
    let password = file.read().map_err(|error| Failure::config(error.to_string()))?;
    let joint = if url.contains('?') { '&' } else { '?' };
    Ok(format!("{url}{joint}password={}", escaped(&password)))
}

/// What the command needs of the database: one connection or two, and patience.
fn store_config(config: &PostgresConfig) -> anyhow::Result<StoreConfig> {
    Ok(StoreConfig {
        url: postgres_url(config)?,
        max_connections: 2,
        acquire_timeout: config.acquire_timeout,
        call_timeout: CALL_TIMEOUT,
        statement_timeout: CALL_TIMEOUT,
        application: "mailfleet-command".to_owned(),
        ..StoreConfig::default()
    })
}

/// A text as part of a URL's query.
fn escaped(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
            byte => format!("%{byte:02X}"),
        })
        .collect()
}
