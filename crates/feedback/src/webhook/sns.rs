//! The envelope in which SNS posts: who may have signed it, and what was signed.

mod certificate;

pub use certificate::{Certificate, CertificateError, CertificateUrl, Certificates};

use super::{Post, Reason, ReplayKey, Window, header};
use base64::{Engine, engine::general_purpose::STANDARD};
use chrono::{DateTime, Utc};
use http::HeaderMap;
use serde::Deserialize;
use std::{fmt, str::FromStr};

/// Longest token of a confirmation.
const LONGEST_TOKEN: usize = 1024;
/// Longest signature that is decoded: RSA of 8,192 bits.
const LONGEST_SIGNATURE: usize = 1_400;

/// The name of a topic, `arn:aws:sns:REGION:ACCOUNT:NAME`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct TopicArn {
    text: String,
    region: (usize, usize),
    china: bool,
}

/// A text that names no topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be the ARN of a topic, such as arn:aws:sns:eu-west-1:111122223333:ses-events")]
pub struct TopicArnError;

impl TopicArn {
    /// The ARN.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The region, where `ConfirmSubscription` has to be called.
    pub fn region(&self) -> &str {
        &self.text[self.region.0..self.region.1]
    }

    /// The host of SNS in that region: the only one whose certificates and links belong to this topic.
    pub(crate) fn host(&self) -> String {
        format!("sns.{}.amazonaws.com{}", self.region(), if self.china { ".cn" } else { "" })
    }
}

impl FromStr for TopicArn {
    type Err = TopicArnError;

    fn from_str(text: &str) -> Result<Self, TopicArnError> {
        let parts: Vec<&str> = text.splitn(7, ':').collect();
        let &["arn", partition, "sns", region, account, name] = &parts[..] else { return Err(TopicArnError) };
        let word = |text: &str, extra: &[u8]| {
            text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || extra.contains(&byte))
        };
        let named = (1..=256).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        let fits = matches!(partition, "aws" | "aws-cn" | "aws-us-gov")
            && (3..=32).contains(&region.len())
            && word(region, b"-")
            && account.len() == 12
            && account.bytes().all(|byte| byte.is_ascii_digit())
            && named;
        if !fits {
            return Err(TopicArnError);
        }
        let start = "arn:".len() + partition.len() + ":sns:".len();
        Ok(Self { text: text.to_owned(), region: (start, start + region.len()), china: partition == "aws-cn" })
    }
}

impl fmt::Display for TopicArn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for TopicArn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TopicArn({})", self.text)
    }
}

/// A subscription that waits to be confirmed: call `ConfirmSubscription` with these, in [`TopicArn::region`].
#[derive(Clone, PartialEq, Eq)]
pub struct Confirmation {
    /// The topic, one of those that are allowed.
    pub topic: TopicArn,
    /// Proves to SNS that the endpoint got the request.
    pub token: String,
}

impl fmt::Debug for Confirmation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Confirmation({}, <hidden>)", self.topic)
    }
}

/// How SNS signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnsVersion {
    /// RSA with SHA-1, the default of a topic.
    One,
    /// RSA with SHA-256: set the topic's attribute `SignatureVersion` to 2.
    Two,
}

/// The body of a post of SNS. A field that is there twice is an error, not the last one.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Envelope {
    #[serde(rename = "Type")]
    pub(super) kind: String,
    pub(super) message_id: String,
    pub(super) topic_arn: String,
    #[serde(default)]
    subject: Option<String>,
    pub(super) message: String,
    pub(super) timestamp: String,
    signature_version: String,
    signature: String,
    #[serde(rename = "SigningCertURL")]
    signing_cert_url: String,
    #[serde(default, rename = "SubscribeURL")]
    subscribe_url: Option<String>,
    #[serde(default)]
    token: Option<String>,
}

/// What a post of SNS is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum EnvelopeKind {
    Notification,
    SubscriptionConfirmation,
    UnsubscribeConfirmation,
}

impl Envelope {
    pub(super) fn parse(body: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(body)
    }

