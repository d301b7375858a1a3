//! `DomainService`.

use crate::{
    Fault,
    auth::Scope,
    clock::Clock,
    config::DnsConfig,
    cursor::{self, List},
    mail::{caller, one_fault},
    records,
    validate::Violation,
    verify,
};
use content::{GeneratedKey, KeyAlgorithm, SigningKey};
use dns::Dns;
use domain::{AddressError, DkimKeyId, DomainName, SendingDomainId, TenantId};
use proto::v1::{
    ActivateDomainKeysRequest, ActivateDomainKeysResponse, CreateDomainRequest, CreateDomainResponse, GetDomainRequest,
    GetDomainResponse, ListDomainsRequest, ListDomainsResponse, RotateDomainKeysRequest, RotateDomainKeysResponse,
    SendingDomain, VerifyDomainRequest, VerifyDomainResponse, domain_service_server::DomainService,
};
use service::Sealer;
use std::sync::Arc;
use store::{DkimAlgorithm, DomainKey, KeyState, NewDkimKey, Store};
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status};

/// RSA keys that are generated at the same time: each takes a core for a good part of a second.
const MAX_GENERATIONS: usize = 1;
/// Most domains of a page.
pub const MAX_PAGE: u32 = 500;

/// Keeps sending domains.
pub struct Domains {
    store: Store,
    clock: Clock,
    /// Absent when no master key is configured: then no key can be stored.
    sealer: Option<Arc<Sealer>>,
    /// What to publish beside keys.
    dns: DnsConfig,
    generations: Arc<Semaphore>,
}

impl Domains {
    /// Keeps sending domains in this store, their keys sealed.
    pub fn new(store: Store, clock: Clock, sealer: Option<Arc<Sealer>>, dns: DnsConfig) -> Self {
        Self { store, clock, sealer, dns, generations: Arc::new(Semaphore::new(MAX_GENERATIONS)) }
    }

    /// A key of each kind, sealed, with selectors that none of `known` has.
    async fn keys(&self, known: &[DomainKey], now: chrono::DateTime<chrono::Utc>) -> Result<Vec<NewDkimKey>, Fault> {
        let sealer = self.sealer.as_ref().ok_or_else(|| Fault::Internal(Box::new(NoMasterKey)))?;
        let generated = self.generate().await?;
        generated.iter().map(|key| self.seal(sealer, key, known, now)).collect()
    }

    async fn find(&self, tenant: TenantId, name: &str) -> Result<(store::SendingDomain, Vec<DomainKey>), Fault> {
        let domain = domain_name("domain", name).map_err(one_fault)?;
        let found = self.store.sending_domain_with_keys(tenant, &domain).await?;
        found.ok_or(Fault::NotFound { what: "sending domain" })
    }

    fn wire(&self, (domain, keys): &(store::SendingDomain, Vec<DomainKey>)) -> SendingDomain {
        records::wire(domain, keys, &self.dns, self.clock.machine_now())
    }

    async fn generate(&self) -> Result<[GeneratedKey; 2], Fault> {
        let place = Arc::clone(&self.generations).acquire_owned().await.map_err(|_| Fault::Stopping)?;
        // The place is taken until the work is done, also when nobody waits for it any more.
        let generate = move || {
            let keys = Ok([SigningKey::generate_rsa_2048()?, SigningKey::generate_ed25519()?]);
            drop(place);
            keys
        };
        let keys: Result<_, content::KeyError> =
            tokio::task::spawn_blocking(generate).await.map_err(|error| Fault::Internal(Box::new(error)))?;
        keys.map_err(|error| Fault::Internal(Box::new(error)))
    }

    fn seal(
        &self,
        sealer: &Sealer,
        key: &GeneratedKey,
        known: &[DomainKey],
        now: chrono::DateTime<chrono::Utc>,
    ) -> Result<NewDkimKey, Fault> {
        let id = DkimKeyId::new(now);
        let (algorithm, word) = match key.algorithm {
            KeyAlgorithm::Rsa => (DkimAlgorithm::Rsa, "r"),
            KeyAlgorithm::Ed25519 => (DkimAlgorithm::Ed25519, "e"),
        };
        let selector = selector(&format!("mf{}{word}", now.format("%y%m")), known);
        let sealed = sealer.seal(&press::dkim_aad(id), &key.pkcs8).map_err(|error| Fault::Internal(Box::new(error)))?;
        Ok(NewDkimKey { id, selector, algorithm, sealed_private_key: sealed, dns_txt: key.dns_txt.clone() })
    }
}

