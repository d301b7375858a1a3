//! Any body, posted in the name of any provider: none passes for a signed one, and what is read of it is bounded.
#![no_main]

use chrono::{DateTime, Utc};
use feedback::webhook::{
    Batch, CertificateUrl, Credential, EventError, Limits, MAX_ID, MAX_REPLY, MAX_URL, MAX_USER_AGENT, Provider,
    SigningKey, Verifier, VerifyingKey, Window,
    outbound::{Signer, verify},
    read,
};
use http::{HeaderMap, HeaderName, HeaderValue};
use libfuzzer_sys::fuzz_target;
use std::sync::{Arc, LazyLock};

const SECRET: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const TOPIC: &str = "arn:aws:sns:eu-west-1:111122223333:ses-events";
/// Of a key that nobody has.
const SENDGRID: &str = "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEU4or0Jb7HFhcqeVBM7EDQjlhJ6AGQZ1PGimZSZpfPXeLMbBnuIHXVJA8ff5IbpwaNT\
                        1PAWyz398i+Z6kkHKXbg==";

static VERIFIERS: LazyLock<Vec<Verifier>> = LazyLock::new(|| {
    let credentials = || vec![Credential::field("x-fleet", "a-secret-that-is-not-sent").expect("it is one")];
    let none = Arc::new(|_: &CertificateUrl| None);
    let all = [
        Verifier::sendgrid(&[SENDGRID]),
        Verifier::mailgun(&["a-signing-key-that-nobody-has"]),
        Verifier::ses(vec![TOPIC.parse().expect("it is one")], none),
        Verifier::postmark(credentials()),
        Verifier::sparkpost(credentials()),
        Verifier::resend(&[SECRET]),
    ];
    all.into_iter().map(|made| made.expect("its secrets are good")).collect()
});

static OURS: LazyLock<(Signer, [VerifyingKey; 2])> = LazyLock::new(|| {
    let (shared, pair): (SigningKey, _) = (SECRET.parse().expect("it is one"), SigningKey::generate_ed25519());
    let keys = [SECRET.parse(), pair.to_receiver_text().parse()].map(|key| key.expect("it is one"));
    (Signer::new(vec![shared, pair]).expect("two are not too many"), keys)
});

fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(1_767_323_045, 0).expect("it is in range")
}

/// Headers that are good but for what they prove.
fn headers() -> HeaderMap {
    [
        (
            "x-twilio-email-event-webhook-signature",
            "MEUCIHrJSBWuOaD6BjjTn/INlACazQy47l6mbpwNCfhDpxKOAiEA/NLmdDJR/QfpmToaaL3mwbUssrabQpRw6u7hROCpAkM=",
        ),
        ("x-twilio-email-event-webhook-timestamp", "1767323045"),
        ("x-amz-sns-message-type", "Notification"),
        ("x-amz-sns-message-id", "m"),
        ("x-amz-sns-topic-arn", TOPIC),
        ("svix-id", "msg_1"),
        ("svix-timestamp", "1767323045"),
        ("svix-signature", "v1,kfK1ut7+hu9TkgiV3s8ZZGIacSGZVSUaxK+IkcbBEYs="),
    ]
    .into_iter()
    .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
    .collect()
}

fn is_bounded(provider: Provider, batch: Batch) {
    for event in batch.events {
        assert!(event.dedupe.starts_with(provider.as_str()) && event.dedupe.len() <= 140);
        let texts = [
            (Some(event.word), MAX_ID),
            (event.provider_message, MAX_ID),
            (event.reply, MAX_REPLY),
            (event.url, MAX_URL),
            (event.user_agent, MAX_USER_AGENT),
        ];
        for (text, most) in texts {
            let text = text.unwrap_or_default();
            assert!(text.chars().count() <= most && !text.chars().any(char::is_control));
        }
    }
    for item in batch.unreadable {
        assert!(item.index < 10_000 && !matches!(item.reason, EventError::Missing("")));
    }
}

fuzz_target!(|data: &[u8]| {
    let [which, body @ ..] = data else { return };
    let provider = Provider::ALL[usize::from(*which) % Provider::ALL.len()];
    let limits = Limits::default();
    if let Ok(batch) = read(provider, body, &limits) {
        assert_eq!(read(provider, body, &limits).as_ref(), Ok(&batch));
        is_bounded(provider, batch);
    }
    // An event of SES needs its envelope.
    if let (Provider::Ses, Ok(message)) = (provider, std::str::from_utf8(body)) {
        let envelope = serde_json::json!({
            "Type": "Notification", "MessageId": "m", "TopicArn": TOPIC, "Message": message, "Signature": "",
            "Timestamp": "2026-01-02T03:04:05Z", "SignatureVersion": "2", "SigningCertURL": "",
        });
        is_bounded(provider, read(provider, envelope.to_string().as_bytes(), &limits).expect("the envelope is good"));
    }
    for verifier in VERIFIERS.iter() {
        let refusal = verifier.verify(&headers(), body, now()).expect_err("nobody has signed it");
        assert!(refusal.status().is_client_error() || refusal.status().is_server_error());
    }
    let (signer, keys) = &*OURS;
    let signed = signer.sign("msg_1", now(), body).expect("the id is good");
    let fields = signed.fields().into_iter();
    let headers: HeaderMap =
        fields.map(|(name, value)| (HeaderName::from_static(name), value.parse().expect("it is visible"))).collect();
    for key in keys {
        verify(std::slice::from_ref(key), &headers, body, Window::STANDARD, now()).expect("it is ours");
        let other = [body, b" "].concat();
        assert!(verify(std::slice::from_ref(key), &headers, &other, Window::STANDARD, now()).is_err());
    }
});
