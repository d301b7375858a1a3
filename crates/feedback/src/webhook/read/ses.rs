//! SES through SNS: an envelope with an event of SES in it, as text.

use super::{Found, MAX_ID, dedupe, json, reply::Told, shape};
use crate::webhook::{
    Batch, Bounce, Event, EventError, Kind, ListScope, Provider, ReadError, Suppression, Unreadable,
    sns::{Envelope, EnvelopeKind},
};
use chrono::{DateTime, Utc};
use domain::{BounceClass, Mailbox, text::sanitise};
use serde_json::Value;

pub(super) fn read(text: &str, batch: &mut Batch) -> Result<(), ReadError> {
    let envelope = Envelope::parse(text.as_bytes()).map_err(|error| shape("an envelope of SNS", &error))?;
    let about_mail = envelope.kind() == Some(EnvelopeKind::Notification);
    // SES says in plain words that a topic has been set up.
    let is_notice = !envelope.message.trim_start().starts_with('{');
    if !about_mail || is_notice {
        batch.ignored += 1;
        return Ok(());
    }
    match serde_json::from_str::<Value>(&envelope.message).map_err(|_| EventError::NotJson).and_then(|event| {
        let posted = json::parse_rfc3339(&envelope.timestamp);
        Post { id: &envelope.message_id, posted, event: &event }.read()
    }) {
        Ok(events) if events.is_empty() => batch.ignored += 1,
        Ok(events) => batch.events.extend(events),
        Err(reason) => batch.unreadable.push(Unreadable { index: 0, reason }),
    }
    Ok(())
}

/// An event of SES and what its envelope adds.
struct Post<'a> {
    id: &'a str,
    posted: Option<DateTime<Utc>>,
    event: &'a Value,
}

