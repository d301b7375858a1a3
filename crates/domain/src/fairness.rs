//! Who goes next: deficit round robin over slots, then tenants, then a tenant's queues.
//!
//! Guarantees, per lane: no slot gets more than its room and all together no more than the budget; no
//! room stays empty while a queue has something for it; whoever has something gets its turn within one
//! round, however much the others have; tenants are equal to each other, and a tenant's queues share in
//! proportion to their weights. The transactional lane is served first.
//!
//! What is remembered from one call to the next (whose turn it is, and what is left of it) is bounded by
//! the queues that were due in the last call, and may be lost at any time: fairness only starts afresh.

use crate::{Lane, Slot, TenantId};
use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    hash::Hash,
    num::NonZeroU16,
};

/// At least so many turns of everybody fit into one call, so that a call that serves thousands takes few
/// steps, and none is off its share by more than an eighth of the room.
const TURNS_PER_CALL: u32 = 8;

/// A queue that has something due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DueQueue<Q> {
    /// The queue.
    pub queue: Q,
    /// Whose it is.
    pub tenant: TenantId,
    /// Its lane.
    pub lane: Lane,
    /// Its slot.
    pub slot: Slot,
    /// Its share among the tenant's queues of this lane and slot.
    pub weight: NonZeroU16,
    /// How many are due, as far as known; no more than this is given.
    pub backlog: u32,
}

/// How many a queue may release now; never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota<Q> {
    /// The queue.
    pub queue: Q,
    /// How many.
    pub count: u32,
}

/// The turns, kept from one call to the next.
#[derive(Clone, Debug)]
pub struct Fairness<Q> {
    lanes: BTreeMap<Lane, LaneTurns<Q>>,
}

impl<Q> Default for Fairness<Q> {
    fn default() -> Self {
        Self { lanes: BTreeMap::new() }
    }
}

#[derive(Clone, Debug)]
struct LaneTurns<Q> {
    slots: Ring<Slot>,
    tenants: HashMap<Slot, Ring<TenantId>>,
    queues: HashMap<(Slot, TenantId), Ring<Q>>,
}

impl<Q> Default for LaneTurns<Q> {
    fn default() -> Self {
        Self { slots: Ring::default(), tenants: HashMap::new(), queues: HashMap::new() }
    }
}

impl<Q: Copy + Eq + Hash> Fairness<Q> {
    /// Shares `budget` messages, and of each slot what `room` leaves, among the queues in `due`. A queue
    /// that is named twice counts once, as it was named first.
    pub fn share(&mut self, due: &[DueQueue<Q>], room: impl Fn(Slot) -> u32, budget: u32) -> Vec<Quota<Q>> {
        let mut quotas = Vec::new();
        let (mut left, mut used) = (budget, HashMap::new());
        for lane in Lane::ALL {
            let turns = self.lanes.entry(lane).or_default();
            let before = quotas.len();
            let free = |slot, used: &HashMap<Slot, u32>| room(slot).saturating_sub(*used.get(&slot).unwrap_or(&0));
            turns.share(due.iter().filter(|queue| queue.lane == lane), |slot| free(slot, &used), left, &mut quotas);
            for (slot, quota) in &quotas[before..] {
                let quota: &Quota<Q> = quota;
                *used.entry(*slot).or_insert(0) += quota.count;
                left -= quota.count;
            }
        }
        quotas.into_iter().map(|(_, quota)| quota).collect()
    }
}

impl<Q: Copy + Eq + Hash> LaneTurns<Q> {
    fn share<'a>(
        &mut self,
        due: impl Iterator<Item = &'a DueQueue<Q>>,
        room: impl Fn(Slot) -> u32,
        budget: u32,
        quotas: &mut Vec<(Slot, Quota<Q>)>,
    ) where
        Q: 'a,
    {
        let mut tree: BTreeMap<Slot, BTreeMap<TenantId, Vec<Wish<Q>>>> = BTreeMap::new();
        let mut seen = std::collections::HashSet::new();
        for queue in due.filter(|queue| queue.backlog > 0) {
            if seen.insert(queue.queue) {
                let wish = Wish { key: queue.queue, weight: queue.weight.get().into(), wanted: queue.backlog };
                tree.entry(queue.slot).or_default().entry(queue.tenant).or_default().push(wish);
            }
        }
        self.tenants.retain(|slot, _| tree.contains_key(slot));
        self.queues.retain(|(slot, tenant), _| tree.get(slot).is_some_and(|tenants| tenants.contains_key(tenant)));

        let slots: Vec<_> = tree
            .iter()
            .map(|(slot, tenants)| Wish::equal(*slot, total(tenants.values().flatten()).min(room(*slot))))
            .collect();
        for (slot, room) in self.slots.share(&slots, budget) {
            let tenants = &tree[&slot];
            let wishes: Vec<_> = tenants.iter().map(|(tenant, queues)| Wish::equal(*tenant, total(queues))).collect();
            for (tenant, room) in self.tenants.entry(slot).or_default().share(&wishes, room) {
                let ring = self.queues.entry((slot, tenant)).or_default();
                let given = ring.share(&tenants[&tenant], room);
                quotas.extend(given.into_iter().map(|(queue, count)| (slot, Quota { queue, count })));
            }
        }
    }
}

