//! Postmark.

use super::{MID, batch, is_ours, merged, only, told};
use mailfleet_feedback::webhook::{Event, EventError, Limits, ListScope, Provider, read};
use serde_json::{Value, json};

fn record(more: &Value) -> Value {
    let base = json!({
        "ServerID": 7, "MessageStream": "outbound", "MessageID": "6f0e1d2c-0000-4000-8000-000000000001",
            "Tag": "receipt",
        "Metadata": {"mid": MID},
    });
    merged(base, more)
}

#[track_caller]
fn one(more: &Value) -> Event {
    let event = only(Provider::Postmark, &record(more));
    is_ours(&event);
    event
}

fn bounce(kind: &str, details: &str, inactive: bool) -> Value {
    json!({
        "RecordType": "Bounce", "ID": 4_200_000_001_u64, "Type": kind, "TypeCode": 1, "Name": kind, "Details": details,
        "Description": "in words", "Email": "kim@example.net", "BouncedAt": "2026-01-02T03:04:06Z",
            "Inactive": inactive,
    })
}

#[test]
fn each_record_has_its_kind() {
    let visit = json!({"Recipient": "kim@example.net", "ReceivedAt": "2026-01-02T03:04:06Z"});
    let change = json!({"RecordType": "SubscriptionChange", "Recipient": "kim@example.net",
        "ChangedAt": "2026-01-02T03:04:06Z"});
    for (more, expected) in [
        (
            json!({"RecordType": "Delivery", "Recipient": "kim@example.net", "DeliveredAt": "2026-01-02T03:04:05Z",
                "Details": "250 2.0.0 OK"}),
            "delivered - -",
        ),
        (merged(visit.clone(), &json!({"RecordType": "Open", "FirstOpen": true})), "opened - -"),
        (merged(visit.clone(), &json!({"RecordType": "Click", "OriginalLink": "https://example.com/"})), "clicked - -"),
        (merged(bounce("SpamComplaint", "", true), &json!({"RecordType": "SpamComplaint"})), "complained - complaint"),
        (
            merged(
                change.clone(),
                &json!({"SuppressSending": true, "SuppressionReason": "ManualSuppression", "Origin": "Recipient"}),
            ),
            "unsubscribed - unsubscribe",
        ),
        (merged(change, &json!({"SuppressSending": false, "SuppressionReason": null})), "resubscribed - -"),
        (merged(visit, &json!({"RecordType": "OfTomorrow"})), "unknown - -"),
    ] {
        assert_eq!(told(&one(&more)), expected, "{more}");
    }
}

#[test]
fn each_type_of_bounce_has_its_kind_by_its_word_and_not_its_number() {
    for (kind, expected) in [
        ("HardBounce", "bounced.hard invalid_recipient bounce"),
        ("SoftBounce", "bounced.soft uncategorized bounce"),
        ("Transient", "deferred transient_failure -"),
        ("DnsError", "deferred dns_failure -"),
        ("BadEmailAddress", "dropped invalid_recipient invalid"),
        ("Unsubscribe", "unsubscribed unsubscribe unsubscribe"),
        ("Subscribe", "resubscribed subscribe -"),
        ("SpamComplaint", "complained - complaint"),
        ("ManuallyDeactivated", "dropped policy_related manual"),
        ("Unconfirmed", "dropped policy_related unsaid"),
        ("SpamNotification", "bounced.block spam_content -"),
        ("Blocked", "bounced.block spam_block -"),
        ("OpenRelayTest", "bounced.soft uncategorized bounce"),
        ("Unknown", "bounced.soft uncategorized bounce"),
        ("SMTPApiError", "failed relaying_issues -"),
        ("InboundError", "failed relaying_issues -"),
        ("VirusNotification", "bounced.block virus_related -"),
        ("DMARCPolicy", "bounced.block authentication_failed -"),
        ("TemplateRenderingFailed", "failed content_related -"),
        ("OfTomorrow", "bounced.soft uncategorized unsaid"),
    ] {
        assert_eq!(told(&one(&bounce(kind, "", true))), expected, "{kind}");
    }
    for kind in ["AutoResponder", "AddressChange", "ChallengeVerification"] {
        let batch = batch(Provider::Postmark, &record(&bounce(kind, "", false)));
        assert_eq!((batch.events.len(), batch.ignored), (0, 1));
    }
    // A type that is not known is judged by what the receiver said.
    let gone = bounce("OfTomorrow", "smtp;550 5.1.1 no such user", false);
    assert_eq!(told(&one(&gone)), "bounced.hard invalid_recipient -");
}

