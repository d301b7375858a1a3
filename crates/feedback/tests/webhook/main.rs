//! What providers post: who may have sent it, and what it says; and our own posts.

#![allow(clippy::unwrap_used, reason = "a test ends at its first surprise")]

mod credentials;
mod libraries;
mod mailgun;
mod outbound;
mod properties;
mod read;
mod resend;
mod sendgrid;
mod ses;
mod sns_signatures;
mod support;
