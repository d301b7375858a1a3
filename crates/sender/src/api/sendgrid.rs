//! SendGrid: `POST /v3/mail/send`, the mail in its parts.

use super::{
    Answer, Ask, Driver, Meaning, Parcel, Reply,
    parts::{Mailbox, Parts, present, several},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use std::borrow::Cow;

pub(super) struct Sendgrid {
    authorization: String,
}

impl Sendgrid {
    pub(super) fn new(key: &str) -> Self {
        Self { authorization: format!("Bearer {key}") }
    }
}

impl Driver for Sendgrid {
    /// 30 MB for all of the request, in which files are in Base64.
    fn most(&self) -> usize {
        30_000_000
    }

    fn path(&self) -> &str {
        "/v3/mail/send"
    }

    fn body(&self, parcel: &Parcel<'_>) -> Result<(Cow<'static, str>, Vec<u8>), Answer> {
        let parts = Parts::of(parcel.mime, parcel.recipient)?;
        let text = parts.text.iter().map(|text| ("text/plain", text));
        let html = parts.html.iter().map(|html| ("text/html", html));
        let others = parts.others.iter().map(|other| (other.essence.as_str(), &other.text));
        let filled = text.chain(html).chain(others).filter(|(_, value)| !value.is_empty());
        let content: Vec<Value> = filled.map(|(kind, value)| json!({ "type": kind, "value": value })).collect();
        let files = parts.files.iter().map(|file| {
            present(json!({
                "content": STANDARD.encode(&file.data),
                "filename": file.name,
                "type": file.essence(),
                "disposition": if file.content_id.is_some() { "inline" } else { "attachment" },
                "content_id": file.content_id,
            }))
        });
        let headers = parts.single_headers()?;
        let body = present(json!({
            "personalizations": [{ "to": [mailbox(&parts.to)], "custom_args": { "mid": parcel.message.to_string() } }],
            "from": mailbox(&parts.from),
            "reply_to_list": several(parts.reply_to.iter().map(mailbox)),
            "subject": parts.subject,
            "content": content,
            "attachments": several(files),
            "headers": (!headers.is_empty()).then_some(headers),
        }));
        Ok(("application/json".into(), body.to_string().into_bytes()))
    }

    fn sign(&self, _: &Ask<'_>) -> Vec<(&'static str, String)> {
        vec![("authorization", self.authorization.clone())]
    }

    fn id<'a>(&self, reply: &'a Reply<'_>) -> Option<&'a str> {
        reply.headers.get("x-message-id")?.to_str().ok()
    }

    fn words<'a>(&self, json: &'a Value) -> Option<&'a str> {
        json["errors"][0]["message"].as_str()
    }

    fn judge(&self, reply: &Reply<'_>) -> Option<Meaning> {
        let words = || reply.json.as_ref().and_then(|json| self.words(json)).unwrap_or_default().to_ascii_lowercase();
        match reply.status {
            // The key is right; the address in From is none that the account may use.
            403 if words().contains("sender identity") => Some(Meaning::Unready),
            500 | 503 => Some(Meaning::Later),
            _ => None,
        }
    }
}

fn mailbox(mailbox: &Mailbox) -> Value {
    present(json!({ "email": mailbox.address, "name": mailbox.name }))
}
