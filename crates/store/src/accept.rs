//! Accepting mail: one transaction for many concurrent calls.
//!
//! A crash before the commit leaves nothing and answers nobody. A crash after it leaves messages that wait, or
//! that are released and will be repaired when no one publishes their job.

use crate::{HOT, KNOWN_LIMIT, QueueKey, Store, StoreError, call, contents::ContentKind, transaction};
use chrono::{DateTime, Utc};
use domain::{
    BatchId, CampaignId, ContentId, Labels, Lane, Mailbox, MessageId, SiteId, TemplateId, TenantId, TraceContext,
};
use std::collections::HashMap;
use uuid::Uuid;

/// A content that a call brings along.
#[derive(Clone, Debug)]
pub struct NewContent {
    /// Its name: the hash of what it holds.
    pub id: ContentId,
    /// What the body is.
    pub kind: ContentKind,
    /// The content as it is kept.
    pub body: Vec<u8>,
    /// Octets of the other contents that it names, as they travel.
    pub carried: u64,
}

/// One envelope recipient of a call.
#[derive(Clone, Debug)]
pub struct NewMessage {
    /// `MessageId::of_batch` of the call's batch and this recipient's position in the call.
    pub id: MessageId,
    /// The content to send, of kind mail.
    pub content: ContentId,
    /// The envelope recipient.
    pub recipient: Mailbox,
    /// A JSON object; the caller has checked it. No `\u0000`.
    pub variables: String,
    /// How urgent it is.
    pub lane: Lane,
    /// The destination site as far as it is known.
    pub site: SiteId,
    /// When it may go at the earliest; `None` puts it straight on its way as released, release number 1.
    pub due: Option<DateTime<Utc>>,
    /// The end of its time to live.
    pub expires_at: DateTime<Utc>,
    /// What else differs from recipient to recipient: `domain::Overrides` as JSON, if anything does. No `\u0000`.
    pub overrides: Option<String>,
    /// Where its trace began, if somebody traces it.
    pub trace: Option<TraceContext>,
}

/// A key under which a repeated call gets the first one's answer.
#[derive(Clone, Debug)]
pub struct Idempotency {
    /// Chosen by the caller; unique in its tenant.
    pub key: String,
    /// SHA-256 of the request, to tell a repeat from another request under the same key.
    pub digest: [u8; 32],
    /// Until when the answer is kept.
    pub expires_at: DateTime<Utc>,
}

/// One call to accept.
#[derive(Clone, Debug)]
pub struct AcceptCall {
    /// Whose mail it is.
    pub tenant: TenantId,
    /// The campaign that groups it.
    pub campaign: Option<CampaignId>,
    /// The call's own id, made at its arrival.
    pub batch: BatchId,
    /// How many recipients the call named, refused ones included.
    pub size: u32,
    /// What was refused, as the answer tells it; kept for repeats.
    pub refused: serde_json::Value,
    /// The key for repeats, if any.
    pub idempotency: Option<Idempotency>,
    /// What the caller calls it.
    pub labels: Labels,
    /// The template that its mail is made from, if any.
    pub template: Option<TemplateId>,
    /// Contents that the messages name and that may not be stored yet.
    pub contents: Vec<NewContent>,
    /// The recipients that were good.
    pub messages: Vec<NewMessage>,
}

/// A call's first answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Replay {
    /// The first call's batch; its message ids derive from it.
    pub batch: BatchId,
    /// How many recipients the first call named.
    pub size: u32,
    /// What was refused then.
    pub refused: serde_json::Value,
}

/// What became of a call.
#[derive(Clone, Debug, PartialEq)]
pub enum AcceptOutcome {
    /// Committed.
    Accepted {
        /// The bus epoch under which its released messages stand.
        bus_epoch: i64,
        /// The queue of each message, in the call's order.
        queues: Vec<i64>,
    },
    /// The key was used for the same request before: nothing was stored, this was the answer.
    Replayed(Replay),
    /// The key was used for another request.
    KeyReused,
}

