//! From a request to an accepted call: what is looked at, in which order, and what is made of it.
//!
//! First the request by itself, with every fault at once; then what it names in the database; then its content, which
//! only now can be seen as a whole. Nothing is stored before all of it has passed.

use crate::{
    Fault,
    accept::{Accepted, Acceptor},
    clock::Clock,
    gate::CallTrace,
    holds::Holds,
    languages::Chosen,
    mail::one_fault,
    metrics::Metrics,
    names::{Identity, Names},
    quota::QuotaBook,
    sites::Sites,
    validate::{self, ContentDraft, Faults, MailDraft, Recipients, Shared, Violation, api_field},
};
use chrono::{DateTime, Utc};
use content::{Attachment, Body, Limits, MailSource, ReturnPath};
use domain::{BatchId, ContentId, Labels, Lane, MessageId, SiteId, TemplateId, TenantId, TraceContext};
use prost::Message;
use proto::v1::{self, ErrorReason};
use service::trace;
use sha2::{Digest, Sha256};
use std::{
    collections::HashSet,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};
use store::{AcceptCall, AcceptOutcome, ContentKind, Idempotency, NewContent, NewMessage, Replay};

/// Contents above this are looked at off the reactor, since that takes milliseconds.
const LARGE: usize = 16 * 1024;
/// Most contents remembered as good; above it all are forgotten.
const MAX_GOOD: usize = 100_000;
/// Most octets that a mail may bring along and still go straight to the renderers.
const MAX_STRAIGHT: u64 = 256 * 1024;

/// What differs between the calls that take mail in.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// Names the call in the digest of its request.
    name: &'static str,
    lane: Lane,
    max_recipients: usize,
    /// Whether bad recipients are refused beside good ones.
    partial: bool,
}

impl Kind {
    /// One mail to a few: all or nothing.
    pub const MESSAGE: Self =
        Self { name: "message", lane: Lane::Transactional, max_recipients: validate::MAX_MESSAGE, partial: false };
    /// One mail to many: each recipient by itself.
    pub const BATCH: Self =
        Self { name: "batch", lane: Lane::Bulk, max_recipients: validate::MAX_BATCH, partial: true };
}

/// A refused recipient of an accepted call.
pub type Refused = (u32, Violation);

/// An accepted call.
#[derive(Debug)]
pub struct Taken {
    /// The call.
    pub batch: BatchId,
    /// How many recipients it named.
    pub size: u32,
    /// Those that were refused, by position.
    pub refused: Vec<Refused>,
    /// Whether this is the answer to an earlier call.
    pub replayed: bool,
}

/// What a call's mail is made from.
struct Stock {
    /// The content of kind mail.
    id: ContentId,
    /// Whether it may go straight to the renderers.
    is_light: bool,
    /// It, and what comes along with it.
    contents: Vec<NewContent>,
}

/// What the recipients of a call get.
struct Made {
    recipients: Recipients,
    template: Option<TemplateId>,
    stocks: Vec<Stock>,
    /// Which of these each accepted recipient gets; beyond its end, the first.
    of: Vec<usize>,
    /// The files that they share.
    files: Vec<NewContent>,
}

/// Takes mail in.
pub struct Intake {
    /// The group commit.
    pub acceptor: Acceptor,
    /// The time.
    pub clock: Clock,
    /// What calls name.
    pub names: Arc<Names>,
    /// The sites of recipients.
    pub sites: Sites,
    /// What tenants may send.
    pub quotas: Arc<QuotaBook>,
    /// What keeps mail from going straight.
    pub holds: Arc<Holds>,
    /// Bounds on contents.
    pub limits: Limits,
    /// Whether the fleet has a site for opens, clicks and unsubscriptions.
    pub tracked: bool,
    /// How long answers are kept.
    pub idempotency_term: Duration,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Contents that have passed before.
    pub good: Good,
}

/// Contents that have passed.
#[derive(Default)]
pub struct Good(RwLock<HashSet<ContentId>>);

impl Good {
    fn has(&self, id: ContentId) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).contains(&id)
    }

    fn add(&self, id: ContentId) {
        let mut good = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if good.len() >= MAX_GOOD {
            good.clear();
        }
        good.insert(id);
    }
}

