//! `WatchEvents`: the log as it grows, told to whoever watches.
//!
//! One look at the log serves everybody who has kept up: a task reads what is new for the tenants that are watched and
//! hands it round. Who is behind, because he begins in the past or does not read fast enough, reads the log himself,
//! a page at a time, until he has caught up. A watcher's stream makes nothing unless it is asked for more, so whoever
//! does not read costs his place and what is kept for all, and nothing grows.
//!
//! The broker only tells when to look; without it the log is looked at again and again. A crash or a wipe of the
//! broker therefore loses nothing: what a watcher is told comes from the log, in its order.

use crate::{
    Fault,
    auth::{Caller, KeyRing, Scope},
    config::WatchConfig,
    message,
    metrics::Metrics,
    seats::{Full, Seat, Seats},
    validate::{Faults, campaign, tag},
};
use bus::Bus;
use domain::{CampaignId, TenantId, fact};
use futures_util::{StreamExt, stream, stream::BoxStream};
use proto::v1::{WatchEventsRequest, WatchEventsResponse};
use service::{Backoff, Chain, Lifecycle};
use std::{collections::VecDeque, sync::Arc, time::Duration};
use store::{LogEntry, Store};
use tokio::{
    sync::{Notify, Semaphore, broadcast},
    time::Instant,
};
use tonic::Status;

/// The kind of the announcement after a fold.
const LOG_EVENT: &str = "log";
/// Most kinds of events that one stream is narrowed to.
pub const MAX_KINDS: usize = 20;
/// Pauses after a look that failed.
const PAUSES: Backoff = Backoff { min: Duration::from_millis(100), max: Duration::from_secs(2) };

/// A stretch of the log that was looked at for some tenants.
struct Stretch {
    /// The last entry before it.
    after: i64,
    /// Its last entry.
    upto: i64,
    /// Whose entries were read.
    tenants: Vec<TenantId>,
    /// All of theirs, in order.
    entries: Vec<LogEntry>,
}

/// Everybody who watches in this process.
pub struct Watchers {
    store: Store,
    keys: Arc<KeyRing>,
    config: WatchConfig,
    retry_after: Duration,
    seats: Arc<Seats>,
    /// Somebody has come.
    came: Notify,
    stretches: broadcast::Sender<Arc<Stretch>>,
    readers: Semaphore,
}

impl Watchers {
    /// Nobody yet.
    pub fn new(
        store: Store,
        keys: Arc<KeyRing>,
        config: WatchConfig,
        retry_after: Duration,
        metrics: &Metrics,
    ) -> Self {
        let seats = Seats::new(config.max_watchers, config.max_per_tenant, metrics.watchers.clone());
        Self {
            store,
            keys,
            config,
            retry_after,
            seats: Arc::new(seats),
            came: Notify::new(),
            stretches: broadcast::Sender::new(config.kept.get()),
            readers: Semaphore::new(config.readers.get()),
        }
    }

    /// Hands round what is new in the log while somebody watches. Ends never.
    pub async fn follow(self: Arc<Self>, bus: Bus) {
        loop {
            let came = self.came.notified();
            if self.seats.tenants().is_empty() {
                came.await;
            } else {
                self.follow_while_watched(&bus).await;
            }
        }
    }

