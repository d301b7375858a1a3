//! SparkPost.

use super::{MID, batch, is_ours, merged, told};
use mailfleet_feedback::webhook::{Batch, Event, EventError, Limits, ListScope, MachineFlag, Provider, read};
use serde_json::{Value, json};

fn item(class: &str, more: &Value) -> Value {
    let base = json!({
        "event_id": "92000000000000001", "timestamp": "1767323045", "transmission_id": "700000000000001",
        "message_id": "0000a1", "rcpt_to": "kim@example.net", "raw_rcpt_to": "Kim@example.net",
            "rcpt_meta": {"mid": MID},
    });
    json!({"msys": {class: merged(base, more)}})
}

#[track_caller]
fn of(class: &str, more: &Value) -> Batch {
    batch(Provider::Sparkpost, &json!([item(class, more)]))
}

#[track_caller]
fn one(class: &str, more: &Value) -> Event {
    let event = of(class, more).events.into_iter().next().unwrap();
    is_ours(&event);
    event
}

#[test]
fn each_event_has_its_kind() {
    let message = "message_event";
    for (class, more, expected) in [
        (message, json!({"type": "injection"}), "accepted - -"),
        (message, json!({"type": "delivery"}), "delivered - -"),
        (
            message,
            json!({"type": "delay", "bounce_class": "22", "raw_reason": "452 4.2.2 over quota"}),
            "deferred quota_issues -",
        ),
        (
            message,
            json!({"type": "policy_rejection", "reason": "550 suppressed by customer policy", "bounce_class": "25"}),
            "dropped policy_related unsaid",
        ),
        (message, json!({"type": "policy_rejection", "reason": "550 no"}), "dropped policy_related -"),
        (message, json!({"type": "spam_complaint", "fbtype": "abuse"}), "complained - -"),
        (message, json!({"type": "spam_complaint", "fbtype": "not-spam"}), "unknown - -"),
        (message, json!({"type": "of_tomorrow"}), "unknown - -"),
        ("track_event", json!({"type": "open"}), "opened - -"),
        ("track_event", json!({"type": "initial_open"}), "opened - -"),
        ("track_event", json!({"type": "amp_open"}), "opened - -"),
        ("track_event", json!({"type": "amp_initial_open"}), "opened - -"),
        ("track_event", json!({"type": "click"}), "clicked - -"),
        ("track_event", json!({"type": "amp_click"}), "clicked - -"),
        ("gen_event", json!({"type": "generation_failure", "reason": "no such variable"}), "failed content_related -"),
        ("gen_event", json!({"type": "generation_rejection", "reason": "no"}), "dropped policy_related -"),
        ("unsubscribe_event", json!({"type": "list_unsubscribe"}), "unsubscribed - -"),
        ("unsubscribe_event", json!({"type": "link_unsubscribe"}), "unsubscribed - -"),
        ("event_of_tomorrow", json!({"type": "a"}), "unknown - -"),
    ] {
        assert_eq!(told(&one(class, &more)), expected, "{more}");
    }
}

#[test]
fn each_class_of_bounce_has_its_kind() {
    for (classes, expected) in [
        (&["10", "30"][..], "bounced.hard invalid_recipient -"),
        (&["1"], "bounced.soft uncategorized -"),
        (&["20", "40", "70"], "bounced.soft transient_failure -"),
        (&["21"], "bounced.soft dns_failure -"),
        (&["22", "23"], "bounced.soft quota_issues -"),
        (&["24"], "bounced.soft no_answer_from_host -"),
        (&["25"], "dropped policy_related -"),
        (&["50", "51"], "bounced.block spam_block -"),
        (&["52"], "bounced.block spam_content -"),
        (&["53"], "bounced.block prohibited_attachment -"),
        (&["54"], "bounced.block relay_denied -"),
        (&["80"], "resubscribed subscribe -"),
        (&["90"], "unsubscribed unsubscribe -"),
    ] {
        for class in classes {
            for kind in ["bounce", "out_of_band"] {
                let event = one("message_event", &json!({"type": kind, "bounce_class": class, "reason": "no"}));
                assert_eq!((told(&event).as_str(), event.late), (expected, kind == "out_of_band"), "{class}");
            }
        }
    }
    for class in ["60", "100"] {
        let batch = of("message_event", &json!({"type": "bounce", "bounce_class": class}));
        assert_eq!((batch.events.len(), batch.ignored), (0, 1));
    }
    // What is not known is judged by what the receiver said.
    let gone = json!({"type": "bounce", "bounce_class": "77", "error_code": "550", "raw_reason": "5.1.1 no such user"});
    assert_eq!(told(&one("message_event", &gone)), "bounced.hard invalid_recipient -");
}

