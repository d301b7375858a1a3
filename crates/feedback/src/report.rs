//! Reads the mails that come back: delivery reports in every form that mail systems have found for them, complaints,
//! automatic replies, mails that unsubscribe, and the reports of DMARC and TLS.
//!
//! [`Reader::read`] looks at bytes and nothing else. What a mail says about a recipient is a [`Finding`]; whether that is
//! to be believed, and which message it is about, is for whoever knows the address that the mail came to.

mod aggregate;
mod dsn;
mod fields;
mod judge;
mod letter;
mod prose;
mod sort;

pub use aggregate::{DmarcReport, DmarcRow, TlsPolicy, TlsReport};

use crate::webhook::Bounce;
use domain::{BounceClass, EnhancedStatus, Ruleset, text::sanitise};
use serde::Serialize;
use serde_json::json;

/// Longest `Message-ID` that is told, in characters.
const MAX_ID: usize = 500;

/// How much of a mail is looked at.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Octets of a mail. Default 32 MiB.
    pub octets: usize,
    /// MIME parts. Default 200; those beyond are not looked at.
    pub parts: usize,
    /// Octets of text in which an unstructured report is looked for. Default 256 KiB.
    pub text: usize,
    /// Recipients of one report. Default 500.
    pub recipients: usize,
    /// Octets of a DMARC or TLS report once unpacked. Default 20 MiB.
    pub unpacked: usize,
    /// Rows of a DMARC report, policies of a TLS report. Default 20,000.
    pub rows: usize,
}

impl Default for Limits {
    fn default() -> Self {
        const MIB: usize = 1024 * 1024;
        Self { octets: 32 * MIB, parts: 200, text: MIB / 4, recipients: 500, unpacked: 20 * MIB, rows: 20_000 }
    }
}

/// What a mail is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Mail could not be delivered.
    Bounce,
    /// Mail has not been delivered yet; its sender is told so and need do nothing.
    Delay,
    /// Mail was delivered, or passed on to where no report comes from.
    Delivered,
    /// A recipient, or his provider for him, complains (RFC 5965).
    Complaint,
    /// A program answered for its user: away, moved, received.
    AutoReply,
    /// A program wants to see that a person sends.
    Challenge,
    /// The recipient wants no more mail.
    Unsubscribe,
    /// The mail was shown or deleted (RFC 8098).
    ReadReceipt,
    /// What became of mail that claimed to come from a domain (RFC 7489, RFC 9990).
    DmarcReport,
    /// How TLS went (RFC 8460).
    TlsReport,
    /// A mail by somebody.
    Mail,
}

impl Kind {
    /// The word in figures and commands.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bounce => "bounce",
            Self::Delay => "delay",
            Self::Delivered => "delivered",
            Self::Complaint => "complaint",
            Self::AutoReply => "auto_reply",
            Self::Challenge => "challenge",
            Self::Unsubscribe => "unsubscribe",
            Self::ReadReceipt => "read_receipt",
            Self::DmarcReport => "dmarc_report",
            Self::TlsReport => "tls_report",
            Self::Mail => "mail",
        }
    }
}

/// What a report says became of a recipient's copy (RFC 3464, 2.3.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// It could not be delivered.
    Failed,
    /// Not yet.
    Delayed,
    /// It was.
    Delivered,
    /// It was passed on to a system that reports nothing.
    Relayed,
    /// It was passed on to several recipients.
    Expanded,
}

impl Action {
    /// The word of RFC 3464.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Delayed => "delayed",
            Self::Delivered => "delivered",
            Self::Relayed => "relayed",
            Self::Expanded => "expanded",
        }
    }
}

/// What a mail says about one recipient.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Finding {
    /// The recipient as the reporting system names him; `None` when it does not.
    pub recipient: Option<String>,
    /// Whom the sender wrote to, where that is told apart.
    pub original_recipient: Option<String>,
    /// What became of his copy.
    pub action: Option<Action>,
    /// The enhanced status that fits best: of the reply that is told, else of the report.
    pub status: Option<EnhancedStatus>,
    /// Why.
    pub class: Option<BounceClass>,
    /// What that says about the recipient; of a copy that could not be delivered.
    pub bounce: Option<Bounce>,
    /// What was told about the reason, at most 500 characters.
    pub diagnostic: Option<String>,
    /// The system that refused it.
    pub remote_mta: Option<String>,
    /// The rule that decided the class.
    pub rule: Option<String>,
}

/// What is known of the mail that the report is about, from what came back of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Returned {
    /// Its `Message-ID`, without brackets.
    pub message_id: Option<String>,
    /// Its `X-Mailfleet-Token`.
    pub token: Option<String>,
    /// Its `To`.
    pub to: Vec<String>,
    /// Its `From`.
    pub from: Vec<String>,
    /// Its subject.
    pub subject: Option<String>,
}

