//! SES through SNS.

use super::{MID, batch, is_ours, merged, told};
use mailfleet_feedback::webhook::{Batch, Event, EventError, Limits, ListScope, Provider, read};
use serde_json::{Value, json};

fn envelope(message: &str) -> Value {
    json!({
        "Type": "Notification", "MessageId": "11111111-2222-3333-4444-555555555555",
        "TopicArn": "arn:aws:sns:eu-west-1:111122223333:ses-events", "Subject": "Amazon SES Email Event Notification",
        "Message": message, "Timestamp": "2026-01-02T03:04:05.678Z", "SignatureVersion": "2", "Signature": "AAAA",
        "SigningCertURL": "https://sns.eu-west-1.amazonaws.com/a.pem", "UnsubscribeURL": "https://x.example/",
    })
}

fn mail() -> Value {
    json!({
        "timestamp": "2026-01-02T03:04:04.000Z", "messageId": "0102018c-example-1", "source": "shop@example.com",
        "destination": ["kim@example.net"], "tags": {"mid": [MID], "ses:configuration-set": ["fleet"]},
    })
}

#[track_caller]
fn many(event: &Value) -> Batch {
    let event = merged(json!({"mail": mail()}), event);
    batch(Provider::Ses, &envelope(&event.to_string()))
}

#[track_caller]
fn one(event: &Value) -> Event {
    let batch = many(event);
    let [event] = &batch.events[..] else { panic!("{batch:?}") };
    is_ours(event);
    event.clone()
}

fn bounce(kind: &str, sub: &str, status: &str, diagnostic: &str) -> Value {
    json!({"eventType": "Bounce", "bounce": {
        "bounceType": kind, "bounceSubType": sub, "timestamp": "2026-01-02T03:04:06.000Z", "feedbackId": "fb",
        "bouncedRecipients": [{"emailAddress": "kim@example.net", "action": "failed", "status": status,
            "diagnosticCode": diagnostic}],
    }})
}

fn delay(kind: &str) -> Value {
    json!({"eventType": "DeliveryDelay", "deliveryDelay": {
        "delayType": kind, "timestamp": "2026-01-02T03:04:06.000Z", "expirationTime": "2026-01-03T03:04:06.000Z",
        "delayedRecipients": [{"emailAddress": "kim@example.net", "status": "4.4.1",
            "diagnosticCode": "smtp; 421 4.4.1 Unable to connect"}],
    }})
}

fn complaint(sub: &Value, feedback: &str) -> Value {
    json!({"eventType": "Complaint", "complaint": {
        "complainedRecipients": [{"emailAddress": "kim@example.net"}], "timestamp": "2026-01-02T03:04:06.000Z",
        "feedbackId": "fb", "complaintSubType": sub, "complaintFeedbackType": feedback, "userAgent": "Reporter/1",
    }})
}

