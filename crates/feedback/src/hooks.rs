//! What providers post about mails that they carried: verified, read, committed, and only then answered for.

mod aws;

use crate::{
    FeedbackConfig, FeedbackError, Office,
    metrics::OfPost,
    webhook::{
        Answer, Bounce, Certificates, Credential, Event, Kind, Limits, MachineFlag, Post, Provider, Reason, Refusal,
        TopicArn, Verifier,
    },
};
use aws::Sns;
use axum::{
    body::Bytes,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use domain::fact::{FactDetail, FactKind};
use service::SecretFile;
use std::{collections::BTreeMap, sync::Arc};
use store::{Effect, Feedback};
use tokio::sync::Semaphore;

/// Largest file of secrets, in bytes.
const MAX_FILE: u64 = 64 * 1024;

/// The webhooks that are taken in.
pub(crate) struct Hooks {
    known: BTreeMap<String, Verifier>,
    limits: Limits,
    places: Semaphore,
    sns: Arc<Sns>,
}

/// Opens the configured webhooks.
pub(crate) fn open(config: &FeedbackConfig) -> Result<Hooks, FeedbackError> {
    let at_once = usize::try_from(config.webhooks_at_once.get()).unwrap_or(1);
    let sns = Arc::new(Sns::new(&config.sns)?);
    let mut known = BTreeMap::new();
    for (name, hook) in &config.webhooks {
        let wrong = |field: &'static str, text: String| FeedbackError::Webhook { name: name.clone(), field, text };
        let is_fit = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if name.is_empty() || name.len() > 64 || !name.bytes().all(is_fit) {
            return Err(wrong("name", "a name has 1 to 64 characters a-z, 0-9 and -".to_owned()));
        }
        let provider: Provider = hook
            .provider
            .parse()
            .map_err(|error: crate::webhook::ProviderError| wrong("provider", error.to_string()))?;
        let secrets = lines(hook.secrets_file.as_ref()).map_err(|text| wrong("secrets_file", text))?;
        let credentials = lines(hook.credentials_file.as_ref()).map_err(|text| wrong("credentials_file", text))?;
        let credentials: Vec<Credential> = credentials
            .iter()
            .map(|line| {
                let (user, password) =
                    line.split_once(':').ok_or_else(|| "write USER:PASSWORD in each line".to_owned())?;
                Credential::basic(user, password).map_err(|error| error.to_string())
            })
            .collect::<Result<_, String>>()
            .map_err(|text| wrong("credentials_file", text))?;
        let secrets: Vec<&str> = secrets.iter().map(String::as_str).collect();
        let has_credentials = !credentials.is_empty();
        let made = match provider {
            Provider::Sendgrid => Verifier::sendgrid(&secrets),
            Provider::Mailgun => Verifier::mailgun(&secrets),
            Provider::Resend => Verifier::resend(&secrets),
            Provider::Postmark => Verifier::postmark(credentials.clone()),
            Provider::Sparkpost => Verifier::sparkpost(credentials.clone()),
            Provider::Ses => {
                let read =
                    |topic: &String| topic.parse().map_err(|error| wrong("topics", format!("{topic:?} {error}")));
                let topics = hook.topics.iter().map(read).collect::<Result<Vec<TopicArn>, _>>()?;
                let certificates: Arc<dyn Certificates> = Arc::<Sns>::clone(&sns);
                Verifier::ses(topics, certificates)
            }
        };
        if provider != Provider::Ses && !hook.topics.is_empty() {
            return Err(wrong("topics", "is for ses alone; leave it out".to_owned()));
        }
        let signs = !matches!(provider, Provider::Postmark | Provider::Sparkpost);
        let field = match provider {
            Provider::Ses => "topics",
            _ if signs => "secrets_file",
            _ => "credentials_file",
        };
        let mut verifier = made.map_err(|error| wrong(field, error.to_string()))?;
        if signs && has_credentials {
            verifier =
                verifier.and_credentials(credentials).map_err(|error| wrong("credentials_file", error.to_string()))?;
        }
        known.insert(name.clone(), verifier);
    }
    Ok(Hooks { known, limits: Limits::default(), places: Semaphore::new(at_once), sns })
}

/// The lines of a file of secrets that hold something.
fn lines(file: Option<&SecretFile>) -> Result<Vec<String>, String> {
    let Some(file) = file else { return Ok(Vec::new()) };
    let path = file.path();
    let size = std::fs::metadata(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?.len();
    if size > MAX_FILE {
        return Err(format!("{} is larger than 64 KiB", path.display()));
    }
    let text = std::fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    Ok(text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect())
}

/// Takes a post in, and answers so that its provider comes again, or does not.
pub(crate) async fn take(office: &Office, name: &str, headers: &HeaderMap, body: &Bytes) -> Response {
    let Some(verifier) = office.hooks.known.get(name) else { return StatusCode::NOT_FOUND.into_response() };
    let provider = verifier.provider();
    let count = |result| office.metrics.posts.get_or_create(&OfPost { provider: provider.as_str(), result }).inc();
    let Ok(_place) = office.hooks.places.try_acquire() else {
        count("shed");
        return (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "10")]).into_response();
    };
    let mut given = verifier.verify(headers, body, service::clock::now());
    // The certificate that signed it is fetched once, and the post looked at again.
    let missing = given.as_ref().err().and_then(Refusal::wanted_certificate).cloned();
    if let Some(url) = missing {
        if matches!(given.as_ref().err().map(Refusal::reason), Some(Reason::CertificateExpired { .. })) {
            office.hooks.sns.forget(&url);
        }
        match office.hooks.sns.fetch(&url).await {
            Ok(()) => given = verifier.verify(headers, body, service::clock::now()),
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(error, webhook = name, "cannot fetch the certificate of a post; it is to come again");
            }
        }
    }
    let verified = match given {
        Ok(verified) => verified,
        Err(refusal) => {
            count("refused");
            tracing::warn!(webhook = name, provider = provider.as_str(), reason = %refusal, "refused a post");
            let mut answer = refusal.status().into_response();
            if let Some(challenge) = refusal.challenge() {
                answer.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
            }
            return answer;
        }
    };
    match verified.post() {
        Post::Events => {}
        Post::ConfirmSubscription(confirmation) => match office.hooks.sns.confirm(confirmation).await {
            Ok(()) => {
                tracing::info!(webhook = name, topic = %confirmation.topic, "confirmed a subscription");
                count("confirmed");
                return provider.status(Answer::Taken).into_response();
            }
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(error, webhook = name, topic = %confirmation.topic, "cannot confirm a subscription yet");
                count("put_off");
                return provider.status(Answer::TryAgain).into_response();
            }
        },
        Post::Unsubscribed { topic } => {
            tracing::error!(webhook = name, %topic, "the topic posts here no more; subscribe again");
            count("ignored");
            return provider.status(Answer::Taken).into_response();
        }
    }
    let batch = match verified.read(body, &office.hooks.limits) {
        Ok(batch) => batch,
        Err(error) => {
            count("unreadable");
            tracing::warn!(webhook = name, provider = provider.as_str(), %error, "cannot read a post");
            return provider.status_of_unreadable(error).into_response();
        }
    };
    for one in &batch.unreadable {
        tracing::warn!(webhook = name, provider = provider.as_str(), reason = %one.reason, "cannot read an event of a post");
    }
    let items: Vec<Feedback> = batch.events.iter().filter_map(|event| feedback(event, provider)).collect();
    let replay = verified.replay().map(|key| (format!("{name}/{}", key.as_str()), key.until()));
    let known = replay.as_ref().map(|(key, until)| (key.as_str(), *until));
    let recording = tokio::time::timeout(office.config.commit_within, office.store.record_post(known, &items));
    match recording.await.unwrap_or(Err(store::StoreError::Timeout)) {
        Ok(done) => {
            count(if done.is_some() { "taken" } else { "repeated" });
            office.metrics.recorded(&items, done.unwrap_or_default());
            provider.status(Answer::Taken).into_response()
        }
        Err(error) => {
            count("put_off");
            tracing::warn!(error = &error as &dyn std::error::Error, webhook = name, "cannot record a post");
            provider.status(Answer::TryAgain).into_response()
        }
    }
}