    pub(super) fn kind(&self) -> Option<EnvelopeKind> {
        match self.kind.as_str() {
            "Notification" => Some(EnvelopeKind::Notification),
            "SubscriptionConfirmation" => Some(EnvelopeKind::SubscriptionConfirmation),
            "UnsubscribeConfirmation" => Some(EnvelopeKind::UnsubscribeConfirmation),
            _ => None,
        }
    }

    /// The octets that are signed: names and values, each with its line feed, in this order.
    pub(super) fn canonical(&self, kind: EnvelopeKind, with_token: bool) -> Vec<u8> {
        let mut text = String::with_capacity(self.message.len() + 512);
        let mut push = |name: &str, value: &str| {
            for part in [name, "\n", value, "\n"] {
                text.push_str(part);
            }
        };
        push("Message", &self.message);
        push("MessageId", &self.message_id);
        match kind {
            EnvelopeKind::Notification => {
                if let Some(subject) = &self.subject {
                    push("Subject", subject);
                }
                push("Timestamp", &self.timestamp);
            }
            EnvelopeKind::SubscriptionConfirmation | EnvelopeKind::UnsubscribeConfirmation => {
                push("SubscribeURL", self.subscribe_url.as_deref().unwrap_or_default());
                push("Timestamp", &self.timestamp);
                if with_token {
                    push("Token", self.token.as_deref().unwrap_or_default());
                }
            }
        }
        push("TopicArn", &self.topic_arn);
        push("Type", &self.kind);
        text.into_bytes()
    }

    /// Whether each field but the message is on one line: else one text could be cut into fields in two ways.
    fn is_unambiguous(&self) -> bool {
        let optional = [&self.subject, &self.subscribe_url, &self.token];
        [&self.message_id, &self.topic_arn, &self.timestamp, &self.kind]
            .into_iter()
            .chain(optional.into_iter().flatten())
            .all(|field| !field.contains(['\n', '\r']))
    }
}

/// What a source of SNS is checked by.
pub(super) struct Rules<'a> {
    pub(super) topics: &'a [TopicArn],
    pub(super) versions: &'a [SnsVersion],
    pub(super) certificates: &'a dyn Certificates,
    pub(super) window: Window,
}

/// Verifies a post of SNS. What costs nothing comes first, and no certificate is asked for before the topic is known to
/// be ours, so that a forger cannot make us fetch.
pub(super) fn verify(
    rules: &Rules<'_>,
    headers: &HeaderMap,
    body: &[u8],
    now: DateTime<Utc>,
) -> Result<(Post, ReplayKey), Reason> {
    let malformed = |what| Reason::Malformed { what };
    if headers.get("x-amz-sns-rawdelivery").is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"true")) {
        return Err(malformed(
            "raw message delivery is on, so that nothing is signed: turn it off for the subscription",
        ));
    }
    let envelope = Envelope::parse(body).map_err(|_| malformed("the body is not an envelope of SNS"))?;
    let kind = envelope.kind().ok_or(malformed("the type of the envelope is not known"))?;
    if !envelope.is_unambiguous() {
        return Err(malformed("a field of the envelope other than the message has more than one line"));
    }
    let topic = rules.topics.iter().find(|topic| topic.as_str() == envelope.topic_arn);
    let topic = topic.ok_or(Reason::TopicNotAllowed)?;
    for (name, value) in [
        ("x-amz-sns-message-type", &envelope.kind),
        ("x-amz-sns-message-id", &envelope.message_id),
        ("x-amz-sns-topic-arn", &envelope.topic_arn),
    ] {
        match header::only(headers, name) {
            Ok(given) if given == value => {}
            Ok(_) => return Err(Reason::HeaderDiffers { name }),
            Err(header::Unusable::Missing) => return Err(Reason::MissingHeader { name }),
            Err(header::Unusable::Ambiguous) => return Err(Reason::AmbiguousHeader { name }),
        }
    }
    let at = DateTime::parse_from_rfc3339(&envelope.timestamp).map_err(|_| malformed("the timestamp is not a time"))?;
    let at = at.with_timezone(&Utc);
    rules.window.check(at, now).map_err(Reason::Untimely)?;
    let version = match envelope.signature_version.as_str() {
        "1" => SnsVersion::One,
        "2" => SnsVersion::Two,
        _ => return Err(Reason::SignatureVersion),
    };
    if !rules.versions.contains(&version) {
        return Err(Reason::SignatureVersion);
    }
    if envelope.signature.len() > LONGEST_SIGNATURE {
        return Err(malformed("the signature is too long"));
    }
    let signature = STANDARD.decode(&envelope.signature).map_err(|_| malformed("the signature is not base64"))?;
    let url = CertificateUrl::of_topic(topic, &envelope.signing_cert_url).ok_or(Reason::CertificateAddress)?;
    let Some(certificate) = rules.certificates.get(&url) else { return Err(Reason::CertificateMissing { url }) };
    if !certificate.is_valid_at(now) {
        return Err(Reason::CertificateExpired { url });
    }
    let holds = |with_token| certificate.verifies(version, &envelope.canonical(kind, with_token), &signature);
    // AWS documents the token as a part of both confirmations; its JavaScript library leaves it out of this one.
    let holds = holds(true) || (kind == EnvelopeKind::UnsubscribeConfirmation && holds(false));
    if !holds {
        return Err(Reason::WrongSignature);
    }
    let post = match kind {
        EnvelopeKind::Notification => Post::Events,
        EnvelopeKind::UnsubscribeConfirmation => Post::Unsubscribed { topic: topic.clone() },
        EnvelopeKind::SubscriptionConfirmation => confirmation(topic, &envelope)?,
    };
    let id = &envelope.message_id;
    if !(1..=super::MAX_ID).contains(&id.len()) || !id.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(malformed("the message id is empty, too long, or no id"));
    }
    Ok((post, ReplayKey::new(envelope.message_id, rules.window.end(at))))
}

