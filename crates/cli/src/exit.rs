//! Exit codes, and which failure ends in which.

use store::StoreError;
use tonic::Code;

/// How a command ends; the numbers follow `sysexits` where it has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Ok = 0,
    /// Done, and the answer is no: a difference, a loss, a refusal, nothing found.
    Finding = 1,
    /// The command line cannot be understood.
    Usage = 2,
    /// The configuration is wrong or missing.
    Config = 64,
    /// Something that is needed does not answer.
    Unavailable = 69,
    /// A fault of mailfleet itself.
    Internal = 70,
}

/// The table for `--help`.
pub const HELP: &str = "Exit codes:
  0   done
  1   done, and the answer is no: a difference, a loss, a refusal, nothing found
  2   the command line cannot be understood
  64  the configuration is wrong or missing, or there is no local fleet
  69  something that is needed does not answer
  70  a fault of mailfleet itself";

/// A failure that knows its exit code.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub struct Failure {
    text: String,
    exit: Exit,
}

impl Failure {
    /// The command was given what it cannot use.
    pub fn usage(text: impl Into<String>) -> anyhow::Error {
        Self { text: text.into(), exit: Exit::Usage }.into()
    }

    /// The configuration is wrong or missing.
    pub fn config(text: impl Into<String>) -> anyhow::Error {
        Self { text: text.into(), exit: Exit::Config }.into()
    }

    /// Something does not answer.
    pub fn unavailable(text: impl Into<String>) -> anyhow::Error {
        Self { text: text.into(), exit: Exit::Unavailable }.into()
    }

    /// The answer is no.
    pub fn finding(text: impl Into<String>) -> anyhow::Error {
        Self { text: text.into(), exit: Exit::Finding }.into()
    }
}

/// The exit code of an error, by the first cause that tells.
pub fn of(error: &anyhow::Error) -> Exit {
    error.chain().find_map(of_cause).unwrap_or(Exit::Internal)
}

fn of_cause(cause: &(dyn std::error::Error + 'static)) -> Option<Exit> {
    if let Some(failure) = cause.downcast_ref::<Failure>() {
        return Some(failure.exit);
    }
    if let Some(error) = cause.downcast_ref::<StoreError>() {
        return Some(match error {
            StoreError::NotMigrated => Exit::Config,
            StoreError::Exists { .. } => Exit::Finding,
            error if error.is_retryable() => Exit::Unavailable,
            _ => Exit::Internal,
        });
    }
    if let Some(status) = cause.downcast_ref::<tonic::Status>() {
        return Some(of_code(status.code()));
    }
    if let Some(error) = cause.downcast_ref::<client::Error>() {
        return Some(match error {
            client::Error::Refused(refused) => of_code(refused.code()),
            client::Error::GaveUp { .. } => Exit::Unavailable,
            client::Error::Recipient(_) => Exit::Finding,
            client::Error::Closed => Exit::Internal,
        });
    }
    if let Some(error) = cause.downcast_ref::<client::BuildError>() {
        return Some(match error {
            client::BuildError::Endpoint(_) | client::BuildError::Word(_) => Exit::Config,
            client::BuildError::Connect { .. } => Exit::Unavailable,
        });
    }
    if cause.is::<tonic::transport::Error>() || cause.is::<bus::ConnectError>() {
        return Some(Exit::Unavailable);
    }
    None
}

fn of_code(code: Code) -> Exit {
    match code {
        Code::Ok => Exit::Ok,
        Code::Unavailable | Code::DeadlineExceeded | Code::ResourceExhausted | Code::Cancelled => Exit::Unavailable,
        Code::Unauthenticated | Code::PermissionDenied => Exit::Config,
        Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::OutOfRange => Exit::Finding,
        Code::Unknown | Code::Unimplemented | Code::Internal | Code::DataLoss => Exit::Internal,
    }
}

/// The chain of causes in one text, without repeating what an outer one says already. What a call was refused
/// for is told field by field.
pub fn tell(error: &anyhow::Error) -> String {
    use tonic_types::StatusExt;
    let mut text = String::new();
    for cause in error.chain() {
        let part = match cause.downcast_ref::<tonic::Status>() {
            Some(status) => status.message().to_owned(),
            None => cause.to_string(),
        };
        if part.is_empty() || text.ends_with(&part) {
            continue;
        }
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&part);
        if let Some(status) = cause.downcast_ref::<tonic::Status>() {
            let violations = status.get_details_bad_request().map(|bad| bad.field_violations).unwrap_or_default();
            // The one fault of a call stands in its message already.
            let told: String = violations
                .iter()
                .filter(|violation| !text.contains(&violation.description))
                .map(|violation| format!("\n  {}: {}", violation.field, violation.description))
                .collect();
            text.push_str(&told);
            break;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn an_error_ends_in_the_code_of_the_first_cause_that_tells() {
        let refused: anyhow::Result<()> = Err(tonic::Status::not_found("no such message").into());
        assert_eq!(of(&refused.context("cannot look").expect_err("was refused")), Exit::Finding);
        assert_eq!(of(&Failure::config("no file")), Exit::Config);
        assert_eq!(of(&anyhow::Error::from(StoreError::Timeout)), Exit::Unavailable);
        assert_eq!(of(&anyhow::anyhow!("whatever")), Exit::Internal);
    }

    #[test]
    fn a_refused_field_is_named() {
        use tonic_types::{ErrorDetails, StatusExt};
        let mut details = ErrorDetails::new();
        details.add_bad_request_violation("mail.subject", "is empty; give a subject");
        let status = tonic::Status::with_error_details(Code::InvalidArgument, "the mail cannot be taken", details);
        assert_eq!(tell(&status.into()), "the mail cannot be taken\n  mail.subject: is empty; give a subject");
    }
}
