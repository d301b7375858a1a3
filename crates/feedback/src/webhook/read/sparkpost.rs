//! SparkPost's event webhooks: `{"msys":{CLASS:{…}}}`.

use super::{Found, MAX_ID, dedupe, json, reply::Told};
use crate::webhook::{Bounce, Event, EventError, Kind, ListScope, MachineFlag, Provider, Suppression};
use domain::{BounceClass, text::sanitise};
use serde_json::Value;

pub(super) fn read(item: &Value) -> Found {
    let classes = json::part(item, "msys").as_object().ok_or(EventError::Missing("msys"))?;
    // There is one; a ping has none. Relayed mail, A/B tests and ingestion are no deliveries.
    let known = ["message_event", "track_event", "gen_event", "unsubscribe_event"];
    let beside = ["relay_event", "relay_message", "ab_test_event", "ingest_event"];
    let Some((class, data)) = classes.iter().find(|(class, _)| !beside.contains(&class.as_str())) else {
        return Ok(Vec::new());
    };
    let name = json::needed(data, "type")?;
    let at = json::unix(data, "timestamp")?;
    let id = json::needed(data, "event_id")?;
    let word = if known.contains(&class.as_str()) { name.clone() } else { format!("{class}/{name}") };
    let mut event = Event::new(Kind::Unknown, sanitise(&word, MAX_ID), at, dedupe(Provider::Sparkpost, &[&id]));
    event.message = json::mid(json::part(data, "rcpt_meta"));
    event.provider_message = json::id(data, "transmission_id");
    // The one as it was given keeps the case of its local part.
    event.recipient = json::recipient(data, "raw_rcpt_to").or_else(|| json::recipient(data, "rcpt_to"));
    match (class.as_str(), name.as_str()) {
        ("message_event", "injection") => event.kind = Kind::Accepted,
        ("message_event", "delivery") => event.kind = Kind::Delivered,
        ("message_event", "delay") => {
            event.kind = Kind::Deferred;
            let own = class_of(data).map(|(_, class)| class);
            let told = told(data);
            let found = own.map_or(told.class(), |own| Some(told.class_or(own)));
            told.put(&mut event);
            event.class = found;
        }
        ("message_event", "bounce" | "out_of_band") => {
            event.late = name == "out_of_band";
            if !bounced(data, &mut event) {
                return Ok(Vec::new());
            }
        }
        ("message_event", "policy_rejection") => refused(data, Kind::Dropped, &mut event),
        ("message_event", "spam_complaint") => complained(data, &mut event),
        ("message_event", "sms_status") => return Ok(Vec::new()),
        ("track_event", "open" | "amp_open" | "initial_open" | "amp_initial_open") => {
            event.kind = Kind::Opened;
            visited(data, &mut event);
        }
        ("track_event", "click" | "amp_click") => {
            event.kind = Kind::Clicked;
            visited(data, &mut event);
        }
        ("gen_event", "generation_failure") => refused(data, Kind::Failed, &mut event),
        ("gen_event", "generation_rejection") => refused(data, Kind::Dropped, &mut event),
        ("unsubscribe_event", "list_unsubscribe" | "link_unsubscribe") => {
            event.kind = Kind::Unsubscribed;
            visited(data, &mut event);
            event.scope = Some(ListScope::Everything);
        }
        _ => {}
    }
    Ok(vec![event])
}

fn told(data: &Value) -> Told {
    let words = match json::str(data, "raw_reason") {
        "" => json::str(data, "reason"),
        raw => raw,
    };
    Told::new(json::number(data, "error_code"), "", words)
}

