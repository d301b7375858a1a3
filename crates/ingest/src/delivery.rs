//! `DeliveryService`: how fast sites are sent to and why, and the plans of routes that are warmed up.

use crate::{
    Fault,
    auth::{Caller, Scope},
    mail::{caller, one_fault},
    validate::{Faults, Violation, free_text},
    wire::{self, duration, timestamp, unsigned},
};
use chrono::{DateTime, Utc};
use domain::{
    DomainName, SiteId,
    tempo::{Levels, TempoState},
    warmup::{DAY, Ladder, MAX_RUNGS, Overflow},
};
use proto::v1::{
    DescribeSiteRequest, DescribeSiteResponse, LiftSiteRequest, LiftSiteResponse, ListWarmupsRequest,
    ListWarmupsResponse, RemoveWarmupRequest, RemoveWarmupResponse, SetWarmupRequest, SetWarmupResponse, SiteEvents,
    Tempo, TempoChange, TempoLevels, Warmup, WarmupDay, WarmupOverflow, delivery_service_server::DeliveryService,
};
use std::time::Duration;
use store::{NewWarmup, Store, TempoPlace};
use tonic::{Request, Response, Status};

/// Longest name of a site: a host name.
const MAX_SITE: usize = 253;
/// Longest name of a route.
const MAX_ROUTE: usize = 32;
/// Changes told when nothing is said.
const CHANGES: u32 = 20;
/// Most changes told.
const MAX_CHANGES: u32 = 200;
/// Shortest time over which a day's cap spreads.
const SHORTEST_SPREAD: Duration = Duration::from_secs(60);

/// Shows and steers how sites are sent to.
pub struct Delivery {
    /// Where it is kept.
    pub store: Store,
}

fn admin<T>(request: &Request<T>) -> Result<Caller, Fault> {
    let caller = caller(request)?;
    caller.require(Scope::Admin)?;
    Ok(caller)
}

fn route(field: &str, text: &str) -> Result<String, Violation> {
    let is_fit = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if text.is_empty() || text.len() > MAX_ROUTE || !text.bytes().all(is_fit) {
        let fix = "is not a route; give its name in the senders' configuration: 1 to 32 characters a-z, 0-9 and -";
        return Err(Violation::new(field, fix));
    }
    Ok(text.to_owned())
}

impl Delivery {
    /// The site that somebody means: of a recipient domain, that which has been learned.
    async fn site(&self, field: &str, text: &str) -> Result<SiteId, Fault> {
        free_text(field, text, MAX_SITE).map_err(one_fault)?;
        if text.trim().is_empty() {
            let fix = "is missing; give a site such as google, a host name, or a recipient domain";
            return Err(one_fault(Violation::new(field, fix)));
        }
        let text = text.trim().to_lowercase();
        let Ok(domain) = text.parse::<DomainName>() else { return Ok(SiteId::from_stored(text)) };
        let named = SiteId::of_domain(domain.as_str());
        if named.as_str() != domain.as_str() {
            return Ok(named);
        }
        let learned = self.store.sites(&[domain.as_str().to_owned()]).await?;
        Ok(learned.into_values().next().unwrap_or(named))
    }
}

fn levels(levels: Levels) -> TempoLevels {
    TempoLevels {
        rate: levels.rate,
        connections: levels.connections.get().into(),
        messages_per_connection: levels.messages_per_connection.get().into(),
        suspended: levels.suspended,
    }
}

fn tempo(place: TempoPlace, state: TempoState, now: DateTime<Utc>) -> Tempo {
    let at = |left: Duration| chrono::Duration::from_std(left).ok().map(|left| timestamp(now + left));
    Tempo {
        route: place.route,
        tenant_id: place.tenant.map(|id| id.to_string()).unwrap_or_default(),
        campaign_id: place.campaign.map(|id| id.to_string()).unwrap_or_default(),
        rate: state.rate.map(|(rate, _)| rate),
        rate_climbs_at: state.rate.filter(|(_, left)| !left.is_zero()).and_then(|(_, left)| at(left)),
        connections: state.connections.map(|(value, _)| value.get().into()),
        connections_until: state.connections.and_then(|(_, left)| at(left)),
        messages_per_connection: state.messages_per_connection.map(|(value, _)| value.get().into()),
        messages_per_connection_until: state.messages_per_connection.and_then(|(_, left)| at(left)),
        suspended_until: state.suspended.and_then(at),
    }
}

