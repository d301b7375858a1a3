//! What can go wrong.

use proto::v1::{ErrorReason, Refusal};
use std::{fmt, time::Duration};
use tonic::{Code, Status};
use tonic_types::StatusExt;

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The endpoint is none.
    #[error("{0} is no address; give one such as http://127.0.0.1:7025")]
    Endpoint(String),
    /// A character that no header can have.
    #[error("{0} has a character that none can have")]
    Word(&'static str),
    /// Nobody answers there.
    #[error("cannot reach the API at {endpoint}")]
    Connect {
        /// Where.
        endpoint: String,
        /// How it shows.
        source: tonic::transport::Error,
    },
}

/// Why a mail was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A repeat cannot help. Nothing was stored.
    #[error("{0}")]
    Refused(Box<Refused>),
    /// Repeats did not help in time. Whether something was stored is known when a repeat with the same key succeeds.
    #[error("gave up after {tries} tries in {}: {}", Seconds(*.spent), .last.message())]
    GaveUp {
        /// How often it was tried.
        tries: u32,
        /// How long.
        spent: Duration,
        /// The key of the call, to repeat it later.
        idempotency_key: String,
        /// The last answer.
        last: Box<Status>,
    },
    /// The recipient is at fault; others of the same call are not.
    #[error("{}: {}", .0.field, .0.description)]
    Recipient(Box<Refusal>),
    /// The batcher has been closed.
    #[error("the batcher has been closed")]
    Closed,
}

/// A refusal, field by field.
#[derive(Debug)]
pub struct Refused {
    /// The answer as it came.
    pub status: Status,
    /// Why, for programs; unspecified when a server says something that this client does not know.
    pub reason: ErrorReason,
    /// The fields at fault.
    pub fields: Vec<FieldFault>,
}

/// A field at fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldFault {
    /// Its path, such as `mail.from.email`.
    pub field: String,
    /// What is wrong with it, and the fix.
    pub description: String,
}

impl Refused {
    pub(crate) fn new(status: Status) -> Self {
        let name = status.get_details_error_info().map(|info| format!("ERROR_REASON_{}", info.reason));
        let reason = name.as_deref().and_then(ErrorReason::from_str_name).unwrap_or_default();
        let violations = status.get_details_bad_request().map(|bad| bad.field_violations).unwrap_or_default();
        let fields = violations.into_iter().map(|one| FieldFault { field: one.field, description: one.description });
        Self { reason, fields: fields.collect(), status }
    }

    /// The code of the answer.
    pub fn code(&self) -> Code {
        self.status.code()
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.status.message())?;
        // The one fault of a call stands in its message already.
        for FieldFault { field, description } in &self.fields {
            if !self.status.message().contains(description) {
                write!(f, "\n  {field}: {description}")?;
            }
        }
        Ok(())
    }
}

struct Seconds(Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} s", self.0.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic_types::ErrorDetails;

    #[test]
    fn a_refusal_names_the_reason_and_the_fields() {
        let mut details = ErrorDetails::new();
        details.set_error_info("FIELD_INVALID", "mailfleet", std::collections::HashMap::new());
        details.add_bad_request_violation("mail.subject", "is empty; give a subject");
        let refused = Refused::new(Status::with_error_details(Code::InvalidArgument, "cannot be taken", details));
        assert_eq!(refused.reason, ErrorReason::FieldInvalid);
        assert_eq!(refused.to_string(), "cannot be taken\n  mail.subject: is empty; give a subject");
        assert_eq!(Refused::new(Status::not_found("no")).reason, ErrorReason::Unspecified);
    }
}
