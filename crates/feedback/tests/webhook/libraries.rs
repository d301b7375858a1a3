//! The providers' own libraries, and those of Standard Webhooks, agree with us on good and forged requests.
//!
//! Their packages are installed into the target folder; where that cannot be done, `make test` tells it at the end.

use crate::support::{CERTIFICATE_URL, Ecdsa, Request, Rsa, Sns, TOPIC, mailgun_signature};
use base64::{Engine, engine::general_purpose::STANDARD};
use chrono::{DateTime, TimeDelta, Utc};
use http::HeaderMap;
use mailfleet_feedback::webhook::{
    Certificate, CertificateUrl, SigningKey, Verifier, VerifyingKey, Window,
    outbound::{Signer, verify},
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fs, path::Path, sync::Arc, time::SystemTime};
use testkit::packages::{self, Language};

const SECRET: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const MAILGUN_KEY: &str = "fleet-test-signing-key";

/// A request, whose library judges it, and by which key.
#[derive(Clone, Serialize, Deserialize)]
struct Case {
    library: String,
    key: String,
    headers: BTreeMap<String, String>,
    body: String,
}

#[derive(Deserialize)]
struct Answer {
    says: Vec<Option<bool>>,
    made: Vec<Case>,
}

/// The libraries look at the clock.
fn clock() -> DateTime<Utc> {
    SystemTime::now().into()
}

impl Case {
    fn new(library: &str, key: &str, request: &Request) -> Self {
        let headers = request.headers.iter();
        let headers = headers.map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect();
        let body = STANDARD.encode(&request.body);
        Self { library: library.to_owned(), key: key.to_owned(), headers, body }
    }

    /// What we say.
    fn is_good(&self) -> bool {
        let headers: Vec<_> = self.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let request = Request::new(&headers, &STANDARD.decode(&self.body).unwrap());
        let verifier = match self.library.as_str() {
            "sendgrid" => Verifier::sendgrid(&[&self.key]).unwrap(),
            "mailgun" => Verifier::mailgun(&[&self.key]).unwrap(),
            "sns" => sns(&self.key),
            "resend" => Verifier::resend(&[&self.key]).unwrap(),
            _ if request.headers.contains_key("svix-id") => Verifier::resend(&[&self.key]).unwrap(),
            _ => return self.is_standard(&request.headers, &request.body),
        };
        request.at(&verifier, clock()).is_ok()
    }

    fn is_standard(&self, headers: &HeaderMap, body: &[u8]) -> bool {
        let key: VerifyingKey = self.key.parse().unwrap();
        verify(&[key], headers, body, Window::STANDARD, clock()).is_ok()
    }
}

fn sns(pem: &str) -> Verifier {
    let certificate = Arc::new(Certificate::from_pem(pem.as_bytes()).unwrap());
    let any = move |_: &CertificateUrl| Some(Arc::clone(&certificate));
    Verifier::ses(vec![TOPIC.parse().unwrap()], Arc::new(any)).unwrap()
}

