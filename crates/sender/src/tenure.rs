//! One lease as its holder sees it.

use std::{
    collections::HashSet,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use store::{Claim, Lease};
use tokio::sync::Notify;

/// A lease with its end by this process's monotonic clock. A process that was stopped finds it over when it wakes,
/// whatever it last believed.
pub(crate) struct Tenure {
    pub(crate) lease: Lease,
    origin: Instant,
    /// Nanoseconds after `origin`; 0 once it is over.
    end: AtomicU64,
    /// Claims under this lease whose outcome is not recorded yet.
    in_hand: Mutex<HashSet<Claim>>,
    recorded: Notify,
}

impl Tenure {
    /// A lease whose taking or renewal was begun at `begun` and that lasts `usable` from then on.
    pub(crate) fn new(lease: Lease, begun: Instant, usable: Duration) -> Self {
        Self {
            lease,
            origin: begun,
            end: AtomicU64::new(nanos(usable)),
            in_hand: Mutex::default(),
            recorded: Notify::new(),
        }
    }

    /// Extends it after a renewal that was begun at `begun`; nothing revives one that is over.
    pub(crate) fn extend(&self, begun: Instant, usable: Duration) {
        let end = nanos(begun.saturating_duration_since(self.origin) + usable);
        let _ = self.end.fetch_update(Ordering::AcqRel, Ordering::Acquire, |old| (old != 0).then_some(old.max(end)));
    }

    /// One more message is claimed.
    pub(crate) fn claimed(&self, claim: Claim) {
        self.in_hand().insert(claim);
    }

    /// Whether this very job is claimed and its outcome not recorded yet: then any other copy of it is stale.
    pub(crate) fn has_in_hand(&self, claim: &Claim) -> bool {
        self.in_hand().contains(claim)
    }

    /// The outcome of one claim has been recorded.
    pub(crate) fn recorded(&self, claim: Claim) {
        let mut in_hand = self.in_hand();
        in_hand.remove(&claim);
        if in_hand.is_empty() {
            self.recorded.notify_waiters();
        }
    }

    fn in_hand(&self) -> MutexGuard<'_, HashSet<Claim>> {
        self.in_hand.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns once every claim has its outcome recorded.
    pub(crate) async fn all_recorded(&self) {
        loop {
            let notified = self.recorded.notified();
            if self.in_hand().is_empty() {
                return;
            }
            notified.await;
        }
    }

    /// Ends it here, whatever Postgres says.
    pub(crate) fn end(&self) {
        self.end.store(0, Ordering::Release);
    }

    /// Whether something may still be begun under it.
    pub(crate) fn is_live(&self) -> bool {
        nanos(self.origin.elapsed()) < self.end.load(Ordering::Acquire)
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease() -> Lease {
        Lease { name: "shard.0".to_owned(), epoch: 1 }
    }

    #[test]
    fn a_lease_that_is_over_is_not_revived() {
        let tenure = Tenure::new(lease(), Instant::now(), Duration::from_secs(60));
        assert!(tenure.is_live());
        tenure.end();
        tenure.extend(Instant::now(), Duration::from_secs(60));
        assert!(!tenure.is_live());
    }

    #[tokio::test]
    async fn a_job_is_in_hand_from_its_claim_to_its_record() {
        let noon = chrono::DateTime::from_timestamp(1_790_000_000, 0).expect("a time");
        let claim = Claim { message: domain::MessageId::of_batch(domain::BatchId::new(noon), 0), release: 2 };
        let tenure = Tenure::new(lease(), Instant::now(), Duration::from_secs(60));
        tenure.claimed(claim);
        assert!(tenure.has_in_hand(&claim));
        assert!(!tenure.has_in_hand(&Claim { release: 1, ..claim }), "another release is another job");
        tenure.recorded(claim);
        assert!(!tenure.has_in_hand(&claim));
        tenure.all_recorded().await;
    }

    #[test]
    fn a_renewal_counts_from_its_beginning() {
        let tenure = Tenure::new(lease(), Instant::now(), Duration::from_secs(60));
        let long_ago =
            Instant::now().checked_sub(Duration::from_secs(120)).expect("the machine has been up for longer");
        let stale = Tenure::new(lease(), long_ago, Duration::from_secs(60));
        assert!(tenure.is_live());
        assert!(!stale.is_live());
    }
}
