//! Places for calls that last: so many in the process, and so many of them for one tenant.

use domain::TenantId;
use prometheus_client::metrics::gauge::Gauge;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// The places of one kind of call.
#[derive(Debug)]
pub struct Seats {
    most: usize,
    most_of_tenant: usize,
    taken: Mutex<BTreeMap<TenantId, usize>>,
    count: Gauge,
}

/// Every place is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// Of the process.
    Process,
    /// Of the tenant.
    Tenant,
}

impl Seats {
    /// All free; `count` tells how many are taken.
    pub const fn new(most: usize, most_of_tenant: usize, count: Gauge) -> Self {
        Self { most, most_of_tenant, taken: Mutex::new(BTreeMap::new()), count }
    }

    /// A place for a call of this tenant, until it is dropped.
    ///
    /// # Errors
    /// Which places are taken.
    pub fn take(self: &Arc<Self>, tenant: TenantId) -> Result<Seat, Full> {
        let mut taken = self.taken();
        if taken.values().sum::<usize>() >= self.most {
            return Err(Full::Process);
        }
        let own = taken.get(&tenant).copied().unwrap_or(0);
        if own >= self.most_of_tenant {
            return Err(Full::Tenant);
        }
        taken.insert(tenant, own + 1);
        self.count.inc();
        Ok(Seat { of: Arc::clone(self), tenant })
    }

    /// The tenants that have a place.
    pub fn tenants(&self) -> Vec<TenantId> {
        self.taken().keys().copied().collect()
    }

    fn taken(&self) -> MutexGuard<'_, BTreeMap<TenantId, usize>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place that is taken.
#[derive(Debug)]
pub struct Seat {
    of: Arc<Seats>,
    tenant: TenantId,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.of.taken();
        if let Some(own) = taken.get_mut(&self.tenant) {
            *own -= 1;
            if *own == 0 {
                taken.remove(&self.tenant);
            }
        }
        self.of.count.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn a_tenant_cannot_take_the_places_of_all() {
        let seats = Arc::new(Seats::new(3, 2, Gauge::default()));
        let [greedy, modest, last] = [1, 2, 3].map(|at| TenantId::new(chrono::DateTime::from_timestamp_nanos(at)));
        let first = seats.take(greedy).unwrap();
        let _second = seats.take(greedy).unwrap();
        assert_eq!(seats.take(greedy).unwrap_err(), Full::Tenant);
        let _third = seats.take(modest).unwrap();
        assert_eq!(seats.take(last).unwrap_err(), Full::Process);
        drop(first);
        assert_eq!(HashSet::from_iter(seats.tenants()), HashSet::from([greedy, modest]));
        let _fourth = seats.take(last).unwrap();
        assert_eq!(seats.count.get(), 3);
    }
}
