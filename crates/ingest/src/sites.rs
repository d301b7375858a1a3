//! The site behind a recipient's domain, as far as it has been learned.

use domain::SiteId;
use std::{
    collections::HashMap,
    sync::{PoisonError, RwLock},
    time::Duration,
};
use store::Store;
use tokio::time::Instant;

/// Most domains remembered; above it all are forgotten.
const MAX_REMEMBERED: usize = 200_000;
/// A learned site rarely changes: it is remembered this many times as long as other names.
const LEARNED_TERMS: u32 = 300;
/// One that nobody has looked up yet soon will be.
const UNKNOWN_TERMS: u32 = 10;

/// Sites, remembered for a while.
pub struct Sites {
    store: Store,
    term: Duration,
    /// Until when, and which site.
    seen: RwLock<HashMap<String, (Instant, SiteId)>>,
}

impl Sites {
    /// Remembers learned sites for 300 of these terms, others for 10.
    pub fn new(store: Store, term: Duration) -> Self {
        Self { store, term, seen: RwLock::default() }
    }

    /// The sites of these domains, by domain. What is not known, or cannot be asked, is taken by its domain: the
    /// sender corrects it.
    pub async fn of<'a>(&self, domains: impl Iterator<Item = &'a str>) -> HashMap<&'a str, SiteId> {
        let mut sites = HashMap::new();
        let mut unknown = Vec::new();
        let now = Instant::now();
        {
            let seen = self.seen.read().unwrap_or_else(PoisonError::into_inner);
            for domain in domains {
                if sites.contains_key(domain) {
                    continue;
                }
                let site = match seen.get(domain).filter(|(until, _)| *until > now) {
                    Some((_, site)) => site.clone(),
                    None => {
                        let site = SiteId::of_domain(domain);
                        // A domain of a named site needs no look-up.
                        if site.as_str() == domain {
                            unknown.push(domain);
                        }
                        site
                    }
                };
                sites.insert(domain, site);
            }
        }
        if unknown.is_empty() {
            return sites;
        }
        let asked: Vec<String> = unknown.iter().map(|domain| (*domain).to_owned()).collect();
        match self.store.sites(&asked).await {
            Ok(mut learned) => {
                let mut seen = self.seen.write().unwrap_or_else(PoisonError::into_inner);
                if seen.len() + asked.len() > MAX_REMEMBERED {
                    seen.clear();
                }
                for (domain, owned) in unknown.into_iter().zip(asked) {
                    let (site, terms) = match learned.remove(domain) {
                        Some(site) => (site, LEARNED_TERMS),
                        None => (SiteId::of_domain(domain), UNKNOWN_TERMS),
                    };
                    seen.insert(owned, (now + self.term * terms, site.clone()));
                    sites.insert(domain, site);
                }
            }
            Err(error) => tracing::debug!(error = %service::Chain(&error), "could not look up sites"),
        }
        sites
    }
}
