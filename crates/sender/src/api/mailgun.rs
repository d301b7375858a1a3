//! Mailgun: `POST /v3/DOMAIN/messages.mime`, a form with the mail as a file.

use super::{Answer, Ask, Driver, Meaning, Parcel, Reply};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::Value;
use std::borrow::Cow;

pub(super) struct Mailgun {
    path: String,
    authorization: String,
}

impl Mailgun {
    pub(super) fn new(domain: &str, key: &str) -> Self {
        let authorization = format!("Basic {}", STANDARD.encode(format!("api:{key}")));
        Self { path: format!("/v3/{domain}/messages.mime"), authorization }
    }
}

impl Driver for Mailgun {
    fn most(&self) -> usize {
        25 * 1024 * 1024
    }

    fn path(&self) -> &str {
        &self.path
    }

    fn body(&self, parcel: &Parcel<'_>) -> Result<(Cow<'static, str>, Vec<u8>), Answer> {
        // A message's id is made after its content is known, and most of it is random: no content holds it.
        let boundary = format!("mailfleet-{}", parcel.message);
        let body = form(&boundary, parcel);
        Ok((format!("multipart/form-data; boundary={boundary}").into(), body))
    }

    fn sign(&self, _: &Ask<'_>) -> Vec<(&'static str, String)> {
        vec![("authorization", self.authorization.clone())]
    }

    fn id<'a>(&self, reply: &'a Reply<'_>) -> Option<&'a str> {
        reply.at("/id").as_str()
    }

    fn words<'a>(&self, json: &'a Value) -> Option<&'a str> {
        json["message"].as_str()
    }

    fn judge(&self, reply: &Reply<'_>) -> Option<Meaning> {
        matches!(reply.status, 500 | 503).then_some(Meaning::Later)
    }
}

/// A form with the mail as a file (RFC 7578).
fn form(boundary: &str, parcel: &Parcel<'_>) -> Vec<u8> {
    let field = |name: &str, value: &str| {
        format!("--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
    };
    let file = format!(
        "--{boundary}\r\nContent-Disposition: form-data; name=\"message\"; filename=\"message.eml\"\r\n\
         Content-Type: message/rfc822\r\n\r\n"
    );
    let (to, mid) = (field("to", parcel.recipient), field("v:mid", &parcel.message.to_string()));
    let end = format!("\r\n--{boundary}--\r\n");
    [to.as_bytes(), mid.as_bytes(), file.as_bytes(), parcel.mime, end.as_bytes()].concat()
}
