//! Who sent a post.

mod mailgun;
mod sendgrid;

use super::{
    Batch, Certificates, Confirmation, Credential, KeyError, Limits, MAX_ID, Provider, ReadError, Reason, Refusal,
    SnsVersion, TopicArn, VerifyingKey, Window, header,
    outbound::{self, Names, VerifyError},
    read::read_as,
    sns,
};
use chrono::{DateTime, TimeDelta, Utc};
use http::HeaderMap;
use sendgrid::SendgridKey;
use std::{fmt, sync::Arc, time::Duration};

/// The most secrets of one source: a rotation needs two.
const MAX_SECRETS: usize = 8;
const HOUR: u64 = 3600;

/// Verifies the posts of one configured source: a provider's account with its secrets. Several secrets are good at
/// once, so that one can be rotated.
pub struct Verifier {
    secrets: Secrets,
    credentials: Vec<Credential>,
    window: Window,
    limit: usize,
}

enum Secrets {
    Sendgrid(Vec<SendgridKey>),
    Mailgun(Vec<aws_lc_rs::hmac::Key>),
    Ses {
        topics: Vec<TopicArn>,
        versions: Vec<SnsVersion>,
        certificates: Arc<dyn Certificates>,
    },
    /// Only the credentials prove anything.
    Postmark,
    Sparkpost,
    Resend(Vec<VerifyingKey>),
}

/// Why a source cannot be made of what is configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// Nothing to verify with, or too much.
    #[error("must have from 1 to {MAX_SECRETS} {of}")]
    Count {
        /// What has to be given.
        of: &'static str,
    },
    /// Not SendGrid's verification key.
    #[error("must be the verification key of the signed event webhook: base64 of a P-256 public key, or its PEM")]
    SendgridKey,
    /// Not a signing key of Mailgun.
    #[error("must be Mailgun's HTTP webhook signing key, of 16 to 256 visible ASCII characters; it is not the API key")]
    MailgunKey,
    /// Not a signing secret of Resend.
    #[error("must be the signing secret of the webhook: it {0}")]
    StandardKey(KeyError),
}

impl Verifier {
    /// SendGrid's signed event webhook; the keys as its settings show them.
    ///
    /// Posts of the last 24 hours are taken: whether a retry is stamped anew is not documented, and an event that is
    /// posted twice is known by its id.
    ///
    /// # Errors
    /// There is no key, too many, or one is none.
    pub fn sendgrid(keys: &[&str]) -> Result<Self, SecretError> {
        counted(keys.len(), "verification keys")?;
        let keys = keys.iter().map(|key| SendgridKey::parse(key).ok_or(SecretError::SendgridKey));
        Ok(Self::new(Secrets::Sendgrid(keys.collect::<Result<_, _>>()?), 24 * HOUR + 600, 600))
    }

    /// Mailgun's webhooks; HTTP webhook signing keys. The signature does not cover the event: add
    /// [`Self::and_credentials`] where the address of the endpoint is not secret.
    ///
    /// # Errors
    /// There is no key, too many, or one is none.
    pub fn mailgun(keys: &[&str]) -> Result<Self, SecretError> {
        counted(keys.len(), "signing keys")?;
        let keys = keys.iter().map(|key| mailgun::key(key).ok_or(SecretError::MailgunKey));
        Ok(Self::new(Secrets::Mailgun(keys.collect::<Result<_, _>>()?), 9 * HOUR, 300))
    }

    /// SES through these topics of SNS.
    ///
    /// # Errors
    /// There is no topic, or there are too many.
    pub fn ses(topics: Vec<TopicArn>, certificates: Arc<dyn Certificates>) -> Result<Self, SecretError> {
        counted(topics.len(), "topics")?;
        let versions = vec![SnsVersion::One, SnsVersion::Two];
        Ok(Self::new(Secrets::Ses { topics, versions, certificates }, 2 * HOUR, 300))
    }

    /// Postmark's webhooks: one of these must come with each.
    ///
    /// # Errors
    /// There is no credential, or there are too many.
    pub fn postmark(credentials: Vec<Credential>) -> Result<Self, SecretError> {
        Self::new(Secrets::Postmark, 0, 0).and_credentials(credentials)
    }

