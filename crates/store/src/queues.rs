//! Queues (tenant, campaign, lane, slot) and pauses.

use crate::{KNOWN_LIMIT, PLAIN, Store, StoreError, audit_log, call, transaction};
use chrono::{DateTime, Utc};
use domain::{CampaignId, Lane, SiteId, Slot, TenantId};
use uuid::Uuid;

/// What names a queue.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct QueueKey {
    /// Whose messages it holds.
    pub tenant: TenantId,
    /// Their campaign.
    pub campaign: Option<CampaignId>,
    /// Their lane.
    pub lane: Lane,
    /// Where they go.
    pub slot: Slot,
    /// The site, when it has been given queues of its own.
    pub site: Option<SiteId>,
}

/// A queue with what it holds.
#[derive(Clone, Debug)]
pub struct QueueView {
    /// Its number.
    pub id: i64,
    /// Its name.
    pub key: QueueKey,
    /// Its share beside its tenant's other queues, 1 to 10,000.
    pub weight: i32,
    /// Whether a pause holds it.
    pub paused: bool,
    /// Messages that rest.
    pub waiting: i64,
    /// Of these, those that are due.
    pub due: i64,
    /// When the first of them comes due.
    pub first_due: Option<DateTime<Utc>>,
    /// Messages between release and record.
    pub moving: i64,
}

/// Which queues a pause holds: those that match every part that is given. An empty selector matches nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PauseSelector {
    /// One tenant's.
    pub tenant: Option<TenantId>,
    /// One campaign's.
    pub campaign: Option<CampaignId>,
    /// One queue.
    pub queue: Option<i64>,
    /// One slot's.
    pub slot: Option<Slot>,
    /// One destination site's.
    pub site: Option<SiteId>,
}

impl PauseSelector {
    /// As the audit log names it.
    fn resource(&self) -> String {
        let part = |name: &str, value: Option<String>| value.map(|value| format!("{name} {value}"));
        let parts = [
            part("tenant", self.tenant.map(|id| id.to_string())),
            part("campaign", self.campaign.map(|id| id.to_string())),
            part("queue", self.queue.map(|id| id.to_string())),
            part("slot", self.slot.map(|slot| slot.to_string())),
            part("site", self.site.as_ref().map(SiteId::to_string)),
        ];
        format!("queues: {}", parts.into_iter().flatten().collect::<Vec<_>>().join(", "))
    }
}

/// A pause in force.
#[derive(Clone, Debug)]
pub struct Pause {
    /// What it holds.
    pub selector: PauseSelector,
    /// Why, in the operator's words.
    pub reason: String,
    /// Since when.
    pub created_at: DateTime<Utc>,
}

const NO_CAMPAIGN: Uuid = Uuid::nil();

