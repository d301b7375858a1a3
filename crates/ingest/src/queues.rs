//! `QueueService`.

use crate::{
    Fault,
    auth::{Caller, Scope},
    clock::Clock,
    dead_letters,
    holds::Holds,
    mail::{caller, one_fault},
    validate::{self, Faults, Violation, campaign, free_text, reason},
    wire::{timestamp, unsigned},
};
use bus::Bus;
use domain::{SiteId, TenantId};
use proto::v1::{
    Lane, ListDeadLettersRequest, ListDeadLettersResponse, ListQueuesRequest, ListQueuesResponse, Pause,
    PauseQueueRequest, PauseQueueResponse, Queue, QueueSelector, RequeueDeadLettersRequest, RequeueDeadLettersResponse,
    ResumeQueueRequest, ResumeQueueResponse, queue_service_server::QueueService,
};
use std::sync::Arc;
use store::{PauseSelector, QueueView, Store};
use tonic::{Request, Response, Status};

/// Longest name of a site: a host name.
const MAX_SITE: usize = 253;

/// Shows queues and holds them back.
pub struct Queues {
    /// Where they are.
    pub store: Store,
    /// The time.
    pub clock: Clock,
    /// Learns of a pause at once.
    pub holds: Arc<Holds>,
    /// Rings when something is resumed.
    pub bus: Bus,
}

/// The selector as this caller may use it.
fn selector(caller: &Caller, given: Option<QueueSelector>) -> Result<PauseSelector, Fault> {
    caller.require(Scope::Send)?;
    let given = given.unwrap_or_default();
    let mut faults = Faults::default();
    let tenant =
        given.tenant_id.as_deref().and_then(|text| faults.take(validate::id::<TenantId>("selector.tenant_id", text)));
    let campaign = match given.campaign_id.as_deref() {
        Some(text) => faults.take(campaign("selector.campaign_id", text)).flatten(),
        None => None,
    };
    let slot = given.slot.as_deref().and_then(|text| {
        let fault =
            |_| Violation::new("selector.slot", "is not a slot; give a named site such as google, or h0 to h63");
        faults.take(text.parse().map_err(fault))
    });
    let site = given.site.and_then(|text| {
        faults.take(free_text("selector.site", &text, MAX_SITE))?;
        Some(SiteId::from_stored(text)).filter(|site| !site.as_str().is_empty())
    });
    let asked = PauseSelector { tenant, campaign, queue: given.queue_id, slot, site };
    if asked == PauseSelector::default() && faults.is_empty() {
        faults.add("selector", "chooses nothing; give at least one field");
    }
    let asked = faults.finish(Some(asked))?;
    if caller.is_admin() {
        return Ok(asked);
    }
    let own = caller.tenant(Scope::Send)?;
    if asked.tenant.is_some_and(|other| other != own) {
        return Err(Fault::NotFound { what: "tenant" });
    }
    if asked.slot.is_some() || asked.site.is_some() {
        return Err(Fault::ScopeMissing { scope: Scope::Admin.as_str() });
    }
    Ok(PauseSelector { tenant: Some(own), ..asked })
}

fn wire_selector(selector: PauseSelector) -> QueueSelector {
    QueueSelector {
        tenant_id: selector.tenant.map(|id| id.to_string()),
        campaign_id: selector.campaign.map(|id| id.to_string()),
        queue_id: selector.queue,
        slot: selector.slot.map(|slot| slot.to_string()),
        site: selector.site.map(|site| site.to_string()),
    }
}

/// The lane for the wire.
pub const fn wire_lane(lane: domain::Lane) -> Lane {
    match lane {
        domain::Lane::Transactional => Lane::Transactional,
        domain::Lane::Bulk => Lane::Bulk,
    }
}

fn wire_queue(queue: QueueView) -> Queue {
    Queue {
        queue_id: queue.id,
        tenant_id: queue.key.tenant.to_string(),
        campaign_id: queue.key.campaign.map_or_else(String::new, |id| id.to_string()),
        lane: wire_lane(queue.key.lane).into(),
        slot: queue.key.slot.to_string(),
        site: queue.key.site.map_or_else(String::new, |site| site.to_string()),
        waiting: unsigned(queue.waiting),
        moving: unsigned(queue.moving),
        next_due: queue.first_due.map(timestamp),
        paused: queue.paused,
        due: unsigned(queue.due),
    }
}

impl Queues {
    /// A pause is known here at once, everywhere else within a look.
    async fn look(&self) {
        if let Err(error) = self.holds.look(&self.store).await {
            tracing::debug!(error = %service::Chain(&error), "could not look up pauses");
        }
    }
}

#[tonic::async_trait]
impl QueueService for Queues {
    async fn pause_queue(&self, request: Request<PauseQueueRequest>) -> Result<Response<PauseQueueResponse>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let selector = selector(&caller, request.selector)?;
        let reason = reason("reason", &request.reason).map_err(one_fault)?;
        let store = caller.acting(&self.store, "QueueService.PauseQueue");
        store.pause(&selector, &reason, self.clock.now()).await.map_err(Fault::from)?;
        self.look().await;
        tracing::info!(api_key.id = %caller.key_id(), ?selector, "paused queues");
        Ok(Response::new(PauseQueueResponse {}))
    }

    async fn resume_queue(
        &self,
        request: Request<ResumeQueueRequest>,
    ) -> Result<Response<ResumeQueueResponse>, Status> {
        let caller = caller(&request)?;
        let selector = selector(&caller, request.into_inner().selector)?;
        let store = caller.acting(&self.store, "QueueService.ResumeQueue");
        let resumed = store.resume(&selector).await.map_err(Fault::from)?;
        self.look().await;
        if let Some(queue) = selector.queue {
            self.bus.ring(&[queue]).await;
        }
        tracing::info!(api_key.id = %caller.key_id(), ?selector, resumed, "resumed queues");
        Ok(Response::new(ResumeQueueResponse { resumed }))
    }

    async fn list_queues(&self, request: Request<ListQueuesRequest>) -> Result<Response<ListQueuesResponse>, Status> {
        let tenant = caller(&request)?.tenant_or_all(Scope::Read)?;
        let queues = self.store.queues(tenant).await.map_err(Fault::from)?;
        let pauses = self.store.pauses().await.map_err(Fault::from)?;
        let pauses = pauses.into_iter().filter(|pause| tenant.is_none() || pause.selector.tenant == tenant);
        Ok(Response::new(ListQueuesResponse {
            queues: queues.into_iter().map(wire_queue).collect(),
            pauses: pauses
                .map(|pause| Pause {
                    selector: Some(wire_selector(pause.selector)),
                    reason: pause.reason,
                    since: Some(timestamp(pause.created_at)),
                })
                .collect(),
        }))
    }

    async fn list_dead_letters(
        &self,
        request: Request<ListDeadLettersRequest>,
    ) -> Result<Response<ListDeadLettersResponse>, Status> {
        let caller = caller(&request)?;
        Ok(Response::new(dead_letters::list(self, &caller, request.get_ref()).await?))
    }

    async fn requeue_dead_letters(
        &self,
        request: Request<RequeueDeadLettersRequest>,
    ) -> Result<Response<RequeueDeadLettersResponse>, Status> {
        let caller = caller(&request)?;
        Ok(Response::new(dead_letters::requeue(self, &caller, request.get_ref()).await?))
    }
}
