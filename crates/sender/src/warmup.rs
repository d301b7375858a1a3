//! What routes that are warmed up may send now.
//!
//! The ledger in Postgres gives permits out in slices; a slice is used here without asking. A site that has a plan of
//! its own for a route is counted by it, every other by the route's plan for all others, if there is one.

use crate::{Office, routes::RouteId};
use domain::{SiteId, warmup::Overflow};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use store::Warmup;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Between two looks at the plans.
const LOOK: Duration = Duration::from_secs(2);
/// Permits of one slice.
const SLICE: u32 = 50;
/// Shortest time between two takes of a plan.
const PAUSE: Duration = Duration::from_millis(100);
/// Longest time for which mail is put back to rest, however late its turn is: plans change.
const LONGEST_REST: Duration = Duration::from_secs(3_600);

/// The plans and what is left of their slices.
#[derive(Default)]
pub(crate) struct Warmups {
    state: Mutex<State>,
    wanted: Notify,
}

#[derive(Default)]
struct State {
    /// Plans by route and site; no site: all others.
    plans: HashMap<(RouteId, Option<SiteId>), i64>,
    budgets: HashMap<i64, Budget>,
}

struct Budget {
    overflow: Overflow,
    left: u32,
    /// Somebody waits for a slice.
    is_wanted: bool,
    /// There is none before, as far as one can tell.
    not_before: Instant,
    /// When the ledger may be asked next.
    look_at: Instant,
    /// Until when its last answer is taken for true: a plan may change.
    fresh_until: Instant,
    /// The day of the permits ends.
    ends: Instant,
    interval: Duration,
    is_over: bool,
}

/// How a route stands at a site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It may send, as far as warming up goes.
    Free,
    /// Not before this time has passed; then one after another in this interval.
    Short { wait: Duration, interval: Duration, overflow: Overflow },
}

impl Warmups {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there is a permit for one message. Where there is none, one is asked for.
    pub(crate) fn has(&self, route: RouteId, site: &SiteId) -> bool {
        let mut state = self.state();
        let Some(budget) = state.budget(route, site) else { return true };
        if budget.left == 0 {
            budget.is_wanted = true;
            self.wanted.notify_one();
        }
        budget.left > 0
    }

    /// Takes a permit for one message; `false` when there is none: somebody else was faster.
    pub(crate) fn take(&self, route: RouteId, site: &SiteId) -> bool {
        let mut state = self.state();
        let Some(budget) = state.budget(route, site) else { return true };
        budget.left.checked_sub(1).map(|left| budget.left = left).is_some()
    }

    /// Whether no route is warmed up.
    pub(crate) fn are_none(&self) -> bool {
        self.state().plans.is_empty()
    }

    /// How a route stands at a site. One that was not asked for a permit of late is taken to have some.
    pub(crate) fn standing(&self, route: RouteId, site: &SiteId, now: Instant) -> Standing {
        let mut state = self.state();
        let Some(budget) = state.budget(route, site) else { return Standing::Free };
        let wait = budget.not_before.saturating_duration_since(now);
        if budget.left > 0 || wait.is_zero() || budget.fresh_until <= now {
            return Standing::Free;
        }
        Standing::Short { wait, interval: budget.interval, overflow: budget.overflow }
    }

    /// Takes the plans over as they are now.
    fn learn(&self, plans: Vec<Warmup>, id_of: impl Fn(&str) -> Option<RouteId>) {
        let mut state = self.state();
        let mut budgets = std::mem::take(&mut state.budgets);
        state.plans.clear();
        for Warmup { id, plan, .. } in plans {
            // Another sender's route.
            let Some(route) = id_of(&plan.route) else { continue };
            let is_over = plan.ladder.cap(plan.rung).is_none();
            let fresh = || Budget {
                overflow: plan.overflow,
                left: 0,
                is_wanted: false,
                not_before: Instant::now(),
                look_at: Instant::now(),
                fresh_until: Instant::now(),
                ends: Instant::now(),
                interval: Duration::ZERO,
                is_over,
            };
            let mut budget = budgets.remove(&id).unwrap_or_else(fresh);
            // One that was over goes on when an operator has set it back.
            budget.is_over = is_over;
            budget.overflow = plan.overflow;
            state.budgets.insert(id, budget);
            state.plans.insert((route, plan.site), id);
        }
    }

    fn wanted(&self, now: Instant) -> Vec<i64> {
        let state = self.state();
        let due = |budget: &Budget| budget.is_wanted && budget.left == 0 && budget.look_at <= now;
        state.budgets.iter().filter(|(_, budget)| due(budget)).map(|(id, _)| *id).collect()
    }
}

