//! Resend: `POST /emails`, the mail in its parts.

use super::{
    Answer, Ask, Driver, LONGEST_WAIT, Meaning, Parcel, Reply, UNSTATED_WAIT,
    parts::{Parts, present, several},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use std::borrow::Cow;

pub(super) struct Resend {
    authorization: String,
}

impl Resend {
    pub(super) fn new(key: &str) -> Self {
        Self { authorization: format!("Bearer {key}") }
    }
}

impl Driver for Resend {
    /// 40 MB with files in Base64.
    fn most(&self) -> usize {
        40_000_000
    }

    fn path(&self) -> &str {
        "/emails"
    }

    fn body(&self, parcel: &Parcel<'_>) -> Result<(Cow<'static, str>, Vec<u8>), Answer> {
        let parts = Parts::of(parcel.mime, parcel.recipient)?.with_others_as_files()?;
        let files = parts.files.iter().map(|file| {
            present(json!({
                "content": STANDARD.encode(&file.data),
                "filename": file.name,
                "content_type": file.content_type,
                "content_id": file.content_id,
            }))
        });
        let body = present(json!({
            "from": parts.from.to_field(),
            "to": [parcel.recipient],
            "reply_to": several(parts.reply_to.iter().map(|mailbox| mailbox.to_field().into())),
            "subject": parts.subject,
            "text": parts.text,
            "html": parts.html,
            "attachments": several(files),
            "headers": parts.single_headers()?,
            "tags": [{ "name": "mid", "value": parcel.message.to_string() }],
        }));
        Ok(("application/json".into(), body.to_string().into_bytes()))
    }

    fn sign(&self, ask: &Ask<'_>) -> Vec<(&'static str, String)> {
        // A second copy within a day goes to nobody.
        vec![("authorization", self.authorization.clone()), ("idempotency-key", ask.message.to_string())]
    }

    fn id<'a>(&self, reply: &'a Reply<'_>) -> Option<&'a str> {
        reply.at("/id").as_str()
    }

    fn words<'a>(&self, json: &'a Value) -> Option<&'a str> {
        json["message"].as_str()
    }

    fn judge(&self, reply: &Reply<'_>) -> Option<Meaning> {
        let name = reply.at("/name").as_str().unwrap_or_default();
        Some(match (name, reply.status) {
            ("daily_quota_exceeded" | "monthly_quota_exceeded", _) => Meaning::Busy(LONGEST_WAIT),
            ("rate_limit_exceeded", _) => Meaning::Busy(UNSTATED_WAIT),
            // An address in From whose domain is not set up there, or a field that is wrong.
            ("validation_error", 403) => Meaning::Unready,
            ("concurrent_idempotent_requests", _) => Meaning::Later,
            // It has had this message before, in other words.
            ("invalid_idempotent_request", _) => Meaning::Doubt,
            (_, 500 | 503) => Meaning::Later,
            _ => return None,
        })
    }
}
