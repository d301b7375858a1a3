//! The delivering client.
//!
//! ```text
//! Connection::connect ── banner ─ EHLO ─ [STARTTLS ─ EHLO] ─ [AUTH] ──► Connection
//! Connection::send    ── [RSET] MAIL RCPT DATA ─ 354 ─ before_dot() ─ body and dot ─ reply ──► Attempt
//! ```
//!
//! # What an [`Attempt`] is worth
//! Only [`Attempt::NoReplyAfterDot`] is in doubt. Up to the moment when the operating system has taken
//! the last octets of the final dot, nothing can have been delivered, and the attempt says so.
//! A `send` that is dropped half-way leaves a connection that is not reusable; what became of its
//! message is then unknown to everybody, so callers must not drop it once `before_dot` was called.
//!
//! # What a peer cannot do
//! Hold a connection longer than the [`Deadlines`], make it keep more than [`ReplyLimits`], answer
//! before it was asked, or slip plain text into a TLS session: each ends the connection.

mod capabilities;
mod config;
mod connect;
mod error;
mod stream;
mod transaction;
mod wire;

pub use crate::reply::{Reply, ReplyLimits, Violation};
pub use capabilities::Capabilities;
pub use config::{ClientConfig, Credentials, Deadlines, HeloName, HeloNameError, TlsPolicy};
pub use connect::Connection;
pub use error::{Abort, ConnectError, HandshakeFault, Stage, WireError};
pub use transaction::{Attempt, Envelope, Unsendable};
