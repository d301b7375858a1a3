//! One fixed seed of the fault runner: a real fleet of processes, killed, stopped, cut off and wiped under load.
//! `make chaos` does more, for longer, with every fault and any seed.

#![allow(clippy::unwrap_used, reason = "a test ends at its first surprise")]

use mailfleet_tests::{
    chaos::{Options, parse, run},
    processes::program,
};
use std::{io::Write, time::Duration};

/// Chosen so that each fault of the list comes at least once.
const SEED: u64 = 14;
const LENGTH: Duration = Duration::from_secs(40);
/// What takes no special rights and no long outage; most of it to the senders, who have most to lose.
const FAULTS: [&str; 10] = [
    "kill9:sender",
    "stop:sender",
    "sigterm",
    "kill9",
    "nats-wipe",
    "postgres-kill9",
    "postgres-sessions",
    "network-cut",
    "half-open",
    "clock-step",
];

/// Shown when the test fails.
fn say(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fixed_seed_of_faults_loses_nothing_and_doubles_nothing_that_no_doubt_explains() {
    let mailfleet = tokio::task::spawn_blocking(program).await.unwrap();
    let faults = parse(&FAULTS.join(",")).unwrap();
    let options = Options { seed: SEED, length: LENGTH, faults, mailfleet, keep: false };
    let report = run(&options, &say).await.unwrap();
    assert!(report.is_sound(), "{report:#?}");
    assert_eq!((report.lost, report.duplicated_unexplained), (0, 0), "{report:#?}");
    assert!(report.accepted > 500 && report.delivered > report.accepted / 2, "{report:#?}");
    // Kill is in the list twice.
    assert_eq!((report.faults.len(), report.skipped.len()), (FAULTS.len() - 1, 0), "{report:#?}");
}
