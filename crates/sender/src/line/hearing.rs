//! What receivers say about the pace, and what a line does about that.

use super::Line;
use crate::{
    attempt::{Done, Mood},
    ear::Heard,
    letters::Claimed,
};
use domain::{SmtpReply, reactions::Action};
use std::time::Instant;

impl Line {
    /// Does what the receiver's words ask for; whether that was no more than fewer connections.
    pub(super) fn listen(&self, done: &Done, claimed: &Claimed, now: Instant) -> bool {
        let detail = &done.outcome.detail;
        // What is silent about the site holds words of our own, or of the route's.
        let Some(code) = detail.code.filter(|code| *code >= 400 && done.mood != Mood::Silent) else { return false };
        if claimed.letter.sandbox {
            return false;
        }
        let job = &claimed.letter.job;
        let words = [detail.enhanced.as_deref(), detail.text.as_deref()];
        let heard = Heard {
            reply: SmtpReply::new(code, &words.into_iter().flatten().collect::<Vec<_>>().join(" ")),
            class: detail.class.as_deref().and_then(|class| class.parse().ok()),
            tenant: job.tenant,
            campaign: job.campaign,
            message: job.message,
        };
        let mut has_enough = false;
        for wanted in self.ear.hear(&self.site, self.id, &heard) {
            if wanted.action == Action::Fewer {
                // This one is counted until its session is seen to be over.
                has_enough = self.keeps_to_fewer(1);
                continue;
            }
            let changed = {
                let mut pace = self.pace();
                let change = pace.react(wanted.action, wanted.lasts, now);
                change.map(|change| (change, pace.state(now)))
            };
            let Some((change, state)) = changed else { continue };
            tracing::warn!(
                mx.site = %self.site,
                route = self.route.name(),
                rule = wanted.rule,
                rate = change.after.rate,
                connections = change.after.connections.get(),
                suspended = change.after.suspended,
                "a site is sent to more slowly"
            );
            let most = usize::from(change.after.connections.get());
            let mut work = self.work();
            work.allowed = work.allowed.min(most);
            drop(work);
            self.office.metrics.slowed(&wanted.rule);
            let tempos = &self.office.tempos;
            tempos.tell_route(&self.site, self.route.name(), &wanted.rule, Some(&heard), change, state);
        }
        has_enough
    }

    /// Writes down what has come back by itself.
    pub(crate) fn recover(&self, now: Instant) {
        let changed = {
            let mut pace = self.pace();
            let change = pace.recovered(now);
            change.map(|change| (change, pace.state(now)))
        };
        if let Some((change, state)) = changed {
            self.office.tempos.tell_route(&self.site, self.route.name(), "recovered", None, change, state);
        }
    }

    /// An operator takes back what the site is held back by, where it is meant.
    pub(crate) fn lift(&self, route: &str, now: Instant) {
        if !(route.is_empty() || route == self.route.name()) {
            return;
        }
        let changed = self.pace().lift(now);
        if let Some(change) = changed {
            self.office.tempos.tell_route(&self.site, self.route.name(), "lifted", None, change, None);
        }
    }

    /// Whether the site is sent to more slowly than is configured.
    pub(crate) fn is_slowed(&self) -> bool {
        self.pace().is_slowed()
    }
}
