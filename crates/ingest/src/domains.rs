//! `DomainService`.

use crate::{
    Fault,
    auth::Scope,
    clock::Clock,
    mail::{caller, one_fault},
    validate::Violation,
    wire::timestamp,
};
use content::{GeneratedKey, KeyAlgorithm, SigningKey};
use domain::{AddressError, DkimKeyId, DomainName, SendingDomainId};
use proto::v1::{
    CreateDomainRequest, CreateDomainResponse, DnsRecord, GetDomainRequest, GetDomainResponse, SendingDomain,
    domain_service_server::DomainService,
};
use service::Sealer;
use std::sync::Arc;
use store::{DkimAlgorithm, NewDkimKey, Store};
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status};

/// RSA keys that are generated at the same time: each takes a core for a good part of a second.
const MAX_GENERATIONS: usize = 1;

/// Keeps sending domains.
pub struct Domains {
    store: Store,
    clock: Clock,
    /// Absent when no master key is configured: then no key can be stored.
    sealer: Option<Arc<Sealer>>,
    generations: Semaphore,
}

impl Domains {
    /// Keeps sending domains in this store, their keys sealed.
    pub fn new(store: Store, clock: Clock, sealer: Option<Arc<Sealer>>) -> Self {
        Self { store, clock, sealer, generations: Semaphore::new(MAX_GENERATIONS) }
    }

    /// A key of each kind, sealed.
    async fn keys(&self, now: chrono::DateTime<chrono::Utc>) -> Result<Vec<NewDkimKey>, Fault> {
        let sealer = self.sealer.as_ref().ok_or_else(|| Fault::Internal(Box::new(NoMasterKey)))?;
        let generated = self.generate().await?;
        generated.iter().map(|key| self.seal(sealer, key, now)).collect()
    }

    async fn generate(&self) -> Result<[GeneratedKey; 2], Fault> {
        let _place = self.generations.acquire().await.map_err(|_| Fault::Stopping)?;
        let generate = || Ok([SigningKey::generate_rsa_2048()?, SigningKey::generate_ed25519()?]);
        let keys: Result<_, content::KeyError> =
            tokio::task::spawn_blocking(generate).await.map_err(|error| Fault::Internal(Box::new(error)))?;
        keys.map_err(|error| Fault::Internal(Box::new(error)))
    }

    fn seal(
        &self,
        sealer: &Sealer,
        key: &GeneratedKey,
        now: chrono::DateTime<chrono::Utc>,
    ) -> Result<NewDkimKey, Fault> {
        let id = DkimKeyId::new(now);
        let (algorithm, word) = match key.algorithm {
            KeyAlgorithm::Rsa => (DkimAlgorithm::Rsa, "r"),
            KeyAlgorithm::Ed25519 => (DkimAlgorithm::Ed25519, "e"),
        };
        // The month in the selector tells an operator the age of a key; both kinds stand side by side.
        let selector = format!("mf{}{word}", now.format("%y%m"));
        let sealed = sealer.seal(&press::dkim_aad(id), &key.pkcs8).map_err(|error| Fault::Internal(Box::new(error)))?;
        Ok(NewDkimKey { id, selector, algorithm, sealed_private_key: sealed, dns_txt: key.dns_txt.clone() })
    }
}

#[derive(Debug, thiserror::Error)]
#[error("no master key is configured: set secrets.master_key_file")]
struct NoMasterKey;

fn domain_name(field: &str, text: &str) -> Result<DomainName, Violation> {
    text.parse().map_err(|error: AddressError| {
        let problem = match error {
            AddressError::Empty => "is empty",
            _ => "is not a host name of two or more labels",
        };
        Violation::new(field, format!("{problem}; give a domain such as example.com"))
    })
}

fn wire<'a>(
    domain: &store::SendingDomain,
    keys: impl Iterator<Item = (DkimAlgorithm, &'a str, &'a str)>,
) -> SendingDomain {
    let name = domain.domain.as_str();
    let txt = |name: String, value: &str, purpose: &str| DnsRecord {
        r#type: "TXT".to_owned(),
        name,
        value: value.to_owned(),
        purpose: purpose.to_owned(),
    };
    let mut dns_records: Vec<DnsRecord> = keys
        .map(|(algorithm, selector, value)| {
            let purpose = format!("dkim-{}", algorithm.as_str());
            txt(format!("{selector}._domainkey.{name}"), value, &purpose)
        })
        .collect();
    dns_records.push(txt(format!("_dmarc.{name}"), "v=DMARC1; p=none", "dmarc"));
    SendingDomain {
        domain_id: domain.id.to_string(),
        domain: name.to_owned(),
        return_path_domain: domain.return_path_domain.as_str().to_owned(),
        created_at: Some(timestamp(domain.created_at)),
        dns_records,
        unsigned: domain.unsigned,
    }
}

#[tonic::async_trait]
impl DomainService for Domains {
    async fn create_domain(
        &self,
        request: Request<CreateDomainRequest>,
    ) -> Result<Response<CreateDomainResponse>, Status> {
        let tenant = caller(&request)?.tenant(Scope::Domains)?;
        let request = request.into_inner();
        let domain = domain_name("domain", &request.domain).map_err(one_fault)?;
        let return_path_domain = if request.return_path_domain.is_empty() {
            domain_name("domain", &format!("bounces.{domain}")).map_err(one_fault)?
        } else {
            domain_name("return_path_domain", &request.return_path_domain).map_err(one_fault)?
        };
        if !return_path_domain.is_within(domain.as_str()) {
            let text = "is not at or below domain; give one that is, so that SPF aligns";
            return Err(Fault::field("return_path_domain", text).into());
        }
        // Before keys are made, which is expensive; the store has the last word.
        if self.store.sending_domain(tenant, &domain).await.map_err(Fault::from)?.is_some() {
            return Err(Fault::NameTaken { what: "this sending domain" }.into());
        }
        let now = self.clock.machine_now();
        let keys = if request.unsigned { Vec::new() } else { self.keys(now).await? };
        let stored = store::SendingDomain {
            id: SendingDomainId::new(now),
            tenant,
            domain,
            return_path_domain,
            unsigned: request.unsigned,
            created_at: now,
        };
        self.store.create_sending_domain(&stored, &keys).await.map_err(Fault::from)?;
        tracing::info!(tenant.id = %tenant, domain.id = %stored.id, "created a sending domain");
        let keys = keys.iter().map(|key| (key.algorithm, key.selector.as_str(), key.dns_txt.as_str()));
        Ok(Response::new(CreateDomainResponse { domain: Some(wire(&stored, keys)) }))
    }

    async fn get_domain(&self, request: Request<GetDomainRequest>) -> Result<Response<GetDomainResponse>, Status> {
        let tenant = caller(&request)?.tenant(Scope::Domains)?;
        let domain = domain_name("domain", &request.get_ref().domain).map_err(one_fault)?;
        let found = self.store.sending_domain(tenant, &domain).await.map_err(Fault::from)?;
        let (stored, keys) = found.ok_or(Fault::NotFound { what: "sending domain" })?;
        let keys = keys.iter().map(|key| (key.algorithm, key.selector.as_str(), key.dns_txt.as_str()));
        Ok(Response::new(GetDomainResponse { domain: Some(wire(&stored, keys)) }))
    }
}
