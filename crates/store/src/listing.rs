//! Lists of a tenant's messages.
//!
//! There is no index on messages but their key, since every accept would pay for it. A list walks over the tenant's
//! calls instead, newest first: there is one row a call, and the ids of its messages derive from the call's. What one
//! call to the list may look at is bounded, so it may find less than was asked for and go on from there.

use crate::{Store, StoreError, transaction};
use chrono::{DateTime, Utc};
use domain::{BatchId, CampaignId, Closing, Labels, Mailbox, MessageId, Overrides, Place, TenantId};
use uuid::Uuid;

/// Calls read in one statement.
const CALLS: usize = 500;
/// Messages looked up in one statement.
const MESSAGES: usize = 500;
/// Most calls that one list reads.
const MAX_CALLS: usize = 5_000;
/// Most messages that one list looks up; a statement takes some milliseconds for its 500.
const MAX_MESSAGES: usize = 10_000;
/// A look: index scans alone, whatever was planned while a table was empty.
const LOOK: &str = "begin read only; set local enable_seqscan = off";

/// The code of a place in `list.sql`; no message is nowhere.
fn code(place: Place) -> i32 {
    match place {
        Place::Nowhere => -1,
        Place::Waiting => 0,
        Place::Released | Place::Sending | Place::InDoubt => place.moving_code().map_or(-1, i32::from),
        Place::Closed(closing) => 10 + i32::from(closing.code()),
    }
}

/// The place with this code.
fn place(code: i32) -> Option<Place> {
    let code = i16::try_from(code).ok()?;
    match code {
        0 => Some(Place::Waiting),
        1..10 => Place::from_moving_code(code),
        _ => Closing::from_code(code - 10).map(Place::Closed),
    }
}

/// Which messages a list holds; what is absent lets all pass.
#[derive(Clone, Debug, Default)]
pub struct ListFilter {
    /// Of this campaign.
    pub campaign: Option<CampaignId>,
    /// With this tag.
    pub tag: Option<String>,
    /// To this mailbox.
    pub recipient: Option<Mailbox>,
    /// Accepted then or later, to the millisecond.
    pub from: Option<DateTime<Utc>>,
    /// Accepted before, to the millisecond.
    pub before: Option<DateTime<Utc>>,
    /// Where it is now.
    pub place: Option<Place>,
}

/// Where a list goes on: with this recipient of this call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListPosition {
    /// The call.
    pub batch: BatchId,
    /// The recipient's position in it.
    pub next: u32,
}

/// A message in a list.
#[derive(Clone, Debug)]
pub struct Listed {
    /// The message.
    pub id: MessageId,
    /// The call that brought it.
    pub batch: BatchId,
    /// Its campaign.
    pub campaign: Option<CampaignId>,
    /// To whom.
    pub recipient: Mailbox,
    /// Where it is.
    pub place: Place,
    /// When it came to its end.
    pub closed_at: Option<DateTime<Utc>>,
    /// What it is called.
    pub labels: Labels,
}

/// A call as the walk sees it.
struct Call {
    batch: BatchId,
    campaign: Option<CampaignId>,
    size: u32,
    labels: Labels,
}

/// The smallest id made at this time or later.
fn first_id(at: DateTime<Utc>) -> u128 {
    u128::try_from(at.timestamp_millis()).unwrap_or(0) << 80
}

