//! What the owner of a connection decides about it.

use crate::{reply::ReplyLimits, tls::TlsContext};
use std::{fmt, net::IpAddr, str::FromStr, time::Duration};

/// How long each phase may take in all, however the peer spreads its answer over it.
/// Defaults are those of RFC 5321, 4.5.3.2 where it names one.
#[derive(Clone, Debug)]
pub struct Deadlines {
    /// TCP connect. Default 60 s.
    pub connect: Duration,
    /// First greeting. Default 5 min.
    pub banner: Duration,
    /// `EHLO` and `HELO`. Default 5 min.
    pub ehlo: Duration,
    /// `STARTTLS` and, once more, the handshake. Default 30 s.
    pub starttls: Duration,
    /// Each step of `AUTH`. Default 60 s.
    pub auth: Duration,
    /// `MAIL`. Default 5 min.
    pub mail: Duration,
    /// `RCPT`. Default 5 min.
    pub rcpt: Duration,
    /// `DATA` to its 354. Default 2 min.
    pub data: Duration,
    /// Without a single octet of the body going out. Default 3 min.
    pub body_progress: Duration,
    /// Final dot to its reply. Default 10 min: a shorter one makes duplicates (RFC 1047).
    pub dot: Duration,
    /// `RSET`, `QUIT`, and the lone dot that closes a refused transaction. Default 5 s.
    pub reset: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        const MINUTE: Duration = Duration::from_secs(60);
        Self {
            connect: MINUTE,
            banner: 5 * MINUTE,
            ehlo: 5 * MINUTE,
            starttls: Duration::from_secs(30),
            auth: MINUTE,
            mail: 5 * MINUTE,
            rcpt: 5 * MINUTE,
            data: 2 * MINUTE,
            body_progress: 3 * MINUTE,
            dot: 10 * MINUTE,
            reset: Duration::from_secs(5),
        }
    }
}

/// Not a name that may stand behind `EHLO`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not a host name or address literal of 1 to 255 letters, digits, dots, hyphens")]
pub struct HeloNameError;

/// The argument of `EHLO`: a host name, or an address literal such as `[192.0.2.1]` (RFC 5321, 4.1.1.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeloName(String);

impl HeloName {
    /// The name as it is sent.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for HeloName {
    type Err = HeloNameError;

    fn from_str(text: &str) -> Result<Self, HeloNameError> {
        let literal = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
        let valid = match literal {
            Some(address) => address.strip_prefix("IPv6:").unwrap_or(address).parse::<IpAddr>().is_ok(),
            None => text.split('.').all(|label| {
                !label.is_empty()
                    && label.len() <= 63
                    && !label.starts_with('-')
                    && !label.ends_with('-')
                    && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            }),
        };
        if valid && text.len() <= 255 { Ok(Self(text.to_owned())) } else { Err(HeloNameError) }
    }
}

/// User name and password of a relay.
#[derive(Clone)]
pub struct Credentials {
    /// User name.
    pub username: String,
    /// Password; never shown.
    pub password: String,
    /// Whether they may travel without TLS. Only for relays on the same host.
    pub allow_without_tls: bool,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("allow_without_tls", &self.allow_without_tls).finish_non_exhaustive()
    }
}

/// Whether and how a connection is encrypted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum TlsPolicy {
    /// Never.
    None,
    /// When it is offered, to whoever answers (RFC 7435). A handshake that fails is
    /// [`ConnectError::Tls`](super::ConnectError::Tls); the caller may come again with [`TlsPolicy::None`].
    #[default]
    Opportunistic,
    /// Always, with the certificate verified; never in clear.
    Required {
        /// The name that the certificate must bear; `None` is the host that was connected to.
        name: Option<String>,
    },
    /// As `Required`, and from the first byte on (RFC 8314; port 465).
    Implicit {
        /// The name that the certificate must bear; `None` is the host that was connected to.
        name: Option<String>,
    },
}

/// Everything about a connection that is not its address.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// How we call ourselves.
    pub helo: HeloName,
    /// The address that connections come from; `None` leaves it to the system.
    pub source: Option<IpAddr>,
    /// Encryption.
    pub tls: TlsPolicy,
    /// Roots and sessions for TLS, shared by all connections.
    pub tls_context: TlsContext,
    /// Log in with these after TLS.
    pub credentials: Option<Credentials>,
    /// How long each phase may take.
    pub deadlines: Deadlines,
    /// How large replies may be.
    pub reply_limits: ReplyLimits,
    /// Send MAIL, RCPT and DATA in one flight when the peer offers PIPELINING. Default true.
    pub pipelining: bool,
}

impl ClientConfig {
    /// Defaults under this name.
    pub fn new(helo: HeloName, tls_context: TlsContext) -> Self {
        Self {
            helo,
            source: None,
            tls: TlsPolicy::default(),
            tls_context,
            credentials: None,
            deadlines: Deadlines::default(),
            reply_limits: ReplyLimits::default(),
            pipelining: true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_helo_name_cannot_carry_another_command() {
        for bad in ["", "a b", "a\r\nRSET", "a\n", "a\0", "-a", "a-", "a..b", ".", "[x]", "[127.0.0.1", "é.test", "a_b"]
        {
            assert_eq!(HeloName::from_str(bad), Err(HeloNameError), "{bad:?}");
        }
        for good in ["localhost", "mx1.mail.test", "[192.0.2.1]", "[IPv6:2001:db8::1]"] {
            assert_eq!(HeloName::from_str(good).unwrap().as_str(), good);
        }
    }

    #[test]
    fn a_password_is_not_shown() {
        let credentials = Credentials { username: "u".into(), password: "secret".into(), allow_without_tls: false };
        assert!(!format!("{credentials:?}").contains("secret"));
    }
}
