//! The fleet as its users see it, and under faults.

#![allow(clippy::unwrap_used, reason = "a test ends at its first surprise")]

mod delivery;
