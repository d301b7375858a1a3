//! The fault runner: a real fleet of processes, two of each service, under load and under faults, and a checker that
//! judges mechanically what came of it.
//!
//! A run is a seed, a length and a list of faults. The seed alone decides which fault happens when and to what
//! ([`Schedule`]), and what callers ask for. Every process has proxies of its own before the database and the broker, so
//! each way can be cut by itself; servers are private and are killed, wiped and filled for real. The database writes down
//! each change of place in the transaction that makes it (`trace.sql`), callers note what they were answered, the sink
//! when it took each copy; [`check::judge`] holds all of it against the promises.
//!
//! # Not proved here
//! A power loss (commits do not wait for the disk, since a kill loses nothing that was written), a failover to another
//! database server, a clock that differs between machines. When faults strike is decided by the seed, but not which
//! statement they meet: the same seed is the same plan and not the same run.

pub mod check;
mod collect;
mod config;
pub mod dice;
mod disk;
pub mod evidence;
pub mod faults;
mod fleet;
mod inject;
pub mod ledger;
mod load;
pub mod logs;
mod member;
pub mod processes;
mod report;
mod run;
mod saboteur;
pub mod schedule;

pub use faults::{Fault, Wanted, parse};
pub use report::Report;
pub use run::{Options, run};
pub use schedule::Schedule;

/// The machine's clock, in microseconds since 1970: what callers, the sink and the database's triggers go by.
fn now_us() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// Waits until this becomes true, or nobody can make it so any more.
async fn told(stop: &mut tokio::sync::watch::Receiver<bool>) {
    // What it gives back holds a lock: it ends here.
    let _ = stop.wait_for(|stop| *stop).await;
}
