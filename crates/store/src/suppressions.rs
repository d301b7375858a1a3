//! The suppression list: who gets no mail, or no bulk mail.
//!
//! An address has one entry in a tenant, with the widest scope that was asked for: so a claim that has found the row
//! knows all there is to know. Scopes are lanes and nothing finer, since a lane is what the claim has at hand.

use crate::{HOT, PLAIN, Store, StoreError, audit_log, call, transaction};
use chrono::{DateTime, Utc};
use domain::{AddressHash, Lane, Mailbox, TenantId};
use sqlx::PgConnection;
use std::collections::BTreeMap;
use uuid::Uuid;

/// What led to an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SuppressionCause {
    /// The receiver says that there is no such mailbox.
    HardBounce,
    /// The recipient called a mail spam.
    Complaint,
    /// The recipient wants no more of it.
    Unsubscribe,
    /// Somebody decided so.
    Manual,
}

impl SuppressionCause {
    /// Every cause.
    pub const ALL: [Self; 4] = [Self::HardBounce, Self::Complaint, Self::Unsubscribe, Self::Manual];

    /// The code in Postgres, from 1.
    pub const fn code(self) -> i16 {
        match self {
            Self::HardBounce => 1,
            Self::Complaint => 2,
            Self::Unsubscribe => 3,
            Self::Manual => 4,
        }
    }

    /// The word for people and commands.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::HardBounce => "hard_bounce",
            Self::Complaint => "complaint",
            Self::Unsubscribe => "unsubscribe",
            Self::Manual => "manual",
        }
    }

    fn from_stored(code: i16, hash: Uuid) -> Result<Self, StoreError> {
        let corrupt = || StoreError::Corrupt { table: "suppressions", column: "cause", id: hash.to_string() };
        Self::ALL.into_iter().find(|cause| cause.code() == code).ok_or_else(corrupt)
    }
}

/// An entry to make.
#[derive(Clone, Debug)]
pub struct NewSuppression {
    /// Who gets no mail.
    pub recipient: Mailbox,
    /// What led to it.
    pub cause: SuppressionCause,
    /// Whether it keeps bulk mail alone from him.
    pub bulk_only: bool,
    /// Why, for people.
    pub reason: String,
}

impl NewSuppression {
    /// Keeps all mail from a recipient.
    pub fn all(recipient: Mailbox, cause: SuppressionCause) -> Self {
        Self { recipient, cause, bulk_only: false, reason: cause.as_str().to_owned() }
    }
}

/// What suppressing came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Suppressed {
    /// Addresses that were not on the list before.
    pub added: usize,
    /// Messages that were closed.
    pub closed: usize,
}

/// The entry that holds for a recipient.
#[derive(Clone, Debug)]
pub struct Suppression {
    /// What led to it.
    pub cause: SuppressionCause,
    /// Whether it keeps bulk mail alone from him.
    pub bulk_only: bool,
    /// Why, for people.
    pub reason: String,
    /// Since when.
    pub created_at: DateTime<Utc>,
    /// Whether it holds for every tenant.
    pub global: bool,
}

/// An entry of a list.
#[derive(Clone, Debug)]
pub struct SuppressionEntry {
    /// The address as it was given.
    pub address: String,
    /// What led to it.
    pub cause: SuppressionCause,
    /// Whether it keeps bulk mail alone from the recipient.
    pub bulk_only: bool,
    /// Why, for people.
    pub reason: String,
    /// Its place in the list.
    pub place: SuppressionPlace,
}

/// A place in a tenant's list, the newest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SuppressionPlace {
    /// When the entry was made.
    pub created_at: DateTime<Utc>,
    /// Tells entries of one time apart.
    pub hash: Uuid,
}

/// Which entries of a list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SuppressionFilter {
    /// Only these.
    pub cause: Option<SuppressionCause>,
    /// Only those of this scope.
    pub bulk_only: Option<bool>,
    /// Only those made at this time or later.
    pub since: Option<DateTime<Utc>>,
}

