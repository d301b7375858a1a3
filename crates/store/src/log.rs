//! The fold of facts into the log and the roll-ups, the figures, and the audit that recounts them.

use crate::{HOT, PLAIN, Store, StoreError, transaction};
use chrono::{DateTime, Utc};
use domain::{CampaignId, TenantId};

/// What one fold did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fold {
    /// Facts taken out of the outbox.
    pub taken: u64,
    /// Entries added to the log; the others were repeats.
    pub logged: u64,
    /// The first and the last fact taken: where the next look may begin.
    pub range: Option<(i64, i64)>,
}

/// Where the log stands and what it has not taken in yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogHead {
    /// The number of the last entry.
    pub seq: i64,
    /// Facts not folded yet, counted up to 100,000.
    pub backlog: i64,
    /// When the one with the lowest number happened.
    pub oldest: Option<DateTime<Utc>>,
    /// The database's clock.
    pub now: DateTime<Utc>,
}

/// What an audit found; all zero is right.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Audit {
    /// Entries in the log.
    pub events: i64,
    /// Messages ever accepted and still kept.
    pub messages: i64,
    /// Messages that wait or move.
    pub open: i64,
    /// Facts not folded yet.
    pub facts: i64,
    /// Combinations whose roll-up differs from a recount of the log.
    pub rollup_mismatches: i64,
    /// Numbers missing in the log.
    pub seq_gaps: i64,
    /// Messages neither waiting, moving nor closed.
    pub orphans: i64,
    /// Messages in two places at once.
    pub doubled: i64,
}

impl Audit {
    /// Whether everything adds up.
    pub const fn is_clean(&self) -> bool {
        self.rollup_mismatches == 0 && self.seq_gaps == 0 && self.orphans == 0 && self.doubled == 0
    }
}

/// Figures of one receiver site.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct SiteFigures {
    /// The site.
    pub site: String,
    /// Messages accepted.
    pub accepted: i64,
    /// Messages that ended delivered.
    pub delivered: i64,
    /// Of these, those that had been deferred before.
    pub deferred_then_delivered: i64,
    /// Messages that ended bounced.
    pub bounced: i64,
    /// Messages whose recipient wants none, or cannot have any: refused before they were sent.
    pub suppressed: i64,
    /// Messages that ended otherwise.
    pub other: i64,
    /// From accept to delivery, median, in milliseconds.
    pub p50_ms: Option<f64>,
    /// From accept to delivery, 99th percentile, in milliseconds.
    pub p99_ms: Option<f64>,
}

impl Store {
    /// Folds up to `limit` facts numbered `from` or above: log, roll-ups and removal in one transaction.
    ///
    /// # Errors
    /// When the database does not answer; then nothing was folded, or all of it.
    pub async fn fold(&self, from: i64, limit: u32) -> Result<Fold, StoreError> {
        transaction!(self, HOT, conn => {
            let seq = sqlx::query_scalar!("select seq from mailfleet.log_state for update").fetch_one(&mut *conn).await?;
            let row = sqlx::query_file!("src/sql/fold.sql", from, i64::from(limit), seq).fetch_one(&mut *conn).await?;
            failpoint::hit!("analytics.fold.before", row.taken > 0);
            Fold {
                taken: u64::try_from(row.taken).unwrap_or(0),
                logged: u64::try_from(row.logged).unwrap_or(0),
                range: row.lowest.zip(row.highest),
            }
        })
    }

