//! The release loop: who goes next, as many as there is room for, out to the renderers.
//!
//! A round is one release statement and the publishes of its chunks. A crash between the two leaves rows released
//! that nobody carries; repair puts them back. A chunk that the broker did not take gives its rows back at once;
//! one whose fate is unknown is left to repair, since giving back what travels would only render it twice.
//! While the bus is not known to take work, nothing is released.

use crate::{
    metrics,
    publish::{Fate, Publisher},
    ready::Ready,
    tenure::{Streak, Tenure},
    windows::Windows,
};
use domain::{Fairness, Lane, Slot, fairness};
use std::{
    collections::{BTreeMap, HashSet},
    num::NonZeroU16,
    time::Duration,
};
use store::{Quota, StoreError};
use tokio::time::Instant;

/// A round that released fewer is followed by a short pause, so that rings gather.
const SMALL_ROUND: usize = 100;
/// Least time between two looks that rings ask for.
const RUNG_LOOK_SPACING: Duration = Duration::from_millis(50);
/// Between tries to listen for rings.
const LISTEN_AGAIN: Duration = Duration::from_secs(1);

/// The release loop's own state.
struct Rounds<'a> {
    tenure: &'a Tenure<'a>,
    publisher: Publisher<'a>,
    ready: Ready,
    windows: Windows,
    /// One for each lane, since each lane has windows of its own.
    fairness: BTreeMap<Lane, Fairness<i64>>,
    /// The next look, and the next without bounds.
    look_at: Instant,
    full_look_at: Instant,
    looked: Instant,
    /// Whether something is due that finds no room.
    limited: bool,
}

/// Releases until the end of the tenure.
pub(crate) async fn release(tenure: &Tenure<'_>, rates: BTreeMap<Slot, f64>, pulse: &service::Pulse) {
    let now = Instant::now();
    let mut rounds = Rounds {
        tenure,
        publisher: Publisher::new(tenure),
        ready: Ready::new(tenure.config.bound_slack),
        windows: Windows::new(tenure.config, rates, now),
        fairness: Lane::ALL.into_iter().map(|lane| (lane, Fairness::default())).collect(),
        look_at: now,
        full_look_at: now,
        looked: now,
        limited: false,
    };
    // What an earlier holder left in motion counts before the first release.
    let mut counted = false;
    let mut streak = Streak::new("the release loop");
    let mut bells = Bells::default();
    let mut bus_up = tenure.bus_up.subscribe();
    while !tenure.is_stopping() {
        pulse.beat();
        if !*bus_up.borrow_and_update() {
            tokio::select! {
                () = tenure.stop.cancelled() => return,
                _ = bus_up.changed() => {}
                // For the pulse.
                () = tokio::time::sleep(Duration::from_secs(1)) => {}
            }
            continue;
        }
        let began = Instant::now();
        let recount_interval =
            if rounds.limited { tenure.config.recount_busy_interval } else { tenure.config.recount_interval };
        let outcome = async {
            if !counted || began >= rounds.windows.recounted() + recount_interval {
                rounds.recount().await?;
                counted = true;
            }
            if began >= rounds.look_at {
                rounds.look().await?;
            }
            rounds.round().await
        };
        let wait = match outcome.await {
            Ok(0) => {
                streak.worked();
                let recount_at = rounds.windows.recounted() + recount_interval_after(&rounds);
                rounds.look_at.min(recount_at)
            }
            Ok(released) => {
                streak.worked();
                tenure.metrics.round_seconds.observe(began.elapsed().as_secs_f64());
                if released < SMALL_ROUND { began + tenure.config.round_spacing } else { continue }
            }
            Err(error) => Instant::now() + streak.failed(&error),
        };
        rounds.wait(&mut bells, &mut bus_up, wait).await;
    }
}

fn recount_interval_after(rounds: &Rounds<'_>) -> Duration {
    let config = rounds.tenure.config;
    if rounds.limited { config.recount_busy_interval } else { config.recount_interval }
}

