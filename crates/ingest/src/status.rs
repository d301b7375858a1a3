//! Why a call is refused, and the one place that makes a gRPC status of it.
//!
//! A caller sees what is said here; the sources of our own failures go to the log alone.

use crate::validate::Violation;
use proto::v1::{ErrorReason, Refusal};
use service::Chain;
use std::{collections::HashMap, time::Duration};
use store::StoreError;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt};

/// The `domain` of every `google.rpc.ErrorInfo`.
pub const ERROR_DOMAIN: &str = "mailfleet";
/// Most field violations that one status tells. Details travel in header fields, and clients bound those.
pub const MAX_VIOLATIONS: usize = 20;
/// When to come back after the database could not be reached.
const STORE_RETRY: Duration = Duration::from_secs(1);

/// Why a call is refused.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// Fields of the request are at fault; never empty.
    #[error("{}", summary(.0))]
    Invalid(Vec<Violation>),
    /// Every recipient of a batch is at fault.
    #[error("no recipient can be accepted: {}", summary(.0))]
    NoRecipientLeft(Vec<Violation>),
    /// No key, or one that is unknown, wrong, revoked or expired: which of these is not told.
    #[error("the API key is missing or not valid; send the metadata `authorization: Bearer <key>`")]
    Unauthenticated,
    /// The key is good, but not for this.
    #[error("the API key lacks the scope {scope}")]
    ScopeMissing {
        /// The scope that the call needs.
        scope: &'static str,
    },
    /// A key that administers the fleet named no tenant.
    #[error("this key administers the fleet; name the tenant to act for in the metadata `mailfleet-tenant`")]
    TenantUnnamed,
    /// The author's domain is no sending domain of the tenant.
    #[error("{domain} is not a sending domain of this tenant; create it with DomainService.CreateDomain")]
    SendingDomainUnknown {
        /// The domain.
        domain: String,
    },
    /// DNS is not known to have the records of the author's sending domain.
    #[error(
        "{domain} is not verified: publish the records that DomainService.GetDomain shows, then call \
         DomainService.VerifyDomain, which tells what is missing"
    )]
    SendingDomainUnverified {
        /// The sending domain.
        domain: String,
    },
    /// The tenant has no such template or version.
    #[error("there is no such published template version; create and publish it with TemplateService")]
    TemplateUnknown {
        /// The field that names it.
        field: &'static str,
    },
    /// The template version is for other templates alone.
    #[error("this template version is a layout or a piece for other templates; send one that takes it in")]
    TemplatePartial,
    /// What the call names is not there, or belongs to another tenant.
    #[error("there is no such {what}")]
    NotFound {
        /// What is not there.
        what: &'static str,
    },
    /// Something of this name exists.
    #[error("{what} exists already; choose another name")]
    NameTaken {
        /// What exists.
        what: &'static str,
    },
    /// The idempotency key was used for a call with another body.
    #[error("the idempotency key was used for a call with another body; use a new key for a new call")]
    KeyReused,
    /// More is being accepted than can be committed.
    #[error("too much is being accepted at the moment; nothing was stored, try again later")]
    Overloaded {
        /// When to try again.
        retry_after: Duration,
    },
    /// The tenant has used up a quota.
    #[error("{}", over_quota(.quota, .limit, .retry_after.is_some()))]
    QuotaExceeded {
        /// The field of `TenantQuotas`.
        quota: &'static str,
        /// What it is.
        limit: u64,
        /// When to try again; `None`: the call alone is above it.
        retry_after: Option<Duration>,
    },
    /// The answer would have more rows than are given.
    #[error(
        "the answer has more than {most} rows; choose a shorter time, larger buckets, fewer dimensions or a filter"
    )]
    ResultTooLarge {
        /// How many are given.
        most: u32,
    },
    /// The DKIM keys named are not those of the domain that wait for their activation.
    #[error(
        "these are not the pending keys of {domain}; look with DomainService.GetDomain, or make some with \
         RotateDomainKeys, and publish them first"
    )]
    NoPendingKeys {
        /// The domain.
        domain: String,
    },
    /// The domain has no DKIM keys.
    #[error("{domain} has no keys, since it was created to be unsigned")]
    DomainUnsigned {
        /// The domain.
        domain: String,
    },
    /// As many earlier secrets of the API key are good as may be.
    #[error(
        "the key has {most} earlier secrets in their time of grace; wait until one has ended, or give a grace of 0, \
         which ends them all"
    )]
    SecretsExhausted {
        /// How many may be.
        most: usize,
    },
    /// The message cannot be requeued.
    #[error("is no dead letter that can be requeued; it did not end as failed, was called back, or was delivered")]
    NotADeadLetter,
    /// The call's deadline, or the server's, ended first.
    #[error("the deadline ended before the call; repeat it with its idempotency key")]
    DeadlineExceeded,
    /// The database failed.
    #[error("the database cannot be reached; repeat the call with its idempotency key")]
    Unavailable(#[source] std::sync::Arc<StoreError>),
    /// The log does not reach a place, or no longer keeps what came after it.
    #[error("the log holds {first} to {last}; give a place from {} to {last}, or none to begin now", .first - 1)]
    SeqOutOfRange {
        /// The first number that is kept.
        first: i64,
        /// The last one.
        last: i64,
    },
    /// As many watch as may.
    #[error("{whose} has as many watchers as it may have; end one, or try again later")]
    WatchersExhausted {
        /// Whose bound it is.
        whose: &'static str,
        /// When to try again.
        retry_after: Duration,
    },
    /// The service is stopping.
    #[error("the service is stopping; try again, another instance will answer")]
    Stopping,
    /// A fault of our own.
    #[error("internal error; it has been logged")]
    Internal(#[source] Box<dyn std::error::Error + Send + Sync>),
}

fn summary(violations: &[Violation]) -> String {
    match violations {
        [] => "the request is not valid".to_owned(),
        [only] => format!("{}: {}", only.field, only.description),
        [first, rest @ ..] => format!("{}: {} (and {} more)", first.field, first.description, rest.len()),
    }
}

fn over_quota(quota: &str, limit: &u64, may_retry: bool) -> String {
    let fix = if may_retry { "try again later" } else { "cut the call into smaller ones" };
    format!("the tenant's quota {quota} of {limit} does not allow it; nothing was stored, {fix}")
}

impl Fault {
    /// A single field's fault.
    pub fn field(field: impl Into<String>, description: impl Into<String>) -> Self {
        Self::Invalid(vec![Violation::new(field, description)])
    }

    /// The status code. No wildcard arm: a new fault must choose.
    pub const fn code(&self) -> Code {
        match self {
            Self::Invalid(_) | Self::NoRecipientLeft(_) | Self::TenantUnnamed => Code::InvalidArgument,
            Self::Unauthenticated => Code::Unauthenticated,
            Self::ScopeMissing { .. } => Code::PermissionDenied,
            Self::SendingDomainUnknown { .. }
            | Self::SendingDomainUnverified { .. }
            | Self::TemplatePartial
            | Self::NoPendingKeys { .. }
            | Self::DomainUnsigned { .. }
            | Self::SecretsExhausted { .. }
            | Self::NotADeadLetter => Code::FailedPrecondition,
            Self::ResultTooLarge { .. } => Code::OutOfRange,
            Self::TemplateUnknown { .. } | Self::NotFound { .. } => Code::NotFound,
            Self::NameTaken { .. } | Self::KeyReused => Code::AlreadyExists,
            Self::Overloaded { .. } | Self::QuotaExceeded { .. } | Self::WatchersExhausted { .. } => {
                Code::ResourceExhausted
            }
            Self::SeqOutOfRange { .. } => Code::OutOfRange,
            Self::DeadlineExceeded => Code::DeadlineExceeded,
            Self::Unavailable(_) | Self::Stopping => Code::Unavailable,
            Self::Internal(_) => Code::Internal,
        }
    }

    /// The reason for programs.
    pub fn reason(&self) -> ErrorReason {
        match self {
            Self::Invalid(violations) => {
                violations.first().map_or(ErrorReason::FieldInvalid, |violation| violation.reason)
            }
            Self::NoRecipientLeft(_) => ErrorReason::NoRecipientLeft,
            Self::TenantUnnamed => ErrorReason::TenantUnnamed,
            Self::Unauthenticated => ErrorReason::KeyInvalid,
            Self::ScopeMissing { .. } => ErrorReason::ScopeMissing,
            Self::SendingDomainUnknown { .. } => ErrorReason::SendingDomainUnknown,
            Self::SendingDomainUnverified { .. } => ErrorReason::SendingDomainUnverified,
            Self::TemplateUnknown { .. } => ErrorReason::TemplateUnknown,
            Self::TemplatePartial => ErrorReason::TemplatePartial,
            Self::NotFound { .. } => ErrorReason::NotFound,
            Self::NameTaken { .. } => ErrorReason::NameTaken,
            Self::KeyReused => ErrorReason::IdempotencyKeyReused,
            Self::Overloaded { .. } => ErrorReason::Overloaded,
            Self::QuotaExceeded { .. } => ErrorReason::QuotaExceeded,
            Self::ResultTooLarge { .. } => ErrorReason::ResultTooLarge,
            Self::NoPendingKeys { .. } => ErrorReason::NoPendingKeys,
            Self::DomainUnsigned { .. } => ErrorReason::DomainUnsigned,
            Self::SecretsExhausted { .. } => ErrorReason::SecretsExhausted,
            Self::NotADeadLetter => ErrorReason::NotADeadLetter,
            Self::SeqOutOfRange { .. } => ErrorReason::SeqOutOfRange,
            Self::WatchersExhausted { .. } => ErrorReason::WatchersExhausted,
            Self::DeadlineExceeded => ErrorReason::DeadlineExceeded,
            Self::Unavailable(_) | Self::Stopping => ErrorReason::StoreUnavailable,
            Self::Internal(_) => ErrorReason::Internal,
        }
    }

    /// The delay after which a repeat may succeed, if it can at all.
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Overloaded { retry_after } | Self::WatchersExhausted { retry_after, .. } => Some(*retry_after),
            Self::QuotaExceeded { retry_after, .. } => *retry_after,
            Self::Unavailable(_) | Self::Stopping => Some(STORE_RETRY),
            Self::Invalid(_)
            | Self::NoRecipientLeft(_)
            | Self::Unauthenticated
            | Self::ScopeMissing { .. }
            | Self::TenantUnnamed
            | Self::SendingDomainUnknown { .. }
            | Self::SendingDomainUnverified { .. }
            | Self::TemplateUnknown { .. }
            | Self::TemplatePartial
            | Self::NotFound { .. }
            | Self::NameTaken { .. }
            | Self::KeyReused
            | Self::ResultTooLarge { .. }
            | Self::NoPendingKeys { .. }
            | Self::DomainUnsigned { .. }
            | Self::SecretsExhausted { .. }
            | Self::NotADeadLetter
            | Self::SeqOutOfRange { .. }
            | Self::DeadlineExceeded
            | Self::Internal(_) => None,
        }
    }

    /// The fault as the answer to one mail of a stream.
    pub fn refusals(&self) -> Vec<Refusal> {
        match self {
            Self::Invalid(violations) | Self::NoRecipientLeft(violations) => {
                violations.iter().take(MAX_VIOLATIONS).map(Violation::to_refusal).collect()
            }
            other => {
                vec![Refusal { reason: other.reason().into(), field: String::new(), description: other.to_string() }]
            }
        }
    }

    fn log(&self) {
        match self {
            Self::Internal(source) => tracing::error!(error = %Chain(source.as_ref()), "a call failed"),
            Self::Unavailable(source) => tracing::warn!(error = %Chain(source.as_ref()), "the store cannot be reached"),
            _ => {}
        }
    }
}

