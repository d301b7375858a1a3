//! DNS as receivers of mail read it: look-ups with a limit to the wait, SPF, DKIM keys and DMARC.
//!
//! What is told here is what DNS says. What it means for a domain, and what to do, is said by who asks.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test ends at its first surprise"))]

mod lookup;
mod resolver;

pub mod dkim;
pub mod dmarc;
pub mod spf;

pub use lookup::{Dns, NoAnswer, Unanswered, reverse};
pub use resolver::{ResolverSetupError, resolver};