    /// Where the log stands, and the facts that wait for the fold.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn log_head(&self) -> Result<LogHead, StoreError> {
        transaction!(self, HOT, conn => {
            sqlx::query_as!(
                LogHead,
                r#"select seq, mailfleet.clock() as "now!",
                          (select count(*) from (select from mailfleet.facts limit 100000) as f) as "backlog!",
                          (select at from mailfleet.facts order by fact_id limit 1) as oldest
                   from mailfleet.log_state"#
            )
            .fetch_one(&mut *conn)
            .await?
        })
    }

    /// Compacts minutes into hours and hours into days, up to the newest complete ones before `until`. Repeating it
    /// gives the same figures: a bucket is counted anew, never added to.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn compact(&self, since: DateTime<Utc>, until: DateTime<Utc>) -> Result<(), StoreError> {
        transaction!(self, PLAIN, conn => {
            sqlx::query!(
                "insert into mailfleet.rollup_hour as r
                     (bucket, tenant_id, campaign_id, template_id, lane, site, route, kind, closing, events)
                 select date_trunc('hour', bucket, 'UTC'), tenant_id, campaign_id, template_id, lane, site, route, kind,
                        closing, sum(events)
                 from mailfleet.rollup_minute
                 where bucket >= date_trunc('hour', $1::timestamptz, 'UTC')
                   and bucket < date_trunc('hour', $2::timestamptz, 'UTC') + interval '1 hour'
                 group by 1, 2, 3, 4, 5, 6, 7, 8, 9
                 order by 1, 2, 3, 4, 5, 6, 7, 8, 9
                 on conflict (bucket, tenant_id, campaign_id, template_id, lane, site, route, kind, closing)
                 do update set events = excluded.events where r.events <> excluded.events",
                since,
                until,
            )
            .execute(&mut *conn)
            .await?;
            sqlx::query!(
                "insert into mailfleet.rollup_day as r
                     (bucket, tenant_id, campaign_id, template_id, lane, site, route, kind, closing, events)
                 select date_trunc('day', bucket, 'UTC'), tenant_id, campaign_id, template_id, lane, site, route, kind,
                        closing, sum(events)
                 from mailfleet.rollup_hour
                 where bucket >= date_trunc('day', $1::timestamptz, 'UTC')
                   and bucket < date_trunc('day', $2::timestamptz, 'UTC') + interval '1 day'
                 group by 1, 2, 3, 4, 5, 6, 7, 8, 9
                 order by 1, 2, 3, 4, 5, 6, 7, 8, 9
                 on conflict (bucket, tenant_id, campaign_id, template_id, lane, site, route, kind, closing)
                 do update set events = excluded.events where r.events <> excluded.events",
                since,
                until,
            )
            .execute(&mut *conn)
            .await?;
        })
    }

    /// Recounts the log against the roll-ups and looks for messages that are nowhere or in two places. One snapshot;
    /// reads everything that is kept.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn audit(&self) -> Result<Audit, StoreError> {
        transaction!(self, "begin isolation level repeatable read read only; set local statement_timeout = 0", conn => {
            let row = sqlx::query!(
                r#"select
                    (select count(*) from mailfleet.message_events) as "events!",
                    (select count(*) from mailfleet.messages) as "messages!",
                    (select count(*) from mailfleet.waiting) + (select count(*) from mailfleet.moving) as "open!",
                    (select count(*) from mailfleet.facts) as "facts!",
                    (select count(*) from (
                        select date_trunc('minute', at, 'UTC') as bucket, tenant_id,
                               coalesce(campaign_id, '00000000-0000-0000-0000-000000000000') as campaign_id,
                               coalesce(template_id, '00000000-0000-0000-0000-000000000000') as template_id, lane,
                               site, route, kind, coalesce(closing, 0) as closing, count(*) as events
                        from mailfleet.message_events
                        group by 1, 2, 3, 4, 5, 6, 7, 8, 9
                     ) as log
                     full join mailfleet.rollup_minute r
                         using (bucket, tenant_id, campaign_id, template_id, lane, site, route, kind, closing)
                     where log.events is distinct from r.events) as "rollup_mismatches!",
                    (select abs(coalesce(max(seq), 0) - count(*)) + abs(coalesce(max(seq), 0) -
                            (select seq from mailfleet.log_state)) + (count(*) - count(distinct seq))
                     from mailfleet.message_events) as "seq_gaps!",
                    (select count(*) from mailfleet.messages m
                     where not exists (select from mailfleet.waiting w where w.message_id = m.message_id)
                       and not exists (select from mailfleet.moving v where v.message_id = m.message_id)
                       and not exists (select from mailfleet.message_events e
                                       where e.message_id = m.message_id and e.kind = 2)
                       and not exists (select from mailfleet.facts f where f.message_id = m.message_id and f.kind = 2)
                    ) as "orphans!",
                    (select count(*) from (
                        select message_id from (
                            select message_id from mailfleet.waiting
                            union all select message_id from mailfleet.moving
                            union all select message_id from mailfleet.message_events where kind = 2
                            union all select message_id from mailfleet.facts where kind = 2
                        ) as places
                        group by message_id having count(*) > 1
                     ) as doubled) as "doubled!""#
            )
            .fetch_one(&mut *conn)
            .await?;
            Audit {
                events: row.events,
                messages: row.messages,
                open: row.open,
                facts: row.facts,
                rollup_mismatches: row.rollup_mismatches,
                seq_gaps: row.seq_gaps,
                orphans: row.orphans,
                doubled: row.doubled,
            }
        })
    }

    /// Figures by receiver site of a tenant or campaign, counted from the log.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn site_figures(
        &self,
        tenant: Option<TenantId>,
        campaign: Option<CampaignId>,
    ) -> Result<Vec<SiteFigures>, StoreError> {
        transaction!(self, PLAIN, conn => {
            sqlx::query_as!(
                SiteFigures,
                r#"with per_message as (
                       select message_id, max(site) filter (where kind <> 1) as sent_site,
                              max(site) filter (where kind = 1) as accepted_site,
                              min(at) filter (where kind = 1) as accepted_at,
                              min(at) filter (where kind = 2) as closed_at,
                              max(closing) filter (where kind = 2) as closing,
                              bool_or(kind = 3) as deferred
                       from mailfleet.message_events
                       where ($1::uuid is null or tenant_id = $1) and ($2::uuid is null or campaign_id = $2)
                       group by message_id
                   )
                   select coalesce(sent_site, accepted_site) as "site!",
                          count(*) as "accepted!",
                          count(*) filter (where closing = 1) as "delivered!",
                          count(*) filter (where closing = 1 and deferred) as "deferred_then_delivered!",
                          count(*) filter (where closing = 2) as "bounced!",
                          count(*) filter (where closing = 5) as "suppressed!",
                          count(*) filter (where closing > 2 and closing <> 5) as "other!",
                          percentile_cont(0.5) within group (order by extract(epoch from closed_at - accepted_at)::float8
                              * 1000) filter (where closing = 1) as p50_ms,
                          percentile_cont(0.99) within group (order by extract(epoch from closed_at - accepted_at)::float8
                              * 1000) filter (where closing = 1) as p99_ms
                   from per_message
                   group by 1
                   order by 2 desc, 1"#,
                tenant.map(|id| id.as_uuid()),
                campaign.map(|id| id.as_uuid()),
            )
            .fetch_all(&mut *conn)
            .await?
        })
    }
}
