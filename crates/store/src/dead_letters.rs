//! Dead letters: messages that ended as failed, and the new messages that they are sent again as.
//!
//! What has ended stays ended: a dead letter is never opened again. Its new message is accepted as any other is, in
//! the transaction that binds it to the old one; the old one's row there is the key, so there is one however often and
//! by how many at once it is asked for.

use crate::{
    AcceptCall, HOT, Store, StoreError,
    accept::{insert_batches, insert_messages, key_of},
    audit_log, call,
    listing::read_labels,
    transaction,
};
use chrono::{DateTime, Utc};
use domain::{CampaignId, ContentId, Labels, Lane, Mailbox, MessageId, SiteId, TemplateId, TenantId};
use sqlx::PgConnection;
use std::collections::{HashMap, HashSet};
use uuid::Uuid;

/// A message that ended as failed.
#[derive(Clone, Debug)]
pub struct DeadLetter {
    /// The message.
    pub message: MessageId,
    /// Its campaign.
    pub campaign: Option<CampaignId>,
    /// Its lane.
    pub lane: Lane,
    /// Where it was to go.
    pub site: SiteId,
    /// The envelope recipient.
    pub recipient: Mailbox,
    /// What was to be sent.
    pub content: ContentId,
    /// When it failed.
    pub failed_at: DateTime<Utc>,
    /// Why.
    pub text: String,
    /// The place of its end in the log.
    pub seq: i64,
    /// What it was sent again as.
    pub requeued_as: Option<MessageId>,
}

/// A dead letter and the message that it is to be sent again as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Requeue {
    /// The dead letter.
    pub old: MessageId,
    /// The new message.
    pub new: MessageId,
}

impl Store {
    /// Up to `limit` dead letters of a tenant whose ends come before `before` in the log, the last one first.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn dead_letters(
        &self,
        tenant: TenantId,
        campaign: Option<CampaignId>,
        before: i64,
        limit: u32,
    ) -> Result<Vec<DeadLetter>, StoreError> {
        let rows = transaction!(self, HOT, conn => {
            sqlx::query_as!(
                Row,
                r#"select e.message_id, e.campaign_id, e.lane, e.site, e.at, e.seq, e.detail ->> 'text' as text,
                          m.recipient as "recipient!", m.content_id as "content_id!",
                          r.new_message_id as "new_message_id?"
                   from mailfleet.message_events e
                   cross join lateral (select * from mailfleet.messages m where m.message_id = e.message_id) as m
                   left join lateral (select * from mailfleet.requeued r where r.message_id = e.message_id) as r on true
                   where e.tenant_id = $1 and e.kind = 2 and e.closing = 6 and e.seq < $2
                     and ($3::uuid is null or e.campaign_id = $3)
                   order by e.seq desc
                   limit $4"#,
                tenant.as_uuid(),
                before,
                campaign.map(|id| id.as_uuid()),
                i64::from(limit),
            )
            .fetch_all(&mut *conn)
            .await?
        })?;
        rows.into_iter().map(DeadLetter::try_from).collect()
    }

    /// Those of these messages that are dead letters of the tenant, in no order.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn dead_letters_among(
        &self,
        tenant: TenantId,
        messages: &[MessageId],
    ) -> Result<Vec<DeadLetter>, StoreError> {
        let ids: Vec<Uuid> = messages.iter().map(MessageId::as_uuid).collect();
        let rows = transaction!(self, HOT, conn => {
            sqlx::query_as!(
                Row,
                r#"select e.message_id, e.campaign_id, e.lane, e.site, e.at, e.seq, e.detail ->> 'text' as text,
                          m.recipient as "recipient!", m.content_id as "content_id!",
                          r.new_message_id as "new_message_id?"
                   from unnest($1::uuid[]) as a(message_id)
                   cross join lateral (select * from mailfleet.message_events e
                                       where e.message_id = a.message_id and e.kind = 2 and e.ordinal = 0) as e
                   cross join lateral (select * from mailfleet.messages m where m.message_id = a.message_id) as m
                   left join lateral (select * from mailfleet.requeued r where r.message_id = a.message_id) as r on true
                   where e.tenant_id = $2 and e.closing = 6"#,
                &ids,
                tenant.as_uuid(),
            )
            .fetch_all(&mut *conn)
            .await?
        })?;
        rows.into_iter().map(DeadLetter::try_from).collect()
    }

    /// What these messages were given.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn given_to(&self, messages: &[MessageId]) -> Result<HashMap<MessageId, Given>, StoreError> {
        let ids: Vec<Uuid> = messages.iter().map(MessageId::as_uuid).collect();
        let rows = call!(self, conn => {
            sqlx::query!(
                r#"select m.message_id as "message_id!", m.variables::text as "variables!", m.overrides::text as overrides,
                          b.labels as "labels?", b.template_id as "template_id?"
                   from mailfleet.messages m left join mailfleet.batches b on b.batch_id = m.batch_id
                   where m.message_id = any ($1)"#,
                &ids,
            )
            .fetch_all(conn)
            .await?
        })?;
        let given = rows.into_iter().map(|row| {
            let labels = read_labels(row.labels);
            let template = row.template_id.map(TemplateId::from_uuid);
            let given = Given { variables: row.variables, overrides: row.overrides, labels, template };
            (MessageId::from_uuid(row.message_id), given)
        });
        Ok(given.collect())
    }

    /// Accepts the new messages of dead letters in one transaction, but not of those that have one, were called back
    /// or are known to be delivered. Returns each dead letter with its message, which may be an earlier one, and the
    /// queues that got something.
    ///
    /// # Errors
    /// When the database does not answer; then none was accepted, or, after a time-out, nobody knows. A repeat gives
    /// the same answer.
    pub async fn requeue(
        &self,
        calls: Vec<AcceptCall>,
        pairs: &[Requeue],
        now: DateTime<Utc>,
    ) -> Result<(Vec<Requeue>, Vec<i64>), StoreError> {
        let keys: Vec<_> = calls.iter().flat_map(|call| call.messages.iter().map(|m| key_of(call, m))).collect();
        let numbers = self.queue_ids(&keys).await?;
        let new_ids = calls.iter().flat_map(|call| call.messages.iter().map(|message| message.id));
        let queues: HashMap<MessageId, i64> = new_ids.zip(numbers).collect();
        // Sorted for the locks.
        let mut pairs = pairs.to_vec();
        pairs.sort_by_key(|pair| pair.old);
        let old: Vec<Uuid> = pairs.iter().map(|pair| pair.old.as_uuid()).collect();
        let new: Vec<Uuid> = pairs.iter().map(|pair| pair.new.as_uuid()).collect();
        transaction!(self, HOT, conn => {
            let Some(tenant) = calls.first().map(|call| call.tenant) else { return Ok((Vec::new(), Vec::new())) };
            lock_out_cancels(conn, tenant).await?;
            let bound: HashSet<Uuid> = sqlx::query_scalar!(
                "insert into mailfleet.requeued (message_id, new_message_id, at)
                 select a.old, a.new, mailfleet.clock()
                 from unnest($1::uuid[], $2::uuid[]) as a(old, new)
                 cross join lateral (select * from mailfleet.messages m where m.message_id = a.old) as m
                 where not exists (select from mailfleet.marks k
                                   where k.subject_id = any (array[m.message_id, m.batch_id]))
                   and not exists (select from mailfleet.message_events e
                                   where e.message_id = a.old and e.kind = 6 and e.closing = 1)
                 order by a.old
                 on conflict do nothing
                 returning new_message_id",
                &old,
                &new,
            )
            .fetch_all(&mut *conn)
            .await?
            .into_iter()
            .collect();
            let mut fresh = calls.clone();
            for call in &mut fresh {
                call.messages.retain(|message| bound.contains(&message.id.as_uuid()));
            }
            fresh.retain(|call| !call.messages.is_empty());
            let ids: Vec<i64> = fresh.iter().flat_map(|call| &call.messages).map(|one| queues[&one.id]).collect();
            insert_batches(conn, &fresh, &HashMap::new(), now).await?;
            insert_messages(conn, &fresh, &HashMap::new(), &ids, now).await?;
            if let Some(call) = fresh.first() {
                let resource = format!("dead_letters: {} requeued", bound.len());
                audit_log::enter(self, conn, Some(call.tenant), &resource).await?;
            }
            let links = sqlx::query!(
                "select message_id, new_message_id from mailfleet.requeued where message_id = any ($1)",
                &old,
            )
            .fetch_all(&mut *conn)
            .await?
            .into_iter()
            .map(|row| Requeue {
                old: MessageId::from_uuid(row.message_id),
                new: MessageId::from_uuid(row.new_message_id),
            })
            .collect();
            (links, ids)
        })
    }
}

