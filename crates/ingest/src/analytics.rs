//! `AnalyticsService`.

use crate::{
    Fault,
    auth::Scope,
    mail::{caller, one_fault},
    queues::wire_lane,
    validate::{Faults, TemplateName, Violation, campaign, free_text, timestamp as point_in_time},
    wire::timestamp,
};
use chrono::{DateTime, TimeDelta, Utc};
use domain::{
    Closing, Lane, TemplateId, TenantId,
    fact::{FactKind, word},
};
use proto::v1::{
    MetricBucket, MetricDimension, MetricRow, QueryMetricsRequest, QueryMetricsResponse,
    analytics_service_server::AnalyticsService,
};
use store::{Dimensions, MetricsQuery, Store};
use tonic::{Request, Response, Status};

/// Most rows of an answer.
pub const MAX_ROWS: u32 = 10_000;
/// Longest names in filters.
const MAX_NAME: usize = 253;
/// Most events, and most dimensions, that one call names.
pub const MAX_GIVEN: usize = 50;

/// Tells what became of mail, in figures.
pub struct Analytics {
    /// Where the roll-ups are.
    pub store: Store,
}

impl Analytics {
    /// The template that a question is narrowed to.
    async fn template(&self, tenant: Option<TenantId>, given: &str) -> Result<Option<TemplateId>, Fault> {
        if given.is_empty() {
            return Ok(None);
        }
        let name = TemplateName::parse("template", given).map_err(one_fault)?;
        let unknown = Fault::TemplateUnknown { field: "template" };
        match (name, tenant) {
            // Of another tenant it has no figures here.
            (TemplateName::Id(id), _) => Ok(Some(id)),
            (TemplateName::Name(_), None) => {
                Err(Fault::field("template", "is a name, which stands for a template of one tenant; give its id"))
            }
            (TemplateName::Name(name), Some(tenant)) => {
                Ok(Some(self.store.template_named(tenant, &name).await?.ok_or(unknown)?.id))
            }
        }
    }
}

/// The longest time that is looked at in buckets of a kind, so that a question costs a bounded look.
const fn longest(bucket: store::MetricBucket) -> TimeDelta {
    match bucket {
        store::MetricBucket::Minute => TimeDelta::days(2),
        store::MetricBucket::Hour => TimeDelta::days(92),
        store::MetricBucket::Day => TimeDelta::days(3_660),
    }
}

fn query(tenant: Option<TenantId>, request: &QueryMetricsRequest) -> Result<MetricsQuery, Fault> {
    let mut faults = Faults::default();
    let bucket = match request.bucket() {
        MetricBucket::Minute => Some(store::MetricBucket::Minute),
        MetricBucket::Hour => Some(store::MetricBucket::Hour),
        MetricBucket::Day => Some(store::MetricBucket::Day),
        MetricBucket::Unspecified => {
            faults.add("bucket", "is missing or not known; give one of MetricBucket");
            None
        }
    };
    let mut point = |field: &str, given: Option<&prost_types::Timestamp>| {
        let missing = || Violation::new(field, "is missing; give a google.protobuf.Timestamp");
        faults.take(given.ok_or_else(missing).and_then(|given| point_in_time(field, given)))
    };
    let (start, end) = (point("start", request.start.as_ref()), point("end", request.end.as_ref()));
    if let (Some(bucket), Some(start), Some(end)) = (bucket, start, end) {
        check_span(&mut faults, bucket, start, end);
    }
    let by = dimensions(&mut faults, &request.group_by);
    let campaign = faults.take(campaign("campaign_id", &request.campaign_id)).flatten();
    faults.take(free_text("site", &request.site, MAX_NAME));
    faults.take(free_text("route", &request.route, MAX_NAME));
    let lane = match proto::v1::Lane::try_from(request.lane) {
        Ok(proto::v1::Lane::Transactional) => Some(Lane::Transactional),
        Ok(proto::v1::Lane::Bulk) => Some(Lane::Bulk),
        Ok(proto::v1::Lane::Unspecified) => None,
        Err(_) => {
            faults.add("lane", "is not known; give one of Lane");
            None
        }
    };
    let mut events = Vec::new();
    for (field, count) in [("events", request.events.len()), ("group_by", request.group_by.len())] {
        if count > MAX_GIVEN {
            return Err(Fault::field(field, format!("has {count} entries; give at most {MAX_GIVEN}")));
        }
    }
    for (at, given) in request.events.iter().enumerate() {
        let kinds = kinds_of(given);
        if kinds.is_empty() {
            faults.add(format!("events[{at}]"), "is no event; give a word that MetricRow.event has");
        }
        events.extend(kinds);
    }
    let some = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
    let span = bucket.zip(start).zip(end);
    faults.finish(span.map(|((bucket, start), end)| MetricsQuery {
        tenant,
        start,
        end,
        bucket,
        by,
        campaign,
        template: None,
        lane,
        site: some(&request.site),
        route: some(&request.route),
        events,
    }))
}