impl Intake {
    /// Takes one call in; returns after its commit.
    ///
    /// # Errors
    /// When it is refused, as a whole.
    pub async fn take(
        &self,
        tenant: TenantId,
        trace: CallTrace,
        kind: Kind,
        request: v1::SendBatchRequest,
    ) -> Result<Taken, Fault> {
        let now = self.clock.now();
        let mut faults = Faults::default();
        let key = faults.take(validate::idempotency_key("idempotency_key", &request.idempotency_key)).flatten();
        let idempotency = key.map(|key| Idempotency {
            key,
            digest: digest(kind.name, &request),
            expires_at: now + self.idempotency_term,
        });
        let size = u32::try_from(request.recipients.len()).unwrap_or(u32::MAX);
        let draft = validate::mail(&mut faults, request.mail, kind.lane, now);
        if let Some(draft) = draft.as_ref().filter(|_| !self.tracked) {
            validate::refuse_tracking(&mut faults, draft);
        }
        // Of a mail at fault nothing is known; its recipients are looked at all the same.
        let unnamed = Labels::default();
        let shared = Shared {
            labels: draft.as_ref().map_or(&unnamed, |draft| &draft.labels),
            is_raw: draft.as_ref().is_some_and(|draft| matches!(draft.content, ContentDraft::Raw(_))),
            limits: &self.limits,
        };
        let recipients = faults.take(validate::recipients(request.recipients, kind.max_recipients, shared));
        let recipients = recipients.map(|mut looked| {
            if !kind.partial {
                looked.refused.drain(..).for_each(|(_, violation)| faults.push(violation));
            }
            looked
        });
        let (draft, recipients) = faults.finish(draft.zip(recipients))?;
        // What a name stands for may have changed since the first call under this key.
        let made = match self.made(tenant, kind, &draft, recipients).await {
            Ok(made) => made,
            Err(fault) => return self.repeat_or(tenant, idempotency.as_ref(), fault).await,
        };
        let Made { recipients, template, stocks, of, files } = made;
        let own_tags =
            recipients.accepted.iter().any(|one| one.overrides.as_ref().is_some_and(|own| !own.tags.is_empty()));
        let labels = Labels { own_tags, ..draft.labels.clone() };
        let charge = match self.quotas.take(tenant, recipients.accepted.len()).await {
            Ok(charge) => charge,
            Err(fault) => return self.repeat_or(tenant, idempotency.as_ref(), fault).await,
        };
        let batch = BatchId::new(self.clock.machine_now());
        let mut span = trace::step("accept", trace::Kind::Internal, trace.0.map(trace::Origin::Child));
        span.note(|| {
            vec![("mailfleet.batch.id", batch.to_string().into()), ("mailfleet.messages", i64::from(size).into())]
        });
        let mut call = AcceptCall {
            tenant,
            campaign: draft.campaign,
            batch,
            size,
            refused: to_stored(&recipients.refused),
            idempotency,
            labels,
            template,
            messages: self
                .messages(
                    tenant,
                    &draft,
                    batch,
                    |at| &stocks[of.get(at).copied().unwrap_or(0)],
                    recipients.accepted,
                    now,
                )
                .await,
            contents: files.into_iter().chain(stocks.into_iter().flat_map(|stock| stock.contents)).collect(),
        };
        trace_messages(&mut call.messages, span.place().or(trace.0));
        let accepted = self.acceptor.accept(call, charge).await;
        drop(span);
        match accepted? {
            Accepted::Fresh => {
                self.metrics.recipients_refused.inc_by(u64::try_from(recipients.refused.len()).unwrap_or(0));
                Ok(Taken { batch, size, refused: recipients.refused, replayed: false })
            }
            Accepted::Replayed(replay) => Ok(replay.into()),
        }
    }

    /// What the recipients of a call get.
    async fn made(
        &self,
        tenant: TenantId,
        kind: Kind,
        draft: &MailDraft,
        recipients: Recipients,
    ) -> Result<Made, Fault> {
        let Chosen { recipients, template, templates, of } = self.choose(tenant, draft, recipients).await?;
        if recipients.accepted.is_empty() || (!kind.partial && !recipients.refused.is_empty()) {
            let faults = recipients.refused.into_iter().map(|(_, fault)| fault).collect();
            return Err(if kind.partial { Fault::NoRecipientLeft(faults) } else { Fault::Invalid(faults) });
        }
        let (files, attachments) = attached(tenant, draft).await?;
        let mut stocks = Vec::with_capacity(templates.len());
        for content in templates {
            stocks.push(self.content(tenant, draft, content, &attachments).await?);
        }
        Ok(Made { recipients, template, stocks, of, files })
    }

    /// The answer to the first call under this key, whatever is wrong with it now; `fault` when there was none.
    async fn repeat_or(&self, tenant: TenantId, key: Option<&Idempotency>, fault: Fault) -> Result<Taken, Fault> {
        if let Some(key) = key {
            match self.acceptor.replay(tenant, key).await? {
                Some(AcceptOutcome::Replayed(replay)) => return Ok(replay.into()),
                Some(AcceptOutcome::KeyReused) if matches!(fault, Fault::QuotaExceeded { .. }) => {
                    return Err(Fault::KeyReused);
                }
                // Another call, which is told what is wrong with it.
                Some(AcceptOutcome::KeyReused | AcceptOutcome::Accepted { .. }) | None => {}
            }
        }
        Err(fault)
    }

