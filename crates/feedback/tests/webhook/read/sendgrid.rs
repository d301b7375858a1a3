//! SendGrid.

use super::{MID, batch, is_ours, merged, told};
use domain::EnhancedStatus;
use mailfleet_feedback::webhook::{Event, EventError, Kind, Limits, ListScope, MachineFlag, Provider, read};
use serde_json::{Value, json};

fn event(more: &Value) -> Value {
    let base = json!({
        "email": "kim@example.net", "timestamp": 1_767_323_045, "smtp-id": "<m1@mail.example.com>",
            "category": ["receipt"],
        "sg_event_id": "ZGVsaXZlcmVkLTAtbTE", "sg_message_id": "AbCdEf12345.recvd-abc-1-00000000-1.0", "mid": MID,
    });
    merged(base, more)
}

#[track_caller]
fn one(more: &Value) -> Event {
    let batch = batch(Provider::Sendgrid, &json!([event(more)]));
    let event = batch.events.into_iter().next().unwrap();
    is_ours(&event);
    event
}

#[test]
fn each_event_has_its_kind() {
    for (more, expected) in [
        (json!({"event": "processed", "pool": {"name": "a", "id": 1}}), "accepted - -"),
        (
            json!({"event": "deferred", "response": "451 4.7.1 Greylisted, try again in 300 seconds", "attempt": "3"}),
            "deferred greylisted -",
        ),
        (
            json!({"event": "delivered", "response": "250 2.0.0 OK queued", "ip": "192.0.2.10", "tls": 1}),
            "delivered - -",
        ),
        (json!({"event": "open", "useragent": "Mozilla/5.0", "ip": "192.0.2.1"}), "opened - -"),
        (json!({"event": "click", "url": "https://example.com/a", "ip": "2001:db8::1"}), "clicked - -"),
        (json!({"event": "spamreport"}), "complained - -"),
        (json!({"event": "unsubscribe"}), "unsubscribed - -"),
        (json!({"event": "group_unsubscribe", "asm_group_id": 7}), "unsubscribed - -"),
        (json!({"event": "group_resubscribe", "asm_group_id": 7}), "resubscribed - -"),
        (json!({"event": "account_status_change", "type": "compliance_suspend"}), "account_alert - -"),
        (json!({"event": "of_tomorrow"}), "unknown - -"),
    ] {
        assert_eq!(told(&one(&more)), expected, "{more}");
    }
}

#[test]
fn bounces_are_told_apart_by_type_and_classification() {
    let reason = "550 5.1.1 no such user";
    for (more, expected) in [
        (
            json!({"type": "bounce", "status": "5.1.1", "reason": reason, "bounce_classification": "Invalid Address"}),
            "bounced.hard invalid_recipient bounce",
        ),
        (
            json!({"type": "bounce", "status": "4.2.2", "reason": "452 4.2.2 mailbox full",
                "bounce_classification": "Mailbox Unavailable"}),
            "bounced.soft quota_issues -",
        ),
        (
            json!({"type": "bounce", "status": "5.2.1", "reason": "550 5.2.1 disabled",
                "bounce_classification": "Mailbox Unavailable"}),
            "bounced.hard inactive_mailbox bounce",
        ),
        (
            json!({"type": "blocked", "status": "5.7.1", "reason": "550 5.7.1 refused",
                "bounce_classification": "Reputation"}),
            "bounced.block spam_block -",
        ),
        (
            json!({"type": "blocked", "reason": "too many", "bounce_classification": "Frequency/Volume Too High"}),
            "bounced.block rate_limited -",
        ),
        (json!({"type": "expired", "reason": "gave up"}), "bounced.soft message_expired -"),
        // Without a type the receiver's words decide.
        (json!({"status": "5.1.1", "reason": reason}), "bounced.hard invalid_recipient bounce"),
        (json!({"reason": "nobody knows"}), "bounced.soft uncategorized -"),
    ] {
        assert_eq!(told(&one(&merged(json!({"event": "bounce"}), &more))), expected, "{more}");
    }
}

#[test]
fn a_bounce_that_came_as_a_mail_is_late() {
    let at_once = one(&json!({"event": "bounce", "type": "bounce", "reason": "550 5.1.1 no such user"}));
    assert!(!at_once.late);
    let mut given = event(&json!({"event": "bounce", "type": "bounce", "reason": "550 5.1.1 no such user"}));
    given.as_object_mut().unwrap().remove("sg_message_id");
    let late = batch(Provider::Sendgrid, &json!([given])).events.remove(0);
    assert!(late.late && late.provider_message.is_none());
}

#[test]
fn each_reason_to_drop_says_whether_the_address_is_on_a_list() {
    for (reason, expected) in [
        ("Invalid SMTPAPI header", "dropped bad_configuration -"),
        ("Spam Content", "dropped spam_content -"),
        ("Unsubscribed Address", "dropped unsubscribe unsubscribe"),
        ("Bounced Address", "dropped invalid_recipient bounce"),
        ("Spam Reporting Address", "dropped spam_related complaint"),
        ("Invalid", "dropped invalid_recipient invalid"),
        ("Recipient List over Package Quota", "dropped rate_limited -"),
        ("Of tomorrow", "dropped uncategorized -"),
    ] {
        assert_eq!(told(&one(&json!({"event": "dropped", "reason": reason}))), expected);
    }
}