    /// SparkPost's webhooks: one of these must come with each.
    ///
    /// # Errors
    /// There is no credential, or there are too many.
    pub fn sparkpost(credentials: Vec<Credential>) -> Result<Self, SecretError> {
        Self::new(Secrets::Sparkpost, 0, 0).and_credentials(credentials)
    }

    /// Resend's webhooks; signing secrets, `whsec_…`.
    ///
    /// # Errors
    /// There is no secret, too many, or one is none.
    pub fn resend(secrets: &[&str]) -> Result<Self, SecretError> {
        counted(secrets.len(), "signing secrets")?;
        let keys = secrets.iter().map(|secret| secret.parse().map_err(SecretError::StandardKey));
        let mut made = Self::new(Secrets::Resend(keys.collect::<Result<_, _>>()?), 0, 0);
        made.window = Window::STANDARD;
        Ok(made)
    }

    fn new(secrets: Secrets, past: u64, ahead: u64) -> Self {
        let window = Window { past: Duration::from_secs(past), ahead: Duration::from_secs(ahead) };
        Self { secrets, credentials: Vec::new(), window, limit: Limits::default().body }
    }

    /// The same, which also asks for one of these credentials.
    ///
    /// # Errors
    /// There is none, or there are too many.
    pub fn and_credentials(self, credentials: Vec<Credential>) -> Result<Self, SecretError> {
        counted(credentials.len(), "credentials")?;
        Ok(Self { credentials, ..self })
    }

    /// The same, with another window. Postmark and SparkPost sign no time, so that it means nothing there.
    pub fn within(self, window: Window) -> Self {
        Self { window, ..self }
    }

    /// The same, for bodies of at most so many octets.
    pub fn up_to(self, octets: usize) -> Self {
        Self { limit: octets, ..self }
    }

    /// The same, which takes no signatures of version 1 (SHA-1) of SNS.
    pub fn only_version_two(mut self) -> Self {
        if let Secrets::Ses { versions, .. } = &mut self.secrets {
            *versions = vec![SnsVersion::Two];
        }
        self
    }

    /// Whose posts these are.
    pub const fn provider(&self) -> Provider {
        match self.secrets {
            Secrets::Sendgrid(_) => Provider::Sendgrid,
            Secrets::Mailgun(_) => Provider::Mailgun,
            Secrets::Ses { .. } => Provider::Ses,
            Secrets::Postmark => Provider::Postmark,
            Secrets::Sparkpost => Provider::Sparkpost,
            Secrets::Resend(_) => Provider::Resend,
        }
    }

    /// Verifies a post: the body as it came, octet for octet.
    ///
    /// # Errors
    /// See [`Reason`]; the refusal knows the status to answer with.
    pub fn verify(&self, headers: &HeaderMap, body: &[u8], now: DateTime<Utc>) -> Result<Verified, Refusal> {
        let provider = self.provider();
        self.check_credentials(headers)?;
        self.check(headers, body, now).map_err(|reason| Refusal::new(provider, reason))
    }

    fn check_credentials(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        if self.credentials.is_empty() {
            return Ok(());
        }
        // Every one is looked at, so that the time does not tell which of them came near.
        let found: Vec<Option<bool>> = self.credentials.iter().map(|credential| credential.matches(headers)).collect();
        let reason = match (found.contains(&Some(true)), found.contains(&Some(false))) {
            (true, _) => return Ok(()),
            (false, true) => Reason::WrongCredential,
            (false, false) => Reason::MissingCredential,
        };
        let challenge = self.credentials.iter().any(Credential::is_basic);
        Err(Refusal::new(self.provider(), reason).challenging(challenge))
    }

    fn check(&self, headers: &HeaderMap, body: &[u8], now: DateTime<Utc>) -> Result<Verified, Reason> {
        if body.len() > self.limit {
            return Err(Reason::TooLarge { limit: self.limit });
        }
        let provider = self.provider();
        let verified = |replay| Verified { provider, post: Post::Events, replay };
        match &self.secrets {
            Secrets::Postmark => Ok(verified(None)),
            Secrets::Sparkpost => Ok(verified(batch_of(headers, now))),
            Secrets::Sendgrid(keys) => {
                sendgrid::verify(keys, headers, body, self.window, now)?;
                Ok(verified(None))
            }
            Secrets::Mailgun(keys) => Ok(verified(Some(mailgun::verify(keys, body, self.window, now)?))),
            Secrets::Ses { topics, versions, certificates } => {
                let rules = sns::Rules { topics, versions, certificates: certificates.as_ref(), window: self.window };
                let (post, replay) = sns::verify(&rules, headers, body, now)?;
                Ok(Verified { provider, post, replay: Some(replay) })
            }
            Secrets::Resend(keys) => {
                let names = Names::of(headers);
                let checked = outbound::verify_named(names, keys, headers, body, self.window, now).map_err(reason)?;
                Ok(verified(Some(ReplayKey::new(checked.id, after_retries(now)))))
            }
        }
    }
}