    /// The content of kind mail, and the contents that come along; `template` is the one that a template draft means.
    async fn content(
        &self,
        tenant: TenantId,
        draft: &MailDraft,
        template: Option<ContentId>,
        attachments: &[Attachment],
    ) -> Result<Stock, Fault> {
        let identity = self.names.identity(tenant, &draft.from.mailbox.domain()).await?;
        let mut contents = Vec::with_capacity(2);
        let mut raw = None;
        let body = match &draft.content {
            ContentDraft::Template { .. } => {
                let unknown = Fault::TemplateUnknown { field: "mail.template.template" };
                Body::Template { content: template.ok_or(unknown)? }
            }
            ContentDraft::Inline { subject, html, text } => {
                Body::Inline { subject: subject.clone(), html: html.clone(), text: text.clone() }
            }
            ContentDraft::Raw(octets) => {
                let id = ContentId::of(tenant, &[b"raw", octets]);
                contents.push(NewContent { id, kind: ContentKind::Raw, body: octets.to_vec(), carried: 0 });
                raw = Some(octets.clone());
                Body::Raw { content: id }
            }
        };
        let source = mail_source(draft, body, identity, attachments.to_vec());
        let carried = carried(&source, raw.as_ref());
        if source.estimated_octets() > self.limits.max_message_bytes as u64 && !source.attachments.is_empty() {
            return Err(one_fault(Violation::of(
                ErrorReason::MailTooLarge,
                "mail.attachments",
                format!(
                    "make the mail too large; keep it within {} octets, of which attachments take 37 % more than they have",
                    self.limits.max_message_bytes
                ),
            )));
        }
        let stored = serde_json::to_vec(&source).map_err(|error| Fault::Internal(Box::new(error)))?;
        let id = ContentId::of(tenant, &[b"mail", &stored]);
        if !self.good.has(id) {
            let limits = self.limits.clone();
            let weight = stored.len() + raw.as_ref().map_or(0, bytes::Bytes::len);
            let look = move || {
                let mut findings = source.validate(&limits);
                if let Some(raw) = &raw {
                    findings.extend(content::validate_raw(&source, raw, &limits));
                }
                findings
            };
            let findings = if weight > LARGE {
                tokio::task::spawn_blocking(look).await.map_err(|error| Fault::Internal(Box::new(error)))?
            } else {
                look()
            };
            if !findings.is_empty() {
                let told = |finding: &content::Finding| {
                    Violation::from_finding(api_field(&finding.field, &draft.content), finding)
                };
                return Err(Fault::Invalid(findings.iter().map(told).collect()));
            }
            self.good.add(id);
        }
        contents.push(NewContent { id, kind: ContentKind::Mail, body: stored, carried });
        Ok(Stock { id, is_light: carried <= MAX_STRAIGHT, contents })
    }

    async fn messages<'a>(
        &self,
        tenant: TenantId,
        draft: &MailDraft,
        batch: BatchId,
        stock_of: impl Fn(usize) -> &'a Stock,
        recipients: Vec<validate::Accepted>,
        now: DateTime<Utc>,
    ) -> Vec<NewMessage> {
        let sites: Vec<SiteId> = if draft.labels.sandbox {
            vec![SiteId::sandbox(); recipients.len()]
        } else {
            let sites = self.sites.of(recipients.iter().map(|one| one.mailbox.domain_str())).await;
            recipients.iter().map(|one| sites[one.mailbox.domain_str()].clone()).collect()
        };
        let straight = draft.lane == Lane::Transactional && draft.times.send_at.is_none();
        let message = |(at, (recipient, site)): (usize, (validate::Accepted, SiteId))| {
            let stock = stock_of(at);
            // The dispatcher counts the octets of what it releases; what goes straight is counted by number alone.
            let goes = straight && stock.is_light && self.holds.lets_go(tenant, draft.campaign, &site, site.slot());
            NewMessage {
                id: MessageId::of_batch(batch, recipient.position),
                content: stock.id,
                recipient: recipient.mailbox,
                variables: recipient.variables,
                lane: draft.lane,
                site,
                due: (!goes).then(|| draft.times.send_at.unwrap_or(now)),
                expires_at: draft.times.expires_at,
                overrides: recipient.overrides.and_then(|own| serde_json::to_string(&own).ok()),
                trace: None,
            }
        };
        recipients.into_iter().zip(sites).enumerate().map(message).collect()
    }
}

