//! Resend's webhooks, which Svix posts.

use crate::support::{Request, ago, now, refused};
use chrono::{DateTime, Utc};
use http::StatusCode;
use mailfleet_feedback::webhook::{
    Consequence, KeyError, Limits, Reason, SecretError, SigningKey, Untimely, Verifier, Window, outbound::Signer,
};

const SECRET: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const BODY: &[u8] = b"{\"type\":\"email.delivered\",\"created_at\":\"2026-01-02T03:04:05.000Z\",\"data\":{}}";

/// As Svix posts it.
fn request(secrets: &[&str], at: DateTime<Utc>) -> Request {
    let keys = secrets.iter().map(|secret| secret.parse::<SigningKey>().unwrap()).collect();
    let signed = Signer::new(keys).unwrap().sign("msg_1", at, BODY).unwrap();
    let fields = signed.fields().map(|(name, value)| (name.replace("webhook-", "svix-"), value));
    let fields = fields.each_ref().map(|(name, value)| (name.as_str(), *value));
    Request::new(&fields, BODY)
}

#[test]
fn a_good_post_bears_the_id_that_is_remembered_and_names_its_event() {
    let verifier = Verifier::resend(&[SECRET]).unwrap();
    let good = request(&[SECRET], now());
    let verified = good.at(&verifier, now()).unwrap();
    assert_eq!(verified.replay().unwrap().as_str(), "msg_1");
    let batch = verified.read(&good.body, &Limits::default()).unwrap();
    assert_eq!(batch.events[0].dedupe, "resend/msg_1");
    // A retry has a new time, a new signature, and the same id.
    let retry = request(&[SECRET], ago(-60)).at(&verifier, now()).unwrap();
    assert_eq!(retry.replay(), verified.replay());
    // The names of the specification do as well.
    let signer = Signer::new(vec![SECRET.parse().unwrap()]).unwrap();
    let signed = signer.sign("msg_1", now(), BODY).unwrap();
    Request::new(&signed.fields(), BODY).at(&verifier, now()).unwrap();
}

#[test]
fn forged_and_stale_posts_are_refused_and_come_again_with_a_new_time() {
    let verifier = Verifier::resend(&[SECRET]).unwrap();
    let other = SigningKey::generate_hmac().to_secret_text();
    let good = request(&[SECRET], now());
    for forged in [
        request(&[&other], now()),
        good.clone().altered("delivered", "complained"),
        good.clone().with("svix-id", "msg_2"),
        good.clone().with("svix-signature", "v2,AAAA"),
        good.clone().with("svix-signature", ""),
    ] {
        refused(forged.at(&verifier, now()), &Reason::WrongSignature, StatusCode::UNAUTHORIZED);
    }
    let what = "the id or the timestamp has another form than documented";
    for wrong in [good.clone().with("svix-id", "msg.1"), good.clone().with("svix-timestamp", "-1")] {
        refused(wrong.at(&verifier, now()), &Reason::Malformed { what }, StatusCode::BAD_REQUEST);
    }
    for name in ["svix-id", "svix-timestamp", "svix-signature"] {
        let missing = good.clone().without(name).at(&verifier, now());
        refused(missing, &Reason::MissingHeader { name }, StatusCode::UNAUTHORIZED);
    }
    for (seconds, untimely) in
        [(302, Untimely::Stale(Window::STANDARD.past)), (-302, Untimely::Ahead(Window::STANDARD.ahead))]
    {
        let refusal = request(&[SECRET], ago(seconds)).at(&verifier, now()).unwrap_err();
        assert_eq!(refusal.reason(), &Reason::Untimely(untimely));
        assert_eq!(refusal.consequence(), Consequence::Retried);
    }
}

#[test]
fn one_good_signature_of_one_good_key_is_enough_during_a_rotation() {
    let old = SigningKey::generate_hmac().to_secret_text();
    for verifier in [Verifier::resend(&[&old, SECRET]).unwrap(), Verifier::resend(&[SECRET]).unwrap()] {
        request(&[&old, SECRET], now()).at(&verifier, now()).unwrap();
        request(&[SECRET], now()).at(&verifier, now()).unwrap();
    }
}

#[test]
fn a_secret_of_another_kind_is_told_when_the_source_is_made() {
    let public = SigningKey::generate_ed25519().to_secret_text();
    let prefix = KeyError::Prefix { expected: "whsec_ or whpk_" };
    for (secret, error) in [
        ("re_123", prefix),
        (public.as_str(), prefix),
        ("whsec_***", KeyError::Base64),
        ("whsec_AAAA", KeyError::Length { expected: "from 24 to 64" }),
    ] {
        assert_eq!(Verifier::resend(&[secret]).unwrap_err(), SecretError::StandardKey(error));
    }
}
