//! How much more each slot may have in motion.
//!
//! Counted in memory between recounts from Postgres. What leaves a slot between two recounts tells its rate; the
//! window is the rate's worth of the horizon, within a floor, a ceiling and a byte budget. A slot that had room to
//! spare does not become slower for it. Each lane has a limit over all slots, which shrinks while the broker
//! refuses chunks and grows back slowly.

use crate::DispatcherConfig;
use domain::{Lane, Slot, WindowPolicy};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};
use store::InMotion;
use tokio::time::Instant;

/// Least time over which a rate is measured; shorter spans are mostly noise.
const MEASURE: Duration = Duration::from_millis(900);
/// Share of a lower sample in the measured rate: it falls in a few seconds and rises at once.
const FALL: f64 = 0.3;
/// Share of the newest round in the mean size of a slot's mail.
const SIZE_SHARE: f64 = 0.2;
/// What a refusal leaves of what a lane had in motion, as its new limit.
const SHRINK: f64 = 0.7;
/// What of its full limit a lane regains with each recount.
const REGAIN: f64 = 0.02;

/// The windows of all slots.
pub(crate) struct Windows {
    limits: Limits,
    cells: HashMap<(Lane, Slot), Cell>,
    lanes: BTreeMap<Lane, LaneLimit>,
    recounted: Instant,
}

struct Limits {
    policy: WindowPolicy,
    min: u32,
    /// The rate of a slot before it has been measured.
    start_rate: f64,
    max: u32,
    lane: f64,
    size: f64,
    rates: BTreeMap<Slot, f64>,
}

#[derive(Default)]
struct LaneLimit {
    limit: f64,
    moving: u32,
    /// The broker refused: nothing goes before.
    closed_until: Option<Instant>,
}

struct Cell {
    moving: u32,
    /// What left the slot since the measurement began.
    done: i64,
    since: Instant,
    /// Whether more was due than there was room for, at some time of the measurement.
    limited: bool,
    /// Messages per second.
    rate: f64,
    /// Mean octets of a mail.
    size: f64,
}

impl Windows {
    pub(crate) fn new(config: &DispatcherConfig, rates: BTreeMap<Slot, f64>, now: Instant) -> Self {
        let limits = Limits {
            policy: config.window,
            min: config.min_window,
            start_rate: f64::from(config.start_window) / config.window.horizon.as_secs_f64().max(f64::MIN_POSITIVE),
            max: config.max_window,
            lane: f64::from(config.max_in_motion),
            size: config.assumed_mail_size.max(1) as f64,
            rates,
        };
        let lane = || LaneLimit { limit: limits.lane, ..LaneLimit::default() };
        let lanes = Lane::ALL.into_iter().map(|name| (name, lane())).collect();
        Self { limits, cells: HashMap::new(), lanes, recounted: now }
    }

    /// How many more a slot may have in motion.
    pub(crate) fn room(&self, lane: Lane, slot: Slot) -> u32 {
        match self.cells.get(&(lane, slot)) {
            Some(cell) => self.limits.window(slot, cell).saturating_sub(cell.moving),
            None => self.limits.window_of(slot, self.limits.start_rate, self.limits.size),
        }
    }

    /// How many more a lane may have in motion over all its slots.
    pub(crate) fn lane_room(&self, lane: Lane, now: Instant) -> u32 {
        self.lanes.get(&lane).map_or(0, |limit| {
            let open = limit.closed_until.is_none_or(|until| now >= until);
            if open { (limit.limit as u32).saturating_sub(limit.moving) } else { 0 }
        })
    }

    /// Notes that a slot has more due than room.
    pub(crate) fn limited(&mut self, lane: Lane, slot: Slot, now: Instant) {
        self.cell(lane, slot, now).limited = true;
    }

    /// Notes a release of `count` mails of `octets` together.
    pub(crate) fn released(&mut self, lane: Lane, slot: Slot, count: u32, octets: u64, now: Instant) {
        let cell = self.cell(lane, slot, now);
        cell.moving = cell.moving.saturating_add(count);
        let mean = octets as f64 / f64::from(count.max(1));
        cell.size += (mean - cell.size) * SIZE_SHARE;
        if let Some(limit) = self.lanes.get_mut(&lane) {
            limit.moving = limit.moving.saturating_add(count);
        }
    }

    /// Notes that `count` released mails rest again.
    pub(crate) fn given_back(&mut self, lane: Lane, slot: Slot, count: u32, now: Instant) {
        let cell = self.cell(lane, slot, now);
        cell.moving = cell.moving.saturating_sub(count);
        if let Some(limit) = self.lanes.get_mut(&lane) {
            limit.moving = limit.moving.saturating_sub(count);
        }
    }