impl Rounds<'_> {
    /// Counts what is in motion.
    async fn recount(&mut self) -> Result<(), StoreError> {
        let counted = self.tenure.store.in_motion().await?;
        let overrun = self.tenure.take_overrun();
        self.windows.recount(&counted, &overrun, Instant::now());
        for lane in Lane::ALL {
            let (moving, window) = self.windows.totals(lane);
            let gauge = |value| i64::try_from(value).unwrap_or(i64::MAX);
            self.tenure.metrics.in_motion.get_or_create(&metrics::lane(lane)).set(gauge(moving));
            self.tenure.metrics.window.get_or_create(&metrics::lane(lane)).set(gauge(window));
        }
        Ok(())
    }

    /// Looks for queues that have something due.
    async fn look(&mut self) -> Result<(), StoreError> {
        let began = Instant::now();
        let full = began >= self.full_look_at;
        let bounds = if full { Vec::new() } else { self.ready.bounds() };
        let found = self.tenure.store.due_queues(&bounds).await?;
        let oldest = found.iter().map(|queue| queue.first_due).min();
        let age = oldest.map_or(0, |due| (service::clock::now() - due).num_milliseconds().max(0));
        self.tenure.metrics.oldest_due_ms.set(age);
        self.tenure.metrics.due_queues.set(i64::try_from(found.len()).unwrap_or(i64::MAX));
        self.ready.found(found, full);
        self.looked = began;
        self.look_at = began + self.tenure.config.look_interval;
        if full {
            self.full_look_at = began + self.tenure.config.full_look_interval;
        }
        Ok(())
    }

    /// Releases and publishes what there is room for; returns how many.
    async fn round(&mut self) -> Result<usize, StoreError> {
        let quotas = self.quotas();
        if quotas.is_empty() {
            return Ok(0);
        }
        let rows = self.tenure.store.release(&quotas).await?;
        failpoint::hit!("dispatcher.release.after", !rows.is_empty());
        self.ready.released(&quotas, &rows);
        if rows.is_empty() {
            return Ok(0);
        }
        let released = rows.len();
        let now = Instant::now();
        let batch = self.publisher.prepare(rows).await;
        for place in batch.places() {
            self.windows.released(place.lane, place.slot, place.count, place.octets, now);
            let count =
                self.tenure.metrics.released.get_or_create(&metrics::lane(place.lane)).inc_by(place.count.into());
            tracing::trace!(lane = %place.lane, slot = %place.slot, messages = place.count, total = count, "released");
        }
        let fates = self.publisher.publish(batch).await;
        self.take_over(&fates);
        Ok(released)
    }

    /// What became of the chunks, for the windows and the bus.
    fn take_over(&mut self, fates: &[Fate]) {
        let now = Instant::now();
        let rest = now + self.tenure.config.refused_delay;
        for fate in fates {
            if fate.given_back > 0 {
                self.windows.given_back(fate.lane, fate.slot, fate.given_back, now);
            }
            if fate.is_full {
                self.windows.refused(fate.lane, rest);
            }
            if fate.bus_is_suspect {
                self.tenure.suspect_bus();
                Lane::ALL.into_iter().for_each(|lane| self.windows.close(lane, rest));
            }
        }
    }

    /// Shares what one statement takes among the queues that are due, the urgent lane first.
    fn quotas(&mut self) -> Vec<Quota> {
        let now = Instant::now();
        let mut budget = self.tenure.config.release_batch;
        let mut quotas = Vec::new();
        self.limited = false;
        for lane in Lane::ALL {
            let mut slots = HashSet::new();
            let due: Vec<fairness::DueQueue<i64>> = self
                .ready
                .due()
                .filter(|queue| queue.key.lane == lane)
                .map(|queue| {
                    slots.insert(queue.key.slot);
                    fairness::DueQueue {
                        queue: queue.id,
                        tenant: queue.key.tenant,
                        lane,
                        slot: queue.key.slot,
                        weight: u16::try_from(queue.weight).ok().and_then(NonZeroU16::new).unwrap_or(NonZeroU16::MIN),
                        // How much is due behind the first row is not known, and need not be.
                        backlog: self.tenure.config.release_batch,
                    }
                })
                .collect();
            if due.is_empty() {
                continue;
            }
            let lane_room = self.windows.lane_room(lane, now);
            for slot in slots {
                if lane_room == 0 || self.windows.room(lane, slot) == 0 {
                    self.windows.limited(lane, slot, now);
                    self.limited = true;
                }
            }
            let Some(fairness) = self.fairness.get_mut(&lane) else { continue };
            let shares = fairness.share(&due, |slot| self.windows.room(lane, slot), budget.min(lane_room));
            for share in shares {
                budget -= share.count;
                quotas.push(Quota { queue: share.queue, count: share.count, lower: self.ready.bound(share.queue) });
            }
        }
        quotas
    }

    /// Waits until the given time, a ring, something that rests again, or a change of the bus.
    async fn wait(&mut self, bells: &mut Bells, bus_up: &mut tokio::sync::watch::Receiver<bool>, until: Instant) {
        tokio::select! {
            () = self.tenure.stop.cancelled() => {}
            () = tokio::time::sleep_until(until) => {}
            _ = bus_up.changed() => {}
            () = self.tenure.look_now.notified() => self.look_soon(),
            queues = bells.next(self.tenure) => {
                if !self.ready.rung(&queues) {
                    self.look_soon();
                }
            }
        }
    }

    fn look_soon(&mut self) {
        self.look_at = self.look_at.min(self.looked + RUNG_LOOK_SPACING);
    }
}

/// The doorbell, across a closed subscription.
#[derive(Default)]
struct Bells {
    open: Option<bus::Doorbells>,
}

impl Bells {
    /// The queues that the next ring names. May be cancelled.
    async fn next(&mut self, tenure: &Tenure<'_>) -> Vec<i64> {
        loop {
            if self.open.is_none() {
                match tenure.bus.doorbells().await {
                    Ok(bells) => self.open = Some(bells),
                    Err(_) => tokio::time::sleep(LISTEN_AGAIN).await,
                }
            }
            if let Some(bells) = &mut self.open {
                if let Some(queues) = bells.next().await {
                    return queues;
                }
                self.open = None;
                tokio::time::sleep(LISTEN_AGAIN).await;
            }
        }
    }
}
