//! The connections of one site over one route, and the claimed letters that wait for them.

mod hearing;

use crate::{
    Office,
    attempt::{self, Mood, Over},
    ear::Ear,
    journal::Ticket,
    letters::Claimed,
    pace::Pace,
    route::{Fault, NoSession, Route, Session},
    routes::RouteId,
    tenure::Tenure,
};
use domain::{Lane, SiteId, SiteLimits};
use service::trace;
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

/// Sessions tried for one letter when one after the other turns out to have died while it rested.
const SESSIONS_PER_LETTER: usize = 3;
/// How long after a receiver refused one more connection it is offered one more again.
const RECOVERY: Duration = Duration::from_secs(30);
/// How much a new measurement weighs in the smoothed time of a transaction.
const SMOOTHING: f64 = 0.2;
/// How many times the smoothed time a single measurement counts for at most.
const MOST_SLOWER: f64 = 2.0;

/// Where a line tells its desk something.
#[derive(Clone)]
pub(crate) struct Bell {
    /// There is room.
    pub(crate) freed: Arc<Notify>,
    /// Claimed letters that are to take another route. Never more than are claimed.
    pub(crate) strays: mpsc::UnboundedSender<Claimed>,
}

/// The line of letters to one site over one route.
pub(crate) struct Line {
    site: SiteId,
    id: RouteId,
    route: Arc<Route>,
    limits: SiteLimits,
    office: Arc<Office>,
    tenure: Arc<Tenure>,
    work: Mutex<Work>,
    ready: Notify,
    /// Its letters go back to the queue.
    closing: CancellationToken,
    pace: Mutex<Pace>,
    ear: Arc<Ear>,
    bell: Bell,
}

#[derive(Default)]
struct Work {
    urgent: VecDeque<Claimed>,
    bulk: VecDeque<Claimed>,
    /// Letters in connections' hands, by lane.
    urgent_busy: usize,
    bulk_busy: usize,
    workers: usize,
    idle: usize,
    /// Connections with a session.
    open: usize,
    /// Connections that the receiver takes at once: the limit, or less after it refused one more.
    allowed: usize,
    /// When that was last changed.
    allowed_since: Option<Instant>,
    /// Smoothed time of a transaction, in seconds; 0 until there was one.
    took: f64,
}

impl Work {
    /// Connections that bulk mail may use: one of several is kept for transactional mail.
    fn bulk_connections(&self) -> usize {
        self.allowed.saturating_sub(1).max(1)
    }

    /// Offers the receiver one more connection, some time after it refused one.
    fn recover(&mut self, most: usize) {
        if self.allowed < most && self.allowed_since.is_none_or(|since| since.elapsed() > RECOVERY) {
            self.allowed += 1;
            self.allowed_since = Some(Instant::now());
        }
    }
}

impl Line {
    pub(crate) fn new(
        site: SiteId,
        id: RouteId,
        office: &Arc<Office>,
        tenure: &Arc<Tenure>,
        ear: &Arc<Ear>,
        bell: &Bell,
    ) -> Arc<Self> {
        let limits = office.routes.limits(id, &site);
        let left = ear.left(&site, office.routes.get(id).name());
        let pace = Pace::new(&limits, office.config.adapt, left, office.config.desk.pause, Instant::now());
        let allowed = usize::from(pace.levels().connections.get());
        Arc::new(Self {
            pace: Mutex::new(pace),
            ear: Arc::clone(ear),
            site,
            id,
            route: Arc::clone(office.routes.get(id)),
            limits,
            office: Arc::clone(office),
            tenure: Arc::clone(tenure),
            work: Mutex::new(Work { allowed, ..Work::default() }),
            ready: Notify::new(),
            closing: CancellationToken::new(),
            bell: bell.clone(),
        })
    }