/// Requeues of one tenant and its cancels wait for each other, or a cancel could miss a new message that is not
/// committed yet, while its requeue misses the mark.
const ADVISORY_REQUEUE: i32 = 0x6d66_7271;

/// Until the end of the transaction, none of the tenant's messages is cancelled.
async fn lock_out_cancels(conn: &mut PgConnection, tenant: TenantId) -> Result<(), sqlx::Error> {
    let (space, key) = (ADVISORY_REQUEUE, tenant.as_uuid());
    sqlx::query!("select pg_advisory_xact_lock_shared($1, hashtext($2::uuid::text))", space, key).execute(conn).await?;
    Ok(())
}

/// Until the end of the transaction, none of the tenant's messages is sent again.
pub(crate) async fn lock_out_requeues(conn: &mut PgConnection, tenant: TenantId) -> Result<(), sqlx::Error> {
    let (space, key) = (ADVISORY_REQUEUE, tenant.as_uuid());
    sqlx::query!("select pg_advisory_xact_lock($1, hashtext($2::uuid::text))", space, key).execute(conn).await?;
    Ok(())
}

/// What a message was given at its accept, beside its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    /// A JSON object.
    pub variables: String,
    /// What the recipient has of his own, as it is stored.
    pub overrides: Option<String>,
    /// What its call was called.
    pub labels: Labels,
    /// What it is made from.
    pub template: Option<TemplateId>,
}

struct Row {
    message_id: Uuid,
    campaign_id: Option<Uuid>,
    lane: i16,
    site: String,
    at: DateTime<Utc>,
    seq: i64,
    text: Option<String>,
    recipient: String,
    content_id: Uuid,
    new_message_id: Option<Uuid>,
}

impl TryFrom<Row> for DeadLetter {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        let corrupt = |table, column| StoreError::Corrupt { table, column, id: row.message_id.to_string() };
        Ok(Self {
            message: MessageId::from_uuid(row.message_id),
            campaign: row.campaign_id.map(CampaignId::from_uuid),
            lane: Lane::from_code(row.lane).ok_or_else(|| corrupt("message_events", "lane"))?,
            site: SiteId::from_stored(row.site),
            recipient: row.recipient.parse().map_err(|_| corrupt("messages", "recipient"))?,
            content: ContentId::from_uuid(row.content_id),
            failed_at: row.at,
            text: row.text.unwrap_or_default(),
            seq: row.seq,
            requeued_as: row.new_message_id.map(MessageId::from_uuid),
        })
    }
}