fn confirmation(topic: &TopicArn, envelope: &Envelope) -> Result<Post, Reason> {
    let ours = envelope.subscribe_url.as_deref().and_then(|url| url.strip_prefix("https://"));
    let ours = ours.and_then(|rest| rest.strip_prefix(topic.host().as_str())).is_some_and(|rest| rest.starts_with('/'));
    if !ours {
        return Err(Reason::Malformed {
            what: "the address to subscribe at is not one of SNS in the region of the topic",
        });
    }
    let token = envelope.token.clone().unwrap_or_default();
    let fits = (1..=LONGEST_TOKEN).contains(&token.len()) && token.bytes().all(|byte| byte.is_ascii_graphic());
    if !fits {
        return Err(Reason::Malformed { what: "the token of the confirmation is empty, too long, or no token" });
    }
    Ok(Post::ConfirmSubscription(Confirmation { topic: topic.clone(), token }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_lc_rs::digest::{self, SHA1_FOR_LEGACY_USE_ONLY, SHA256};

    const LINK: &str = "https://sns.eu-west-1.amazonaws.com/?Action=ConfirmSubscription&TopicArn=arn:aws:sns:eu-west-1:\
                        111122223333:ses-events&Token=tok123";

    fn envelope(kind: &str, message: &str, subject: Option<&str>) -> Envelope {
        Envelope {
            kind: kind.to_owned(),
            message_id: "11111111-2222-3333-4444-555555555555".to_owned(),
            topic_arn: "arn:aws:sns:eu-west-1:111122223333:ses-events".to_owned(),
            subject: subject.map(str::to_owned),
            message: message.to_owned(),
            timestamp: "2026-01-02T03:04:05.678Z".to_owned(),
            signature_version: "2".to_owned(),
            signature: String::new(),
            signing_cert_url: String::new(),
            subscribe_url: Some(LINK.to_owned()),
            token: Some("tok123".to_owned()),
        }
    }

    #[test]
    fn the_octets_that_are_signed_are_those_of_the_vectors() {
        let signed = envelope("Notification", "hello fleet", Some("Test")).canonical(EnvelopeKind::Notification, true);
        let sha1 = hex::encode(digest::digest(&SHA1_FOR_LEGACY_USE_ONLY, &signed).as_ref());
        assert_eq!((signed.len(), sha1.as_str()), (188, "bed242f63469d975f43e8a6e523dad85d0f9f863"));
        let confirmation = EnvelopeKind::SubscriptionConfirmation;
        for (kind, envelope, length, sha256) in [
            (
                EnvelopeKind::Notification,
                envelope("Notification", "hello fleet", Some("Test")),
                188,
                "24fca65dd5849612dd210c03264863ecde45d032232e9fd70f6fb43af8e757b5",
            ),
            (
                EnvelopeKind::Notification,
                envelope("Notification", "hello fleet", None),
                175,
                "483e05f7e5d96212a0bb7643f7f43d93ddfd6a298c89d93b88d1ebd0d3400a47",
            ),
            (
                confirmation,
                envelope("SubscriptionConfirmation", "You have chosen to subscribe.", None),
                363,
                "ab1e5457464794af6c2c568bba4169b35be8c131fa20ab7bd4643137cd96bd48",
            ),
        ] {
            let signed = envelope.canonical(kind, true);
            assert_eq!(
                (signed.len(), hex::encode(digest::digest(&SHA256, &signed).as_ref()).as_str()),
                (length, sha256)
            );
        }
    }

    #[test]
    fn only_a_host_of_sns_in_the_topics_region_has_certificates() {
        let topic: TopicArn = "arn:aws:sns:eu-west-1:111122223333:ses-events".parse().unwrap();
        let good = "https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-0123abcd.pem";
        assert_eq!(CertificateUrl::of_topic(&topic, good).unwrap().as_str(), good);
        for bad in [
            "http://sns.eu-west-1.amazonaws.com/a.pem",
            "https://sns.us-east-1.amazonaws.com/a.pem",
            "https://sns.s3-eu-west-1.amazonaws.com/a.pem",
            "https://sns.evil.com/a.pem",
            "https://sns.eu-west-1.amazonaws.com.evil.com/a.pem",
            "https://sns.eu-west-1.amazonaws.com.cn/a.pem",
            "https://sns.eu-west-1.amazonaws.com:8443/a.pem",
            "https://sns.eu-west-1.amazonaws.com@evil.com/a.pem",
            "https://user@sns.eu-west-1.amazonaws.com/a.pem",
            "https://sns.eu-west-1.amazonaws.com/a.pem?x=1",
            "https://sns.eu-west-1.amazonaws.com/a.pem#x",
            "https://sns.eu-west-1.amazonaws.com/?Action=x&y=.pem",
            "https://sns.eu-west-1.amazonaws.com/../a.pem",
            "https://sns.eu-west-1.amazonaws.com/%2e%2e/a.pem",
            "https://sns.eu-west-1.amazonaws.com/a.pem\n",
            "https://sns.eu-west-1.amazonaws.com/a",
            "https://snsXeu-west-1.amazonaws.com/a.pem",
            "https://sns.eu-west-1.amazonaws.com\\a.pem",
            "",
        ] {
            assert_eq!(CertificateUrl::of_topic(&topic, bad), None, "{bad}");
        }
        let china: TopicArn = "arn:aws-cn:sns:cn-north-1:111122223333:events".parse().unwrap();
        assert!(CertificateUrl::of_topic(&china, "https://sns.cn-north-1.amazonaws.com.cn/a.pem").is_some());
        assert_eq!(CertificateUrl::of_topic(&china, "https://sns.cn-north-1.amazonaws.com/a.pem"), None);
    }

    #[test]
    fn a_topic_has_a_region_an_account_and_a_name() {
        let topic: TopicArn = "arn:aws-us-gov:sns:us-gov-west-1:111122223333:a_b-c.fifo".parse().unwrap();
        assert_eq!((topic.region(), topic.host().as_str()), ("us-gov-west-1", "sns.us-gov-west-1.amazonaws.com"));
        for text in [
            "",
            "arn:aws:sns:eu-west-1:111122223333",
            "arn:aws:sqs:eu-west-1:111122223333:a",
            "arn:aws:sns:eu-west-1:1:a",
            "arn:aws:sns:evil.com/:111122223333:a",
            "arn:aws:sns::111122223333:a",
            "arn:aws:sns:eu-west-1:111122223333:a:b",
            "arn:aws:sns:eu-west-1:111122223333:",
            "arn:evil:sns:eu-west-1:111122223333:a",
        ] {
            assert_eq!(text.parse::<TopicArn>(), Err(TopicArnError), "{text}");
        }
    }
}
