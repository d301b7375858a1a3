//! Whether a service can take work (ready), and whether it still turns (live).

use serde::Serialize;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

use crate::Lifecycle;

/// The named checks of one service. Clones are the same registry.
#[derive(Clone, Debug)]
pub struct Health {
    life: Lifecycle,
    states: Arc<Mutex<States>>,
}

#[derive(Debug, Default)]
struct States {
    checks: BTreeMap<&'static str, Result<(), String>>,
    pulses: BTreeMap<&'static str, (Instant, Duration)>,
}

/// One condition of readiness; not met until it is said to be.
#[derive(Clone, Debug)]
pub struct Check {
    name: &'static str,
    health: Health,
}

/// A sign of life that a loop gives; without one for too long the service is not live.
#[derive(Clone, Debug)]
pub struct Pulse {
    name: &'static str,
    health: Health,
}

/// What a health endpoint says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Whether all is well.
    pub ok: bool,
    /// Each check: `ok`, or what is wrong.
    pub checks: BTreeMap<&'static str, String>,
}

impl Health {
    /// A registry without checks. It turns not ready when `life` is asked to shut down.
    pub fn new(life: Lifecycle) -> Self {
        Self { life, states: Arc::default() }
    }

    /// Adds a condition of readiness, which is not met yet.
    pub fn check(&self, name: &'static str) -> Check {
        self.states().checks.insert(name, Err("starting".to_owned()));
        Check { name, health: self.clone() }
    }

    /// Adds a sign of life, given now, that is to come at least every `every`.
    pub fn pulse(&self, name: &'static str, every: Duration) -> Pulse {
        self.states().pulses.insert(name, (Instant::now(), every));
        Pulse { name, health: self.clone() }
    }

    /// Whether the service can take work.
    pub fn readiness(&self) -> Report {
        let word = |state: &Result<(), String>| state.as_ref().err().cloned().unwrap_or_else(|| "ok".to_owned());
        let states = self.states();
        let mut ok = states.checks.values().all(Result::is_ok);
        let mut checks: BTreeMap<_, _> = states.checks.iter().map(|(name, state)| (*name, word(state))).collect();
        if self.life.is_shutting_down() {
            ok = false;
            checks.insert("lifecycle", "shutting down".to_owned());
        }
        Report { ok, checks }
    }

    /// Whether the service still turns. A service that shuts down is live.
    pub fn liveness(&self) -> Report {
        let mut report = Report { ok: true, checks: BTreeMap::new() };
        for (name, (last, every)) in &self.states().pulses {
            let silent = last.elapsed();
            let stuck = silent > *every && !self.life.is_shutting_down();
            report.ok &= !stuck;
            let word = if stuck { format!("silent for {} ms", silent.as_millis()) } else { "ok".to_owned() };
            report.checks.insert(name, word);
        }
        report
    }

    fn states(&self) -> MutexGuard<'_, States> {
        // Only inserts happen under it; a panic could not leave it broken.
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Check {
    /// The condition is met.
    pub fn pass(&self) {
        self.set(Ok(()));
    }

    /// The condition is not met, because of `reason`.
    pub fn fail(&self, reason: impl Into<String>) {
        self.set(Err(reason.into()));
    }

    /// The condition is met or not.
    pub fn set(&self, state: Result<(), String>) {
        let before = self.health.states().checks.insert(self.name, state.clone());
        if before.is_some_and(|before| before.is_ok() != state.is_ok()) {
            tracing::info!(check = self.name, ok = state.is_ok(), reason = state.err(), "readiness changed");
        }
    }
}

impl Pulse {
    /// A sign of life.
    pub fn beat(&self) {
        if let Some((last, _)) = self.health.states().pulses.get_mut(self.name) {
            *last = Instant::now();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_service_is_ready_when_every_condition_is_met_and_not_when_it_shuts_down() {
        let life = Lifecycle::new();
        let health = Health::new(life.clone());
        let (one, two) = (health.check("postgres"), health.check("nats"));
        one.pass();
        assert!(!health.readiness().ok);
        two.pass();
        assert!(health.readiness().ok);
        one.fail("gone");
        assert_eq!(health.readiness().checks["postgres"], "gone");
        one.pass();
        life.trigger_shutdown();
        assert!(!health.readiness().ok);
        assert!(health.liveness().ok);
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_is_silent_for_too_long_is_dead() {
        let health = Health::new(Lifecycle::new());
        let pulse = health.pulse("claimer", Duration::from_secs(1));
        tokio::time::advance(Duration::from_millis(900)).await;
        pulse.beat();
        tokio::time::advance(Duration::from_millis(900)).await;
        assert!(health.liveness().ok);
        tokio::time::advance(Duration::from_millis(200)).await;
        assert!(!health.liveness().ok);
    }
}