#[test]
fn each_event_has_its_kind() {
    let gone = "smtp; 550 5.1.1 user unknown";
    let click =
        json!({"timestamp": "2026-01-02T03:04:06.000Z", "ipAddress": "192.0.2.1", "link": "https://example.com/"});
    for (event, expected) in [
        (json!({"eventType": "Send", "send": {}}), "accepted - -"),
        (
            json!({"eventType": "Delivery", "delivery": {"timestamp": "2026-01-02T03:04:05.100Z",
                "recipients": ["kim@example.net"], "smtpResponse": "250 OK"}}),
            "delivered - -",
        ),
        (
            json!({"notificationType": "Delivery", "delivery": {"timestamp": "2026-01-02T03:04:05.100Z",
                "recipients": ["kim@example.net"]}}),
            "delivered - -",
        ),
        (delay("MailboxFull"), "deferred quota_issues -"),
        (delay("SpamDetected"), "deferred spam_related -"),
        (delay("General"), "deferred no_answer_from_host -"),
        (json!({"eventType": "Reject", "reject": {"reason": "Bad content"}}), "dropped virus_related -"),
        (
            json!({"eventType": "Rendering Failure", "failure": {"templateName": "t", "errorMessage": "no {{x}}"}}),
            "failed - -",
        ),
        (json!({"eventType": "Open", "open": click}), "opened - -"),
        (json!({"eventType": "Click", "click": click}), "clicked - -"),
        (complaint(&Value::Null, "abuse"), "complained - -"),
        (complaint(&json!("OnAccountSuppressionList"), ""), "dropped spam_related complaint"),
        (complaint(&Value::Null, "not-spam"), "unknown - -"),
        (bounce("Permanent", "General", "5.1.1", gone), "bounced.hard invalid_recipient -"),
        (bounce("Permanent", "NoEmail", "", ""), "bounced.hard invalid_recipient -"),
        (bounce("Permanent", "Suppressed", "5.1.1", gone), "dropped invalid_recipient unsaid"),
        (bounce("Permanent", "OnAccountSuppressionList", "", ""), "dropped invalid_recipient unsaid"),
        (bounce("Permanent", "OnTenantSuppressionList", "", ""), "dropped invalid_recipient unsaid"),
        (bounce("Permanent", "UnsubscribedRecipient", "", ""), "dropped unsubscribe unsubscribe"),
        (bounce("Permanent", "EmailValidationSuppressed", "", ""), "dropped invalid_recipient invalid"),
        (bounce("Transient", "General", "", ""), "bounced.soft uncategorized -"),
        (bounce("Transient", "MailboxFull", "", ""), "bounced.soft quota_issues -"),
        (bounce("Transient", "MessageTooLarge", "", ""), "bounced.soft quota_issues -"),
        (bounce("Transient", "ContentRejected", "", ""), "bounced.soft content_related -"),
        (bounce("Transient", "AttachmentRejected", "", ""), "bounced.soft prohibited_attachment -"),
        (bounce("Transient", "CustomTimeoutExceeded", "", ""), "bounced.soft message_expired -"),
        (bounce("Undetermined", "Undetermined", "5.1.1", gone), "bounced.hard invalid_recipient -"),
        (bounce("Undetermined", "Undetermined", "", ""), "bounced.soft uncategorized -"),
        (json!({"eventType": "OfTomorrow"}), "unknown - -"),
    ] {
        assert_eq!(told(&one(&event)), expected, "{event}");
    }
}

#[test]
fn an_event_has_its_ids_its_time_and_what_was_said() {
    let event = one(&bounce("Permanent", "General", "5.1.1", "smtp; 550 5.1.1 user unknown"));
    assert_eq!(event.word, "Bounce/Permanent/General");
    assert_eq!(event.provider_message.as_deref(), Some("0102018c-example-1"));
    assert_eq!(event.at.to_rfc3339(), "2026-01-02T03:04:06+00:00");
    assert_eq!(event.status.unwrap().to_string(), "5.1.1");
    assert_eq!(event.reply.as_deref(), Some("smtp; 550 5.1.1 user unknown"));
    assert!(event.dedupe.starts_with("ses/sha256:") && !event.dedupe.contains("kim"), "{}", event.dedupe);
    // One without a time of its own happened when it was posted.
    let mut mail = mail();
    mail.as_object_mut().unwrap().remove("timestamp");
    let sent = one(&json!({"eventType": "Send", "mail": mail}));
    assert_eq!(sent.at.to_rfc3339(), "2026-01-02T03:04:05.678+00:00");
}

#[test]
fn each_recipient_of_a_bounce_has_an_event_of_his_own() {
    let mut event = bounce("Permanent", "General", "5.1.1", "smtp; 550 5.1.1 user unknown");
    event["bounce"]["bouncedRecipients"] = json!([
        {"emailAddress": "kim@example.net", "status": "5.1.1"}, {"emailAddress": "lee@example.net", "status": "5.2.2"},
    ]);
    let batch = many(&event);
    assert_eq!(batch.events.len(), 2);
    assert_ne!(batch.events[0].dedupe, batch.events[1].dedupe);
    assert_eq!(batch.events[1].recipient.as_ref().unwrap().local(), "lee");
}

