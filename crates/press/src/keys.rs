//! Signing keys, opened and parsed once and looked up again when they have aged.

use crate::{PressConfig, PressError, Source, dkim_aad};
use content::{KeyAlgorithm, SigningKey};
use domain::{DomainName, TenantId};
use quick_cache::sync::Cache;
use service::Sealer;
use std::{sync::Arc, time::Duration};
use store::{DkimAlgorithm, SealedKey};
use tokio::time::Instant;

/// The keys of the domains in use.
pub(crate) struct Keys {
    cache: Cache<(TenantId, DomainName), Kept>,
    sealer: Arc<Sealer>,
    ttl: Duration,
}

#[derive(Clone)]
struct Kept {
    keys: Arc<[SigningKey]>,
    until: Instant,
}

impl Keys {
    pub(crate) fn new(config: &PressConfig, sealer: Arc<Sealer>) -> Self {
        Self { cache: Cache::new(config.key_cache_items.get()), sealer, ttl: config.key_ttl }
    }

    /// The active keys of a domain, none of one that is to be unsigned; concurrent callers share one look-up.
    pub(crate) async fn get(
        &self,
        source: &Source,
        tenant: TenantId,
        domain: &DomainName,
    ) -> Result<Arc<[SigningKey]>, PressError> {
        let name = (tenant, domain.clone());
        let now = Instant::now();
        let kept = match self.cache.get(&name) {
            Some(kept) if now < kept.until => kept,
            _ => {
                // Only what has aged: another caller may have put fresh ones there meanwhile.
                self.cache.remove_if(&name, |kept| now >= kept.until);
                self.cache.get_or_insert_async(&name, self.load(source, tenant, domain)).await?
            }
        };
        Ok(kept.keys)
    }

    async fn load(&self, source: &Source, tenant: TenantId, domain: &DomainName) -> Result<Kept, PressError> {
        let found = source.ask(async |store| store.sending_domain(tenant, domain).await).await?;
        let sealed = match found {
            Some((kept, _)) if kept.unsigned => Vec::new(),
            Some((_, keys)) if !keys.is_empty() => keys,
            _ => return Err(PressError::NoKey { domain: domain.clone() }),
        };
        let keys: Result<_, _> = sealed.iter().map(|key| self.open(domain, key)).collect();
        Ok(Kept { keys: keys?, until: Instant::now() + self.ttl })
    }

    fn open(&self, domain: &DomainName, sealed: &SealedKey) -> Result<SigningKey, PressError> {
        let id = sealed.id;
        let opened = self.sealer.open(&dkim_aad(id), &sealed.sealed_private_key);
        let der = opened.map_err(|_| PressError::Sealed { id })?;
        let algorithm = match sealed.algorithm {
            DkimAlgorithm::Rsa => KeyAlgorithm::Rsa,
            DkimAlgorithm::Ed25519 => KeyAlgorithm::Ed25519,
        };
        SigningKey::from_pkcs8(algorithm, domain.clone(), &sealed.selector, &der)
            .map_err(|source| PressError::Key { id, source })
    }
}
