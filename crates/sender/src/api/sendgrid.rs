//! SendGrid: `POST /v3/mail/send`, the mail in its parts.

use super::{
    Answer, Ask, Driver, Meaning, Parcel, Reply,
    parts::{Mailbox, Parts},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Map, Value, json};
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
        let mut content: Vec<Value> = Vec::new();
        let mut add = |kind: &str, value: &str| {
            if !value.is_empty() {
                content.push(json!({ "type": kind, "value": value }));
            }
        };
        add("text/plain", parts.text.as_deref().unwrap_or_default());
        add("text/html", parts.html.as_deref().unwrap_or_default());
        for other in &parts.others {
            add(&other.essence, &other.text);
        }
        if content.is_empty() {
            return Err(Answer::unfit("the mail has no text, which SendGrid's API wants"));
        }
        let mut to = mailbox(&parts.to);
        let files = parts.files.iter().map(|file| {
            let mut entry = json!({
                "content": STANDARD.encode(&file.data),
                "filename": file.name,
                "type": file.essence(),
                "disposition": if file.content_id.is_some() { "inline" } else { "attachment" },
            });
            if let Some(id) = &file.content_id {
                entry["content_id"] = json!(id);
            }
            entry
        });
        let mut body = json!({
            "personalizations": [{ "to": [to.take()], "custom_args": { "mid": parcel.message.to_string() } }],
            "from": mailbox(&parts.from),
            "subject": parts.subject,
            "content": content,
        });
        if !parts.headers.is_empty() {
            body["headers"] = Value::Object(parts.single_headers()?);
        }
        if !parts.files.is_empty() {
            body["attachments"] = files.collect();
        }
        match &parts.reply_to[..] {
            [] => {}
            [one] => body["reply_to"] = mailbox(one),
            several => body["reply_to_list"] = several.iter().map(mailbox).collect(),
        }
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
    let mut object = Map::new();
    object.insert("email".to_owned(), json!(mailbox.address));
    if let Some(name) = &mailbox.name {
        object.insert("name".to_owned(), json!(name));
    }
    Value::Object(object)
}
