//! Postmark's webhooks: one flat record.

use super::{Found, MAX_ID, dedupe, json, reply::Told};
use crate::webhook::{Bounce, Event, EventError, Kind, ListScope, Provider, Suppression};
use chrono::{DateTime, Utc};
use domain::{BounceClass, text::sanitise};
use serde_json::Value;

pub(super) fn read(item: &Value) -> Found {
    let name = json::needed(item, "RecordType")?;
    let at = match name.as_str() {
        "Delivery" => json::rfc3339(item, "DeliveredAt")?,
        "Bounce" | "SpamComplaint" => json::rfc3339(item, "BouncedAt")?,
        "Open" | "Click" => json::rfc3339(item, "ReceivedAt")?,
        "SubscriptionChange" => json::rfc3339(item, "ChangedAt")?,
        // Mail to us has a webhook of its own.
        "Inbound" => return Ok(Vec::new()),
        _ => any_time(item)?,
    };
    let mut event = Event::new(Kind::Unknown, sanitise(&name, MAX_ID), at, key(item, &name, at));
    event.message = json::mid(json::part(item, "Metadata"));
    event.provider_message = json::id(item, "MessageID");
    event.recipient = json::recipient(item, "Recipient").or_else(|| json::recipient(item, "Email"));
    match name.as_str() {
        "Delivery" => {
            event.kind = Kind::Delivered;
            Told::new(None, "", json::str(item, "Details")).put(&mut event);
        }
        "Bounce" => {
            let kind = json::needed(item, "Type")?;
            event.word = sanitise(&format!("{name}/{kind}"), MAX_ID);
            if !bounced(item, &kind, &mut event) {
                return Ok(Vec::new());
            }
        }
        "SpamComplaint" => {
            event.kind = Kind::Complained;
            event.suppressed = inactive(item).then_some(Suppression::Complaint);
        }
        "Open" | "Click" => {
            event.kind = if name == "Open" { Kind::Opened } else { Kind::Clicked };
            event.url = json::url(item, "OriginalLink");
            event.user_agent = json::user_agent(item, "UserAgent");
            event.ip = json::ip(json::part(item, "Geo"), "IP");
        }
        "SubscriptionChange" => match (json::flag(item, "SuppressSending"), json::str(item, "SuppressionReason")) {
            (Some(true), "ManualSuppression") => {
                event.kind = Kind::Unsubscribed;
                event.suppressed = Some(Suppression::Unsubscribe);
                event.scope = stream(item);
            }
            (Some(false), _) => {
                event.kind = Kind::Resubscribed;
                event.scope = stream(item);
            }
            // A bounce or a complaint, which has been posted as what it is.
            (Some(true), _) => return Ok(Vec::new()),
            (None, _) => return Err(EventError::Missing("SuppressSending")),
        },
        _ => {}
    }
    Ok(vec![event])
}

/// What its copies share: a bounce has a number; one message can be opened and clicked many times.
fn key(item: &Value, name: &str, at: DateTime<Utc>) -> String {
    let id = json::text(item, "MessageID").unwrap_or_default();
    let which = match json::text(item, "ID") {
        Some(number) => number,
        None => json::text(item, "Recipient").unwrap_or_default().to_lowercase(),
    };
    let link = json::text(item, "OriginalLink").unwrap_or_default();
    dedupe(Provider::Postmark, &[name, &id, &which, &at.to_rfc3339(), &link])
}

/// The time of a record that is not known.
fn any_time(item: &Value) -> Result<DateTime<Utc>, EventError> {
    let known = ["ReceivedAt", "ChangedAt", "BouncedAt", "DeliveredAt"];
    let found = known.into_iter().find(|name| item.get(name).is_some());
    json::rfc3339(item, found.unwrap_or("ReceivedAt"))
}

fn stream(item: &Value) -> Option<ListScope> {
    Some(json::id(item, "MessageStream").map_or(ListScope::Everything, ListScope::Stream))
}

/// Whether Postmark sends nothing more to this address.
fn inactive(item: &Value) -> bool {
    json::flag(item, "Inactive") == Some(true)
}

/// Reads a bounce, by the word for its type: the numbers differ from one official text to the next. Returns `false` for
/// an automatic reply.
fn bounced(item: &Value, kind: &str, event: &mut Event) -> bool {
    let told = match (json::str(item, "Details"), json::str(item, "Description")) {
        ("", words) | (words, _) => Told::new(None, "", words),
    };
    let suppressed = |why| inactive(item).then_some(why);
    let (kind, class, suppressed) = match kind {
        "HardBounce" => (
            Kind::Bounced(Bounce::Hard),
            Some(told.class_or(BounceClass::InvalidRecipient)),
            suppressed(Suppression::Bounce),
        ),
        "SoftBounce" | "OpenRelayTest" | "Unknown" => (
            Kind::Bounced(Bounce::Soft),
            Some(told.class_or(BounceClass::Uncategorized)),
            suppressed(Suppression::Bounce),
        ),
        "Transient" => (Kind::Deferred, Some(told.class_or(BounceClass::TransientFailure)), None),
        "DnsError" => (Kind::Deferred, Some(BounceClass::DnsFailure), None),
        "BadEmailAddress" => (Kind::Dropped, Some(BounceClass::InvalidRecipient), Some(Suppression::Invalid)),
        "ManuallyDeactivated" => (Kind::Dropped, Some(BounceClass::PolicyRelated), Some(Suppression::Manual)),
        "Unconfirmed" => (Kind::Dropped, Some(BounceClass::PolicyRelated), suppressed(Suppression::Unsaid)),
        "Unsubscribe" => (Kind::Unsubscribed, Some(BounceClass::Unsubscribe), suppressed(Suppression::Unsubscribe)),
        "Subscribe" => (Kind::Resubscribed, Some(BounceClass::Subscribe), None),
        "SpamComplaint" => (Kind::Complained, None, suppressed(Suppression::Complaint)),
        "SpamNotification" => (Kind::Bounced(Bounce::Block), Some(BounceClass::SpamContent), None),
        "Blocked" => (Kind::Bounced(Bounce::Block), Some(told.class_or(BounceClass::SpamBlock)), None),
        "VirusNotification" => (Kind::Bounced(Bounce::Block), Some(BounceClass::VirusRelated), None),
        "DMARCPolicy" => (Kind::Bounced(Bounce::Block), Some(BounceClass::AuthenticationFailed), None),
        "SMTPApiError" | "InboundError" => (Kind::Failed, Some(BounceClass::RelayingIssues), None),
        "TemplateRenderingFailed" => (Kind::Failed, Some(BounceClass::ContentRelated), None),
        "AutoResponder" | "AddressChange" | "ChallengeVerification" => return false,
        _ => (
            Kind::Bounced(told.bounce()),
            Some(told.class_or(BounceClass::Uncategorized)),
            suppressed(Suppression::Unsaid),
        ),
    };
    told.put(event);
    event.kind = kind;
    event.class = class;
    event.suppressed = suppressed;
    if matches!(kind, Kind::Unsubscribed | Kind::Resubscribed) {
        event.scope = stream(item);
    }
    true
}
