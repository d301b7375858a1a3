//! Keeping leases: renewed together, judged by this process's monotonic clock.
//!
//! A holder counts its tenure from before the call that took or renewed the lease, and stops a safety margin
//! early, so it never believes in a lease that somebody else may have. A process that was stopped finds its
//! tenure over as soon as it goes on: the monotonic clock went on meanwhile. A tenure that has ended once never
//! comes back, even if a late answer says that the lease was renewed; the lease is then given up.

use crate::{Lease, Store, StoreError};
use serde::{Deserialize, Serialize};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, Weak},
    time::Duration,
};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep_until, timeout},
};

/// How leases are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LeaseTerms {
    /// How long a lease lasts without renewal.
    #[serde(with = "humantime_serde")]
    pub term: Duration,
    /// Between renewals; at most a third of the term, so that two may fail.
    #[serde(with = "humantime_serde")]
    pub renew_every: Duration,
    /// How long before the end of the term the holder stops: more than clocks can drift apart in one term, and
    /// than what it began takes to end.
    #[serde(with = "humantime_serde")]
    pub safety: Duration,
    /// Between attempts to take a lease that somebody else holds.
    #[serde(with = "humantime_serde")]
    pub retry_every: Duration,
}

impl Default for LeaseTerms {
    fn default() -> Self {
        Self {
            term: Duration::from_secs(10),
            renew_every: Duration::from_secs(3),
            safety: Duration::from_secs(2),
            retry_every: Duration::from_secs(1),
        }
    }
}

/// Takes leases and renews all that are held in one statement. Clones share them.
///
/// Nothing is renewed unless [`LeaseKeeper::run`] is running.
#[derive(Clone)]
pub struct LeaseKeeper {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    owner: String,
    terms: LeaseTerms,
    /// By epoch. Weak: a lease that nobody looks at any more is not renewed.
    held: Mutex<HashMap<i64, Weak<Tenure>>>,
    /// Wakes the renewals of an idle keeper.
    taken: Notify,
}

struct Tenure {
    lease: Lease,
    state: watch::Sender<State>,
}

#[derive(Clone, Copy)]
struct State {
    until: Instant,
    over: bool,
}

/// A lease that was taken, as long as it lasts. Clones stand for the same tenure; when the last one is dropped,
/// the lease is no longer renewed and runs out.
#[derive(Clone)]
pub struct KeptLease {
    tenure: Arc<Tenure>,
}

impl LeaseKeeper {
    /// A keeper of leases for `owner`, a name that tells operators which process it is.
    pub fn new(store: Store, owner: String, terms: LeaseTerms) -> Self {
        let inner = Inner { store, owner, terms, held: Mutex::default(), taken: Notify::new() };
        Self { inner: Arc::new(inner) }
    }

    /// Takes a lease that nobody holds; `None` while somebody does.
    ///
    /// # Errors
    /// When the database does not answer; the lease may have been taken all the same and runs out by itself.
    pub async fn try_acquire(&self, name: &str) -> Result<Option<KeptLease>, StoreError> {
        let Inner { store, owner, terms, .. } = &*self.inner;
        let begun = Instant::now();
        let Some(lease) = store.take_lease(name, owner, terms.term).await? else { return Ok(None) };
        let (state, _) = watch::channel(State { until: self.until(begun), over: false });
        let tenure = Arc::new(Tenure { lease, state });
        self.held().insert(tenure.lease.epoch, Arc::downgrade(&tenure));
        self.inner.taken.notify_one();
        tracing::info!(lease = name, epoch = tenure.lease.epoch, "took a lease");
        Ok(Some(KeptLease { tenure }))
    }