impl Store {
    /// The numbers of these queues, in their order; what is missing is made.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn queue_ids(&self, keys: &[QueueKey]) -> Result<Vec<i64>, StoreError> {
        let unknown = {
            let known = self.known.queues.read().expect("no holder of this lock panics");
            let mut unknown: Vec<QueueKey> = keys.iter().filter(|key| !known.contains_key(key)).cloned().collect();
            unknown.sort();
            unknown.dedup();
            unknown
        };
        if !unknown.is_empty() {
            let ids = self.make_queues(&unknown).await?;
            let mut known = self.known.queues.write().expect("no holder of this lock panics");
            if known.len() > KNOWN_LIMIT {
                known.clear();
            }
            known.extend(unknown.into_iter().zip(ids));
        }
        let known = self.known.queues.read().expect("no holder of this lock panics");
        keys.iter()
            .map(|key| known.get(key).copied().ok_or(StoreError::Timeout)) // forgotten by a neighbour just now
            .collect()
    }

    /// `keys` are sorted and differ.
    async fn make_queues(&self, keys: &[QueueKey]) -> Result<Vec<i64>, StoreError> {
        transaction!(self, PLAIN, conn => {
            let tenants: Vec<Uuid> = keys.iter().map(|key| key.tenant.as_uuid()).collect();
            let campaigns: Vec<Uuid> =
                keys.iter().map(|key| key.campaign.map_or(NO_CAMPAIGN, |id| id.as_uuid())).collect();
            let lanes: Vec<i16> = keys.iter().map(|key| key.lane.code()).collect();
            let slots: Vec<i16> = keys.iter().map(|key| key.slot.code()).collect();
            let sites: Vec<String> =
                keys.iter().map(|key| key.site.as_ref().map_or(String::new(), |site| site.to_string())).collect();
            sqlx::query!(
                "insert into mailfleet.queues (tenant_id, campaign_id, lane, slot, site)
                 select * from unnest($1::uuid[], $2::uuid[], $3::smallint[], $4::smallint[], $5::text[])
                 on conflict do nothing",
                &tenants, &campaigns, &lanes, &slots, &sites,
            )
            .execute(&mut *conn)
            .await?;
            sqlx::query_scalar!(
                r#"select q.queue_id
                   from unnest($1::uuid[], $2::uuid[], $3::smallint[], $4::smallint[], $5::text[]) with ordinality
                       as k(tenant_id, campaign_id, lane, slot, site, position)
                   join mailfleet.queues q using (tenant_id, campaign_id, lane, slot, site)
                   order by k.position"#,
                &tenants, &campaigns, &lanes, &slots, &sites,
            )
            .fetch_all(&mut *conn)
            .await?
        })
    }

    /// Pauses every queue that matches; `false` when this very pause was there, whose reason is kept.
    ///
    /// # Errors
    /// When the database does not answer, or the selector is empty.
    pub async fn pause(&self, what: &PauseSelector, reason: &str, now: DateTime<Utc>) -> Result<bool, StoreError> {
        transaction!(self, PLAIN, conn => {
            let done = sqlx::query!(
                "insert into mailfleet.pauses (tenant_id, campaign_id, queue_id, slot, site, reason, created_at)
                 values ($1, $2, $3, $4, $5, $6, $7)
                 on conflict do nothing",
                what.tenant.map(|id| id.as_uuid()),
                what.campaign.map(|id| id.as_uuid()),
                what.queue,
                what.slot.map(Slot::code),
                what.site.as_ref().map(SiteId::as_str),
                reason,
                now,
            )
            .execute(&mut *conn)
            .await?;
            let made = done.rows_affected() == 1;
            if made {
                audit_log::enter(self, conn, what.tenant, &what.resource()).await?;
            }
            made
        })
    }

    /// Ends a pause; `false` when there was none with exactly this selector.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn resume(&self, what: &PauseSelector) -> Result<bool, StoreError> {
        transaction!(self, PLAIN, conn => {
            let done = sqlx::query!(
                "delete from mailfleet.pauses
                 where tenant_id is not distinct from $1 and campaign_id is not distinct from $2
                   and queue_id is not distinct from $3 and slot is not distinct from $4 and site is not distinct from $5",
                what.tenant.map(|id| id.as_uuid()),
                what.campaign.map(|id| id.as_uuid()),
                what.queue,
                what.slot.map(Slot::code),
                what.site.as_ref().map(SiteId::as_str),
            )
            .execute(&mut *conn)
            .await?;
            let ended = done.rows_affected() == 1;
            if ended {
                audit_log::enter(self, conn, what.tenant, &what.resource()).await?;
            }
            ended
        })
    }

    /// The pauses in force, oldest first.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn pauses(&self) -> Result<Vec<Pause>, StoreError> {
        let rows = call!(self, conn => {
            sqlx::query!(
                "select tenant_id, campaign_id, queue_id, slot, site, reason, created_at
                 from mailfleet.pauses order by created_at"
            )
            .fetch_all(conn)
            .await?
        })?;
        Ok(rows
            .into_iter()
            .map(|row| Pause {
                selector: PauseSelector {
                    tenant: row.tenant_id.map(TenantId::from_uuid),
                    campaign: row.campaign_id.map(CampaignId::from_uuid),
                    queue: row.queue_id,
                    slot: row.slot.and_then(Slot::from_code),
                    site: row.site.map(SiteId::from_stored),
                },
                reason: row.reason,
                created_at: row.created_at,
            })
            .collect())
    }

    /// The queues that hold something, of one tenant or of all; counts stop at 100,000 a queue.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn queues(&self, tenant: Option<TenantId>) -> Result<Vec<QueueView>, StoreError> {
        let rows = call!(self, conn => {
            sqlx::query!(
                r#"with moving as materialized (
                       select queue_id, count(*) as held from mailfleet.moving group by queue_id
                   )
                   select q.queue_id, q.tenant_id, q.campaign_id, q.lane, q.slot, q.site, q.weight,
                          mailfleet.is_paused(q) as "paused!", w.waiting as "waiting!", w.due as "due!", w.first_due,
                          coalesce(m.held, 0) as "moving!"
                   from mailfleet.queues q
                   left join moving m on m.queue_id = q.queue_id
                   cross join lateral (
                       select count(*) as waiting, count(*) filter (where due <= mailfleet.clock()) as due,
                              min(due) as first_due
                       from (select due from mailfleet.waiting w where w.queue_id = q.queue_id limit 100000) as w
                   ) as w
                   where ($1::uuid is null or q.tenant_id = $1) and (w.waiting > 0 or m.held > 0)
                   order by w.waiting desc
                   limit 1000"#,
                tenant.map(|id| id.as_uuid()),
            )
            .fetch_all(conn)
            .await?
        })?;
        rows.into_iter()
            .map(|row| {
                Ok(QueueView {
                    id: row.queue_id,
                    key: key(row.queue_id, row.tenant_id, row.campaign_id, row.lane, row.slot, row.site)?,
                    weight: row.weight,
                    paused: row.paused,
                    waiting: row.waiting,
                    due: row.due,
                    first_due: row.first_due,
                    moving: row.moving,
                })
            })
            .collect()
    }
}

/// A queue's name out of its columns.
pub(crate) fn key(
    id: i64,
    tenant: Uuid,
    campaign: Uuid,
    lane: i16,
    slot: i16,
    site: String,
) -> Result<QueueKey, StoreError> {
    let corrupt = |column| StoreError::Corrupt { table: "queues", column, id: id.to_string() };
    Ok(QueueKey {
        tenant: TenantId::from_uuid(tenant),
        campaign: (campaign != NO_CAMPAIGN).then(|| CampaignId::from_uuid(campaign)),
        lane: Lane::from_code(lane).ok_or_else(|| corrupt("lane"))?,
        slot: Slot::from_code(slot).ok_or_else(|| corrupt("slot"))?,
        site: (!site.is_empty()).then(|| SiteId::from_stored(site)),
    })
}
