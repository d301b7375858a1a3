//! The local fleet: Postgres, NATS, every service and the mail sink on this machine, each as its own process.
//!
//! One process, the supervisor, starts the others and watches over them. What it started it stops: on SIGINT,
//! SIGTERM, or `mailfleet down`. A supervisor that was killed leaves processes behind; the next start, or `down`,
//! ends them before anything else.

mod children;
mod config;
pub mod http;
mod neighbours;
mod state;
mod up;

pub use config::REPORTS;
pub use state::{Process, State, write_private};
pub use up::{Wanted, down, start_unless_told_to_end, told_to_end, up};
