//! Mailgun.

use super::{MID, batch, is_ours, merged, only, told};
use mailfleet_feedback::webhook::{Event, ListScope, MachineFlag, Provider};
use serde_json::{Value, json};

const TOKEN: &str = "0123456789abcdef0123456789abcdef0123456789abcdef01";

fn post(more: &Value) -> Value {
    let data = json!({
        "id": "ev-1", "timestamp": 1_767_323_045.12, "log-level": "info", "recipient": "kim@example.net",
            "tags": ["receipt"],
        "user-variables": {"mid": MID}, "flags": {"is-test-mode": false, "is-delayed-bounce": false},
        "message": {"headers": {"message-id": "20260102.1@mg.example.com", "to": "Kim <kim@example.net>"},
            "size": 2048},
    });
    let signature = json!({"timestamp": "1767323045", "token": TOKEN, "signature": "00"});
    json!({"signature": signature, "event-data": merged(data, more)})
}

#[track_caller]
fn one(more: &Value) -> Event {
    let event = only(Provider::Mailgun, &post(more));
    is_ours(&event);
    event
}

fn failed(severity: &str, reason: &str, status: &Value) -> Value {
    json!({"event": "failed", "severity": severity, "reason": reason, "delivery-status": status})
}

#[test]
fn each_event_has_its_kind() {
    let full = json!({"code": 552, "enhanced-code": "5.2.2", "message": "5.2.2 mailbox full"});
    let gone = json!({"code": 550, "enhanced-code": "5.1.1", "message": "5.1.1 no such user", "description": ""});
    let spam = json!({"code": 550, "message": "5.7.1 blocked using Spamhaus"});
    let busy = json!({"code": 421, "message": "4.3.2 server busy", "retry-seconds": 600});
    for (more, expected) in [
        (json!({"event": "accepted"}), "accepted - -"),
        (json!({"event": "delivered", "delivery-status": {"code": 250, "message": "OK"}}), "delivered - -"),
        (json!({"event": "rejected", "reject": {"reason": "bad", "description": "why"}}), "dropped policy_related -"),
        (failed("temporary", "generic", &busy), "deferred rate_limited -"),
        (failed("permanent", "bounce", &gone), "bounced.hard invalid_recipient -"),
        (failed("permanent", "generic", &full), "bounced.soft quota_issues -"),
        (failed("permanent", "generic", &spam), "bounced.block spam_block -"),
        (failed("permanent", "generic", &json!({"code": 499})), "bounced.soft no_answer_from_host -"),
        (failed("permanent", "generic", &json!({"code": 498})), "bounced.soft dns_failure -"),
        (failed("permanent", "old", &json!({"code": 602})), "bounced.soft message_expired -"),
        (failed("permanent", "generic", &json!({})), "bounced.soft uncategorized -"),
        (failed("permanent", "suppress-bounce", &json!({"code": 605})), "dropped invalid_recipient bounce"),
        (failed("permanent", "generic", &json!({"code": 605})), "dropped invalid_recipient bounce"),
        (failed("permanent", "suppress-unsubscribe", &json!({})), "dropped unsubscribe unsubscribe"),
        (failed("permanent", "suppress-complaint", &json!({"code": 607})), "dropped spam_related complaint"),
        (json!({"event": "opened"}), "opened - -"),
        (json!({"event": "clicked", "url": "https://example.com/"}), "clicked - -"),
        (json!({"event": "unsubscribed"}), "unsubscribed - -"),
        (json!({"event": "complained"}), "complained - -"),
        (json!({"event": "of_tomorrow"}), "unknown - -"),
    ] {
        assert_eq!(told(&one(&more)), expected, "{more}");
    }
    for event in ["stored", "list_member_uploaded", "list_uploaded"] {
        let batch = batch(Provider::Mailgun, &post(&json!({"event": event})));
        assert_eq!((batch.events.len(), batch.ignored), (0, 1));
    }
}

#[test]
fn an_event_has_its_ids_its_time_and_what_was_said() {
    let gone = json!({"code": 550, "enhanced-code": "5.1.1", "message": "no such user"});
    let event = one(&merged(failed("permanent", "bounce", &gone), &json!({"flags": {"is-delayed-bounce": true}})));
    assert!(event.late);
    assert_eq!(event.word, "failed/permanent/bounce");
    assert_eq!(event.dedupe, format!("mailgun/{TOKEN}"));
    assert_eq!(event.provider_message.as_deref(), Some("20260102.1@mg.example.com"));
    assert_eq!(event.at.to_rfc3339(), "2026-01-02T03:04:05.120+00:00");
    assert_eq!((event.status.unwrap().to_string().as_str(), event.reply.as_deref()), ("5.1.1", Some("no such user")));
}

#[test]
fn a_rejected_mail_has_its_recipient_from_its_header() {
    let mut given = post(&json!({"event": "rejected", "reject": {"reason": "bad"}}));
    given["event-data"].as_object_mut().unwrap().remove("recipient");
    is_ours(&only(Provider::Mailgun, &given));
}

#[test]
fn who_opened_is_kept_with_mailguns_own_flag() {
    for (bot, flag) in [
        ("", MachineFlag::Person),
        ("apple", MachineFlag::Apple),
        ("gmail", MachineFlag::Gmail),
        ("generic", MachineFlag::Generic),
        ("of_tomorrow", MachineFlag::Generic),
    ] {
        let open = one(&json!({"event": "opened", "ip": "192.0.2.1", "client-info": {"user-agent": "UA", "bot": bot}}));
        assert_eq!((open.machine, open.user_agent.as_deref()), (Some(flag), Some("UA")));
        assert_eq!(flag.is_machine(), !bot.is_empty());
    }
    assert_eq!(one(&json!({"event": "opened", "client-info": {}})).machine, None);
}

#[test]
fn an_unsubscribe_tells_what_from() {
    assert_eq!(one(&json!({"event": "unsubscribed"})).scope, Some(ListScope::Everything));
    let list = one(&json!({"event": "unsubscribed", "mailing-list": {"address": "news@mg.example.com"}}));
    assert_eq!(list.scope, Some(ListScope::List("news@mg.example.com".to_owned())));
}
