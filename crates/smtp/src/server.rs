//! Server sessions: what takes bounces in, and the test sink.
//!
//! [`serve`] runs one session over any byte stream; [`Listener`] serves a port, within a [`Crowd`]'s bounds.
//! The [`Handler`] of a session decides, the session keeps the protocol:
//!
//! * PIPELINING: the answers to a flight go out in one write, when there is no more to read.
//! * 8BITMIME, SMTPUTF8, SIZE, ENHANCEDSTATUSCODES; STARTTLS when there is a certificate, with an empty
//!   buffer or not at all.
//! * A line ends in CRLF, a message in CRLF `.` CRLF, and in nothing else. A bare CR or LF in either ends
//!   the session, since what follows may be smuggled commands (CVE-2023-51764).
//! * Everything is bounded by [`ServerConfig`]: lines, recipients, octets, commands, mistakes, silence
//!   and the session as a whole.
//!
//! A session is cancelled by dropping its future; a message is answered for only once
//! [`Handler::message`] has returned, so nothing is accepted by half.

mod answer;
mod command;
mod config;
mod listen;
mod session;
mod stream;

pub use answer::{Answer, Then};
pub use config::{Extensions, ServerConfig};
pub use listen::{Crowd, Listener};
pub use session::{Ended, Handler, Mail, Message, serve};