    async fn follow_while_watched(&self, bus: &Bus) {
        let mut bells = bus.events().await.inspect_err(|error| {
            tracing::warn!(error = %Chain(error), "cannot hear of new events; the log is looked at again and again");
        });
        let mut at = None;
        let mut failures = 0;
        loop {
            let tenants = self.seats.tenants();
            if tenants.is_empty() {
                return;
            }
            let pause = match self.look(at, tenants).await {
                Ok((upto, is_all)) => {
                    at = Some(upto);
                    failures = 0;
                    if !is_all {
                        continue;
                    }
                    self.config.poll
                }
                Err(error) => {
                    tracing::warn!(error = %Chain(&error), "cannot look at the log for watchers");
                    failures += 1;
                    PAUSES.pause(failures)
                }
            };
            let rung = async {
                while let Ok(bells) = &mut bells {
                    match bells.next().await {
                        Some(event) if event.subject.kind() == LOG_EVENT => return,
                        Some(_) => {}
                        None => break,
                    }
                }
                std::future::pending::<()>().await;
            };
            tokio::select! {
                () = rung => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// One look; where it ended, and whether that is the end of the log.
    async fn look(&self, at: Option<i64>, tenants: Vec<TenantId>) -> Result<(i64, bool), store::StoreError> {
        let Some(after) = at else {
            let (_, head) = self.store.log_range().await?;
            return Ok((head, false));
        };
        let page = self.store.log_after(&tenants, after, self.config.page).await?;
        if page.upto > after {
            let stretch = Stretch { after, upto: page.upto, tenants, entries: page.entries };
            // Nobody may listen at the moment.
            let _unheard = self.stretches.send(Arc::new(stretch));
        }
        Ok((page.upto, page.upto >= page.head))
    }

    /// A stream for this caller.
    ///
    /// # Errors
    /// When the request is at fault, the place is not in the log, or as many watch as may.
    pub async fn watch(
        self: &Arc<Self>,
        caller: Caller,
        request: WatchEventsRequest,
        life: Lifecycle,
    ) -> Result<BoxStream<'static, Result<WatchEventsResponse, Status>>, Fault> {
        let tenant = caller.tenant(Scope::Read)?;
        let filter = filter(&request)?;
        let seat = self.take_seat(tenant)?;
        // Before the look at the log, so that nothing falls between them.
        let live = self.stretches.subscribe();
        let (first, last) = self.store.log_range().await?;
        let at = match request.after_seq {
            None => last,
            Some(after) => i64::try_from(after)
                .ok()
                .filter(|after| (first - 1..=last).contains(after))
                .ok_or(Fault::SeqOutOfRange { first, last })?,
        };
        tracing::debug!(tenant.id = %tenant, seq = at, "a watcher came");
        let now = Instant::now();
        let begin = WatchEventsResponse { seq: seq(at), event: None };
        let watcher = Watcher {
            all: self.clone(),
            _seat: seat,
            caller,
            tenant,
            filter,
            at,
            live,
            behind: true,
            pending: VecDeque::from([begin]),
            told: now,
        };
        let stop = life.clone();
        let stopped = async move { stop.shutdown_requested().await };
        let told = stream::unfold(Some(watcher), |watcher| async move {
            let mut watcher = watcher?;
            match watcher.next().await {
                Ok(response) => Some((Ok(response), Some(watcher))),
                // The last word.
                Err(fault) => Some((Err(Status::from(fault)), None)),
            }
        });
        let ending = stream::once(async move { life.is_shutting_down() })
            .filter_map(|stopping| async move { stopping.then(|| Err(Status::from(Fault::Stopping))) });
        Ok(told.take_until(stopped).chain(ending).boxed())
    }

    fn take_seat(&self, tenant: TenantId) -> Result<Seat, Fault> {
        let seat = self.seats.take(tenant).map_err(|full| Fault::WatchersExhausted {
            whose: match full {
                Full::Process => "this process",
                Full::Tenant => "the tenant",
            },
            retry_after: self.retry_after,
        })?;
        self.came.notify_one();
        Ok(seat)
    }
}

/// What one stream is narrowed to.
#[derive(Debug, Default)]
struct Filter {
    kinds: Vec<String>,
    campaign: Option<CampaignId>,
    tag: Option<String>,
}

impl Filter {
    fn passes(&self, entry: &LogEntry) -> bool {
        let word = || fact::word(entry.event.kind, entry.event.closing);
        (self.kinds.is_empty() || self.kinds.iter().any(|kind| kind == word()))
            && (self.campaign.is_none() || self.campaign == entry.campaign)
            && self.tag.as_ref().is_none_or(|tag| entry.labels.tags.contains(tag))
    }
}

fn filter(request: &WatchEventsRequest) -> Result<Filter, Fault> {
    let mut faults = Faults::default();
    if request.events.len() > MAX_KINDS {
        faults.add("events", format!("has {} entries; give at most {MAX_KINDS}", request.events.len()));
    }
    let known = fact::words();
    for (at, kind) in request.events.iter().take(MAX_KINDS).enumerate() {
        if !known.contains(&kind.as_str()) {
            faults.add(format!("events[{at}]"), format!("is no kind of event; give one of {}", known.join(", ")));
        }
    }
    let campaign = faults.take(campaign("campaign_id", &request.campaign_id));
    let tag = faults.take(tag("tag", &request.tag));
    let filter = campaign.zip(tag).map(|(campaign, tag)| Filter { kinds: request.events.clone(), campaign, tag });
    faults.finish(filter)
}

/// One stream.
struct Watcher {
    all: Arc<Watchers>,
    _seat: Seat,
    caller: Caller,
    tenant: TenantId,
    filter: Filter,
    /// Everything up to here has been told or does not pass.
    at: i64,
    live: broadcast::Receiver<Arc<Stretch>>,
    /// Whether he has to read the log himself.
    behind: bool,
    /// What is still to be told.
    pending: VecDeque<WatchEventsResponse>,
    /// When he was last told something.
    told: Instant,
}

impl Watcher {
    /// What he is told next. Waits for it.
    async fn next(&mut self) -> Result<WatchEventsResponse, Fault> {
        let heartbeat = self.all.config.heartbeat;
        loop {
            if let Some(response) = self.pending.pop_front() {
                self.told = Instant::now();
                return Ok(response);
            }
            self.all.keys.still(&self.caller).await?;
            if self.told.elapsed() >= heartbeat {
                self.pending.push_back(WatchEventsResponse { seq: seq(self.at), event: None });
                continue;
            }
            if self.behind {
                self.read().await?;
                continue;
            }
            let stretch = tokio::time::timeout_at(self.told + heartbeat, self.live.recv()).await;
            match stretch {
                Ok(Ok(stretch)) => self.hear(&stretch),
                // He was too slow for what is kept; the log has it all.
                Ok(Err(broadcast::error::RecvError::Lagged(_))) => self.behind = true,
                Ok(Err(broadcast::error::RecvError::Closed)) => return Err(Fault::Stopping),
                Err(_) => {}
            }
        }
    }

    /// Reads a page of the log.
    async fn read(&mut self) -> Result<(), Fault> {
        let turn = self.all.readers.acquire().await.map_err(|_| Fault::Stopping)?;
        let page = self.all.store.log_after(&[self.tenant], self.at, self.all.config.page).await?;
        drop(turn);
        for entry in page.entries {
            if self.filter.passes(&entry) {
                self.tell(entry);
            }
        }
        self.at = page.upto;
        self.behind = page.upto < page.head;
        Ok(())
    }

    /// Takes what was read for all.
    fn hear(&mut self, stretch: &Stretch) {
        if stretch.upto <= self.at {
            return;
        }
        if stretch.after > self.at || !stretch.tenants.contains(&self.tenant) {
            self.behind = true;
            return;
        }
        let (tenant, at) = (self.tenant, self.at);
        let own = stretch.entries.iter().filter(|entry| entry.tenant == tenant && entry.seq > at);
        for entry in own {
            if self.filter.passes(entry) {
                self.tell(entry.clone());
            }
        }
        self.at = stretch.upto;
    }

    fn tell(&mut self, entry: LogEntry) {
        let seq = seq(entry.seq);
        self.pending.push_back(WatchEventsResponse { seq, event: Some(message::watched(entry)) });
    }
}

fn seq(seq: i64) -> u64 {
    u64::try_from(seq).unwrap_or(0)
}
