//! Tenants and their API keys.

use crate::{PLAIN, Quotas, Store, StoreError, audit_log, call, transaction};
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
    /// When its secret was last rotated.
    pub rotated_at: Option<DateTime<Utc>>,
    /// Its secrets before that, those whose grace has ended included.
    pub previous: Vec<PreviousSecret>,
}

impl ApiKey {
    /// Whether it is neither revoked nor expired.
    #[must_use]
    pub fn good_at(&self, now: DateTime<Utc>) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|end| end > now)
    }
}

/// The most secrets of one key that are good beside its newest. A rotation that is repeated because its answer was lost
/// must not end the secret that is in use.
pub const MAX_PREVIOUS_SECRETS: usize = 8;

/// What became of a key that was to get a new secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rotated {
    /// It has it.
    Done,
    /// It has as many earlier secrets as it may.
    Full,
    /// There is no such key, or it has ended.
    Ended,
}

/// What a key's secret was before a rotation.
#[derive(Clone, Debug)]
pub struct PreviousSecret {
    /// SHA-256 of the secret.
    pub sha256: Vec<u8>,
    /// Until when it is good.
    pub until: DateTime<Utc>,
}

impl Store {
    /// Makes a tenant.
    ///
    /// # Errors
    /// `Exists` when the name is taken; otherwise when the database does not answer.
    pub async fn create_tenant(&self, tenant: &Tenant) -> Result<(), StoreError> {
        transaction!(self, PLAIN, conn => {
            sqlx::query!(
                "insert into mailfleet.tenants (tenant_id, name, created_at) values ($1, $2, $3)",
                tenant.id.as_uuid(),
                tenant.name,
                tenant.created_at,
            )
            .execute(&mut *conn)
            .await
            .map_err(|error| StoreError::or_exists(error, "a tenant of this name"))?;
            audit_log::enter(self, conn, Some(tenant.id), &format!("tenants/{}", tenant.id)).await?;
        })
    }

