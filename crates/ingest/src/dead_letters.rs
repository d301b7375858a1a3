//! The part of `QueueService` that is about messages which ended as failed.

use crate::{
    Fault,
    auth::{Caller, Scope},
    cursor::{self, List},
    mail::one_fault,
    queues::{Queues, wire_lane},
    validate::{BULK_TTL, Faults, TRANSACTIONAL_TTL, Violation, campaign, id},
    wire::timestamp,
};
use domain::{BatchId, CampaignId, Labels, Lane, MessageId, TemplateId, TenantId};
use proto::v1::{
    ListDeadLettersRequest, ListDeadLettersResponse, Refusal, RequeueDeadLettersRequest, RequeueDeadLettersResponse,
    RequeueResult, requeue_result::Outcome,
};
use std::collections::HashMap;
use store::{AcceptCall, DeadLetter, Given, NewMessage, Requeue};

/// Most messages of a page.
pub const MAX_PAGE: u32 = 1_000;
/// Most messages of one call.
pub const MAX_REQUEUE: usize = 1_000;

/// A page of them.
///
/// # Errors
/// When the request is at fault, or the database does not answer.
pub async fn list(
    queues: &Queues,
    caller: &Caller,
    request: &ListDeadLettersRequest,
) -> Result<ListDeadLettersResponse, Fault> {
    let tenant = caller.tenant(Scope::Read)?;
    let campaign = campaign("campaign_id", &request.campaign_id).map_err(one_fault)?;
    let size = cursor::size(request.page_size, MAX_PAGE).map_err(one_fault)?;
    let seq = |parts: &[&str]| parts.first()?.parse::<i64>().ok();
    let filters = ListDeadLettersRequest { page_size: 0, page_token: String::new(), ..request.clone() };
    let list = List::of("dead letters", Some(tenant), &filters);
    let before = list.place(&request.page_token, seq).map_err(one_fault)?.unwrap_or(i64::MAX);
    let mut found = queues.store.dead_letters(tenant, campaign, before, size + 1).await?;
    let next_page_token = list.cut(&mut found, size, |letter| vec![letter.seq.to_string()]);
    Ok(ListDeadLettersResponse { dead_letters: found.into_iter().map(wire).collect(), next_page_token })
}

fn wire(letter: DeadLetter) -> proto::v1::DeadLetter {
    proto::v1::DeadLetter {
        message_id: letter.message.to_string(),
        recipient: letter.recipient.to_string(),
        campaign_id: letter.campaign.map_or_else(String::new, |id| id.to_string()),
        lane: wire_lane(letter.lane).into(),
        site: letter.site.to_string(),
        failed_at: Some(timestamp(letter.failed_at)),
        text: letter.text,
        requeued_as: letter.requeued_as.map_or_else(String::new, |id| id.to_string()),
    }
}

/// Sends them again.
///
/// # Errors
/// When the request is at fault, or the database does not answer.
pub async fn requeue(
    queues: &Queues,
    caller: &Caller,
    request: &RequeueDeadLettersRequest,
) -> Result<RequeueDeadLettersResponse, Fault> {
    let tenant = caller.tenant(Scope::Send)?;
    let ids = ids(&request.message_ids)?;
    let store = caller.acting(&queues.store, "QueueService.RequeueDeadLetters");
    let mut asked = ids.clone();
    asked.sort_unstable();
    asked.dedup();
    let letters = store.dead_letters_among(tenant, &asked).await?;
    let found: Vec<MessageId> = letters.iter().map(|letter| letter.message).collect();
    let given = store.given_to(&found).await?;
    let (calls, pairs) = calls(queues, tenant, letters, given);
    let (links, mut filled) = store.requeue(calls, &pairs, queues.clock.now()).await?;
    tracing::info!(tenant.id = %tenant, asked = ids.len(), requeued = filled.len(), "requeued dead letters");
    filled.sort_unstable();
    filled.dedup();
    queues.bus.ring(&filled).await;
    let links: HashMap<MessageId, MessageId> = links.into_iter().map(|link| (link.old, link.new)).collect();
    // A link that stands for a message of another tenant is not told: only this tenant's dead letters were asked for.
    let result = |id: &MessageId| {
        let outcome = match links.get(id) {
            Some(new) => Outcome::RequeuedAs(new.to_string()),
            None => Outcome::Refusal(refusal()),
        };
        RequeueResult { message_id: id.to_string(), outcome: Some(outcome) }
    };
    Ok(RequeueDeadLettersResponse { results: ids.iter().map(result).collect() })
}

fn ids(given: &[String]) -> Result<Vec<MessageId>, Fault> {
    if given.is_empty() || given.len() > MAX_REQUEUE {
        let text = format!("has {} entries; give 1 to {MAX_REQUEUE}", given.len());
        return Err(one_fault(Violation::new("message_ids", text)));
    }
    let mut faults = Faults::default();
    let indexed = given.iter().enumerate();
    let ids = indexed.filter_map(|(at, text)| faults.take(id(&format!("message_ids[{at}]"), text))).collect();
    faults.finish(Some(ids))
}

fn refusal() -> Refusal {
    let fault = Fault::NotADeadLetter;
    Refusal { reason: fault.reason().into(), field: "message_ids".to_owned(), description: fault.to_string() }
}

/// Dead letters, with what they were given.
type Letters = Vec<(DeadLetter, Given)>;

/// A call for each campaign, labels and template, with the dead letters' content and what they were given.
fn calls(
    queues: &Queues,
    tenant: TenantId,
    letters: Vec<DeadLetter>,
    mut given: HashMap<MessageId, Given>,
) -> (Vec<AcceptCall>, Vec<Requeue>) {
    let now = queues.clock.now();
    let mut alike: Vec<(Option<CampaignId>, Labels, Option<TemplateId>, Letters)> = Vec::new();
    for letter in letters {
        let Some(given) = given.remove(&letter.message) else { continue };
        let known = alike.iter_mut().find(|(campaign, labels, template, _)| {
            (*campaign, labels, *template) == (letter.campaign, &given.labels, given.template)
        });
        match known {
            Some((.., members)) => members.push((letter, given)),
            None => alike.push((letter.campaign, given.labels.clone(), given.template, vec![(letter, given)])),
        }
    }
    let mut pairs = Vec::new();
    let calls = alike
        .into_iter()
        .map(|(campaign, labels, template, letters)| {
            let batch = BatchId::new(queues.clock.machine_now());
            let messages: Vec<NewMessage> = (0..)
                .zip(letters)
                .map(|(at, (letter, given))| {
                    let new = MessageId::of_batch(batch, at);
                    pairs.push(Requeue { old: letter.message, new });
                    NewMessage {
                        id: new,
                        content: letter.content,
                        recipient: letter.recipient,
                        variables: given.variables,
                        overrides: given.overrides,
                        trace: None,
                        lane: letter.lane,
                        site: letter.site,
                        due: Some(now),
                        expires_at: now
                            + match letter.lane {
                                Lane::Transactional => TRANSACTIONAL_TTL,
                                Lane::Bulk => BULK_TTL,
                            },
                    }
                })
                .collect();
            AcceptCall {
                tenant,
                campaign,
                batch,
                size: u32::try_from(messages.len()).unwrap_or(u32::MAX),
                refused: serde_json::Value::Array(Vec::new()),
                idempotency: None,
                labels,
                template,
                contents: Vec::new(),
                messages,
            }
        })
        .collect();
    (calls, pairs)
}
