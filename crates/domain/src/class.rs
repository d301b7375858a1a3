//! The classes of failures.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

macro_rules! classes {
    ($($(#[$doc:meta])* $name:ident = $word:literal),+ $(,)?) => {
        /// What a failure says. The names are those of the field (KumoMTA, PowerMTA), and two of ours that
        /// set apart what is no fault of anybody: greylisting and rate limits.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum BounceClass {
            $($(#[$doc])* $name,)+
        }

        impl BounceClass {
            /// Every class.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// The word in facts, figures and the command.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $word,)+ }
            }
        }
    };
}

classes! {
    /// There is no such mailbox.
    InvalidRecipient = "invalid_recipient",
    /// The mailbox exists but is disabled, abandoned, or over quota for good.
    InactiveMailbox = "inactive_mailbox",
    /// The recipient's domain does not exist or takes no mail.
    BadDomain = "bad_domain",
    /// The mailbox is full, or the message too large for it.
    QuotaIssues = "quota_issues",
    /// Too many recipients in one transaction.
    TooManyRecipients = "too_many_recipients",
    /// The envelope sender is refused.
    InvalidSender = "invalid_sender",
    /// SPF, DKIM, DMARC, reverse DNS or required TLS.
    AuthenticationFailed = "authentication_failed",
    /// A blocklist or the reputation of our address or domain.
    SpamBlock = "spam_block",
    /// The content looks like spam.
    SpamContent = "spam_content",
    /// Spam, without saying whether content or reputation.
    SpamRelated = "spam_related",
    /// Something about the content other than spam: form, encoding, headers.
    ContentRelated = "content_related",
    /// A rule of the receiver.
    PolicyRelated = "policy_related",
    /// A virus.
    VirusRelated = "virus_related",
    /// An attachment of a kind that is not taken.
    ProhibitedAttachment = "prohibited_attachment",
    /// A name could not be resolved.
    DnsFailure = "dns_failure",
    /// The host does not answer.
    NoAnswerFromHost = "no_answer_from_host",
    /// The connection broke.
    BadConnection = "bad_connection",
    /// Somebody's configuration is wrong: credentials, TLS, extensions.
    BadConfiguration = "bad_configuration",
    /// A loop, or no way to the host.
    RoutingErrors = "routing_errors",
    /// The host does not relay for this recipient or from us.
    RelayDenied = "relay_denied",
    /// A relay could not pass it on.
    RelayingIssues = "relaying_issues",
    /// One side does not follow the protocol.
    ProtocolErrors = "protocol_errors",
    /// The receiver is busy or out of order for now.
    TransientFailure = "transient_failure",
    /// The time to live ended.
    MessageExpired = "message_expired",
    /// An automatic answer.
    AutoReply = "auto_reply",
    /// A request to subscribe.
    Subscribe = "subscribe",
    /// A request to unsubscribe.
    Unsubscribe = "unsubscribe",
    /// A request to prove that a person sends.
    ChallengeResponse = "challenge_response",
    /// Too fast for this receiver.
    RateLimited = "rate_limited",
    /// Asked to come back, to see whether we do.
    Greylisted = "greylisted",
    /// No rule matched.
    Uncategorized = "uncategorized",
}

impl BounceClass {
    /// Whether a reply of this class asks to go slower at this site: it lowers an adaptive limit.
    pub const fn asks_to_slow_down(self) -> bool {
        matches!(self, Self::RateLimited | Self::SpamBlock)
    }
}

/// A word that names no class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be a class such as invalid_recipient")]
pub struct BounceClassError;

impl FromStr for BounceClass {
    type Err = BounceClassError;

    fn from_str(word: &str) -> Result<Self, BounceClassError> {
        Self::ALL.iter().copied().find(|class| class.as_str() == word).ok_or(BounceClassError)
    }
}

impl fmt::Display for BounceClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
