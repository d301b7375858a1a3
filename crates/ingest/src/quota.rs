//! Quotas of tenants at the accept.
//!
//! Most tenants have none, and cost a look into a map. For the others this instance borrows shares of the hour's and
//! the day's quota from Postgres, where all that is lent together never exceeds it, and pays calls out of them; so a
//! call asks the database once in many. The backlog is counted now and then, and what was accepted here since is added.
//!
//! A crash loses what was borrowed and not used until the hour or day ends. It never lets more through.

use crate::{Fault, clock::Clock, config::QuotaConfig};
use chrono::{DateTime, Utc};
use domain::TenantId;
use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};
use store::{Ask, QuotaPeriod, Quotas, Store};
use tokio::{
    sync::{Mutex, Semaphore},
    time::Instant,
};

/// Most tenants remembered; above it those without quotas are forgotten.
const MAX_REMEMBERED: usize = 50_000;
/// Look-ups of quotas at the same time.
const MAX_LOOKUPS: usize = 4;
/// How long a refusal is kept before the database is asked again, and the delay that a full backlog is told with.
const REFUSED: Duration = Duration::from_secs(1);
/// A count of the backlog is kept for at least this many times as long as it took.
const COUNT_COST: u32 = 20;

/// The quotas of all tenants, as far as this instance needs them.
pub struct QuotaBook {
    store: Store,
    clock: Clock,
    config: QuotaConfig,
    seen: RwLock<HashMap<TenantId, Seen>>,
    lookups: Semaphore,
}

#[derive(Clone)]
struct Seen {
    until: Instant,
    /// Absent: no quota.
    account: Option<Arc<Account>>,
}

/// What one tenant has here.
struct Account {
    ledger: Mutex<Ledger>,
    /// Charges of calls that stored nothing, until the next call puts them back into the ledger.
    returned: std::sync::Mutex<Vec<(u64, DateTime<Utc>)>>,
}

/// What was taken for a call; given back when it is dropped, however the call ended, unless it was spent.
#[must_use = "what a call stored is to be spent"]
pub struct Charge {
    account: Option<Arc<Account>>,
    recipients: u64,
    at: DateTime<Utc>,
}

impl QuotaBook {
    /// Knows of no quota yet.
    pub fn new(store: Store, clock: Clock, config: QuotaConfig) -> Self {
        Self { store, clock, config, seen: RwLock::default(), lookups: Semaphore::new(MAX_LOOKUPS) }
    }

    /// Takes quota for a call.
    ///
    /// # Errors
    /// When too little is left, or the database does not answer.
    pub async fn take(&self, tenant: TenantId, recipients: usize) -> Result<Charge, Fault> {
        let recipients = u64::try_from(recipients).unwrap_or(u64::MAX);
        let account = self.account(tenant).await?;
        let at = self.clock.now();
        if let Some(account) = &account {
            let mut ledger = account.ledger.lock().await;
            let returned = std::mem::take(&mut *account.returned());
            for (recipients, at) in returned {
                ledger.give_back(recipients, at);
            }
            ledger.take(self, tenant, recipients, at).await?;
        }
        Ok(Charge { account, recipients, at })
    }

    async fn account(&self, tenant: TenantId) -> Result<Option<Arc<Account>>, Fault> {
        if let Some(seen) = self.remembered(tenant) {
            return Ok(seen.account);
        }
        let _permit = self.lookups.acquire().await.map_err(|_| Fault::Stopping)?;
        // Somebody else may have looked while this call waited its turn.
        if let Some(seen) = self.remembered(tenant) {
            return Ok(seen.account);
        }
        let until = Instant::now() + self.config.term;
        let quotas = self.store.tenant(tenant).await?.map(|(_, quotas)| quotas).unwrap_or_default();
        let known = self.seen.read().unwrap_or_else(PoisonError::into_inner).get(&tenant).cloned();
        let account = match known.and_then(|seen| seen.account) {
            _ if quotas == Quotas::default() => None,
            // What it has borrowed stays its own.
            Some(account) => {
                account.ledger.lock().await.go_by(quotas);
                Some(account)
            }
            None => Some(Arc::new(Account {
                ledger: Mutex::new(Ledger { quotas, ..Ledger::default() }),
                returned: Default::default(),
            })),
        };
        let mut seen = self.seen.write().unwrap_or_else(PoisonError::into_inner);
        if seen.len() >= MAX_REMEMBERED {
            seen.retain(|_, seen| seen.account.is_some());
        }
        seen.insert(tenant, Seen { until, account: account.clone() });
        Ok(account)
    }

