//! Postmark: `POST /email`, the mail in its parts.

use super::{
    Answer, Ask, Driver, Meaning, Parcel, Reply,
    parts::{Mailbox, Parts, present, several},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use domain::BounceClass;
use serde_json::{Value, json};
use std::borrow::Cow;

/// Longest text, and longest HTML, in octets.
const MAX_BODY: usize = 5 * 1024 * 1024;

pub(super) struct Postmark {
    token: String,
    stream: Option<String>,
}

impl Postmark {
    pub(super) fn new(token: &str, stream: Option<String>) -> Self {
        Self { token: token.to_owned(), stream }
    }
}

impl Driver for Postmark {
    fn most(&self) -> usize {
        10 * 1024 * 1024
    }

    fn path(&self) -> &str {
        "/email"
    }

    fn body(&self, parcel: &Parcel<'_>) -> Result<(Cow<'static, str>, Vec<u8>), Answer> {
        let parts = Parts::of(parcel.mime, parcel.recipient)?.with_others_as_files()?;
        if [&parts.text, &parts.html].into_iter().flatten().any(|text| text.len() > MAX_BODY) {
            let text = format!("text or HTML is longer than the {MAX_BODY} octets that the provider takes");
            return Err(Answer::too_long(text));
        }
        let mut headers: Vec<Value> =
            parts.headers.iter().map(|(name, value)| json!({ "Name": name, "Value": value })).collect();
        // Ours is the Message-ID by which a second copy is known.
        headers.push(json!({ "Name": "X-PM-KeepID", "Value": "true" }));
        let reply_to: Vec<_> = parts.reply_to.iter().map(Mailbox::to_field).collect();
        let files = parts.files.iter().map(|file| {
            present(json!({
                "Name": file.name,
                "Content": STANDARD.encode(&file.data),
                "ContentType": file.content_type,
                "ContentID": file.content_id.as_ref().map(|id| format!("cid:{id}")),
            }))
        });
        let body = present(json!({
            "From": parts.from.to_field(),
            "To": parts.to.to_field(),
            "ReplyTo": (!reply_to.is_empty()).then(|| reply_to.join(", ")),
            "Subject": parts.subject,
            "TextBody": parts.text,
            "HtmlBody": parts.html,
            "Attachments": several(files),
            "Headers": headers,
            "Metadata": { "mid": parcel.message.to_string() },
            "MessageStream": self.stream,
        }));
        Ok(("application/json".into(), body.to_string().into_bytes()))
    }

    fn sign(&self, _: &Ask<'_>) -> Vec<(&'static str, String)> {
        vec![("x-postmark-server-token", self.token.clone()), ("accept", "application/json".to_owned())]
    }

    fn id<'a>(&self, reply: &'a Reply<'_>) -> Option<&'a str> {
        reply.at("/MessageID").as_str()
    }

    fn words<'a>(&self, json: &'a Value) -> Option<&'a str> {
        json["Message"].as_str()
    }

    fn judge(&self, reply: &Reply<'_>) -> Option<Meaning> {
        // Its codes look like those of HTTP and are not.
        let code = reply.at("/ErrorCode").as_u64().unwrap_or_default();
        Some(match (code, reply.status) {
            (100, _) | (_, 503) => Meaning::Later,
            (0, _) => return None,
            // No token, out of credits, account pending, account not allowed.
            (10 | 405 | 412 | 413, _) => Meaning::Closed,
            // The sender's signature, and the stream.
            (400 | 401 | 1235 | 1236, _) => Meaning::Unready,
            // The provider has the recipient among those that it does not mail.
            (406, _) => Meaning::Refused(BounceClass::InactiveMailbox),
            (_, 200 | 422) => Meaning::Refused(BounceClass::Uncategorized),
            _ => return None,
        })
    }
}
