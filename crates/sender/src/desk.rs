//! The desk of one shard: holds letters by site, claims what may go, parks what would have to wait.

use crate::{
    Office, attempt,
    ear::Ear,
    intake,
    letters::{Chunk, Claimed, Held, acknowledge, give_back, index, rest},
    line::{Bell, Line},
    routes::{RouteId, Tried},
    tenure::Tenure,
    warmup::{self, Standing},
};
use bus::Letter;
use domain::{Lane, Shard, SiteId, warmup::Overflow};
use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};
use store::{Claim, Outcome, Parked, StoreError, Verdict, What};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

/// Longest time between two looks when nothing happens.
const TICK: Duration = Duration::from_millis(250);
/// How often is looked at what has come back by itself.
const ADAPT_EVERY: Duration = Duration::from_millis(100);
/// Pause before another try while Postgres does not answer.
const OUTAGE_PAUSE: Duration = Duration::from_millis(500);

/// What one site has at the desk, of one route.
struct Seat {
    line: Arc<Line>,
    urgent: VecDeque<Held>,
    bulk: VecDeque<Held>,
    used: Instant,
}

impl Seat {
    fn held(&mut self, lane: Lane) -> &mut VecDeque<Held> {
        match lane {
            Lane::Transactional => &mut self.urgent,
            Lane::Bulk => &mut self.bulk,
        }
    }
}

/// What a claim was for, each with the moment from which it may start, and its answer.
struct Answered {
    gathered: Vec<(Held, Instant)>,
    took: Duration,
    verdicts: Result<HashMap<Claim, Verdict>, StoreError>,
}

pub(crate) struct Desk {
    office: Arc<Office>,
    tenure: Arc<Tenure>,
    shard: Shard,
    seats: HashMap<(SiteId, RouteId), Seat>,
    ear: Arc<Ear>,
    /// The last lift of an operator that was looked at.
    lifts: u64,
    /// Letters held, transactional and bulk.
    held: [usize; 2],
    bell: Bell,
    /// Claimed letters that come back from their line to take another route.
    strays: mpsc::UnboundedReceiver<Claimed>,
    last_claim: Instant,
    /// When it was last looked at what has come back.
    adapted: Instant,
    /// The claim of bulk letters that is under way: transactional ones do not wait for its answer.
    bulk_claim: Option<oneshot::Receiver<Answered>>,
    /// Where the last gathering began, so that another site comes first next time.
    turns: [usize; 2],
}

impl Desk {
    pub(crate) async fn new(office: Arc<Office>, tenure: Arc<Tenure>, shard: Shard) -> Self {
        let (sender, strays) = mpsc::unbounded_channel();
        let lifts = office.tempos.lifts(u64::MAX).0;
        Self {
            ear: Ear::new(&office).await,
            lifts,
            office,
            tenure,
            shard,
            seats: HashMap::new(),
            held: [0, 0],
            bell: Bell { freed: Arc::new(Notify::new()), strays: sender },
            strays,
            last_claim: Instant::now(),
            adapted: Instant::now(),
            bulk_claim: None,
            turns: [0, 0],
        }
    }

