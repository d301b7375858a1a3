//! Tenants and their API keys.

use crate::{Store, StoreError, call};
use chrono::{DateTime, Utc};
use domain::{ApiKeyId, TenantId};

/// A tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenant {
    /// Its id.
    pub id: TenantId,
    /// Its name, unique in the fleet.
    pub name: String,
    /// Since when.
    pub created_at: DateTime<Utc>,
}

/// A key to store.
#[derive(Clone, Debug)]
pub struct NewApiKey {
    /// Its id, part of what the caller presents.
    pub id: ApiKeyId,
    /// Whose it is; `None` administers the fleet.
    pub tenant: Option<TenantId>,
    /// What people call it.
    pub name: String,
    /// SHA-256 of the secret.
    pub secret_sha256: [u8; 32],
    /// What it may do.
    pub scopes: Vec<String>,
    /// When it ends by itself.
    pub expires_at: Option<DateTime<Utc>>,
}

/// A stored key.
#[derive(Clone, Debug)]
pub struct ApiKey {
    /// Its id.
    pub id: ApiKeyId,
    /// Whose it is; `None` administers the fleet.
    pub tenant: Option<TenantId>,
    /// What people call it.
    pub name: String,
    /// SHA-256 of the secret.
    pub secret_sha256: Vec<u8>,
    /// What it may do.
    pub scopes: Vec<String>,
    /// Since when.
    pub created_at: DateTime<Utc>,
    /// When it ends by itself.
    pub expires_at: Option<DateTime<Utc>>,
    /// When it was revoked.
    pub revoked_at: Option<DateTime<Utc>>,
}

impl Store {
    /// Makes a tenant.
    ///
    /// # Errors
    /// `Exists` when the name is taken; otherwise when the database does not answer.
    pub async fn create_tenant(&self, tenant: &Tenant) -> Result<(), StoreError> {
        call!(self, conn => {
            sqlx::query!(
                "insert into mailfleet.tenants (tenant_id, name, created_at) values ($1, $2, $3)",
                tenant.id.as_uuid(),
                tenant.name,
                tenant.created_at,
            )
            .execute(conn)
            .await
            .map_err(|error| StoreError::or_exists(error, "a tenant of this name"))?;
        })
    }

    /// The tenants, by name.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn tenants(&self) -> Result<Vec<Tenant>, StoreError> {
        let rows = call!(self, conn => {
            sqlx::query!("select tenant_id, name, created_at from mailfleet.tenants order by name limit 10000")
                .fetch_all(conn)
                .await?
        })?;
        Ok(rows
            .into_iter()
            .map(|row| Tenant { id: TenantId::from_uuid(row.tenant_id), name: row.name, created_at: row.created_at })
            .collect())
    }

    /// Whether there is such a tenant.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn tenant_exists(&self, id: TenantId) -> Result<bool, StoreError> {
        call!(self, conn => {
            sqlx::query_scalar!(
                r#"select exists (select from mailfleet.tenants where tenant_id = $1) as "exists!""#,
                id.as_uuid()
            )
            .fetch_one(conn)
            .await?
        })
    }

    /// Stores a key.
    ///
    /// # Errors
    /// When the database does not answer, or there is no such tenant.
    pub async fn create_api_key(&self, key: &NewApiKey, now: DateTime<Utc>) -> Result<(), StoreError> {
        call!(self, conn => {
            sqlx::query!(
                "insert into mailfleet.api_keys
                     (api_key_id, tenant_id, name, secret_sha256, scopes, created_at, expires_at)
                 values ($1, $2, $3, $4, $5, $6, $7)
                 on conflict (api_key_id) do nothing",
                key.id.as_uuid(),
                key.tenant.map(|id| id.as_uuid()),
                key.name,
                &key.secret_sha256[..],
                &key.scopes,
                now,
                key.expires_at,
            )
            .execute(conn)
            .await?;
        })
    }

    /// A key by its id, revoked and expired ones included.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn api_key(&self, id: ApiKeyId) -> Result<Option<ApiKey>, StoreError> {
        let row = call!(self, conn => {
            sqlx::query_as!(
                KeyRow,
                "select api_key_id, tenant_id, name, secret_sha256, scopes, created_at, expires_at, revoked_at
                 from mailfleet.api_keys where api_key_id = $1",
                id.as_uuid()
            )
            .fetch_optional(conn)
            .await?
        })?;
        Ok(row.map(ApiKey::from))
    }

    /// The keys of a tenant (`None`: those that administer the fleet), newest first.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn api_keys(&self, tenant: Option<TenantId>) -> Result<Vec<ApiKey>, StoreError> {
        let rows = call!(self, conn => {
            sqlx::query_as!(
                KeyRow,
                "select api_key_id, tenant_id, name, secret_sha256, scopes, created_at, expires_at, revoked_at
                 from mailfleet.api_keys where tenant_id is not distinct from $1 order by created_at desc limit 1000",
                tenant.map(|id| id.as_uuid())
            )
            .fetch_all(conn)
            .await?
        })?;
        Ok(rows.into_iter().map(ApiKey::from).collect())
    }

    /// Revokes a key; `false` when there is none that could be. A tenant can revoke its own only.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn revoke_api_key(
        &self,
        tenant: Option<TenantId>,
        id: ApiKeyId,
        now: DateTime<Utc>,
    ) -> Result<bool, StoreError> {
        let done = call!(self, conn => {
            sqlx::query!(
                "update mailfleet.api_keys set revoked_at = coalesce(revoked_at, $3)
                 where api_key_id = $1 and ($2::uuid is null or tenant_id = $2)",
                id.as_uuid(),
                tenant.map(|id| id.as_uuid()),
                now,
            )
            .execute(conn)
            .await?
        })?;
        Ok(done.rows_affected() == 1)
    }
}

struct KeyRow {
    api_key_id: uuid::Uuid,
    tenant_id: Option<uuid::Uuid>,
    name: String,
    secret_sha256: Vec<u8>,
    scopes: Vec<String>,
    created_at: DateTime<Utc>,
    expires_at: Option<DateTime<Utc>>,
    revoked_at: Option<DateTime<Utc>>,
}

impl From<KeyRow> for ApiKey {
    fn from(row: KeyRow) -> Self {
        Self {
            id: ApiKeyId::from_uuid(row.api_key_id),
            tenant: row.tenant_id.map(TenantId::from_uuid),
            name: row.name,
            secret_sha256: row.secret_sha256,
            scopes: row.scopes,
            created_at: row.created_at,
            expires_at: row.expires_at,
            revoked_at: row.revoked_at,
        }
    }
}