#[test]
fn a_suppression_that_repeats_a_bounce_or_a_complaint_is_passed_over() {
    for reason in ["HardBounce", "SpamComplaint"] {
        let change = json!({
            "RecordType": "SubscriptionChange", "Recipient": "kim@example.net", "ChangedAt": "2026-01-02T03:04:06Z",
            "SuppressSending": true, "SuppressionReason": reason,
        });
        assert_eq!(batch(Provider::Postmark, &record(&change)).ignored, 1);
    }
    assert_eq!(batch(Provider::Postmark, &record(&json!({"RecordType": "Inbound"}))).ignored, 1);
}

#[test]
fn an_event_has_its_ids_its_time_and_what_was_said() {
    let event = one(&bounce("HardBounce", "smtp;550 5.1.1 no such user", true));
    assert_eq!(event.word, "Bounce/HardBounce");
    assert_eq!(event.provider_message.as_deref(), Some("6f0e1d2c-0000-4000-8000-000000000001"));
    assert_eq!(event.at.to_rfc3339(), "2026-01-02T03:04:06+00:00");
    assert_eq!(event.status.unwrap().to_string(), "5.1.1");
    let click = json!({
        "RecordType": "Click", "Recipient": "kim@example.net", "ReceivedAt": "2026-01-02T03:04:06Z", "UserAgent": "UA",
        "OriginalLink": "https://example.com/a", "Geo": {"IP": "192.0.2.1"},
    });
    let first = one(&click);
    assert_eq!((first.url.as_deref(), first.user_agent.as_deref()), (Some("https://example.com/a"), Some("UA")));
    assert_eq!(first.ip, Some("192.0.2.1".parse().unwrap()));
    // The same post again has the same key; another link or time has another.
    assert_eq!(one(&click).dedupe, first.dedupe);
    for more in [json!({"OriginalLink": "https://example.com/b"}), json!({"ReceivedAt": "2026-01-02T03:04:07Z"})] {
        assert_ne!(one(&merged(click.clone(), &more)).dedupe, first.dedupe);
    }
    assert!(!first.dedupe.contains("kim"));
}

#[test]
fn an_unsubscribe_is_about_the_stream() {
    let change = json!({
        "RecordType": "SubscriptionChange", "Recipient": "kim@example.net", "ChangedAt": "2026-01-02T03:04:06Z",
        "SuppressSending": true, "SuppressionReason": "ManualSuppression", "MessageStream": "news",
    });
    assert_eq!(one(&change).scope, Some(ListScope::Stream("news".to_owned())));
}

#[test]
fn what_is_missing_is_named() {
    for (more, reason) in [
        (json!({}), EventError::Missing("RecordType")),
        (json!({"RecordType": "Open"}), EventError::Missing("ReceivedAt")),
        (json!({"RecordType": "Open", "ReceivedAt": "today"}), EventError::Wrong("ReceivedAt")),
        (json!({"RecordType": "Bounce", "BouncedAt": "2026-01-02T03:04:06Z"}), EventError::Missing("Type")),
        (
            json!({"RecordType": "SubscriptionChange", "ChangedAt": "2026-01-02T03:04:06Z"}),
            EventError::Missing("SuppressSending"),
        ),
    ] {
        let batch = read(Provider::Postmark, record(&more).to_string().as_bytes(), &Limits::default()).unwrap();
        assert_eq!(batch.unreadable[0].reason, reason);
    }
}