/// What an event is for the log; `None` for what says nothing about a mail of ours, or nothing new.
fn feedback(event: &Event, provider: Provider) -> Option<Feedback> {
    let is_machine = event.machine.is_some_and(MachineFlag::is_machine);
    let (kind, effect) = match event.kind {
        Kind::Delivered => (FactKind::Confirmed, Effect::Nothing),
        Kind::Bounced(Bounce::Hard) if event.is_against_the_address() => (FactKind::Returned, Effect::Gone),
        Kind::Bounced(Bounce::Soft) => (FactKind::ReturnedSoft, Effect::Nothing),
        Kind::Bounced(Bounce::Hard | Bounce::Block) | Kind::Dropped | Kind::Failed => {
            (FactKind::ReturnedBlock, Effect::Nothing)
        }
        Kind::Complained => (FactKind::Complained, Effect::Complaint),
        Kind::Opened if is_machine => (FactKind::OpenedByMachine, Effect::Nothing),
        Kind::Opened => (FactKind::Opened, Effect::Nothing),
        Kind::Clicked if is_machine => (FactKind::ClickedByMachine, Effect::Nothing),
        Kind::Clicked => (FactKind::Clicked, Effect::Nothing),
        Kind::Unsubscribed => (FactKind::Unsubscribed, Effect::Unsubscribe),
        Kind::Resubscribed => (FactKind::Resubscribed, Effect::Resubscribe),
        Kind::AccountAlert => {
            tracing::error!(
                provider = provider.as_str(),
                alert = event.word,
                "a provider says something about the account"
            );
            return None;
        }
        Kind::Unknown => {
            tracing::warn!(provider = provider.as_str(), event = event.word, "a provider tells what is not known here");
            return None;
        }
        // Known already, or not over yet.
        Kind::Accepted | Kind::Deferred => return None,
    };
    let detail = FactDetail {
        enhanced: event.status.map(|status| status.to_string()),
        text: event.reply.clone(),
        class: event.class.map(|class| class.as_str().to_owned()),
        url: event.url.clone(),
        agent: event.user_agent.clone(),
        network: event.ip.map(crate::web::network),
        source: Some(provider.as_str().to_owned()),
        ..FactDetail::default()
    };
    Some(Feedback { message: event.message?, kind, source: event.dedupe.clone(), at: event.at, detail, effect })
}