/// A reason as `google.rpc.ErrorInfo` writes it: without the prefix of the enum.
pub fn reason_name(reason: ErrorReason) -> &'static str {
    reason.as_str_name().trim_start_matches("ERROR_REASON_")
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Exists { what } => Self::NameTaken { what },
            error if error.is_retryable() => Self::Unavailable(std::sync::Arc::new(error)),
            error => Self::Internal(Box::new(error)),
        }
    }
}

impl From<Fault> for Status {
    fn from(fault: Fault) -> Self {
        fault.log();
        let mut details = ErrorDetails::new();
        let mut metadata = HashMap::new();
        match &fault {
            Fault::Invalid(violations) | Fault::NoRecipientLeft(violations) => {
                details.set_bad_request(field_violations(violations));
            }
            Fault::ScopeMissing { scope } => {
                metadata.insert("scope".to_owned(), (*scope).to_owned());
            }
            Fault::QuotaExceeded { quota, .. } => {
                metadata.insert("quota".to_owned(), (*quota).to_owned());
            }
            Fault::SeqOutOfRange { first, last } => {
                metadata.insert("first_seq".to_owned(), first.to_string());
                metadata.insert("last_seq".to_owned(), last.to_string());
            }
            Fault::TemplateUnknown { field } => {
                metadata.insert("field".to_owned(), (*field).to_owned());
            }
            _ => {}
        }
        details.set_error_info(reason_name(fault.reason()), ERROR_DOMAIN, metadata);
        if let Some(delay) = fault.retry_after() {
            details.set_retry_info(Some(delay));
        }
        Status::with_error_details(fault.code(), domain::text::sanitise(&fault.to_string(), 500), details)
    }
}

