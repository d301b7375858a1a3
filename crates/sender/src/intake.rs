//! What comes to the desk of a shard: chunks of one lane, rendered where they are references, at the right site.

use crate::{
    Office,
    letters::{Chunk, Held, acknowledge, give_back, index, rest},
};
use bus::{Letter, Puller, SendChunk};
use domain::{DomainName, Lane, Shard, SiteId};
use futures_util::{StreamExt, stream};
use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};
use store::{Parked, QueueKey};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_util::sync::CancellationToken;

/// The unit in which the memory of rendered letters is counted.
pub(crate) const KIB: usize = 1024;
/// Chunks that wait, prepared, for room at the desk, of each lane.
const PREPARED: usize = 2;
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

/// A task that pulls chunks of a lane and prepares them, until `stop` is cancelled.
pub(crate) fn begin(
    office: &Arc<Office>,
    shard: Shard,
    lane: Lane,
    stop: &CancellationToken,
) -> mpsc::Receiver<Vec<Held>> {
    let (sender, receiver) = mpsc::channel(PREPARED);
    let puller = office.bus.send_jobs(lane, shard);
    let intake = Intake { office: Arc::clone(office), shard, puller, sender, silent: HashMap::new() };
    office.life.spawn_finite("intake", intake.run(stop.clone()));
    receiver
}

impl Intake {
    async fn run(mut self, stop: CancellationToken) {
        while let Some(delivery) = stop.run_until_cancelled(self.puller.next()).await {
            let sites = self.sites(&delivery.payload.items).await;
            let chunk = Chunk::new(delivery.payload.items.len(), delivery.handle);
            let since = delivery.received.into();
            let mut ready = Vec::with_capacity(delivery.payload.items.len());
            for letter in delivery.payload.items {
                // Before it is rendered, or every shard could hold one mail that nobody has counted.
                let mut room = None;
                if letter.mime.is_none() {
                    match self.room(letter.job.lane, &mut ready, &stop).await {
                        Ok(Some(most)) => room = Some(most),
                        Ok(None) => {
                            self.put_off(&letter, &chunk).await;
                            continue;
                        }
                        Err(Closed) => {
                            let route = self.office.routes.first(&letter);
                            give_back(&Held { letter, route, chunk, since, room }).await;
                            return;
                        }
                    }
                }
                let Some(letter) = self.prepare(letter, &sites).await else {
                    acknowledge(chunk.settle().into_iter().collect()).await;
                    continue;
                };
                if let Some(room) = &mut room {
                    self.keep(room, &letter);
                }
                let route = self.office.routes.first(&letter);
                ready.push(Held { letter, route, chunk: Arc::clone(&chunk), since, room });
            }
            if let Err(mpsc::error::SendError(letters)) = self.sender.send(ready).await {
                for held in &letters {
                    give_back(held).await;
                }
                return;
            }
        }
    }

    /// Memory for the largest mail there may be, which is to be rendered here. What is ready goes to the desk first when
    /// there is none: it would keep its own for ever. `None`: there is none for as long as a letter may be held; smaller
    /// ones come behind it.
    async fn room(
        &self,
        lane: Lane,
        ready: &mut Vec<Held>,
        stop: &CancellationToken,
    ) -> Result<Option<OwnedSemaphorePermit>, Closed> {
        let rendered = &self.office.rendered[index(lane)];
        let most = self.places(self.office.press.max_message_bytes());
        if let Ok(room) = Arc::clone(rendered).try_acquire_many_owned(most) {
            return Ok(Some(room));
        }
        if let Err(mpsc::error::SendError(letters)) = self.sender.send(std::mem::take(ready)).await {
            for held in &letters {
                give_back(held).await;
            }
            return Err(Closed);
        }
        let room = Arc::clone(rendered).acquire_many_owned(most);
        let room = tokio::time::timeout(self.office.config.desk.hold, room);
        match stop.run_until_cancelled(room).await {
            None | Some(Ok(Err(_))) => Err(Closed),
            Some(Err(_)) => Ok(None),
            Some(Ok(Ok(room))) => Ok(Some(room)),
        }
    }

    /// Gives back what a rendered letter does not need of its room.
    fn keep(&self, room: &mut OwnedSemaphorePermit, letter: &Letter) {
        let needed = self.places(letter.mime.as_ref().map_or(0, |mime| mime.len()));
        drop(room.split(room.num_permits().saturating_sub(needed as usize)));
    }

    /// What so many octets take of the room of a lane, which one mail always finds.
    fn places(&self, octets: usize) -> u32 {
        let all = (self.office.config.desk.rendered_bytes / KIB / 2).max(1);
        u32::try_from((octets / KIB + 1).min(all)).unwrap_or(u32::MAX)
    }

    /// Lets a letter rest that there is no memory for.
    async fn put_off(&self, letter: &Letter, chunk: &Chunk) {
        let parked = rest(letter, self.office.config.desk.hold);
        match self.office.store.park(&[parked]).await {
            Ok(count) => {
                self.office.metrics.parked.inc_by(count as u64);
            }
            // Still released, and no longer held: repair finds it.
            Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "cannot park a letter"),
        }
        acknowledge(chunk.settle().into_iter().collect()).await;
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
        let domains: HashMap<DomainName, &Letter> =
            sent.map(|letter| (letter.job.recipient.domain(), letter)).collect();
        let routes = &self.office.routes;
        let asks: Vec<_> = domains
            .into_iter()
            .filter(|(domain, _)| self.silent.get(domain).is_none_or(|until| *until < now))
            .map(async |(domain, letter)| {
                let asked = Instant::now();
                let site = tokio::time::timeout(SITE_WAIT, routes.site(letter)).await.ok().flatten();
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
                Ok(rendered) => letter.mime = Some(rendered.mime),
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

/// The desk takes no more letters.
struct Closed;