#[test]
fn of_several_recipients_nobody_knows_who_complained_opened_or_clicked() {
    let mut complaint = complaint(&Value::Null, "abuse");
    complaint["complaint"]["complainedRecipients"] =
        json!([{"emailAddress": "kim@example.net"}, {"emailAddress": "lee@example.net"}]);
    let batch = many(&complaint);
    assert_eq!((batch.events.len(), &batch.events[0].recipient), (1, &None));
    let mail = merged(mail(), &json!({"destination": ["kim@example.net", "lee@example.net"]}));
    let open = json!({"eventType": "Open", "mail": mail, "open": {"timestamp": "2026-01-02T03:04:06.000Z"}});
    assert_eq!(many(&open).events[0].recipient, None);
}

#[test]
fn our_message_is_also_found_in_the_headers() {
    let mut mail = mail();
    mail["tags"] = json!({});
    mail["headers"] = json!([{"name": "Subject", "value": "Hi"}, {"name": "x-mailfleet-id", "value": MID}]);
    is_ours(&one(&json!({"eventType": "Send", "mail": mail})));
}

#[test]
fn a_subscription_that_ends_tells_of_what() {
    let change = |new: Value, old: Value| {
        json!({"eventType": "Subscription", "subscription": {
            "contactList": "news", "timestamp": "2026-01-02T03:04:06.000Z", "source": "UnsubscribeHeader",
            "newTopicPreferences": new, "oldTopicPreferences": old,
        }})
    };
    let topics = |sports: &str, food: &str| {
        json!({"unsubscribeAll": false, "topicSubscriptionStatus": [
            {"topicName": "sports", "subscriptionStatus": sports}, {"topicName": "food", "subscriptionStatus": food},
        ]})
    };
    let all = one(&change(json!({"unsubscribeAll": true}), topics("OptIn", "OptIn")));
    assert_eq!((told(&all).as_str(), all.scope), ("unsubscribed - -", Some(ListScope::List("news".to_owned()))));
    let scope = |topic: &str| Some(ListScope::Topics { list: "news".to_owned(), topics: vec![topic.to_owned()] });
    let one_topic = one(&change(topics("OptOut", "OptOut"), topics("OptIn", "OptOut")));
    assert_eq!((told(&one_topic).as_str(), one_topic.scope), ("unsubscribed - -", scope("sports")));
    let back = one(&change(topics("OptOut", "OptIn"), topics("OptOut", "OptOut")));
    assert_eq!((told(&back).as_str(), back.scope), ("resubscribed - -", scope("food")));
    let again = one(&change(topics("OptIn", "OptIn"), json!({"unsubscribeAll": true})));
    assert_eq!((told(&again).as_str(), again.scope), ("resubscribed - -", Some(ListScope::List("news".to_owned()))));
    let same = many(&change(topics("OptIn", "OptIn"), topics("OptIn", "OptIn")));
    assert_eq!((same.events.len(), same.ignored), (0, 1));
}

#[test]
fn a_notice_in_plain_words_is_passed_over_and_a_broken_event_is_told() {
    let notice = "Successfully validated SNS topic for Amazon SES event publishing.";
    assert_eq!(batch(Provider::Ses, &envelope(notice)).ignored, 1);
    let read = |message: &str| read(Provider::Ses, envelope(message).to_string().as_bytes(), &Limits::default());
    for (message, reason) in [
        ("{\"eventType\":", EventError::NotJson),
        ("{}", EventError::Missing("notificationType")),
        ("{\"eventType\":\"Open\",\"open\":{\"timestamp\":\"soon\"}}", EventError::Wrong("timestamp")),
    ] {
        assert_eq!(read(message).unwrap().unreadable[0].reason, reason);
    }
    let confirmation = merged(envelope("{}"), &json!({"Type": "SubscriptionConfirmation"}));
    assert_eq!(only_ignored(&confirmation), 1);
}

fn only_ignored(body: &Value) -> usize {
    let batch = batch(Provider::Ses, body);
    assert!(batch.events.is_empty());
    batch.ignored
}

#[test]
fn a_click_has_its_link_and_who_followed_it() {
    let click = one(&json!({"eventType": "Click", "click": {
        "timestamp": "2026-01-02T03:04:06.000Z", "ipAddress": "192.0.2.1", "userAgent": "UA",
            "link": "https://example.com/a",
    }}));
    assert_eq!((click.url.as_deref(), click.user_agent.as_deref()), (Some("https://example.com/a"), Some("UA")));
    assert_eq!(click.ip, Some("192.0.2.1".parse().unwrap()));
}
