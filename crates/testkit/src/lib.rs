//! What tests stand on: launchers of private Postgres and NATS, a database per test, a clock that can be
//! moved, waiting for conditions.
//!
//! The launchers serve the local fleet of the `mailfleet` command as well, so their errors say what to do.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod clock;
mod database;
mod error;
mod process;

pub mod nats;
pub mod packages;
pub mod peer;
pub mod postgres;
pub mod provider;
pub mod proxy;
pub mod shared;
pub mod sink;
pub mod wait;

pub use clock::VirtualClock;
pub use database::TestDatabase;
pub use error::LaunchError;
pub use nats::{NatsOptions, NatsServer};
pub use postgres::{PostgresOptions, PostgresServer};
pub use proxy::{Fault, FaultProxy};
pub use shared::{Shared, shared};
pub use wait::{LIMIT, eventually, until};