fn field_violations(violations: &[Violation]) -> Vec<FieldViolation> {
    violations
        .iter()
        .take(MAX_VIOLATIONS)
        .map(|violation| FieldViolation {
            field: violation.field.clone(),
            description: violation.description.clone(),
            reason: reason_name(violation.reason).to_owned(),
            localized_message: None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_names_field_reason_and_fix() {
        let status = Status::from(Fault::field("mail.subject", "is empty; give a subject"));
        let details = status.get_error_details();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(details.error_info().map(|info| info.reason.as_str()), Some("FIELD_INVALID"));
        let violations = &details.bad_request().expect("has a bad request").field_violations;
        assert_eq!(violations[0].field, "mail.subject");
        assert_eq!(violations[0].reason, "FIELD_INVALID");
    }

    #[test]
    fn pressure_comes_with_a_delay() {
        let status = Status::from(Fault::Overloaded { retry_after: Duration::from_secs(2) });
        let delay = status.get_error_details().retry_info().and_then(|info| info.retry_delay);
        assert_eq!((status.code(), delay), (Code::ResourceExhausted, Some(Duration::from_secs(2))));
    }

    #[test]
    fn a_status_fits_into_header_fields_whatever_the_request() {
        let many = (0..10_000).map(|i| Violation::new(format!("recipients[{i}].email"), "x".repeat(200))).collect();
        let status = Status::from(Fault::Invalid(many));
        assert!(status.details().len() + status.message().len() < 8 * 1024);
    }
}
