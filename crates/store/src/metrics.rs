//! Figures from the roll-ups.

use crate::{PLAIN, Store, StoreError, transaction};
use chrono::{DateTime, Utc};
use domain::{CampaignId, Closing, Lane, TemplateId, TenantId, fact, fact::FactKind};
use uuid::Uuid;

/// The span of one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricBucket {
    /// A minute.
    Minute,
    /// An hour.
    Hour,
    /// A day.
    Day,
}

impl MetricBucket {
    const fn code(self) -> i16 {
        match self {
            Self::Minute => 1,
            Self::Hour => 2,
            Self::Day => 3,
        }
    }

    const fn word(self) -> &'static str {
        match self {
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::Day => "day",
        }
    }
}

/// What events are told apart by, beside time and kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dimensions {
    /// The tenant.
    pub tenant: bool,
    /// The campaign.
    pub campaign: bool,
    /// The template.
    pub template: bool,
    /// The lane.
    pub lane: bool,
    /// The receiver.
    pub site: bool,
    /// The route.
    pub route: bool,
}

/// A question.
#[derive(Clone, Debug)]
pub struct MetricsQuery {
    /// Whose events; `None`: everybody's.
    pub tenant: Option<TenantId>,
    /// The first bucket is the one that this lies in.
    pub start: DateTime<Utc>,
    /// No bucket begins here or later.
    pub end: DateTime<Utc>,
    /// The span of a row.
    pub bucket: MetricBucket,
    /// What events are told apart by.
    pub by: Dimensions,
    /// Only of this campaign.
    pub campaign: Option<CampaignId>,
    /// Only of mail made from this template.
    pub template: Option<TemplateId>,
    /// Only of this lane.
    pub lane: Option<Lane>,
    /// Only of this receiver.
    pub site: Option<String>,
    /// Only of this route.
    pub route: Option<String>,
    /// Only these kinds, and of closing facts these endings; empty: all.
    pub events: Vec<(FactKind, Option<Closing>)>,
}

/// One figure. What was not asked for is `None` or empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricRow {
    /// When the bucket begins.
    pub start: DateTime<Utc>,
    /// The word of the event.
    pub event: &'static str,
    /// How many.
    pub count: u64,
    /// The tenant.
    pub tenant: Option<TenantId>,
    /// The campaign.
    pub campaign: Option<CampaignId>,
    /// The template, and its name.
    pub template: Option<(TemplateId, String)>,
    /// The lane.
    pub lane: Option<Lane>,
    /// The receiver.
    pub site: String,
    /// The route.
    pub route: String,
}

impl Store {
    /// Up to `limit` rows, by time, then by the dimensions and the event.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn metrics(&self, query: &MetricsQuery, limit: u32) -> Result<Vec<MetricRow>, StoreError> {
        let kinds: Vec<i16> = query.events.iter().map(|(kind, _)| kind.code()).collect();
        let closings: Vec<i16> = query.events.iter().map(|(_, closing)| closing.map_or(0, Closing::code)).collect();
        let by = query.by;
        // Of the three tables only the asked one is read: the others' conditions are known before a row is.
        let rows = transaction!(self, PLAIN, conn => {
            sqlx::query!(
                r#"select r.*, t.name as "template_name?"
                   from (
                       select r.bucket as "bucket!", case when $6 then r.tenant_id end as tenant_id,
                              case when $7 then r.campaign_id end as campaign_id,
                              case when $18 then r.template_id end as template_id,
                              case when $8 then r.lane end as lane, case when $9 then r.site end as site,
                              case when $10 then r.route end as route, r.kind as "kind!", r.closing as "closing!",
                              sum(r.events)::bigint as "events!"
                       from (
                           select * from mailfleet.rollup_minute
                           where $1::smallint = 1 and bucket >= date_trunc($2, $3::timestamptz, 'UTC') and bucket < $4
                           union all
                           select * from mailfleet.rollup_hour
                           where $1::smallint = 2 and bucket >= date_trunc($2, $3::timestamptz, 'UTC') and bucket < $4
                           union all
                           select * from mailfleet.rollup_day
                           where $1::smallint = 3 and bucket >= date_trunc($2, $3::timestamptz, 'UTC') and bucket < $4
                       ) as r
                       where ($5::uuid is null or r.tenant_id = $5) and ($11::uuid is null or r.campaign_id = $11)
                         and ($12::smallint is null or r.lane = $12) and ($13::text is null or r.site = $13)
                         and ($14::text is null or r.route = $14) and ($19::uuid is null or r.template_id = $19)
                         and (cardinality($15::smallint[]) = 0
                              or exists (select from unnest($15::smallint[], $16::smallint[]) as k(kind, closing)
                                         where k.kind = r.kind and k.closing = r.closing))
                       group by 1, 2, 3, 4, 5, 6, 7, 8, 9
                       order by 1, 2, 3, 4, 5, 6, 7, 8, 9
                       limit $17
                   ) as r
                   left join mailfleet.templates t on t.template_id = r.template_id
                   order by 1, 2, 3, 4, 5, 6, 7, 8, 9"#,
                query.bucket.code(),
                query.bucket.word(),
                query.start,
                query.end,
                query.tenant.map(|id| id.as_uuid()),
                by.tenant,
                by.campaign,
                by.lane,
                by.site,
                by.route,
                query.campaign.map(|id| id.as_uuid()),
                query.lane.map(Lane::code),
                query.site,
                query.route,
                &kinds,
                &closings,
                i64::from(limit),
                by.template,
                query.template.map(|id| id.as_uuid()),
            )
            .fetch_all(&mut *conn)
            .await?
        })?;
        rows.into_iter()
            .map(|row| {
                let corrupt = |column| StoreError::Corrupt {
                    table: "rollup_minute, rollup_hour or rollup_day",
                    column,
                    id: row.bucket.to_rfc3339(),
                };
                let kind = FactKind::from_code(row.kind).ok_or_else(|| corrupt("kind"))?;
                Ok(MetricRow {
                    start: row.bucket,
                    event: fact::word(kind, Closing::from_code(row.closing)),
                    count: u64::try_from(row.events).unwrap_or(0),
                    tenant: row.tenant_id.map(TenantId::from_uuid),
                    campaign: row.campaign_id.filter(|id| *id != Uuid::nil()).map(CampaignId::from_uuid),
                    template: row.template_id.map(TemplateId::from_uuid).zip(row.template_name),
                    lane: row.lane.and_then(Lane::from_code),
                    site: row.site.unwrap_or_default(),
                    route: row.route.unwrap_or_default(),
                })
            })
            .collect()
    }
}
