//! Why a post is refused, and the answer that makes its provider try again, or stop.

use super::{CertificateUrl, Provider, ReadError, Untimely};
use http::StatusCode;

/// What the provider is to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is safe with us.
    Taken,
    /// Nothing is wrong with the post: come again later.
    TryAgain,
    /// It will never be taken.
    Stop,
}

/// What a provider does after an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consequence {
    /// Nothing: it counts as delivered.
    Done,
    /// It comes again, by its own schedule.
    Retried,
    /// It is given up.
    GivenUp,
}

impl Provider {
    /// The status that says so to this provider. SendGrid, SparkPost and Resend know no way to be told to stop: they
    /// come again until their time is over.
    pub const fn status(self, answer: Answer) -> StatusCode {
        match (answer, self) {
            // Postmark and SparkPost take only this one for a success.
            (Answer::Taken, _) => StatusCode::OK,
            (Answer::TryAgain, _) => StatusCode::SERVICE_UNAVAILABLE,
            (Answer::Stop, Self::Mailgun) => StatusCode::NOT_ACCEPTABLE,
            (Answer::Stop, Self::Postmark) => StatusCode::FORBIDDEN,
            (Answer::Stop, Self::Sendgrid | Self::Ses | Self::Sparkpost | Self::Resend) => StatusCode::BAD_REQUEST,
        }
    }

    /// What this provider does after a status.
    pub fn consequence(self, status: StatusCode) -> Consequence {
        let done = match self {
            Self::Postmark | Self::Sparkpost | Self::Mailgun => status == StatusCode::OK,
            Self::Sendgrid | Self::Ses | Self::Resend => status.is_success(),
        };
        let given_up = match self {
            Self::Mailgun => status == StatusCode::NOT_ACCEPTABLE,
            Self::Postmark => status == StatusCode::FORBIDDEN,
            // SNS takes a redirect or a 4xx for the end; 429 means what it says.
            Self::Ses => !status.is_server_error() && status != StatusCode::TOO_MANY_REQUESTS,
            Self::Sendgrid | Self::Sparkpost | Self::Resend => false,
        };
        match (done, given_up) {
            (true, _) => Consequence::Done,
            (false, true) => Consequence::GivenUp,
            (false, false) => Consequence::Retried,
        }
    }

    /// The answer to a post that is genuine and cannot be read: it would be no other when it came again.
    pub const fn status_of_unreadable(self, error: ReadError) -> StatusCode {
        match (error, self) {
            (_, Self::Mailgun | Self::Postmark) => self.status(Answer::Stop),
            (ReadError::TooLarge { .. } | ReadError::TooMany { .. }, _) => StatusCode::PAYLOAD_TOO_LARGE,
            (ReadError::Shape { .. }, _) => self.status(Answer::Stop),
        }
    }
}

/// A post that is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Refusal {
    provider: Provider,
    reason: Reason,
    challenge: bool,
}

/// Why a post is not taken. No secret and no word of the post is repeated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// The body is larger than [`super::Limits::body`].
    #[error("the body has more than {limit} octets")]
    TooLarge {
        /// What is taken.
        limit: usize,
    },
    /// A header is missing that proves who posts.
    #[error("the header {name} is missing")]
    MissingHeader {
        /// Which.
        name: &'static str,
    },
    /// A header is there more than once, or holds other than visible ASCII.
    #[error("the header {name} must be there once, as visible ASCII")]
    AmbiguousHeader {
        /// Which.
        name: &'static str,
    },
    /// No credential came.
    #[error("no credential was sent")]
    MissingCredential,
    /// A credential came that is none of ours.
    #[error("the credential is wrong")]
    WrongCredential,
    /// The body, or a part of it, has another form than documented.
    #[error("{what}")]
    Malformed {
        /// What is wrong.
        what: &'static str,
    },
    /// No signature fits any of the keys.
    #[error("the signature fits none of the keys")]
    WrongSignature,
    /// The time that was signed lies outside of the window.
    #[error("the time of the post {0}")]
    Untimely(Untimely),
    /// A topic of SNS that is not ours: its signature would prove nothing.
    #[error("the topic is not one of those that are configured")]
    TopicNotAllowed,
    /// The signature version of SNS is not among those that are taken.
    #[error("the signature version is not one that is taken")]
    SignatureVersion,
    /// Headers and body of an SNS post differ.
    #[error("the header {name} differs from the body")]
    HeaderDiffers {
        /// Which.
        name: &'static str,
    },
    /// The address of the certificate is not one of SNS in the topic's region.
    #[error("the certificate's address is not one of SNS in the region of the topic")]
    CertificateAddress,
    /// The certificate is not at hand: fetch it from this address, then verify again or let the provider come again.
    #[error("the certificate is not at hand yet")]
    CertificateMissing {
        /// Where it is; an address of SNS, without redirects.
        url: CertificateUrl,
    },
    /// The certificate is not valid now: what is kept of it should be dropped.
    #[error("the certificate is not valid at this time")]
    CertificateExpired {
        /// Where it came from.
        url: CertificateUrl,
    },
}