impl Post<'_> {
    fn read(&self) -> Found {
        let name = match json::str(self.event, "eventType") {
            // Notifications of an identity have the same shape and another name for it.
            "" => json::needed(self.event, "notificationType")?,
            name => name.to_owned(),
        };
        match name.as_str() {
            "Send" => self.of_destinations(Kind::Accepted, &name),
            "Delivery" => self.delivery(&name),
            "DeliveryDelay" => self.delay(&name),
            "Bounce" => self.bounce(&name),
            "Complaint" => self.complaint(&name),
            "Reject" => {
                let reason = json::str(json::part(self.event, "reject"), "reason");
                let mut events = self.of_destinations(Kind::Dropped, &name)?;
                for event in &mut events {
                    Told::new(None, "", reason).put(event);
                    // The one documented reason, "Bad content", is malware.
                    event.class = Some(BounceClass::VirusRelated);
                }
                Ok(events)
            }
            "Rendering Failure" => {
                let words = json::str(json::part(self.event, "failure"), "errorMessage");
                let mut events = self.of_destinations(Kind::Failed, &name)?;
                for event in &mut events {
                    Told::new(None, "", words).put(event);
                }
                Ok(events)
            }
            "Open" => self.visit(Kind::Opened, &name, "open"),
            "Click" => self.visit(Kind::Clicked, &name, "click"),
            "Subscription" => self.subscription(&name),
            // The test that the console sends when an identity's notifications are set up.
            "AmazonSnsSubscriptionSucceeded" => Ok(Vec::new()),
            _ => {
                let recipient = json::only_recipient(json::part(self.mail(), "destination"));
                Ok(vec![self.event(Kind::Unknown, &name, self.mail(), recipient)?])
            }
        }
    }

    fn mail(&self) -> &Value {
        json::part(self.event, "mail")
    }

    fn destinations(&self) -> Vec<Option<Mailbox>> {
        let all = json::part(self.mail(), "destination").as_array().map(Vec::as_slice).unwrap_or_default();
        all.iter().map(|one| one.as_str().and_then(json::mailbox)).collect()
    }

    /// One event, at the time that `detail` tells, else when it was posted.
    fn event(&self, kind: Kind, word: &str, detail: &Value, recipient: Option<Mailbox>) -> Result<Event, EventError> {
        let at = match (json::rfc3339(detail, "timestamp"), self.posted) {
            (Ok(at), _) => at,
            (Err(EventError::Missing(_)), Some(posted)) => posted,
            (Err(error), _) => return Err(error),
        };
        let key = match &recipient {
            // Several recipients of one post are told apart without naming them.
            Some(recipient) => dedupe(Provider::Ses, &[self.id, &recipient.hash().as_uuid().to_string()]),
            None => dedupe(Provider::Ses, &[self.id]),
        };
        let mail = self.mail();
        let mut event = Event::new(kind, sanitise(word, MAX_ID), at, key);
        event.message =
            json::mid(json::part(mail, "tags")).or_else(|| json::mid_of_headers(json::part(mail, "headers")));
        event.provider_message = json::id(mail, "messageId");
        event.recipient = recipient;
        Ok(event)
    }

    /// An event for each recipient; one without any when none is named.
    fn for_each(
        &self,
        kind: Kind,
        word: &str,
        detail: &Value,
        recipients: Vec<Option<Mailbox>>,
    ) -> Result<Vec<Event>, EventError> {
        let recipients = if recipients.is_empty() { vec![None] } else { recipients };
        recipients.into_iter().map(|recipient| self.event(kind, word, detail, recipient)).collect()
    }

    fn of_destinations(&self, kind: Kind, word: &str) -> Found {
        let mail = self.mail();
        self.for_each(kind, word, mail, self.destinations())
    }

    fn delivery(&self, name: &str) -> Found {
        let detail = json::part(self.event, "delivery");
        let all = json::part(detail, "recipients").as_array().map(Vec::as_slice).unwrap_or_default();
        let recipients = all.iter().map(|one| one.as_str().and_then(json::mailbox)).collect();
        let mut events = self.for_each(Kind::Delivered, name, detail, recipients)?;
        for event in &mut events {
            Told::new(None, "", json::str(detail, "smtpResponse")).put(event);
        }
        Ok(events)
    }

    fn delay(&self, name: &str) -> Found {
        let detail = json::part(self.event, "deliveryDelay");
        let kind = json::str(detail, "delayType");
        let own = match kind {
            "MailboxFull" => Some(BounceClass::QuotaIssues),
            "SpamDetected" => Some(BounceClass::SpamRelated),
            "IPFailure" => Some(BounceClass::SpamBlock),
            "RecipientServerError" => Some(BounceClass::TransientFailure),
            "TransientCommunicationFailure" => Some(BounceClass::BadConnection),
            "BYOIPHostNameLookupUnavailable" => Some(BounceClass::BadConfiguration),
            "SendingDeferral" => Some(BounceClass::RateLimited),
            "InternalFailure" => Some(BounceClass::RelayingIssues),
            _ => None,
        };
        let word = format!("{name}/{kind}");
        self.of_failed(json::part(detail, "delayedRecipients"), |told, recipient| {
            let mut event = self.event(Kind::Deferred, &word, detail, recipient)?;
            told.put(&mut event);
            event.class = own.or(event.class);
            Ok(event)
        })
    }

    fn bounce(&self, name: &str) -> Found {
        let detail = json::part(self.event, "bounce");
        let (kind, sub) = (json::str(detail, "bounceType"), json::str(detail, "bounceSubType"));
        let word = format!("{name}/{kind}/{sub}");
        self.of_failed(json::part(detail, "bouncedRecipients"), |told, recipient| {
            let (kind, class, suppressed) = bounced(kind, sub, &told);
            let mut event = self.event(kind, &word, detail, recipient)?;
            told.put(&mut event);
            event.class = Some(class);
            event.suppressed = suppressed;
            Ok(event)
        })
    }

    /// An event for each recipient that failed, of what the receiver said about him.
    fn of_failed(&self, failed: &Value, make: impl Fn(Told, Option<Mailbox>) -> Result<Event, EventError>) -> Found {
        let failed = failed.as_array().map(Vec::as_slice).unwrap_or_default();
        if failed.is_empty() {
            let recipient = json::only_recipient(json::part(self.mail(), "destination"));
            return Ok(vec![make(Told::default(), recipient)?]);
        }
        let one = |failed: &Value| {
            let told = Told::new(None, json::str(failed, "status"), json::str(failed, "diagnosticCode"));
            make(told, json::recipient(failed, "emailAddress"))
        };
        failed.iter().map(one).collect()
    }

    fn complaint(&self, name: &str) -> Found {
        let detail = json::part(self.event, "complaint");
        let sub = json::str(detail, "complaintSubType");
        let feedback = json::str(detail, "complaintFeedbackType");
        // When a message had several recipients all who may have complained are listed: then nobody knows who did.
        let recipient = match json::part(detail, "complainedRecipients").as_array().map(Vec::as_slice) {
            Some([only]) => json::recipient(only, "emailAddress"),
            Some(_) | None => None,
        };
        let kind = match (sub, feedback) {
            ("OnAccountSuppressionList", _) => Kind::Dropped,
            // A retraction (RFC 5965) is no complaint.
            (_, "not-spam") => Kind::Unknown,
            _ => Kind::Complained,
        };
        let word = [name, sub, feedback].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/");
        let mut event = self.event(kind, &word, detail, recipient)?;
        event.user_agent = json::user_agent(detail, "userAgent");
        if kind == Kind::Dropped {
            event.suppressed = Some(Suppression::Complaint);
            event.class = Some(BounceClass::SpamRelated);
        }
        Ok(vec![event])
    }

    fn visit(&self, kind: Kind, name: &str, key: &str) -> Found {
        let detail = json::part(self.event, key);
        let recipient = json::only_recipient(json::part(self.mail(), "destination"));
        let mut event = self.event(kind, name, detail, recipient)?;
        event.url = json::url(detail, "link");
        event.user_agent = json::user_agent(detail, "userAgent");
        event.ip = json::ip(detail, "ipAddress");
        Ok(vec![event])
    }

    fn subscription(&self, name: &str) -> Found {
        let detail = json::part(self.event, "subscription");
        let list = json::id(detail, "contactList").unwrap_or_default();
        let preferences = json::part(detail, "newTopicPreferences");
        let former = json::part(detail, "oldTopicPreferences");
        let whole = |list: String| if list.is_empty() { ListScope::Everything } else { ListScope::List(list) };
        let topics = |wanted: &str| -> Vec<String> {
            let all = statuses(preferences).map(Vec::as_slice).unwrap_or_default();
            let old = |name: &str| status_of(former, name);
            all.iter()
                .filter(|topic| json::str(topic, "subscriptionStatus") == wanted)
                .filter(|topic| old(json::str(topic, "topicName")) != Some(wanted))
                .filter_map(|topic| json::id(topic, "topicName"))
                .collect()
        };
        let (kind, scope) = if json::flag(preferences, "unsubscribeAll") == Some(true) {
            (Kind::Unsubscribed, whole(list))
        } else if json::flag(former, "unsubscribeAll") == Some(true) {
            (Kind::Resubscribed, whole(list))
        } else {
            let (out, back) = (topics("OptOut"), topics("OptIn"));
            if !out.is_empty() {
                (Kind::Unsubscribed, ListScope::Topics { list, topics: out })
            } else if !back.is_empty() {
                (Kind::Resubscribed, ListScope::Topics { list, topics: back })
            } else {
                return Ok(Vec::new());
            }
        };
        let recipient = json::only_recipient(json::part(self.mail(), "destination"));
        let mut event = self.event(kind, name, detail, recipient)?;
        event.scope = Some(scope);
        Ok(vec![event])
    }
}