/// The id of a batch of SparkPost, which stays the same when it comes again. It only spares work: without it, each
/// event is known by its own id.
fn batch_of(headers: &HeaderMap, now: DateTime<Utc>) -> Option<ReplayKey> {
    let id = header::only(headers, "x-messagesystems-batch-id").ok()?;
    let fits = (1..=MAX_ID).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic());
    fits.then(|| ReplayKey::new(id.to_owned(), after_retries(now)))
}

/// When neither SparkPost (8 hours) nor Resend (a good day) tries again what came now.
fn after_retries(now: DateTime<Utc>) -> DateTime<Utc> {
    now.checked_add_signed(TimeDelta::hours(48)).unwrap_or(now)
}

fn reason(error: VerifyError) -> Reason {
    match error {
        VerifyError::Missing(name) => Reason::MissingHeader { name },
        VerifyError::Ambiguous(name) => Reason::AmbiguousHeader { name },
        VerifyError::Form(_) => Reason::Malformed { what: "the id or the timestamp has another form than documented" },
        VerifyError::Untimely(untimely) => Reason::Untimely(untimely),
        VerifyError::Signature => Reason::WrongSignature,
    }
}

fn counted(count: usize, of: &'static str) -> Result<(), SecretError> {
    if (1..=MAX_SECRETS).contains(&count) { Ok(()) } else { Err(SecretError::Count { of }) }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier")
            .field("provider", &self.provider())
            .field("window", &self.window)
            .finish_non_exhaustive()
    }
}

/// A post that is genuine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    provider: Provider,
    post: Post,
    replay: Option<ReplayKey>,
}

/// What a post is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Post {
    /// It tells what happened: [`Verified::read`].
    Events,
    /// SNS wants to know whether the topic is to post here: call `ConfirmSubscription`.
    ConfirmSubscription(Confirmation),
    /// SNS posts nothing more from this topic: somebody must see that.
    Unsubscribed {
        /// The topic.
        topic: TopicArn,
    },
}

impl Verified {
    /// Who posted.
    pub const fn provider(&self) -> Provider {
        self.provider
    }

    /// What for.
    pub const fn post(&self) -> &Post {
        &self.post
    }

    /// What to remember, in the commit that takes the events, so that the post is taken once. A post whose key is
    /// known is answered with [`super::Answer::Taken`]: it is a retry whose answer was lost, or a replay, and both
    /// hold nothing new. SendGrid and Postmark have none: their events are known by [`super::Event::dedupe`].
    pub const fn replay(&self) -> Option<&ReplayKey> {
        self.replay.as_ref()
    }

    /// Reads the body that was verified.
    ///
    /// # Errors
    /// It has another shape than this provider documents, or goes beyond the limits.
    pub fn read(&self, body: &[u8], limits: &Limits) -> Result<Batch, ReadError> {
        match &self.post {
            Post::ConfirmSubscription(_) | Post::Unsubscribed { .. } => Ok(Batch { ignored: 1, ..Batch::default() }),
            Post::Events => read_as(self.provider, body, limits, self.replay.as_ref().map(ReplayKey::as_str)),
        }
    }
}

/// What makes a post the only one of its kind.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ReplayKey {
    text: String,
    until: DateTime<Utc>,
}

impl ReplayKey {
    pub(super) const fn new(text: String, until: DateTime<Utc>) -> Self {
        Self { text, until }
    }

    /// The key, unique within the source: Mailgun's token, SNS's message id, the id of Svix, the id of a batch of
    /// SparkPost. At most 200 octets of visible ASCII.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// How long it has to be remembered: later, the post would be refused by its time, or has stopped coming again.
    pub const fn until(&self) -> DateTime<Utc> {
        self.until
    }
}
