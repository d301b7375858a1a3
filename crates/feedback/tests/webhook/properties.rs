//! Any octets, any JSON, any change to a good post: an answer, never a panic.

use crate::support::{Ecdsa, Request, mailgun_signature, now};
use mailfleet_feedback::webhook::{
    Credential, Limits, MAX_REPLY, MAX_URL, MAX_USER_AGENT, Provider, SigningKey, Verifier, outbound::Signer, read,
};
use proptest::{prelude::*, sample::Index};
use serde_json::{Map, Value, json};
use std::sync::{Arc, LazyLock};

/// The words that mean something in some provider's event, and values that some field takes.
const WORDS: &[&str] = &[
    "event",
    "timestamp",
    "sg_event_id",
    "sg_message_id",
    "type",
    "reason",
    "status",
    "bounce_classification",
    "mid",
    "email",
    "event-data",
    "signature",
    "token",
    "severity",
    "delivery-status",
    "code",
    "message",
    "headers",
    "user-variables",
    "to",
    "client-info",
    "bot",
    "mailing-list",
    "address",
    "Type",
    "MessageId",
    "TopicArn",
    "Message",
    "Timestamp",
    "eventType",
    "SignatureVersion",
    "Signature",
    "SigningCertURL",
    "mail",
    "bounce",
    "bounceType",
    "bounceSubType",
    "bouncedRecipients",
    "emailAddress",
    "destination",
    "tags",
    "delivery",
    "recipients",
    "RecordType",
    "BouncedAt",
    "Metadata",
    "MessageID",
    "msys",
    "message_event",
    "track_event",
    "event_id",
    "rcpt_meta",
    "bounce_class",
    "raw_reason",
    "data",
    "created_at",
    "click",
    "link",
    "name",
    "value",
    "url",
    "useragent",
    "ip",
    "complaint",
    "complainedRecipients",
    "subscription",
    "newTopicPreferences",
    "topicSubscriptionStatus",
    "topicName",
    "subscriptionStatus",
    "deliveryDelay",
];
const VALUES: &[&str] = &[
    "open",
    "bounce",
    "failed",
    "permanent",
    "Bounce",
    "Permanent",
    "General",
    "Notification",
    "delivered",
    "click",
    "blocked",
    "550 5.1.1 no such user",
    "smtp; 550 5.7.1 no",
    "kim@example.net",
    "<kim@example.net>",
    "2026-01-02T03:04:05.678Z",
    "1767323045",
    "01a2089f-f02b-717a-b2a9-35479c6be73a",
    "10",
    "HardBounce",
    "email.bounced",
    "192.0.2.1",
    "OptOut",
    "{}",
    "{\"eventType\":\"Open\"}",
    "ä\u{202e}\u{0}",
    "",
    ";",
    "<",
    ">",
    "Complaint",
    "Subscription",
    "DeliveryDelay",
];

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        (1_700_000_000_i64..1_800_000_000).prop_map(Value::from),
        prop::sample::select(VALUES).prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 60, 8, |inner| {
        let key = prop_oneof![8 => prop::sample::select(WORDS).prop_map(str::to_owned), 1 => any::<String>()];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(key, inner, 0..8)
                .prop_map(|fields| Value::Object(fields.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

/// The event in each provider's wrapping.
fn wrapped(event: &Value) -> Vec<Value> {
    let mut sns = json!({
        "Type": "Notification", "MessageId": "m", "TopicArn": "t", "Timestamp": "2026-01-02T03:04:05Z",
        "SignatureVersion": "1", "Signature": "", "SigningCertURL": "",
    });
    sns["Message"] = event.to_string().into();
    vec![
        event.clone(),
        json!([event]),
        json!({"event-data": event, "signature": {"token": "a"}}),
        json!([{"msys": {"message_event": event}}]),
        json!({"type": "email.bounced", "created_at": "2026-01-02T03:04:05Z", "data": event}),
        sns,
    ]
}

fn reads(body: &[u8]) -> Result<(), TestCaseError> {
    for provider in Provider::ALL {
        let Ok(batch) = read(provider, body, &Limits::default()) else { continue };
        prop_assert_eq!(read(provider, body, &Limits::default()).unwrap(), batch.clone());
        for event in batch.events {
            prop_assert!(event.dedupe.len() <= 140 && event.dedupe.starts_with(provider.as_str()));
            let texts = [
                (Some(event.word), 200),
                (event.provider_message, 200),
                (event.reply, MAX_REPLY),
                (event.url, MAX_URL),
                (event.user_agent, MAX_USER_AGENT),
            ];
            for (text, most) in texts.into_iter().filter_map(|(text, most)| text.map(|text| (text, most))) {
                prop_assert!(text.chars().count() <= most && !text.chars().any(char::is_control), "{:?}", text);
            }
        }
    }
    Ok(())
}

static ECDSA: LazyLock<Ecdsa> = LazyLock::new(Ecdsa::new);

const SECRET: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// A verifier of each provider with a post that it takes.
fn sources() -> Vec<(Verifier, Request)> {
    let body: &[u8] = b"[{\"event\":\"open\",\"timestamp\":1767323045,\"sg_event_id\":\"a\"}]";
    let signed = Signer::new(vec![SECRET.parse::<SigningKey>().unwrap()]).unwrap().sign("msg_1", now(), body).unwrap();
    let mailgun = format!("{{\"signature\":{}}}", mailgun_signature("a-signing-key-of-tests", now(), "token"));
    let credentials = || vec![Credential::field("x-fleet", "a-value-of-the-tests").unwrap()];
    let held = Request::new(&[("x-fleet", "a-value-of-the-tests")], body);
    let none = Arc::new(|_: &_| None);
    let topic = "arn:aws:sns:eu-west-1:111122223333:ses-events".parse().unwrap();
    vec![
        (Verifier::sendgrid(&[&ECDSA.shown()]).unwrap(), ECDSA.request(now(), body)),
        (Verifier::mailgun(&["a-signing-key-of-tests"]).unwrap(), Request::new(&[], mailgun.as_bytes())),
        (Verifier::ses(vec![topic], none).unwrap(), crate::support::Sns::notification("hello").request("AAAA")),
        (Verifier::postmark(credentials()).unwrap(), held.clone()),
        (Verifier::sparkpost(credentials()).unwrap(), held),
        (Verifier::resend(&[SECRET]).unwrap(), Request::new(&signed.fields(), body)),
    ]
}

proptest! {
    #[test]
    fn any_octets_are_read_or_refused(body in prop::collection::vec(any::<u8>(), 0..300)) {
        reads(&body)?;
        for (verifier, request) in sources() {
            let given = Request { body: body.clone(), ..request };
            let Err(refusal) = given.at(&verifier, now()) else { continue };
            prop_assert!(!refusal.status().is_success() && !refusal.to_string().is_empty());
        }
    }

    #[test]
    fn any_json_is_read_or_told(event in any_json()) {
        for body in wrapped(&event) {
            reads(body.to_string().as_bytes())?;
        }
    }

    #[test]
    fn a_cut_or_changed_body_is_never_taken_for_a_signed_one(at in any::<Index>(), bit in 0..8_u8, cut in any::<bool>()) {
        for (verifier, mut request) in sources() {
            let good = request.at(&verifier, now());
            let place = at.index(request.body.len());
            if cut {
                request.body.truncate(place);
            } else {
                request.body[place] ^= 1 << bit;
            }
            let changed = request.at(&verifier, now());
            match verifier.provider() {
                // What they sign is the whole body.
                Provider::Sendgrid | Provider::Resend => prop_assert!(good.is_ok() && changed.is_err()),
                // Whatever is still taken has the token that was signed.
                Provider::Mailgun => if let Ok(changed) = changed {
                    prop_assert_eq!(changed.replay().cloned(), good.unwrap().replay().cloned());
                },
                Provider::Ses => prop_assert!(good.is_err() && changed.is_err()),
                Provider::Postmark | Provider::Sparkpost => prop_assert!(good.is_ok() && changed.is_ok()),
            }
        }
    }

    #[test]
    fn any_header_values_are_refused_without_a_panic(values in prop::collection::vec("[ -~]{0,80}", 8)) {
        for (verifier, mut request) in sources() {
            let names: Vec<_> = request.headers.keys().cloned().collect();
            for (name, value) in names.into_iter().zip(&values) {
                request.headers.insert(name, value.parse().unwrap());
            }
            let taken = request.at(&verifier, now()).is_ok();
            prop_assert!(!taken || verifier.provider() == Provider::Mailgun);
        }
    }
}
