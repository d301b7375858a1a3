//! Amazon SES, version 2: `POST /v2/email/outbound-emails`, signed as AWS wants requests signed (Signature Version 4).

use super::{Answer, Ask, Driver, LONGEST_WAIT, Meaning, Parcel, Reply, UNSTATED_WAIT};
use aws_lc_rs::{
    digest::{SHA256, digest},
    hmac,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use domain::BounceClass;
use serde_json::{Value, json};
use std::borrow::Cow;

const PATH: &str = "/v2/email/outbound-emails";
const SIGNED: &str = "content-type;host;x-amz-date";

pub(super) struct Ses {
    region: String,
    key_id: String,
    secret: String,
    configuration_set: Option<String>,
}

impl Ses {
    pub(super) fn new(region: &str, key_id: &str, secret: &str, configuration_set: Option<String>) -> Self {
        Self {
            region: region.to_owned(),
            key_id: key_id.to_owned(),
            secret: format!("AWS4{secret}"),
            configuration_set,
        }
    }
}

impl Driver for Ses {
    /// 40 MB once it is in Base64.
    fn most(&self) -> usize {
        30 * 1024 * 1024
    }

    fn path(&self) -> &str {
        PATH
    }

    fn body(&self, parcel: &Parcel<'_>) -> Result<(Cow<'static, str>, Vec<u8>), Answer> {
        if !parcel.recipient.is_ascii() {
            return Err(Answer::unfit("Amazon SES takes addresses of ASCII alone"));
        }
        let mut body = json!({
            "Destination": { "ToAddresses": [parcel.recipient] },
            "Content": { "Raw": { "Data": STANDARD.encode(parcel.mime) } },
            "EmailTags": [{ "Name": "mid", "Value": parcel.message.to_string() }],
        });
        if let Some(set) = &self.configuration_set {
            body["ConfigurationSetName"] = json!(set);
        }
        Ok(("application/json".into(), body.to_string().into_bytes()))
    }

    fn sign(&self, ask: &Ask<'_>) -> Vec<(&'static str, String)> {
        let (date, time) = (ask.now.format("%Y%m%d").to_string(), ask.now.format("%Y%m%dT%H%M%SZ").to_string());
        let scope = format!("{date}/{}/ses/aws4_request", self.region);
        let hash = |octets: &[u8]| hex::encode(digest(&SHA256, octets));
        let canonical = format!(
            "POST\n{PATH}\n\ncontent-type:{}\nhost:{}\nx-amz-date:{time}\n\n{SIGNED}\n{}",
            ask.content_type,
            ask.authority,
            hash(ask.body),
        );
        let text = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{}", hash(canonical.as_bytes()));
        let mac = |key: &[u8], text: &str| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes());
        let key = [date.as_str(), &self.region, "ses", "aws4_request"]
            .iter()
            .fold(self.secret.clone().into_bytes(), |key, part| mac(&key, part).as_ref().to_vec());
        let signature = hex::encode(mac(&key, &text));
        let authorization = format!(
            "AWS4-HMAC-SHA256 Credential={}/{scope}, SignedHeaders={SIGNED}, Signature={signature}",
            self.key_id
        );
        vec![("x-amz-date", time), ("authorization", authorization)]
    }

    fn id<'a>(&self, reply: &'a Reply<'_>) -> Option<&'a str> {
        reply.at("/MessageId").as_str()
    }

    fn words<'a>(&self, json: &'a Value) -> Option<&'a str> {
        json["message"].as_str().or_else(|| json["Message"].as_str())
    }

    fn judge(&self, reply: &Reply<'_>) -> Option<Meaning> {
        let header = reply.headers.get("x-amzn-errortype").and_then(|value| value.to_str().ok());
        let kind = header.or_else(|| reply.at("/__type").as_str()).unwrap_or_default();
        // Either may bear a namespace before the name, or an address after it.
        let kind = kind.split(':').next().unwrap_or_default().rsplit('#').next().unwrap_or_default();
        let words = reply.json.as_ref().and_then(|json| self.words(json)).unwrap_or_default().to_ascii_lowercase();
        Some(match (kind, reply.status) {
            ("TooManyRequestsException" | "ThrottlingException" | "Throttling" | "LimitExceededException", _) => {
                Meaning::Busy(if words.contains("daily") { LONGEST_WAIT } else { UNSTATED_WAIT })
            }
            ("AccountSuspendedException" | "SendingPausedException", _) => Meaning::Closed,
            // The identity, or the configuration set.
            ("MailFromDomainNotVerifiedException" | "NotFoundException", _) => Meaning::Unready,
            ("MessageRejected" | "MessageRejectedException", _) if words.contains("not verified") => Meaning::Unready,
            ("MessageRejected" | "MessageRejectedException", _) => Meaning::Refused(BounceClass::ContentRelated),
            // Signed at another time than its own: the clock may be set right again.
            (_, 403) if words.contains("expired") => Meaning::Later,
            (_, 500 | 503) => Meaning::Later,
            _ => return None,
        })
    }
}
