//! Where the next fold begins to look.

use std::time::Duration;
use store::Fold;
use tokio::time::Instant;

/// The lower bound of the next look: near what was taken last, so that the index entries of facts long gone are not
/// walked again and again; now and then the very beginning, since numbers are given before the commit and a slow
/// transaction's facts turn up below.
pub(crate) struct Bound {
    slack: i64,
    full_every: Duration,
    from: i64,
    full_at: Instant,
}

impl Bound {
    pub(crate) const fn new(slack: i64, full_every: Duration, now: Instant) -> Self {
        Self { slack, full_every, from: 0, full_at: now }
    }

    /// Where to begin, and whether that is the very beginning.
    pub(crate) fn next(&self, now: Instant) -> (i64, bool) {
        if now >= self.full_at { (0, true) } else { (self.from, false) }
    }

    /// Takes over what a fold did. It took the lowest there were, so what is left and can be seen lies above.
    pub(crate) fn folded(&mut self, fold: &Fold, full: bool, now: Instant) {
        if let Some((_, highest)) = fold.range {
            self.from = highest.saturating_sub(self.slack).max(0);
        }
        if full {
            self.full_at = now + self.full_every;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: Duration = Duration::from_secs(5);

    fn fold(lowest: i64, highest: i64) -> Fold {
        Fold { taken: 1, logged: 1, range: Some((lowest, highest)) }
    }

    #[test]
    fn the_first_look_begins_at_the_beginning_and_the_next_ones_near_the_last_fact() {
        let now = Instant::now();
        let mut bound = Bound::new(100, EVERY, now);
        assert_eq!(bound.next(now), (0, true));
        bound.folded(&fold(1, 50), true, now);
        assert_eq!(bound.next(now), (0, false));
        bound.folded(&fold(51, 3_000), false, now);
        assert_eq!(bound.next(now), (2_900, false));
        bound.folded(&Fold::default(), false, now);
        assert_eq!(bound.next(now), (2_900, false));
    }

    #[test]
    fn after_a_look_from_the_beginning_the_next_goes_on_from_there() {
        let now = Instant::now();
        let mut bound = Bound::new(100, EVERY, now);
        bound.folded(&fold(1, 5_000), true, now);
        let later = now + EVERY;
        assert_eq!(bound.next(later), (0, true));
        bound.folded(&fold(10, 2_000), true, later);
        assert_eq!(bound.next(later), (1_900, false));
    }
}
