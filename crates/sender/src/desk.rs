//! The desk of one shard: holds letters by site, claims what may go, parks what would have to wait.

use crate::{
    Office, attempt,
    letters::{Chunk, Claimed, Held},
    line::Line,
    tenure::Tenure,
};
use bus::{AckHandle, Letter, Puller, SendChunk};
use domain::{DomainName, Lane, Shard, SiteId};
use futures_util::{StreamExt, stream};
use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};
use store::{Claim, Outcome, Parked, QueueKey, StoreError, Verdict, What};
use tokio::sync::{Notify, OwnedSemaphorePermit, mpsc};
use tokio_util::sync::CancellationToken;

/// The unit in which the memory of rendered letters is counted.
pub(crate) const KIB: usize = 1024;
/// Chunks that wait, prepared, for room at the desk, of each lane.
const PREPARED: usize = 2;
/// Longest time between two looks when nothing happens.
const TICK: Duration = Duration::from_millis(250);
/// Pause before another try while Postgres does not answer.
const OUTAGE_PAUSE: Duration = Duration::from_millis(500);
/// Longest wait for the site of a domain. Without an answer the letter stays at the site that is known so far.
const SITE_WAIT: Duration = Duration::from_secs(5);
/// Domains of one chunk whose sites are asked for at the same time.
const SITES_AT_ONCE: usize = 64;
/// A domain that has no answer after this long counts as one that gave none in time.
const SLOW: Duration = Duration::from_secs(1);
/// How long a domain that gave no answer in time is not asked for its site again.
const SILENT_FOR: Duration = Duration::from_secs(300);
/// Silent domains that are remembered before all are forgotten.
const SILENT_LIMIT: usize = 10_000;

/// What one site has at the desk.
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

pub(crate) struct Desk {
    office: Arc<Office>,
    tenure: Arc<Tenure>,
    shard: Shard,
    seats: HashMap<SiteId, Seat>,
    /// Letters held, transactional and bulk.
    held: [usize; 2],
    freed: Arc<Notify>,
    last_claim: Instant,
    /// Where the last gathering began, so that another site comes first next time.
    turns: [usize; 2],
}

impl Desk {
    pub(crate) fn new(office: Arc<Office>, tenure: Arc<Tenure>, shard: Shard) -> Self {
        Self {
            office,
            tenure,
            shard,
            seats: HashMap::new(),
            held: [0, 0],
            freed: Arc::new(Notify::new()),
            last_claim: Instant::now(),
            turns: [0, 0],
        }
    }

