//! SES through SNS.

use crate::{
    sns_signatures::{VERSION_ONE, VERSION_TWO, WITHOUT_TOKEN},
    support::{CERTIFICATE_URL, Rsa, Sns, TOPIC, now, refused, ses},
};
use chrono::TimeDelta;
use http::StatusCode;
use mailfleet_feedback::webhook::{
    Certificate, CertificateError, Certificates, Consequence, Credential, Kind, Limits, Post, Reason, SecretError,
    Untimely, Verifier,
};
use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

static KEY: LazyLock<Rsa> = LazyLock::new(|| Rsa::valid(2025, 2030));

fn hello() -> Sns {
    Sns::notification("hello fleet")
}

#[test]
fn signatures_that_were_made_elsewhere_hold_in_both_versions() {
    let pem = include_str!("sns.pem");
    let verifier = ses(pem);
    let one = Sns { version: "1", ..hello() };
    let verified = one.request(VERSION_ONE).at(&verifier, now()).unwrap();
    assert_eq!(verified.post(), &Post::Events);
    let replay = verified.replay().unwrap();
    assert_eq!(replay.as_str(), "11111111-2222-3333-4444-555555555555");
    assert_eq!(replay.until(), now() + TimeDelta::hours(2));
    hello().request(VERSION_TWO).at(&verifier, now()).unwrap();
    // Neither passes for the other.
    for crossed in [one.request(VERSION_TWO), hello().request(VERSION_ONE)] {
        refused(crossed.at(&verifier, now()), &Reason::WrongSignature, StatusCode::FORBIDDEN);
    }
    let three = Sns { version: "3", ..hello() }.request(VERSION_TWO);
    refused(three.at(&verifier, now()), &Reason::SignatureVersion, StatusCode::FORBIDDEN);
    let only_two = ses(pem).only_version_two();
    refused(one.request(VERSION_ONE).at(&only_two, now()), &Reason::SignatureVersion, StatusCode::FORBIDDEN);
    hello().request(VERSION_TWO).at(&only_two, now()).unwrap();
}

#[test]
fn an_unsubscription_is_told_also_when_its_token_was_not_signed() {
    let sns = Sns { kind: "UnsubscribeConfirmation", ..Sns::confirmation() };
    let sns = Sns { message: "You have chosen to unsubscribe.".to_owned(), ..sns };
    let verified = sns.request(WITHOUT_TOKEN).at(&ses(include_str!("sns.pem")), now()).unwrap();
    assert_eq!(verified.post(), &Post::Unsubscribed { topic: TOPIC.parse().unwrap() });
    let verified = sns.by(&KEY).at(&ses(&KEY.pem), now()).unwrap();
    assert_eq!(verified.post(), &Post::Unsubscribed { topic: TOPIC.parse().unwrap() });
    // A subscription without it is none.
    let sns = Sns { kind: "SubscriptionConfirmation", ..sns };
    let unsigned = sns.signed().replace("Token\ntok123\n", "");
    let given = sns.request(&KEY.sign(unsigned.as_bytes())).at(&ses(&KEY.pem), now());
    refused(given, &Reason::WrongSignature, StatusCode::FORBIDDEN);
}

#[test]
fn a_confirmation_is_handed_to_the_caller_and_its_link_is_not() {
    let verifier = ses(&KEY.pem);
    let verified = Sns::confirmation().by(&KEY).at(&verifier, now()).unwrap();
    let Post::ConfirmSubscription(confirmation) = verified.post() else { panic!("{verified:?}") };
    assert_eq!((confirmation.topic.region(), confirmation.token.as_str()), ("eu-west-1", "tok123"));
    assert_eq!(format!("{confirmation:?}"), format!("Confirmation({TOPIC}, <hidden>)"));
    assert_eq!(verified.read(b"", &Limits::default()).unwrap().ignored, 1);
    for subscribe in ["http://sns.eu-west-1.amazonaws.com/", "https://sns.eu-west-1.amazonaws.com.evil.com/", ""] {
        let elsewhere = Sns { subscribe: subscribe.to_owned(), ..Sns::confirmation() };
        let what = "the address to subscribe at is not one of SNS in the region of the topic";
        refused(elsewhere.by(&KEY).at(&verifier, now()), &Reason::Malformed { what }, StatusCode::BAD_REQUEST);
    }
}

