//! What the holder of the dispatcher's lease does: release, repair, doubt, expire.
//!
//! Every statement is conditional, so two dispatchers at once waste work and break nothing.

use crate::{HOT, PLAIN, QueueKey, Store, StoreError, queues, transaction};
use chrono::{DateTime, Utc};
use domain::{BatchId, CampaignId, Closing, ContentId, Lane, Mailbox, MessageId, SiteId, Slot, TenantId, TraceContext};
use std::time::Duration;

/// A queue that holds something due and is not paused.
#[derive(Clone, Debug)]
pub struct DueQueue {
    /// Its number.
    pub id: i64,
    /// Its name.
    pub key: QueueKey,
    /// Its share beside its tenant's other queues.
    pub weight: i32,
    /// The due time of its first row.
    pub first_due: DateTime<Utc>,
}

/// How much of a queue to release.
#[derive(Clone, Debug)]
pub struct Quota {
    /// The queue.
    pub queue: i64,
    /// Most rows to take.
    pub count: u32,
    /// Nothing of this queue is due before; keeps long-dead index entries out of the scan.
    pub lower: DateTime<Utc>,
}

/// A message that was released and awaits its rendering.
#[derive(Clone, Debug)]
pub struct Released {
    /// The message.
    pub message: MessageId,
    /// Its release number.
    pub release: u32,
    /// Attempts made so far.
    pub attempt: u16,
    /// Releases lost in a row before this one; above 0 it travels alone.
    pub losses: u16,
    /// Its queue.
    pub queue: i64,
    /// Whose it is.
    pub tenant: TenantId,
    /// Its campaign.
    pub campaign: Option<CampaignId>,
    /// The call that brought it.
    pub batch: BatchId,
    /// How urgent it is.
    pub lane: Lane,
    /// Where it goes.
    pub slot: Slot,
    /// The site as far as it is known.
    pub site: SiteId,
    /// The end of its time to live.
    pub expires_at: DateTime<Utc>,
    /// When it was due.
    pub due: DateTime<Utc>,
    /// The bus epoch of this release.
    pub bus_epoch: i64,
    /// What to send.
    pub content: ContentId,
    /// To whom.
    pub recipient: Mailbox,
    /// The variables, a JSON object.
    pub variables: String,
    /// What else differs from recipient to recipient: `domain::Overrides` as JSON, if anything does.
    pub overrides: Option<String>,
    /// Where its trace began, if somebody traces it.
    pub trace: Option<TraceContext>,
}

/// What a repair found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Repaired {
    /// Rows that rest again.
    pub rested: usize,
    /// Rows closed as failed after too many losses in a row.
    pub poison: usize,
    /// Lanes of rows that got lost without a loss of the broker to explain it.
    pub unexplained: std::collections::BTreeSet<Lane>,
}

/// What becomes of doubt, by lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DoubtPolicy {
    /// Transactional mail in doubt is sent again.
    pub resend_transactional: bool,
    /// Bulk mail in doubt is sent again.
    pub resend_bulk: bool,
}

/// Messages between release and record, by lane and slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InMotion {
    /// The lane.
    pub lane: Lane,
    /// The slot.
    pub slot: Slot,
    /// How many.
    pub count: u32,
}