    fn remembered(&self, tenant: TenantId) -> Option<Seen> {
        let seen = self.seen.read().unwrap_or_else(PoisonError::into_inner);
        seen.get(&tenant).filter(|seen| seen.until > Instant::now()).cloned()
    }

    /// Forgets a tenant's quotas, so that new ones hold here at once.
    pub fn forget(&self, tenant: TenantId) {
        let mut seen = self.seen.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(seen) = seen.get_mut(&tenant) {
            seen.until = Instant::now();
        }
    }
}

impl Account {
    fn returned(&self) -> std::sync::MutexGuard<'_, Vec<(u64, DateTime<Utc>)>> {
        self.returned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Charge {
    /// The call stored its recipients, or nobody knows whether it did: it counts.
    pub fn spend(mut self) {
        self.account = None;
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        if let Some(account) = self.account.take() {
            account.returned().push((self.recipients, self.at));
        }
    }
}

/// What one tenant has left here.
#[derive(Default)]
struct Ledger {
    quotas: Quotas,
    hour: Purse,
    day: Purse,
    backlog: Backlog,
}

/// What is left of the loans of one period.
#[derive(Default)]
struct Purse {
    left: u64,
    ends_at: DateTime<Utc>,
    /// So many recipients were too many a moment ago.
    refused: Option<(u64, Instant)>,
}

#[derive(Default)]
struct Backlog {
    counted: u64,
    /// Accepted here since the count.
    since: u64,
    good_until: Option<Instant>,
}

impl Ledger {
    fn go_by(&mut self, quotas: Quotas) {
        if self.quotas != quotas {
            self.quotas = quotas;
            self.hour.refused = None;
            self.day.refused = None;
            self.backlog.good_until = None;
        }
    }

    async fn take(&mut self, book: &QuotaBook, tenant: TenantId, n: u64, now: DateTime<Utc>) -> Result<(), Fault> {
        for period in QuotaPeriod::ALL {
            if let Some(limit) = self.limit(period) {
                if n > limit {
                    return Err(Fault::QuotaExceeded { quota: name(period), limit, retry_after: None });
                }
                self.purse(period).turn(now);
            }
        }
        self.borrow(book, tenant, n).await?;
        for period in QuotaPeriod::ALL {
            let Some(limit) = self.limit(period) else { continue };
            let purse = self.purse(period);
            if purse.left < n {
                let wait = (purse.ends_at - now).to_std().unwrap_or(REFUSED).max(REFUSED);
                return Err(Fault::QuotaExceeded { quota: name(period), limit, retry_after: Some(wait) });
            }
        }
        self.check_backlog(book, tenant, n).await?;
        for period in QuotaPeriod::ALL {
            if self.limit(period).is_some() {
                self.purse(period).left -= n;
            }
        }
        self.backlog.since += n;
        Ok(())
    }

    async fn borrow(&mut self, book: &QuotaBook, tenant: TenantId, n: u64) -> Result<(), Fault> {
        let mut asks = Vec::new();
        for period in QuotaPeriod::ALL {
            let Some(limit) = self.limit(period) else { continue };
            let purse = self.purse(period);
            let refused = purse.refused.is_some_and(|(least, at)| n >= least && at.elapsed() < REFUSED);
            if purse.left < n && !refused {
                asks.push(Ask { period, limit, least: n - purse.left });
            }
        }
        if asks.is_empty() {
            return Ok(());
        }
        for loan in book.store.borrow_quota(tenant, &asks).await? {
            let purse = self.purse(loan.period);
            if purse.ends_at != loan.ends_at {
                // A new period began between the look at the clock and the loan.
                (purse.left, purse.ends_at) = (0, loan.ends_at);
            }
            purse.left += loan.amount;
            purse.refused = (purse.left < n).then(|| (n, Instant::now()));
        }
        Ok(())
    }