#[test]
fn altered_fields_and_other_keys_are_refused_for_good() {
    let verifier = ses(&KEY.pem);
    let good = hello().by(&KEY);
    good.at(&verifier, now()).unwrap();
    let other = Rsa::valid(2025, 2030);
    for forged in [
        good.clone().altered("hello fleet", "hello flee"),
        good.clone().altered("\"Test\"", "\"Text\""),
        good.clone().altered("05.678Z", "05.679Z"),
        good.clone().altered("\"Subject\":\"Test\",", ""),
        hello().request("AAAA"),
        hello().by(&other),
    ] {
        let refusal = forged.at(&verifier, now()).unwrap_err();
        assert_eq!((refusal.reason(), refusal.status()), (&Reason::WrongSignature, StatusCode::FORBIDDEN));
        assert_eq!(refusal.consequence(), Consequence::GivenUp);
    }
}

#[test]
fn a_verified_post_is_read() {
    let message = "{\"eventType\":\"Delivery\",\"mail\":{\"timestamp\":\"2026-01-02T03:04:04.000Z\"},\"delivery\":{\
                   \"timestamp\":\"2026-01-02T03:04:05.100Z\",\"recipients\":[\"kim@example.net\"]}}";
    let post = Sns::notification(message).by(&KEY);
    let batch = post.at(&ses(&KEY.pem), now()).unwrap().read(&post.body, &Limits::default()).unwrap();
    assert_eq!((batch.events.len(), batch.events[0].kind), (1, Kind::Delivered));
}

#[test]
fn headers_must_say_what_the_body_says() {
    let verifier = ses(&KEY.pem);
    let good = hello().by(&KEY);
    for (name, value) in [
        ("x-amz-sns-message-type", "SubscriptionConfirmation"),
        ("x-amz-sns-message-id", "11111111-2222-3333-4444-555555555556"),
        ("x-amz-sns-topic-arn", "arn:aws:sns:eu-west-1:111122223333:other"),
    ] {
        let given = good.clone().with(name, value).at(&verifier, now());
        refused(given, &Reason::HeaderDiffers { name }, StatusCode::FORBIDDEN);
        let given = good.clone().without(name).at(&verifier, now());
        refused(given, &Reason::MissingHeader { name }, StatusCode::BAD_REQUEST);
        let given = good.clone().twice(name).at(&verifier, now());
        refused(given, &Reason::AmbiguousHeader { name }, StatusCode::BAD_REQUEST);
    }
    let raw = good.with("x-amz-sns-rawdelivery", "true").at(&verifier, now()).unwrap_err();
    assert!(raw.to_string().contains("raw message delivery is on"), "{raw}");
}

#[test]
fn of_a_foreign_topic_not_even_the_certificate_is_asked_for() {
    let asked = |_: &_| -> Option<Arc<Certificate>> { panic!("a forger makes us fetch") };
    let verifier = Verifier::ses(vec![TOPIC.parse().unwrap()], Arc::new(asked)).unwrap();
    let foreign = Sns { topic: "arn:aws:sns:eu-west-1:999999999999:ses-events".to_owned(), ..hello() };
    refused(foreign.by(&KEY).at(&verifier, now()), &Reason::TopicNotAllowed, StatusCode::FORBIDDEN);
    for url in ["https://sns.s3-eu-west-1.amazonaws.com/a.pem", "https://evil.example/a.pem"] {
        let elsewhere = Sns { url: url.to_owned(), ..hello() };
        refused(elsewhere.by(&KEY).at(&verifier, now()), &Reason::CertificateAddress, StatusCode::FORBIDDEN);
    }
    assert_eq!(Verifier::ses(Vec::new(), Arc::new(|_: &_| None)).unwrap_err(), SecretError::Count { of: "topics" });
}

