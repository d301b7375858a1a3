//! One message as its owner sees it: what it is, where it is, what happened.

use crate::{
    Store, StoreError,
    listing::{read_labels, read_overrides},
    transaction,
};
use chrono::{DateTime, Utc};
use domain::fact::{FactDetail, FactKind};
use domain::{BatchId, CampaignId, Closing, ContentId, Labels, Mailbox, MessageId, SiteId, TenantId, TraceContext};

/// Where a message is now.
#[derive(Clone, Debug, PartialEq)]
pub enum Whereabouts {
    /// Rests until it is due.
    Waiting {
        /// When it may go at the earliest.
        due: DateTime<Utc>,
        /// Its queue.
        queue: i64,
        /// Whether a pause holds the queue.
        paused: bool,
        /// What the receiver said last, if it did.
        last_reply: Option<String>,
        /// Attempts made.
        attempt: u16,
    },
    /// Released to the renderers and senders.
    Released {
        /// Since when.
        since: DateTime<Utc>,
        /// Attempts made.
        attempt: u16,
    },
    /// In the hands of a sender.
    Sending {
        /// Since when.
        since: DateTime<Utc>,
        /// Attempts made.
        attempt: u16,
    },
    /// May or may not have been delivered.
    InDoubt {
        /// Since when.
        since: DateTime<Utc>,
    },
    /// Over.
    Closed(Closing),
    /// Between two tables at the moment of the look; ask again.
    Moving,
}

/// An entry of a message's history.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// What kind.
    pub kind: FactKind,
    /// How it ended, for closing facts.
    pub closing: Option<Closing>,
    /// 0, or the release number.
    pub ordinal: u32,
    /// When it happened.
    pub at: DateTime<Utc>,
    /// Its place in the log; `None` until it has been folded.
    pub seq: Option<i64>,
    /// The rest.
    pub detail: FactDetail,
}

/// A message as its owner sees it.
#[derive(Clone, Debug)]
pub struct MessageView {
    /// The message.
    pub id: MessageId,
    /// Whose it is.
    pub tenant: TenantId,
    /// Its campaign.
    pub campaign: Option<CampaignId>,
    /// The call that brought it.
    pub batch: BatchId,
    /// What is sent.
    pub content: ContentId,
    /// To whom.
    pub recipient: Mailbox,
    /// The site as far as it is known.
    pub site: SiteId,
    /// The end of its time to live.
    pub expires_at: DateTime<Utc>,
    /// Where it is.
    pub whereabouts: Whereabouts,
    /// What it is called.
    pub labels: Labels,
    /// Whether its cancel has been asked for.
    pub cancel_asked: bool,
    /// Where its trace began, if somebody traces it.
    pub trace: Option<TraceContext>,
    /// What happened, oldest first.
    pub events: Vec<Event>,
}