impl State {
    fn budget(&mut self, route: RouteId, site: &SiteId) -> Option<&mut Budget> {
        if self.plans.is_empty() {
            return None;
        }
        let own = self.plans.get(&(route, Some(site.clone())));
        let id = own.or_else(|| self.plans.get(&(route, None)))?;
        let budget = self.budgets.get_mut(id).filter(|budget| !budget.is_over)?;
        if budget.ends <= Instant::now() {
            budget.left = 0;
        }
        Some(budget)
    }
}

/// For how long the `position`-th letter rests that has no permit.
pub(crate) fn rest_of(position: usize, wait: Duration, interval: Duration) -> Duration {
    let position = u32::try_from(position).unwrap_or(u32::MAX);
    wait.saturating_add(interval.saturating_mul(position)).min(LONGEST_REST)
}

/// Looks at the plans and takes slices until `stop`. Without an answer of Postgres nothing more goes by a route that is
/// warmed up.
pub(crate) async fn keep(office: Arc<Office>, stop: CancellationToken) {
    let mut turns = tokio::time::interval(LOOK);
    turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let warmups = &office.warmups;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = turns.tick() => match office.store.warmups().await {
                Ok(plans) => warmups.learn(plans, |name| office.routes.id_of(name)),
                Err(error) => tracing::debug!(%error, "cannot look at the plans of routes that are warmed up"),
            },
            () = warmups.wanted.notified() => {}
        }
        for id in warmups.wanted(Instant::now()) {
            let taken = office.store.take_warmup(id, SLICE).await;
            let mut state = warmups.state();
            let Some(budget) = state.budgets.get_mut(&id) else { continue };
            let now = Instant::now();
            match taken {
                Ok(slice) => {
                    budget.left = slice.granted;
                    budget.ends = now + slice.day_ends_in;
                    budget.not_before = now + slice.wait;
                    budget.look_at = now + slice.wait.clamp(PAUSE, LOOK);
                    // As long as letters are held that wait for it.
                    budget.fresh_until = now + office.config.desk.hold;
                    budget.interval = slice.interval;
                    budget.is_over = slice.is_over;
                    // Until somebody asks again: what nobody needs here, another sender may.
                    budget.is_wanted = false;
                }
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "cannot take a slice of a warm-up");
                    budget.look_at = now + LOOK;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::warmup::DAY;
    use store::NewWarmup;

    fn warmup(id: i64, site: Option<&str>) -> Warmup {
        Warmup {
            id,
            plan: NewWarmup {
                route: "new".to_owned(),
                site: site.map(|site| SiteId::from_stored(site.to_owned())),
                ladder: "10,20".parse().expect("a ladder"),
                rung: 0,
                overflow: Overflow::Routes,
                spread: DAY,
                held: false,
            },
            created_at: service::clock::now(),
            today: None,
        }
    }

    #[test]
    fn a_site_with_a_plan_of_its_own_is_counted_by_it_and_others_together() {
        let route = RouteId::test(3);
        let warmups = Warmups::default();
        warmups.learn(vec![warmup(1, None), warmup(2, Some("google"))], |name| (name == "new").then_some(route));
        let google = SiteId::from_stored("google".to_owned());
        let [one, other] = ["mx.a.test", "mx.b.test"].map(|site| SiteId::from_stored(site.to_owned()));
        assert!(!warmups.has(route, &google) && !warmups.has(route, &one));
        assert!(warmups.take(RouteId::test(4), &google), "a route without a plan");
        let mut wanted = warmups.wanted(Instant::now());
        wanted.sort_unstable();
        assert_eq!(wanted, [1, 2]);
        {
            let mut state = warmups.state();
            let budget = state.budgets.get_mut(&1).expect("a budget");
            budget.left = 1;
            budget.ends = Instant::now() + DAY;
        }
        assert!(warmups.take(route, &one) && !warmups.take(route, &other), "one budget for both");
        let plans = vec![warmup(1, None), warmup(2, Some("google"))];
        warmups.learn(plans, |name| (name == "new").then_some(route));
        assert!(!warmups.take(route, &one), "a look gives nothing back");
        warmups.learn(Vec::new(), |_| None);
        assert!(warmups.take(route, &one), "a plan that was removed caps nothing");
    }

    #[test]
    fn what_has_no_permit_rests_until_its_turn() {
        let minute = Duration::from_secs(60);
        assert_eq!(rest_of(0, minute, minute), minute);
        assert_eq!(rest_of(3, minute, minute), 4 * minute);
        assert_eq!(rest_of(usize::MAX, minute, minute), LONGEST_REST);
    }
}