impl Refusal {
    pub(super) const fn new(provider: Provider, reason: Reason) -> Self {
        Self { provider, reason, challenge: false }
    }

    /// The same, with a challenge for HTTP Basic.
    pub(super) fn challenging(self, challenge: bool) -> Self {
        Self { challenge, ..self }
    }

    /// Why.
    pub const fn reason(&self) -> &Reason {
        &self.reason
    }

    /// The certificate that has to be fetched before this post can be verified.
    pub const fn wanted_certificate(&self) -> Option<&CertificateUrl> {
        match &self.reason {
            Reason::CertificateMissing { url } | Reason::CertificateExpired { url } => Some(url),
            Reason::TooLarge { .. }
            | Reason::MissingHeader { .. }
            | Reason::AmbiguousHeader { .. }
            | Reason::MissingCredential
            | Reason::WrongCredential
            | Reason::Malformed { .. }
            | Reason::WrongSignature
            | Reason::Untimely(_)
            | Reason::TopicNotAllowed
            | Reason::SignatureVersion
            | Reason::HeaderDiffers { .. }
            | Reason::CertificateAddress => None,
        }
    }

    /// The value of `WWW-Authenticate`, which belongs to the 401: SNS sends a credential only after it.
    pub const fn challenge(&self) -> Option<&'static str> {
        if self.challenge { Some("Basic realm=\"webhooks\", charset=\"UTF-8\"") } else { None }
    }

    /// The status to answer with.
    ///
    /// A wrong credential or signature is told with one after which the provider comes again, where there is one: a key
    /// that was entered wrongly or is about to be rotated then loses nothing. What can never be right is stopped.
    pub const fn status(&self) -> StatusCode {
        match (&self.reason, self.provider) {
            // Never 403: it makes Postmark give up.
            (Reason::MissingCredential | Reason::WrongCredential, _) => StatusCode::UNAUTHORIZED,
            (Reason::MissingHeader { .. } | Reason::AmbiguousHeader { .. }, Provider::Ses) => StatusCode::BAD_REQUEST,
            (Reason::WrongSignature, Provider::Ses) => StatusCode::FORBIDDEN,
            (Reason::MissingHeader { .. } | Reason::AmbiguousHeader { .. } | Reason::WrongSignature, _) => {
                StatusCode::UNAUTHORIZED
            }
            (
                Reason::TopicNotAllowed
                | Reason::SignatureVersion
                | Reason::HeaderDiffers { .. }
                | Reason::CertificateAddress,
                _,
            ) => StatusCode::FORBIDDEN,
            (Reason::CertificateMissing { .. } | Reason::CertificateExpired { .. }, _) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            (Reason::TooLarge { .. } | Reason::Malformed { .. } | Reason::Untimely(_), Provider::Mailgun) => {
                StatusCode::NOT_ACCEPTABLE
            }
            (Reason::TooLarge { .. } | Reason::Malformed { .. }, Provider::Postmark) => StatusCode::FORBIDDEN,
            (Reason::TooLarge { .. }, _) => StatusCode::PAYLOAD_TOO_LARGE,
            (Reason::Malformed { .. }, _) => StatusCode::BAD_REQUEST,
            // Resend stamps each attempt anew, so that one which was under way for too long comes again.
            (Reason::Untimely(_), _) => StatusCode::FORBIDDEN,
        }
    }

    /// What the provider does after [`Self::status`].
    pub fn consequence(&self) -> Consequence {
        self.provider.consequence(self.status())
    }
}