/// Each request as it is made, and changed in ways that each library notices.
fn cases() -> Vec<(Case, bool)> {
    let now = clock();
    let mut cases = Vec::new();
    let mut push = |library: &str, key: &str, request: Request, good: bool| {
        cases.push((Case::new(library, key, &request), good));
    };

    let (ecdsa, other) = (Ecdsa::new(), Ecdsa::new());
    let body = "[{\"email\":\"kim@example.net\",\"event\":\"open\",\"x\":\"größe\"},\r\n{\"event\":\"click\"}]\r\n";
    let good = ecdsa.request(now, body.as_bytes());
    push("sendgrid", &ecdsa.shown(), good.clone(), true);
    push("sendgrid", &other.shown(), good.clone(), false);
    push("sendgrid", &ecdsa.shown(), good.clone().altered("open", "opem"), false);
    push("sendgrid", &ecdsa.shown(), good.altered("]\r\n", "]"), false);

    let signature = mailgun_signature(MAILGUN_KEY, now, "0123456789abcdef0123456789abcdef0123456789abcdef01");
    let good = Request::new(&[], format!("{{\"signature\":{signature},\"event-data\":{{}}}}").as_bytes());
    push("mailgun", MAILGUN_KEY, good.clone(), true);
    push("mailgun", "another-signing-key", good.clone(), false);
    push("mailgun", MAILGUN_KEY, good.altered("\"token\":\"0", "\"token\":\"1"), false);

    let (key, other) = (Rsa::valid(2020, 2120), Rsa::valid(2020, 2120));
    let at = now.format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string();
    for (n, subject) in [(0, None), (1, Some("Test"))] {
        // A validator keeps certificates by their addresses.
        let url = CERTIFICATE_URL.replace("example", &format!("a{n}"));
        let sns = Sns { at: at.clone(), subject, url, ..Sns::notification("größe\n\"x\"") };
        push("sns", &key.pem, sns.by(&key), true);
        push("sns", &key.pem, sns.by(&key).altered("größe", "grösse"), false);
        push("sns", &key.pem, sns.by(&other), false);
        push("sns", &key.pem, Sns { version: "1", ..sns.clone() }.by(&key), false);
    }
    let url = CERTIFICATE_URL.replace("example", "b");
    push("sns", &key.pem, Sns { at, url, ..Sns::confirmation() }.by(&key), true);

    let (hmac, ed25519) = (SECRET.parse::<SigningKey>().unwrap(), SigningKey::generate_ed25519());
    let public = ed25519.to_receiver_text();
    let signer = Signer::new(vec![SigningKey::generate_hmac(), ed25519, hmac]).unwrap();
    let body = "{\"type\":\"email.delivered\",\"data\":{\"x\":\"größe\"}}".as_bytes();
    for (seconds, fresh) in [(0, true), (400, false), (-400, false)] {
        let signed = signer.sign("msg_1", now - TimeDelta::seconds(seconds), body).unwrap();
        let good = Request::new(&signed.fields(), body);
        let svix = signed.fields().map(|(name, value)| (name.replace("webhook-", "svix-"), value.to_owned()));
        let svix = svix.each_ref().map(|(name, value)| (name.as_str(), value.as_str()));
        let other = SigningKey::generate_hmac().to_secret_text();
        for (library, request) in [("standard", good.clone()), ("resend", Request::new(&svix, body))] {
            push(library, SECRET, request.clone(), fresh);
            push(library, &other, request.clone(), false);
            push(library, SECRET, request.altered("delivered", "bounced"), false);
        }
        if fresh {
            push("ed25519", &public, good.clone(), true);
            push("ed25519", &public, good.altered("delivered", "bounced"), false);
        }
    }
    cases
}

/// Compares what the libraries of a language say with what we say, once their packages are there.
fn agree(name: &str, files: &[&str], language: Language, check: &[&str]) {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("webhook-{name}"));
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/webhook/libraries");
    let what = format!("the webhook libraries of {name}");
    if packages::install(&folder, &from, files, language, &what).unwrap().is_none() {
        return;
    }
    let cases = cases();
    let all: Vec<&Case> = cases.iter().map(|(case, _)| case).collect();
    fs::write(folder.join("cases.json"), serde_json::to_vec(&all).unwrap()).unwrap();
    let answer: Answer = serde_json::from_str(&packages::run(&folder, check).unwrap()).unwrap();
    assert_eq!(answer.says.len(), cases.len());
    let mut judged = 0;
    for (n, ((case, good), says)) in cases.iter().zip(&answer.says).enumerate() {
        assert_eq!(case.is_good(), *good, "we, of case {n} of {}", case.library);
        if let Some(says) = says {
            assert_eq!(says, good, "the library, of case {n} of {}", case.library);
            judged += 1;
        }
    }
    assert!(judged >= 19, "{judged} of {}", cases.len());
    for (n, case) in answer.made.iter().enumerate() {
        assert!(case.is_good(), "request {n}, made by the library of {}", case.library);
    }
}

#[test]
fn the_python_libraries_agree_on_good_and_forged_requests() {
    let check = &[".venv/bin/python", "check.py", "cases.json"];
    agree("python", &["check.py", "requirements.txt"], Language::Python, check);
}

#[test]
fn the_javascript_libraries_agree_on_good_and_forged_requests() {
    let check = &["node", "check.mjs", "cases.json"];
    agree("javascript", &["check.mjs", "package.json"], Language::JavaScript, check);
}