#[test]
fn an_event_has_its_ids_its_time_and_what_was_said() {
    let delivered = one(&json!({"event": "delivered", "response": "250 2.0.0 OK queued", "ip": "192.0.2.10"}));
    assert_eq!(delivered.dedupe, "sendgrid/ZGVsaXZlcmVkLTAtbTE");
    assert_eq!(delivered.provider_message.as_deref(), Some("AbCdEf12345"));
    assert_eq!(delivered.at.to_rfc3339(), "2026-01-02T03:04:05+00:00");
    assert_eq!(delivered.status, Some("2.0.0".parse::<EnhancedStatus>().unwrap()));
    assert_eq!(delivered.reply.as_deref(), Some("250 2.0.0 OK queued"));
    // That is the address it was sent from.
    assert_eq!(delivered.ip, None);
    let bounce = one(&json!({"event": "bounce", "type": "blocked", "reason": "x"}));
    assert_eq!(bounce.word, "bounce/blocked");
}

#[test]
fn who_opened_and_clicked_is_kept_with_sendgrids_own_flag() {
    let open = one(&json!({"event": "open", "useragent": "Mozilla/5.0", "ip": "192.0.2.1", "sg_machine_open": true}));
    assert_eq!(open.machine, Some(MachineFlag::Apple));
    assert_eq!((open.user_agent.as_deref(), open.ip), (Some("Mozilla/5.0"), Some("192.0.2.1".parse().unwrap())));
    let open = one(&json!({"event": "open", "sg_machine_open": false}));
    assert_eq!(open.machine, Some(MachineFlag::Person));
    let click = one(&json!({"event": "click", "url": "https://example.com/?a=b", "useragent": "curl\r\nx"}));
    assert_eq!((click.url.as_deref(), click.machine), (Some("https://example.com/?a=b"), None));
    assert_eq!(click.user_agent.as_deref(), Some("curl x"));
}

#[test]
fn an_unsubscribe_tells_what_from() {
    assert_eq!(one(&json!({"event": "unsubscribe"})).scope, Some(ListScope::Everything));
    let group = one(&json!({"event": "group_unsubscribe", "asm_group_id": 7}));
    assert_eq!(group.scope, Some(ListScope::Group("7".to_owned())));
}

#[test]
fn an_event_that_cannot_be_read_does_not_lose_the_others() {
    let good = event(&json!({"event": "spamreport"})).to_string();
    let items = [
        "7".to_owned(),
        "{\"event\":\"open\"}".to_owned(),
        good.clone(),
        good.replace("1767323045", "1e400"),
        good.replace("1767323045", "\"soon\""),
        good.replace("1767323045", "99999999999999"),
        good.replace("1767323045", "9999999999"),
        good.replace("1767323045", "0"),
        good.replace("kim@", "\\ud800@"),
        good.replace("sg_event_id", "other_id"),
        good.replace("spamreport", "group_unsubscribe"),
        good.clone(),
    ];
    let mut body = format!("[{}]\r\n", items.join(",\r\n")).into_bytes();
    // One octet that is no UTF-8.
    let at = body.windows(7).rposition(|part| part == b"receipt").unwrap();
    body[at] = 0xff;
    let batch = read(Provider::Sendgrid, &body, &Limits::default()).unwrap();
    assert_eq!(batch.events.iter().map(|event| event.kind).collect::<Vec<_>>(), [Kind::Complained, Kind::Complained]);
    let told: Vec<_> = batch.unreadable.iter().map(|item| (item.index, item.reason)).collect();
    assert_eq!(
        told,
        [
            (0, EventError::NotAnObject),
            (1, EventError::Missing("timestamp")),
            (3, EventError::NotJson),
            (4, EventError::Wrong("timestamp")),
            (5, EventError::Wrong("timestamp")),
            (6, EventError::Wrong("timestamp")),
            (7, EventError::Wrong("timestamp")),
            (8, EventError::NotJson),
            (9, EventError::Missing("sg_event_id")),
            (10, EventError::Missing("asm_group_id")),
        ]
    );
}

#[test]
fn what_names_no_mailbox_or_message_of_ours_is_left_out() {
    let given = event(&json!({"event": "open", "email": "nobody", "mid": "01JGEXAMPLE0000000000000001"}));
    let event = batch(Provider::Sendgrid, &json!([given])).events.remove(0);
    assert_eq!((event.recipient, event.message), (None, None));
}

#[test]
fn a_hard_bounce_for_our_reputation_is_not_against_the_address() {
    for (classification, reason, expected) in [
        ("Invalid Address", "550 5.1.1 no such user", true),
        ("Technical", "550 5.4.4 unable to route", true),
        ("Invalid Address", "550 5.7.1 refused", false),
        ("Reputation", "550 blocked", false),
        ("Content", "550 no", false),
    ] {
        let bounce = json!({
            "event": "bounce", "type": "bounce", "reason": reason, "bounce_classification": classification,
        });
        let event = one(&bounce);
        assert_eq!(event.kind.as_str(), "bounced.hard");
        assert_eq!(event.is_against_the_address(), expected, "{classification}");
    }
    let soft = one(&json!({"event": "bounce", "type": "expired", "reason": "550 5.1.1 no such user"}));
    assert!(!soft.is_against_the_address());
}