#[test]
fn pings_and_what_is_no_delivery_are_passed_over() {
    assert_eq!(batch(Provider::Sparkpost, &json!([{"msys": {}}])).ignored, 1);
    for class in ["relay_event", "relay_message", "ab_test_event", "ingest_event"] {
        assert_eq!(of(class, &json!({"type": "a"})).ignored, 1);
    }
    assert_eq!(of("message_event", &json!({"type": "sms_status"})).ignored, 1);
}

#[test]
fn an_event_has_its_ids_its_time_and_what_was_said() {
    let raw = "550 5.1.1 <kim@example.net> no such user";
    let event =
        one("message_event", &json!({"type": "bounce", "bounce_class": "10", "reason": "x", "raw_reason": raw}));
    assert_eq!((event.word.as_str(), event.dedupe.as_str()), ("bounce/10", "sparkpost/92000000000000001"));
    assert_eq!(event.provider_message.as_deref(), Some("700000000000001"));
    assert_eq!(event.at.to_rfc3339(), "2026-01-02T03:04:05+00:00");
    assert_eq!((event.status.unwrap().to_string().as_str(), event.reply.as_deref()), ("5.1.1", Some(raw)));
    assert_eq!(event.recipient.unwrap().local(), "Kim");
    let unsubscribe =
        one("unsubscribe_event", &json!({"type": "link_unsubscribe", "target_link_url": "https://example.com/u"}));
    assert_eq!(unsubscribe.scope, Some(ListScope::Everything));
}

#[test]
fn who_opened_is_kept_with_sparkposts_own_flags() {
    for (parsed, flag) in [
        (json!({"is_prefetched": true, "is_proxy": true}), Some(MachineFlag::Prefetched)),
        (json!({"is_prefetched": false, "is_proxy": true}), Some(MachineFlag::Proxied)),
        (json!({"is_prefetched": false}), Some(MachineFlag::Person)),
        (json!({}), None),
    ] {
        let open = json!({"type": "open", "ip_address": "192.0.2.1", "user_agent": "UA", "user_agent_parsed": parsed});
        let open = one("track_event", &open);
        assert_eq!((open.machine, open.ip), (flag, Some("192.0.2.1".parse().unwrap())));
    }
}

#[test]
fn an_item_that_cannot_be_read_does_not_lose_the_others() {
    let good = item("message_event", &json!({"type": "delivery"}));
    let mut without_id = good.clone();
    without_id["msys"]["message_event"].as_object_mut().unwrap().remove("event_id");
    let body = json!([{"other": 1}, without_id, {"msys": {"message_event": 7}}, good]);
    let batch = read(Provider::Sparkpost, body.to_string().as_bytes(), &Limits::default()).unwrap();
    assert_eq!(batch.events.len(), 1);
    let told: Vec<_> = batch.unreadable.iter().map(|item| (item.index, item.reason)).collect();
    assert_eq!(
        told,
        [(0, EventError::Missing("msys")), (1, EventError::Missing("event_id")), (2, EventError::Missing("type"))]
    );
}
