//! What receivers say about the pace they are sent to, and what comes of it.
//!
//! Each refusal is counted by rules ([`domain::reactions`]). What they ask for about a route at a site, the line of that
//! route does to its [`domain::Tempo`]; what they ask for about a tenant or a campaign at a site is kept here, for
//! all lines of the shard. Every change is written with its cause, and by that the next owner of the site goes on.

use crate::{Office, routes::RouteId};
use domain::{
    BounceClass, CampaignId, SiteId, SmtpReply, TenantId,
    reactions::{Action, Reactor, Scope},
    tempo::{Change, Levels, TempoState},
};
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use store::{NewTempoChange, StoreError, TempoLift, TempoPlace};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// Changes that may wait for Postgres; more are made and not written.
const QUEUE: usize = 1_000;
/// Most changes of one transaction.
const BATCH: usize = 100;
/// Pause before another try to write, and between two looks for what operators have lifted.
const PAUSE: Duration = Duration::from_secs(1);
/// How long a new owner waits for what earlier ones have left.
const LOOK_LIMIT: Duration = Duration::from_secs(2);
/// Most suspensions of tenants and campaigns that one shard keeps.
const MAX_SUSPENDED: usize = 10_000;
/// Longest reply that is written, in characters.
const MAX_REPLY: usize = 300;
/// The lifts that are remembered for desks that have not looked yet.
const MAX_LIFTS: usize = 1_000;

/// Whose replies are counted together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key {
    Route(SiteId, RouteId),
    Tenant(SiteId, TenantId),
    Campaign(SiteId, CampaignId),
}

/// Whose mail is held back at a site.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Whose {
    Tenant(TenantId),
    Campaign(CampaignId),
}

/// What the refusal of a mail says.
pub(crate) struct Heard {
    pub(crate) reply: SmtpReply,
    pub(crate) class: Option<BounceClass>,
    pub(crate) tenant: TenantId,
    pub(crate) campaign: Option<CampaignId>,
    pub(crate) message: domain::MessageId,
}

/// Something that a line is to do to its tempo.
pub(crate) struct Wanted {
    pub(crate) rule: String,
    pub(crate) action: Action,
    pub(crate) lasts: Duration,
}

/// Listens for one shard.
pub(crate) struct Ear {
    office: Arc<Office>,
    origin: Instant,
    reactor: Mutex<Reactor<Key>>,
    suspended: Mutex<HashMap<SiteId, BTreeMap<Whose, Instant>>>,
    /// What owners before have left for lines that there are not yet, by site and name of the route.
    left: Mutex<HashMap<(SiteId, String), (TempoState, Instant)>>,
}