impl Store {
    /// Suppresses recipients for a tenant (`None`: for all), and closes what waits or travels to them in the same
    /// transaction. An entry that is there stays as it is, unless the new one is wider.
    ///
    /// # Errors
    /// When the database does not answer; then none is suppressed, or, after a time-out, nobody knows. A repeat is
    /// harmless.
    pub async fn suppress(
        &self,
        tenant: Option<TenantId>,
        entries: &[NewSuppression],
    ) -> Result<Suppressed, StoreError> {
        transaction!(self, HOT, conn => { suppress_in(self, conn, tenant, entries).await? })
    }

    /// Takes a recipient off a tenant's list; `false` when he was not on it.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn unsuppress(&self, tenant: Option<TenantId>, recipient: &Mailbox) -> Result<bool, StoreError> {
        transaction!(self, PLAIN, conn => {
            let done = sqlx::query!(
                "delete from mailfleet.suppressions where address_hash = $1 and tenant_id = $2",
                recipient.hash().as_uuid(),
                tenant.map_or(Uuid::nil(), |id| id.as_uuid()),
            )
            .execute(&mut *conn)
            .await?;
            if done.rows_affected() == 1 {
                audit_log::enter(self, conn, tenant, "suppressions: 1 removed").await?;
            }
            done.rows_affected() == 1
        })
    }

    /// The entry that keeps mail of this tenant from a recipient: the widest, and of equal ones the tenant's own.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn suppression(&self, tenant: TenantId, hash: AddressHash) -> Result<Option<Suppression>, StoreError> {
        let row = call!(self, conn => {
            sqlx::query!(
                "select tenant_id, reason, cause, bulk_only, created_at from mailfleet.suppressions
                 where address_hash = $1 and tenant_id = any (array[$2, '00000000-0000-0000-0000-000000000000'::uuid])
                 order by bulk_only, tenant_id desc limit 1",
                hash.as_uuid(),
                tenant.as_uuid(),
            )
            .fetch_optional(conn)
            .await?
        })?;
        row.map(|row| {
            Ok(Suppression {
                cause: SuppressionCause::from_stored(row.cause, hash.as_uuid())?,
                bulk_only: row.bulk_only,
                reason: row.reason,
                created_at: row.created_at,
                global: row.tenant_id.is_nil(),
            })
        })
        .transpose()
    }

    /// Up to `limit` entries of a tenant's list that come after a place, newest first.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn suppressions(
        &self,
        tenant: TenantId,
        filter: &SuppressionFilter,
        after: Option<SuppressionPlace>,
        limit: u32,
    ) -> Result<Vec<SuppressionEntry>, StoreError> {
        let rows = call!(self, conn => {
            sqlx::query!(
                "select address_hash, address, reason, cause, bulk_only, created_at from mailfleet.suppressions
                 where tenant_id = $1 and created_at >= coalesce($2::timestamptz, '-infinity')
                   and (created_at, address_hash)
                       < (coalesce($3::timestamptz, 'infinity'),
                          coalesce($4::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff'))
                   and ($5::smallint is null or cause = $5) and ($6::boolean is null or bulk_only = $6)
                 order by created_at desc, address_hash desc
                 limit $7",
                tenant.as_uuid(),
                filter.since,
                after.map(|place| place.created_at),
                after.map(|place| place.hash),
                filter.cause.map(SuppressionCause::code),
                filter.bulk_only,
                i64::from(limit),
            )
            .fetch_all(conn)
            .await?
        })?;
        rows.into_iter()
            .map(|row| {
                Ok(SuppressionEntry {
                    cause: SuppressionCause::from_stored(row.cause, row.address_hash)?,
                    address: row.address,
                    bulk_only: row.bulk_only,
                    reason: row.reason,
                    place: SuppressionPlace { created_at: row.created_at, hash: row.address_hash },
                })
            })
            .collect()
    }
}

/// [`Store::suppress`] within a transaction.
pub(crate) async fn suppress_in(
    store: &Store,
    conn: &mut PgConnection,
    tenant: Option<TenantId>,
    entries: &[NewSuppression],
) -> Result<Suppressed, StoreError> {
    // Sorted for the locks, each address once: the widest of its entries, the first among equals.
    let mut wanted: BTreeMap<Uuid, &NewSuppression> = BTreeMap::new();
    for entry in entries {
        let known = wanted.entry(entry.recipient.hash().as_uuid()).or_insert(entry);
        if known.bulk_only && !entry.bulk_only {
            *known = entry;
        }
    }
    if wanted.is_empty() {
        return Ok(Suppressed::default());
    }
    let owner = tenant.map_or(Uuid::nil(), |id| id.as_uuid());
    let hashes = |bulk_only: bool| -> Vec<Uuid> {
        wanted.iter().filter(|(_, entry)| entry.bulk_only == bulk_only).map(|(hash, _)| *hash).collect()
    };
    let scopes = [(hashes(false), Lane::ALL.map(Lane::code).to_vec()), (hashes(true), vec![Lane::Bulk.code()])];
    let fresh = sqlx::query_scalar!(
        r#"insert into mailfleet.suppressions as s
                       (address_hash, tenant_id, address, reason, cause, bulk_only, created_at)
                   select a.hash, $1, a.address, a.reason, a.cause, a.bulk_only, mailfleet.clock()
                   from unnest($2::uuid[], $3::text[], $4::text[], $5::smallint[], $6::boolean[])
                       as a(hash, address, reason, cause, bulk_only)
                   order by a.hash
                   on conflict (address_hash, tenant_id) do update
                   set reason = excluded.reason, cause = excluded.cause, bulk_only = false
                   where s.bulk_only and not excluded.bulk_only
                   -- Only a row that was there has been locked by somebody: by this very update.
                   returning (s.xmax = 0) as "fresh!""#,
        owner,
        &wanted.keys().copied().collect::<Vec<_>>(),
        &wanted.values().map(|entry| entry.recipient.as_str().to_owned()).collect::<Vec<_>>(),
        &wanted.values().map(|entry| entry.reason.clone()).collect::<Vec<_>>(),
        &wanted.values().map(|entry| entry.cause.code()).collect::<Vec<_>>(),
        &wanted.values().map(|entry| entry.bulk_only).collect::<Vec<_>>(),
    )
    .fetch_all(&mut *conn)
    .await?;
    let mut closed = 0;
    for (hashes, lanes) in scopes.iter().filter(|(hashes, _)| !hashes.is_empty()) {
        let rows = sqlx::query_file_scalar!("src/sql/suppress.sql", hashes, owner, lanes).fetch_all(&mut *conn).await?;
        closed += rows.len();
    }
    let added = fresh.iter().filter(|fresh| **fresh).count();
    if !fresh.is_empty() || closed > 0 {
        let resource = format!("suppressions: {} asked, {added} added", wanted.len());
        audit_log::enter(store, conn, tenant, &resource).await?;
    }
    Ok(Suppressed { added, closed })
}

/// Takes a recipient off a tenant's list, within a transaction, if it was he who asked to be on it.
pub(crate) async fn unsuppress_in(
    store: &Store,
    conn: &mut PgConnection,
    tenant: TenantId,
    recipient: &Mailbox,
) -> Result<(), StoreError> {
    let done = sqlx::query!(
        "delete from mailfleet.suppressions where address_hash = $1 and tenant_id = $2 and cause = $3",
        recipient.hash().as_uuid(),
        tenant.as_uuid(),
        SuppressionCause::Unsubscribe.code(),
    )
    .execute(&mut *conn)
    .await?;
    if done.rows_affected() == 1 {
        audit_log::enter(store, conn, Some(tenant), "suppressions: 1 removed, by the recipient").await?;
    }
    Ok(())
}
