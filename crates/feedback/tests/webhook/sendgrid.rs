//! SendGrid's signed event webhook.

use crate::support::{Ecdsa, Request, ago, now, refused};
use chrono::DateTime;
use http::StatusCode;
use mailfleet_feedback::webhook::{Consequence, Provider, Reason, SecretError, Untimely, Verifier, Window};
use std::time::Duration;

const SIGNATURE: &str = "x-twilio-email-event-webhook-signature";
const TIMESTAMP: &str = "x-twilio-email-event-webhook-timestamp";

#[test]
fn the_vector_holds_and_only_with_its_last_line_end() {
    let key = "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEU4or0Jb7HFhcqeVBM7EDQjlhJ6AGQZ1PGimZSZpfPXeLMbBnuIHXVJA8ff5IbpwaNT1PAW\
               yz398i+Z6kkHKXbg==";
    let signature = "MEUCIHrJSBWuOaD6BjjTn/INlACazQy47l6mbpwNCfhDpxKOAiEA/NLmdDJR/QfpmToaaL3mwbUssrabQpRw6u7hROCpAkM=";
    let body = b"[{\"email\":\"a@example.com\",\"event\":\"delivered\",\"timestamp\":1700000000}]\r\n";
    let at = DateTime::from_timestamp(1_700_000_005, 0).unwrap();
    let verifier = Verifier::sendgrid(&[key]).unwrap();
    let headers = [(SIGNATURE, signature), (TIMESTAMP, "1700000005")];
    let verified = Request::new(&headers, body).at(&verifier, at).unwrap();
    assert_eq!((verified.provider(), verified.replay()), (Provider::Sendgrid, None));
    let cut = Request::new(&headers, &body[..body.len() - 2]);
    refused(cut.at(&verifier, at), &Reason::WrongSignature, StatusCode::UNAUTHORIZED);
    // The key's PEM says the same.
    let pem = format!("-----BEGIN PUBLIC KEY-----\n{}\n{}\n-----END PUBLIC KEY-----\n", &key[..64], &key[64..]);
    Request::new(&headers, body).at(&Verifier::sendgrid(&[&pem]).unwrap(), at).unwrap();
}

#[test]
fn forged_and_altered_posts_are_refused_and_come_again() {
    let (key, other) = (Ecdsa::new(), Ecdsa::new());
    let verifier = Verifier::sendgrid(&[&key.shown()]).unwrap();
    let good = key.request(now(), b"[{\"event\":\"open\"}]\r\n");
    good.at(&verifier, now()).unwrap();
    let later = (now().timestamp() + 1).to_string();
    for forged in [
        good.clone().altered("open", "opem"),
        good.clone().with(TIMESTAMP, &later),
        good.clone().with(SIGNATURE, "AAAA"),
        good.clone().with(SIGNATURE, "not base64"),
        good.clone().with(SIGNATURE, &"A".repeat(10_000)),
        other.request(now(), &good.body),
    ] {
        let refusal = forged.at(&verifier, now()).unwrap_err();
        assert_eq!((refusal.reason(), refusal.status()), (&Reason::WrongSignature, StatusCode::UNAUTHORIZED));
        assert_eq!(refusal.consequence(), Consequence::Retried);
    }
    for name in [SIGNATURE, TIMESTAMP] {
        let missing = good.clone().without(name).at(&verifier, now());
        refused(missing, &Reason::MissingHeader { name }, StatusCode::UNAUTHORIZED);
        let twice = good.clone().twice(name).at(&verifier, now());
        refused(twice, &Reason::AmbiguousHeader { name }, StatusCode::UNAUTHORIZED);
    }
    let wrong = good.with(TIMESTAMP, "+1767323045").at(&verifier, now());
    let what = "the timestamp is not a number of seconds";
    refused(wrong, &Reason::Malformed { what }, StatusCode::BAD_REQUEST);
}

#[test]
fn a_post_of_yesterday_is_taken_and_an_older_one_is_not() {
    let key = Ecdsa::new();
    let verifier = Verifier::sendgrid(&[&key.shown()]).unwrap();
    key.request(ago(24 * 3600), b"[]").at(&verifier, now()).unwrap();
    let past = Duration::from_secs(24 * 3600 + 600);
    let stale = Reason::Untimely(Untimely::Stale(past));
    refused(key.request(ago(25 * 3600), b"[]").at(&verifier, now()), &stale, StatusCode::FORBIDDEN);
    let ahead = Reason::Untimely(Untimely::Ahead(Duration::from_secs(600)));
    refused(key.request(ago(-700), b"[]").at(&verifier, now()), &ahead, StatusCode::FORBIDDEN);
    let verifier = verifier.within(Window::STANDARD);
    let stale = Reason::Untimely(Untimely::Stale(Duration::from_secs(300)));
    refused(key.request(ago(302), b"[]").at(&verifier, now()), &stale, StatusCode::FORBIDDEN);
}

#[test]
fn during_a_rotation_both_keys_are_good() {
    let (old, new) = (Ecdsa::new(), Ecdsa::new());
    let verifier = Verifier::sendgrid(&[&old.shown(), &new.shown()]).unwrap();
    for key in [old, new] {
        key.request(now(), b"[]").at(&verifier, now()).unwrap();
    }
}

#[test]
fn a_key_that_is_none_is_told_when_the_source_is_made() {
    let rsa = "MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEA";
    for text in ["", "SG.key", rsa, &"A".repeat(2_000), "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEAAAA"] {
        assert_eq!(Verifier::sendgrid(&[text]).unwrap_err(), SecretError::SendgridKey);
    }
    assert_eq!(Verifier::sendgrid(&[]).unwrap_err(), SecretError::Count { of: "verification keys" });
}

#[test]
fn what_is_too_large_is_not_looked_at() {
    let key = Ecdsa::new();
    let verifier = Verifier::sendgrid(&[&key.shown()]).unwrap().up_to(10);
    let given = key.request(now(), b"[         ]").at(&verifier, now());
    refused(given, &Reason::TooLarge { limit: 10 }, StatusCode::PAYLOAD_TOO_LARGE);
}
