//! The bounds of the API, told from the very constants and defaults that enforce them.

use crate::{
    IngestConfig, analytics, cursor, dead_letters, domains, endpoints, inbound, list, status, suppressions, templates,
    tenants, transfers, validate, watch,
};
use chrono::TimeDelta;
use proto::v1::ErrorReason;
use serde_json::Value;
use std::fmt::Display;

/// A bound that no configuration moves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fixed {
    /// What is bounded, by the field or call.
    pub what: &'static str,
    /// The bound, with its unit.
    pub most: String,
    /// What it fails with beyond it; `None`: the rest is left out.
    pub reason: Option<ErrorReason>,
}

/// A bound that the configuration sets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Configured {
    /// Its key.
    pub key: String,
    /// Its value unless configured otherwise.
    pub default: String,
}

/// The sections of `[ingest]` that hold bounds.
const SECTIONS: [&str; 6] = ["server", "accept", "limits", "watch", "transfers", "quotas"];

/// The bounds that no configuration moves.
pub fn fixed() -> Vec<Fixed> {
    let (invalid, left_out) = (Some(ErrorReason::FieldInvalid), None);
    let row = |what, most: &dyn Display, unit: &str, reason| Fixed {
        what,
        most: if unit.is_empty() {
            grouped(&most.to_string())
        } else {
            format!("{} {unit}", grouped(&most.to_string()))
        },
        reason,
    };
    let days = |span: TimeDelta| span.num_days();
    vec![
        row("`SendMessage.recipients`", &validate::MAX_MESSAGE, "", invalid),
        row("`SendBatch.recipients`", &validate::MAX_BATCH, "", invalid),
        row("`Recipient.variables_json`", &validate::MAX_VARIABLES, "octets", invalid),
        row("depth of `Recipient.variables_json`", &validate::MAX_DEPTH, "", invalid),
        row("`idempotency_key`", &validate::MAX_KEY, "characters", invalid),
        row("`Mail.send_at` ahead of now", &days(validate::MAX_AHEAD), "days", invalid),
        row("`Mail.time_to_live`", &days(validate::MAX_TTL), "days", invalid),
        row("`Mail.headers`", &validate::MAX_HEADERS, "", invalid),
        row("addresses in each header field", &validate::MAX_HEADER_ADDRESSES, "", invalid),
        row("`Mail.tags`, with the recipient's own", &validate::MAX_TAGS, "", invalid),
        row("`Mail.metadata`, with the recipient's own", &validate::MAX_ENTRIES, "entries", invalid),
        row("one tag, or one key of `metadata`", &validate::MAX_WORD, "characters", invalid),
        row("one value of `metadata`", &validate::MAX_VALUE, "characters", invalid),
        row("names of tenants and templates", &validate::MAX_NAME, "characters", invalid),
        row("name of a key", &tenants::MAX_KEY_NAME, "characters", invalid),
        row("`reason` of a pause or suppression", &validate::MAX_REASON, "characters", invalid),
        row("name of an author or reader", &validate::MAX_DISPLAY_NAME, "characters", invalid),
        row("`ListMessages.page_size`", &list::MAX_PAGE, "", invalid),
        row("`ListDomains.page_size`", &domains::MAX_PAGE, "", invalid),
        row("`ListDeadLetters.page_size`", &dead_letters::MAX_PAGE, "", invalid),
        row("`ListSuppressions.page_size`", &suppressions::MAX_PAGE, "", invalid),
        row("`ListTemplates.page_size`", &templates::MAX_PAGE, "", invalid),
        row("`ListTenants.page_size`, `ListAuditEvents.page_size`", &tenants::MAX_PAGE, "", invalid),
        row("`ListEndpoints.page_size`", &endpoints::MAX_PAGE, "", invalid),
        row("endpoints of a tenant, redeliveries included", &endpoints::MAX_ENDPOINTS, "", invalid),
        row("description of an endpoint", &endpoints::MAX_DESCRIPTION, "characters", invalid),
        row("`ListInbound.page_size`", &inbound::MAX_PAGE, "", invalid),
        row("`ReplayInbound.inbound_ids`", &inbound::MAX_NAMED, "", invalid),
        row("`page_token`", &cursor::MAX_TOKEN, "characters", Some(ErrorReason::PageTokenInvalid)),
        row("`RequeueDeadLetters.message_ids`", &dead_letters::MAX_REQUEUE, "", invalid),
        row("`AddSuppression.emails`, one message of an import", &suppressions::MAX_ADDRESSES, "", invalid),
        row("refusals that an import tells one by one", &transfers::MAX_REFUSALS, "", left_out),
        row("`WatchEvents.events`", &watch::MAX_KINDS, "", invalid),
        row("rows of `QueryMetrics`", &analytics::MAX_ROWS, "", Some(ErrorReason::ResultTooLarge)),
        row("`QueryMetrics.events`, `group_by`", &analytics::MAX_GIVEN, "", invalid),
        row("`RotateApiKey.grace`", &days(tenants::MAX_GRACE), "days", invalid),
        row("earlier secrets of a key", &store::MAX_PREVIOUS_SECRETS, "", Some(ErrorReason::SecretsExhausted)),
        row("faults that one answer tells", &status::MAX_VIOLATIONS, "", left_out),
    ]
}

/// The bounds that the configuration sets, every key of their sections.
///
/// # Errors
/// When the defaults cannot be written, which they can.
pub fn configured() -> Result<Vec<Configured>, serde_json::Error> {
    let config = serde_json::to_value(IngestConfig::default())?;
    let mut rows = Vec::new();
    for section in SECTIONS {
        if let Some(Value::Object(keys)) = config.get(section) {
            rows.extend(keys.iter().map(|(key, value)| Configured {
                key: format!("[ingest.{section}] {key}"),
                default: match value {
                    Value::String(text) => text.clone(),
                    other => grouped(&other.to_string()),
                },
            }));
        }
    }
    Ok(rows)
}

/// A number with its thousands apart.
fn grouped(digits: &str) -> String {
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return digits.to_owned();
    }
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