impl Ear {
    /// One that knows what earlier owners were told, where Postgres answers.
    pub(crate) async fn new(office: &Arc<Office>) -> Arc<Self> {
        let ear = Self {
            office: Arc::clone(office),
            origin: Instant::now(),
            reactor: Mutex::new(Reactor::new(office.reactions.clone())),
            suspended: Mutex::default(),
            left: Mutex::default(),
        };
        match tokio::time::timeout(LOOK_LIMIT, office.store.tempos(None)).await.unwrap_or(Err(StoreError::Timeout)) {
            Ok(tempos) => ear.remember(tempos),
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "cannot learn what sites have said before; they are sent to as configured");
            }
        }
        Arc::new(ear)
    }

    fn remember(&self, tempos: Vec<(TempoPlace, TempoState)>) {
        let now = Instant::now();
        for (place, state) in tempos {
            let whose = place.campaign.map(Whose::Campaign).or(place.tenant.map(Whose::Tenant));
            match (whose, state.suspended) {
                (None, _) => {
                    lock(&self.left).insert((place.site, place.route), (state, now));
                }
                (Some(whose), Some(left)) => {
                    lock(&self.suspended).entry(place.site).or_default().insert(whose, now + left);
                }
                (Some(_), None) => {}
            }
        }
    }

    /// What an owner before has left for a line, once.
    pub(crate) fn left(&self, site: &SiteId, route: &str) -> Option<TempoState> {
        let (state, since) = lock(&self.left).remove(&(site.clone(), route.to_owned()))?;
        Some(aged(state, since.elapsed()))
    }

    /// Takes in a refusal. What is about the route is told, what is about others is done.
    pub(crate) fn hear(&self, site: &SiteId, route: RouteId, heard: &Heard) -> Vec<Wanted> {
        let key = |scope| match scope {
            Scope::Site => Some(Key::Route(site.clone(), route)),
            Scope::Tenant => Some(Key::Tenant(site.clone(), heard.tenant)),
            Scope::Campaign => heard.campaign.map(|campaign| Key::Campaign(site.clone(), campaign)),
        };
        let mut wanted = Vec::new();
        let mut others = Vec::new();
        {
            let mut reactor = lock(&self.reactor);
            for reacted in reactor.observe(site, heard.class, &heard.reply, self.origin.elapsed(), key) {
                let rule = reacted.rule.to_owned();
                let whose = match reacted.scope {
                    Scope::Site => None,
                    Scope::Tenant => Some(Whose::Tenant(heard.tenant)),
                    Scope::Campaign => heard.campaign.map(Whose::Campaign),
                };
                match whose {
                    None => wanted.push(Wanted { rule, action: reacted.action, lasts: reacted.lasts }),
                    Some(whose) => others.push((rule, whose, reacted.lasts)),
                }
            }
        }
        for (rule, whose, lasts) in others {
            self.suspend(site, whose, &rule, lasts, heard);
        }
        wanted
    }

    fn suspend(&self, site: &SiteId, whose: Whose, rule: &str, lasts: Duration, heard: &Heard) {
        let now = Instant::now();
        {
            let mut suspended = lock(&self.suspended);
            let all: usize = suspended.values().map(BTreeMap::len).sum();
            let until = suspended.entry(site.clone()).or_default();
            if all >= MAX_SUSPENDED && !until.contains_key(&whose) {
                tracing::warn!(mx.site = %site, rule, "too many tenants and campaigns are held back; this one is not");
                return;
            }
            let end = until.entry(whose.clone()).or_insert(now);
            if *end >= now + lasts {
                return;
            }
            *end = now + lasts;
        }
        tracing::warn!(mx.site = %site, rule, delay_ms = lasts.as_millis() as u64, "mail to a site is held back");
        let limits = self.office.routes.limits_in_general(site);
        let before = Levels {
            rate: limits.rate.map(|rate| rate.per_second()),
            connections: limits.max_connections,
            messages_per_connection: limits.messages_per_connection,
            suspended: false,
        };
        let change = Change { before, after: Levels { suspended: true, ..before }, next_in: Some(lasts) };
        let state = TempoState { suspended: Some(lasts), ..TempoState::default() };
        let place = place(site, "", Some(&whose));
        self.office.tempos.tell(place, rule, Some(heard), change, Some(state));
    }

    /// Whether any site wants somebody's mail not now.
    pub(crate) fn has_suspended_any(&self) -> bool {
        !lock(&self.suspended).is_empty()
    }

    /// Whether a site wants somebody's mail not now.
    pub(crate) fn has_suspended(&self, site: &SiteId) -> bool {
        lock(&self.suspended).contains_key(site)
    }

    /// How long the mail of a tenant and his campaign is held back at a site.
    pub(crate) fn suspended(
        &self,
        site: &SiteId,
        tenant: TenantId,
        campaign: Option<CampaignId>,
        now: Instant,
    ) -> Option<Duration> {
        let suspended = lock(&self.suspended);
        let at = suspended.get(site)?;
        let campaign = campaign.and_then(|id| at.get(&Whose::Campaign(id)));
        let until = at.get(&Whose::Tenant(tenant)).into_iter().chain(campaign).max()?;
        until.checked_duration_since(now).filter(|left| !left.is_zero())
    }

    /// Forgets the suspensions that are over.
    pub(crate) fn tidy(&self) {
        let now = Instant::now();
        lock(&self.suspended).retain(|_, whose| {
            whose.retain(|_, until| *until > now);
            !whose.is_empty()
        });
    }

    /// An operator has lifted what held a site back.
    pub(crate) fn lift(&self, lift: &TempoLift) {
        lock(&self.left)
            .retain(|(site, route), _| *site != lift.site || !(lift.route.is_empty() || *route == lift.route));
        if lift.route.is_empty() {
            lock(&self.suspended).remove(&lift.site);
        }
    }
}

fn place(site: &SiteId, route: &str, whose: Option<&Whose>) -> TempoPlace {
    let (tenant, campaign) = match whose {
        None => (None, None),
        Some(Whose::Tenant(tenant)) => (Some(*tenant), None),
        Some(Whose::Campaign(campaign)) => (None, Some(*campaign)),
    };
    TempoPlace { site: site.clone(), route: route.to_owned(), tenant, campaign }
}

