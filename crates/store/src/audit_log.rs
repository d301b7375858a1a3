//! The audit log: who changed what. A change and its entry are one transaction.

use crate::{Store, StoreError, call};
use chrono::{DateTime, Utc};
use domain::{ApiKeyId, TenantId};

/// Who asks for changes, and by which call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Actor {
    /// The key; `None` for an operator's command at the database itself.
    pub key: Option<ApiKeyId>,
    /// What was called, such as `TenantService.CreateTenant`.
    pub call: &'static str,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEvent {
    /// Its number; later changes have higher ones, with gaps.
    pub id: i64,
    /// Whose the changed thing is; `None`: the fleet's.
    pub tenant: Option<TenantId>,
    /// Who asked for it; `None`: an operator's command at the database itself.
    pub key: Option<ApiKeyId>,
    /// What was called.
    pub call: String,
    /// What was changed.
    pub resource: String,
    /// When.
    pub at: DateTime<Utc>,
}

impl Store {
    /// The same store, whose administrative changes are entered in the audit log under this name. Without one they
    /// are a service's own work, such as the suppression after a bounce, and are not entered.
    #[must_use]
    pub fn acting(&self, actor: Actor) -> Self {
        Self { actor: Some(actor), ..self.clone() }
    }

    /// Up to `limit` changes numbered below `before`, newest first: to what a tenant owns, by a key.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn audit_events(
        &self,
        tenant: Option<TenantId>,
        key: Option<ApiKeyId>,
        before: i64,
        limit: u32,
    ) -> Result<Vec<AuditEvent>, StoreError> {
        let rows = call!(self, conn => {
            sqlx::query!(
                "select audit_id, tenant_id, api_key_id, call, resource, at from mailfleet.audit_events
                 where ($1::uuid is null or tenant_id = $1) and ($2::uuid is null or api_key_id = $2) and audit_id < $3
                 order by audit_id desc limit $4",
                tenant.map(|id| id.as_uuid()),
                key.map(|id| id.as_uuid()),
                before,
                i64::from(limit),
            )
            .fetch_all(conn)
            .await?
        })?;
        Ok(rows
            .into_iter()
            .map(|row| AuditEvent {
                id: row.audit_id,
                tenant: row.tenant_id.map(TenantId::from_uuid),
                key: row.api_key_id.map(ApiKeyId::from_uuid),
                call: row.call,
                resource: row.resource,
                at: row.at,
            })
            .collect())
    }
}

/// Enters a change in the transaction that makes it. `resource` holds neither an address nor a secret.
pub(crate) async fn enter(
    store: &Store,
    conn: &mut sqlx::PgConnection,
    tenant: Option<TenantId>,
    resource: &str,
) -> Result<(), StoreError> {
    let Some(actor) = store.actor else { return Ok(()) };
    sqlx::query!(
        "insert into mailfleet.audit_events (tenant_id, api_key_id, call, resource, at)
         values ($1, $2, $3, $4, mailfleet.clock())",
        tenant.map(|id| id.as_uuid()),
        actor.key.map(|id| id.as_uuid()),
        actor.call,
        resource,
    )
    .execute(conn)
    .await?;
    Ok(())
}