    /// Serves the shard until `stop` is cancelled or the lease is over. Returns when nothing is claimed under it, or
    /// the lease is over and nothing more will be begun.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let (mut urgent, mut bulk) = (self.intake(Lane::Transactional, &stop), self.intake(Lane::Bulk, &stop));
        let limit = usize::try_from(self.office.config.desk.held.get()).unwrap_or(usize::MAX);
        while !stop.is_cancelled() && self.tenure.is_live() {
            let wait = self.next_look();
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(letters) = urgent.recv(), if self.held[0] < limit => self.take(letters),
                Some(letters) = bulk.recv(), if self.held[1] < limit => self.take(letters),
                () = self.freed.notified() => {}
                () = tokio::time::sleep(wait) => {}
            }
            self.round().await;
        }
        stop.cancel();
        self.leave([urgent, bulk]).await;
    }

    /// A task that pulls chunks of a lane and prepares them.
    fn intake(&self, lane: Lane, stop: &CancellationToken) -> mpsc::Receiver<Vec<Held>> {
        let (sender, receiver) = mpsc::channel(PREPARED);
        let puller = self.office.bus.send_jobs(lane, self.shard);
        let intake =
            Intake { office: Arc::clone(&self.office), shard: self.shard, puller, sender, silent: HashMap::new() };
        self.office.life.spawn_finite("intake", intake.run(stop.clone()));
        receiver
    }

    fn take(&mut self, letters: Vec<Held>) {
        for held in letters {
            let lane = held.letter.job.lane;
            let site = held.letter.job.site.clone();
            let seat = self.seats.entry(site.clone()).or_insert_with(|| Seat {
                line: Line::new(site, &self.office, &self.tenure, &self.freed),
                urgent: VecDeque::new(),
                bulk: VecDeque::new(),
                used: Instant::now(),
            });
            seat.held(lane).push_back(held);
            self.held[index(lane)] += 1;
            self.office.metrics.held.inc();
        }
    }

    fn next_look(&self) -> Duration {
        if self.held == [0, 0] {
            return TICK;
        }
        self.office.config.desk.claim_every.saturating_sub(self.last_claim.elapsed()).max(Duration::from_millis(1))
    }

    /// One look at everything: claim what may go, park what must wait, give back what got stuck.
    async fn round(&mut self) {
        let most = usize::try_from(self.office.config.desk.claim.get()).unwrap_or(usize::MAX);
        loop {
            let bulk_is_due = self.last_claim.elapsed() >= self.office.config.desk.claim_every || self.held[1] >= most;
            if !bulk_is_due && self.held[0] == 0 {
                break;
            }
            // In a statement of its own: one with hundreds of letters takes many times as long.
            let urgent = self.gather(Lane::Transactional, most);
            if !urgent.is_empty() {
                let full = urgent.len() >= most;
                self.claim(urgent).await;
                if full {
                    continue;
                }
            }
            if !bulk_is_due {
                break;
            }
            let bulk = self.gather(Lane::Bulk, most);
            // Also when nothing may go: a look a moment later would find the same.
            self.last_claim = Instant::now();
            if bulk.is_empty() {
                break;
            }
            let full = bulk.len() >= most;
            self.claim(bulk).await;
            if !full {
                break;
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
            !empty || seat.used.elapsed() < idle.max(Duration::from_secs(120))
        });
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
            if seat.held(lane).is_empty() || seat.line.pace().paused(now).is_some() {
                continue;
            }
            let mut room = seat.line.room(lane).min(most.saturating_sub(gathered.len()));
            while room > 0 && !seat.held(lane).is_empty() {
                let Some(not_before) = seat.line.pace().permit(now, ahead) else { break };
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

    async fn claim(&mut self, gathered: Vec<(Held, Instant)>) {
        // A second copy of what is in hand is stale. Claimed along, it would find nothing; but if that claim failed,
        // undoing it would give the first copy's claim back while that one is being sent.
        let (copies, gathered): (Vec<_>, Vec<_>) =
            gathered.into_iter().partition(|(held, _)| self.tenure.has_in_hand(&claim_of(&held.letter)));
        acknowledge(copies.iter().filter_map(|(held, _)| held.chunk.settle()).collect()).await;
        if gathered.is_empty() {
            return;
        }
        let claims: Vec<Claim> = gathered.iter().map(|(held, _)| claim_of(&held.letter)).collect();
        let begun = Instant::now();
        let mut verdicts = match self.office.store.claim(&self.tenure.lease, &claims).await {
            Ok(verdicts) => verdicts,
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, letters = claims.len(), "a claim failed");
                self.undo(gathered).await;
                return;
            }
        };
        failpoint::hit!("sender.claim.after", !verdicts.is_empty());
        self.office.metrics.claimed(claims.len(), &verdicts, begun.elapsed());
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
            let Held { letter, chunk, room, .. } = held;
            if verdict == Some(Verdict::Go) {
                self.tenure.claimed(job);
                if let Some(seat) = self.seats.get(&letter.job.site) {
                    seat.line.push(Claimed { letter, not_before, since: now, _room: room });
                }
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
        let mut parked = Vec::new();
        let mut chunks = Vec::new();
        for seat in self.seats.values_mut() {
            // Of this site alone: others do not stand in its way.
            let mut position = 0;
            for lane in Lane::ALL {
                let pause = seat.line.pace().paused(now).unwrap_or(Duration::ZERO);
                while seat.held(lane).front().is_some_and(|held| held.waited(now) > hold || pause > hold) {
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
        if parked.is_empty() {
            return;
        }
        match self.office.store.park(&parked).await {
            Ok(count) => {
                self.office.metrics.parked.inc_by(count as u64);
            }
            // Still released, and no longer held: repair finds them.
            Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "cannot park letters"),
        }
        acknowledge(chunks.iter().filter_map(|chunk| chunk.settle()).collect()).await;
    }

    /// Gives everything back that was not begun, and waits for what was.
    async fn leave(mut self, intakes: [mpsc::Receiver<Vec<Held>>; 2]) {
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

/// Pulls chunks of one lane, and makes letters ready for the desk.
struct Intake {
    office: Arc<Office>,
    shard: Shard,
    puller: Puller<SendChunk>,
    sender: mpsc::Sender<Vec<Held>>,
    /// Domains that gave no answer lately, and until when they are not asked again.
    silent: HashMap<DomainName, Instant>,
}

/// Sites by domain, and how long each may be believed.
type Sites = HashMap<DomainName, (SiteId, Duration)>;

impl Intake {
    async fn run(mut self, stop: CancellationToken) {
        while let Some(delivery) = stop.run_until_cancelled(self.puller.next()).await {
            let sites = self.sites(&delivery.payload.items).await;
            let chunk = Chunk::new(delivery.payload.items.len(), delivery.handle);
            let since = delivery.received.into();
            let mut ready = Vec::with_capacity(delivery.payload.items.len());
            for letter in delivery.payload.items {
                let is_reference = letter.mime.is_none();
                let Some(letter) = self.prepare(letter, &sites).await else {
                    acknowledge(chunk.settle().into_iter().collect()).await;
                    continue;
                };
                let mut held = Held { letter, chunk: Arc::clone(&chunk), since, room: None };
                if is_reference {
                    match self.room(&held.letter, &mut ready, &stop).await {
                        Ok(Some(room)) => held.room = Some(room),
                        Ok(None) => {
                            self.put_off(held).await;
                            continue;
                        }
                        Err(Closed) => {
                            give_back(&held).await;
                            return;
                        }
                    }
                }
                ready.push(held);
            }
            if let Err(mpsc::error::SendError(letters)) = self.sender.send(ready).await {
                for held in &letters {
                    give_back(held).await;
                }
                return;
            }
        }
    }

    /// Memory for a letter that was rendered here. What is ready goes to the desk first when there is none: it would
    /// keep its own for ever. `None`: there is none for as long as a letter may be held; smaller ones come behind it.
    async fn room(
        &self,
        letter: &Letter,
        ready: &mut Vec<Held>,
        stop: &CancellationToken,
    ) -> Result<Option<OwnedSemaphorePermit>, Closed> {
        let all = (self.office.config.desk.rendered_bytes / KIB / 2).max(1);
        let rendered = &self.office.rendered[index(letter.job.lane)];
        let wanted = (letter.mime.as_ref().map_or(0, |mime| mime.len()) / KIB + 1).min(all);
        let wanted = u32::try_from(wanted).unwrap_or(u32::MAX);
        if let Ok(room) = Arc::clone(rendered).try_acquire_many_owned(wanted) {
            return Ok(Some(room));
        }
        if let Err(mpsc::error::SendError(letters)) = self.sender.send(std::mem::take(ready)).await {
            for held in &letters {
                give_back(held).await;
            }
            return Err(Closed);
        }
        let room = Arc::clone(rendered).acquire_many_owned(wanted);
        let room = tokio::time::timeout(self.office.config.desk.hold, room);
        match stop.run_until_cancelled(room).await {
            None | Some(Ok(Err(_))) => Err(Closed),
            Some(Err(_)) => Ok(None),
            Some(Ok(Ok(room))) => Ok(Some(room)),
        }
    }

    /// Lets a letter rest that there is no memory for.
    async fn put_off(&self, held: Held) {
        let parked = rest(&held.letter, self.office.config.desk.hold);
        match self.office.store.park(&[parked]).await {
            Ok(count) => {
                self.office.metrics.parked.inc_by(count as u64);
            }
            // Still released, and no longer held: repair finds it.
            Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "cannot park a letter"),
        }
        acknowledge(held.chunk.settle().into_iter().collect()).await;
    }

    /// The sites behind the domains of a chunk, as far as they can be told soon: each is asked for once, all at the
    /// same time, and one whose servers are silent does not hold the others up.
    async fn sites(&mut self, letters: &[Letter]) -> Sites {
        let now = Instant::now();
        if self.silent.len() > SILENT_LIMIT {
            self.silent.clear();
        }
        // Of mail that is only tried nobody learns, not even a name server.
        let sent = letters.iter().filter(|letter| !letter.sandbox);
        let domains: HashSet<DomainName> = sent.map(|letter| letter.job.recipient.domain()).collect();
        let route = &self.office.route;
        let asks: Vec<_> = domains
            .into_iter()
            .filter(|domain| self.silent.get(domain).is_none_or(|until| *until < now))
            .map(async |domain| {
                let asked = Instant::now();
                let site = tokio::time::timeout(SITE_WAIT, route.site(&domain)).await.ok().flatten();
                (domain, site, asked.elapsed())
            })
            .collect();
        let answers: Vec<_> = stream::iter(asks).buffer_unordered(SITES_AT_ONCE).collect().await;
        let mut sites = Sites::with_capacity(answers.len());
        for (domain, site, took) in answers {
            if let Some(site) = site {
                sites.insert(domain, site);
            } else if took > SLOW {
                self.silent.insert(domain, now + SILENT_FOR);
            }
        }
        sites
    }

    /// Renders a reference, and corrects the site. `None`: it was parked or closed instead.
    async fn prepare(&self, mut letter: Letter, sites: &Sites) -> Option<Letter> {
        if letter.mime.is_none() {
            match self.office.press.render(&letter.job).await {
                Ok(pressed) => {
                    letter.sender = pressed.sender;
                    letter.smtputf8 = pressed.smtputf8;
                    letter.sandbox = pressed.sandbox;
                    letter.mime = Some(pressed.mime);
                }
                Err(error) => {
                    let job = &letter.job;
                    let done = match error.verdict() {
                        press::Verdict::Fail => {
                            self.office.store.fail(job.message, job.release, &error.reason()).await.map(|_| ())
                        }
                        press::Verdict::Park | press::Verdict::Hold => {
                            self.office.store.park(&[rest(&letter, Duration::from_secs(30))]).await.map(|_| ())
                        }
                    };
                    if let Err(error) = done {
                        tracing::warn!(
                            error = &error as &dyn std::error::Error,
                            "cannot put a letter aside; it is repaired"
                        );
                    }
                    return None;
                }
            }
        }
        if letter.sandbox {
            return Some(letter);
        }
        let domain = letter.job.recipient.domain();
        let Some((site, ttl)) = sites.get(&domain) else { return Some(letter) };
        if *site == letter.job.site {
            return Some(letter);
        }
        self.correct(letter, domain, site.clone(), *ttl).await
    }

    /// The MX hosts tell of another site than the domain's name did: it is learned, and a letter of another shard's
    /// site goes back to rest in the right queue.
    async fn correct(&self, mut letter: Letter, domain: DomainName, site: SiteId, ttl: Duration) -> Option<Letter> {
        let expires_at = service::clock::now() + chrono::Duration::from_std(ttl).unwrap_or(chrono::Duration::days(1));
        if let Err(error) = self.office.store.learn_site(&domain, &site, expires_at).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "cannot keep a learned site");
        }
        let slot = site.slot();
        if slot.shard(self.office.shards) == self.shard {
            letter.job.site = site;
            return Some(letter);
        }
        let job = &letter.job;
        let key = QueueKey { tenant: job.tenant, campaign: job.campaign, lane: job.lane, slot, site: None };
        let moved = async {
            let queue = self.office.store.queue_ids(&[key]).await?;
            let parked = Parked {
                message: job.message,
                release: job.release,
                delay: Duration::ZERO,
                queue: queue.first().copied(),
                site: Some(site),
            };
            self.office.store.park(&[parked]).await
        };
        if let Err(error) = moved.await {
            tracing::warn!(error = &error as &dyn std::error::Error, "cannot correct a slot; the letter is repaired");
        }
        None
    }
}

fn claim_of(letter: &Letter) -> Claim {
    Claim { message: letter.job.message, release: letter.job.release }
}

/// The desk takes no more letters.
struct Closed;

fn rest(letter: &Letter, delay: Duration) -> Parked {
    Parked { message: letter.job.message, release: letter.job.release, delay, queue: None, site: None }
}

/// Gives the chunk of a letter back, once for all its letters.
async fn give_back(held: &Held) {
    if let Some(handle) = held.chunk.take()
        && let Err(error) = handle.nak(Duration::ZERO).await
    {
        tracing::debug!(%error, "cannot give a chunk back; it comes again by itself");
    }
}

async fn acknowledge(handles: Vec<AckHandle>) {
    for handle in handles {
        failpoint::hit!("sender.ack.before");
        let answer = handle.ack().await;
        failpoint::hit!("sender.ack.after");
        if let Err(error) = answer {
            tracing::debug!(%error, "cannot acknowledge a chunk; it comes again and finds nothing");
        }
    }
}

const fn index(lane: Lane) -> usize {
    match lane {
        Lane::Transactional => 0,
        Lane::Bulk => 1,
    }
}