impl Store {
    /// Accepts all calls in one transaction; the outcomes stand in the calls' order.
    ///
    /// # Errors
    /// When the transaction fails: then none of the calls was accepted, or, after [`StoreError::Timeout`] or a
    /// lost connection, nobody knows; a repeat with the same batch ids inserts nothing twice.
    pub async fn accept(&self, calls: &[AcceptCall], now: DateTime<Utc>) -> Result<Vec<AcceptOutcome>, StoreError> {
        let keys: Vec<QueueKey> = calls.iter().flat_map(|call| call.messages.iter().map(|m| key_of(call, m))).collect();
        let queue_ids = self.queue_ids(&keys).await?;
        let new_contents = self.unknown_contents(calls);
        let outcomes = transaction!(self, HOT, conn => {
            let replays = remember(conn, calls, now).await?;
            insert_contents(conn, &new_contents, now).await?;
            let bus_epoch = sqlx::query_scalar!("select epoch from mailfleet.bus_state").fetch_one(&mut *conn).await?;
            insert_batches(conn, calls, &replays, now).await?;
            insert_messages(conn, calls, &replays, &queue_ids, now).await?;
            failpoint::hit!("ingest.accept.before");
            outcomes_of(calls, replays, &queue_ids, bus_epoch)
        })?;
        let mut known = self.known.contents.write().expect("no holder of this lock panics");
        if known.len() > KNOWN_LIMIT {
            known.clear();
        }
        known.extend(new_contents.iter().map(|(_, content)| content.id));
        Ok(outcomes)
    }

    /// The answer that is kept for a key, or that it was used for another request; `None` when it was not used.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn replay(
        &self,
        tenant: TenantId,
        key: &Idempotency,
        now: DateTime<Utc>,
    ) -> Result<Option<AcceptOutcome>, StoreError> {
        let row = call!(self, conn => {
            sqlx::query!(
                "select digest, batch_id, size, refused from mailfleet.idempotency
                 where tenant_id = $1 and key = $2 and expires_at > $3",
                tenant.as_uuid(),
                key.key,
                now,
            )
            .fetch_optional(conn)
            .await?
        })?;
        Ok(row.map(|row| {
            if row.digest != key.digest {
                return AcceptOutcome::KeyReused;
            }
            AcceptOutcome::Replayed(Replay {
                batch: BatchId::from_uuid(row.batch_id),
                size: u32::try_from(row.size).unwrap_or(0),
                refused: row.refused,
            })
        }))
    }

    fn unknown_contents<'a>(&self, calls: &'a [AcceptCall]) -> Vec<(TenantId, &'a NewContent)> {
        let known = self.known.contents.read().expect("no holder of this lock panics");
        let mut contents: Vec<_> = calls
            .iter()
            .flat_map(|call| call.contents.iter().map(|content| (call.tenant, content)))
            .filter(|(_, content)| !known.contains(&content.id))
            .collect();
        contents.sort_by_key(|(_, content)| content.id);
        contents.dedup_by_key(|(_, content)| content.id);
        contents
    }
}

pub(crate) fn key_of(call: &AcceptCall, message: &NewMessage) -> QueueKey {
    QueueKey { tenant: call.tenant, campaign: call.campaign, lane: message.lane, slot: message.site.slot(), site: None }
}

pub(crate) type Replays = HashMap<BatchId, AcceptOutcome>;

