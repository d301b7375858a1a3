//! Verifies and reads what providers post about the mails that they carried, and signs what mailfleet posts itself.
//!
//! A post goes through two doors. [`Verifier::verify`] tells who sent it and refuses forged, stale and malformed ones
//! with the answer that makes its provider try again, or stop; [`Verified::read`] makes [`Event`]s of the body, the
//! same for all six providers. [`outbound`] signs our own posts as Standard Webhooks has it.
//!
//! Nothing here does I/O or reads a clock. What is left to the caller: to answer only after the events are safe, to
//! remember [`ReplayKey`]s in the same commit, to fetch the certificates that SNS names ([`Certificates`]), and to
//! call `ConfirmSubscription` ([`Post::ConfirmSubscription`]); an address that a post gives is never followed.
//!
//! Only SendGrid, SNS and Resend sign what they say. Mailgun signs a token but not the event; Postmark and SparkPost
//! sign nothing, so that their posts are as true as the credential is secret and the connection is TLS.

mod credential;
mod event;
mod read;
mod refusal;
mod sns;
mod verify;

pub use credential::{Credential, CredentialError};
pub(crate) use event::bounce_of;
pub use event::{
    Batch, Bounce, Event, EventError, Kind, ListScope, MachineFlag, Provider, ProviderError, ReadError, Suppression,
    Unreadable,
};
pub use posting::{KeyError, SigningKey, Untimely, VerifyingKey, Window, outbound};
pub(crate) use posting::{header, window};
pub use read::{Limits, MAX_ID, MAX_REPLY, MAX_URL, MAX_USER_AGENT, MID, read};
pub use refusal::{Answer, Consequence, Reason, Refusal};
pub use sns::{
    Certificate, CertificateError, CertificateUrl, Certificates, Confirmation, SnsVersion, TopicArn, TopicArnError,
};
pub use verify::{Post, ReplayKey, SecretError, Verified, Verifier};