impl Store {
    /// A message of this tenant (`None`: of any), or `None`.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn message(&self, tenant: Option<TenantId>, id: MessageId) -> Result<Option<MessageView>, StoreError> {
        // One snapshot, so that a message is not missed while it changes tables.
        let found = transaction!(self, "begin isolation level repeatable read read only", conn => {
            let message = sqlx::query!(
                r#"select m.tenant_id as "tenant_id!", m.campaign_id as "campaign_id?", m.batch_id as "batch_id!",
                          m.content_id as "content_id!", m.recipient as "recipient!", m.expires_at as "expires_at!",
                          m.overrides::text as overrides, m.trace, b.labels as "labels?"
                   from mailfleet.messages m left join mailfleet.batches b using (batch_id)
                   where m.message_id = $1 and ($2::uuid is null or m.tenant_id = $2)"#,
                id.as_uuid(),
                tenant.map(|id| id.as_uuid()),
            )
            .fetch_optional(&mut *conn)
            .await?;
            let Some(message) = message else { return Ok(None) };
            let waiting = sqlx::query!(
                r#"select w.due, w.queue_id, w.last_reply, w.attempt, w.site, mailfleet.is_paused(q)
                          or exists (select from mailfleet.pauses p where p.site = w.site) as "paused!"
                   from mailfleet.waiting w join mailfleet.queues q using (queue_id) where w.message_id = $1"#,
                id.as_uuid()
            )
            .fetch_optional(&mut *conn)
            .await?;
            let moving = sqlx::query!(
                "select state, since, attempt, site from mailfleet.moving where message_id = $1",
                id.as_uuid()
            )
            .fetch_optional(&mut *conn)
            .await?;
            let events = sqlx::query!(
                r#"select kind as "kind!", closing, ordinal as "ordinal!", at as "at!", seq, detail as "detail!",
                          site as "site!"
                   from (
                       select kind, closing, ordinal, at, seq, detail, site
                       from mailfleet.message_events where message_id = $1
                       union all
                       select kind, closing, ordinal, at, null, detail, site
                       from mailfleet.facts where message_id = $1
                   ) as e
                   order by at, seq nulls last, kind"#,
                id.as_uuid()
            )
            .fetch_all(&mut *conn)
            .await?;
            let cancel_asked = sqlx::query_scalar!(
                r#"select exists (select from mailfleet.marks
                                  where subject_id = any (array[$1, $2]::uuid[]) and kind = 1) as "asked!""#,
                id.as_uuid(),
                message.batch_id,
            )
            .fetch_one(&mut *conn)
            .await?;
            Some((message, waiting, moving, events, cancel_asked))
        })?;
        let Some((message, waiting, moving, events, cancel_asked)) = found else { return Ok(None) };
        let site = waiting
            .as_ref()
            .map(|row| row.site.clone())
            .or_else(|| moving.as_ref().map(|row| row.site.clone()))
            .or_else(|| events.last().map(|row| row.site.clone()))
            .unwrap_or_default();
        let events: Vec<Event> = events
            .into_iter()
            .filter_map(|row| {
                Some(Event {
                    kind: FactKind::from_code(row.kind)?,
                    closing: row.closing.and_then(Closing::from_code),
                    ordinal: u32::try_from(row.ordinal).unwrap_or(0),
                    at: row.at,
                    seq: row.seq,
                    detail: serde_json::from_value(row.detail).unwrap_or_default(),
                })
            })
            .collect();
        let attempt = |attempt: i16| u16::try_from(attempt).unwrap_or(0);
        let whereabouts = if let Some(row) = waiting {
            Whereabouts::Waiting {
                due: row.due,
                queue: row.queue_id,
                paused: row.paused,
                last_reply: row.last_reply,
                attempt: attempt(row.attempt),
            }
        } else if let Some(row) = moving {
            match row.state {
                1 => Whereabouts::Released { since: row.since, attempt: attempt(row.attempt) },
                2 => Whereabouts::Sending { since: row.since, attempt: attempt(row.attempt) },
                _ => Whereabouts::InDoubt { since: row.since },
            }
        } else {
            events
                .iter()
                .find_map(|event| event.closing.filter(|_| event.kind == FactKind::Final))
                .map_or(Whereabouts::Moving, Whereabouts::Closed)
        };
        Ok(Some(MessageView {
            id,
            tenant: TenantId::from_uuid(message.tenant_id),
            campaign: message.campaign_id.map(CampaignId::from_uuid),
            batch: BatchId::from_uuid(message.batch_id),
            content: ContentId::from_uuid(message.content_id),
            recipient: message.recipient.parse().map_err(|_| StoreError::Corrupt {
                table: "messages",
                column: "recipient",
                id: id.to_string(),
            })?,
            site: SiteId::from_stored(site),
            expires_at: message.expires_at,
            whereabouts,
            labels: read_labels(message.labels).with(read_overrides(message.overrides.as_deref()).as_ref()),
            cancel_asked,
            trace: message.trace.as_deref().and_then(TraceContext::from_octets),
            events,
        }))
    }
}
