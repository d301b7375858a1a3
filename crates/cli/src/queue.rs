//! `queue`, `pause` and `resume`: where mail rests, and holding it back.

use crate::{
    api,
    args::SelectorArgs,
    exit::Exit,
    output::{Output, Table, grouped, safe},
    reach::Reach,
};
use chrono::{DateTime, Utc};
use proto::v1::{
    Lane, ListQueuesRequest, ListQueuesResponse, Pause, PauseQueueRequest, QueueSelector, ResumeQueueRequest,
};
use serde_json::{Value, json};
use std::time::Duration;

/// Rows of the view for people; `--json` has all.
const MAX_ROWS: usize = 30;

/// Shows the queues: once, or again and again while somebody watches.
pub async fn run(once: bool, every: Duration, reach: &Reach, out: Output) -> anyhow::Result<Exit> {
    let api = reach.api().await?;
    let live = out.terminal && !once;
    loop {
        let seen = api.queues().list_queues(ListQueuesRequest {}).await?.into_inner();
        let now = service::clock::now();
        if !live {
            out.answer(&as_json(&seen), || view(&seen, now))?;
            return Ok(Exit::Ok);
        }
        let at = now.format("%H:%M:%S UTC");
        out.redraw(&format!("{}\n{at}, every {}; Ctrl-C ends\n", view(&seen, now), humantime::format_duration(every)));
        tokio::select! {
            _ = tokio::signal::ctrl_c() => return Ok(Exit::Ok),
            () = tokio::time::sleep(every) => {}
        }
    }
}

/// Holds mail back.
pub async fn pause(what: &SelectorArgs, reason: &str, reach: &Reach, out: Output) -> anyhow::Result<Exit> {
    let selector = selector(what, reach).await?;
    let request = PauseQueueRequest { selector: Some(selector.clone()), reason: reason.to_owned() };
    reach.api().await?.queues().pause_queue(request).await?;
    out.answer(&json!({"paused": selector_json(&selector)}), || {
        format!("paused: {}; what is with its receiver already runs to its end", selector_words(&selector))
    })?;
    Ok(Exit::Ok)
}

/// Lets it go again.
pub async fn resume(what: &SelectorArgs, reach: &Reach, out: Output) -> anyhow::Result<Exit> {
    let selector = selector(what, reach).await?;
    let request = ResumeQueueRequest { selector: Some(selector.clone()) };
    let resumed = reach.api().await?.queues().resume_queue(request).await?.into_inner().resumed;
    out.answer(&json!({"resumed": resumed, "selector": selector_json(&selector)}), || {
        if resumed {
            format!("resumed: {}", selector_words(&selector))
        } else {
            format!("there was no pause of {}; `mailfleet queue` shows the pauses", selector_words(&selector))
        }
    })?;
    Ok(if resumed { Exit::Ok } else { Exit::Finding })
}

async fn selector(what: &SelectorArgs, reach: &Reach) -> anyhow::Result<QueueSelector> {
    let tenant_id = match &what.of_tenant {
        Some(tenant) => Some(reach.tenant_id(tenant).await?.to_string()),
        None => None,
    };
    Ok(QueueSelector {
        tenant_id,
        campaign_id: what.campaign.clone(),
        queue_id: what.queue,
        slot: what.slot.clone(),
        site: what.site.clone(),
    })
}

fn view(seen: &ListQueuesResponse, now: DateTime<Utc>) -> String {
    let mut table =
        Table::new(6, &["queue", "lane", "slot", "tenant", "campaign", "", "waiting", "moving", "next due"]);
    for queue in seen.queues.iter().take(MAX_ROWS) {
        let due = queue.next_due.as_ref().map(api::time);
        table.row(vec![
            queue.queue_id.to_string(),
            lane(queue.lane()).to_owned(),
            if queue.site.is_empty() { queue.slot.clone() } else { format!("{}: {}", queue.slot, safe(&queue.site)) },
            short(&queue.tenant_id),
            short(&queue.campaign_id),
            if queue.paused { "paused".to_owned() } else { String::new() },
            grouped(queue.waiting),
            grouped(queue.moving),
            due.map_or(String::new(), |due| {
                if due <= now { "now".to_owned() } else { format!("in {} s", (due - now).num_seconds() + 1) }
            }),
        ]);
    }
    let mut text = if table.is_empty() { "No mail rests or moves.\n".to_owned() } else { table.text() };
    if seen.queues.len() > MAX_ROWS {
        text.push_str(&format!("and {} queues more\n", seen.queues.len() - MAX_ROWS));
    }
    let sum = |of: fn(&proto::v1::Queue) -> u64| seen.queues.iter().map(of).sum::<u64>();
    text.push_str(&format!("\n{} waiting, {} moving\n", grouped(sum(|q| q.waiting)), grouped(sum(|q| q.moving))));
    for pause in &seen.pauses {
        text.push_str(&format!("{}\n", pause_words(pause)));
    }
    text
}

fn pause_words(pause: &Pause) -> String {
    let what = pause.selector.as_ref().map(selector_words).unwrap_or_default();
    let since = pause.since.as_ref().map(api::time).unwrap_or_default();
    format!("paused since {}: {what} ({})", since.format("%Y-%m-%d %H:%M:%S UTC"), safe(&pause.reason))
}

fn selector_words(selector: &QueueSelector) -> String {
    let mut parts = Vec::new();
    let mut part = |name: &str, value: Option<String>| parts.extend(value.map(|value| format!("{name} {value}")));
    part("tenant", selector.tenant_id.clone());
    part("campaign", selector.campaign_id.clone());
    part("queue", selector.queue_id.map(|id| id.to_string()));
    part("slot", selector.slot.clone());
    part("site", selector.site.as_deref().map(safe));
    parts.join(", ")
}

fn selector_json(selector: &QueueSelector) -> Value {
    json!({
        "tenant_id": selector.tenant_id, "campaign_id": selector.campaign_id, "queue_id": selector.queue_id,
        "slot": selector.slot, "site": selector.site,
    })
}

fn as_json(seen: &ListQueuesResponse) -> Value {
    let queues: Vec<Value> = seen
        .queues
        .iter()
        .map(|queue| {
            json!({
                "queue_id": queue.queue_id, "tenant_id": queue.tenant_id, "campaign_id": queue.campaign_id,
                "lane": lane(queue.lane()), "slot": queue.slot, "site": queue.site, "waiting": queue.waiting,
                "moving": queue.moving, "next_due": queue.next_due.as_ref().map(api::time), "paused": queue.paused,
            })
        })
        .collect();
    let pauses: Vec<Value> = seen
        .pauses
        .iter()
        .map(|pause| {
            json!({
                "selector": pause.selector.as_ref().map(selector_json), "reason": pause.reason,
                "since": pause.since.as_ref().map(api::time),
            })
        })
        .collect();
    json!({"queues": queues, "pauses": pauses})
}

fn lane(lane: Lane) -> &'static str {
    match lane {
        Lane::Transactional => "transactional",
        Lane::Bulk => "bulk",
        Lane::Unspecified => "",
    }
}

/// The end of an id, where those made close together differ.
fn short(id: &str) -> String {
    if id.len() <= 12 { id.to_owned() } else { format!("…{}", &id[id.len().saturating_sub(12)..]) }
}
