//! Which queues have something due, as far as is known, and below which time nothing of theirs is.
//!
//! The bounds keep index entries of rows long released out of every scan. They may hide a row (one that was
//! locked while its neighbours were released, or inserted by a very slow transaction): a full look, without
//! bounds, finds it.

use chrono::{DateTime, Utc};
use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};
use store::{DueQueue, Released};

/// How many queues are remembered for the doorbell before all are forgotten.
const KNOWN_LIMIT: usize = 100_000;

#[derive(Default)]
pub(crate) struct Ready {
    /// Queues seen before, so that a ring needs no look.
    known: HashMap<i64, DueQueue>,
    /// Those that may have something due.
    due: HashSet<i64>,
    bounds: HashMap<i64, DateTime<Utc>>,
    slack: Duration,
}

impl Ready {
    pub(crate) fn new(slack: Duration) -> Self {
        Self { slack, ..Self::default() }
    }

    /// The bounds for the next look.
    pub(crate) fn bounds(&self) -> Vec<(i64, DateTime<Utc>)> {
        self.bounds.iter().map(|(queue, bound)| (*queue, *bound)).collect()
    }

    /// A time before which nothing of this queue is due.
    pub(crate) fn bound(&self, queue: i64) -> DateTime<Utc> {
        self.bounds.get(&queue).copied().unwrap_or(DateTime::UNIX_EPOCH)
    }

    /// Takes over what a look found; `full` when it had no bounds.
    pub(crate) fn found(&mut self, queues: Vec<DueQueue>, full: bool) {
        self.due.clear();
        let before = if full { std::mem::take(&mut self.bounds) } else { HashMap::new() };
        if self.known.len() > KNOWN_LIMIT {
            self.known.clear();
        }
        for queue in queues {
            // Rows that are inserted at this moment may be due a little earlier than the first that is seen.
            let first = queue.first_due - self.slack;
            match before.get(&queue.id).or_else(|| self.bounds.get(&queue.id)).copied() {
                // A full look that found an older row than the bound allows lowers it.
                Some(bound) if full => self.bounds.insert(queue.id, bound.max(first).min(queue.first_due)),
                Some(bound) => self.bounds.insert(queue.id, bound.max(first)),
                None => self.bounds.insert(queue.id, first),
            };
            self.due.insert(queue.id);
            self.known.insert(queue.id, queue);
        }
    }

    /// Takes over what a ring names; `false` when a look is needed, since it names a queue that is not known.
    pub(crate) fn rung(&mut self, queues: &[i64]) -> bool {
        let mut all_known = true;
        for queue in queues {
            if self.known.contains_key(queue) {
                self.due.insert(*queue);
            } else {
                all_known = false;
            }
        }
        all_known
    }

    /// Takes over what a release returned for its quotas: a queue that gave less than it might has nothing more.
    pub(crate) fn released(&mut self, quotas: &[store::Quota], rows: &[Released]) {
        let mut taken: HashMap<i64, (u32, DateTime<Utc>)> = HashMap::with_capacity(quotas.len());
        for row in rows {
            let entry = taken.entry(row.queue).or_insert((0, row.due));
            entry.0 += 1;
            entry.1 = entry.1.max(row.due);
        }
        for quota in quotas {
            let (count, newest) = taken.get(&quota.queue).copied().unwrap_or((0, DateTime::UNIX_EPOCH));
            if count < quota.count {
                self.due.remove(&quota.queue);
            }
            if count > 0 {
                let bound = self.bounds.entry(quota.queue).or_insert(DateTime::UNIX_EPOCH);
                *bound = (newest - self.slack).max(*bound);
            }
        }
    }

    /// The queues that may have something due.
    pub(crate) fn due(&self) -> impl Iterator<Item = &DueQueue> {
        self.due.iter().filter_map(|queue| self.known.get(queue))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::{Lane, Slot, TenantId};
    use store::{QueueKey, Quota};

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_790_000_000 + seconds, 0).expect("a time")
    }

    fn queue(id: i64, first_due: DateTime<Utc>) -> DueQueue {
        let key = QueueKey {
            tenant: TenantId::new(at(0)),
            campaign: None,
            lane: Lane::Bulk,
            slot: Slot::from_code(1).expect("a slot"),
            site: None,
        };
        DueQueue { id, key, weight: 100, first_due }
    }

    fn ready() -> Ready {
        Ready::new(Duration::from_secs(10))
    }

    #[test]
    fn a_bound_stays_a_slack_below_what_was_seen() {
        let mut ready = ready();
        assert_eq!(ready.bound(1), DateTime::UNIX_EPOCH);
        ready.found(vec![queue(1, at(100))], true);
        assert_eq!(ready.bound(1), at(90));
        ready.found(vec![queue(1, at(200))], false);
        assert_eq!(ready.bound(1), at(190));
        ready.found(vec![queue(1, at(195))], false);
        assert_eq!(ready.bound(1), at(190));
    }

    #[test]
    fn a_full_look_finds_what_a_bound_hid_and_forgets_the_rest() {
        let mut ready = ready();
        ready.found(vec![queue(1, at(200)), queue(2, at(200))], false);
        ready.found(vec![queue(1, at(50))], true);
        assert_eq!(ready.bound(1), at(50));
        assert_eq!(ready.bound(2), DateTime::UNIX_EPOCH);
    }

    #[test]
    fn a_queue_that_gives_less_than_asked_is_done_until_it_rings() {
        let mut ready = ready();
        ready.found(vec![queue(1, at(100))], true);
        ready.released(&[Quota { queue: 1, count: 10, lower: at(90) }], &[]);
        assert_eq!(ready.due().count(), 0);
        assert!(ready.rung(&[1]));
        assert_eq!(ready.due().count(), 1);
        assert!(!ready.rung(&[7]));
    }
}
