//! The providers that take a finished mail.

use super::{Answer, Asked, Taken, sigv4};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

/// `POST /v3/DOMAIN/messages.mime`: a form with `to`, variables, and the mail as a file.
pub(super) fn mailgun(domain: &str, key: &str, asked: &Asked<'_>) -> Result<(Taken, Answer), Answer> {
    let wrong = |text: &str| Answer::new(400, json!({ "message": text }));
    if asked.header("authorization") != format!("Basic {}", STANDARD.encode(format!("api:{key}"))) {
        return Err(Answer::new(401, "Forbidden"));
    }
    if asked.start != format!("POST /v3/{domain}/messages.mime HTTP/1.1") {
        return Err(Answer::new(404, json!({"message": "domain not found"})));
    }
    let boundary = asked.header("content-type").strip_prefix("multipart/form-data; boundary=");
    let boundary = boundary.ok_or_else(|| wrong("a form is wanted"))?;
    let (mut to, mut mid, mut mime) = (Vec::new(), None, None);
    let mut rest = asked.body.strip_prefix(format!("--{boundary}").as_bytes()).ok_or_else(|| wrong("no first part"))?;
    let end = format!("\r\n--{boundary}");
    while let Some(part) = rest.strip_prefix(b"\r\n") {
        let length = find(part, end.as_bytes()).ok_or_else(|| wrong("a part without end"))?;
        rest = &part[length + end.len()..];
        let split = find(&part[..length], b"\r\n\r\n").ok_or_else(|| wrong("a part without head"))?;
        let (head, data) = (String::from_utf8_lossy(&part[..split]), &part[split + 4..length]);
        let name = head.split("; name=\"").nth(1).and_then(|rest| rest.split('"').next());
        let text = || String::from_utf8_lossy(data).into_owned();
        match name.ok_or_else(|| wrong("a part without name"))? {
            "to" => to.push(text()),
            "v:mid" => mid = Some(text()),
            "message" if head.contains("; filename=\"") => mime = Some(data.to_vec()),
            other => return Err(wrong(&format!("{other} is not known here"))),
        }
    }
    if rest != b"--\r\n" {
        return Err(wrong("the form has no end"));
    }
    match (<[String; 1]>::try_from(to), mid, mime) {
        (Ok([recipient]), Some(mid), Some(mime)) if recipient.contains('@') && mime.len() <= 25 * 1024 * 1024 => {
            let answer = json!({"id": format!("<{mid}@{domain}>"), "message": "Queued. Thank you."});
            Ok((Taken { recipient, mid, mime }, Answer::new(200, answer)))
        }
        _ => Err(wrong("to, v:mid and a file message are wanted, each once")),
    }
}

/// `POST /api/v1/transmissions`: JSON with one recipient and the mail as a string.
pub(super) fn sparkpost(key: &str, asked: &Asked<'_>) -> Result<(Taken, Answer), Answer> {
    let error = |status: u16, text: &str, code: &str| {
        Answer::new(status, json!({"errors": [{"message": text, "description": text, "code": code}]}))
    };
    if asked.header("authorization") != key {
        return Err(error(401, "Unauthorized.", "1000"));
    }
    if asked.start != "POST /api/v1/transmissions HTTP/1.1" {
        return Err(error(404, "Resource not found", "1600"));
    }
    if !asked.is_json() {
        return Err(error(415, "Unsupported Media Type", "1300"));
    }
    let wrong = |text: &str| error(422, text, "1400");
    let json: Value = serde_json::from_slice(asked.body).map_err(|_| error(400, "Problems parsing request", "1100"))?;
    let (recipients, content) = (&json["recipients"], &json["content"]);
    if recipients.as_array().is_none_or(|all| all.len() != 1) || content.as_object().is_none_or(|all| all.len() != 1) {
        return Err(wrong("one recipient, and content.email_rfc822 alone, are wanted"));
    }
    // Else braces in the mail would be taken for variables.
    if json["options"]["perform_substitutions"] != false {
        return Err(wrong("substitution language syntax error"));
    }
    let one = &recipients[0];
    let (to, mid, mime) = (&one["address"]["email"], &one["metadata"]["mid"], &content["email_rfc822"]);
    let (Some(to), Some(mid), Some(mime)) = (to.as_str(), mid.as_str(), mime.as_str()) else {
        return Err(wrong("required field is missing"));
    };
    let taken = Taken { recipient: to.to_owned(), mid: mid.to_owned(), mime: mime.as_bytes().to_vec() };
    let answer = json!({"results": {"id": mid, "total_accepted_recipients": 1, "total_rejected_recipients": 0}});
    Ok((taken, Answer::new(200, answer)))
}

/// `POST /v2/email/outbound-emails`: JSON with one recipient and the mail in Base64.
pub(super) fn ses(region: &str, key_id: &str, secret: &str, asked: &Asked<'_>) -> Result<(Taken, Answer), Answer> {
    let error = |status: u16, kind: &str, text: &str| Answer {
        headers: format!("x-amzn-errortype: {kind}\r\n"),
        ..Answer::new(status, json!({ "message": text }))
    };
    if let Err(why) = sigv4::verify("ses", region, key_id, secret, asked) {
        return Err(error(403, "SignatureDoesNotMatch", &why));
    }
    if asked.start != "POST /v2/email/outbound-emails HTTP/1.1" {
        return Err(error(404, "NotFoundException", "no such operation"));
    }
    let wrong = |text: &str| error(400, "BadRequestException", text);
    let json: Value = serde_json::from_slice(asked.body).map_err(|_| wrong("no JSON"))?;
    let known = ["Destination", "Content", "EmailTags", "ConfigurationSetName", "FromEmailAddress"];
    if json.as_object().is_none_or(|all| all.keys().any(|key| !known.contains(&key.as_str()))) {
        return Err(wrong("a member is not known here"));
    }
    let to = json["Destination"]["ToAddresses"].as_array().filter(|all| all.len() == 1).and_then(|all| all[0].as_str());
    let recipient = to.filter(|to| to.contains('@')).ok_or_else(|| wrong("one address is wanted"))?;
    if !recipient.is_ascii() {
        return Err(wrong("Local address contains control or whitespace"));
    }
    let tags = json["EmailTags"].as_array().map_or(&[][..], Vec::as_slice);
    let mid = tags.iter().find(|tag| tag["Name"] == "mid").and_then(|tag| tag["Value"].as_str());
    let is_tag = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
    let mid = mid.filter(|mid| is_tag(mid) && mid.len() <= 256).ok_or_else(|| wrong("a tag mid is wanted"))?;
    let mime = json["Content"]["Raw"]["Data"].as_str().and_then(|data| STANDARD.decode(data).ok());
    let mime = mime.ok_or_else(|| wrong("Content.Raw.Data is wanted"))?;
    let taken = Taken { recipient: recipient.to_owned(), mid: mid.to_owned(), mime };
    Ok((taken, Answer::new(200, json!({ "MessageId": format!("0102-{mid}") }))))
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}