fn total<'a, K: 'a>(wishes: impl IntoIterator<Item = &'a Wish<K>>) -> u32 {
    wishes.into_iter().fold(0, |sum, wish| sum.saturating_add(wish.wanted))
}

#[derive(Clone, Copy, Debug)]
struct Wish<K> {
    key: K,
    weight: u32,
    wanted: u32,
}

impl<K> Wish<K> {
    fn equal(key: K, wanted: u32) -> Self {
        Self { key, weight: 1, wanted }
    }
}

/// One level of the round robin. The front's deficit is what is left of a turn that the room cut short;
/// it goes on with it next time.
#[derive(Clone, Debug)]
struct Ring<K> {
    order: VecDeque<K>,
    deficit: HashMap<K, u32>,
}

impl<K> Default for Ring<K> {
    fn default() -> Self {
        Self { order: VecDeque::new(), deficit: HashMap::new() }
    }
}

impl<K: Copy + Eq + Hash> Ring<K> {
    fn share(&mut self, wishes: &[Wish<K>], room: u32) -> Vec<(K, u32)> {
        let mut open: HashMap<K, (u32, u32)> =
            wishes.iter().filter(|wish| wish.wanted > 0).map(|wish| (wish.key, (wish.weight, wish.wanted))).collect();
        // Whoever has nothing now loses its turn; newcomers go to the end.
        self.order.retain(|key| open.contains_key(key));
        self.deficit.retain(|key, _| open.contains_key(key));
        let known: std::collections::HashSet<K> = self.order.iter().copied().collect();
        self.order
            .extend(wishes.iter().filter(|wish| wish.wanted > 0 && !known.contains(&wish.key)).map(|wish| wish.key));

        let weights = open.values().fold(0_u32, |sum, (weight, _)| sum.saturating_add(*weight));
        let quantum = (room / weights.saturating_mul(TURNS_PER_CALL).max(1)).max(1);
        let (mut left, mut given) = (room, HashMap::new());
        while left > 0
            && !open.is_empty()
            && let Some(key) = self.order.front().copied()
        {
            let Some((weight, wanted)) = open.get_mut(&key) else {
                // Served in full within this call.
                self.order.rotate_left(1);
                continue;
            };
            let deficit = self.deficit.entry(key).or_insert(0);
            if *deficit == 0 {
                *deficit = weight.saturating_mul(quantum);
            }
            let take = (*deficit).min(*wanted).min(left);
            *deficit -= take;
            *wanted -= take;
            left -= take;
            *given.entry(key).or_insert(0) += take;
            if *wanted == 0 {
                *deficit = 0;
                open.remove(&key);
            }
            if self.deficit[&key] == 0 {
                self.order.rotate_left(1);
            }
        }
        given.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tenant(n: u8) -> TenantId {
        TenantId::from_uuid(uuid::Uuid::from_bytes([n; 16]))
    }

    fn slot(n: i16) -> Slot {
        Slot::from_code(n).unwrap()
    }

    fn due(queue: u32, owner: u8, lane: Lane, at: i16, weight: u16, backlog: u32) -> DueQueue<u32> {
        let weight = NonZeroU16::new(weight).unwrap();
        DueQueue { queue, tenant: tenant(owner), lane, slot: slot(at), weight, backlog }
    }

    fn of(quotas: &[Quota<u32>], queue: u32) -> u32 {
        quotas.iter().filter(|quota| quota.queue == queue).map(|quota| quota.count).sum()
    }

    #[test]
    fn a_tenant_with_many_campaigns_gets_no_more_than_one_with_one() {
        let mut queues: Vec<_> = (0..9).map(|n| due(n, 1, Lane::Bulk, 3, 1, 10_000)).collect();
        queues.push(due(9, 2, Lane::Bulk, 3, 1, 10_000));
        let quotas = Fairness::default().share(&queues, |_| 1_000, 10_000);
        assert!(of(&quotas, 9).abs_diff(500) <= 1_000 % 16);
        assert_eq!(quotas.iter().map(|quota| quota.count).sum::<u32>(), 1_000);
    }

    #[test]
    fn queues_of_a_tenant_share_by_weight() {
        let queues = [due(1, 1, Lane::Bulk, 3, 3, 10_000), due(2, 1, Lane::Bulk, 3, 1, 10_000)];
        let quotas = Fairness::default().share(&queues, |_| 800, 10_000);
        assert_eq!((of(&quotas, 1), of(&quotas, 2)), (600, 200));
    }

    #[test]
    fn what_one_leaves_the_others_get() {
        let queues = [due(1, 1, Lane::Bulk, 3, 1, 10), due(2, 2, Lane::Bulk, 3, 1, 10_000)];
        let quotas = Fairness::default().share(&queues, |_| 1_000, 10_000);
        assert_eq!((of(&quotas, 1), of(&quotas, 2)), (10, 990));
    }

    #[test]
    fn transactional_mail_goes_first_and_a_full_slot_holds_up_no_other() {
        let queues = [
            due(1, 1, Lane::Bulk, 3, 1, 10_000),
            due(2, 2, Lane::Transactional, 3, 1, 400),
            due(3, 3, Lane::Bulk, 4, 1, 10_000),
        ];
        let quotas = Fairness::default().share(&queues, |at| if at == slot(3) { 500 } else { 50 }, 10_000);
        assert_eq!((of(&quotas, 1), of(&quotas, 2), of(&quotas, 3)), (100, 400, 50));
        let quotas = Fairness::default().share(&queues, |at| if at == slot(3) { 0 } else { 50 }, 10_000);
        assert_eq!((of(&quotas, 1), of(&quotas, 2), of(&quotas, 3)), (0, 0, 50));
    }

    #[test]
    fn a_small_budget_goes_round() {
        let queues: Vec<_> = (0..10).map(|n| due(n, n as u8, Lane::Bulk, n as i16 % 3, 1, 1_000)).collect();
        let mut fairness = Fairness::default();
        let mut got = [0; 10];
        for _ in 0..40 {
            for quota in fairness.share(&queues, |_| 1_000, 1) {
                got[quota.queue as usize] += quota.count;
            }
        }
        assert_eq!(got.iter().sum::<u32>(), 40);
        assert!(got.iter().all(|count| *count >= 3), "{got:?}");
    }

    prop_compose! {
        fn queues()(rows in prop::collection::vec((0_u8..6, any::<bool>(), 0_i16..5, 1_u16..50, 0_u32..3_000), 1..40))
            -> Vec<DueQueue<u32>>
        {
            let lane = |urgent| if urgent { Lane::Transactional } else { Lane::Bulk };
            rows.iter().enumerate()
                .map(|(n, (owner, urgent, at, weight, backlog))| due(n as u32, *owner, lane(*urgent), *at, *weight, *backlog))
                .collect()
        }
    }

    proptest! {
        #[test]
        fn no_window_is_exceeded_and_none_left_empty_in_vain(
            queues in queues(), rooms in prop::collection::vec(0_u32..2_000, 5), budget in 0_u32..8_000, calls in 1..5,
        ) {
            let mut fairness = Fairness::default();
            let room = |at: Slot| rooms[at.code() as usize];
            for _ in 0..calls {
                let quotas = fairness.share(&queues, room, budget);
                let mut all = 0;
                for at in 0..5 {
                    let here = queues.iter().filter(|queue| queue.slot == slot(at));
                    let given: u32 = here.clone().map(|queue| of(&quotas, queue.queue)).sum();
                    let wanted: u32 = here.map(|queue| queue.backlog).sum();
                    prop_assert!(given <= room(slot(at)));
                    prop_assert!(budget < 8_000 && given <= wanted);
                    all += room(slot(at)).min(wanted);
                }
                prop_assert_eq!(quotas.iter().map(|quota| quota.count).sum::<u32>(), all.min(budget));
                for quota in &quotas {
                    prop_assert!(quota.count > 0 && quota.count <= queues[quota.queue as usize].backlog);
                }
            }
        }

        #[test]
        fn nobody_starves(queues in queues(), budget in 1_u32..50) {
            let bulk: Vec<_> = queues.into_iter()
                .map(|queue| DueQueue { lane: Lane::Bulk, backlog: queue.backlog.max(1), ..queue }).collect();
            let mut fairness = Fairness::default();
            let mut got = vec![0; bulk.len()];
            // One turn of every slot, tenant and queue, at a weight of at most 49.
            for _ in 0..5 * 6 * bulk.len() * 50 {
                for quota in fairness.share(&bulk, |_| 1_000, budget) {
                    got[quota.queue as usize] += quota.count;
                }
                if got.iter().all(|count| *count > 0) {
                    return Ok(());
                }
            }
            prop_assert!(false, "{:?}", got);
        }

        #[test]
        fn tenants_with_enough_to_send_get_the_same(backlogs in prop::collection::vec((1_u32..6, 1_u16..20), 2..6), room in 1_u32..3_000) {
            let mut rows = Vec::new();
            for (owner, (campaigns, weight)) in backlogs.iter().enumerate() {
                for _ in 0..*campaigns {
                    rows.push(due(rows.len() as u32, owner as u8, Lane::Bulk, 1, *weight, 1_000_000));
                }
            }
            let mut fairness = Fairness::default();
            let mut got = vec![0_u32; backlogs.len()];
            for _ in 0..50 {
                for quota in fairness.share(&rows, |_| room, u32::MAX) {
                    got[rows[quota.queue as usize].tenant.as_uuid().as_bytes()[0] as usize] += quota.count;
                }
            }
            let (least, most) = (got.iter().min().unwrap(), got.iter().max().unwrap());
            prop_assert!(most - least <= room / 4 + 2, "{:?}", got);
        }
    }
}
