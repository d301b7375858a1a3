//! The DKIM keys of sending domains from making to retirement.
//!
//! A key is pending, active or retired. Signing looks at `active` alone, so a rotation is two steps of two short
//! transactions: new keys that sign nothing, and the exchange of all keys of a domain at once. Both hold the domain's
//! row, so two rotations at a time end as one.

use crate::{DkimAlgorithm, NewDkimKey, PLAIN, SendingDomain, Store, StoreError, audit_log, call, transaction};
use chrono::{DateTime, Utc};
use domain::{DkimKeyId, DomainName, SendingDomainId, TenantId};
use sqlx::PgConnection;
use std::collections::{HashMap, HashSet};
use uuid::Uuid;

/// What a key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyState {
    /// To be published; signs nothing yet.
    Pending,
    /// Signs.
    Active,
    /// Signs no more; mail that it signed may still be under way.
    Retired,
}

/// A key without its private part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DomainKey {
    /// Its id.
    pub id: DkimKeyId,
    /// The selector under which the public part is published.
    pub selector: String,
    /// Its algorithm.
    pub algorithm: DkimAlgorithm,
    /// The TXT record to publish.
    pub dns_txt: String,
    /// What it is for.
    pub state: KeyState,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// Since when it signs.
    pub activated_at: Option<DateTime<Utc>>,
    /// Since when it signs no more.
    pub retired_at: Option<DateTime<Utc>>,
}

impl Store {
    /// A tenant's sending domain with all its keys, newest first, or `None`.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn sending_domain_with_keys(
        &self,
        tenant: TenantId,
        domain: &DomainName,
    ) -> Result<Option<(SendingDomain, Vec<DomainKey>)>, StoreError> {
        let rows = call!(self, conn => {
            sqlx::query_as!(
                DomainRow,
                "select sending_domain_id, domain, return_path_domain, unsigned, created_at, verified_at
                 from mailfleet.sending_domains where tenant_id = $1 and domain = $2",
                tenant.as_uuid(),
                domain.as_str(),
            )
            .fetch_all(conn)
            .await?
        })?;
        Ok(self.with_keys(tenant, rows).await?.pop())
    }

    /// Up to `limit` sending domains of a tenant whose names come after `after`, by name, with all their keys.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn sending_domains(
        &self,
        tenant: TenantId,
        after: &str,
        limit: u32,
    ) -> Result<Vec<(SendingDomain, Vec<DomainKey>)>, StoreError> {
        let rows = call!(self, conn => {
            sqlx::query_as!(
                DomainRow,
                "select sending_domain_id, domain, return_path_domain, unsigned, created_at, verified_at
                 from mailfleet.sending_domains where tenant_id = $1 and domain > $2 order by domain limit $3",
                tenant.as_uuid(),
                after,
                i64::from(limit),
            )
            .fetch_all(conn)
            .await?
        })?;
        self.with_keys(tenant, rows).await
    }

    async fn with_keys(
        &self,
        tenant: TenantId,
        domains: Vec<DomainRow>,
    ) -> Result<Vec<(SendingDomain, Vec<DomainKey>)>, StoreError> {
        let ids: Vec<Uuid> = domains.iter().map(|row| row.sending_domain_id).collect();
        let rows = call!(self, conn => {
            sqlx::query!(
                "select dkim_key_id, sending_domain_id, selector, algorithm, dns_txt, active, created_at, activated_at,
                        retired_at
                 from mailfleet.dkim_keys where sending_domain_id = any ($1)
                 order by created_at desc, algorithm desc, selector",
                &ids,
            )
            .fetch_all(conn)
            .await?
        })?;
        let mut keys: HashMap<Uuid, Vec<DomainKey>> = HashMap::new();
        for row in rows {
            let state = match (row.active, row.retired_at) {
                (true, _) => KeyState::Active,
                (false, None) => KeyState::Pending,
                (false, Some(_)) => KeyState::Retired,
            };
            keys.entry(row.sending_domain_id).or_default().push(DomainKey {
                id: DkimKeyId::from_uuid(row.dkim_key_id),
                selector: row.selector,
                algorithm: if row.algorithm == "rsa" { DkimAlgorithm::Rsa } else { DkimAlgorithm::Ed25519 },
                dns_txt: row.dns_txt,
                state,
                created_at: row.created_at,
                activated_at: row.activated_at,
                retired_at: row.retired_at,
            });
        }
        let with = |row: DomainRow| {
            let keys = keys.remove(&row.sending_domain_id).unwrap_or_default();
            Ok((row.into_domain(tenant)?, keys))
        };
        domains.into_iter().map(with).collect()
    }

    /// Stores new keys as pending, unless some are pending already; returns whether it did. `false` also when the
    /// tenant has no such domain.
    ///
    /// # Errors
    /// `Exists` when a selector has been used before; otherwise when the database does not answer.
    pub async fn rotate_domain_keys(
        &self,
        tenant: TenantId,
        domain: SendingDomainId,
        keys: &[NewDkimKey],
        now: DateTime<Utc>,
    ) -> Result<bool, StoreError> {
        transaction!(self, PLAIN, conn => {
            if !hold(conn, tenant, domain).await? || !pending(conn, domain).await?.is_empty() {
                return Ok(false);
            }
            for key in keys {
                sqlx::query!(
                    "insert into mailfleet.dkim_keys (dkim_key_id, sending_domain_id, selector, algorithm,
                                                      sealed_private_key, dns_txt, active, created_at)
                     values ($1, $2, $3, $4, $5, $6, false, $7)",
                    key.id.as_uuid(),
                    domain.as_uuid(),
                    key.selector,
                    key.algorithm.as_str(),
                    key.sealed_private_key,
                    key.dns_txt,
                    now,
                )
                .execute(&mut *conn)
                .await
                .map_err(|error| StoreError::or_exists(error, "a key of this selector"))?;
                let resource = format!("domains/{domain}/keys/{}", key.selector);
                audit_log::enter(self, conn, Some(tenant), &resource).await?;
            }
            true
        })
    }

    /// Lets the pending keys sign in place of the active ones, when they are those of `selectors`; returns whether these
    /// sign now. `true` also when they did already, and `false` also when the tenant has no such domain.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn activate_domain_keys(
        &self,
        tenant: TenantId,
        domain: SendingDomainId,
        selectors: &HashSet<String>,
        now: DateTime<Utc>,
    ) -> Result<bool, StoreError> {
        transaction!(self, PLAIN, conn => {
            if selectors.is_empty() || !hold(conn, tenant, domain).await? {
                return Ok(false);
            }
            let pending = pending(conn, domain).await?;
            if pending != *selectors {
                let active = sqlx::query_scalar!(
                    "select selector from mailfleet.dkim_keys where sending_domain_id = $1 and active",
                    domain.as_uuid(),
                )
                .fetch_all(&mut *conn)
                .await?;
                return Ok(HashSet::from_iter(active) == *selectors);
            }
            // One statement: no reader finds a domain without an active key.
            sqlx::query!(
                "update mailfleet.dkim_keys
                 set active = not active,
                     activated_at = case when active then activated_at else $2 end,
                     retired_at = case when active then $2 end
                 where sending_domain_id = $1 and retired_at is null",
                domain.as_uuid(),
                now,
            )
            .execute(&mut *conn)
            .await?;
            for selector in &pending {
                let resource = format!("domains/{domain}/keys/{selector}");
                audit_log::enter(self, conn, Some(tenant), &resource).await?;
            }
            true
        })
    }
}