    /// Up to `limit` tenants whose names come after `after`, by name, with their quotas.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn list_tenants(&self, after: &str, limit: u32) -> Result<Vec<(Tenant, Quotas)>, StoreError> {
        let rows = call!(self, conn => {
            sqlx::query_as!(
                TenantRow,
                "select tenant_id, name, created_at, recipients_per_hour, recipients_per_day, max_backlog
                 from mailfleet.tenants where name > $1 order by name limit $2",
                after,
                i64::from(limit),
            )
            .fetch_all(conn)
            .await?
        })?;
        Ok(rows.into_iter().map(TenantRow::split).collect())
    }

    /// A tenant by its id, with its quotas.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn tenant(&self, id: TenantId) -> Result<Option<(Tenant, Quotas)>, StoreError> {
        let row = call!(self, conn => {
            sqlx::query_as!(
                TenantRow,
                "select tenant_id, name, created_at, recipients_per_hour, recipients_per_day, max_backlog
                 from mailfleet.tenants where tenant_id = $1",
                id.as_uuid(),
            )
            .fetch_optional(conn)
            .await?
        })?;
        Ok(row.map(TenantRow::split))
    }

    /// A tenant by its name, with its quotas.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn tenant_named(&self, name: &str) -> Result<Option<(Tenant, Quotas)>, StoreError> {
        let row = call!(self, conn => {
            sqlx::query_as!(
                TenantRow,
                "select tenant_id, name, created_at, recipients_per_hour, recipients_per_day, max_backlog
                 from mailfleet.tenants where name = $1",
                name,
            )
            .fetch_optional(conn)
            .await?
        })?;
        Ok(row.map(TenantRow::split))
    }

    /// Changes what is given of a tenant; a quota of 0 takes the limit away. `None` when there is no such tenant.
    ///
    /// # Errors
    /// `Exists` when the name is taken; otherwise when the database does not answer.
    pub async fn update_tenant(
        &self,
        id: TenantId,
        name: Option<&str>,
        quotas: &Quotas,
    ) -> Result<Option<(Tenant, Quotas)>, StoreError> {
        let row = transaction!(self, PLAIN, conn => {
            let row = sqlx::query_as!(
                TenantRow,
                "update mailfleet.tenants
                 set name = coalesce($2, name),
                     recipients_per_hour = nullif(coalesce($3, recipients_per_hour), 0),
                     recipients_per_day = nullif(coalesce($4, recipients_per_day), 0),
                     max_backlog = nullif(coalesce($5, max_backlog), 0)
                 where tenant_id = $1
                 returning tenant_id, name, created_at, recipients_per_hour, recipients_per_day, max_backlog",
                id.as_uuid(),
                name,
                quotas.per_hour.map(to_stored),
                quotas.per_day.map(to_stored),
                quotas.backlog.map(to_stored),
            )
            .fetch_optional(&mut *conn)
            .await
            .map_err(|error| StoreError::or_exists(error, "a tenant of this name"))?;
            if row.is_some() {
                audit_log::enter(self, conn, Some(id), &format!("tenants/{id}")).await?;
            }
            row
        })?;
        Ok(row.map(TenantRow::split))
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
        transaction!(self, PLAIN, conn => {
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
            .execute(&mut *conn)
            .await?;
            audit_log::enter(self, conn, key.tenant, &format!("api_keys/{}", key.id)).await?;
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
                "select api_key_id, tenant_id, name, secret_sha256, scopes, created_at, expires_at, revoked_at,
                        rotated_at, previous_sha256, previous_until
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
                "select api_key_id, tenant_id, name, secret_sha256, scopes, created_at, expires_at, revoked_at,
                        rotated_at, previous_sha256, previous_until
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
        transaction!(self, PLAIN, conn => {
            let owner = sqlx::query_scalar!(
                "update mailfleet.api_keys set revoked_at = coalesce(revoked_at, $3)
                 where api_key_id = $1 and ($2::uuid is null or tenant_id = $2)
                 returning tenant_id",
                id.as_uuid(),
                tenant.map(|id| id.as_uuid()),
                now,
            )
            .fetch_optional(&mut *conn)
            .await?;
            if let Some(owner) = owner {
                audit_log::enter(self, conn, owner.map(TenantId::from_uuid), &format!("api_keys/{id}")).await?;
            }
            owner.is_some()
        })
    }

    /// Gives a key a new secret. The one before is good until `previous_until`; earlier ones as long as they were to
    /// be, and no longer than that.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn rotate_api_key(
        &self,
        id: ApiKeyId,
        secret_sha256: &[u8; 32],
        previous_until: DateTime<Utc>,
        now: DateTime<Utc>,
    ) -> Result<Rotated, StoreError> {
        transaction!(self, PLAIN, conn => {
            let row = sqlx::query_as!(
                KeyRow,
                "select api_key_id, tenant_id, name, secret_sha256, scopes, created_at, expires_at, revoked_at,
                        rotated_at, previous_sha256, previous_until
                 from mailfleet.api_keys where api_key_id = $1 for update",
                id.as_uuid(),
            )
            .fetch_optional(&mut *conn)
            .await?;
            let Some(key) = row.map(ApiKey::from).filter(|key| key.good_at(now)) else { return Ok(Rotated::Ended) };
            let mut previous = key.previous;
            previous.push(PreviousSecret { sha256: key.secret_sha256, until: previous_until });
            for secret in &mut previous {
                secret.until = secret.until.min(previous_until);
            }
            previous.retain(|secret| secret.until > now);
            if previous.len() > MAX_PREVIOUS_SECRETS {
                return Ok(Rotated::Full);
            }
            let (sha256, until): (Vec<_>, Vec<_>) = previous.into_iter().map(|one| (one.sha256, one.until)).unzip();
            sqlx::query!(
                "update mailfleet.api_keys
                 set secret_sha256 = $2, previous_sha256 = $3, previous_until = $4, rotated_at = $5
                 where api_key_id = $1",
                id.as_uuid(),
                &secret_sha256[..],
                &sha256,
                &until,
                now,
            )
            .execute(&mut *conn)
            .await?;
            audit_log::enter(self, conn, key.tenant, &format!("api_keys/{id}")).await?;
            Rotated::Done
        })
    }
}

fn to_stored(limit: u64) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

struct TenantRow {
    tenant_id: uuid::Uuid,
    name: String,
    created_at: DateTime<Utc>,
    recipients_per_hour: Option<i64>,
    recipients_per_day: Option<i64>,
    max_backlog: Option<i64>,
}

impl TenantRow {
    fn split(self) -> (Tenant, Quotas) {
        let limit = |limit: Option<i64>| limit.and_then(|limit| u64::try_from(limit).ok());
        let quotas = Quotas {
            per_hour: limit(self.recipients_per_hour),
            per_day: limit(self.recipients_per_day),
            backlog: limit(self.max_backlog),
        };
        (Tenant { id: TenantId::from_uuid(self.tenant_id), name: self.name, created_at: self.created_at }, quotas)
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
    rotated_at: Option<DateTime<Utc>>,
    previous_sha256: Vec<Vec<u8>>,
    previous_until: Vec<DateTime<Utc>>,
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
            rotated_at: row.rotated_at,
            previous: row
                .previous_sha256
                .into_iter()
                .zip(row.previous_until)
                .map(|(sha256, until)| PreviousSecret { sha256, until })
                .collect(),
        }
    }
}
