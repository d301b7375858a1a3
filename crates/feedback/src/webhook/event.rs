//! What providers tell, in one shape.

use chrono::{DateTime, Utc};
use domain::{BounceClass, EnhancedStatus, Mailbox, MessageId};
use std::{fmt, net::IpAddr, str::FromStr};

/// Who posts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Provider {
    /// SendGrid: batches of events, signed with ECDSA.
    Sendgrid,
    /// Mailgun: one event a post, with a signed token.
    Mailgun,
    /// Amazon SES, through SNS: one event a post, signed with RSA.
    Ses,
    /// Postmark: one event a post, with a credential.
    Postmark,
    /// SparkPost: batches of events, with a credential.
    Sparkpost,
    /// Resend: one event a post, signed as Standard Webhooks has it.
    Resend,
}

impl Provider {
    /// Every provider.
    pub const ALL: [Self; 6] =
        [Self::Sendgrid, Self::Mailgun, Self::Ses, Self::Postmark, Self::Sparkpost, Self::Resend];

    /// The word in configuration, paths and figures.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sendgrid => "sendgrid",
            Self::Mailgun => "mailgun",
            Self::Ses => "ses",
            Self::Postmark => "postmark",
            Self::Sparkpost => "sparkpost",
            Self::Resend => "resend",
        }
    }
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A word that names no provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be sendgrid, mailgun, ses, postmark, sparkpost or resend")]
pub struct ProviderError;

impl FromStr for Provider {
    type Err = ProviderError;

    fn from_str(word: &str) -> Result<Self, ProviderError> {
        Self::ALL.into_iter().find(|provider| provider.as_str() == word).ok_or(ProviderError)
    }
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The provider took the message.
    Accepted,
    /// The receiver took the message.
    Delivered,
    /// The receiver put it off; the provider goes on trying.
    Deferred,
    /// It came back, at once or later ([`Event::late`]). Final for this message.
    Bounced(Bounce),
    /// The provider, or a policy, refused it before any attempt.
    Dropped,
    /// The recipient called it spam.
    Complained,
    /// The mail was opened, by a person or a machine ([`Event::machine`]).
    Opened,
    /// A link was followed, by a person or a machine.
    Clicked,
    /// The recipient wants no more of it ([`Event::scope`]).
    Unsubscribed,
    /// The recipient wants it again.
    Resubscribed,
    /// The provider could not make the mail: a template, or its own fault.
    Failed,
    /// About the account and no message: somebody must act. [`Event::word`] tells what.
    AccountAlert,
    /// A word that is not known; kept so that somebody sees it.
    Unknown,
}

impl Kind {
    /// The word in logs and figures.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Delivered => "delivered",
            Self::Deferred => "deferred",
            Self::Bounced(Bounce::Hard) => "bounced.hard",
            Self::Bounced(Bounce::Soft) => "bounced.soft",
            Self::Bounced(Bounce::Block) => "bounced.block",
            Self::Dropped => "dropped",
            Self::Complained => "complained",
            Self::Opened => "opened",
            Self::Clicked => "clicked",
            Self::Unsubscribed => "unsubscribed",
            Self::Resubscribed => "resubscribed",
            Self::Failed => "failed",
            Self::AccountAlert => "account_alert",
            Self::Unknown => "unknown",
        }
    }
}

/// What a bounce says about the recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Bounce {
    /// There is no such mailbox, for good: evidence against the address.
    Hard,
    /// Not now, or nobody knows: a full mailbox, a host out of order. Counts against the address only when repeated.
    Soft,
    /// We, or the content, were refused: reputation, policy, authentication. Never evidence against the address.
    Block,
}

/// What a final failure of this class says about the recipient; `for_good` tells whether its status is a permanent one.
pub(crate) const fn bounce_of(class: BounceClass, for_good: bool) -> Bounce {
    match class {
        BounceClass::InvalidRecipient | BounceClass::InactiveMailbox | BounceClass::BadDomain => {
            if for_good {
                Bounce::Hard
            } else {
                Bounce::Soft
            }
        }
        BounceClass::InvalidSender
        | BounceClass::AuthenticationFailed
        | BounceClass::SpamBlock
        | BounceClass::SpamContent
        | BounceClass::SpamRelated
        | BounceClass::ContentRelated
        | BounceClass::PolicyRelated
        | BounceClass::VirusRelated
        | BounceClass::ProhibitedAttachment
        | BounceClass::RelayDenied
        | BounceClass::RateLimited => Bounce::Block,
        BounceClass::QuotaIssues
        | BounceClass::TooManyRecipients
        | BounceClass::DnsFailure
        | BounceClass::NoAnswerFromHost
        | BounceClass::BadConnection
        | BounceClass::BadConfiguration
        | BounceClass::RoutingErrors
        | BounceClass::RelayingIssues
        | BounceClass::ProtocolErrors
        | BounceClass::TransientFailure
        | BounceClass::MessageExpired
        | BounceClass::AutoReply
        | BounceClass::Subscribe
        | BounceClass::Unsubscribe
        | BounceClass::ChallengeResponse
        | BounceClass::Greylisted
        | BounceClass::Uncategorized => Bounce::Soft,
    }
}

/// Why a provider has an address on a suppression list of its own, where it has to be lifted too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Suppression {
    /// An earlier bounce, or this one.
    Bounce,
    /// An earlier complaint.
    Complaint,
    /// The recipient has unsubscribed there.
    Unsubscribe,
    /// The provider holds the address for invalid.
    Invalid,
    /// Somebody put it there.
    Manual,
    /// The provider does not say.
    Unsaid,
}

