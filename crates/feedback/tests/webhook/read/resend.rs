//! Resend.

use super::{MID, batch, is_ours, merged, only, told};
use mailfleet_feedback::webhook::{Event, EventError, Limits, ListScope, Provider, read};
use serde_json::{Value, json};

fn post(kind: &str, more: &Value) -> Value {
    let data = json!({
        "email_id": "6f0e1d2c-0000-4000-8000-000000000001", "created_at": "2026-01-02T03:04:04.000Z",
        "from": "shop@example.com", "to": ["kim@example.net"], "subject": "Hi", "tags": {"mid": MID},
    });
    json!({"type": kind, "created_at": "2026-01-02T03:04:05.000Z", "data": merged(data, more)})
}

#[track_caller]
fn one(kind: &str, more: &Value) -> Event {
    let event = only(Provider::Resend, &post(kind, more));
    is_ours(&event);
    event
}

fn bounce(kind: &str, sub: &str, message: &str) -> Value {
    json!({"bounce": {"type": kind, "subType": sub, "message": message}})
}

#[test]
fn each_event_has_its_kind() {
    let none = json!({});
    for (kind, more, expected) in [
        ("email.sent", none.clone(), "accepted - -"),
        ("email.scheduled", none.clone(), "accepted - -"),
        ("email.delivered", none.clone(), "delivered - -"),
        ("email.delivery_delayed", none.clone(), "deferred - -"),
        ("email.bounced", bounce("Permanent", "General", "mailbox does not exist"), "bounced.hard invalid_recipient -"),
        ("email.bounced", bounce("Transient", "MailboxFull", ""), "bounced.soft quota_issues -"),
        ("email.bounced", bounce("Undetermined", "Undetermined", ""), "bounced.soft uncategorized -"),
        ("email.bounced", bounce("Permanent", "Suppressed", ""), "dropped invalid_recipient unsaid"),
        ("email.suppressed", none.clone(), "dropped invalid_recipient unsaid"),
        ("email.failed", json!({"failed": {"reason": "quota"}}), "failed - -"),
        ("email.complained", none.clone(), "complained - -"),
        ("email.opened", none.clone(), "opened - -"),
        ("email.clicked", json!({"click": {"link": "https://example.com/"}}), "clicked - -"),
        ("email.of_tomorrow", none, "unknown - -"),
    ] {
        assert_eq!(told(&one(kind, &more)), expected, "{kind} {more}");
    }
}

#[test]
fn a_contact_that_unsubscribes_is_told_and_other_changes_are_not() {
    let contact = |unsubscribed: bool| {
        let data = json!({"id": "c1", "email": "kim@example.net", "unsubscribed": unsubscribed});
        json!({"type": "contact.updated", "created_at": "2026-01-02T03:04:05.000Z", "data": data})
    };
    let event = only(Provider::Resend, &contact(true));
    assert_eq!((told(&event).as_str(), event.scope), ("unsubscribed - -", Some(ListScope::Everything)));
    assert_eq!(event.recipient.unwrap().local(), "kim");
    assert_eq!(batch(Provider::Resend, &contact(false)).ignored, 1);
    for kind in ["contact.created", "contact.deleted", "domain.updated", "email.received"] {
        assert_eq!(batch(Provider::Resend, &post(kind, &json!({}))).ignored, 1);
    }
}

#[test]
fn an_event_has_its_ids_its_time_and_who_clicked() {
    let click = json!({"click": {
        "ipAddress": "192.0.2.1", "link": "https://example.com/a", "timestamp": "2026-01-02T03:04:05.000Z",
            "userAgent": "UA",
    }});
    let event = one("email.clicked", &click);
    assert_eq!((event.url.as_deref(), event.user_agent.as_deref()), (Some("https://example.com/a"), Some("UA")));
    assert_eq!(event.ip, Some("192.0.2.1".parse().unwrap()));
    assert_eq!(event.at.to_rfc3339(), "2026-01-02T03:04:05+00:00");
    assert_eq!(event.provider_message.as_deref(), Some("6f0e1d2c-0000-4000-8000-000000000001"));
    // Without the id of the post, what was clicked and when tells two apart.
    assert_eq!(one("email.clicked", &click).dedupe, event.dedupe);
    assert_ne!(one("email.opened", &click).dedupe, event.dedupe);
    let bounced = one("email.bounced", &bounce("Permanent", "General", "550 5.1.1 no such user"));
    assert_eq!(
        (bounced.word.as_str(), bounced.status.unwrap().to_string().as_str()),
        ("email.bounced/Permanent/General", "5.1.1")
    );
}

#[test]
fn our_message_is_found_in_both_forms_of_tags_and_in_the_headers() {
    is_ours(&one("email.sent", &json!({"tags": [{"name": "a", "value": "b"}, {"name": "mid", "value": MID}]})));
    let headers = json!([{"name": "X-Mailfleet-Id", "value": MID}]);
    is_ours(&one("email.sent", &json!({"tags": {}, "headers": headers})));
    let several = json!({"to": ["kim@example.net", "lee@example.net"]});
    assert_eq!(only(Provider::Resend, &post("email.opened", &several)).recipient, None);
}

#[test]
fn what_is_missing_is_named() {
    for (body, reason) in [
        (json!({}), EventError::Missing("type")),
        (json!({"type": "email.sent"}), EventError::Missing("data")),
        (json!({"type": "email.sent", "data": {}}), EventError::Missing("created_at")),
    ] {
        let batch = read(Provider::Resend, body.to_string().as_bytes(), &Limits::default()).unwrap();
        assert_eq!(batch.unreadable[0].reason, reason);
    }
}
