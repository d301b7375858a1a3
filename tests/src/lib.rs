//! A whole fleet for end-to-end tests: every service in this process, on a real Postgres, a real NATS and a sink
//! that speaks SMTP.
//!
//! Each test has its own database and its own subjects on the shared servers, so tests run side by side. Every
//! service has a runtime of its own: stopping it drains it, crashing it ends its tasks wherever they are, as a kill
//! ends a process, and leaves the same behind: leases, claims, the journal's files, chunks without an answer.
//!
//! Deadlines, leases, horizons and back-offs are a tenth of the defaults. Tests wait for conditions and never sleep.

#![allow(clippy::unwrap_used, reason = "a test ends at its first surprise")]

mod audit;
pub mod chaos;
mod client;
mod config;
pub mod dns;
pub mod failpoints;
mod faults;
mod home;
mod house;
mod mail;
mod member;
pub mod processes;
pub mod reference;
mod start;
mod zone;

pub use audit::Verdict;
pub use client::{ALL_SCOPES, Line, bearer, fields, reason};
pub use config::Settings;
pub use house::token_keys;
pub use mail::{Post, mail, recipient};
pub use start::{Builder, Fleet, Kind};
pub use zone::Zone;