/// The first messages of a call are told step by step, the others when they fail.
fn trace_messages(messages: &mut [NewMessage], place: Option<TraceContext>) {
    let Some(place) = place else { return };
    let most = trace::messages_per_call();
    for (at, message) in messages.iter_mut().enumerate() {
        message.trace = Some(if at < most { place } else { place.unsampled() });
    }
}

/// The files of a call, hashed once, however many languages its mail is in.
async fn attached(tenant: TenantId, draft: &MailDraft) -> Result<(Vec<NewContent>, Vec<Attachment>), Fault> {
    let files = draft.files.clone();
    let weight: usize = files.iter().map(|file| file.octets.len()).sum();
    let take_in = move || {
        let mut seen = HashSet::new();
        let (mut contents, mut attachments) = (Vec::new(), Vec::with_capacity(files.len()));
        for file in files {
            let id = ContentId::of(tenant, &[b"attachment", &file.octets]);
            attachments.push(Attachment {
                content: id,
                octets: file.octets.len() as u64,
                file_name: file.name,
                content_type: file.media_type,
                content_id: file.shown_as,
            });
            if seen.insert(id) {
                contents.push(NewContent { id, kind: ContentKind::Attachment, body: file.octets.to_vec(), carried: 0 });
            }
        }
        (contents, attachments)
    };
    if weight > LARGE {
        return tokio::task::spawn_blocking(take_in).await.map_err(|error| Fault::Internal(Box::new(error)));
    }
    Ok(take_in())
}

/// What the recipients of a call share, as it is stored.
pub fn mail_source(draft: &MailDraft, body: Body, identity: Identity, attachments: Vec<Attachment>) -> MailSource {
    MailSource {
        from: draft.from.clone(),
        reply_to: draft.reply_to.clone(),
        to_header: draft.to_header.clone(),
        cc_header: draft.cc_header.clone(),
        headers: draft.headers.clone(),
        body,
        unsubscribe: draft.unsubscribe.clone(),
        list_id: draft.list_id.clone(),
        feedback_id: None,
        lane: draft.lane,
        return_path: ReturnPath::PerMessage(identity.return_path),
        signing_domain: identity.signing,
        attachments,
        sandbox: draft.labels.sandbox,
        tracking: draft.tracking,
    }
}

impl From<Replay> for Taken {
    fn from(replay: Replay) -> Self {
        Self { batch: replay.batch, size: replay.size, refused: from_stored(&replay.refused), replayed: true }
    }
}

/// Octets of the contents that a mail names, as they travel. A template's are not known here, and are bounded.
fn carried(source: &MailSource, raw: Option<&bytes::Bytes>) -> u64 {
    match raw {
        Some(raw) => raw.len() as u64,
        None if source.attachments.is_empty() => 0,
        None => source.estimated_octets(),
    }
}

/// What tells a repeat from another request under the same key. Equal messages have equal encodings, since their maps
/// are sorted.
fn digest(name: &str, request: &v1::SendBatchRequest) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(name.as_bytes());
    hash.update(request.encode_to_vec());
    hash.finalize().into()
}

/// The refused recipients as they are kept: `[[position, reason, field, description], ...]`.
fn to_stored(refused: &[Refused]) -> serde_json::Value {
    refused
        .iter()
        .map(|(position, violation)| {
            serde_json::json!([position, i32::from(violation.reason), violation.field, violation.description])
        })
        .collect()
}

fn from_stored(refused: &serde_json::Value) -> Vec<Refused> {
    type Row = (u32, i32, String, String);
    let rows: Vec<Row> = serde::Deserialize::deserialize(refused).unwrap_or_default();
    rows.into_iter()
        .map(|(position, reason, field, description)| {
            let reason = ErrorReason::try_from(reason).unwrap_or(ErrorReason::FieldInvalid);
            (position, Violation::of(reason, field, description))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_refused_are_told_again_as_they_were() {
        let refused = vec![(3, Violation::of(ErrorReason::RecipientInvalid, "recipients[3].email", "is empty"))];
        assert_eq!(from_stored(&to_stored(&refused)), refused);
        assert_eq!(from_stored(&serde_json::Value::Null), Vec::new());
    }

    #[test]
    fn another_body_or_another_call_has_another_digest() {
        let request = |email: &str| v1::SendBatchRequest {
            recipients: vec![v1::Recipient { email: email.to_owned(), ..v1::Recipient::default() }],
            idempotency_key: "k".to_owned(),
            ..Default::default()
        };
        assert_eq!(digest("batch", &request("a@example.com")), digest("batch", &request("a@example.com")));
        assert_ne!(digest("batch", &request("a@example.com")), digest("batch", &request("b@example.com")));
        assert_ne!(digest("batch", &request("a@example.com")), digest("message", &request("a@example.com")));
    }
}
