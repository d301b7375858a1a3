//! SparkPost: `POST /api/v1/transmissions`, JSON with the mail as a string.

use super::{Answer, Ask, Driver, Meaning, Parcel, Reply, UNSTATED_WAIT};
use domain::BounceClass;
use serde_json::{Value, json};
use std::borrow::Cow;

pub(super) struct Sparkpost {
    key: String,
}

impl Sparkpost {
    pub(super) fn new(key: &str) -> Self {
        Self { key: key.to_owned() }
    }
}

impl Driver for Sparkpost {
    fn most(&self) -> usize {
        20 * 1024 * 1024
    }

    fn path(&self) -> &str {
        "/api/v1/transmissions"
    }

    fn body(&self, parcel: &Parcel<'_>) -> Result<(Cow<'static, str>, Vec<u8>), Answer> {
        let text = std::str::from_utf8(parcel.mime)
            .map_err(|_| Answer::unfit("the mail holds octets that are not UTF-8, which JSON cannot carry"))?;
        let mid = parcel.message.to_string();
        let body = json!({
            "recipients": [{ "address": { "email": parcel.recipient }, "metadata": { "mid": mid } }],
            "content": { "email_rfc822": text },
            // The mail is finished and signed: braces in it are no variables.
            "options": { "perform_substitutions": false },
        });
        Ok(("application/json".into(), body.to_string().into_bytes()))
    }

    fn sign(&self, _: &Ask<'_>) -> Vec<(&'static str, String)> {
        vec![("authorization", self.key.clone())]
    }

    fn id<'a>(&self, reply: &'a Reply<'_>) -> Option<&'a str> {
        reply.at("/results/id").as_str()
    }

    fn words<'a>(&self, json: &'a Value) -> Option<&'a str> {
        json["errors"][0]["message"].as_str()
    }

    fn judge(&self, reply: &Reply<'_>) -> Option<Meaning> {
        match reply.status {
            // It says yes to the request and no to its one recipient.
            200..=299 if *reply.at("/results/total_rejected_recipients") == 1 => {
                Some(Meaning::Refused(BounceClass::Uncategorized))
            }
            // The account's sending limit.
            420 => Some(Meaning::Busy(UNSTATED_WAIT)),
            _ => None,
        }
    }
}
