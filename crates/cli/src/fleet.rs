//! The local fleet: Postgres, NATS, every service and the mail sink on this machine, each as its own process.
//!
//! One process, the supervisor, starts the others and watches over them. What it started it stops: on SIGINT,
//! SIGTERM, or `mailfleet down`. A supervisor that was killed leaves processes behind; the next start, or `down`,
//! ends them before anything else.

mod children;
mod config;
mod http;
mod neighbours;
mod state;
mod status;
mod up;

pub use state::{State, write_private};
pub use status::status;
pub use up::{LocalFleet, Wanted, down, told_to_end, up};
