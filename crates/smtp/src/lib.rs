//! SMTP on the wire: the delivering client and server sessions.
//!
//! * [`client`] opens connections and delivers one message to one recipient at a time. It says exactly
//!   how far each attempt went, since whether the final dot may have gone out decides whether a message
//!   may be sent again.
//! * [`server`] runs one session over any byte stream and asks a [`server::Handler`] what to answer.
//!
//! # Guarantees
//! * Every read and write has a deadline, every reply, line, message and session a bound.
//! * A body, whatever its bytes, arrives as exactly one message: line ends are made CRLF, dots are
//!   stuffed, body and final dot go out in one write. NUL passes as it is; `content` makes none and
//!   refuses raw mail with one, since receivers differ in what they make of it. The server ends a message at CRLF `.` CRLF and
//!   nothing else, and refuses a message with a bare CR or LF.
//! * No text that was received before TLS is used after it, on either side.
//! * No CR, LF or NUL can reach a command: addresses are [`domain::Mailbox`], the HELO name is
//!   [`client::HeloName`], credentials travel as base64.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod body;
mod reply;
mod tls;

pub mod client;
pub mod server;

pub use body::wire_form;
pub use reply::{Reply, ReplyLimits, Violation};
pub use tls::{TlsContext, TlsSetupError, server_tls};
