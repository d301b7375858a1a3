//! `shaping`: why a site is sent to as fast as it is.

use crate::{
    api,
    exit::Exit,
    output::{Output, Table, grouped, safe},
    reach::Reach,
};
use chrono::{DateTime, Utc};
use domain::{Rate, SiteId, SiteLimits, TlsNeed};
use prost_types::Timestamp;
use proto::v1::{DescribeSiteRequest, DescribeSiteResponse, LiftSiteRequest, Tempo, TempoChange, TempoLevels};
use serde_json::{Value, json};

/// Shows a site.
pub async fn show(site: &str, changes: u32, reach: &Reach, out: Output) -> anyhow::Result<Exit> {
    let request = DescribeSiteRequest { site: site.to_owned(), changes };
    let seen = reach.api().await?.delivery().describe_site(request).await?.into_inner();
    let site = SiteId::from_stored(seen.site.clone());
    let limits = reach.sender().map(|config| config.limits(&site)).unwrap_or_default();
    out.answer(&as_json(&seen, &limits), || view(&seen, &limits))?;
    Ok(Exit::Ok)
}

/// Takes back what lowers the pace at a site.
pub async fn lift(site: &str, route: &str, reach: &Reach, out: Output) -> anyhow::Result<Exit> {
    let request = LiftSiteRequest { site: site.to_owned(), route: route.to_owned() };
    let lifted = reach.api().await?.delivery().lift_site(request).await?.into_inner();
    out.answer(&json!({"site": lifted.site, "lifted": lifted.lifted}), || match lifted.lifted {
        0 => format!("nothing slows {} down; `mailfleet shaping {}` shows its limits", lifted.site, lifted.site),
        count => format!("lifted {count} at {}; senders follow within some seconds", lifted.site),
    })?;
    Ok(if lifted.lifted == 0 { Exit::Finding } else { Exit::Ok })
}

/// A rate in words: by the second, or by the minute when it is slow.
fn rate(per_second: Option<f64>) -> String {
    match per_second {
        None => "any".to_owned(),
        Some(rate) if rate >= 1.0 => format!("{rate:.1}/s"),
        Some(rate) => format!("{:.1}/min", rate * 60.0),
    }
}

fn limits_words(limits: &SiteLimits) -> [String; 5] {
    [
        limits.max_connections.to_string(),
        rate(limits.rate.map(|rate: Rate| rate.per_second())),
        limits.messages_per_connection.to_string(),
        limits.connection_rate.map_or_else(|| "any".to_owned(), |rate| rate.to_string()),
        match limits.tls {
            TlsNeed::Opportunistic => "when offered".to_owned(),
            TlsNeed::Required => "required".to_owned(),
        },
    ]
}

fn whose(route: &str, tenant: &str, campaign: &str) -> String {
    match (route, tenant, campaign) {
        ("", "", campaign) => format!("campaign {campaign}"),
        ("", tenant, _) => format!("tenant {tenant}"),
        (route, ..) => format!("route {}", safe(route)),
    }
}

fn until(stamp: Option<&Timestamp>, now: DateTime<Utc>) -> String {
    let Some(at) = stamp.map(api::time) else { return String::new() };
    let left = (at - now).to_std().unwrap_or_default();
    let left = std::time::Duration::from_secs(left.as_secs());
    format!(", for {}", humantime::format_duration(left))
}

fn tempo_words(tempo: &Tempo, now: DateTime<Utc>) -> String {
    let mut parts = Vec::new();
    if tempo.suspended_until.is_some() {
        parts.push(format!("nothing is sent{}", until(tempo.suspended_until.as_ref(), now)));
    }
    if let Some(value) = tempo.rate {
        let climbs = match &tempo.rate_climbs_at {
            Some(at) => format!("{}, then climbing", until(Some(at), now)),
            None => ", climbing".to_owned(),
        };
        parts.push(format!("{}{climbs}", rate(Some(value))));
    }
    if let Some(value) = tempo.connections {
        parts.push(format!("{value} connections{}", until(tempo.connections_until.as_ref(), now)));
    }
    if let Some(value) = tempo.messages_per_connection {
        let left = until(tempo.messages_per_connection_until.as_ref(), now);
        parts.push(format!("{value} messages a connection{left}"));
    }
    format!("{}: {}", whose(&tempo.route, &tempo.tenant_id, &tempo.campaign_id), parts.join("; "))
}

/// What a change did, in words.
fn change_words(before: &TempoLevels, after: &TempoLevels) -> String {
    let mut parts = Vec::new();
    match (before.suspended, after.suspended) {
        (false, true) => parts.push("suspended".to_owned()),
        (true, false) => parts.push("sends again".to_owned()),
        _ => {}
    }
    if before.rate != after.rate {
        parts.push(format!("{} to {}", rate(before.rate), rate(after.rate)));
    }
    if before.connections != after.connections {
        parts.push(format!("{} to {} connections", before.connections, after.connections));
    }
    if before.messages_per_connection != after.messages_per_connection {
        let (from, to) = (before.messages_per_connection, after.messages_per_connection);
        parts.push(format!("{from} to {to} messages a connection"));
    }
    parts.join(", ")
}

