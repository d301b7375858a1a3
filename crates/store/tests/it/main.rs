//! The statements of the store against a real Postgres: the claim protocol and its interleavings, accepting,
//! folding, and the plans over a million rows.

#![allow(clippy::unwrap_used)]

extern crate mailfleet_store as store;

mod accept;
mod administration;
mod desk;
mod fold;
mod limits;
mod listing;
mod plans;
mod protocol;
mod refusals;
mod templates;
