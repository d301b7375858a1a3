//! Looking at requests: pure, before anything is stored. Every fault is found in one pass and told with the path of
//! its field, what is wrong with the value, and what would be taken instead. Values are never repeated: they may be
//! personal, and they may be hostile.

mod labels;
mod mail;
mod names;
mod recipients;
mod text;
mod variables;
mod when;

pub use labels::{MAX_ENTRIES, MAX_TAGS, MAX_VALUE, MAX_WORD, tag};
pub use mail::{
    ContentDraft, MAX_DISPLAY_NAME, MAX_HEADER_ADDRESSES, MAX_HEADERS, MailDraft, TemplateName, api_field, mail,
    refuse_tracking, tracking,
};
pub use names::{MAX_KEY, MAX_NAME, campaign, email, id, idempotency_key, language, name, optional_id};
pub use recipients::{Accepted, MAX_BATCH, MAX_MESSAGE, Recipients, Shared, recipients};
pub use text::{MAX_REASON, free_text, reason, reason_or};
pub use variables::{MAX_BYTES as MAX_VARIABLES, MAX_DEPTH, json_object};
pub use when::{BULK_TTL, MAX_AHEAD, MAX_TTL, TRANSACTIONAL_TTL, Times, times, timestamp};

use content::Finding;
use proto::v1::{ErrorReason, Refusal};

/// One fault of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The path of the field, such as `recipients[3].email`.
    pub field: String,
    /// Why, for programs.
    pub reason: ErrorReason,
    /// The problem and the fix, for people.
    pub description: String,
}

impl Violation {
    /// A field that is missing, malformed or over its limit.
    pub fn new(field: impl Into<String>, description: impl Into<String>) -> Self {
        Self::of(ErrorReason::FieldInvalid, field, description)
    }

    /// A fault with a reason of its own.
    pub fn of(reason: ErrorReason, field: impl Into<String>, description: impl Into<String>) -> Self {
        Self { field: field.into(), reason, description: description.into() }
    }

    /// What the content crate found, in a field of the API.
    pub fn from_finding(field: String, finding: &Finding) -> Self {
        let line = finding.line.map_or_else(String::new, |line| format!("line {line}: "));
        Self::of(ErrorReason::ContentInvalid, field, format!("{line}{}; {}", finding.problem, finding.fix))
    }

    /// The fault as an answer tells it.
    pub fn to_refusal(&self) -> Refusal {
        Refusal { reason: self.reason.into(), field: self.field.clone(), description: self.description.clone() }
    }
}

/// Most faults of one request that are kept; fewer are told.
const MAX_FAULTS: usize = 1_000;

/// Collects the faults of one request.
#[derive(Debug, Default)]
pub struct Faults(Vec<Violation>);

impl Faults {
    /// Notes a fault.
    pub fn add(&mut self, field: impl Into<String>, description: impl Into<String>) {
        self.push(Violation::new(field, description));
    }

    /// Notes a fault with a reason of its own.
    pub fn push(&mut self, violation: Violation) {
        if self.0.len() < MAX_FAULTS {
            self.0.push(violation);
        }
    }

    /// The value, or the note that it is at fault.
    pub fn take<T>(&mut self, checked: Result<T, Violation>) -> Option<T> {
        checked.map_err(|violation| self.push(violation)).ok()
    }

    /// Whether nothing was found.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What was found.
    #[cfg(test)]
    pub fn into_vec(self) -> Vec<Violation> {
        self.0
    }

    /// `value`, if nothing was found.
    ///
    /// # Errors
    /// The faults.
    pub fn finish<T>(self, value: Option<T>) -> Result<T, crate::Fault> {
        match value {
            Some(value) if self.0.is_empty() => Ok(value),
            _ => Err(crate::Fault::Invalid(self.0)),
        }
    }
}