fn view(seen: &DescribeSiteResponse, limits: &[(String, SiteLimits)]) -> String {
    let now = seen.at.as_ref().map(api::time).unwrap_or_default();
    let slot = SiteId::from_stored(seen.site.clone()).slot();
    let mut text = format!(
        "{}: {} waiting, {} under way in slot {slot}\n\n",
        safe(&seen.site),
        grouped(seen.waiting),
        grouped(seen.moving)
    );
    if seen.tempos.is_empty() {
        text.push_str("nothing slows it down\n");
    } else {
        text.push_str("slowed down\n");
        for tempo in &seen.tempos {
            text.push_str(&format!("  {}\n", tempo_words(tempo, now)));
        }
    }
    if !limits.is_empty() {
        let mut table = Table::new(1, &["limits", "connections", "rate", "per connection", "new connections", "TLS"]);
        for (route, limits) in limits {
            table.row([vec![route.clone()], limits_words(limits).to_vec()].concat());
        }
        text.push_str(&format!("\n{}", table.text()));
    }
    if !seen.events.is_empty() {
        let mut table = Table::new(2, &["last hour", "event", "count"]);
        for one in &seen.events {
            table.row(vec![safe(&one.route), safe(&one.event).replace('_', " "), grouped(one.count)]);
        }
        text.push_str(&format!("\n{}", table.text()));
    }
    if !seen.changes.is_empty() {
        text.push_str("\nchanges, the newest first\n");
    }
    for change in &seen.changes {
        text.push_str(&change_lines(change));
    }
    text
}

fn change_lines(change: &TempoChange) -> String {
    let at = change.at.as_ref().map(api::time).unwrap_or_default();
    let (before, after) = (change.before.unwrap_or_default(), change.after.unwrap_or_default());
    let mut text = format!(
        "  {}  {}: {}, by {}\n",
        at.format("%Y-%m-%d %H:%M:%S"),
        whose(&change.route, &change.tenant_id, &change.campaign_id),
        change_words(&before, &after),
        safe(&change.cause)
    );
    if !change.reply.is_empty() {
        text.push_str(&format!("      {}\n", safe(&change.reply)));
    }
    if !change.message_id.is_empty() {
        text.push_str(&format!("      mailfleet why {}\n", change.message_id));
    }
    text
}

fn as_json(seen: &DescribeSiteResponse, limits: &[(String, SiteLimits)]) -> Value {
    let time = |stamp: &Option<Timestamp>| stamp.as_ref().map(api::time);
    let levels = |levels: &Option<TempoLevels>| {
        levels.as_ref().map(|one| {
            json!({"rate": one.rate, "connections": one.connections, "suspended": one.suspended,
                   "messages_per_connection": one.messages_per_connection})
        })
    };
    let tempos = seen.tempos.iter().map(|one| {
        json!({
            "route": one.route, "tenant_id": one.tenant_id, "campaign_id": one.campaign_id, "rate": one.rate,
            "rate_climbs_at": time(&one.rate_climbs_at), "connections": one.connections,
            "connections_until": time(&one.connections_until),
            "messages_per_connection": one.messages_per_connection,
            "messages_per_connection_until": time(&one.messages_per_connection_until),
            "suspended_until": time(&one.suspended_until),
        })
    });
    let changes = seen.changes.iter().map(|one| {
        json!({
            "at": time(&one.at), "route": one.route, "tenant_id": one.tenant_id, "campaign_id": one.campaign_id,
            "cause": one.cause, "reply": one.reply, "message_id": one.message_id, "before": levels(&one.before),
            "after": levels(&one.after), "next_at": time(&one.next_at),
        })
    });
    let limits = limits.iter().map(|(route, limits)| {
        json!({
            "route": route, "connections": limits.max_connections, "rate": limits.rate.map(|rate| rate.per_second()),
            "messages_per_connection": limits.messages_per_connection, "tls": limits.tls,
            "connection_rate": limits.connection_rate.map(|rate| rate.to_string()),
        })
    });
    json!({
        "site": seen.site, "at": time(&seen.at), "waiting": seen.waiting, "moving": seen.moving,
        "limits": limits.collect::<Vec<_>>(), "tempos": tempos.collect::<Vec<_>>(),
        "last_hour": seen.events.iter().map(|one| json!({"route": one.route, "event": one.event, "count": one.count})).collect::<Vec<_>>(),
        "changes": changes.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Option<Timestamp> {
        Some(Timestamp { seconds, nanos: 0 })
    }

    #[test]
    fn a_slow_site_says_how_slow_for_how_long_and_why() {
        let levels = |rate, connections| TempoLevels {
            rate: Some(rate),
            connections,
            messages_per_connection: 20,
            suspended: false,
        };
        let seen = DescribeSiteResponse {
            site: "yahoo".to_owned(),
            at: at(1_000),
            waiting: 12_345,
            tempos: vec![Tempo {
                route: "direct".to_owned(),
                rate: Some(1.0 / 60.0),
                rate_climbs_at: at(2_800),
                connections: Some(1),
                connections_until: at(2_800),
                ..Tempo::default()
            }],
            changes: vec![TempoChange {
                at: at(900),
                route: "direct".to_owned(),
                cause: "yahoo-ts03".to_owned(),
                reply: "421 4.7.0 [TS03] All messages from 192.0.2.1 will be deferred".to_owned(),
                before: Some(levels(100.0, 10)),
                after: Some(levels(1.0 / 60.0, 1)),
                ..TempoChange::default()
            }],
            ..DescribeSiteResponse::default()
        };
        let text = view(&seen, &[]);
        for part in [
            "yahoo: 12,345 waiting",
            "route direct: 1.0/min, for 30m, then climbing; 1 connections, for 30m",
            "route direct: 100.0/s to 1.0/min, 10 to 1 connections, by yahoo-ts03",
            "[TS03] All messages",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
    }
}
