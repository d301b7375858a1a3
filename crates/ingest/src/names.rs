//! What a call names in the database: sending domains and template versions, remembered for a short while.

use crate::{Fault, validate::TemplateName};
use content::{Language, Rules};
use domain::{ContentId, DomainName, TemplateId, TenantId};
use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};
use store::Store;
use tokio::time::Instant;

/// Most entries of one kind remembered; above it all are forgotten.
const MAX_REMEMBERED: usize = 50_000;
/// The same for template versions, which may declare some kilobytes of variables.
const MAX_VERSIONS: usize = 5_000;
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

/// A published version that mail can be made from.
#[derive(Debug)]
pub struct Version {
    /// Its template.
    pub template: TemplateId,
    /// The compiled parts.
    pub content: ContentId,
    /// The compiled parts in other languages.
    pub translations: Vec<(Language, ContentId)>,
    /// What recipients have to give.
    pub rules: Rules,
}

impl Version {
    /// The content for a recipient who reads this language.
    pub fn content_for(&self, language: Option<&Language>) -> ContentId {
        let languages = self.translations.iter().map(|(language, _)| language);
        let chosen = language.and_then(|language| content::choose(language, self.rules.language.as_ref(), languages));
        chosen.map_or(self.content, |index| self.translations[index].1)
    }
}

/// Names, remembered.
pub struct Names {
    store: Store,
    term: Duration,
    require_verified: bool,
    identities: Memory<(TenantId, DomainName), Identity>,
    versions: Memory<(TenantId, TemplateName, u32), Arc<Version>>,
}

impl Names {
    /// Remembers what may change for `term`. With `require_verified` only verified domains are known.
    pub fn new(store: Store, term: Duration, require_verified: bool) -> Self {
        let (identities, versions) = (Memory::new(MAX_REMEMBERED), Memory::new(MAX_VERSIONS));
        Self { store, term, require_verified, identities, versions }
    }

    /// The sending domain of the tenant that covers an author's domain: the same one, or the nearest above it.
    ///
    /// # Errors
    /// When the tenant has none, or it is not verified.
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
        if self.require_verified && domain.verified_at.is_none() {
            return Err(Fault::SendingDomainUnverified { domain: signing.as_str().to_owned() });
        }
        let identity = Identity { signing, return_path: domain.return_path_domain };
        // A nearer one may be made later.
        let terms = if identity.signing == *author { FIXED_TERMS } else { 1 };
        self.identities.put(key, identity.clone(), self.term * terms);
        Ok(identity)
    }

    /// A published version; 0: the latest.
    ///
    /// # Errors
    /// When the tenant has no such template or version, or it is for other templates alone.
    pub async fn version(
        &self,
        tenant: TenantId,
        template: &TemplateName,
        version: u32,
    ) -> Result<Arc<Version>, Fault> {
        let key = (tenant, template.clone(), version);
        if let Some(known) = self.versions.get(&key) {
            return Ok(known);
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
        let found = Arc::new(read(id, found.ok_or(unknown("mail.template.version"))?)?);
        let terms = if version == 0 { 1 } else { FIXED_TERMS };
        self.versions.put(key, found.clone(), self.term * terms);
        Ok(found)
    }

    /// Forgets the latest version of a template, so that a publish here is seen at once.
    pub fn forget_latest(&self, tenant: TenantId) {
        self.versions.forget(|(owner, _, version)| *owner == tenant && *version == 0);
    }
}

/// A version as the store has it.
fn read(template: TemplateId, stored: store::TemplateVersion) -> Result<Version, Fault> {
    let internal = |error: serde_json::Error| Fault::Internal(Box::new(error));
    let rules = stored.rules.as_deref().map(serde_json::from_slice).transpose().map_err(internal)?;
    let languages =
        stored.translations.into_iter().map(|(language, content)| Ok((language.parse::<Language>()?, content)));
    let translations: Result<Vec<_>, content::LanguageError> = languages.collect();
    Ok(Version {
        template,
        content: stored.content.ok_or(Fault::TemplatePartial)?,
        translations: translations.map_err(|error| Fault::Internal(Box::new(error)))?,
        rules: rules.unwrap_or_default(),
    })
}

struct Memory<K, V> {
    seen: RwLock<HashMap<K, (Instant, V)>>,
    max: usize,
}

impl<K: Eq + Hash, V: Clone> Memory<K, V> {
    fn new(max: usize) -> Self {
        Self { seen: RwLock::default(), max }
    }

    fn get(&self, key: &K) -> Option<V> {
        let seen = self.seen.read().unwrap_or_else(PoisonError::into_inner);
        seen.get(key).filter(|(until, _)| *until > Instant::now()).map(|(_, value)| value.clone())
    }

    fn put(&self, key: K, value: V, term: Duration) {
        let mut seen = self.seen.write().unwrap_or_else(PoisonError::into_inner);
        if seen.len() >= self.max {
            seen.clear();
        }
        seen.insert(key, (Instant::now() + term, value));
    }

    fn forget(&self, which: impl Fn(&K) -> bool) {
        self.seen.write().unwrap_or_else(PoisonError::into_inner).retain(|key, _| !which(key));
    }
}