    /// Notes that the broker had no room for a chunk of this lane.
    pub(crate) fn refused(&mut self, lane: Lane, until: Instant) {
        let least = f64::from(self.limits.min);
        if let Some(limit) = self.lanes.get_mut(&lane) {
            limit.limit = (f64::from(limit.moving) * SHRINK).clamp(least, limit.limit.max(least));
            limit.closed_until = Some(until);
        }
    }

    /// Lets nothing of this lane go before `until`.
    pub(crate) fn close(&mut self, lane: Lane, until: Instant) {
        if let Some(limit) = self.lanes.get_mut(&lane) {
            limit.closed_until = Some(until);
        }
    }

    /// Takes over what Postgres counted. A lane that is `overrun` lost releases on the way: what left it did not get
    /// through, and it may have less in motion until it does.
    pub(crate) fn recount(&mut self, counted: &[InMotion], overrun: &BTreeSet<Lane>, now: Instant) {
        let counted: HashMap<(Lane, Slot), u32> =
            counted.iter().map(|moving| ((moving.lane, moving.slot), moving.count)).collect();
        for (lane, slot) in counted.keys() {
            self.cell(*lane, *slot, now);
        }
        for (place, cell) in &mut self.cells {
            let count = counted.get(place).copied().unwrap_or(0);
            // What ingest released since the last recount makes this smaller, so it is a lower bound.
            cell.done += i64::from(cell.moving) - i64::from(count);
            cell.moving = count;
            if overrun.contains(&place.0) {
                (cell.done, cell.since) = (0, now);
            }
            cell.measure(now);
        }
        for (lane, limit) in &mut self.lanes {
            limit.moving = counted.iter().filter(|((of, _), _)| of == lane).map(|(_, count)| count).sum();
            limit.limit = if overrun.contains(lane) {
                (limit.limit * SHRINK).max(f64::from(self.limits.min))
            } else {
                (limit.limit + self.limits.lane * REGAIN).min(self.limits.lane)
            };
        }
        self.recounted = now;
    }

    /// When it was recounted last.
    pub(crate) const fn recounted(&self) -> Instant {
        self.recounted
    }

    /// What a lane has in motion and the sum of the windows of its slots.
    pub(crate) fn totals(&self, lane: Lane) -> (u64, u64) {
        let moving = self.lanes.get(&lane).map_or(0, |limit| u64::from(limit.moving));
        let of_lane = self.cells.iter().filter(|((of, _), _)| *of == lane);
        (moving, of_lane.map(|((_, slot), cell)| u64::from(self.limits.window(*slot, cell))).sum())
    }

    fn cell(&mut self, lane: Lane, slot: Slot, now: Instant) -> &mut Cell {
        let (rate, size) = (self.limits.start_rate, self.limits.size);
        self.cells.entry((lane, slot)).or_insert(Cell { moving: 0, done: 0, since: now, limited: false, rate, size })
    }
}

impl Limits {
    fn window(&self, slot: Slot, cell: &Cell) -> u32 {
        self.window_of(slot, cell.rate, cell.size)
    }

    fn window_of(&self, slot: Slot, measured: f64, size: f64) -> u32 {
        let horizon = self.policy.horizon.as_secs_f64().max(f64::MIN_POSITIVE);
        let rate = self.rates.get(&slot).map_or(measured, |configured| configured.min(measured));
        let rate = rate.max(f64::from(self.min) / horizon);
        // Half a message keeps the division above from rounding the floor away.
        self.policy.window(Some(rate + 0.5 / horizon), size as u64).min(self.max)
    }
}

