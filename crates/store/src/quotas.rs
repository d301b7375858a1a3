//! Quotas of tenants. Instances of ingest borrow shares of an hour's and a day's quota here; what all of them together
//! have borrowed never exceeds it. A share that nobody uses up is lost when its hour or day ends.

use crate::{HOT, PLAIN, Store, StoreError, call, transaction};
use chrono::{DateTime, Utc};
use domain::TenantId;

/// The part of what is left that an instance borrows at a time. Larger parts: fewer loans, and more that is lost to
/// the others when one instance goes away.
const SHARE: u64 = 16;

/// What a tenant may send; `None`: no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quotas {
    /// Recipients an hour.
    pub per_hour: Option<u64>,
    /// Recipients a day.
    pub per_day: Option<u64>,
    /// Messages that may rest at a time.
    pub backlog: Option<u64>,
}

/// A span of time that a quota is for; whole ones of UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum QuotaPeriod {
    /// An hour.
    Hour,
    /// A day.
    Day,
}

impl QuotaPeriod {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Hour, Self::Day];

    /// The code in Postgres.
    pub const fn code(self) -> i16 {
        match self {
            Self::Hour => 1,
            Self::Day => 2,
        }
    }

    const fn word(self) -> &'static str {
        match self {
            Self::Hour => "hour",
            Self::Day => "day",
        }
    }
}

/// What an instance wants to borrow.
#[derive(Clone, Copy, Debug)]
pub struct Ask {
    /// Of which quota.
    pub period: QuotaPeriod,
    /// The quota.
    pub limit: u64,
    /// At least this much, or nothing.
    pub least: u64,
}

/// What an instance has borrowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loan {
    /// Of which quota.
    pub period: QuotaPeriod,
    /// How much; 0 when less is left than was asked for.
    pub amount: u64,
    /// When the period ends, and the loan with it.
    pub ends_at: DateTime<Utc>,
}

/// How much has been lent in the periods that it is now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lent {
    /// In this hour.
    pub hour: u64,
    /// In this day.
    pub day: u64,
}

/// How much is lent to who needs `least` of a quota of which `lent` is gone.
fn share(limit: u64, lent: u64, least: u64) -> u64 {
    let left = limit.saturating_sub(lent);
    if left < least { 0 } else { least.max(left / SHARE) }
}

impl Store {
    /// Borrows of a tenant's quotas, each by itself.
    ///
    /// # Errors
    /// When the database does not answer; then nothing was borrowed, or it is lost until the period ends.
    pub async fn borrow_quota(&self, tenant: TenantId, asks: &[Ask]) -> Result<Vec<Loan>, StoreError> {
        transaction!(self, PLAIN, conn => {
            let mut loans = Vec::with_capacity(asks.len());
            for period in QuotaPeriod::ALL {
                let Some(ask) = asks.iter().find(|ask| ask.period == period) else { continue };
                // The row is held from here on, with what is lent in the period that it is now.
                let row = sqlx::query!(
                    r#"insert into mailfleet.quota_loans as q (tenant_id, period, bucket, lent)
                       values ($1, $2, date_trunc($3, mailfleet.clock(), 'UTC'), 0)
                       on conflict (tenant_id, period) do update
                       set bucket = greatest(q.bucket, excluded.bucket),
                           lent = case when q.bucket < excluded.bucket then 0 else q.lent end
                       returning lent,
                                 bucket + ('1 ' || $3)::interval as "ends_at!""#,
                    tenant.as_uuid(),
                    period.code(),
                    period.word(),
                )
                .fetch_one(&mut *conn)
                .await?;
                let amount = share(ask.limit, u64::try_from(row.lent).unwrap_or(0), ask.least);
                if amount > 0 {
                    sqlx::query!(
                        "update mailfleet.quota_loans set lent = lent + $3 where tenant_id = $1 and period = $2",
                        tenant.as_uuid(),
                        period.code(),
                        i64::try_from(amount).unwrap_or(i64::MAX),
                    )
                    .execute(&mut *conn)
                    .await?;
                }
                loans.push(Loan { period, amount, ends_at: row.ends_at });
            }
            loans
        })
    }

    /// How much of a tenant's quotas has been lent.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn lent_quota(&self, tenant: TenantId) -> Result<Lent, StoreError> {
        let row = call!(self, conn => {
            sqlx::query!(
                r#"select coalesce(sum(lent) filter (
                              where period = 1 and bucket = date_trunc('hour', mailfleet.clock(), 'UTC')), 0)::bigint
                              as "hour!",
                          coalesce(sum(lent) filter (
                              where period = 2 and bucket = date_trunc('day', mailfleet.clock(), 'UTC')), 0)::bigint
                              as "day!"
                   from mailfleet.quota_loans where tenant_id = $1"#,
                tenant.as_uuid(),
            )
            .fetch_one(conn)
            .await?
        })?;
        Ok(Lent { hour: u64::try_from(row.hour).unwrap_or(0), day: u64::try_from(row.day).unwrap_or(0) })
    }

    /// How many messages of a tenant rest, counted up to `most`.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn backlog(&self, tenant: TenantId, most: u64) -> Result<u64, StoreError> {
        let count = transaction!(self, HOT, conn => {
            sqlx::query_scalar!(
                r#"select count(*) as "count!"
                   from (select from mailfleet.queues q
                         cross join lateral (select from mailfleet.waiting w where w.queue_id = q.queue_id) as w
                         where q.tenant_id = $1
                         limit $2) as w"#,
                tenant.as_uuid(),
                i64::try_from(most).unwrap_or(i64::MAX),
            )
            .fetch_one(&mut *conn)
            .await?
        })?;
        Ok(u64::try_from(count).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lent_never_exceeds_the_quota_and_all_of_it_can_be_had() {
        for (limit, least) in [(1, 1), (100, 1), (1_000_000, 7), (10, 10), (15, 4)] {
            let mut lent = 0;
            loop {
                let amount = share(limit, lent, least);
                if amount == 0 {
                    break;
                }
                assert!(amount >= least);
                lent += amount;
            }
            assert!(lent <= limit && limit - lent < least, "{limit} {least} {lent}");
        }
        assert_eq!(share(10, 20, 1), 0);
    }
}