    /// Serves the shard until `stop` is cancelled or the lease is over. Returns when nothing is claimed under it, or
    /// the lease is over and nothing more will be begun.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let [mut urgent, mut bulk] = Lane::ALL.map(|lane| intake::begin(&self.office, self.shard, lane, &stop));
        let limit = usize::try_from(self.office.config.desk.held.get()).unwrap_or(usize::MAX);
        while !stop.is_cancelled() && self.tenure.is_live() {
            let wait = self.next_look();
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(letters) = urgent.recv(), if self.held[0] < limit => self.take(letters),
                answered = answer(&mut self.bulk_claim), if self.bulk_claim.is_some() => self.go_on(answered).await,
                Some(letters) = bulk.recv(), if self.held[1] < limit => self.take(letters),
                Some(claimed) = self.strays.recv() => self.redirect(claimed),
                () = self.bell.freed.notified() => {}
                () = tokio::time::sleep(wait) => {}
            }
            self.round().await;
        }
        stop.cancel();
        self.leave([urgent, bulk]).await;
    }

    fn take(&mut self, letters: Vec<Held>) {
        for held in letters {
            self.office.metrics.held.inc();
            self.held[index(held.letter.job.lane)] += 1;
            self.hold(held);
        }
    }

    /// Puts a letter where its route's letters to its site wait.
    fn hold(&mut self, mut held: Held) {
        held.route = self.choose(&held.letter);
        let lane = held.letter.job.lane;
        self.seat(&held.letter.job.site, held.route).held(lane).push_back(held);
    }

    /// The route that a letter takes as things stand; where none can be used, the one that it waits for.
    fn choose(&self, letter: &Letter) -> RouteId {
        let routes = &self.office.routes;
        if letter.sandbox || !routes.has_choice(letter) {
            return routes.first(letter);
        }
        let now = Instant::now();
        let is_usable = |route| {
            let seat = self.seats.get(&(letter.job.site.clone(), route));
            seat.is_none_or(|seat| seat.line.paused(now).is_none()) && !self.overflows(route, &letter.job.site, now)
        };
        routes.pick(letter, Tried::default(), now, is_usable).unwrap_or_else(|| routes.first(letter))
    }

    /// Whether mail to a site is to take other routes than one that is warmed up and has no permit now.
    fn overflows(&self, route: RouteId, site: &SiteId, now: Instant) -> bool {
        let standing = self.office.warmups.standing(route, site, now);
        matches!(standing, Standing::Short { overflow: Overflow::Routes, .. })
    }

    /// Lets letters whose route is left alone go another way, if there is one.
    fn divert(&mut self) {
        let now = Instant::now();
        let mut diverted = Vec::new();
        let warmups = &self.office.warmups;
        let overflows = |seat: &Seat, now| {
            let standing = warmups.standing(seat.line.id(), seat.line.site(), now);
            matches!(standing, Standing::Short { overflow: Overflow::Routes, .. })
        };
        for seat in self.seats.values_mut() {
            let is_empty = seat.urgent.is_empty() && seat.bulk.is_empty();
            if is_empty || seat.line.paused(now).is_none() && !overflows(seat, now) {
                continue;
            }
            for lane in Lane::ALL {
                let held = seat.held(lane);
                if held.iter().any(|held| self.office.routes.has_choice(&held.letter)) {
                    diverted.extend(held.drain(..));
                }
            }
        }
        for held in diverted {
            self.hold(held);
        }
    }

    /// Hands a claimed letter to the line of another route.
    fn redirect(&mut self, claimed: Claimed) {
        let line = Arc::clone(&self.seat(&claimed.letter.job.site, claimed.route).line);
        line.push(Claimed { since: Instant::now(), ..claimed });
    }

    fn seat(&mut self, site: &SiteId, route: RouteId) -> &mut Seat {
        self.seats.entry((site.clone(), route)).or_insert_with(|| Seat {
            line: Line::new(site.clone(), route, &self.office, &self.tenure, &self.ear, &self.bell),
            urgent: VecDeque::new(),
            bulk: VecDeque::new(),
            used: Instant::now(),
        })
    }

    fn next_look(&self) -> Duration {
        if self.held == [0, 0] {
            return TICK;
        }
        if self.bulk_claim.is_some() {
            return self.office.config.desk.claim_every.max(Duration::from_millis(1));
        }
        self.office.config.desk.claim_every.saturating_sub(self.last_claim.elapsed()).max(Duration::from_millis(1))
    }

    /// One look at everything: claim what may go, park what must wait, give back what got stuck.
    async fn round(&mut self) {
        self.adapt();
        self.divert();
        self.hold_back().await;
        let most = usize::try_from(self.office.config.desk.claim.get()).unwrap_or(usize::MAX);
        loop {
            // In a statement of its own: one with hundreds of letters takes many times as long.
            let urgent = self.gather(Lane::Transactional, most);
            if urgent.is_empty() {
                break;
            }
            let full = urgent.len() >= most;
            if let Some(urgent) = self.fresh(urgent).await {
                let answered = claim(&self.office, &self.tenure, urgent).await;
                self.settle(answered).await;
            }
            if !full {
                break;
            }
        }
        let is_due = self.last_claim.elapsed() >= self.office.config.desk.claim_every || self.held[1] >= most;
        if is_due && self.bulk_claim.is_none() {
            let bulk = self.gather(Lane::Bulk, most);
            // Also when nothing may go: a look a moment later would find the same.
            self.last_claim = Instant::now();
            if let Some(bulk) = self.fresh(bulk).await {
                let (answer, answered) = oneshot::channel();
                let (office, tenure) = (Arc::clone(&self.office), Arc::clone(&self.tenure));
                self.office.life.spawn_finite("claim", async move {
                    // The desk waits for it, whatever else ends.
                    let _ = answer.send(claim(&office, &tenure, bulk).await);
                });
                self.bulk_claim = Some(answered);
            }
        }
        self.park_the_old().await;
        for seat in self.seats.values() {
            for claimed in seat.line.take_back(false) {
                let done = attempt::given_back(&self.office, &self.tenure, &claimed, Duration::from_secs(1));
                self.office.recorder.submit(done, &self.tenure).await;
            }
        }
        let idle = self.office.config.desk.idle;
        self.seats.retain(|_, seat| {
            let empty = seat.urgent.is_empty() && seat.bulk.is_empty() && seat.line.is_idle();
            // The pace of a site is remembered for a while: what it said last still holds.
            !empty || seat.used.elapsed() < idle.max(Duration::from_secs(120)) || seat.line.is_slowed()
        });
    }

    /// Takes in what has come back by itself, and what operators have lifted.
    fn adapt(&mut self) {
        let now = Instant::now();
        if now.duration_since(self.adapted) < ADAPT_EVERY {
            return;
        }
        self.adapted = now;
        let (last, lifts) = self.office.tempos.lifts(self.lifts);
        self.lifts = last;
        for lift in &lifts {
            self.ear.lift(lift);
        }
        for ((site, _), seat) in &self.seats {
            for lift in lifts.iter().filter(|lift| lift.site == *site) {
                seat.line.lift(&lift.route, now);
            }
            seat.line.recover(now);
        }
        self.ear.tidy();
    }

    /// Puts mail back to rest whose tenant or campaign a site does not want now, and what would have to wait for long
    /// while its route is warmed up.
    async fn hold_back(&mut self) {
        // As nearly always: thousands of sites are not looked at for nothing.
        if self.office.warmups.are_none() && !self.ear.has_suspended_any() {
            return;
        }
        let now = Instant::now();
        let hold = self.office.config.desk.hold;
        let mut parked = Vec::new();
        let mut chunks = Vec::new();
        for ((site, route), seat) in &mut self.seats {
            let short = match self.office.warmups.standing(*route, site, now) {
                Standing::Short { wait, interval, .. } if wait > hold => Some((wait, interval)),
                Standing::Short { .. } | Standing::Free => None,
            };
            if short.is_none() && !self.ear.has_suspended(site) {
                continue;
            }
            let mut position = 0;
            for lane in Lane::ALL {
                let held = std::mem::take(seat.held(lane));
                for one in held {
                    let job = &one.letter.job;
                    let suspended = self.ear.suspended(site, job.tenant, job.campaign, now);
                    let warming = short.map(|(wait, interval)| warmup::rest_of(position, wait, interval));
                    match suspended.or(warming).filter(|_| !one.letter.sandbox) {
                        Some(left) => {
                            position += 1;
                            parked.push(rest(&one.letter, left));
                            chunks.push(one.chunk);
                            self.held[index(lane)] -= 1;
                            self.office.metrics.held.dec();
                        }
                        None => seat.held(lane).push_back(one),
                    }
                }
            }
        }
        self.park(&parked, &chunks).await;
    }

    /// Puts letters back to rest. What could not be is still released and no longer held: repair finds it.
    async fn park(&self, parked: &[Parked], chunks: &[Arc<Chunk>]) {
        if parked.is_empty() {
            return;
        }
        match self.office.store.park(parked).await {
            Ok(count) => {
                self.office.metrics.parked.inc_by(count as u64);
            }
            Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "cannot park letters"),
        }
        acknowledge(chunks.iter().filter_map(|chunk| chunk.settle()).collect()).await;
    }

    /// What the limits let go of a lane within the next moments, each site in its turn.
    fn gather(&mut self, lane: Lane, most: usize) -> Vec<(Held, Instant)> {
        let mut gathered = Vec::new();
        if self.held[index(lane)] == 0 {
            return gathered;
        }
        let now = Instant::now();
        let ahead = self.office.config.desk.ahead;
        let turn = &mut self.turns[index(lane)];
        *turn = turn.wrapping_add(1);
        let start = *turn % self.seats.len().max(1);
        let mut seats: Vec<&mut Seat> = self.seats.values_mut().collect();
        seats.rotate_left(start);
        for seat in seats {
            if seat.held(lane).is_empty() || seat.line.paused(now).is_some() {
                continue;
            }
            let mut room = seat.line.room(lane).min(most.saturating_sub(gathered.len()));
            while room > 0 && !seat.held(lane).is_empty() {
                let (route, site) = (seat.line.id(), seat.line.site());
                if !self.office.warmups.has(route, site) {
                    break;
                }
                let Some(not_before) = seat.line.pace().permit(now, ahead) else { break };
                if !self.office.warmups.take(route, site) {
                    break;
                }
                gathered.extend(seat.held(lane).pop_front().map(|held| (held, not_before)));
                self.held[index(lane)] -= 1;
                room -= 1;
            }
            seat.used = now;
            if gathered.len() >= most {
                break;
            }
        }
        self.office.metrics.held.dec_by(i64::try_from(gathered.len()).unwrap_or(i64::MAX));
        gathered
    }

    /// What of this may be claimed. A second copy of what is in hand is stale. Claimed along, it would find nothing; but
    /// if that claim failed, undoing it would give the first copy's claim back while that one is being sent.
    async fn fresh(&self, gathered: Vec<(Held, Instant)>) -> Option<Vec<(Held, Instant)>> {
        let (copies, fresh): (Vec<_>, Vec<_>) =
            gathered.into_iter().partition(|(held, _)| self.tenure.has_in_hand(&claim_of(&held.letter)));
        acknowledge(copies.iter().filter_map(|(held, _)| held.chunk.settle()).collect()).await;
        (!fresh.is_empty()).then_some(fresh)
    }

    /// Goes on once the claim of bulk letters has its answer; without one, nobody knows what it took.
    async fn go_on(&mut self, answered: Option<Answered>) {
        self.bulk_claim = None;
        match answered {
            Some(answered) => self.settle(answered).await,
            None => self.tenure.end(),
        }
    }

    /// Hands what was claimed to connections.
    async fn settle(&mut self, Answered { gathered, took, verdicts }: Answered) {
        let mut verdicts = match verdicts {
            Ok(verdicts) => verdicts,
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, letters = gathered.len(), "a claim failed");
                self.undo(gathered).await;
                return;
            }
        };
        failpoint::hit!("sender.claim.after", !verdicts.is_empty());
        self.office.metrics.claimed(gathered.len(), &verdicts, took);
        let now = Instant::now();
        let mut finished = Vec::new();
        for (held, not_before) in gathered {
            // Taken out, so that a second copy of this job finds none.
            let job = claim_of(&held.letter);
            let verdict = verdicts.remove(&job);
            // Under a lease that is over nothing is claimed, stale or not. The next owner finds out.
            if verdict.is_none() && !self.tenure.is_live() {
                give_back(&held).await;
                continue;
            }
            let Held { letter, route, chunk, room, .. } = held;
            if verdict == Some(Verdict::Go) {
                self.tenure.claimed(job);
                let line = Arc::clone(&self.seat(&letter.job.site, route).line);
                let tried = Tried::default();
                line.push(Claimed { letter, route, tried, not_before, since: now, _room: room });
            }
            finished.extend(chunk.settle());
        }
        acknowledge(finished).await;
    }

    /// A claim whose answer is not known: whatever it took is given back and the rest is parked, before anything of
    /// it can be claimed again.
    async fn undo(&self, gathered: Vec<(Held, Instant)>) {
        let outcomes: Vec<Outcome> = gathered
            .iter()
            .map(|(held, not_before)| {
                let claimed = Claimed {
                    letter: held.letter.clone(),
                    route: held.route,
                    tried: Tried::default(),
                    not_before: *not_before,
                    since: Instant::now(),
                    _room: None,
                };
                attempt::given_back(&self.office, &self.tenure, &claimed, Duration::from_secs(1)).outcome
            })
            .collect();
        let parked: Vec<Parked> = gathered.iter().map(|(held, _)| rest(&held.letter, Duration::from_secs(1))).collect();
        loop {
            match self.settle_unknown(&outcomes, &parked).await {
                Ok(true) => break,
                Ok(false) => {}
                Err(error) if error.is_retryable() => tokio::time::sleep(OUTAGE_PAUSE).await,
                Err(error) => {
                    tracing::error!(
                        error = &error as &dyn std::error::Error,
                        "cannot undo a claim; its messages end in doubt"
                    );
                    // Under a live lease they would stay as being sent for ever.
                    self.tenure.end();
                }
            }
            if !self.tenure.is_live() {
                return; // the next owner's business; the chunks come again
            }
        }
        acknowledge(gathered.iter().filter_map(|(held, _)| held.chunk.settle()).collect()).await;
    }

    /// Whether none of these is claimed under this lease any more.
    async fn settle_unknown(&self, outcomes: &[Outcome], parked: &[Parked]) -> Result<bool, StoreError> {
        debug_assert!(outcomes.iter().all(|outcome| matches!(outcome.what, What::GivenBack { .. })));
        self.office.store.record(outcomes).await?;
        self.office.store.park(parked).await?;
        let mine = self.office.store.orphans_of(&[self.tenure.lease.epoch]).await?;
        Ok(!mine.iter().any(|orphan| {
            outcomes.iter().any(|outcome| outcome.message == orphan.message && outcome.release == orphan.release)
        }))
    }

    /// Parks what was held too long, and what a paused site would keep for too long, each with its estimated turn.
    async fn park_the_old(&mut self) {
        let now = Instant::now();
        let hold = self.office.config.desk.hold;
        let routes = &self.office.routes;
        let mut parked = Vec::new();
        let mut chunks = Vec::new();
        for seat in self.seats.values_mut() {
            // Of this site alone: others do not stand in its way.
            let mut position = 0;
            for lane in Lane::ALL {
                let pause = seat.line.paused(now).unwrap_or(Duration::ZERO);
                // Where there is a choice, the next round lets it go another way: the pause may have begun in this one.
                let is_due = |held: &Held| held.waited(now) > hold || pause > hold && !routes.has_choice(&held.letter);
                while seat.held(lane).front().is_some_and(is_due) {
                    let Some(held) = seat.held(lane).pop_front() else { break };
                    self.held[index(lane)] -= 1;
                    self.office.metrics.held.dec();
                    let turn = seat.line.turn(position, now);
                    position += 1;
                    parked.push(rest(&held.letter, turn));
                    chunks.push(held.chunk);
                }
            }
        }
        self.park(&parked, &chunks).await;
    }

    /// Gives everything back that was not begun, and waits for what was.
    async fn leave(mut self, intakes: [mpsc::Receiver<Vec<Held>>; 2]) {
        if self.bulk_claim.is_some() {
            let answered = answer(&mut self.bulk_claim).await;
            self.go_on(answered).await;
        }
        for (_, seat) in self.seats.drain() {
            for claimed in seat.line.take_back(true) {
                let done = attempt::given_back(&self.office, &self.tenure, &claimed, Duration::ZERO);
                self.office.recorder.submit(done, &self.tenure).await;
            }
            for held in seat.urgent.into_iter().chain(seat.bulk) {
                self.office.metrics.held.dec();
                give_back(&held).await;
            }
        }
        // What comes after this the lines give back themselves.
        self.strays.close();
        while let Some(claimed) = self.strays.recv().await {
            let done = attempt::given_back(&self.office, &self.tenure, &claimed, Duration::ZERO);
            self.office.recorder.submit(done, &self.tenure).await;
        }
        for mut intake in intakes {
            // What comes after this the intake gives back itself.
            intake.close();
            while let Some(letters) = intake.recv().await {
                for held in &letters {
                    give_back(held).await;
                }
            }
        }
        self.tenure.all_recorded().await;
    }
}

async fn claim(office: &Office, tenure: &Tenure, gathered: Vec<(Held, Instant)>) -> Answered {
    let claims: Vec<Claim> = gathered.iter().map(|(held, _)| claim_of(&held.letter)).collect();
    let begun = Instant::now();
    let verdicts = office.store.claim(&tenure.lease, &claims).await;
    Answered { gathered, took: begun.elapsed(), verdicts }
}

/// The answer of a claim under way; `None` when it ended without one. Waits for ever when there is none.
async fn answer(claim: &mut Option<oneshot::Receiver<Answered>>) -> Option<Answered> {
    match claim {
        Some(claim) => claim.await.ok(),
        None => std::future::pending().await,
    }
}

fn claim_of(letter: &Letter) -> Claim {
    Claim { message: letter.job.message, release: letter.job.release }
}