/// What a mail says.
#[derive(Clone, Debug)]
pub struct Reading {
    /// What it is.
    pub kind: Kind,
    /// What it says, by recipient.
    pub findings: Vec<Finding>,
    /// The mail that it is about.
    pub returned: Returned,
    /// The system that reports.
    pub reporting_mta: Option<String>,
    /// Of a complaint: `abuse`, `fraud`, `not-spam`, …
    pub feedback_type: Option<String>,
    /// Its subject, at most 200 characters.
    pub subject: Option<String>,
    /// The report, if it is one of DMARC.
    pub dmarc: Option<DmarcReport>,
    /// The report, if it is one of TLS.
    pub tls: Option<TlsReport>,
}

impl Reading {
    /// What it says, for logs and people: `findings` with an object for each recipient, and what is known besides.
    pub fn outcome(&self) -> serde_json::Value {
        let findings: Vec<_> = self.findings.iter().map(Finding::as_json).collect();
        let of_dmarc = self.dmarc.as_ref().map(|report| {
            json!({"org": report.org, "report_id": report.report_id, "domain": report.domain, "rows": report.rows.len()})
        });
        let of_tls = self
            .tls
            .as_ref()
            .map(|report| json!({"org": report.org, "report_id": report.report_id, "policies": report.policies.len()}));
        let told = [
            ("subject", json!(self.subject)),
            ("reporting_mta", json!(self.reporting_mta)),
            ("feedback_type", json!(self.feedback_type)),
            ("original_message_id", json!(self.returned.message_id.as_deref().map(|id| sanitise(id, MAX_ID)))),
            ("dmarc", json!(of_dmarc)),
            ("tls", json!(of_tls)),
        ];
        let mut outcome = json!({"findings": findings});
        for (key, value) in told.into_iter().filter(|(_, value)| !value.is_null()) {
            outcome[key] = value;
        }
        outcome
    }
}

impl Finding {
    /// The finding as an object; what is not known is absent, but for what every reader looks for.
    pub fn as_json(&self) -> serde_json::Value {
        let mut finding = json!({
            "recipient": self.recipient, "class": self.class, "status": self.status.map(|status| status.to_string()),
            "action": self.action,
        });
        let bounce = self.bounce.map(|bounce| match bounce {
            Bounce::Hard => "hard",
            Bounce::Soft => "soft",
            Bounce::Block => "block",
        });
        let told = [
            ("bounce", json!(bounce)),
            ("diagnostic", json!(self.diagnostic)),
            ("remote_mta", json!(self.remote_mta)),
            ("original_recipient", json!(self.original_recipient)),
            ("rule", json!(self.rule)),
        ];
        for (key, value) in told.into_iter().filter(|(_, value)| !value.is_null()) {
            finding[key] = value;
        }
        finding
    }
}

/// Why nothing can be made of a mail.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// It is larger than [`Limits::octets`].
    #[error("has more than {0} octets")]
    TooLarge(usize),
    /// There is no header.
    #[error("has no header")]
    NoHeader,
    /// The parser breaks down over it.
    #[error("has a structure that the parser breaks down over")]
    Structure,
    /// It calls itself a report, and what it holds cannot be read.
    #[error("the report in it cannot be read: {0}")]
    Report(String),
}

/// Reads mails by rules.
#[derive(Clone, Debug)]
pub struct Reader {
    limits: Limits,
    judge: judge::Judge,
}

impl Default for Reader {
    fn default() -> Self {
        Self::new(Ruleset::builtin().clone(), Limits::default())
    }
}

impl Reader {
    /// A reader that turns replies into classes by these rules.
    pub fn new(replies: Ruleset, limits: Limits) -> Self {
        Self { limits, judge: judge::Judge::new(replies) }
    }

    /// The versions of the rules.
    pub fn version(&self) -> String {
        self.judge.version()
    }

    /// What a whole mail says, header and body.
    ///
    /// # Errors
    /// When nothing can be made of it.
    pub fn read(&self, mail: &[u8]) -> Result<Reading, ReadError> {
        if mail.len() > self.limits.octets {
            return Err(ReadError::TooLarge(self.limits.octets));
        }
        // Some structures make the parser panic, whatever its documentation promises: fuzzing found them.
        std::panic::catch_unwind(|| self.read_parsed(mail)).unwrap_or(Err(ReadError::Structure))
    }

    fn read_parsed(&self, mail: &[u8]) -> Result<Reading, ReadError> {
        let parsed = mail_parser::MessageParser::default().parse(mail).ok_or(ReadError::NoHeader)?;
        let letter = letter::Letter::open(&parsed, &self.limits);
        if let Some(reading) = aggregate::read(mail, &letter, &self.limits)? {
            return Ok(reading);
        }
        Ok(sort::read(&letter, &self.judge, &self.limits))
    }
}
