//! The providers that take a mail in its parts. What was taken is the request's JSON.

use super::{Answer, Asked, Taken};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

fn is_mailbox(text: &str) -> bool {
    let address = text.rsplit('<').next().unwrap_or_default().trim_end_matches('>');
    address.split_once('@').is_some_and(|(local, domain)| !local.is_empty() && !domain.is_empty())
}

/// The sender whom no account here may send as.
fn is_stranger(from: &str) -> bool {
    from.contains("stranger@")
}

fn is_filled(value: &Value) -> bool {
    value.as_str().is_some_and(|text| !text.is_empty())
}

fn is_base64(value: &Value) -> bool {
    is_filled(value) && STANDARD.decode(value.as_str().unwrap_or_default()).is_ok()
}

/// The members of an array; none where there is none.
fn all(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// `POST /v3/mail/send`.
pub(super) fn sendgrid(key: &str, asked: &Asked<'_>) -> Result<(Taken, Answer), Answer> {
    let error = |status: u16, field: &str, text: &str| {
        Answer::new(status, json!({"errors": [{"message": text, "field": field, "help": null}]}))
    };
    if asked.header("authorization") != format!("Bearer {key}") {
        return Err(error(401, "", "The provided authorization grant is invalid, expired, or revoked"));
    }
    if asked.start != "POST /v3/mail/send HTTP/1.1" {
        return Err(error(404, "", "Not Found"));
    }
    if !asked.is_json() {
        return Err(error(415, "", "Content-Type should be application/json."));
    }
    let wrong = |field: &str, text: &str| error(400, field, text);
    let json: Value = serde_json::from_slice(asked.body).map_err(|_| wrong("", "Bad Request"))?;
    let [one] = all(&json["personalizations"]) else {
        return Err(wrong("personalizations", "one is wanted here"));
    };
    let [to] = all(&one["to"]) else {
        return Err(wrong("personalizations.0.to", "one recipient is wanted here"));
    };
    let is_address = |value: &Value| value["email"].as_str().is_some_and(is_mailbox);
    if !is_address(to) || !is_address(&json["from"]) || json["from"]["email"].as_str().is_some_and(is_stranger) {
        let text = "The from address does not match a verified Sender Identity.";
        return Err(error(403, "from", text));
    }
    if !is_filled(&json["subject"]) {
        return Err(wrong("subject", "The subject is required."));
    }
    let rank = |kind: &str| match kind {
        "text/plain" => 0,
        "text/html" => 1,
        _ => 2,
    };
    let kinds: Vec<&str> = all(&json["content"]).iter().filter_map(|part| part["type"].as_str()).collect();
    let is_content = |part: &Value| is_filled(&part["value"]) && is_filled(&part["type"]);
    if kinds.is_empty() || !all(&json["content"]).iter().all(is_content) {
        return Err(wrong("content", "a type and a value are wanted"));
    }
    if !kinds.is_sorted_by_key(|kind| rank(kind)) || kinds.iter().any(|kind| kind.contains([';', '\r', '\n'])) {
        return Err(wrong("content", "text/plain first, then text/html, then others, without parameters"));
    }
    let refused = "x-sg-id x-sg-eid received dkim-signature content-type content-transfer-encoding to from subject \
                   reply-to cc bcc";
    for (name, value) in json["headers"].as_object().into_iter().flatten() {
        if refused.split(' ').any(|refused| refused.eq_ignore_ascii_case(name)) || !value.is_string() {
            return Err(wrong("headers", "this field is reserved, or no string"));
        }
    }
    for file in all(&json["attachments"]) {
        let kind = file["type"].as_str().unwrap_or_default();
        if !is_base64(&file["content"]) || !is_filled(&file["filename"]) || kind.contains(';') {
            return Err(wrong("attachments", "content in Base64 and a filename are wanted"));
        }
    }
    if json.get("reply_to").is_some() && json.get("reply_to_list").is_some() {
        return Err(wrong("reply_to", "this is not allowed beside reply_to_list"));
    }
    let given = one["custom_args"].as_object().or(json["custom_args"].as_object());
    let is_text = given.is_some_and(|given| given.values().all(Value::is_string));
    let mid = given.filter(|_| is_text).and_then(|given| given["mid"].as_str());
    let mid = mid.ok_or_else(|| wrong("custom_args", "mid is wanted here, a string"))?.to_owned();
    let recipient = to["email"].as_str().unwrap_or_default().to_owned();
    let answer = Answer { headers: format!("x-message-id: sg-{mid}\r\n"), ..Answer::new(202, "") };
    Ok((Taken { recipient, mid, mime: asked.body.to_vec() }, answer))
}

/// `POST /email`.
pub(super) fn postmark(token: &str, asked: &Asked<'_>) -> Result<(Taken, Answer), Answer> {
    let error = |status: u16, code: u16, text: &str| Answer::new(status, json!({"ErrorCode": code, "Message": text}));
    if asked.header("x-postmark-server-token") != token {
        return Err(error(401, 10, "No Account or Server API tokens were supplied"));
    }
    if !matches!(asked.start, "POST /email HTTP/1.1" | "POST /email/ HTTP/1.1") {
        return Err(error(404, 0, "not found"));
    }
    if !asked.is_json() || !asked.header("accept").contains("application/json") {
        return Err(error(415, 0, "application/json is wanted, and accepted"));
    }
    let wrong = |text: &str| error(422, 300, text);
    let json: Value = serde_json::from_slice(asked.body).map_err(|_| error(422, 402, "Invalid JSON"))?;
    let address = |name: &str| {
        let text = json[name].as_str().filter(|text| is_mailbox(text) && !text.contains(['\r', '\n']));
        text.ok_or_else(|| wrong(&format!("Invalid '{name}' address")))
    };
    if is_stranger(address("From")?) {
        return Err(error(422, 400, "The 'From' address you supplied is not a Sender Signature on your account."));
    }
    let recipient = address("To")?;
    let recipient = recipient.rsplit('<').next().unwrap_or_default().trim_end_matches('>').to_owned();
    if recipient.starts_with("inactive@") {
        return Err(error(422, 406, "You tried to send to a recipient that has been marked as inactive."));
    }
    if !is_filled(&json["TextBody"]) && !is_filled(&json["HtmlBody"]) {
        return Err(wrong("Provide either email TextBody or HtmlBody or both."));
    }
    let is_pair = |one: &Value| one["Name"].is_string() && one["Value"].is_string();
    if !all(&json["Headers"]).iter().all(is_pair) {
        return Err(wrong("a header is a Name and a Value"));
    }
    let is_file = |one: &Value| is_filled(&one["Name"]) && is_base64(&one["Content"]) && is_filled(&one["ContentType"]);
    let is_cid =
        |one: &Value| one["ContentID"].is_null() || one["ContentID"].as_str().is_some_and(|id| id.starts_with("cid:"));
    if !all(&json["Attachments"]).iter().all(|one| is_file(one) && is_cid(one)) {
        return Err(wrong("an attachment has Name, Content in Base64, ContentType, and a ContentID of cid:"));
    }
    let mid = json["Metadata"]["mid"].as_str().ok_or_else(|| wrong("Metadata.mid is wanted here"))?.to_owned();
    let answer = json!({
        "To": json["To"], "SubmittedAt": "2026-01-02T03:04:05Z", "MessageID": mid, "ErrorCode": 0, "Message": "OK",
    });
    Ok((Taken { recipient, mid, mime: asked.body.to_vec() }, Answer::new(200, answer)))
}

/// `POST /emails`.
pub(super) fn resend(key: &str, asked: &Asked<'_>) -> Result<(Taken, Answer), Answer> {
    let error = |status: u16, name: &str, text: &str| {
        Answer::new(status, json!({"statusCode": status, "name": name, "message": text}))
    };
    if asked.header("authorization") != format!("Bearer {key}") {
        return Err(error(403, "invalid_api_key", "API key is invalid"));
    }
    if asked.start != "POST /emails HTTP/1.1" {
        return Err(error(404, "not_found", "The requested endpoint does not exist"));
    }
    let wrong = |text: &str| error(422, "validation_error", text);
    let json: Value = serde_json::from_slice(asked.body).map_err(|_| wrong("no JSON"))?;
    if !json["from"].as_str().is_some_and(is_mailbox) || !is_filled(&json["subject"]) {
        return Err(wrong("Missing `from` or `subject` field."));
    }
    if json["from"].as_str().is_some_and(is_stranger) {
        return Err(error(403, "validation_error", "The domain is not verified."));
    }
    let to = match &json["to"] {
        Value::Array(several) if several.len() == 1 => several[0].as_str(),
        one => one.as_str(),
    };
    let recipient = to.filter(|to| is_mailbox(to)).ok_or_else(|| wrong("one `to` is wanted here"))?.to_owned();
    if !is_filled(&json["text"]) && !is_filled(&json["html"]) {
        return Err(wrong("Missing `html` or `text` field."));
    }
    if json["headers"].as_object().is_some_and(|all| !all.values().all(Value::is_string)) {
        return Err(wrong("headers are strings"));
    }
    if !all(&json["attachments"]).iter().all(|one| is_filled(&one["filename"]) && is_base64(&one["content"])) {
        return Err(wrong("an attachment has filename, and content in Base64"));
    }
    let is_tag = |value: &Value| {
        let is_plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
        value.as_str().is_some_and(|text| !text.is_empty() && text.len() <= 256 && is_plain(text))
    };
    let tags = all(&json["tags"]);
    if !tags.iter().all(|tag| is_tag(&tag["name"]) && is_tag(&tag["value"])) {
        return Err(wrong("Tags should only contain ASCII letters, numbers, underscores, or dashes."));
    }
    let mid = tags.iter().find(|tag| tag["name"] == "mid").and_then(|tag| tag["value"].as_str());
    let mid = mid.ok_or_else(|| wrong("a tag mid is wanted here"))?.to_owned();
    if asked.header("idempotency-key").len() > 256 {
        return Err(error(400, "invalid_idempotency_key", "The key must be between 1-256 chars."));
    }
    let answer = Answer::new(200, json!({ "id": mid }));
    Ok((Taken { recipient, mid, mime: asked.body.to_vec() }, answer))
}