    /// Waits until the lease is free, and takes it; `None` when `stop` ended first. An absent database is waited for.
    pub async fn acquire(&self, name: &str, stop: impl Future<Output = ()>) -> Option<KeptLease> {
        let mut stop = std::pin::pin!(stop);
        let mut failing = false;
        loop {
            // Not raced against `stop`: a lease taken by a call that was cut off would be held by nobody.
            match self.try_acquire(name).await {
                Ok(Some(lease)) => return Some(lease),
                Ok(None) => failing = false,
                Err(error) => {
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!(lease = name, %error, "cannot ask for a lease");
                    }
                }
            }
            tokio::select! {
                () = &mut stop => return None,
                () = tokio::time::sleep(self.inner.terms.retry_every) => {}
            }
        }
    }

    /// Ends a tenure and gives the lease back, so that the next owner need not wait.
    ///
    /// # Errors
    /// When the database does not answer; the tenure is over all the same and the lease runs out by itself.
    pub async fn give_up(&self, lease: &KeptLease) -> Result<(), StoreError> {
        self.end(&lease.tenure);
        self.inner.store.give_up_leases(&[lease.epoch()]).await
    }

    /// Gives back every lease that is held.
    ///
    /// # Errors
    /// When the database does not answer; the tenures are over all the same.
    pub async fn give_up_all(&self) -> Result<(), StoreError> {
        let tenures = self.tenures();
        let epochs: Vec<i64> = tenures.iter().map(|tenure| tenure.lease.epoch).collect();
        tenures.iter().for_each(|tenure| self.end(tenure));
        if epochs.is_empty() { Ok(()) } else { self.inner.store.give_up_leases(&epochs).await }
    }

    /// Renews what is held, for as long as it is polled. Keep it running until the last lease is given up.
    pub async fn run(&self) {
        let terms = self.inner.terms;
        let mut next = Instant::now() + terms.renew_every;
        loop {
            sleep_until(next).await;
            let begun = Instant::now();
            let tenures = self.tenures();
            if tenures.is_empty() {
                self.inner.taken.notified().await;
                next = Instant::now() + terms.renew_every;
                continue;
            }
            next = if self.renew(&tenures, begun).await {
                begun + terms.renew_every
            } else {
                // The end comes nearer: ask again soon.
                Instant::now() + terms.renew_every / 4
            };
        }
    }

    /// Renews these; `false` when the database did not answer.
    async fn renew(&self, tenures: &[Arc<Tenure>], begun: Instant) -> bool {
        let Inner { store, terms, .. } = &*self.inner;
        let epochs: Vec<i64> = tenures.iter().map(|tenure| tenure.lease.epoch).collect();
        // A hung connection must not cost the tenure: the next attempt takes another one.
        let renewed = match timeout(terms.term / 3, store.renew_leases(&epochs, terms.term)).await {
            Ok(Ok(renewed)) => renewed,
            Ok(Err(error)) => {
                tracing::warn!(%error, leases = epochs.len(), "cannot renew leases");
                return false;
            }
            Err(_) => {
                tracing::warn!(leases = epochs.len(), "the renewal of leases was not answered in time");
                return false;
            }
        };
        let until = self.until(begun);
        let mut late = Vec::new();
        for tenure in tenures {
            let lease = &tenure.lease;
            if !renewed.contains(&lease.epoch) {
                tracing::warn!(lease = lease.name, epoch = lease.epoch, "lost a lease");
                self.end(tenure);
            } else if !tenure.extend(until) {
                tracing::warn!(lease = lease.name, epoch = lease.epoch, "a lease was renewed too late");
                self.end(tenure);
                late.push(lease.epoch);
            }
        }
        if !late.is_empty()
            && let Err(error) = store.give_up_leases(&late).await
        {
            tracing::warn!(%error, "cannot give leases up; they run out");
        }
        true
    }

    /// The end of a tenure that was taken or renewed by a call begun then.
    fn until(&self, begun: Instant) -> Instant {
        begun + self.inner.terms.term.saturating_sub(self.inner.terms.safety)
    }

    fn end(&self, tenure: &Tenure) {
        tenure.state.send_modify(|state| state.over = true);
        self.held().remove(&tenure.lease.epoch);
    }

    fn tenures(&self) -> Vec<Arc<Tenure>> {
        let mut held = self.held();
        held.retain(|_, tenure| tenure.strong_count() > 0);
        held.values().filter_map(Weak::upgrade).collect()
    }

    fn held(&self) -> MutexGuard<'_, HashMap<i64, Weak<Tenure>>> {
        self.inner.held.lock().expect("no holder of this lock panics")
    }
}

impl Tenure {
    /// `false` when it had ended before.
    fn extend(&self, until: Instant) -> bool {
        let now = Instant::now();
        self.state.send_if_modified(|state| {
            let live = !state.over && now < state.until;
            if live {
                state.until = until.max(state.until);
            } else {
                state.over = true;
            }
            live
        })
    }
}

impl KeptLease {
    /// The lease, as statements want it.
    pub fn lease(&self) -> &Lease {
        &self.tenure.lease
    }

    /// What it is for.
    pub fn name(&self) -> &str {
        &self.tenure.lease.name
    }

    /// This tenure's epoch.
    pub fn epoch(&self) -> i64 {
        self.tenure.lease.epoch
    }

    /// When it ends unless it is renewed: the end of the term less the safety margin. In the past when it is over.
    pub fn until(&self) -> Instant {
        let state = *self.tenure.state.borrow();
        if state.over { state.until.min(Instant::now()) } else { state.until }
    }

    /// Whether it lasts at this moment.
    pub fn is_live(&self) -> bool {
        let state = *self.tenure.state.borrow();
        !state.over && Instant::now() < state.until
    }

    /// Ends when the tenure does: lost, given up, or not renewed in time.
    pub async fn lost(&self) {
        let mut states = self.tenure.state.subscribe();
        loop {
            let state = *states.borrow_and_update();
            if state.over || Instant::now() >= state.until {
                return;
            }
            // The sender lives as long as `self`; an error cannot come, and would only look again.
            let _woken = timeout(state.until.saturating_duration_since(Instant::now()), states.changed()).await;
        }
    }
}

impl std::fmt::Debug for KeptLease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeptLease").field("lease", self.lease()).field("live", &self.is_live()).finish()
    }
}