fn change(change: store::TempoChange) -> TempoChange {
    TempoChange {
        at: Some(timestamp(change.at)),
        route: change.place.route,
        tenant_id: change.place.tenant.map(|id| id.to_string()).unwrap_or_default(),
        campaign_id: change.place.campaign.map(|id| id.to_string()).unwrap_or_default(),
        cause: change.cause,
        reply: change.reply,
        message_id: change.message.map(|id| id.to_string()).unwrap_or_default(),
        before: Some(levels(change.before)),
        after: Some(levels(change.after)),
        next_at: change.next_at.map(timestamp),
    }
}

fn plan(given: Option<Warmup>) -> Result<NewWarmup, Fault> {
    let given = given.ok_or_else(|| Fault::field("warmup", "is missing; give the plan"))?;
    let mut faults = Faults::default();
    let route = faults.take(route("warmup.route", &given.route));
    faults.take(free_text("warmup.site", &given.site, MAX_SITE));
    let overflow = match given.overflow() {
        WarmupOverflow::Unspecified | WarmupOverflow::Routes => Overflow::Routes,
        WarmupOverflow::Wait => Overflow::Wait,
    };
    let ladder = if given.ladder.is_empty() {
        Some(Ladder::default())
    } else {
        let read = given.ladder.clone().try_into();
        faults.take(read.map_err(|error| Violation::new("warmup.ladder", format!("{error}"))))
    };
    let rung = u16::try_from(given.rung).ok().filter(|rung| usize::from(*rung) < MAX_RUNGS);
    if rung.is_none() {
        faults.add("warmup.rung", "is above every ladder; rungs count from 0");
    }
    let spread = match &given.spread {
        None => Some(DAY),
        Some(span) => {
            let span = wire::span(*span).filter(|span| (SHORTEST_SPREAD..=DAY).contains(span));
            if span.is_none() {
                faults.add("warmup.spread", "is not from a minute to a day");
            }
            span
        }
    };
    let parts = route.zip(ladder).zip(rung).zip(spread);
    let (((route, ladder), rung), spread) = faults.finish(parts)?;
    let site = Some(given.site.trim().to_lowercase()).filter(|site| !site.is_empty()).map(SiteId::from_stored);
    Ok(NewWarmup { route, site, ladder, rung, overflow, spread, held: given.held })
}

fn wire_warmup(warmup: store::Warmup, days: Vec<store::WarmupDay>) -> Warmup {
    let plan = warmup.plan;
    let (cap, taken) = warmup.today.unwrap_or_default();
    let overflow = match plan.overflow {
        Overflow::Routes => WarmupOverflow::Routes,
        Overflow::Wait => WarmupOverflow::Wait,
    };
    Warmup {
        route: plan.route,
        site: plan.site.map(|site| site.to_string()).unwrap_or_default(),
        ladder: plan.ladder.into(),
        rung: plan.rung.into(),
        overflow: overflow.into(),
        spread: Some(duration(plan.spread)),
        held: plan.held,
        cap,
        taken,
        created_at: Some(timestamp(warmup.created_at)),
        days: days
            .into_iter()
            .map(|day| WarmupDay {
                day: day.day.to_string(),
                rung: day.rung.into(),
                cap: day.cap,
                taken: day.taken,
                step: day.step,
                why: day.why,
            })
            .collect(),
    }
}