    async fn check_backlog(&mut self, book: &QuotaBook, tenant: TenantId, n: u64) -> Result<(), Fault> {
        let Some(limit) = self.quotas.backlog else { return Ok(()) };
        let exceeded = |retry_after| Fault::QuotaExceeded { quota: "backlog", limit, retry_after };
        if n > limit {
            return Err(exceeded(None));
        }
        if self.backlog.good_until.is_none_or(|until| until <= Instant::now()) {
            let begun = Instant::now();
            let counted = book.store.backlog(tenant, limit).await?;
            let keep = book.config.count_every.max(begun.elapsed() * COUNT_COST);
            self.backlog = Backlog { counted, since: 0, good_until: Some(Instant::now() + keep) };
        }
        let after = self.backlog.counted.saturating_add(self.backlog.since).saturating_add(n);
        if after > limit { Err(exceeded(Some(REFUSED))) } else { Ok(()) }
    }

    fn give_back(&mut self, n: u64, taken_at: DateTime<Utc>) {
        for period in QuotaPeriod::ALL {
            if self.limit(period).is_some() {
                let purse = self.purse(period);
                // What belongs to a period that is over is worth nothing.
                if taken_at < purse.ends_at && purse.begun_by(period, taken_at) {
                    purse.left += n;
                    purse.refused = None;
                }
            }
        }
        self.backlog.since = self.backlog.since.saturating_sub(n);
    }

    fn limit(&self, period: QuotaPeriod) -> Option<u64> {
        match period {
            QuotaPeriod::Hour => self.quotas.per_hour,
            QuotaPeriod::Day => self.quotas.per_day,
        }
    }

    fn purse(&mut self, period: QuotaPeriod) -> &mut Purse {
        match period {
            QuotaPeriod::Hour => &mut self.hour,
            QuotaPeriod::Day => &mut self.day,
        }
    }
}

impl Purse {
    /// Empties it when its period is over.
    fn turn(&mut self, now: DateTime<Utc>) {
        if now >= self.ends_at {
            (self.left, self.refused) = (0, None);
        }
    }

    fn begun_by(&self, period: QuotaPeriod, at: DateTime<Utc>) -> bool {
        let span = match period {
            QuotaPeriod::Hour => chrono::TimeDelta::hours(1),
            QuotaPeriod::Day => chrono::TimeDelta::days(1),
        };
        at >= self.ends_at - span
    }
}

/// The field of `TenantQuotas`.
const fn name(period: QuotaPeriod) -> &'static str {
    match period {
        QuotaPeriod::Hour => "recipients_per_hour",
        QuotaPeriod::Day => "recipients_per_day",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use store::Tenant;
    use testkit::TestDatabase;

    #[tokio::test]
    async fn what_a_call_did_not_store_is_there_for_the_next_one() {
        let database = TestDatabase::create().await;
        let store = database.store().await;
        let now = store.now().await.unwrap();
        let tenant = Tenant { id: TenantId::new(now), name: "acme".to_owned(), created_at: now };
        store.create_tenant(&tenant).await.unwrap();
        let ten = Quotas { per_hour: Some(10), ..Quotas::default() };
        store.update_tenant(tenant.id, None, &ten).await.unwrap();
        let clock = Clock::default();
        clock.follow(&store).await.unwrap();
        let book = QuotaBook::new(store, clock, QuotaConfig::default());
        // A call that is given up at its deadline is dropped wherever it is.
        drop(book.take(tenant.id, 10).await.unwrap());
        book.take(tenant.id, 10).await.unwrap().spend();
        assert!(matches!(book.take(tenant.id, 1).await, Err(Fault::QuotaExceeded { .. })));
    }
}
