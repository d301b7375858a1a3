//! How a connection or an attempt ends early.

use super::config::TlsPolicy;
use crate::reply::{Reply, Violation};
use std::{fmt, io};

/// Where in a session something happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// TCP connect.
    Connect,
    /// The greeting.
    Banner,
    /// `EHLO` or `HELO`.
    Ehlo,
    /// `STARTTLS` and the handshake.
    StartTls,
    /// `AUTH`.
    Auth,
    /// `RSET` before a transaction, or a connection that was found dead before it began.
    Reset,
    /// `MAIL FROM`.
    Mail,
    /// `RCPT TO`.
    Rcpt,
    /// `DATA` to its 354.
    Data,
    /// The body, before the final dot.
    Body,
    /// The final dot and its reply.
    Dot,
    /// `QUIT`.
    Quit,
}

impl Stage {
    /// A short constant name, for metrics and facts.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Banner => "banner",
            Self::Ehlo => "ehlo",
            Self::StartTls => "starttls",
            Self::Auth => "auth",
            Self::Reset => "reset",
            Self::Mail => "mail",
            Self::Rcpt => "rcpt",
            Self::Data => "data",
            Self::Body => "body",
            Self::Dot => "dot",
            Self::Quit => "quit",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where the rules for replies see it.
impl From<Stage> for domain::Stage {
    fn from(stage: Stage) -> Self {
        match stage {
            Stage::Connect | Stage::Banner => Self::Greeting,
            Stage::Ehlo => Self::Hello,
            Stage::StartTls => Self::StartTls,
            Stage::Auth => Self::Auth,
            Stage::Reset | Stage::Mail | Stage::Quit => Self::MailFrom,
            Stage::Rcpt => Self::RcptTo,
            Stage::Data | Stage::Body => Self::Data,
            Stage::Dot => Self::Dot,
        }
    }
}

/// Our own reason not to send the final dot, such as a lease that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abort(pub &'static str);

/// The connection is over.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The peer let the deadline of this stage pass.
    #[error("no progress in time at {stage}")]
    Timeout {
        /// Where.
        stage: Stage,
    },
    /// The network failed.
    #[error("connection lost at {stage}")]
    Io {
        /// Where.
        stage: Stage,
        /// How.
        source: io::Error,
    },
    /// The peer closed.
    #[error("connection closed by the peer at {stage}")]
    Closed {
        /// Where.
        stage: Stage,
    },
    /// The peer broke the protocol.
    #[error("protocol violation at {stage}")]
    Protocol {
        /// Where.
        stage: Stage,
        /// How.
        source: Violation,
    },
    /// The peer said good-bye with a 421 before it took anything of this message.
    #[error("peer went away: {0}")]
    GoneAway(Reply),
    /// The caller's `before_dot` said no.
    #[error("stopped before the dot: {}", .0.0)]
    Aborted(Abort),
    /// An earlier attempt had already ended this connection.
    #[error("connection is not reusable")]
    NotReusable,
}

impl WireError {
    /// Whether the receiver had no part in it: the caller stopped, or the connection was used up.
    pub fn is_ours(&self) -> bool {
        match self {
            Self::Aborted(_) | Self::NotReusable => true,
            Self::Timeout { .. }
            | Self::Io { .. }
            | Self::Closed { .. }
            | Self::Protocol { .. }
            | Self::GoneAway(_) => false,
        }
    }

    /// A short constant word for metrics and facts.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Timeout { .. } => "timeout",
            Self::Io { .. } => "io",
            Self::Closed { .. } => "closed",
            Self::Protocol { .. } => "protocol",
            Self::GoneAway(_) => "gone_away",
            Self::Aborted(_) => "aborted",
            Self::NotReusable => "not_reusable",
        }
    }
}

/// No usable connection came about.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The network, a deadline or the protocol failed, at the stage that the source names.
    #[error("cannot open a session")]
    Wire(#[from] WireError),
    /// The peer refused the session: a 421 or 554 greeting, `EHLO` and `HELO` refused, a wrong password.
    #[error("session refused at {stage}: {reply}")]
    Refused {
        /// Where.
        stage: Stage,
        /// With what words.
        reply: Reply,
    },
    /// TLS is required and the peer offers none, or refuses to begin.
    #[error("the peer offers no TLS, which is required")]
    TlsUnavailable {
        /// Its refusal, if it offered and then refused.
        reply: Option<Reply>,
    },
    /// The handshake failed: certificate, name or protocol.
    #[error("TLS handshake failed")]
    Tls(#[source] io::Error),
    /// The name to be verified is no host name.
    #[error("the name to verify is no host name")]
    TlsName,
    /// Credentials are configured and the connection is in clear.
    #[error("credentials are not sent without TLS")]
    AuthWithoutTls,
    /// The peer offers neither PLAIN nor LOGIN.
    #[error("the peer offers no way to log in that is known here")]
    AuthUnavailable,
}

/// Why a handshake failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandshakeFault {
    /// The certificate is another host's.
    Name,
    /// The certificate is over.
    Expired,
    /// The certificate is not valid yet.
    NotYetValid,
    /// Nobody who is trusted has signed the certificate.
    Issuer,
    /// Something else about the certificate.
    Certificate,
    /// What came is not TLS, or the peer hung up.
    NotTls,
    /// No version or cipher is known to both, or the peer refused.
    Protocol,
}

impl ConnectError {
    /// Why the handshake failed, if that is what failed.
    pub fn handshake_fault(&self) -> Option<HandshakeFault> {
        use rustls::{CertificateError as Bad, Error};
        let Self::Tls(source) = self else { return None };
        let Some(error) = source.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) else {
            return Some(HandshakeFault::NotTls);
        };
        Some(match error {
            Error::InvalidCertificate(Bad::NotValidForName | Bad::NotValidForNameContext { .. }) => {
                HandshakeFault::Name
            }
            Error::InvalidCertificate(Bad::Expired | Bad::ExpiredContext { .. }) => HandshakeFault::Expired,
            Error::InvalidCertificate(Bad::NotValidYet | Bad::NotValidYetContext { .. }) => HandshakeFault::NotYetValid,
            Error::InvalidCertificate(Bad::UnknownIssuer) => HandshakeFault::Issuer,
            // A certificate that signed itself, and is no host's in the first place.
            Error::InvalidCertificate(Bad::Other(_)) => HandshakeFault::Issuer,
            Error::InvalidCertificate(_) => HandshakeFault::Certificate,
            Error::InvalidMessage(_) => HandshakeFault::NotTls,
            _ => HandshakeFault::Protocol,
        })
    }

    /// What the peer said, if it said anything.
    pub fn reply(&self) -> Option<&Reply> {
        match self {
            Self::Refused { reply, .. } | Self::Wire(WireError::GoneAway(reply)) => Some(reply),
            Self::TlsUnavailable { reply } => reply.as_ref(),
            Self::Wire(_) | Self::Tls(_) | Self::TlsName | Self::AuthWithoutTls | Self::AuthUnavailable => None,
        }
    }

    /// Whether another connection with [`TlsPolicy::None`] may be tried, given what was tried now:
    /// only when encryption was a wish and the handshake is what failed.
    pub fn may_retry_in_clear(&self, tried: &TlsPolicy) -> bool {
        let handshake = match self {
            Self::Tls(_) => true,
            Self::Wire(WireError::Timeout { stage } | WireError::Io { stage, .. } | WireError::Closed { stage }) => {
                *stage == Stage::StartTls
            }
            _ => false,
        };
        handshake && *tried == TlsPolicy::Opportunistic
    }
}