/// The month in the selector tells an operator the age of a key; both kinds stand side by side. A selector is never
/// used twice: what caches hold of the old key would refuse the new one's mail.
fn selector(base: &str, known: &[DomainKey]) -> String {
    let free = |selector: &String| known.iter().all(|key| key.selector != *selector);
    let numbered = (2..).map(|number| format!("{base}{number}"));
    std::iter::once(base.to_owned()).chain(numbered).find(free).expect("there are more numbers than keys")
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

#[tonic::async_trait]
impl DomainService for Domains {
    async fn create_domain(
        &self,
        request: Request<CreateDomainRequest>,
    ) -> Result<Response<CreateDomainResponse>, Status> {
        let caller = caller(&request)?;
        let tenant = caller.tenant(Scope::Domains)?;
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
        let keys = if request.unsigned { Vec::new() } else { self.keys(&[], now).await? };
        let stored = store::SendingDomain {
            id: SendingDomainId::new(now),
            tenant,
            domain,
            return_path_domain,
            unsigned: request.unsigned,
            created_at: now,
            verified_at: None,
        };
        let store = caller.acting(&self.store, "DomainService.CreateDomain");
        store.create_sending_domain(&stored, &keys).await.map_err(Fault::from)?;
        tracing::info!(tenant.id = %tenant, domain.id = %stored.id, "created a sending domain");
        let made = self.find(tenant, stored.domain.as_str()).await?;
        Ok(Response::new(CreateDomainResponse { domain: Some(self.wire(&made)) }))
    }

    async fn get_domain(&self, request: Request<GetDomainRequest>) -> Result<Response<GetDomainResponse>, Status> {
        let tenant = caller(&request)?.tenant(Scope::Domains)?;
        let found = self.find(tenant, &request.get_ref().domain).await?;
        Ok(Response::new(GetDomainResponse { domain: Some(self.wire(&found)) }))
    }

    async fn list_domains(
        &self,
        request: Request<ListDomainsRequest>,
    ) -> Result<Response<ListDomainsResponse>, Status> {
        let tenant = caller(&request)?.tenant(Scope::Domains)?;
        let request = request.get_ref();
        let size = cursor::size(request.page_size, MAX_PAGE).map_err(one_fault)?;
        let name = |parts: &[&str]| parts.first().map(|name| (*name).to_owned());
        let list = List::of("domains", Some(tenant), &());
        let after = list.place(&request.page_token, name).map_err(one_fault)?.unwrap_or_default();
        let mut found = self.store.sending_domains(tenant, &after, size + 1).await.map_err(Fault::from)?;
        let next_page_token = list.cut(&mut found, size, |(domain, _)| vec![domain.domain.as_str().to_owned()]);
        let domains = found.iter().map(|domain| self.wire(domain)).collect();
        Ok(Response::new(ListDomainsResponse { domains, next_page_token }))
    }

    async fn rotate_domain_keys(
        &self,
        request: Request<RotateDomainKeysRequest>,
    ) -> Result<Response<RotateDomainKeysResponse>, Status> {
        let caller = caller(&request)?;
        let tenant = caller.tenant(Scope::Domains)?;
        let name = &request.get_ref().domain;
        let (domain, keys) = self.find(tenant, name).await?;
        if domain.unsigned {
            return Err(Fault::DomainUnsigned { domain: domain.domain.as_str().to_owned() }.into());
        }
        // Before keys are made, which is expensive; the store has the last word.
        if keys.iter().all(|key| key.state != KeyState::Pending) {
            let now = self.clock.machine_now();
            let made = self.keys(&keys, now).await?;
            let store = caller.acting(&self.store, "DomainService.RotateDomainKeys");
            store.rotate_domain_keys(tenant, domain.id, &made, now).await.map_err(Fault::from)?;
            tracing::info!(tenant.id = %tenant, domain.id = %domain.id, "made pending keys of a sending domain");
        }
        let found = self.find(tenant, name).await?;
        Ok(Response::new(RotateDomainKeysResponse { domain: Some(self.wire(&found)) }))
    }

    async fn verify_domain(
        &self,
        request: Request<VerifyDomainRequest>,
    ) -> Result<Response<VerifyDomainResponse>, Status> {
        let caller = caller(&request)?;
        let tenant = caller.tenant(Scope::Domains)?;
        let name = &request.get_ref().domain;
        let mut found = self.find(tenant, name).await?;
        let idle = found.1.iter().filter(|key| key.state != KeyState::Active);
        let idle: Vec<String> = idle.map(|key| format!("{}._domainkey.{}", key.selector, found.0.domain)).collect();
        // Anew for each call: what the system says of its resolvers may have changed.
        let dns = Dns::new(&self.dns.servers, self.dns.within).map_err(|error| Fault::Internal(Box::new(error)))?;
        let checks = verify::check(&dns, &self.wire(&found), &idle).await;
        if found.0.verified_at.is_none() && verify::is_good(&checks) {
            let store = caller.acting(&self.store, "DomainService.VerifyDomain");
            let now = self.clock.machine_now();
            store.verify_sending_domain(tenant, found.0.id, now).await.map_err(Fault::from)?;
            tracing::info!(tenant.id = %tenant, domain.id = %found.0.id, "verified a sending domain");
            found = self.find(tenant, name).await?;
        }
        Ok(Response::new(VerifyDomainResponse { domain: Some(self.wire(&found)), checks }))
    }

    async fn activate_domain_keys(
        &self,
        request: Request<ActivateDomainKeysRequest>,
    ) -> Result<Response<ActivateDomainKeysResponse>, Status> {
        let caller = caller(&request)?;
        let tenant = caller.tenant(Scope::Domains)?;
        let ActivateDomainKeysRequest { domain: name, selectors } = request.get_ref();
        if selectors.is_empty() {
            return Err(Fault::field("selectors", "is empty; name the pending keys, as GetDomain shows them").into());
        }
        let (domain, _) = self.find(tenant, name).await?;
        let store = caller.acting(&self.store, "DomainService.ActivateDomainKeys");
        let selectors = selectors.iter().cloned().collect();
        let now = self.clock.machine_now();
        if !store.activate_domain_keys(tenant, domain.id, &selectors, now).await.map_err(Fault::from)? {
            return Err(Fault::NoPendingKeys { domain: domain.domain.as_str().to_owned() }.into());
        }
        tracing::info!(tenant.id = %tenant, domain.id = %domain.id, "activated the pending keys of a sending domain");
        let found = self.find(tenant, name).await?;
        Ok(Response::new(ActivateDomainKeysResponse { domain: Some(self.wire(&found)) }))
    }
}
