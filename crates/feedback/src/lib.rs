//! The feedback service: listens to everything that answers a mail.
//!
//! [`report`] reads the mails that come back; [`webhook`] reads what providers post.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod report;
pub mod webhook;
