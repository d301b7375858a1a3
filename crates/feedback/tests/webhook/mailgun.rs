//! Mailgun's webhooks.

use crate::support::{Request, ago, mailgun_signature, now, refused};
use chrono::{DateTime, TimeDelta};
use http::StatusCode;
use mailfleet_feedback::webhook::{Consequence, Credential, Reason, SecretError, Untimely, Verifier};
use std::time::Duration;

const KEY: &str = "fleet-test-signing-key";
const TOKEN: &str = "0123456789abcdef0123456789abcdef0123456789abcdef01";

fn post(signature: &str) -> Request {
    let event = "{\"event\":\"opened\",\"id\":\"ev-1\",\"timestamp\":1767323045.1,\"recipient\":\"kim@example.net\"}";
    Request::new(&[], format!("{{\"signature\":{signature},\"event-data\":{event}}}").as_bytes())
}

fn signed(key: &str, seconds_ago: i64) -> Request {
    post(&mailgun_signature(key, ago(seconds_ago), TOKEN))
}

#[test]
fn the_vector_holds_and_its_token_is_what_has_to_be_remembered() {
    let signature = format!(
        "{{\"timestamp\":\"1700000000\",\"token\":\"{TOKEN}\",\
         \"signature\":\"88b3a9d2fcbdf414277480ed9d673d71590f64d248479471d9c6e23d1ce40d3a\"}}"
    );
    let at = DateTime::from_timestamp(1_700_000_000, 0).unwrap();
    let verified = post(&signature).at(&Verifier::mailgun(&[KEY]).unwrap(), at).unwrap();
    let replay = verified.replay().unwrap();
    assert_eq!((replay.as_str(), replay.until()), (TOKEN, at + TimeDelta::hours(9)));
    // The timestamp as a number is the same text.
    post(&signature.replace("\"1700000000\"", "1700000000")).at(&Verifier::mailgun(&[KEY]).unwrap(), at).unwrap();
}

#[test]
fn a_forged_token_comes_again_so_that_a_wrong_key_loses_nothing() {
    let verifier = Verifier::mailgun(&[KEY]).unwrap();
    let good = signed(KEY, 0);
    good.at(&verifier, now()).unwrap();
    let hex = mailgun_signature(KEY, now(), TOKEN);
    let (_, hex) = hex.split_at(hex.len() - 66);
    for forged in [
        good.clone().altered("0123456789", "1123456789"),
        good.clone().altered(hex, &hex.to_uppercase()),
        good.clone().altered(hex, "\"}"),
        signed("another-signing-key", 0),
    ] {
        let refusal = forged.at(&verifier, now()).unwrap_err();
        assert_eq!((refusal.reason(), refusal.status()), (&Reason::WrongSignature, StatusCode::UNAUTHORIZED));
        assert_eq!(refusal.consequence(), Consequence::Retried);
    }
}

#[test]
fn what_can_never_be_taken_is_stopped_with_406() {
    let verifier = Verifier::mailgun(&[KEY]).unwrap();
    let what = "the body has no signature of Mailgun";
    for body in ["", "[]", "{}", "{\"signature\":{}}", "timestamp=1&token=2&signature=3", "{\"signature\":null}"] {
        let given = Request::new(&[], body.as_bytes()).at(&verifier, now());
        refused(given, &Reason::Malformed { what }, StatusCode::NOT_ACCEPTABLE);
    }
    // Which of two would count, nobody can say.
    let one = mailgun_signature(KEY, now(), TOKEN);
    let twice = format!("{{\"signature\":{one},\"signature\":{one},\"event-data\":{{}}}}");
    let given = Request::new(&[], twice.as_bytes()).at(&verifier, now());
    refused(given, &Reason::Malformed { what }, StatusCode::NOT_ACCEPTABLE);
    signed(KEY, 9 * 3600 - 1).at(&verifier, now()).unwrap();
    let stale = Reason::Untimely(Untimely::Stale(Duration::from_secs(9 * 3600)));
    refused(signed(KEY, 9 * 3600 + 1).at(&verifier, now()), &stale, StatusCode::NOT_ACCEPTABLE);
    let ahead = Reason::Untimely(Untimely::Ahead(Duration::from_secs(300)));
    let given = signed(KEY, -302).at(&verifier, now()).unwrap_err();
    assert_eq!((given.reason(), given.consequence()), (&ahead, Consequence::GivenUp));
}

#[test]
fn during_a_rotation_both_keys_are_good_and_so_is_that_of_the_parent() {
    let verifier = Verifier::mailgun(&["the-new-signing-key", KEY]).unwrap();
    for key in [KEY, "the-new-signing-key"] {
        signed(key, 0).at(&verifier, now()).unwrap();
    }
    let own = mailgun_signature("key-of-the-subaccount", now(), "own");
    let parent = mailgun_signature(KEY, now(), "parent");
    let body = format!("{{\"signature\":{own},\"parent-signature\":{parent},\"event-data\":{{}}}}");
    let verified = Request::new(&[], body.as_bytes()).at(&verifier, now()).unwrap();
    assert_eq!(verified.replay().unwrap().as_str(), "parent");
}

#[test]
fn a_replayed_post_has_the_key_of_the_first() {
    let verifier = Verifier::mailgun(&[KEY]).unwrap();
    let first = signed(KEY, 60).at(&verifier, now()).unwrap();
    // The event is not covered by the signature: only the token tells that it was seen.
    let forged = signed(KEY, 60).altered("opened", "complained").at(&verifier, now()).unwrap();
    assert_eq!(first.replay(), forged.replay());
}

#[test]
fn a_credential_may_be_asked_for_besides() {
    let basic = Credential::basic("mailgun", "correct horse battery").unwrap_err();
    assert!(basic.to_string().contains("visible ASCII"), "{basic}");
    let basic = Credential::basic("mailgun", "correct-horse-battery").unwrap();
    let verifier = Verifier::mailgun(&[KEY]).unwrap().and_credentials(vec![basic]).unwrap();
    refused(signed(KEY, 0).at(&verifier, now()), &Reason::MissingCredential, StatusCode::UNAUTHORIZED);
    let with = signed(KEY, 0).with("authorization", "Basic bWFpbGd1bjpjb3JyZWN0LWhvcnNlLWJhdHRlcnk=");
    with.at(&verifier, now()).unwrap();
    assert_eq!(Verifier::mailgun(&["short"]).unwrap_err(), SecretError::MailgunKey);
}
