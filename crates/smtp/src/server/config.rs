//! Bounds and extensions of a server.

use std::{sync::Arc, time::Duration};

/// Which extensions are offered. All by default; a test takes some away.
#[derive(Clone, Copy, Debug)]
pub struct Extensions {
    /// RFC 2920.
    pub pipelining: bool,
    /// RFC 6152.
    pub eight_bit_mime: bool,
    /// RFC 6531.
    pub smtputf8: bool,
    /// RFC 1870.
    pub size: bool,
}

impl Default for Extensions {
    fn default() -> Self {
        Self { pipelining: true, eight_bit_mime: true, smtputf8: true, size: true }
    }
}

/// Everything about a session that is no decision of its handler.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Name in the greeting.
    pub hostname: String,
    /// Octets in a command line with its end. Default 2,048: RFC 5321, 4.5.3.1.4 asks for 512 and its
    /// extensions for more.
    pub max_line: usize,
    /// Recipients of one message. Default 100 (RFC 5321, 4.5.3.1.8); a further one gets a 452.
    pub max_recipients: usize,
    /// Octets of one message, as announced in SIZE. Default 25 MiB. Up to four times as much is read and
    /// thrown away, to answer properly; then the connection is closed.
    pub max_size: usize,
    /// Commands in a session. Default 100,000.
    pub max_commands: u32,
    /// Commands that were refused for their form or order. Default 20.
    pub max_mistakes: u32,
    /// Silence of the client, also within a message. Default 5 min (RFC 5321, 4.5.3.2.7).
    pub idle: Duration,
    /// The session as a whole. Default 1 h.
    pub session: Duration,
    /// The handshake of STARTTLS. Default 30 s.
    pub handshake: Duration,
    /// Offer STARTTLS with this certificate.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// What else is offered.
    pub extensions: Extensions,
}

impl ServerConfig {
    /// Defaults under this name.
    pub fn new(hostname: impl Into<String>) -> Self {
        const MINUTE: Duration = Duration::from_secs(60);
        Self {
            hostname: hostname.into(),
            max_line: 2_048,
            max_recipients: 100,
            max_size: 25 * 1_024 * 1_024,
            max_commands: 100_000,
            max_mistakes: 20,
            idle: 5 * MINUTE,
            session: 60 * MINUTE,
            handshake: Duration::from_secs(30),
            tls: None,
            extensions: Extensions::default(),
        }
    }
}
