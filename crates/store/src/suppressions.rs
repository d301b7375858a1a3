//! The suppression list: who gets no mail.

use crate::{HOT, Store, StoreError, call, transaction};
use chrono::{DateTime, Utc};
use domain::{AddressHash, Mailbox, TenantId};
use uuid::Uuid;

/// An entry.
#[derive(Clone, Debug)]
pub struct Suppression {
    /// Why: `manual`, `hard_bounce`, `complaint`, `unsubscribe`.
    pub reason: String,
    /// Since when.
    pub created_at: DateTime<Utc>,
    /// Whether it holds for every tenant.
    pub global: bool,
}

impl Store {
    /// Suppresses a recipient for a tenant (`None`: for all), and closes what waits or travels to him in the same
    /// transaction. Returns whether the entry is new and how many messages were closed; a known entry keeps its reason.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn suppress(
        &self,
        tenant: Option<TenantId>,
        recipient: &Mailbox,
        reason: &str,
    ) -> Result<(bool, usize), StoreError> {
        let tenant = tenant.map_or(Uuid::nil(), |id| id.as_uuid());
        let hash = recipient.hash().as_uuid();
        transaction!(self, HOT, conn => {
            let done = sqlx::query!(
                "insert into mailfleet.suppressions (address_hash, tenant_id, address, reason, created_at)
                 values ($1, $2, $3, $4, mailfleet.clock())
                 on conflict do nothing",
                hash,
                tenant,
                recipient.as_str(),
                reason,
            )
            .execute(&mut *conn)
            .await?;
            let closed = sqlx::query_file_scalar!("src/sql/suppress.sql", hash, tenant).fetch_all(&mut *conn).await?;
            (done.rows_affected() == 1, closed.len())
        })
    }

    /// Takes a recipient off a tenant's list; `false` when he was not on it.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn unsuppress(&self, tenant: Option<TenantId>, recipient: &Mailbox) -> Result<bool, StoreError> {
        let done = call!(self, conn => {
            sqlx::query!(
                "delete from mailfleet.suppressions where address_hash = $1 and tenant_id = $2",
                recipient.hash().as_uuid(),
                tenant.map_or(Uuid::nil(), |id| id.as_uuid()),
            )
            .execute(conn)
            .await?
        })?;
        Ok(done.rows_affected() == 1)
    }

    /// The entry that keeps mail of this tenant from a recipient, the tenant's own first.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn suppression(&self, tenant: TenantId, hash: AddressHash) -> Result<Option<Suppression>, StoreError> {
        let row = call!(self, conn => {
            sqlx::query!(
                "select tenant_id, reason, created_at from mailfleet.suppressions
                 where address_hash = $1 and tenant_id = any (array[$2, '00000000-0000-0000-0000-000000000000'::uuid])
                 order by tenant_id desc limit 1",
                hash.as_uuid(),
                tenant.as_uuid(),
            )
            .fetch_optional(conn)
            .await?
        })?;
        Ok(row.map(|row| Suppression {
            reason: row.reason,
            created_at: row.created_at,
            global: row.tenant_id.is_nil(),
        }))
    }
}
