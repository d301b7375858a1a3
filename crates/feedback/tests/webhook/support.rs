//! Requests as providers make them, signed with keys of the tests.

use aws_lc_rs::{
    hmac,
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use chrono::{DateTime, TimeDelta, Utc};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use mailfleet_feedback::webhook::{Certificate, CertificateUrl, Reason, Refusal, Verified, Verifier};
use std::sync::Arc;

/// The time of the tests: that of the vectors of SNS.
pub fn now() -> DateTime<Utc> {
    "2026-01-02T03:04:05.678Z".parse().unwrap()
}

pub fn ago(seconds: i64) -> DateTime<Utc> {
    now() - TimeDelta::seconds(seconds)
}

/// A request.
#[derive(Clone, Debug)]
pub struct Request {
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Request {
    pub fn new(headers: &[(&str, &str)], body: &[u8]) -> Self {
        let headers = headers.iter().map(|(name, value)| {
            (HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap())
        });
        Self { headers: headers.collect(), body: body.to_vec() }
    }

    pub fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers.insert(name, HeaderValue::from_str(value).unwrap());
        self
    }

    pub fn twice(mut self, name: &'static str) -> Self {
        let value = self.headers.get(name).unwrap().clone();
        self.headers.append(name, value);
        self
    }

    pub fn without(mut self, name: &str) -> Self {
        self.headers.remove(name).unwrap();
        self
    }

    /// The same with one octet of the body changed.
    pub fn altered(mut self, from: &str, to: &str) -> Self {
        let body = String::from_utf8(self.body).unwrap();
        assert!(body.contains(from), "{body}");
        self.body = body.replacen(from, to, 1).into_bytes();
        self
    }

    pub fn at(&self, verifier: &Verifier, now: DateTime<Utc>) -> Result<Verified, Refusal> {
        verifier.verify(&self.headers, &self.body, now)
    }
}

/// That it is refused for this reason, with this status.
#[track_caller]
pub fn refused(given: Result<Verified, Refusal>, reason: &Reason, status: StatusCode) {
    let refusal = given.unwrap_err();
    assert_eq!((refusal.reason(), refusal.status()), (reason, status));
}

/// A key of SendGrid's kind.
pub struct Ecdsa(EcdsaKeyPair);

impl Ecdsa {
    pub fn new() -> Self {
        Self(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap())
    }

    /// As SendGrid shows it.
    pub fn shown(&self) -> String {
        let head = STANDARD.decode("MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgA=").unwrap();
        STANDARD.encode([&head[..], self.0.public_key().as_ref()].concat())
    }

    pub fn request(&self, at: DateTime<Utc>, body: &[u8]) -> Request {
        let timestamp = at.timestamp().to_string();
        let signed = [timestamp.as_bytes(), body].concat();
        let signature = STANDARD.encode(self.0.sign(&SystemRandom::new(), &signed).unwrap());
        Request::new(
            &[
                ("x-twilio-email-event-webhook-signature", &signature),
                ("x-twilio-email-event-webhook-timestamp", &timestamp),
            ],
            body,
        )
    }
}

/// The signature part of a post of Mailgun.
pub fn mailgun_signature(key: &str, at: DateTime<Utc>, token: &str) -> String {
    let timestamp = at.timestamp();
    let key = hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes());
    let tag = hmac::sign(&key, format!("{timestamp}{token}").as_bytes());
    let hex: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{{\"timestamp\":\"{timestamp}\",\"token\":\"{token}\",\"signature\":\"{hex}\"}}")
}

pub const TOPIC: &str = "arn:aws:sns:eu-west-1:111122223333:ses-events";
pub const CERTIFICATE_URL: &str = "https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-example.pem";

/// A key of SNS's kind, with its certificate.
pub struct Rsa {
    key: RsaKeyPair,
    pub pem: String,
}

impl Rsa {
    /// A certificate that is valid from `from` until `until`, both years.
    pub fn valid(from: i32, until: i32) -> Self {
        let pair = rcgen::KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048).unwrap();
        let mut params = rcgen::CertificateParams::new(vec!["sns.amazonaws.com".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(from, 1, 1);
        params.not_after = rcgen::date_time_ymd(until, 1, 1);
        let pem = params.self_signed(&pair).unwrap().pem();
        Self { key: RsaKeyPair::from_pkcs8(&pair.serialize_der()).unwrap(), pem }
    }

    pub fn sign(&self, signed: &[u8]) -> String {
        let mut signature = vec![0; self.key.public_modulus_len()];
        self.key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed, &mut signature).unwrap();
        STANDARD.encode(signature)
    }
}

/// An envelope of SNS, before it is signed.
#[derive(Clone)]
pub struct Sns {
    pub kind: &'static str,
    pub message: String,
    pub topic: String,
    pub subject: Option<&'static str>,
    pub at: String,
    pub url: String,
    pub subscribe: String,
    pub version: &'static str,
}

impl Sns {
    pub fn notification(message: &str) -> Self {
        Self {
            kind: "Notification",
            message: message.to_owned(),
            topic: TOPIC.to_owned(),
            subject: Some("Test"),
            at: "2026-01-02T03:04:05.678Z".to_owned(),
            url: CERTIFICATE_URL.to_owned(),
            subscribe: String::new(),
            version: "2",
        }
    }

    pub fn confirmation() -> Self {
        let subscribe =
            format!("https://sns.eu-west-1.amazonaws.com/?Action=ConfirmSubscription&TopicArn={TOPIC}&Token=tok123");
        let message = "You have chosen to subscribe.";
        Self { kind: "SubscriptionConfirmation", subscribe, subject: None, ..Self::notification(message) }
    }

    /// What SNS signs, written down anew.
    pub fn signed(&self) -> String {
        let id = "11111111-2222-3333-4444-555555555555";
        let Self { message, at, topic, kind, subscribe, .. } = self;
        if *kind == "Notification" {
            let subject = self.subject.map(|subject| format!("Subject\n{subject}\n")).unwrap_or_default();
            return format!(
                "Message\n{message}\nMessageId\n{id}\n{subject}Timestamp\n{at}\nTopicArn\n{topic}\nType\n{kind}\n"
            );
        }
        format!(
            "Message\n{message}\nMessageId\n{id}\nSubscribeURL\n{subscribe}\nTimestamp\n{at}\nToken\ntok123\nTopicArn\n\
             {topic}\nType\n{kind}\n"
        )
    }

    pub fn request(&self, signature: &str) -> Request {
        let id = "11111111-2222-3333-4444-555555555555";
        let mut body = serde_json::json!({
            "Type": self.kind, "MessageId": id, "TopicArn": self.topic, "Message": self.message, "Timestamp": self.at,
            "SignatureVersion": self.version, "Signature": signature, "SigningCertURL": self.url,
        });
        if let Some(subject) = self.subject {
            body["Subject"] = subject.into();
        }
        if self.kind == "Notification" {
            body["UnsubscribeURL"] = "https://sns.eu-west-1.amazonaws.com/?Action=Unsubscribe".into();
        } else {
            body["SubscribeURL"] = self.subscribe.as_str().into();
            body["Token"] = "tok123".into();
        }
        Request::new(
            &[
                ("content-type", "text/plain; charset=UTF-8"),
                ("x-amz-sns-message-type", self.kind),
                ("x-amz-sns-message-id", id),
                ("x-amz-sns-topic-arn", &self.topic),
            ],
            body.to_string().as_bytes(),
        )
    }

    pub fn by(&self, key: &Rsa) -> Request {
        self.request(&key.sign(self.signed().as_bytes()))
    }
}

/// A verifier of the topic that has this certificate at hand, and no other.
pub fn ses(pem: &str) -> Verifier {
    let certificate = Arc::new(Certificate::from_pem(pem.as_bytes()).unwrap());
    let at_hand = move |url: &CertificateUrl| (url.as_str() == CERTIFICATE_URL).then(|| Arc::clone(&certificate));
    Verifier::ses(vec![TOPIC.parse().unwrap()], Arc::new(at_hand)).unwrap()
}
