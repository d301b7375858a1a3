//! Marks: what must be known of a message whatever table it is in.
//!
//! A statement that looks for a message while it changes tables can find none; so a cancel is a row of its own,
//! committed first, and finding no row is never taken for "already over".

use crate::{HOT, PLAIN, Store, StoreError, call, dead_letters, transaction};
use domain::{BatchId, Closing, MessageId, TenantId};
use sqlx::PgConnection;
use uuid::Uuid;

/// A mark whose resting messages have not been closed yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UnsettledMark {
    /// One message is cancelled.
    CancelMessage(MessageId),
    /// A whole call is cancelled: its messages are those of positions below `size`.
    CancelBatch {
        /// The call.
        batch: BatchId,
        /// Its positions.
        size: u32,
    },
    /// A late 250 told that one message was delivered.
    Delivered(MessageId),
}

impl Store {
    /// Cancels a message of this tenant, and what it was sent again as; `false` when the tenant has no such message.
    /// What is being sent at this moment may still be delivered; nothing begins after this returns.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn cancel_message(&self, tenant: TenantId, message: MessageId) -> Result<bool, StoreError> {
        transaction!(self, HOT, conn => {
            let found = sqlx::query_scalar!(
                "select message_id from mailfleet.messages where message_id = $1 and tenant_id = $2",
                message.as_uuid(),
                tenant.as_uuid(),
            )
            .fetch_optional(&mut *conn)
            .await?;
            if found.is_some() {
                dead_letters::lock_out_requeues(conn, tenant).await?;
                cancel(conn, &[message.as_uuid()], &[message.as_uuid()]).await?;
            }
            found.is_some()
        })
    }

    /// Cancels all of a call, and what its messages were sent again as; `false` when the tenant has no such call.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn cancel_batch(&self, tenant: TenantId, batch: BatchId) -> Result<bool, StoreError> {
        transaction!(self, HOT, conn => {
            let size = sqlx::query_scalar!(
                "select size from mailfleet.batches where batch_id = $1 and tenant_id = $2",
                batch.as_uuid(),
                tenant.as_uuid(),
            )
            .fetch_optional(&mut *conn)
            .await?;
            if let Some(size) = size {
                let messages: Vec<Uuid> = messages_of(batch, u32::try_from(size).unwrap_or(0)).collect();
                dead_letters::lock_out_requeues(conn, tenant).await?;
                cancel(conn, &[batch.as_uuid()], &messages).await?;
            }
            size.is_some()
        })
    }

    /// Marks whose resting messages are to be closed, oldest first.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn unsettled_marks(&self, limit: u32) -> Result<Vec<UnsettledMark>, StoreError> {
        let rows = call!(self, conn => {
            sqlx::query!(
                r#"select k.subject_id, k.kind, b.size as "size?"
                   from mailfleet.marks k left join mailfleet.batches b on b.batch_id = k.subject_id
                   where not k.settled order by k.created_at limit $1"#,
                i64::from(limit)
            )
            .fetch_all(conn)
            .await?
        })?;
        Ok(rows
            .into_iter()
            .map(|row| match (row.kind, row.size) {
                (2, _) => UnsettledMark::Delivered(MessageId::from_uuid(row.subject_id)),
                (_, Some(size)) => UnsettledMark::CancelBatch {
                    batch: BatchId::from_uuid(row.subject_id),
                    size: u32::try_from(size).unwrap_or(0),
                },
                (_, None) => UnsettledMark::CancelMessage(MessageId::from_uuid(row.subject_id)),
            })
            .collect())
    }

    /// Notes that what rested under this mark has been closed; `false` when some of it rests or travels after all,
    /// since it changed tables while it was to be closed. What was being sent meets the mark at its record.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn settle_mark(&self, mark: &UnsettledMark) -> Result<bool, StoreError> {
        let (subject, kind): (Uuid, i16) = match mark {
            UnsettledMark::CancelMessage(id) => (id.as_uuid(), 1),
            UnsettledMark::CancelBatch { batch, .. } => (batch.as_uuid(), 1),
            UnsettledMark::Delivered(id) => (id.as_uuid(), 2),
        };
        let messages: Vec<Uuid> = match mark {
            UnsettledMark::CancelMessage(id) | UnsettledMark::Delivered(id) => vec![id.as_uuid()],
            UnsettledMark::CancelBatch { batch, size } => messages_of(*batch, *size).collect(),
        };
        let rows = transaction!(self, HOT, conn => {
            sqlx::query!(
                // One look at both tables: a message that is on its way from one to the other is in either.
                "update mailfleet.marks set settled = true
                 where subject_id = $1 and kind = $2
                   and not exists (select from mailfleet.waiting where message_id = any ($3))
                   and not exists (select from mailfleet.moving where message_id = any ($3) and state = 1)",
                subject,
                kind,
                &messages
            )
            .execute(&mut *conn)
            .await?
            .rows_affected()
        })?;
        Ok(rows == 1)
    }

    /// Closes those of `messages` that are waiting or released; returns how many. At most 1,000 a call.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn refuse(&self, messages: &[MessageId], closing: Closing) -> Result<usize, StoreError> {
        let mut ids: Vec<Uuid> = messages.iter().map(MessageId::as_uuid).collect();
        ids.sort_unstable();
        let rows = transaction!(self, HOT, conn => {
            sqlx::query_file_scalar!("src/sql/refuse.sql", &ids, closing.code(), "{}").fetch_all(&mut *conn).await?
        })?;
        Ok(rows.len())
    }

    /// Whether marks are left to settle; for tests and `status`.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn unsettled_count(&self) -> Result<i64, StoreError> {
        transaction!(self, PLAIN, conn => {
            sqlx::query_scalar!(r#"select count(*) as "count!" from mailfleet.marks where not settled"#)
                .fetch_one(&mut *conn)
                .await?
        })
    }
}

fn messages_of(batch: BatchId, size: u32) -> impl Iterator<Item = Uuid> {
    (0..size).map(move |at| MessageId::of_batch(batch, at).as_uuid())
}

/// Marks these subjects, and every message that one of these messages was sent again as.
pub(crate) async fn cancel(conn: &mut PgConnection, subjects: &[Uuid], messages: &[Uuid]) -> Result<(), sqlx::Error> {
    sqlx::query_file!("src/sql/cancel.sql", subjects, messages).execute(conn).await?;
    Ok(())
}
