//! What is around a fleet: its start and end, its configuration, a tenant with domains and a template.

use super::Options;
use crate::mail::{Letter, PLAIN, SIGNED, SUBJECT};
use anyhow::{Context, bail};
use mailfleet_tests::Line;
use proto::v1::{
    CreateApiKeyRequest, CreateDomainRequest, CreateTemplateRequest, CreateTenantRequest, KeyScope,
    PublishTemplateVersionRequest, domain_service_client::DomainServiceClient, publish_template_version_request::Body,
    template_service_client::TemplateServiceClient, tenant_service_client::TenantServiceClient,
};
use serde_json::Value;
use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};
use store::{Store, StoreConfig};

/// The template's name.
pub const TEMPLATE: &str = "bench";

/// Makes a tenant with a key.
pub async fn tenant(admin: Line) -> anyhow::Result<(String, String)> {
    let mut tenants = TenantServiceClient::new(admin);
    let tenant_id =
        tenants.create_tenant(CreateTenantRequest { name: "bench".to_owned() }).await?.into_inner().tenant_id;
    let scopes = [KeyScope::Send, KeyScope::Read, KeyScope::Templates, KeyScope::Domains];
    let request = CreateApiKeyRequest {
        tenant_id: tenant_id.clone(),
        name: "bench".to_owned(),
        scopes: scopes.map(i32::from).to_vec(),
        expires_at: None,
    };
    Ok((tenant_id, tenants.create_api_key(request).await?.into_inner().api_key))
}

/// Makes a domain that signs, one that does not, and the template.
pub async fn furnish(line: &Line, letter: &Letter) -> anyhow::Result<()> {
    let mut domains = DomainServiceClient::new(line.clone());
    for (domain, unsigned) in [(SIGNED, false), (PLAIN, true)] {
        let request = CreateDomainRequest { domain: domain.to_owned(), unsigned, ..CreateDomainRequest::default() };
        domains.create_domain(request).await?;
    }
    let mut templates = TemplateServiceClient::new(line.clone());
    templates.create_template(CreateTemplateRequest { name: TEMPLATE.to_owned() }).await?;
    let version = PublishTemplateVersionRequest {
        template: TEMPLATE.to_owned(),
        subject: SUBJECT.to_owned(),
        body: Some(Body::Html(letter.html.clone())),
        ..PublishTemplateVersionRequest::default()
    };
    templates.publish_template_version(version).await?;
    Ok(())
}

/// An operator's command.
pub fn command(
    mailfleet: &Path,
    folder: &Path,
    sink_port: u16,
    options: &Options,
    words: &[&str],
) -> anyhow::Result<()> {
    let status = settings(&mut Command::new(mailfleet), sink_port, options)
        .arg("--dir")
        .arg(folder)
        .args(words)
        // The last line of the benchmark's own output is its summary.
        .stdout(Stdio::null())
        .status()
        .with_context(|| format!("cannot run {}; build it with --release first", mailfleet.display()))?;
    if status.success() { Ok(()) } else { bail!("mailfleet {} failed", words.join(" ")) }
}

/// Mail goes to the benchmark's sink, and no faster limit holds it than the machine's.
pub fn settings<'a>(command: &'a mut Command, sink_port: u16, options: &Options) -> &'a mut Command {
    command
        .env_remove("DATABASE_URL")
        .env_remove("NATS_URL")
        .env("MAILFLEET_SENDER__ROUTE__PORT", sink_port.to_string())
        // The relay stands for all receivers: what is measured are their limits.
        .env("MAILFLEET_SENDER__ROUTE__MAX_CONNECTIONS", "10000")
        .env("MAILFLEET_SENDER__SHAPING__DEFAULT__RATE", "none")
        .env("MAILFLEET_SENDER__SHAPING__DEFAULT__CONNECTION_RATE", "none")
        .env("MAILFLEET_SENDER__SHAPING__DEFAULT__MESSAGES_PER_CONNECTION", "1000");
    if let Some(most) = options.max_connections {
        command.env("MAILFLEET_SENDER__SHAPING__DEFAULT__MAX_CONNECTIONS", most.to_string());
    }
    command
}

pub async fn store(folder: &Path) -> anyhow::Result<(Store, String)> {
    let config: toml::Table = fs::read_to_string(folder.join("mailfleet.toml"))?.parse()?;
    let url = config["postgres"]["url"].as_str().context("the configuration names no database")?.to_owned();
    let config = StoreConfig { url: url.clone(), max_connections: 1, ..StoreConfig::default() };
    Ok((Store::connect(&config).await?, url))
}

/// The broker's process: its launcher keeps the number in its folder.
pub fn nats(folder: &Path) -> anyhow::Result<u32> {
    let kept = fs::read(folder.join("nats/instance.json")).context("no broker of the fleet's own runs")?;
    let kept: Value = serde_json::from_slice(&kept)?;
    kept["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok()).context("the broker has no process")
}