/// Stores the idempotency keys; returns the calls whose key was there, by their batch.
async fn remember(
    conn: &mut sqlx::PgConnection,
    calls: &[AcceptCall],
    now: DateTime<Utc>,
) -> Result<Replays, StoreError> {
    let mut keyed: Vec<(&AcceptCall, &Idempotency)> =
        calls.iter().filter_map(|call| call.idempotency.as_ref().map(|key| (call, key))).collect();
    if keyed.is_empty() {
        return Ok(Replays::new());
    }
    keyed.sort_by(|a, b| (a.0.tenant, &a.1.key, a.0.batch).cmp(&(b.0.tenant, &b.1.key, b.0.batch)));
    // Two calls of one group may bear the same key: the first one stores it, the second is a repeat.
    let mut first = keyed.clone();
    first.dedup_by(|a, b| a.0.tenant == b.0.tenant && a.1.key == b.1.key);
    let stored = sqlx::query!(
        r#"insert into mailfleet.idempotency as i (tenant_id, key, digest, batch_id, size, refused, expires_at)
           select * from unnest($1::uuid[], $2::text[], $3::bytea[], $4::uuid[], $5::integer[], $6::jsonb[],
                                $7::timestamptz[])
           on conflict (tenant_id, key) do update
           set digest = excluded.digest, batch_id = excluded.batch_id, size = excluded.size,
               refused = excluded.refused, expires_at = excluded.expires_at
           where i.expires_at <= $8
           returning batch_id"#,
        &first.iter().map(|(call, _)| call.tenant.as_uuid()).collect::<Vec<_>>(),
        &first.iter().map(|(_, key)| key.key.clone()).collect::<Vec<_>>(),
        &first.iter().map(|(_, key)| key.digest.to_vec()).collect::<Vec<_>>(),
        &first.iter().map(|(call, _)| call.batch.as_uuid()).collect::<Vec<_>>(),
        &first.iter().map(|(call, _)| i32::try_from(call.size).unwrap_or(i32::MAX)).collect::<Vec<_>>(),
        &first.iter().map(|(call, _)| call.refused.clone()).collect::<Vec<_>>(),
        &first.iter().map(|(_, key)| key.expires_at).collect::<Vec<_>>(),
        now,
    )
    .fetch_all(&mut *conn)
    .await?;
    let mut replays = Replays::new();
    for (call, key) in keyed {
        if stored.iter().any(|row| row.batch_id == call.batch.as_uuid()) {
            continue;
        }
        let row = sqlx::query!(
            "select digest, batch_id, size, refused from mailfleet.idempotency where tenant_id = $1 and key = $2",
            call.tenant.as_uuid(),
            key.key,
        )
        .fetch_one(&mut *conn)
        .await?;
        let outcome = if row.batch_id == call.batch.as_uuid() {
            continue; // our own commit, whose answer was lost: the inserts below find everything there
        } else if row.digest == key.digest {
            AcceptOutcome::Replayed(Replay {
                batch: BatchId::from_uuid(row.batch_id),
                size: u32::try_from(row.size).unwrap_or(0),
                refused: row.refused,
            })
        } else {
            AcceptOutcome::KeyReused
        };
        replays.insert(call.batch, outcome);
    }
    Ok(replays)
}

async fn insert_contents(
    conn: &mut sqlx::PgConnection,
    contents: &[(TenantId, &NewContent)],
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    if contents.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "insert into mailfleet.contents (content_id, tenant_id, kind, body, created_at, carried)
         select id, tenant, kind, body, $5, carried
         from unnest($1::uuid[], $2::uuid[], $3::smallint[], $4::bytea[], $6::bigint[])
             as c(id, tenant, kind, body, carried)
         on conflict do nothing",
        &contents.iter().map(|(_, c)| c.id.as_uuid()).collect::<Vec<_>>(),
        &contents.iter().map(|(tenant, _)| tenant.as_uuid()).collect::<Vec<_>>(),
        &contents.iter().map(|(_, c)| c.kind.code()).collect::<Vec<_>>(),
        &contents.iter().map(|(_, c)| c.body.as_slice()).collect::<Vec<_>>() as &[&[u8]],
        now,
        &contents.iter().map(|(_, c)| i64::try_from(c.carried).unwrap_or(i64::MAX)).collect::<Vec<_>>(),
    )
    .execute(conn)
    .await?;
    Ok(())
}

pub(crate) async fn insert_batches(
    conn: &mut sqlx::PgConnection,
    calls: &[AcceptCall],
    replays: &Replays,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    let fresh: Vec<&AcceptCall> = calls.iter().filter(|call| !replays.contains_key(&call.batch)).collect();
    sqlx::query!(
        "insert into mailfleet.batches (batch_id, tenant_id, campaign_id, size, created_at, labels, template_id)
         select id, tenant, campaign, size, $5, labels, template
         from unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::integer[], $6::jsonb[], $7::uuid[])
             as b(id, tenant, campaign, size, labels, template)
         on conflict do nothing",
        &fresh.iter().map(|call| call.batch.as_uuid()).collect::<Vec<_>>(),
        &fresh.iter().map(|call| call.tenant.as_uuid()).collect::<Vec<_>>(),
        &fresh.iter().map(|call| call.campaign.map(|id| id.as_uuid())).collect::<Vec<_>>() as &[Option<Uuid>],
        &fresh.iter().map(|call| i32::try_from(call.size).unwrap_or(i32::MAX)).collect::<Vec<_>>(),
        now,
        &fresh.iter().map(|call| labels_of(call)).collect::<Vec<_>>() as &[Option<serde_json::Value>],
        &fresh.iter().map(|call| call.template.map(|id| id.as_uuid())).collect::<Vec<_>>() as &[Option<Uuid>],
    )
    .execute(conn)
    .await?;
    Ok(())
}

