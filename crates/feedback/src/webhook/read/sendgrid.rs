//! SendGrid's event webhook: flat objects.

use super::{Found, dedupe, json, reply::Told};
use crate::webhook::{Bounce, Event, EventError, Kind, ListScope, MachineFlag, Provider, Suppression};
use domain::BounceClass;
use serde_json::Value;

pub(super) fn read(item: &Value) -> Found {
    let name = json::needed(item, "event")?;
    let at = json::unix(item, "timestamp")?;
    let key = match json::text(item, "sg_event_id") {
        Some(id) => dedupe(Provider::Sendgrid, &[&id]),
        // Nothing else is the same in every copy and in no other event.
        None => return Err(EventError::Missing("sg_event_id")),
    };
    let kind_of = json::str(item, "type");
    let mut event = Event::new(Kind::Unknown, word(&name, kind_of), at, key);
    event.recipient = json::recipient(item, "email");
    event.message = json::mid(item);
    let given = json::id(item, "sg_message_id");
    // Behind the first dot stands where it was handled.
    event.provider_message = given.as_deref().and_then(|id| id.split('.').next()).map(str::to_owned);
    match name.as_str() {
        "processed" => event.kind = Kind::Accepted,
        "deferred" => {
            event.kind = Kind::Deferred;
            told(item, "response").put(&mut event);
        }
        "delivered" => {
            event.kind = Kind::Delivered;
            told(item, "response").put(&mut event);
        }
        "bounce" => {
            bounced(item, kind_of, &mut event);
            event.late = given.is_none();
        }
        "dropped" => dropped(item, &mut event),
        "open" => {
            event.kind = Kind::Opened;
            visited(item, &mut event);
            event.machine = json::flag(item, "sg_machine_open")
                .map(|machine| if machine { MachineFlag::Apple } else { MachineFlag::Person });
        }
        "click" => {
            event.kind = Kind::Clicked;
            visited(item, &mut event);
        }
        "spamreport" => event.kind = Kind::Complained,
        "unsubscribe" => {
            event.kind = Kind::Unsubscribed;
            event.scope = Some(ListScope::Everything);
        }
        "group_unsubscribe" | "group_resubscribe" => {
            event.kind = if name == "group_unsubscribe" { Kind::Unsubscribed } else { Kind::Resubscribed };
            let group = json::id(item, "asm_group_id").ok_or(EventError::Missing("asm_group_id"))?;
            event.scope = Some(ListScope::Group(group));
            visited(item, &mut event);
        }
        "account_status_change" => event.kind = Kind::AccountAlert,
        _ => {}
    }
    Ok(vec![event])
}

fn word(name: &str, kind: &str) -> String {
    let word = if kind.is_empty() { name.to_owned() } else { format!("{name}/{kind}") };
    domain::text::sanitise(&word, super::MAX_ID)
}

fn told(item: &Value, words: &str) -> Told {
    Told::new(None, json::str(item, "status"), json::str(item, words))
}

fn visited(item: &Value, event: &mut Event) {
    event.url = json::url(item, "url");
    event.user_agent = json::user_agent(item, "useragent");
    event.ip = json::ip(item, "ip");
}

fn bounced(item: &Value, kind: &str, event: &mut Event) {
    let told = told(item, "reason");
    let classification = json::str(item, "bounce_classification");
    let bounce = match kind {
        "bounce" if classification == "Mailbox Unavailable" && told.is_transient() => Bounce::Soft,
        "bounce" => Bounce::Hard,
        "blocked" => Bounce::Block,
        "expired" => Bounce::Soft,
        _ => told.bounce(),
    };
    event.kind = Kind::Bounced(bounce);
    // SendGrid sends nothing more to an address after a bounce, and goes on after a block.
    event.suppressed = (bounce == Bounce::Hard).then_some(Suppression::Bounce);
    let class = match classification {
        "Invalid Address" => Some(BounceClass::InvalidRecipient),
        "Technical" => Some(told.class_or(BounceClass::TransientFailure)),
        "Content" => Some(told.class_or(BounceClass::ContentRelated)),
        "Reputation" => Some(BounceClass::SpamBlock),
        "Frequency/Volume Too High" | "Frequency or Volume Too High" => Some(BounceClass::RateLimited),
        "Mailbox Unavailable" => Some(told.class_or(BounceClass::InactiveMailbox)),
        _ if kind == "expired" => Some(told.class_or(BounceClass::MessageExpired)),
        _ => Some(told.class_or(BounceClass::Uncategorized)),
    };
    told.put(event);
    event.class = class;
}

fn dropped(item: &Value, event: &mut Event) {
    event.kind = Kind::Dropped;
    let (class, suppressed) = match json::str(item, "reason").trim() {
        "Invalid SMTPAPI header" => (BounceClass::BadConfiguration, None),
        "Spam Content" => (BounceClass::SpamContent, None),
        "Unsubscribed Address" => (BounceClass::Unsubscribe, Some(Suppression::Unsubscribe)),
        "Bounced Address" => (BounceClass::InvalidRecipient, Some(Suppression::Bounce)),
        "Spam Reporting Address" => (BounceClass::SpamRelated, Some(Suppression::Complaint)),
        "Invalid" => (BounceClass::InvalidRecipient, Some(Suppression::Invalid)),
        "Recipient List over Package Quota" => (BounceClass::RateLimited, None),
        _ => (BounceClass::Uncategorized, None),
    };
    told(item, "reason").put(event);
    event.class = Some(class);
    event.suppressed = suppressed;
}
