//! What an accepted call says about the mail.

use crate::Attachment;
use domain::{ContentId, DomainName, EnvelopeSender, Lane, Mailbox, TrackingChoice};
use serde::{Deserialize, Serialize};

/// A mailbox and the name shown beside it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NameAddr {
    /// The display name, as text; it is quoted and encoded as needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The address.
    pub mailbox: Mailbox,
}

/// Everything the recipients of one call share: stored once, as JSON, among the contents.
///
/// Subject, HTML, text, header values and unsubscribe addresses are templates: `{{ name }}` is replaced by
/// the recipient's variable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MailSource {
    /// The `From` field. Its domain and the signing domain are the same or one lies within the other.
    pub from: NameAddr,
    /// The `Reply-To` field; left out when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reply_to: Vec<NameAddr>,
    /// The `To` field that every recipient sees; absent, each sees his own address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_header: Option<Vec<NameAddr>>,
    /// The `Cc` field that every recipient sees. It delivers to nobody: recipients are messages of their own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cc_header: Vec<NameAddr>,
    /// Further header fields, in this order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Body,
    /// How to unsubscribe: `List-Unsubscribe`, and `List-Unsubscribe-Post` for one click (RFC 8058). Bulk mail that
    /// gives no address here bears the fleet's own, if the fleet has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unsubscribe: Option<Unsubscribe>,
    /// `List-Id` (RFC 2919): `Weekly news <news.example.com>` or the identifier alone. Bulk mail without
    /// one says `<bulk.SIGNING-DOMAIN>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub list_id: Option<String>,
    /// `Feedback-ID`. Bulk mail without one names campaign, tenant and lane.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub feedback_id: Option<FeedbackId>,
    /// The lane.
    pub lane: Lane,
    /// Where bounces go.
    pub return_path: ReturnPath,
    /// The domain that signs, and that Message-IDs are made under.
    pub signing_domain: DomainName,
    /// Files that go along.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attachments: Vec<Attachment>,
    /// Whether it is only tried: it is made, and not sent.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub sandbox: bool,
    /// Whether opens and clicks are told; what it leaves open is the template's or the fleet's to say.
    #[serde(default, skip_serializing_if = "TrackingChoice::is_open")]
    pub tracking: TrackingChoice,
}

/// The body of a mail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Body {
    /// A published template version.
    Template {
        /// The content that holds the [`crate::CompiledTemplate`].
        content: ContentId,
    },
    /// Subject and parts given with the call.
    Inline {
        /// The subject.
        subject: String,
        /// The HTML part.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        html: Option<String>,
        /// The text part; made from the HTML when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        text: Option<String>,
    },
    /// A whole mail, header and body, that is sent as it is but for what delivery needs.
    Raw {
        /// The content that holds its octets.
        content: ContentId,
    },
}

impl Body {
    /// The other content this one needs.
    pub fn content(&self) -> Option<ContentId> {
        match self {
            Self::Template { content } | Self::Raw { content } => Some(*content),
            Self::Inline { .. } => None,
        }
    }
}

/// Ways to unsubscribe.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unsubscribe {
    /// A mailbox, with or without `mailto:`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mailto: Option<String>,
    /// An https address; `{{ token | urlencode }}` makes it the recipient's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Whether a POST to `url` unsubscribes at once, without a page to confirm (RFC 8058).
    #[serde(default)]
    pub one_click: bool,
    /// Whether the fleet's own address is to be told, in one click, instead of a `url`. Bulk mail without `url` has it
    /// anyway.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub hosted: bool,
}

/// The parts of `Feedback-ID`: up to three of the sender's choosing, and the sender's own name last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeedbackId {
    /// Up to three identifiers, of letters, digits, `.`, `_` and `-`.
    pub parts: Vec<String>,
    /// The name that stays the same in all mail of this sender, 5 to 15 characters.
    pub sender: String,
}

/// The `MAIL FROM` address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReturnPath {
    /// An address of its own for each message under this domain, so that a bounce names its message.
    PerMessage(DomainName),
    /// The same for all; the null sender for mail that must not bounce.
    Fixed(EnvelopeSender),
}
