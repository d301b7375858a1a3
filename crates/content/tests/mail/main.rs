//! The crate from outside: what a reader, a verifier and an attacker see.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

mod any;
mod attachments;
mod common;
mod dkim;
mod hostile;
mod own;
mod render;
mod templates;
mod tracking;
mod versions;
