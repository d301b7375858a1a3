//! What a call names in the database: sending domains and template versions, remembered for a short while.

use crate::{Fault, validate::TemplateName};
use domain::{ContentId, DomainName, TenantId};
use std::{
    collections::HashMap,
    hash::Hash,
    sync::{PoisonError, RwLock},
    time::Duration,
};
use store::Store;
use tokio::time::Instant;

/// Most entries of one kind remembered; above it all are forgotten.
const MAX_REMEMBERED: usize = 50_000;
/// A sending domain and a numbered version never change: they are remembered this many times as long as others.
const FIXED_TERMS: u32 = 600;

/// The domain that signs for an author, and the one that bounces go to.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The sending domain.
    pub signing: DomainName,
    /// The domain of return paths.
    pub return_path: DomainName,
}

/// Names, remembered.
pub struct Names {
    store: Store,
    term: Duration,
    identities: Memory<(TenantId, DomainName), Identity>,
    versions: Memory<(TenantId, TemplateName, u32), ContentId>,
}

impl Names {
    /// Remembers what may change for `term`.
    pub fn new(store: Store, term: Duration) -> Self {
        Self { store, term, identities: Memory::default(), versions: Memory::default() }
    }

    /// The sending domain of the tenant that covers an author's domain: the same one, or the nearest above it.
    ///
    /// # Errors
    /// When the tenant has none.
    pub async fn identity(&self, tenant: TenantId, author: &DomainName) -> Result<Identity, Fault> {
        let key = (tenant, author.clone());
        if let Some(identity) = self.identities.get(&key) {
            return Ok(identity);
        }
        let unknown = || Fault::SendingDomainUnknown { domain: author.as_str().to_owned() };
        let names = self.store.sending_domain_names(tenant).await?;
        let nearest = names.iter().filter(|name| author.is_within(name)).max_by_key(|name| name.len());
        let signing: DomainName = nearest.and_then(|name| name.parse().ok()).ok_or_else(unknown)?;
        let (domain, _) = self.store.sending_domain(tenant, &signing).await?.ok_or_else(unknown)?;
        let identity = Identity { signing, return_path: domain.return_path_domain };
        // A nearer one may be made later.
        let terms = if identity.signing == *author { FIXED_TERMS } else { 1 };
        self.identities.put(key, identity.clone(), self.term * terms);
        Ok(identity)
    }

    /// The content of a published version; 0: the latest.
    ///
    /// # Errors
    /// When the tenant has no such template or version.
    pub async fn version(&self, tenant: TenantId, template: &TemplateName, version: u32) -> Result<ContentId, Fault> {
        let key = (tenant, template.clone(), version);
        if let Some(content) = self.versions.get(&key) {
            return Ok(content);
        }
        let unknown = |field| Fault::TemplateUnknown { field };
        let id = match template {
            TemplateName::Id(id) => *id,
            TemplateName::Name(name) => {
                let found = self.store.template_named(tenant, name).await?;
                found.ok_or(unknown("mail.template.template"))?.id
            }
        };
        let found = self.store.template_version(tenant, id, version).await?;
        let (_, content) = found.ok_or(unknown("mail.template.version"))?;
        let terms = if version == 0 { 1 } else { FIXED_TERMS };
        self.versions.put(key, content, self.term * terms);
        Ok(content)
    }

    /// Forgets the latest version of a template, so that a publish here is seen at once.
    pub fn forget_latest(&self, tenant: TenantId) {
        self.versions.forget(|(owner, _, version)| *owner == tenant && *version == 0);
    }
}

struct Memory<K, V>(RwLock<HashMap<K, (Instant, V)>>);

impl<K, V> Default for Memory<K, V> {
    fn default() -> Self {
        Self(RwLock::default())
    }
}

impl<K: Eq + Hash, V: Clone> Memory<K, V> {
    fn get(&self, key: &K) -> Option<V> {
        let seen = self.0.read().unwrap_or_else(PoisonError::into_inner);
        seen.get(key).filter(|(until, _)| *until > Instant::now()).map(|(_, value)| value.clone())
    }

    fn put(&self, key: K, value: V, term: Duration) {
        let mut seen = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if seen.len() >= MAX_REMEMBERED {
            seen.clear();
        }
        seen.insert(key, (Instant::now() + term, value));
    }

    fn forget(&self, which: impl Fn(&K) -> bool) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).retain(|key, _| !which(key));
    }
}
