//! Resend's webhooks: one event, without an id of its own.

use super::{Found, MAX_ID, dedupe, json, reply::Told, ses};
use crate::webhook::{Event, EventError, Kind, ListScope, Provider, Suppression};
use domain::{BounceClass, text::sanitise};
use serde_json::Value;

/// Reads an event; `post` is the id that the headers bore.
pub(super) fn read(item: &Value, post: Option<&str>) -> Found {
    let name = json::needed(item, "type")?;
    let data = item.get("data").filter(|data| data.is_object()).ok_or(EventError::Missing("data"))?;
    let is_other = name.starts_with("domain.") || matches!(name.as_str(), "contact.created" | "contact.deleted");
    // Domains, address books and mail to us.
    if is_other || name == "email.received" {
        return Ok(Vec::new());
    }
    let at = json::rfc3339(item, "created_at")?;
    let click = json::part(data, "click");
    let key = match post {
        Some(id) => dedupe(Provider::Resend, &[id]),
        None => {
            let id = json::text(data, "email_id").or_else(|| json::text(data, "id")).unwrap_or_default();
            dedupe(Provider::Resend, &[&name, &id, &at.to_rfc3339(), json::str(click, "link")])
        }
    };
    let mut event = Event::new(Kind::Unknown, sanitise(&name, MAX_ID), at, key);
    event.message = json::mid(json::part(data, "tags")).or_else(|| json::mid_of_headers(json::part(data, "headers")));
    event.provider_message = json::id(data, "email_id");
    event.recipient = json::only_recipient(json::part(data, "to"));
    match name.as_str() {
        "email.sent" | "email.scheduled" => event.kind = Kind::Accepted,
        "email.delivered" => event.kind = Kind::Delivered,
        "email.delivery_delayed" => event.kind = Kind::Deferred,
        "email.bounced" => bounced(json::part(data, "bounce"), &mut event),
        "email.suppressed" => {
            event.kind = Kind::Dropped;
            Told::new(None, "", json::str(json::part(data, "suppressed"), "message")).put(&mut event);
            event.class = Some(BounceClass::InvalidRecipient);
            event.suppressed = Some(Suppression::Unsaid);
        }
        "email.failed" => {
            event.kind = Kind::Failed;
            Told::new(None, "", json::str(json::part(data, "failed"), "reason")).put(&mut event);
        }
        "email.complained" => event.kind = Kind::Complained,
        "email.opened" => {
            event.kind = Kind::Opened;
            visited(json::part(data, "open"), &mut event);
        }
        "email.clicked" => {
            event.kind = Kind::Clicked;
            visited(click, &mut event);
        }
        "contact.updated" => {
            // What else changes about a contact says nothing about his mail.
            if json::flag(data, "unsubscribed") != Some(true) {
                return Ok(Vec::new());
            }
            event.kind = Kind::Unsubscribed;
            event.recipient = json::recipient(data, "email");
            event.scope = Some(ListScope::Everything);
        }
        _ => {}
    }
    Ok(vec![event])
}

/// Resend sends through SES, whose types and words these are.
fn bounced(bounce: &Value, event: &mut Event) {
    let (kind, sub) = (json::str(bounce, "type"), json::str(bounce, "subType"));
    event.word = sanitise(&format!("{}/{kind}/{sub}", event.word), MAX_ID);
    let told = Told::new(None, "", json::str(bounce, "message"));
    let (kind, class, suppressed) = ses::bounced(kind, sub, &told);
    told.put(event);
    event.kind = kind;
    event.class = Some(class);
    event.suppressed = suppressed;
}

fn visited(visit: &Value, event: &mut Event) {
    event.url = json::url(visit, "link");
    event.user_agent = json::user_agent(visit, "userAgent");
    event.ip = json::ip(visit, "ipAddress");
}
