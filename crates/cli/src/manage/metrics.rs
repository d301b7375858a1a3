//! `metrics`: figures by time.

use super::{
    args::{BucketArg, DimensionArg, MetricsArgs},
    back,
};
use crate::{
    api,
    args::LaneArg,
    exit::Exit,
    output::{Output, Table, grouped, safe},
    reach::Reach,
};
use chrono::{DateTime, Utc};
use proto::v1::{Lane, MetricBucket, MetricDimension, MetricRow, QueryMetricsRequest};
use serde_json::{Value, json};
use std::collections::BTreeMap;

pub async fn run(args: &MetricsArgs, reach: &Reach, out: Output) -> anyhow::Result<Exit> {
    let now = service::clock::now();
    let until = args.until.as_deref().map(|until| back(until, now)).transpose()?.unwrap_or(now);
    let request = QueryMetricsRequest {
        start: Some(api::stamp(back(&args.from, now)?)),
        end: Some(api::stamp(until)),
        bucket: match args.bucket {
            BucketArg::Minute => MetricBucket::Minute,
            BucketArg::Hour => MetricBucket::Hour,
            BucketArg::Day => MetricBucket::Day,
        }
        .into(),
        group_by: args.by.iter().map(|dimension| wire(*dimension).into()).collect(),
        campaign_id: args.campaign.clone().unwrap_or_default(),
        lane: match args.lane {
            None => Lane::Unspecified,
            Some(LaneArg::Transactional) => Lane::Transactional,
            Some(LaneArg::Bulk) => Lane::Bulk,
        }
        .into(),
        site: args.site.clone().unwrap_or_default(),
        route: args.route.clone().unwrap_or_default(),
        template: args.template.clone().unwrap_or_default(),
        events: args.event.clone(),
    };
    // Without --tenant a key that administers the fleet sees all of it.
    let rows = reach.api().await?.analytics().query_metrics(request).await?.into_inner().rows;
    out.answer(&json!({"rows": rows.iter().map(as_json).collect::<Vec<_>>()}), || table(&rows, args))?;
    Ok(Exit::Ok)
}

const fn wire(dimension: DimensionArg) -> MetricDimension {
    match dimension {
        DimensionArg::Tenant => MetricDimension::Tenant,
        DimensionArg::Campaign => MetricDimension::Campaign,
        DimensionArg::Template => MetricDimension::Template,
        DimensionArg::Lane => MetricDimension::Lane,
        DimensionArg::Site => MetricDimension::Site,
        DimensionArg::Route => MetricDimension::Route,
    }
}

const fn head(dimension: DimensionArg) -> &'static str {
    match dimension {
        DimensionArg::Tenant => "tenant",
        DimensionArg::Campaign => "campaign",
        DimensionArg::Template => "template",
        DimensionArg::Lane => "lane",
        DimensionArg::Site => "receiver",
        DimensionArg::Route => "route",
    }
}

fn cell(row: &MetricRow, dimension: DimensionArg) -> String {
    let text = match dimension {
        DimensionArg::Tenant => row.tenant_id.clone(),
        DimensionArg::Campaign => row.campaign_id.clone(),
        DimensionArg::Template => safe(&row.template),
        DimensionArg::Lane => lane(row).to_owned(),
        DimensionArg::Site => safe(&row.site),
        DimensionArg::Route => safe(&row.route),
    };
    if text.is_empty() { "-".to_owned() } else { text }
}

fn lane(row: &MetricRow) -> &'static str {
    match row.lane() {
        Lane::Transactional => "transactional",
        Lane::Bulk => "bulk",
        Lane::Unspecified => "",
    }
}

/// A line for each time and what is told apart, a column for each event that there is.
fn table(rows: &[MetricRow], args: &MetricsArgs) -> String {
    type Line<'a> = (DateTime<Utc>, Vec<String>, BTreeMap<&'a str, u64>);
    let mut events: Vec<&str> = Vec::new();
    let mut lines: Vec<Line<'_>> = Vec::new();
    for row in rows {
        if !events.contains(&row.event.as_str()) {
            events.push(&row.event);
        }
        let start = row.start.as_ref().map(api::time).unwrap_or_default();
        let cells: Vec<String> = args.by.iter().map(|dimension| cell(row, *dimension)).collect();
        match lines.last_mut() {
            Some((at, known, counts)) if *at == start && *known == cells => {
                *counts.entry(row.event.as_str()).or_default() += row.count;
            }
            _ => lines.push((start, cells, BTreeMap::from([(row.event.as_str(), row.count)]))),
        }
    }
    if lines.is_empty() {
        return "nothing happened".to_owned();
    }
    let names = args.by.iter().map(|dimension| head(*dimension));
    let heads: Vec<&str> = std::iter::once("from (UTC)").chain(names).chain(events.iter().copied()).collect();
    let mut table = Table::new(1 + args.by.len(), &heads);
    let form = if args.bucket == BucketArg::Day { "%Y-%m-%d" } else { "%Y-%m-%d %H:%M" };
    for (start, cells, counts) in lines {
        let counts = events.iter().map(|event| counts.get(event).map_or_else(String::new, |count| grouped(*count)));
        table.row(std::iter::once(start.format(form).to_string()).chain(cells).chain(counts).collect());
    }
    table.text()
}

fn as_json(row: &MetricRow) -> Value {
    json!({
        "start": row.start.as_ref().map(api::time), "event": row.event, "count": row.count, "tenant_id": row.tenant_id,
        "campaign_id": row.campaign_id, "lane": lane(row), "site": row.site, "route": row.route,
        "template_id": row.template_id, "template": row.template,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_is_a_column_and_every_time_a_line() {
        let row = |seconds: i64, event: &str, site: &str, count: u64| MetricRow {
            start: Some(prost_types::Timestamp { seconds, nanos: 0 }),
            event: event.to_owned(),
            count,
            site: site.to_owned(),
            ..MetricRow::default()
        };
        let args = MetricsArgs {
            from: "1h".to_owned(),
            until: None,
            bucket: BucketArg::Hour,
            by: vec![DimensionArg::Site],
            campaign: None,
            template: None,
            lane: None,
            site: None,
            route: None,
            event: Vec::new(),
        };
        let rows = [
            row(0, "accepted", "google", 1_200),
            row(0, "delivered", "google", 7),
            row(3_600, "delivered", "google", 1),
            row(3_600, "delivered", "yahoo", 2),
        ];
        let expected = "from (UTC)        receiver  accepted  delivered\n\
                        1970-01-01 00:00  google       1,200          7\n\
                        1970-01-01 01:00  google                      1\n\
                        1970-01-01 01:00  yahoo                       2\n";
        assert_eq!(table(&rows, &args), expected);
    }
}