#[test]
fn without_its_certificate_a_post_comes_again() {
    let none: Arc<dyn Certificates> = Arc::new(|_: &_| None);
    let verifier = Verifier::ses(vec![TOPIC.parse().unwrap()], none).unwrap();
    let refusal = hello().by(&KEY).at(&verifier, now()).unwrap_err();
    assert_eq!(refusal.wanted_certificate().unwrap().as_str(), CERTIFICATE_URL);
    assert_eq!((refusal.status(), refusal.consequence()), (StatusCode::SERVICE_UNAVAILABLE, Consequence::Retried));
    for (from, until) in [(2020, 2025), (2027, 2030)] {
        let key = Rsa::valid(from, until);
        let refusal = hello().by(&key).at(&ses(&key.pem), now()).unwrap_err();
        assert!(matches!(refusal.reason(), Reason::CertificateExpired { .. }), "{refusal}");
        assert_eq!(refusal.consequence(), Consequence::Retried);
    }
}

#[test]
fn an_old_post_is_refused_for_good() {
    let verifier = ses(&KEY.pem);
    let at = "2026-01-02T01:04:04.000Z".to_owned();
    let stale = Reason::Untimely(Untimely::Stale(Duration::from_secs(2 * 3600)));
    refused(Sns { at, ..hello() }.by(&KEY).at(&verifier, now()), &stale, StatusCode::FORBIDDEN);
    let at = "2026-01-02T03:10:00.000Z".to_owned();
    let ahead = Reason::Untimely(Untimely::Ahead(Duration::from_secs(300)));
    refused(Sns { at, ..hello() }.by(&KEY).at(&verifier, now()), &ahead, StatusCode::FORBIDDEN);
}

#[test]
fn a_text_that_could_be_cut_into_other_fields_is_refused() {
    let verifier = ses(&KEY.pem);
    let sns = Sns { subject: Some("Test\nTimestamp\n2026-01-02T03:04:05.678Z"), ..hello() };
    let what = "a field of the envelope other than the message has more than one line";
    refused(sns.by(&KEY).at(&verifier, now()), &Reason::Malformed { what }, StatusCode::BAD_REQUEST);
    let twice = hello().by(&KEY).altered("{", "{\"Message\":\"another\",");
    let what = "the body is not an envelope of SNS";
    refused(twice.at(&verifier, now()), &Reason::Malformed { what }, StatusCode::BAD_REQUEST);
}

#[test]
fn sns_is_asked_for_the_credential_that_it_sends_only_then() {
    let basic = Credential::basic("sns", "a-password-of-the-tests").unwrap();
    let verifier = ses(&KEY.pem).and_credentials(vec![basic]).unwrap();
    let refusal = hello().by(&KEY).at(&verifier, now()).unwrap_err();
    assert_eq!(refusal.status(), StatusCode::UNAUTHORIZED);
    assert!(refusal.challenge().unwrap().starts_with("Basic "));
    let with = hello().by(&KEY).with("authorization", "Basic c25zOmEtcGFzc3dvcmQtb2YtdGhlLXRlc3Rz");
    with.at(&verifier, now()).unwrap();
}

#[test]
fn what_is_no_certificate_is_told() {
    for (pem, error) in [
        (String::new(), CertificateError::Form),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_owned(), CertificateError::Form),
        (KEY.pem.replace("CERTIFICATE", "PRIVATE KEY"), CertificateError::Form),
        ("x".repeat(70_000), CertificateError::TooLarge),
    ] {
        assert_eq!(Certificate::from_pem(pem.as_bytes()).unwrap_err(), error);
    }
    let pair = rcgen::KeyPair::generate().unwrap();
    let ecdsa = rcgen::CertificateParams::new(vec!["a.example".to_owned()]).unwrap().self_signed(&pair).unwrap();
    assert_eq!(Certificate::from_pem(ecdsa.pem().as_bytes()).unwrap_err(), CertificateError::Key);
}