impl Store {
    /// Up to `limit` messages of this tenant, newest call first, from `after` on; and where the list goes on, unless
    /// it has ended. There may be fewer, or none, and still more to come.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn list_messages(
        &self,
        tenant: TenantId,
        filter: &ListFilter,
        after: Option<ListPosition>,
        limit: usize,
    ) -> Result<(Vec<Listed>, Option<ListPosition>), StoreError> {
        let mut found = Vec::new();
        let (mut calls, mut messages) = (0, 0);
        let mut newest = match after {
            Some(after) => after.batch.as_uuid().as_u128(),
            None => filter.before.map_or(u128::MAX, |before| first_id(before).saturating_sub(1)),
        };
        let mut skip = after.map_or(0, |after| after.next);
        loop {
            let page = self.calls_of(tenant, filter, newest).await?;
            let is_last = page.len() < CALLS;
            calls += page.len();
            let mut places = page.iter().filter(|call| may_have(call, filter.tag.as_deref())).flat_map(|call| {
                let begin = if call.batch.as_uuid().as_u128() == newest { skip } else { 0 };
                (begin..call.size).map(move |position| (call, position))
            });
            loop {
                let chunk: Vec<(&Call, u32)> = places.by_ref().take(MESSAGES).collect();
                let Some((last, position)) = chunk.last().copied() else { break };
                messages += chunk.len();
                for (listed, position) in self.listed(filter, &chunk).await? {
                    if found.len() == limit {
                        return Ok((found, Some(ListPosition { batch: listed.batch, next: position })));
                    }
                    found.push(listed);
                }
                if messages >= MAX_MESSAGES {
                    return Ok((found, Some(ListPosition { batch: last.batch, next: position + 1 })));
                }
            }
            let Some(last) = page.last().filter(|_| !is_last) else { return Ok((found, None)) };
            if calls >= MAX_CALLS {
                return Ok((found, Some(ListPosition { batch: last.batch, next: last.size })));
            }
            newest = last.batch.as_uuid().as_u128().saturating_sub(1);
            skip = 0;
        }
    }

    /// The tenant's calls from `newest` down.
    async fn calls_of(&self, tenant: TenantId, filter: &ListFilter, newest: u128) -> Result<Vec<Call>, StoreError> {
        struct Row {
            batch_id: Uuid,
            campaign_id: Option<Uuid>,
            size: i32,
            labels: Option<serde_json::Value>,
        }
        let oldest = Uuid::from_u128(filter.from.map_or(0, first_id));
        let newest = Uuid::from_u128(newest);
        let limit = i64::try_from(CALLS).unwrap_or(i64::MAX);
        let rows = transaction!(self, LOOK, conn => {
            // Two statements, since each has an index of its own.
            match filter.campaign {
                Some(campaign) => sqlx::query_as!(
                    Row,
                    "select batch_id, campaign_id, size, labels from mailfleet.batches
                     where campaign_id = $1 and tenant_id = $2 and batch_id between $3 and $4
                     order by batch_id desc limit $5",
                    campaign.as_uuid(),
                    tenant.as_uuid(),
                    oldest,
                    newest,
                    limit,
                )
                .fetch_all(&mut *conn)
                .await?,
                None => sqlx::query_as!(
                    Row,
                    "select batch_id, campaign_id, size, labels from mailfleet.batches
                     where tenant_id = $1 and batch_id between $2 and $3
                     order by batch_id desc limit $4",
                    tenant.as_uuid(),
                    oldest,
                    newest,
                    limit,
                )
                .fetch_all(&mut *conn)
                .await?,
            }
        })?;
        Ok(rows
            .into_iter()
            .map(|row| Call {
                batch: BatchId::from_uuid(row.batch_id),
                campaign: row.campaign_id.map(CampaignId::from_uuid),
                size: u32::try_from(row.size).unwrap_or(0),
                labels: read_labels(row.labels),
            })
            .collect())
    }

    /// Those of these recipients that pass the filter, with their position, in their order.
    async fn listed(&self, filter: &ListFilter, chunk: &[(&Call, u32)]) -> Result<Vec<(Listed, u32)>, StoreError> {
        let ids: Vec<Uuid> =
            chunk.iter().map(|(call, position)| MessageId::of_batch(call.batch, *position).as_uuid()).collect();
        let recipient = filter.recipient.as_ref().map(Mailbox::as_str);
        let rows = transaction!(self, LOOK, conn => {
            sqlx::query_file!(
                "src/sql/list.sql",
                &ids,
                recipient.map(str::to_lowercase),
                recipient,
                filter.place.map(code),
            )
            .fetch_all(&mut *conn)
            .await?
        })?;
        let mut listed = Vec::with_capacity(rows.len());
        for row in rows {
            let corrupt = |column| StoreError::Corrupt { table: "messages", column, id: row.message_id.to_string() };
            let asked = usize::try_from(row.place - 1).ok().and_then(|place| chunk.get(place));
            let (call, position) = *asked.ok_or_else(|| corrupt("message_id"))?;
            let labels = call.labels.clone().with(read_overrides(row.overrides.as_deref()).as_ref());
            if filter.tag.as_ref().is_some_and(|tag| !labels.tags.contains(tag)) {
                continue;
            }
            let one = Listed {
                id: MessageId::from_uuid(row.message_id),
                batch: call.batch,
                campaign: call.campaign,
                recipient: row.recipient.parse().map_err(|_| corrupt("recipient"))?,
                place: place(row.state).ok_or_else(|| corrupt("state"))?,
                closed_at: row.closed_at,
                labels,
            };
            listed.push((one, position));
        }
        Ok(listed)
    }
}

/// Whether a message of this call can have the tag.
fn may_have(call: &Call, tag: Option<&str>) -> bool {
    tag.is_none_or(|tag| call.labels.own_tags || call.labels.tags.iter().any(|own| own == tag))
}

/// What a call is called; nothing where nothing was said.
pub(crate) fn read_labels(labels: Option<serde_json::Value>) -> Labels {
    labels.and_then(|labels| serde_json::from_value(labels).ok()).unwrap_or_default()
}

/// What a recipient has of his own.
pub(crate) fn read_overrides(text: Option<&str>) -> Option<Overrides> {
    serde_json::from_str(text?).ok()
}
