//! Bodies that are not of the provider's shape, and limits.

use http::StatusCode;
use mailfleet_feedback::webhook::{Limits, MAX_REPLY, MAX_URL, MAX_USER_AGENT, Provider, ReadError, read};
use serde_json::json;

#[test]
fn a_body_of_another_shape_is_told_with_its_place() {
    for provider in Provider::ALL {
        for body in ["", "7", "\"x\"", "null", "{", "[{]", "{\"a\":1}}", "a=b&c=d", "<xml/>"] {
            let error = read(provider, body.as_bytes(), &Limits::default()).unwrap_err();
            assert!(matches!(error, ReadError::Shape { .. }), "{provider} {body}");
        }
    }
    let error = read(Provider::Sendgrid, b"[\n  {},\n  }]", &Limits::default()).unwrap_err();
    assert_eq!(error.to_string(), "the body is not an array of events, at line 3, column 3");
    assert_eq!(Provider::Mailgun.status_of_unreadable(error), StatusCode::NOT_ACCEPTABLE);
    assert_eq!(Provider::Postmark.status_of_unreadable(error), StatusCode::FORBIDDEN);
    assert_eq!(Provider::Ses.status_of_unreadable(error), StatusCode::BAD_REQUEST);
}

#[test]
fn limits_hold_to_the_octet_and_the_event() {
    let limits = Limits { body: 20, events: 3 };
    assert_eq!(read(Provider::Sendgrid, b"[1,2,3]", &limits).unwrap().unreadable.len(), 3);
    assert_eq!(read(Provider::Sendgrid, b"[1,2,3,4]", &limits), Err(ReadError::TooMany { limit: 3 }));
    assert_eq!(read(Provider::Sendgrid, b"[                  ]", &limits).unwrap(), Default::default());
    let large = read(Provider::Sendgrid, b"[                   ]", &limits).unwrap_err();
    assert_eq!(large, ReadError::TooLarge { limit: 20 });
    assert_eq!(Provider::Sendgrid.status_of_unreadable(large), StatusCode::PAYLOAD_TOO_LARGE);
}

#[test]
fn depth_does_not_end_the_stack() {
    for provider in Provider::ALL {
        for open in ["[", "{\"a\":", "[{\"msys\":"] {
            let body = open.repeat(100_000);
            assert!(read(provider, body.as_bytes(), &Limits::default()).is_err());
        }
        let nested = format!("[{}1{}]", "[".repeat(5_000), "]".repeat(5_000));
        let _ends = read(provider, nested.as_bytes(), &Limits::default());
    }
}

#[test]
fn long_and_hostile_texts_are_cut_and_kept_on_one_line() {
    let long = "x\r\n\u{1b}[2J\u{202e}".repeat(2_000);
    let event = json!({
        "event": "click", "timestamp": 1_767_323_045, "sg_event_id": long, "sg_message_id": long, "url": long,
        "useragent": long, "email": long, "mid": long, "ip": long, "type": long,
    });
    let bounce =
        json!({"event": "bounce", "timestamp": 1_767_323_045, "sg_event_id": "a", "reason": long, "type": long});
    let body = json!([event, bounce]).to_string();
    let batch = read(Provider::Sendgrid, body.as_bytes(), &Limits::default()).unwrap();
    let [click, bounce] = &batch.events[..] else { panic!("{batch:?}") };
    let texts = [&click.url, &click.user_agent, &click.provider_message, &bounce.reply];
    for (text, most) in texts.into_iter().zip([MAX_URL, MAX_USER_AGENT, 200, MAX_REPLY]) {
        let text = text.as_ref().unwrap();
        assert!(text.chars().count() <= most && !text.chars().any(char::is_control), "{text}");
    }
    assert!(click.dedupe.len() <= 140 && click.word.chars().count() <= 200);
    assert_eq!((&click.recipient, click.message, click.ip), (&None, None, None));
}