fn check_span(faults: &mut Faults, bucket: store::MetricBucket, start: DateTime<Utc>, end: DateTime<Utc>) {
    if end <= start {
        faults.add("end", "is not after start; give a later time");
    } else if end - start > longest(bucket) {
        let days = longest(bucket).num_days();
        faults.add("end", format!("is too late; give at most {days} days after start, or a larger bucket"));
    }
}

fn dimensions(faults: &mut Faults, given: &[i32]) -> Dimensions {
    let mut by = Dimensions::default();
    for (at, dimension) in given.iter().enumerate() {
        match MetricDimension::try_from(*dimension) {
            Ok(MetricDimension::Campaign) => by.campaign = true,
            Ok(MetricDimension::Template) => by.template = true,
            Ok(MetricDimension::Lane) => by.lane = true,
            Ok(MetricDimension::Site) => by.site = true,
            Ok(MetricDimension::Route) => by.route = true,
            Ok(MetricDimension::Tenant) => by.tenant = true,
            Ok(MetricDimension::Unspecified) | Err(_) => {
                faults.add(format!("group_by[{at}]"), "is not known; give one of MetricDimension");
            }
        }
    }
    by
}

/// The facts that a word stands for.
fn kinds_of(event: &str) -> Vec<(FactKind, Option<Closing>)> {
    let closings = || std::iter::once(None).chain(Closing::ALL.into_iter().map(Some));
    FactKind::ALL
        .into_iter()
        .flat_map(|kind| closings().map(move |closing| (kind, closing)))
        .filter(|(kind, closing)| word(*kind, *closing) == event)
        .collect()
}

fn wire(row: store::MetricRow) -> MetricRow {
    let (template_id, template) = row.template.map(|(id, name)| (id.to_string(), name)).unwrap_or_default();
    MetricRow {
        start: Some(timestamp(row.start)),
        event: row.event.to_owned(),
        count: row.count,
        tenant_id: row.tenant.map_or_else(String::new, |id| id.to_string()),
        campaign_id: row.campaign.map_or_else(String::new, |id| id.to_string()),
        lane: row.lane.map_or(proto::v1::Lane::Unspecified, wire_lane).into(),
        site: row.site,
        route: row.route,
        template_id,
        template,
    }
}

#[tonic::async_trait]
impl AnalyticsService for Analytics {
    async fn query_metrics(
        &self,
        request: Request<QueryMetricsRequest>,
    ) -> Result<Response<QueryMetricsResponse>, Status> {
        let tenant = caller(&request)?.tenant_or_all(Scope::Read)?;
        let mut query = query(tenant, request.get_ref())?;
        query.template = self.template(tenant, &request.get_ref().template).await?;
        let rows = self.store.metrics(&query, MAX_ROWS + 1).await.map_err(Fault::from)?;
        if u32::try_from(rows.len()).is_ok_and(|rows| rows <= MAX_ROWS) {
            Ok(Response::new(QueryMetricsResponse { rows: rows.into_iter().map(wire).collect() }))
        } else {
            Err(Fault::ResultTooLarge { most: MAX_ROWS }.into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_of_the_log_can_be_asked_for() {
        for kind in FactKind::ALL {
            for closing in Closing::ALL.map(Some).into_iter().chain([None]) {
                assert!(kinds_of(word(kind, closing)).contains(&(kind, closing)), "{kind} {closing:?}");
            }
        }
        assert!(kinds_of("opened by nobody").is_empty());
    }

    #[test]
    fn a_question_without_bounds_is_refused_field_by_field() {
        let request = QueryMetricsRequest { group_by: vec![0], events: vec!["?".to_owned()], ..Default::default() };
        let Err(Fault::Invalid(violations)) = query(None, &request) else { panic!("is taken") };
        let fields: Vec<&str> = violations.iter().map(|violation| violation.field.as_str()).collect();
        assert_eq!(fields, ["bucket", "start", "end", "group_by[0]", "events[0]"]);
    }
}