/// Holds a domain until the end of the transaction; what a later statement of it reads, no other rotation changes.
async fn hold(conn: &mut PgConnection, tenant: TenantId, domain: SendingDomainId) -> Result<bool, StoreError> {
    let held = sqlx::query_scalar!(
        "select sending_domain_id from mailfleet.sending_domains
         where sending_domain_id = $1 and tenant_id = $2 for update",
        domain.as_uuid(),
        tenant.as_uuid(),
    )
    .fetch_optional(conn)
    .await?;
    Ok(held.is_some())
}

async fn pending(conn: &mut PgConnection, domain: SendingDomainId) -> Result<HashSet<String>, StoreError> {
    let selectors = sqlx::query_scalar!(
        "select selector from mailfleet.dkim_keys where sending_domain_id = $1 and not active and retired_at is null",
        domain.as_uuid(),
    )
    .fetch_all(conn)
    .await?;
    Ok(selectors.into_iter().collect())
}

struct DomainRow {
    sending_domain_id: Uuid,
    domain: String,
    return_path_domain: String,
    unsigned: bool,
    created_at: DateTime<Utc>,
    verified_at: Option<DateTime<Utc>>,
}

impl DomainRow {
    fn into_domain(self, tenant: TenantId) -> Result<SendingDomain, StoreError> {
        let id = self.sending_domain_id;
        let name = |text: &str, column| {
            let corrupt = |_| StoreError::Corrupt { table: "sending_domains", column, id: id.to_string() };
            text.parse().map_err(corrupt)
        };
        Ok(SendingDomain {
            id: SendingDomainId::from_uuid(id),
            tenant,
            domain: name(&self.domain, "domain")?,
            return_path_domain: name(&self.return_path_domain, "return_path_domain")?,
            unsigned: self.unsigned,
            created_at: self.created_at,
            verified_at: self.verified_at,
        })
    }
}
