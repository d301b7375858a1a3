//! The fleet as its users see it, and under faults.

#![allow(clippy::unwrap_used, reason = "a test ends at its first surprise")]

mod api;
mod attachments;
mod clients;
mod command;
mod delivery;
mod doctor;
mod domains;
mod doubt;
mod edge;
mod faults;
mod feedback;
mod half_open;
mod holding;
mod http_routes;
mod inbound;
mod injected;
mod kill;
mod labels;
mod model;
mod mta;
mod neighbours;
mod notify;
mod pools;
mod rotation;
mod routes;
mod sandbox;
mod sdks;
mod senders;
mod ses;
mod shaping;
mod templates;
mod tempo;
mod traces;
mod tracking;
mod warmup;
mod watch;

/// `HEAD0@DOMAIN`, `HEAD1@DOMAIN`, …
fn addresses(count: usize, head: &str, domain: &str) -> Vec<String> {
    (0..count).map(|index| format!("{head}.{index}@{domain}")).collect()
}
