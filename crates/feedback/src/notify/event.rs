//! What is posted about an event.

use chrono::{DateTime, SecondsFormat, Utc};
use domain::fact;
use serde_json::{Map, Value, json};
use store::LogEntry;

/// The type of an event, as endpoints and their filters name it.
pub(crate) fn kind(entry: &LogEntry) -> &'static str {
    fact::word(entry.event.kind, entry.event.closing)
}

/// The body of a post: `type`, `timestamp` and `data`, as Standard Webhooks has them. What does not apply is absent.
pub(crate) fn body(entry: &LogEntry) -> Vec<u8> {
    let detail = &entry.event.detail;
    let release = (!entry.event.kind.is_feedback() && entry.event.ordinal > 0).then_some(entry.event.ordinal);
    let some = [
        ("seq", json!(entry.seq)),
        ("message_id", json!(entry.message.to_string())),
        ("batch_id", json!(entry.batch.to_string())),
        ("campaign_id", json!(entry.campaign.map(|id| id.to_string()))),
        ("recipient", json!(entry.recipient.to_string())),
        ("lane", json!(entry.lane.as_str())),
        ("site", json!(entry.site.as_str())),
        ("tags", if entry.labels.tags.is_empty() { Value::Null } else { json!(entry.labels.tags) }),
        ("metadata", if entry.labels.metadata.is_empty() { Value::Null } else { json!(entry.labels.metadata) }),
        ("sandbox", if entry.labels.sandbox { json!(true) } else { Value::Null }),
        ("release", json!(release)),
        ("attempt", json!(detail.attempt)),
        ("smtp_code", json!(detail.code)),
        ("enhanced_status", json!(detail.enhanced)),
        ("text", json!(detail.text)),
        ("bounce_class", json!(detail.class)),
        ("host", json!(detail.host)),
        ("tls", json!(detail.tls)),
        ("route", json!(detail.route)),
        ("took_ms", json!(detail.took_ms)),
        ("next_attempt_at", json!(detail.next_at.map(time))),
        ("url", json!(detail.url)),
        ("user_agent", json!(detail.agent)),
        ("network", json!(detail.network)),
        ("source", json!(detail.source)),
        ("rule", json!(detail.rule)),
    ];
    let data: Map<String, Value> =
        some.into_iter().filter(|(_, value)| !value.is_null()).map(|(key, value)| (key.to_owned(), value)).collect();
    json!({"type": format!("message.{}", kind(entry)), "timestamp": time(entry.event.at), "data": data})
        .to_string()
        .into_bytes()
}

/// The body of a test.
pub(crate) fn test(endpoint: &str, now: DateTime<Utc>) -> Vec<u8> {
    json!({"type": "webhook.test", "timestamp": time(now), "data": {"endpoint_id": endpoint}}).to_string().into_bytes()
}

fn time(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Millis, true)
}