fn labels_of(call: &AcceptCall) -> Option<serde_json::Value> {
    if call.labels.is_empty() { None } else { serde_json::to_value(&call.labels).ok() }
}

pub(crate) async fn insert_messages(
    conn: &mut sqlx::PgConnection,
    calls: &[AcceptCall],
    replays: &Replays,
    queue_ids: &[i64],
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    let mut rows = Columns::default();
    let mut position = 0;
    for call in calls {
        let fresh = !replays.contains_key(&call.batch);
        for message in &call.messages {
            if fresh {
                rows.push(call, message, queue_ids[position]);
            }
            position += 1;
        }
    }
    if rows.message.is_empty() {
        return Ok(());
    }
    sqlx::query_file!(
        "src/sql/accept.sql",
        &rows.message,
        &rows.tenant,
        &rows.campaign as &[Option<Uuid>],
        &rows.batch,
        &rows.content,
        &rows.recipient,
        &rows.variables,
        &rows.expires_at,
        &rows.queue,
        &rows.due as &[Option<DateTime<Utc>>],
        &rows.address_hash,
        &rows.lane,
        &rows.slot,
        &rows.site,
        now,
        &rows.overrides as &[Option<String>],
        &rows.trace as &[Option<Vec<u8>>],
    )
    .execute(conn)
    .await?;
    Ok(())
}

fn outcomes_of(calls: &[AcceptCall], mut replays: Replays, queue_ids: &[i64], bus_epoch: i64) -> Vec<AcceptOutcome> {
    let mut position = 0;
    calls
        .iter()
        .map(|call| {
            let queues = queue_ids[position..position + call.messages.len()].to_vec();
            position += call.messages.len();
            replays.remove(&call.batch).unwrap_or(AcceptOutcome::Accepted { bus_epoch, queues })
        })
        .collect()
}

/// The columns of `accept.sql`.
#[derive(Default)]
struct Columns {
    message: Vec<Uuid>,
    tenant: Vec<Uuid>,
    campaign: Vec<Option<Uuid>>,
    batch: Vec<Uuid>,
    content: Vec<Uuid>,
    recipient: Vec<String>,
    variables: Vec<String>,
    expires_at: Vec<DateTime<Utc>>,
    queue: Vec<i64>,
    due: Vec<Option<DateTime<Utc>>>,
    address_hash: Vec<Uuid>,
    lane: Vec<i16>,
    slot: Vec<i16>,
    site: Vec<String>,
    overrides: Vec<Option<String>>,
    trace: Vec<Option<Vec<u8>>>,
}

impl Columns {
    fn push(&mut self, call: &AcceptCall, message: &NewMessage, queue: i64) {
        self.message.push(message.id.as_uuid());
        self.tenant.push(call.tenant.as_uuid());
        self.campaign.push(call.campaign.map(|id| id.as_uuid()));
        self.batch.push(call.batch.as_uuid());
        self.content.push(message.content.as_uuid());
        self.recipient.push(message.recipient.as_str().to_owned());
        self.variables.push(message.variables.clone());
        self.expires_at.push(message.expires_at);
        self.queue.push(queue);
        self.due.push(message.due);
        self.address_hash.push(message.recipient.hash().as_uuid());
        self.lane.push(message.lane.code());
        self.slot.push(message.site.slot().code());
        self.site.push(message.site.as_str().to_owned());
        self.overrides.push(message.overrides.clone());
        self.trace.push(message.trace.map(|trace| trace.to_octets().to_vec()));
    }
}
