//! Postmark and SparkPost, which sign nothing.

use crate::support::{Request, now, refused};
use base64::{Engine, engine::general_purpose::STANDARD};
use http::StatusCode;
use mailfleet_feedback::webhook::{Consequence, Credential, CredentialError, Provider, Reason, SecretError, Verifier};

const PASSWORD: &str = "a-password-of-the-tests";

fn basic(user: &str, password: &str) -> Request {
    let value = format!("Basic {}", STANDARD.encode(format!("{user}:{password}")));
    Request::new(&[("authorization", &value)], b"{}")
}

fn both() -> Vec<Credential> {
    vec![Credential::basic("hooks", PASSWORD).unwrap(), Credential::field("X-Fleet", "a-value-of-the-tests").unwrap()]
}

#[test]
fn one_of_the_credentials_is_enough_and_a_wrong_one_comes_again() {
    for verifier in [Verifier::postmark(both()).unwrap(), Verifier::sparkpost(both()).unwrap()] {
        let taken = basic("hooks", PASSWORD).at(&verifier, now()).unwrap();
        assert_eq!(taken.replay(), None);
        basic("hooks", PASSWORD)
            .with("authorization", "bASIC   aG9va3M6YS1wYXNzd29yZC1vZi10aGUtdGVzdHM=")
            .at(&verifier, now())
            .unwrap();
        Request::new(&[("x-fleet", "a-value-of-the-tests")], b"{}").at(&verifier, now()).unwrap();
        for wrong in [
            basic("hooks", "a-password-of-the-testz"),
            basic("hook", PASSWORD),
            basic("", PASSWORD),
            basic("hooks", PASSWORD).twice("authorization"),
            Request::new(&[("authorization", "Basic !")], b"{}"),
            Request::new(&[("authorization", "Basic")], b"{}"),
            Request::new(&[("authorization", "Bearer a-password-of-the-tests")], b"{}"),
            Request::new(&[("x-fleet", "a-value-of-the-test")], b"{}"),
            Request::new(&[("x-fleet", "a-value-of-the-tests")], b"{}").twice("x-fleet"),
        ] {
            let refusal = wrong.at(&verifier, now()).unwrap_err();
            assert_eq!((refusal.reason(), refusal.status()), (&Reason::WrongCredential, StatusCode::UNAUTHORIZED));
            assert_eq!(refusal.consequence(), Consequence::Retried);
        }
        let none = Request::new(&[], b"{}").at(&verifier, now()).unwrap_err();
        assert_eq!(none.reason(), &Reason::MissingCredential);
        assert_eq!(none.challenge(), Some("Basic realm=\"webhooks\", charset=\"UTF-8\""));
    }
}

#[test]
fn both_passwords_are_good_during_a_rotation() {
    let old = Credential::basic("hooks", "the-password-until-today").unwrap();
    let verifier = Verifier::postmark(vec![old, Credential::basic("hooks", PASSWORD).unwrap()]).unwrap();
    basic("hooks", "the-password-until-today").at(&verifier, now()).unwrap();
    basic("hooks", PASSWORD).at(&verifier, now()).unwrap();
}

#[test]
fn a_batch_of_sparkpost_that_comes_again_bears_the_id_of_the_first() {
    let verifier = Verifier::sparkpost(both()).unwrap();
    let id = "x-messagesystems-batch-id";
    let first = basic("hooks", PASSWORD).with(id, "0f1e2d3c-batch");
    let taken = first.at(&verifier, now()).unwrap();
    assert_eq!(taken.replay().unwrap().as_str(), "0f1e2d3c-batch");
    assert_eq!(first.at(&verifier, now()).unwrap().replay(), taken.replay());
    for unusable in [first.clone().twice(id), first.clone().with(id, ""), first.with(id, &"a".repeat(201))] {
        assert_eq!(unusable.at(&verifier, now()).unwrap().replay(), None);
    }
}

#[test]
fn an_access_token_is_a_credential_too() {
    let verifier = Verifier::sparkpost(vec![Credential::bearer("an-access-token-of-tests").unwrap()]).unwrap();
    Request::new(&[("authorization", "Bearer an-access-token-of-tests")], b"[]").at(&verifier, now()).unwrap();
    let old = Request::new(&[("authorization", "Bearer an-access-token-of-testz")], b"[]").at(&verifier, now());
    assert_eq!(old.as_ref().unwrap_err().challenge(), None);
    refused(old, &Reason::WrongCredential, StatusCode::UNAUTHORIZED);
}

#[test]
fn postmark_is_never_told_403_but_to_make_it_stop() {
    let verifier = Verifier::postmark(both()).unwrap().up_to(1);
    let large = basic("hooks", PASSWORD).at(&verifier, now()).unwrap_err();
    assert_eq!((large.status(), large.consequence()), (StatusCode::FORBIDDEN, Consequence::GivenUp));
    assert_eq!(Provider::Postmark.consequence(StatusCode::ACCEPTED), Consequence::Retried);
    assert_eq!(Provider::Sparkpost.consequence(StatusCode::NO_CONTENT), Consequence::Retried);
    assert_eq!(Provider::Sendgrid.consequence(StatusCode::NO_CONTENT), Consequence::Done);
}

#[test]
fn a_source_without_a_secret_cannot_be_made() {
    assert_eq!(Verifier::postmark(Vec::new()).unwrap_err(), SecretError::Count { of: "credentials" });
    assert_eq!(Credential::basic("a:b", PASSWORD).unwrap_err(), CredentialError::User);
    assert_eq!(Credential::basic("hooks", "short").unwrap_err(), CredentialError::Secret);
    assert_eq!(Credential::field("X Fleet", PASSWORD).unwrap_err(), CredentialError::Name);
    assert_eq!(Credential::field("X-Fleet", "").unwrap_err(), CredentialError::Secret);
    assert_eq!(format!("{:?}", both()), "[Credential(<hidden>), Credential(<hidden>)]");
}
