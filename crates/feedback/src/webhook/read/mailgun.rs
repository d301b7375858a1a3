//! Mailgun's webhooks: one event beside its signature.

use super::{Found, MAX_ID, dedupe, json, reply::Told};
use crate::webhook::{Bounce, Event, EventError, Kind, ListScope, MachineFlag, Provider, Suppression};
use domain::{BounceClass, text::sanitise};
use serde_json::Value;

pub(super) fn read(item: &Value) -> Found {
    let data = item.get("event-data").filter(|data| data.is_object()).ok_or(EventError::Missing("event-data"))?;
    let name = json::needed(data, "event")?;
    // Of the Events API alone, or about no delivery.
    if name == "stored" || name.starts_with("list_member") || name.starts_with("list_upload") {
        return Ok(Vec::new());
    }
    let at = json::unix(data, "timestamp")?;
    let signature = json::part(item, "signature");
    let key = match (json::text(signature, "token"), json::text(data, "id")) {
        (Some(token), _) => dedupe(Provider::Mailgun, &[&token]),
        // An id is unique within its day only.
        (None, Some(id)) => dedupe(Provider::Mailgun, &[&id, &at.to_rfc3339()]),
        (None, None) => return Err(EventError::Missing("signature.token")),
    };
    let mut event = Event::new(Kind::Unknown, sanitise(&name, MAX_ID), at, key);
    event.message = json::mid(json::part(data, "user-variables"));
    let headers = json::part(json::part(data, "message"), "headers");
    let id = json::id(headers, "message-id");
    event.provider_message = id.map(|id| id.trim_start_matches('<').trim_end_matches('>').to_owned());
    event.recipient = json::recipient(data, "recipient").or_else(|| json::recipient(headers, "to"));
    match name.as_str() {
        "accepted" => event.kind = Kind::Accepted,
        "delivered" => {
            event.kind = Kind::Delivered;
            told(data).put(&mut event);
        }
        "rejected" => {
            event.kind = Kind::Dropped;
            let reject = json::part(data, "reject");
            let words = [json::str(reject, "reason"), json::str(reject, "description")].join(" ");
            Told::new(None, "", &words).put(&mut event);
            event.class = Some(BounceClass::PolicyRelated);
        }
        "failed" => failed(data, &mut event),
        "opened" | "clicked" => {
            event.kind = if name == "opened" { Kind::Opened } else { Kind::Clicked };
            visited(data, &mut event);
        }
        "unsubscribed" => {
            event.kind = Kind::Unsubscribed;
            visited(data, &mut event);
            let list = json::id(json::part(data, "mailing-list"), "address");
            event.scope = Some(list.map_or(ListScope::Everything, ListScope::List));
        }
        "complained" => event.kind = Kind::Complained,
        _ => {}
    }
    Ok(vec![event])
}

fn told(data: &Value) -> Told {
    let status = json::part(data, "delivery-status");
    let words = match json::str(status, "message") {
        "" => json::str(status, "description"),
        message => message,
    };
    Told::new(json::number(status, "code"), json::str(status, "enhanced-code"), words)
}

fn failed(data: &Value, event: &mut Event) {
    let (severity, reason) = (json::str(data, "severity"), json::str(data, "reason"));
    event.word = sanitise(&format!("failed/{severity}/{reason}"), MAX_ID);
    event.late = json::flag(json::part(data, "flags"), "is-delayed-bounce").unwrap_or(false);
    let told = told(data);
    let code = json::number(json::part(data, "delivery-status"), "code");
    let suppressed = match (reason, code) {
        ("suppress-bounce", _) | (_, Some(605)) => Some(Suppression::Bounce),
        ("suppress-unsubscribe", _) | (_, Some(606)) => Some(Suppression::Unsubscribe),
        ("suppress-complaint", _) | (_, Some(607)) => Some(Suppression::Complaint),
        (reason, _) if reason.starts_with("suppress-") => Some(Suppression::Unsaid),
        _ => None,
    };
    let found = told.class();
    // Codes of Mailgun's own: the receiver was never reached, or the time to try was over.
    let own = match (code, reason) {
        (Some(498), _) => Some(BounceClass::DnsFailure),
        (Some(499), _) => Some(BounceClass::NoAnswerFromHost),
        (_, "old") => Some(BounceClass::MessageExpired),
        _ => None,
    };
    let bounce = if own.is_some() { Bounce::Soft } else { told.bounce() };
    told.put(event);
    event.class = own.or(found);
    if severity == "temporary" {
        event.kind = Kind::Deferred;
    } else if let Some(suppressed) = suppressed {
        event.kind = Kind::Dropped;
        event.suppressed = Some(suppressed);
        event.class = Some(match suppressed {
            Suppression::Unsubscribe => BounceClass::Unsubscribe,
            Suppression::Complaint => BounceClass::SpamRelated,
            Suppression::Bounce | Suppression::Invalid | Suppression::Manual | Suppression::Unsaid => {
                BounceClass::InvalidRecipient
            }
        });
    } else {
        event.kind = Kind::Bounced(bounce);
        event.class = event.class.or(Some(BounceClass::Uncategorized));
    }
}

fn visited(data: &Value, event: &mut Event) {
    let client = json::part(data, "client-info");
    event.url = json::url(data, "url");
    event.ip = json::ip(data, "ip");
    event.user_agent = json::user_agent(client, "user-agent");
    event.machine = match client.get("bot") {
        Some(Value::String(bot)) => Some(match bot.as_str() {
            "" => MachineFlag::Person,
            "apple" => MachineFlag::Apple,
            "gmail" => MachineFlag::Gmail,
            _ => MachineFlag::Generic,
        }),
        Some(_) | None => None,
    };
}