#[tonic::async_trait]
impl DeliveryService for Delivery {
    async fn describe_site(
        &self,
        request: Request<DescribeSiteRequest>,
    ) -> Result<Response<DescribeSiteResponse>, Status> {
        admin(&request)?;
        let request = request.into_inner();
        if request.changes > MAX_CHANGES {
            return Err(Fault::field("changes", format!("is above {MAX_CHANGES}")).into());
        }
        let site = self.site("site", &request.site).await?;
        let limit = if request.changes == 0 { CHANGES } else { request.changes };
        let tempos = self.store.tempos(Some(&site)).await.map_err(Fault::from)?;
        let changes = self.store.tempo_changes(&site, limit).await.map_err(Fault::from)?;
        let queues = self.store.queues(None).await.map_err(Fault::from)?;
        let events = self.store.site_hour(&site).await.map_err(Fault::from)?;
        let now = self.store.now().await.map_err(Fault::from)?;
        let (mut waiting, mut moving) = (0, 0);
        for queue in queues.iter().filter(|queue| queue.key.slot == site.slot()) {
            waiting += unsigned(queue.waiting);
            moving += unsigned(queue.moving);
        }
        Ok(Response::new(DescribeSiteResponse {
            site: site.to_string(),
            tempos: tempos.into_iter().map(|(place, state)| tempo(place, state, now)).collect(),
            changes: changes.into_iter().map(change).collect(),
            waiting,
            moving,
            events: events
                .into_iter()
                .map(|one| SiteEvents { route: one.route, event: one.event.to_owned(), count: unsigned(one.count) })
                .collect(),
            at: Some(timestamp(now)),
        }))
    }

    async fn lift_site(&self, request: Request<LiftSiteRequest>) -> Result<Response<LiftSiteResponse>, Status> {
        let caller = admin(&request)?;
        let request = request.into_inner();
        if !request.route.is_empty() {
            route("route", &request.route).map_err(one_fault)?;
        }
        let site = self.site("site", &request.site).await?;
        let store = caller.acting(&self.store, "DeliveryService.LiftSite");
        let lifted = store.lift_tempo(&site, &request.route).await.map_err(Fault::from)?;
        tracing::info!(api_key.id = %caller.key_id(), mx.site = %site, route = request.route, "lifted what slows a site down");
        Ok(Response::new(LiftSiteResponse { site: site.to_string(), lifted }))
    }

    async fn set_warmup(&self, request: Request<SetWarmupRequest>) -> Result<Response<SetWarmupResponse>, Status> {
        let caller = admin(&request)?;
        let plan = plan(request.into_inner().warmup)?;
        let store = caller.acting(&self.store, "DeliveryService.SetWarmup");
        let id = store.set_warmup(&plan).await.map_err(Fault::from)?;
        tracing::info!(api_key.id = %caller.key_id(), route = plan.route, "set the warm-up of a route");
        let all = self.store.warmups().await.map_err(Fault::from)?;
        let days = self.store.warmup_days(id).await.map_err(Fault::from)?;
        let warmup = all.into_iter().find(|warmup| warmup.id == id).map(|warmup| wire_warmup(warmup, days));
        Ok(Response::new(SetWarmupResponse { warmup }))
    }

    async fn remove_warmup(
        &self,
        request: Request<RemoveWarmupRequest>,
    ) -> Result<Response<RemoveWarmupResponse>, Status> {
        let caller = admin(&request)?;
        let request = request.into_inner();
        let route = route("route", &request.route).map_err(one_fault)?;
        free_text("site", &request.site, MAX_SITE).map_err(one_fault)?;
        let site = Some(request.site.trim().to_lowercase()).filter(|site| !site.is_empty());
        let site = site.map(SiteId::from_stored);
        let store = caller.acting(&self.store, "DeliveryService.RemoveWarmup");
        let removed = store.remove_warmup(&route, site.as_ref()).await.map_err(Fault::from)?;
        tracing::info!(api_key.id = %caller.key_id(), route, removed, "removed the warm-up of a route");
        Ok(Response::new(RemoveWarmupResponse { removed }))
    }

    async fn list_warmups(
        &self,
        request: Request<ListWarmupsRequest>,
    ) -> Result<Response<ListWarmupsResponse>, Status> {
        admin(&request)?;
        let mut warmups = Vec::new();
        for warmup in self.store.warmups().await.map_err(Fault::from)? {
            let days = self.store.warmup_days(warmup.id).await.map_err(Fault::from)?;
            warmups.push(wire_warmup(warmup, days));
        }
        Ok(Response::new(ListWarmupsResponse { warmups }))
    }
}