impl Cell {
    fn measure(&mut self, now: Instant) {
        let span = now.saturating_duration_since(self.since);
        if span < MEASURE {
            return;
        }
        let sample = self.done.max(0) as f64 / span.as_secs_f64();
        if sample >= self.rate {
            self.rate = sample;
        } else if self.limited {
            self.rate += (sample - self.rate) * FALL;
        }
        (self.done, self.since, self.limited) = (0, now, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BULK: Lane = Lane::Bulk;

    fn slot(code: i16) -> Slot {
        Slot::from_code(code).expect("a slot")
    }

    fn windows(change: impl FnOnce(&mut DispatcherConfig)) -> (Windows, Instant) {
        let mut config = DispatcherConfig { assumed_mail_size: 1_000, ..DispatcherConfig::default() };
        change(&mut config);
        let now = Instant::now();
        let rates = config.rates().expect("valid");
        (Windows::new(&config, rates, now), now)
    }

    fn moving(slot: Slot, count: u32) -> [InMotion; 1] {
        [InMotion { lane: BULK, slot, count }]
    }

    #[test]
    fn what_is_released_takes_room_until_it_has_left() {
        let (mut windows, now) = windows(|_| {});
        let at = slot(3);
        let whole = windows.room(BULK, at);
        assert_eq!(whole, 1_000);
        windows.released(BULK, at, 900, 900_000, now);
        assert_eq!(windows.room(BULK, at), 100);
        assert_eq!(windows.room(Lane::Transactional, at), 1_000);
        windows.given_back(BULK, at, 100, now);
        assert_eq!(windows.room(BULK, at), 200);
        windows.recount(&moving(at, 50), &BTreeSet::new(), now + Duration::from_millis(100));
        assert_eq!(windows.room(BULK, at), 950);
    }

    #[test]
    fn the_window_follows_the_rate_of_what_leaves() {
        let (mut windows, mut now) = windows(|_| {});
        let at = slot(3);
        // 1,000 a second leave.
        for _ in 0..3 {
            windows.released(BULK, at, 1_000, 1_000_000, now);
            now += Duration::from_secs(1);
            windows.recount(&[], &BTreeSet::new(), now);
        }
        assert_eq!(windows.room(BULK, at), 3_000);
        // Now 10 a second, and more is due than goes: it falls to the floor.
        for _ in 0..30 {
            windows.released(BULK, at, 10, 10_000, now);
            windows.limited(BULK, at, now);
            now += Duration::from_secs(1);
            windows.recount(&[], &BTreeSet::new(), now);
        }
        assert_eq!(windows.room(BULK, at), 200);
    }

    #[test]
    fn a_slot_with_little_to_do_does_not_become_slower_for_it() {
        let (mut windows, mut now) = windows(|_| {});
        let at = slot(3);
        windows.released(BULK, at, 1_000, 1_000_000, now);
        for _ in 0..100 {
            now += Duration::from_secs(1);
            windows.recount(&[], &BTreeSet::new(), now);
        }
        assert_eq!(windows.room(BULK, at), 3_000);
    }

    #[test]
    fn a_configured_rate_and_the_byte_budget_are_ceilings() {
        let google: Slot = "google".parse().expect("a slot");
        let (mut windows, now) = windows(|config| {
            config.slot_rates.insert("google".to_owned(), 100.0);
            config.window.byte_budget = 10_000_000;
        });
        assert_eq!(windows.room(BULK, google), 300);
        let at = slot(3);
        for _ in 0..40 {
            windows.released(BULK, at, 1, 1_000_000, now);
        }
        windows.recount(&[], &BTreeSet::new(), now + Duration::from_secs(1));
        assert!((9..=11).contains(&windows.room(BULK, at)), "{}", windows.room(BULK, at));
    }

    #[test]
    fn a_lane_that_loses_releases_gets_less_and_no_rate_out_of_them() {
        let (mut windows, now) = windows(|_| {});
        let at = slot(3);
        windows.released(BULK, at, 1_000, 1_000_000, now);
        let room = windows.room(BULK, slot(4));
        for second in 1..=60 {
            windows.recount(&[], &BTreeSet::from([BULK]), now + Duration::from_secs(second));
        }
        assert_eq!(windows.lane_room(BULK, now), 200);
        assert_eq!(windows.lane_room(Lane::Transactional, now), 20_000);
        assert_eq!(windows.room(BULK, at), room, "what was lost is no rate");
    }

    #[test]
    fn a_refusal_closes_the_lane_for_a_while_and_lowers_its_limit() {
        let (mut windows, now) = windows(|_| {});
        let at = slot(3);
        windows.recount(&moving(at, 10_000), &BTreeSet::new(), now);
        assert_eq!(windows.lane_room(BULK, now), 10_000);
        windows.refused(BULK, now + Duration::from_secs(1));
        assert_eq!(windows.lane_room(BULK, now), 0);
        windows.recount(&moving(at, 1_000), &BTreeSet::new(), now);
        let later = now + Duration::from_secs(1);
        assert_eq!(windows.lane_room(BULK, later), 6_400);
        assert_eq!(windows.lane_room(Lane::Transactional, now), 20_000);
        for _ in 0..60 {
            windows.recount(&[], &BTreeSet::new(), later);
        }
        assert_eq!(windows.lane_room(BULK, later), 20_000);
    }
}