    pub(crate) fn pace(&self) -> MutexGuard<'_, Pace> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) const fn id(&self) -> RouteId {
        self.id
    }

    pub(crate) const fn site(&self) -> &SiteId {
        &self.site
    }

    /// How long nothing is to be sent: the site or the route is left alone.
    pub(crate) fn paused(&self, now: Instant) -> Option<Duration> {
        self.pace().paused(now).max(self.route.paused(now))
    }

    fn work(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many more letters of a lane may be claimed, so that connections stay busy for the configured time ahead.
    pub(crate) fn room(&self, lane: Lane) -> usize {
        let desk = &self.office.config.desk;
        let most = usize::try_from(desk.ahead_per_connection.get()).unwrap_or(usize::MAX);
        let work = self.work();
        let each = if work.took > 0.0 { (desk.ahead.as_secs_f64() / work.took) as usize } else { 2 };
        let each = each.clamp(1, most);
        match lane {
            Lane::Transactional => (work.allowed * each).saturating_sub(work.urgent.len() + work.urgent_busy),
            Lane::Bulk => (work.bulk_connections() * each).saturating_sub(work.bulk.len() + work.bulk_busy),
        }
    }

    /// When the `position`-th letter that cannot be held will have its turn.
    pub(crate) fn turn(&self, position: usize, now: Instant) -> Duration {
        let took = self.work().took;
        // A second each, until one has been seen.
        let each = if took > 0.0 { took } else { 1.0 };
        let pace = self.pace();
        let able = f64::from(pace.levels().connections.get()) / each;
        let turn = pace.turn(position, able, now);
        drop(pace);
        turn.max(self.route.paused(now).unwrap_or(Duration::ZERO))
    }

    /// Whether nothing is claimed for this site.
    pub(crate) fn is_idle(&self) -> bool {
        let work = self.work();
        work.urgent.is_empty() && work.bulk.is_empty() && work.urgent_busy + work.bulk_busy == 0 && work.workers == 0
    }

    /// Queues a claimed letter, and opens a connection when all are busy and one more is allowed.
    pub(crate) fn push(self: &Arc<Self>, claimed: Claimed) {
        let most = usize::from(self.pace().levels().connections.get());
        let mut work = self.work();
        match claimed.letter.job.lane {
            Lane::Transactional => work.urgent.push_back(claimed),
            Lane::Bulk => work.bulk.push_back(claimed),
        }
        let queued = work.urgent.len() + work.bulk.len();
        work.recover(most);
        if queued > work.idle && work.workers < work.allowed {
            work.workers += 1;
            drop(work);
            let line = Arc::clone(self);
            self.office.life.spawn_finite("connection", async move { line.serve().await });
        } else {
            drop(work);
            self.ready.notify_one();
        }
    }

    /// Takes back what waited too long for a connection; all of it when the line is to end.
    pub(crate) fn take_back(&self, all: bool) -> Vec<Claimed> {
        let mut work = self.work();
        let work = &mut *work;
        if all {
            self.closing.cancel();
            let mut taken: Vec<Claimed> = work.urgent.drain(..).collect();
            taken.extend(work.bulk.drain(..));
            self.ready.notify_waiters();
            return taken;
        }
        let limit = self.office.config.desk.start_within;
        let now = Instant::now();
        let mut taken = Vec::new();
        for queue in [&mut work.urgent, &mut work.bulk] as [&mut VecDeque<Claimed>; 2] {
            // First in, first out: the oldest stand in front.
            while queue.front().is_some_and(|claimed| now.saturating_duration_since(claimed.since) > limit) {
                taken.extend(queue.pop_front());
            }
        }
        taken
    }

    /// One connection's life: letter after letter, until there has been none for the idle time.
    async fn serve(self: Arc<Self>) {
        let mut session = None;
        self.office.metrics.connections.inc();
        while let Some(claimed) = self.next().await {
            let lane = claimed.letter.job.lane;
            let before = session.is_some();
            self.deliver(claimed, &mut session).await;
            let mut work = self.work();
            match (before, session.is_some()) {
                (false, true) => work.open += 1,
                (true, false) => work.open -= 1,
                _ => {}
            }
            match lane {
                Lane::Transactional => work.urgent_busy -= 1,
                Lane::Bulk => work.bulk_busy -= 1,
            }
            drop(work);
            self.bell.freed.notify_one();
        }
        self.office.metrics.connections.dec();
        if let Some(session) = session {
            self.work().open -= 1;
            session.end().await;
        }
    }

    /// The next letter for a connection; `None` when the connection is to close.
    async fn next(&self) -> Option<Claimed> {
        let idle_time = self.limits.idle_timeout.min(self.office.config.desk.idle);
        let mut last_look = false;
        loop {
            let mut notified = std::pin::pin!(self.ready.notified());
            {
                let mut work = self.work();
                if work.workers > work.allowed {
                    work.workers -= 1;
                    return None;
                }
                if let Some(claimed) = work.urgent.pop_front() {
                    work.urgent_busy += 1;
                    return Some(claimed);
                }
                if work.bulk_busy < work.bulk_connections()
                    && let Some(claimed) = work.bulk.pop_front()
                {
                    work.bulk_busy += 1;
                    return Some(claimed);
                }
                if last_look || self.closing.is_cancelled() {
                    work.workers -= 1;
                    return None;
                }
                work.idle += 1;
                // On the list before the lock is let go: each push from now on wakes another connection.
                notified.as_mut().enable();
            }
            last_look = tokio::time::timeout(idle_time, notified).await.is_err();
            self.work().idle -= 1;
        }
    }

    async fn deliver(&self, mut claimed: Claimed, session: &mut Option<Session>) {
        let office = &*self.office;
        // What waited for this connection while its route failed may go another way.
        if self.route.paused(Instant::now()).is_some() {
            match self.redirect(claimed) {
                Ok(()) => return,
                Err(back) => claimed = *back,
            }
        }
        if claimed.not_before > Instant::now() {
            tokio::time::sleep_until(claimed.not_before.into()).await;
        }
        let start = self.pace().start(Instant::now());
        tokio::time::sleep_until(start.into()).await;
        let begun = Instant::now();
        let origin = claimed.letter.job.trace.map(trace::Origin::Child);
        let span = trace::step("smtp", trace::Kind::Client, origin);
        let mut done = 'tried: {
            for _ in 0..SESSIONS_PER_LETTER {
                if !self.tenure.is_live() || office.life.is_shutting_down() || self.closing.is_cancelled() {
                    break 'tried attempt::given_back(office, &self.tenure, &claimed, Duration::ZERO);
                }
                let paused = self.paused(Instant::now());
                if let Some(left) = paused {
                    // Another connection found out meanwhile.
                    match self.redirect(claimed) {
                        Ok(()) => return,
                        Err(back) => claimed = *back,
                    }
                    break 'tried attempt::given_back(office, &self.tenure, &claimed, left);
                }
                if claimed.letter.sandbox {
                    break 'tried attempt::tried(office, &self.tenure, &claimed);
                }
                let usable = tokio::select! {
                    biased;
                    usable = self.usable(session.take(), &claimed) => usable,
                    // A receiver that keeps us waiting would keep the shard from its next owner.
                    () = self.closing.cancelled() => {
                        break 'tried attempt::given_back(office, &self.tenure, &claimed, Duration::ZERO);
                    }
                };
                let open = match usable {
                    Ok(open) => session.insert(open),
                    Err(NoneOpen::Later(wait)) => {
                        break 'tried attempt::given_back(office, &self.tenure, &claimed, wait);
                    }
                    Err(NoneOpen::LeftAlone(left)) => {
                        match self.redirect(claimed) {
                            Ok(()) => return,
                            Err(back) => claimed = *back,
                        }
                        break 'tried attempt::given_back(office, &self.tenure, &claimed, left);
                    }
                    // One connection too many is no fault of the message: it goes over those that there are.
                    Err(NoneOpen::Failed(error)) if error.is_refusal_at_the_door() && self.keeps_to_fewer(0) => {
                        break 'tried attempt::given_back(office, &self.tenure, &claimed, Duration::from_secs(1));
                    }
                    // No other route could bring it to a domain that takes no mail.
                    Err(NoneOpen::Failed(error)) if error.is_final() => {
                        break 'tried attempt::without_session(office, &self.tenure, &claimed, &error);
                    }
                    Err(NoneOpen::Failed(error)) => {
                        let fault = self.no_session(&error);
                        match self.redirect(claimed) {
                            Ok(()) => return,
                            Err(back) => claimed = *back,
                        }
                        let mut done = attempt::without_session(office, &self.tenure, &claimed, &error);
                        if fault != Fault::Site {
                            // It says nothing about the site.
                            done.mood = Mood::Silent;
                        }
                        break 'tried done;
                    }
                };
                let result = attempt::over(office, &self.tenure, open, &claimed).await;
                if matches!(result, Over::Dead(_)) {
                    self.route.found_dead();
                }
                self.rest(session);
                match result {
                    Over::Done(done) => break 'tried done,
                    Over::Dead(None) => {}
                    Over::Dead(Some(ticket)) => self.unsent(&claimed, ticket),
                    Over::Declined { fault, mut done } => {
                        self.declined(fault, done.outcome.detail.text.as_deref());
                        // The answer proves that nothing was taken; said before anybody else may write a line.
                        if let Some(ticket) = done.ticket.take() {
                            self.unsent(&claimed, ticket);
                        }
                        match self.redirect(claimed) {
                            Ok(()) => return,
                            Err(back) => claimed = *back,
                        }
                        break 'tried done;
                    }
                }
            }
            attempt::given_back(office, &self.tenure, &claimed, Duration::from_secs(1))
        };
        attempt::tell(span, &claimed.letter.job, &mut done);
        let now = Instant::now();
        if self.listen(&done, &claimed, now) {
            // It says nothing about the connections that the site keeps.
            done.mood = Mood::Silent;
        }
        match done.mood {
            Mood::Answers => {
                self.pace().answered(now);
                let took = now.saturating_duration_since(begun).as_secs_f64();
                let mut work = self.work();
                // One that took very long, as when the process was stopped, says little of those to come.
                let weighed = took.min(work.took * MOST_SLOWER);
                work.took = if work.took == 0.0 { took } else { work.took * (1.0 - SMOOTHING) + weighed * SMOOTHING };
            }
            Mood::Fails => {
                let paused = {
                    let mut pace = self.pace();
                    pace.failed(now);
                    pace.paused(now)
                };
                tracing::info!(
                    mx.site = %self.site,
                    delay_ms = paused.map_or(0, |left| left.as_millis() as u64),
                    code = done.outcome.detail.code,
                    class = done.outcome.detail.class,
                    "a site is left alone for a while"
                );
            }
            Mood::Silent => {}
        }
        office.metrics.attempted(&done.outcome.what, self.route.name(), now.saturating_duration_since(begun));
        office.recorder.submit(done, &self.tenure).await;
    }

    /// Lets go of a session that cannot be used again, or that others may want.
    fn rest(&self, session: &mut Option<Session>) {
        if self.route.is_shared() {
            let Some(session) = session.take() else { return };
            if let Some(over) = self.route.put(session) {
                self.office.life.spawn_finite("farewell", over.end());
            }
        } else if session.as_ref().is_some_and(|session| !session.wire.is_reusable()) {
            *session = None;
        }
    }

    /// Ends a line of the journal whose letter is still in hand and was taken by nobody.
    fn unsent(&self, claimed: &Claimed, ticket: Ticket) {
        let done = attempt::given_back(&self.office, &self.tenure, claimed, Duration::ZERO);
        self.office.journal.reply(&done.outcome);
        self.office.journal.recorded(ticket);
    }

    /// Notes that the route took nothing, for a reason that is not the letter's.
    fn declined(&self, fault: Fault, text: Option<&str>) {
        let now = Instant::now();
        if self.route.paused(now).is_some() {
            return;
        }
        self.route.failed(fault, now);
        self.office.metrics.route_failed(self.route.name());
        let delay_ms = self.route.paused(now).map_or(0, |left| left.as_millis() as u64);
        match fault {
            Fault::Credentials => {
                tracing::error!(route = self.route.name(), delay_ms, text, "a provider refuses the account");
            }
            Fault::Site | Fault::Route | Fault::Busy(_) => {
                tracing::warn!(route = self.route.name(), delay_ms, text, "a provider asks to wait");
            }
        }
    }

    /// Notes that no session came about, and whose fault it is.
    fn no_session(&self, reason: &NoSession) -> Fault {
        let now = Instant::now();
        let fault = self.route.fault(reason);
        match fault {
            Fault::Site => {
                self.pace().failed(now);
                return fault;
            }
            Fault::Route | Fault::Credentials | Fault::Busy(_) if self.route.paused(now).is_some() => return fault,
            Fault::Route | Fault::Credentials | Fault::Busy(_) => self.route.failed(fault, now),
        }
        self.office.metrics.route_failed(self.route.name());
        let delay_ms = self.route.paused(now).map_or(0, |left| left.as_millis() as u64);
        let error = service::Chain(reason).to_string();
        if fault == Fault::Credentials {
            tracing::error!(route = self.route.name(), delay_ms, error, "a route refuses user name and password");
        } else {
            tracing::warn!(route = self.route.name(), delay_ms, error, "a route is left alone for a while");
        }
        fault
    }

    /// Hands a letter of which nothing was sent to another route of its pool; it comes back when none can be used.
    fn redirect(&self, claimed: Claimed) -> Result<(), Box<Claimed>> {
        let tried = claimed.tried.with(self.id);
        // Mail that is only tried needs no route.
        let is_real = |_| !claimed.letter.sandbox;
        let Some(route) = self.office.routes.pick(&claimed.letter, tried, Instant::now(), is_real) else {
            return Err(Box::new(claimed));
        };
        let sent = self.bell.strays.send(Claimed { route, tried, ..claimed });
        sent.map_err(|mpsc::error::SendError(back)| Box::new(Claimed { route: self.id, ..back }))?;
        self.office.metrics.redirected(self.route.name());
        Ok(())
    }

    /// The receiver refused a connection: when it keeps others, they are as many as it takes. `refused`: how many of those
    /// that count as open are those that it refused.
    fn keeps_to_fewer(&self, refused: usize) -> bool {
        if self.route.is_shared() {
            return self.route.has_more_sessions_than(refused);
        }
        let mut work = self.work();
        let kept = work.open.saturating_sub(refused);
        if kept == 0 {
            return false;
        }
        let fewer = kept.min(work.allowed.saturating_sub(1)).max(1);
        if fewer < work.allowed {
            work.allowed = fewer;
            work.allowed_since = Some(Instant::now());
            drop(work);
            tracing::info!(mx.site = %self.site, connections = fewer, "a site takes fewer connections");
        }
        true
    }

    /// A session that can take one more message: the one at hand, or a new one.
    async fn usable(&self, session: Option<Session>, claimed: &Claimed) -> Result<Session, NoneOpen> {
        if let Some(session) = session {
            let most = u32::from(self.pace().levels().messages_per_connection.get());
            let full = session.wire.messages_sent() >= most;
            if session.wire.is_reusable() && !full {
                return Ok(session);
            }
            session.end().await;
        }
        let Claimed { letter, .. } = claimed;
        // Not waited for longer: a letter in hand keeps its shard from being handed over.
        let within = self.office.config.desk.start_within;
        let turn = if self.route.is_shared() {
            let turn = tokio::time::timeout(within, self.route.turn(letter.job.lane)).await;
            let turn = turn.map_err(|_| NoneOpen::Later(Duration::from_secs(1)))?;
            // Somebody before may have found out meanwhile.
            if let Some(left) = self.route.paused(Instant::now()) {
                return Err(NoneOpen::LeftAlone(left));
            }
            turn
        } else {
            let permit = self.pace().connection_permit(Instant::now(), within);
            tokio::time::sleep_until(permit.ok_or(NoneOpen::Later(within))?.into()).await;
            None
        };
        let domain = letter.job.recipient.domain();
        self.route.session(&domain, self.limits.tls, turn).await.map_err(NoneOpen::Failed)
    }
}

/// Why there is no session for a letter.
enum NoneOpen {
    /// Our own limit: not before some time has passed.
    Later(Duration),
    /// The route failed a moment ago.
    LeftAlone(Duration),
    Failed(NoSession),
}