/// A state as it is some time later.
fn aged(state: TempoState, by: Duration) -> TempoState {
    let left = |left: Duration| left.checked_sub(by).filter(|left| !left.is_zero());
    TempoState {
        rate: state.rate.map(|(rate, climbs_in)| (rate, climbs_in.saturating_sub(by))),
        connections: state.connections.and_then(|(value, held)| Some((value, left(held)?))),
        messages_per_connection: state.messages_per_connection.and_then(|(value, held)| Some((value, left(held)?))),
        suspended: state.suspended.and_then(left),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where changes are handed in, and what operators have lifted.
pub(crate) struct Tempos {
    changes: mpsc::Sender<NewTempoChange>,
    lifts: watch::Sender<(u64, Vec<(u64, TempoLift)>)>,
}

/// What writes changes, and looks for what operators lift.
pub(crate) struct TempoClerk(mpsc::Receiver<NewTempoChange>);

pub(crate) fn tempos() -> (Tempos, TempoClerk) {
    let (changes, receiver) = mpsc::channel(QUEUE);
    (Tempos { changes, lifts: watch::channel((0, Vec::new())).0 }, TempoClerk(receiver))
}

impl Tempos {
    /// Has a change written. The state is what holds after it.
    pub(crate) fn tell(
        &self,
        place: TempoPlace,
        cause: &str,
        heard: Option<&Heard>,
        change: Change,
        state: Option<TempoState>,
    ) {
        let change = NewTempoChange {
            place,
            cause: cause.to_owned(),
            reply: heard.map_or_else(String::new, |heard| told(&heard.reply)),
            message: heard.map(|heard| heard.message),
            change,
            state,
        };
        if self.changes.try_send(change).is_err() {
            tracing::warn!("a change of pace is not written, since too many wait for the database");
        }
    }

    /// A change of a route at a site.
    pub(crate) fn tell_route(
        &self,
        site: &SiteId,
        route: &str,
        cause: &str,
        heard: Option<&Heard>,
        change: Change,
        state: Option<TempoState>,
    ) {
        self.tell(place(site, route, None), cause, heard, change, state);
    }

    /// What has been lifted since a look, and the place of this one.
    pub(crate) fn lifts(&self, after: u64) -> (u64, Vec<TempoLift>) {
        let known = self.lifts.borrow();
        let fresh = known.1.iter().filter(|(number, _)| *number > after).map(|(_, lift)| lift.clone());
        (known.0, fresh.collect())
    }

    fn lifted(&self, lifts: Vec<TempoLift>) {
        self.lifts.send_modify(|(last, all)| {
            for lift in lifts {
                *last += 1;
                all.push((*last, lift));
            }
            let many = all.len().saturating_sub(MAX_LIFTS);
            all.drain(..many);
        });
    }
}

/// A reply as it is written: without words that hold an address.
fn told(reply: &SmtpReply) -> String {
    let text = reply.to_string();
    let words = text.split(' ').map(|word| if word.contains('@') { "…" } else { word });
    domain::text::sanitise(&words.collect::<Vec<_>>().join(" "), MAX_REPLY)
}

impl TempoClerk {
    /// Works until `stop`; then writes what is left, if Postgres answers.
    pub(crate) async fn run(mut self, office: Arc<Office>, stop: CancellationToken) {
        let mut changes: Vec<NewTempoChange> = Vec::new();
        let mut seen = None;
        let mut turns = tokio::time::interval(PAUSE);
        turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                _ = turns.tick() => match office.store.tempo_lifts(seen).await {
                    Ok((last, lifts)) => {
                        seen = Some(last);
                        office.tempos.lifted(lifts);
                    }
                    Err(error) => tracing::debug!(%error, "cannot look for what operators have lifted"),
                },
                _ = self.0.recv_many(&mut changes, BATCH), if changes.is_empty() => {}
            }
            if !changes.is_empty() {
                match office.store.record_tempo(&changes).await {
                    Ok(()) => changes.clear(),
                    Err(error) if error.is_retryable() => {
                        tracing::debug!(%error, "cannot write changes of pace; they wait");
                        let _ = stop.run_until_cancelled(tokio::time::sleep(PAUSE)).await;
                    }
                    Err(error) => {
                        tracing::error!(error = &error as &dyn std::error::Error, "cannot write changes of pace");
                        changes.clear();
                    }
                }
            }
        }
        while let Ok(change) = self.0.try_recv() {
            changes.push(change);
        }
        if !changes.is_empty()
            && let Err(error) = office.store.record_tempo(&changes).await
        {
            tracing::warn!(error = &error as &dyn std::error::Error, "changes of pace are not written");
        }
    }
}
