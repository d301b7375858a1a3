//! Sending domains and their DKIM keys.

use crate::{PLAIN, Store, StoreError, audit_log, call, transaction};
use chrono::{DateTime, Utc};
use domain::{DkimKeyId, DomainName, SendingDomainId, TenantId};

/// The algorithm of a DKIM key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DkimAlgorithm {
    /// RSA with SHA-256 (RFC 6376), 2,048 bits.
    Rsa,
    /// Ed25519 with SHA-256 (RFC 8463).
    Ed25519,
}

impl DkimAlgorithm {
    /// The word in Postgres and answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rsa => "rsa",
            Self::Ed25519 => "ed25519",
        }
    }
}

/// A sending domain of a tenant.
#[derive(Clone, Debug)]
pub struct SendingDomain {
    /// Its id.
    pub id: SendingDomainId,
    /// Whose it is.
    pub tenant: TenantId,
    /// The domain of the header From and of the signature.
    pub domain: DomainName,
    /// The domain of the envelope sender.
    pub return_path_domain: DomainName,
    /// Whether its mail goes out unsigned, whatever keys there are.
    pub unsigned: bool,
    /// Since when.
    pub created_at: DateTime<Utc>,
    /// Since when DNS is known to have what it needs.
    pub verified_at: Option<DateTime<Utc>>,
}

/// A key to store; the private part is sealed already.
#[derive(Clone, Debug)]
pub struct NewDkimKey {
    /// Its id.
    pub id: DkimKeyId,
    /// The selector under which the public part is published.
    pub selector: String,
    /// Its algorithm.
    pub algorithm: DkimAlgorithm,
    /// The private part, sealed with the fleet's master key; PKCS#8 inside.
    pub sealed_private_key: Vec<u8>,
    /// The TXT record to publish.
    pub dns_txt: String,
}

/// A stored key.
#[derive(Clone, Debug)]
pub struct SealedKey {
    /// Its id.
    pub id: DkimKeyId,
    /// The selector under which the public part is published.
    pub selector: String,
    /// Its algorithm.
    pub algorithm: DkimAlgorithm,
    /// The private part, sealed.
    pub sealed_private_key: Vec<u8>,
    /// The TXT record to publish.
    pub dns_txt: String,
}

impl Store {
    /// Stores a domain with its keys.
    ///
    /// # Errors
    /// `Exists` when the tenant has this domain; otherwise when the database does not answer.
    pub async fn create_sending_domain(&self, domain: &SendingDomain, keys: &[NewDkimKey]) -> Result<(), StoreError> {
        transaction!(self, PLAIN, conn => {
            sqlx::query!(
                "insert into mailfleet.sending_domains
                     (sending_domain_id, tenant_id, domain, return_path_domain, unsigned, created_at, verified_at)
                 values ($1, $2, $3, $4, $5, $6, $7)",
                domain.id.as_uuid(),
                domain.tenant.as_uuid(),
                domain.domain.as_str(),
                domain.return_path_domain.as_str(),
                domain.unsigned,
                domain.created_at,
                domain.verified_at,
            )
            .execute(&mut *conn)
            .await
            .map_err(|error| StoreError::or_exists(error, "this sending domain"))?;
            for key in keys {
                sqlx::query!(
                    "insert into mailfleet.dkim_keys (dkim_key_id, sending_domain_id, selector, algorithm,
                                                      sealed_private_key, dns_txt, created_at, activated_at)
                     values ($1, $2, $3, $4, $5, $6, $7, $7)",
                    key.id.as_uuid(),
                    domain.id.as_uuid(),
                    key.selector,
                    key.algorithm.as_str(),
                    key.sealed_private_key,
                    key.dns_txt,
                    domain.created_at,
                )
                .execute(&mut *conn)
                .await?;
            }
            audit_log::enter(self, conn, Some(domain.tenant), &format!("domains/{}", domain.id)).await?;
        })
    }

    /// A tenant's sending domain with its active keys, or `None`.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn sending_domain(
        &self,
        tenant: TenantId,
        domain: &DomainName,
    ) -> Result<Option<(SendingDomain, Vec<SealedKey>)>, StoreError> {
        let found = transaction!(self, PLAIN, conn => {
            let row = sqlx::query!(
                "select sending_domain_id, return_path_domain, unsigned, created_at, verified_at
                 from mailfleet.sending_domains
                 where tenant_id = $1 and domain = $2",
                tenant.as_uuid(),
                domain.as_str(),
            )
            .fetch_optional(&mut *conn)
            .await?;
            match row {
                None => None,
                Some(row) => {
                    let keys = sqlx::query!(
                        "select dkim_key_id, selector, algorithm, sealed_private_key, dns_txt from mailfleet.dkim_keys
                         where sending_domain_id = $1 and active order by algorithm desc, selector",
                        row.sending_domain_id
                    )
                    .fetch_all(&mut *conn)
                    .await?;
                    Some((row, keys))
                }
            }
        })?;
        let Some((row, keys)) = found else { return Ok(None) };
        let id = row.sending_domain_id;
        let return_path_domain = row.return_path_domain.parse().map_err(|_| StoreError::Corrupt {
            table: "sending_domains",
            column: "return_path_domain",
            id: id.to_string(),
        })?;
        let stored = SendingDomain {
            id: SendingDomainId::from_uuid(id),
            tenant,
            domain: domain.clone(),
            return_path_domain,
            unsigned: row.unsigned,
            created_at: row.created_at,
            verified_at: row.verified_at,
        };
        let keys = keys
            .into_iter()
            .map(|key| SealedKey {
                id: DkimKeyId::from_uuid(key.dkim_key_id),
                selector: key.selector,
                algorithm: if key.algorithm == "rsa" { DkimAlgorithm::Rsa } else { DkimAlgorithm::Ed25519 },
                sealed_private_key: key.sealed_private_key,
                dns_txt: key.dns_txt,
            })
            .collect();
        Ok(Some((stored, keys)))
    }

    /// Notes that DNS has what a domain needs. One that is verified stays so since when it was.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn verify_sending_domain(
        &self,
        tenant: TenantId,
        id: SendingDomainId,
        now: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        transaction!(self, PLAIN, conn => {
            let changed = sqlx::query!(
                "update mailfleet.sending_domains set verified_at = $3
                 where tenant_id = $1 and sending_domain_id = $2 and verified_at is null",
                tenant.as_uuid(),
                id.as_uuid(),
                now,
            )
            .execute(&mut *conn)
            .await?;
            if changed.rows_affected() > 0 {
                audit_log::enter(self, conn, Some(tenant), &format!("domains/{id}")).await?;
            }
        })
    }

    /// The names of a tenant's sending domains.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn sending_domain_names(&self, tenant: TenantId) -> Result<Vec<String>, StoreError> {
        call!(self, conn => {
            sqlx::query_scalar!(
                "select domain from mailfleet.sending_domains where tenant_id = $1 order by domain limit 10000",
                tenant.as_uuid()
            )
            .fetch_all(conn)
            .await?
        })
    }
}
