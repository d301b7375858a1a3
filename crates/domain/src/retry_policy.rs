//! Which schedule a deferral follows, by what it says and how urgent the message is.

use crate::{
    BounceClass, Lane, RetrySchedule,
    retry::{ScheduleError, Written as WrittenSchedule},
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, time::Duration};

/// Schedules by class and lane.
///
/// As configuration `lanes.transactional`, `lanes.bulk` and `classes.NAME`, each a [`RetrySchedule`], beside the fields of
/// one that holds where neither is named. A class comes before a lane. Schedules ship for some of both; whoever gives the
/// general one replaces them all.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub struct RetryPolicy {
    general: RetrySchedule,
    lanes: BTreeMap<Lane, RetrySchedule>,
    classes: BTreeMap<BounceClass, RetrySchedule>,
}

impl RetryPolicy {
    /// The schedule of a deferral.
    pub fn schedule(&self, lane: Lane, class: Option<BounceClass>) -> &RetrySchedule {
        let by_class = class.and_then(|class| self.classes.get(&class));
        by_class.or_else(|| self.lanes.get(&lane)).unwrap_or(&self.general)
    }
}

impl From<RetrySchedule> for RetryPolicy {
    /// The same for everything.
    fn from(general: RetrySchedule) -> Self {
        Self { general, lanes: BTreeMap::new(), classes: BTreeMap::new() }
    }
}

const fn minutes(count: u64) -> Duration {
    Duration::from_secs(count * 60)
}

fn steps(steps: &[Duration]) -> RetrySchedule {
    RetrySchedule::of_steps(steps.to_vec()).expect("shipped schedules have steps of sensible lengths")
}

impl Default for RetryPolicy {
    /// - Bulk: 1, 5, 15, 30 min, 1, 2, then every 4 h.
    /// - Transactional: 20 s, 1, 2, 5, 10, 15, 30 min, then every hour: somebody waits, and its time to live is short.
    /// - Greylisted: 1, 4, 5, 10, 20 min, 1, then every 4 h. Coming sooner makes some receivers begin anew.
    /// - A full mailbox: 1, 4, 12, then every 24 h, since somebody has to clear it.
    /// - Blocked for its reputation: 15 min, 1, 2, then every 4 h.
    /// - DNS: 5, 15, 30 min, 1, 2, then every 4 h.
    fn default() -> Self {
        let transactional = [Duration::from_secs(20)].into_iter().chain([1, 2, 5, 10, 15, 30, 60].map(minutes));
        let classes = [
            (BounceClass::Greylisted, steps(&[1, 4, 5, 10, 20, 60, 240].map(minutes))),
            (BounceClass::QuotaIssues, steps(&[60, 240, 720, 1_440].map(minutes))),
            (BounceClass::SpamBlock, steps(&[15, 60, 120, 240].map(minutes))),
            (BounceClass::DnsFailure, steps(&[5, 15, 30, 60, 120, 240].map(minutes))),
        ];
        Self {
            general: RetrySchedule::default(),
            lanes: BTreeMap::from([(Lane::Transactional, steps(&transactional.collect::<Vec<_>>()))]),
            classes: BTreeMap::from(classes),
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    steps: Option<Vec<humantime_serde::Serde<Duration>>>,
    #[serde(default, with = "humantime_serde", skip_serializing_if = "Option::is_none")]
    base: Option<Duration>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    factor: Option<f64>,
    #[serde(default, with = "humantime_serde", skip_serializing_if = "Option::is_none")]
    cap: Option<Duration>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    lanes: BTreeMap<Lane, RetrySchedule>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    classes: BTreeMap<BounceClass, RetrySchedule>,
}

impl TryFrom<Written> for RetryPolicy {
    type Error = ScheduleError;

    fn try_from(written: Written) -> Result<Self, ScheduleError> {
        let Written { steps, base, factor, cap, lanes, classes } = written;
        let mut policy = if steps.is_none() && base.is_none() && factor.is_none() && cap.is_none() {
            Self::default()
        } else {
            RetrySchedule::try_from(WrittenSchedule { steps, base, factor, cap })?.into()
        };
        policy.lanes.extend(lanes);
        policy.classes.extend(classes);
        Ok(policy)
    }
}

impl From<RetryPolicy> for Written {
    fn from(policy: RetryPolicy) -> Self {
        let WrittenSchedule { steps, base, factor, cap } = policy.general.into();
        Self { steps, base, factor, cap, lanes: policy.lanes, classes: policy.classes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<RetryPolicy, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    fn first(policy: &RetryPolicy, lane: Lane, class: Option<BounceClass>) -> u64 {
        policy.schedule(lane, class).step(1).as_secs()
    }

    #[test]
    fn a_class_comes_before_a_lane_and_a_lane_before_the_rest() {
        let policy = RetryPolicy::default();
        assert_eq!(first(&policy, Lane::Transactional, None), 20);
        assert_eq!(first(&policy, Lane::Transactional, Some(BounceClass::TransientFailure)), 20);
        assert_eq!(first(&policy, Lane::Transactional, Some(BounceClass::Greylisted)), 60);
        assert_eq!(first(&policy, Lane::Bulk, Some(BounceClass::QuotaIssues)), 3_600);
        assert_eq!(first(&policy, Lane::Bulk, Some(BounceClass::TransientFailure)), 60);
    }

    #[test]
    fn what_is_given_replaces_what_ships_where_it_holds() {
        let one = read(r#"{"classes": {"greylisted": {"steps": ["7m"]}}}"#).unwrap();
        assert_eq!(first(&one, Lane::Bulk, Some(BounceClass::Greylisted)), 420);
        assert_eq!(first(&one, Lane::Transactional, None), 20);
        let all = read(r#"{"steps": ["3m"], "lanes": {"bulk": {"base": "9m", "factor": 2, "cap": "1h"}}}"#).unwrap();
        assert_eq!(first(&all, Lane::Transactional, Some(BounceClass::QuotaIssues)), 180);
        assert_eq!(first(&all, Lane::Bulk, None), 540);
        assert_eq!(read(&serde_json::to_string(&all).unwrap()), Ok(all));
        let shipped = RetryPolicy::default();
        assert_eq!(read(&serde_json::to_string(&shipped).unwrap()), Ok(shipped));
        assert_eq!(read("{}"), Ok(RetryPolicy::default()));
    }

    #[test]
    fn what_is_no_schedule_lane_or_class_is_named() {
        for (text, part) in [
            (r#"{"steps": []}"#, "steps must list 1 to 100 durations"),
            (r#"{"base": "1m"}"#, "give either steps, or base, factor and cap"),
            (r#"{"lanes": {"slow": {"steps": ["1m"]}}}"#, "slow"),
            (r#"{"classes": {"greylist": {"steps": ["1m"]}}}"#, "greylist"),
            (r#"{"classes": {"greylisted": {"steps": ["9days"]}}}"#, "at most 7 days"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
