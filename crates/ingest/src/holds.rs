//! What keeps a transactional message from going straight on its way: a pause, a burst for its slot, a broker that
//! is known to be down, too many that wait for their publish. Looked at before the commit, without a query.

use crate::{config::FastLaneConfig, launch::Launcher};
use bus::Bus;
use domain::{CampaignId, SiteId, Slot, TenantId};
use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError, RwLock},
};
use store::{PauseSelector, Store, StoreError};
use tokio::time::Instant;

/// What is known to hold mail back.
pub struct Holds {
    pauses: RwLock<Vec<PauseSelector>>,
    spent: Mutex<HashMap<Slot, (Instant, u32)>>,
    bus: Bus,
    launcher: Launcher,
    config: FastLaneConfig,
}

impl Holds {
    /// Knows of no pause yet: call [`Self::look`] before the first call is taken.
    pub fn new(bus: Bus, launcher: Launcher, config: FastLaneConfig) -> Self {
        Self { pauses: RwLock::default(), spent: Mutex::default(), bus, launcher, config }
    }

    /// Asks for the pauses in force.
    ///
    /// # Errors
    /// When the database does not answer; the last ones stay.
    pub async fn look(&self, store: &Store) -> Result<(), StoreError> {
        let pauses = store.pauses().await?.into_iter().map(|pause| pause.selector).collect();
        *self.pauses.write().unwrap_or_else(PoisonError::into_inner) = pauses;
        Ok(())
    }

    /// Whether a message may go straight; takes one of its slot's credit when it may.
    pub fn lets_go(&self, tenant: TenantId, campaign: Option<CampaignId>, site: &SiteId, slot: Slot) -> bool {
        self.bus.is_healthy()
            && self.launcher.pending() < self.config.max_pending
            && !self.is_paused(tenant, campaign, site, slot)
            && self.take(slot)
    }

    /// A pause of one queue counts for all, since the queue's number is not known here: what it does not match is
    /// released by the dispatcher at once.
    fn is_paused(&self, tenant: TenantId, campaign: Option<CampaignId>, site: &SiteId, slot: Slot) -> bool {
        let pauses = self.pauses.read().unwrap_or_else(PoisonError::into_inner);
        pauses.iter().any(|pause| {
            pause.tenant.is_none_or(|id| id == tenant)
                && pause.campaign.is_none_or(|id| Some(id) == campaign)
                && pause.slot.is_none_or(|paused| paused == slot)
                && pause.site.as_ref().is_none_or(|paused| paused == site)
        })
    }

    fn take(&self, slot: Slot) -> bool {
        let mut spent = self.spent.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let (since, number) = spent.entry(slot).or_insert((now, 0));
        if now.duration_since(*since) >= self.config.window {
            (*since, *number) = (now, 0);
        }
        let has = *number < self.config.credit;
        *number += u32::from(has);
        has
    }
}