/// What a provider itself says about who opened or clicked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MachineFlag {
    /// It looked, and found no machine.
    Person,
    /// Apple's mail privacy protection.
    Apple,
    /// Google's.
    Gmail,
    /// A machine of another kind.
    Generic,
    /// Fetched before anybody looked.
    Prefetched,
    /// Fetched through a proxy of images: behind it may be a person.
    Proxied,
}

impl MachineFlag {
    /// Whether the provider holds it for the act of a machine.
    pub const fn is_machine(self) -> bool {
        match self {
            Self::Apple | Self::Gmail | Self::Generic | Self::Prefetched => true,
            Self::Person | Self::Proxied => false,
        }
    }
}

/// What an unsubscribe or a resubscribe is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ListScope {
    /// All mail of this account.
    Everything,
    /// An unsubscribe group (SendGrid), by its number.
    Group(String),
    /// A list, by its address or name.
    List(String),
    /// Topics of a contact list (SES).
    Topics {
        /// The contact list.
        list: String,
        /// The topics that changed.
        topics: Vec<String>,
    },
    /// A message stream (Postmark).
    Stream(String),
}

/// One thing that happened to one mail, or to the account. Texts are on one line, free of controls, and bounded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What.
    pub kind: Kind,
    /// The provider's own words for it, such as `bounce/blocked`.
    pub word: String,
    /// Our message, where the provider gave its id back.
    pub message: Option<MessageId>,
    /// The provider's name for the message, as its API or SMTP answer told it.
    pub provider_message: Option<String>,
    /// The recipient; `None` where the provider does not tell which of several it was, or names none that can be one.
    pub recipient: Option<Mailbox>,
    /// When, by the provider's clock. Events are ordered by this, never by arrival.
    pub at: DateTime<Utc>,
    /// The same for every copy of this event and for no other: `provider/key`, at most 140 characters, without an
    /// address in it.
    pub dedupe: String,
    /// Why it failed: of the provider where it is specific, else by the rules for replies.
    pub class: Option<BounceClass>,
    /// The enhanced status of the receiver's reply.
    pub status: Option<EnhancedStatus>,
    /// What the receiver replied, or the provider said; at most [`super::MAX_REPLY`] characters.
    pub reply: Option<String>,
    /// Whether it came as a mail after the receiver had taken the message: it may follow a `Delivered`.
    pub late: bool,
    /// Why the provider sends nothing more to this address.
    pub suppressed: Option<Suppression>,
    /// The link that was followed; at most [`super::MAX_URL`] characters, cut ones end in `…`.
    pub url: Option<String>,
    /// The user agent that opened, clicked or unsubscribed; at most [`super::MAX_USER_AGENT`] characters.
    pub user_agent: Option<String>,
    /// The address that opened, clicked or unsubscribed.
    pub ip: Option<IpAddr>,
    /// What the provider says about who it was, where it says anything.
    pub machine: Option<MachineFlag>,
    /// What an unsubscribe is about.
    pub scope: Option<ListScope>,
}

impl Event {
    /// Whether it proves that nobody is to be reached at this address: a hard bounce whose reason is the address. Some
    /// providers call it hard as well when a receiver refuses us or the content; that never counts against the
    /// recipient.
    pub fn is_against_the_address(&self) -> bool {
        let policy = self.status.is_some_and(|status| status.subject() == 7);
        let ours = self.class.is_some_and(|class| bounce_of(class, true) == Bounce::Block);
        self.kind == Kind::Bounced(Bounce::Hard) && !policy && !ours
    }

    /// An event of which only these are known.
    pub(super) fn new(kind: Kind, word: String, at: DateTime<Utc>, dedupe: String) -> Self {
        Self {
            kind,
            word,
            message: None,
            provider_message: None,
            recipient: None,
            at,
            dedupe,
            class: None,
            status: None,
            reply: None,
            late: false,
            suppressed: None,
            url: None,
            user_agent: None,
            ip: None,
            machine: None,
            scope: None,
        }
    }
}

/// What a post holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// What happened, in the order of the post.
    pub events: Vec<Event>,
    /// How many items say nothing about a delivery: automatic replies, pings, inbound mail, notices.
    pub ignored: usize,
    /// What could not be read. The rest of the post was.
    pub unreadable: Vec<Unreadable>,
}

/// An item of a post that could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// Its place in the post, from 0.
    pub index: usize,
    /// Why.
    pub reason: EventError,
}

/// Why an item of a post could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EventError {
    /// It holds what no program can keep, such as a lone surrogate or a number without end.
    #[error("is not JSON that can be kept")]
    NotJson,
    /// It is something else than an object.
    #[error("is not an object")]
    NotAnObject,
    /// A field is missing without which nothing is known.
    #[error("has no field {0:?}, or an empty one")]
    Missing(&'static str),
    /// A field holds what it cannot.
    #[error("has a field {0:?} of another form than documented")]
    Wrong(&'static str),
}

/// Why a whole post could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// It is larger than [`super::Limits::body`].
    #[error("the body has more than {limit} octets")]
    TooLarge {
        /// What is taken.
        limit: usize,
    },
    /// It has more items than [`super::Limits::events`].
    #[error("the body has more than {limit} events")]
    TooMany {
        /// What is taken.
        limit: usize,
    },
    /// It is not JSON of the provider's shape.
    #[error("the body is not {expected}, at line {line}, column {column}")]
    Shape {
        /// What it should be.
        expected: &'static str,
        /// Where it is not, from 1; 0 at its end.
        line: usize,
        /// Where it is not, from 1.
        column: usize,
    },
}