/// The topics of a contact list, with what the contact wants of each.
fn statuses(preferences: &Value) -> Option<&Vec<Value>> {
    let own = json::part(preferences, "topicSubscriptionStatus").as_array();
    own.or(json::part(preferences, "topicDefaultSubscriptionStatus").as_array())
}

/// What a topic's status was before.
fn status_of<'a>(preferences: &'a Value, name: &str) -> Option<&'a str> {
    let all = statuses(preferences)?;
    all.iter().find(|topic| json::str(topic, "topicName") == name).map(|topic| json::str(topic, "subscriptionStatus"))
}

/// What a bounce of this type means: of the provider where it is specific, else of what the receiver said.
pub(super) fn bounced(kind: &str, sub: &str, told: &Told) -> (Kind, BounceClass, Option<Suppression>) {
    let soft = |class| (Kind::Bounced(Bounce::Soft), told.class_or(class), None);
    match (kind, sub) {
        ("Permanent", "General" | "NoEmail") => {
            (Kind::Bounced(Bounce::Hard), told.class_or(BounceClass::InvalidRecipient), None)
        }
        ("Permanent", "Suppressed" | "OnAccountSuppressionList" | "OnTenantSuppressionList") => {
            (Kind::Dropped, BounceClass::InvalidRecipient, Some(Suppression::Unsaid))
        }
        ("Permanent", "UnsubscribedRecipient") => {
            (Kind::Dropped, BounceClass::Unsubscribe, Some(Suppression::Unsubscribe))
        }
        ("Permanent", "EmailValidationSuppressed") => {
            (Kind::Dropped, BounceClass::InvalidRecipient, Some(Suppression::Invalid))
        }
        ("Transient", "MailboxFull") => soft(BounceClass::QuotaIssues),
        ("Transient", "MessageTooLarge") => soft(BounceClass::QuotaIssues),
        ("Transient", "ContentRejected") => soft(BounceClass::ContentRelated),
        ("Transient", "AttachmentRejected") => soft(BounceClass::ProhibitedAttachment),
        ("Transient", "CustomTimeoutExceeded") => soft(BounceClass::MessageExpired),
        ("Transient", _) => soft(BounceClass::Uncategorized),
        _ => (Kind::Bounced(told.bounce()), told.class_or(BounceClass::Uncategorized), None),
    }
}