/// What SparkPost's own class says, where it has one that says anything.
fn class_of(data: &Value) -> Option<(Kind, BounceClass)> {
    let soft = Kind::Bounced(Bounce::Soft);
    let block = Kind::Bounced(Bounce::Block);
    Some(match json::number(data, "bounce_class")? {
        1 => (soft, BounceClass::Uncategorized),
        10 | 30 => (Kind::Bounced(Bounce::Hard), BounceClass::InvalidRecipient),
        20 | 40 | 70 => (soft, BounceClass::TransientFailure),
        21 => (soft, BounceClass::DnsFailure),
        22 | 23 => (soft, BounceClass::QuotaIssues),
        24 => (soft, BounceClass::NoAnswerFromHost),
        25 => (Kind::Dropped, BounceClass::PolicyRelated),
        50 | 51 => (block, BounceClass::SpamBlock),
        52 => (block, BounceClass::SpamContent),
        53 => (block, BounceClass::ProhibitedAttachment),
        54 => (block, BounceClass::RelayDenied),
        60 => (Kind::Unknown, BounceClass::AutoReply),
        80 => (Kind::Resubscribed, BounceClass::Subscribe),
        90 => (Kind::Unsubscribed, BounceClass::Unsubscribe),
        100 => (Kind::Unknown, BounceClass::ChallengeResponse),
        _ => return None,
    })
}

/// Reads a bounce; `false` for an automatic reply.
fn bounced(data: &Value, event: &mut Event) -> bool {
    let told = told(data);
    let (kind, class) =
        class_of(data).unwrap_or((Kind::Bounced(told.bounce()), told.class_or(BounceClass::Uncategorized)));
    if matches!(class, BounceClass::AutoReply | BounceClass::ChallengeResponse) {
        return false;
    }
    let number = json::id(data, "bounce_class").unwrap_or_default();
    event.word = sanitise(&format!("{}/{number}", event.word), MAX_ID);
    // What the class leaves open, the receiver's words may tell.
    let class = match class {
        BounceClass::Uncategorized | BounceClass::TransientFailure => told.class_or(class),
        specific => specific,
    };
    told.put(event);
    event.kind = kind;
    event.class = Some(class);
    if kind == Kind::Dropped {
        event.suppressed = by_list(data);
    }
    if matches!(kind, Kind::Unsubscribed | Kind::Resubscribed) {
        event.scope = Some(ListScope::Everything);
    }
    true
}

/// Whether it was not sent because the address stands on SparkPost's suppression list.
fn by_list(data: &Value) -> Option<Suppression> {
    let words = [json::str(data, "raw_reason"), json::str(data, "reason")];
    words.iter().any(|words| words.to_lowercase().contains("suppress")).then_some(Suppression::Unsaid)
}

fn refused(data: &Value, kind: Kind, event: &mut Event) {
    let told = told(data);
    let by_rule = if kind == Kind::Failed { BounceClass::ContentRelated } else { BounceClass::PolicyRelated };
    let class = class_of(data).map_or(by_rule, |(_, class)| class);
    told.put(event);
    event.kind = kind;
    event.class = Some(class);
    event.suppressed = by_list(data);
}

fn complained(data: &Value, event: &mut Event) {
    let feedback = json::str(data, "fbtype");
    if !feedback.is_empty() {
        event.word = sanitise(&format!("{}/{feedback}", event.word), MAX_ID);
    }
    // A retraction (RFC 5965) is no complaint.
    event.kind = if feedback == "not-spam" { Kind::Unknown } else { Kind::Complained };
    event.user_agent = json::user_agent(data, "user_str");
}

fn visited(data: &Value, event: &mut Event) {
    event.url = json::url(data, "target_link_url");
    event.user_agent = json::user_agent(data, "user_agent");
    event.ip = json::ip(data, "ip_address");
    let parsed = json::part(data, "user_agent_parsed");
    event.machine = match (json::flag(parsed, "is_prefetched"), json::flag(parsed, "is_proxy")) {
        (Some(true), _) => Some(MachineFlag::Prefetched),
        (_, Some(true)) => Some(MachineFlag::Proxied),
        (Some(false), _) | (_, Some(false)) => Some(MachineFlag::Person),
        (None, None) => None,
    };
}