impl Store {
    /// Queues that hold something due and are not paused. `lower` gives, for queues the caller knows, a time
    /// before which nothing of theirs is due.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn due_queues(&self, lower: &[(i64, DateTime<Utc>)]) -> Result<Vec<DueQueue>, StoreError> {
        let ids: Vec<i64> = lower.iter().map(|(id, _)| *id).collect();
        let bounds: Vec<DateTime<Utc>> = lower.iter().map(|(_, bound)| *bound).collect();
        let rows = transaction!(self, HOT, conn => {
            sqlx::query_file!("src/sql/due_queues.sql", &ids, &bounds).fetch_all(&mut *conn).await?
        })?;
        rows.into_iter()
            .map(|row| {
                Ok(DueQueue {
                    id: row.queue_id,
                    key: queues::key(row.queue_id, row.tenant_id, row.campaign_id, row.lane, row.slot, row.site)?,
                    weight: row.weight,
                    first_due: row.first_due,
                })
            })
            .collect()
    }

    /// Releases up to the quota of each queue. Cancelled and expired rows met on the way are closed and count
    /// towards the quota; they are not returned.
    ///
    /// # Errors
    /// When the database does not answer. Rows released by a commit whose answer was lost are repaired.
    pub async fn release(&self, quotas: &[Quota]) -> Result<Vec<Released>, StoreError> {
        let mut sorted = quotas.to_vec();
        sorted.sort_by_key(|quota| quota.queue);
        let rows = transaction!(self, HOT, conn => {
            let rows = sqlx::query_file!(
                "src/sql/release.sql",
                &sorted.iter().map(|quota| quota.queue).collect::<Vec<_>>(),
                &sorted.iter().map(|quota| i64::from(quota.count)).collect::<Vec<_>>(),
                &sorted.iter().map(|quota| quota.lower).collect::<Vec<_>>(),
            )
            .fetch_all(&mut *conn)
            .await?;
            failpoint::hit!("dispatcher.release.before", !rows.is_empty());
            rows
        })?;
        let mut released = Vec::with_capacity(rows.len());
        for row in rows.into_iter().filter(|row| row.closing.is_none()) {
            let corrupt = |column| StoreError::Corrupt { table: "messages", column, id: row.message_id.to_string() };
            let read = || {
                Ok::<_, StoreError>(Released {
                    message: MessageId::from_uuid(row.message_id),
                    release: u32::try_from(row.release_no).map_err(|_| corrupt("release_no"))?,
                    attempt: u16::try_from(row.attempt).map_err(|_| corrupt("attempt"))?,
                    losses: u16::try_from(row.losses).map_err(|_| corrupt("losses"))?,
                    queue: row.queue_id,
                    tenant: TenantId::from_uuid(row.tenant_id),
                    campaign: row.campaign_id.map(CampaignId::from_uuid),
                    batch: BatchId::from_uuid(row.batch_id),
                    lane: Lane::from_code(row.lane).ok_or_else(|| corrupt("lane"))?,
                    slot: Slot::from_code(row.slot).ok_or_else(|| corrupt("slot"))?,
                    recipient: row.recipient.parse().map_err(|_| corrupt("recipient"))?,
                    site: SiteId::from_stored(row.site.clone()),
                    expires_at: row.expires_at,
                    due: row.due,
                    bus_epoch: row.bus_epoch,
                    content: ContentId::from_uuid(row.content_id),
                    variables: row.variables.clone(),
                    overrides: row.overrides.clone(),
                    trace: row.trace.as_deref().and_then(TraceContext::from_octets),
                })
            };
            match read() {
                Ok(one) => released.push(one),
                // Its neighbours go on; this one is repaired until it counts as poison, and then closed as failed.
                Err(error) => {
                    tracing::error!(error = &error as &dyn std::error::Error, "a released row cannot be read")
                }
            }
        }
        Ok(released)
    }

    /// Messages between release and record, by lane and slot: what the windows are counted from.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn in_motion(&self) -> Result<Vec<InMotion>, StoreError> {
        let rows = transaction!(self, PLAIN, conn => {
            sqlx::query!(r#"select lane, slot, count(*) as "count!" from mailfleet.moving group by lane, slot"#)
                .fetch_all(&mut *conn)
                .await?
        })?;
        Ok(rows
            .into_iter()
            .filter_map(|row| {
                Some(InMotion {
                    lane: Lane::from_code(row.lane)?,
                    slot: Slot::from_code(row.slot)?,
                    count: u32::try_from(row.count).unwrap_or(u32::MAX),
                })
            })
            .collect())
    }

    /// Puts back what was released more than `after` ago, or under an older bus epoch, at most `limit` rows; closes
    /// as failed what was lost `poison` times in a row.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn repair(&self, after: Duration, limit: u32, poison: u16) -> Result<Repaired, StoreError> {
        let rows = transaction!(self, PLAIN, conn => {
            let rows = sqlx::query_file!("src/sql/repair.sql", after.as_secs_f64(), i64::from(limit), i32::from(poison))
                .fetch_all(&mut *conn)
                .await?;
            failpoint::hit!("dispatcher.repair.before", !rows.is_empty());
            rows
        })?;
        let dead = rows.iter().filter(|row| row.poison).count();
        let unexplained = rows.iter().filter(|row| row.counted).filter_map(|row| Lane::from_code(row.lane)).collect();
        Ok(Repaired { rested: rows.len() - dead, poison: dead, unexplained })
    }

    /// Opens the doubt about claims whose owner's lease ended more than `grace` ago; returns how many.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn open_doubts(&self, grace: Duration, limit: u32) -> Result<usize, StoreError> {
        let rows = transaction!(self, PLAIN, conn => {
            let rows = sqlx::query_file_scalar!("src/sql/doubt_open.sql", grace.as_secs_f64(), i64::from(limit))
                .fetch_all(&mut *conn)
                .await?;
            failpoint::hit!("dispatcher.doubt_open.before", !rows.is_empty());
            rows
        })?;
        Ok(rows.len())
    }

    /// Applies the doubt rule to what is in doubt; returns what became of each: `None` is sent again.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn close_doubts(
        &self,
        policy: DoubtPolicy,
        limit: u32,
    ) -> Result<Vec<(MessageId, Option<Closing>)>, StoreError> {
        let mut again = Vec::new();
        if policy.resend_transactional {
            again.push(Lane::Transactional.code());
        }
        if policy.resend_bulk {
            again.push(Lane::Bulk.code());
        }
        let rows = transaction!(self, PLAIN, conn => {
            let rows = sqlx::query_file!("src/sql/doubt_close.sql", &again, i64::from(limit)).fetch_all(&mut *conn).await?;
            failpoint::hit!("dispatcher.doubt_close.before", !rows.is_empty());
            rows
        })?;
        Ok(rows
            .into_iter()
            .map(|row| (MessageId::from_uuid(row.message_id), row.closing.and_then(Closing::from_code)))
            .collect())
    }

    /// Closes up to `limit` rows a queue that outlived their time to live while they rested; returns how many.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn expire(&self, queues: &[i64], limit: u32) -> Result<usize, StoreError> {
        let rows = transaction!(self, HOT, conn => {
            sqlx::query_file_scalar!("src/sql/expire.sql", queues, i64::from(limit)).fetch_all(&mut *conn).await?
        })?;
        Ok(rows.len())
    }

    /// The numbers of all queues, for sweeps.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn all_queues(&self) -> Result<Vec<i64>, StoreError> {
        transaction!(self, PLAIN, conn => {
            sqlx::query_scalar!("select queue_id from mailfleet.queues order by queue_id").fetch_all(&mut *conn).await?
        })
    }

    /// Makes the partitions from yesterday to `days_ahead`, and counts what strayed into the default ones.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn keep_partitions(&self, days_ahead: u16) -> Result<(i32, i64), StoreError> {
        let missing = transaction!(self, PLAIN, conn => {
            sqlx::query!(
                r#"select parent as "parent!", day as "day!" from mailfleet.missing_partitions(
                       (mailfleet.clock() at time zone 'UTC')::date - 1,
                       (mailfleet.clock() at time zone 'UTC')::date + $1::integer)"#,
                i32::from(days_ahead)
            )
            .fetch_all(&mut *conn)
            .await?
        })?;
        let mut made = 0;
        for one in missing {
            // Who waits for a lock makes others wait behind it: better to try again later, days ahead of need.
            transaction!(self, "begin; set local lock_timeout = '2s'", conn => {
                sqlx::query!("select mailfleet.make_partition($1, $2)", one.parent, one.day).execute(&mut *conn).await?;
            })?;
            made += 1;
        }
        let strayed = transaction!(self, PLAIN, conn => {
            sqlx::query_scalar!(
                r#"select (select count(*) from (select from mailfleet.messages_default limit 1000) a)
                        + (select count(*) from (select from mailfleet.message_events_default limit 1000) b) as "strayed!""#
            )
            .fetch_one(&mut *conn)
            .await?
        })?;
        Ok((made, strayed))
    }

    /// Forgets idempotency keys whose time is over, at most `limit`; returns how many.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn forget_idempotency(&self, now: DateTime<Utc>, limit: u32) -> Result<u64, StoreError> {
        let done = transaction!(self, PLAIN, conn => {
            sqlx::query!(
                "delete from mailfleet.idempotency where ctid = any (array(
                     select ctid from mailfleet.idempotency where expires_at < $1 limit $2))",
                now,
                i64::from(limit),
            )
            .execute(&mut *conn)
            .await?
        })?;
        Ok(done.rows_affected())
    }
}
