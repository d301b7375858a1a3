//! Takes mail in over gRPC.
//!
//! A call is known by its key and bounded before its body is read (`gate`); looked at as a whole before
//! anything is stored; committed together with whatever else arrives at that moment; and answered after the commit.
//!
//! # Guarantees
//! - What was answered with OK is on disk: it is delivered, or its final event says why not.
//! - What was refused has left nothing behind. A fault names field, problem and fix.
//! - The same idempotency key with the same request gets the same answer, and sends nothing twice.
//! - A wiped or absent broker neither stops nor slows an accept.
//! - No call sees or touches anything of another tenant.
//!
//! # What a crash leaves
//! - Before the commit: nothing; the caller has no answer and repeats the call with its key.
//! - Between commit and answer: accepted mail; the repeat gets its answer.
//! - Between commit and publish: released rows, which the dispatcher's repair releases again.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod accept;
mod analytics;
mod auth;
mod clock;
mod config;
mod connections;
mod cursor;
mod dead_letters;
mod delivery;
mod domains;
mod endpoints;
mod gate;
mod holds;
mod inbound;
mod intake;
mod languages;
mod launch;
mod list;
mod mail;
mod message;
mod metrics;
mod names;
mod queues;
mod quota;
mod records;
mod seats;
mod server;
mod sites;
mod status;
mod suppressions;
mod templates;
mod tenants;
mod transfers;
mod validate;
mod verify;
mod watch;
mod wire;

pub mod keys;
pub mod limits;

pub use auth::{Scope, TENANT_HEADER};
pub use config::{
    AcceptConfig, DnsConfig, FastLaneConfig, IngestConfig, QuotaConfig, ServerLimits, TransferConfig, WatchConfig,
};
pub use metrics::Metrics;
pub use server::{Ingest, IngestError, Neighbours};
pub use status::{ERROR_DOMAIN, Fault, MAX_VIOLATIONS};
pub use validate::Violation;
