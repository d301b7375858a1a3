//! Mails that came back, alone and in mailboxes.

use feedback::report::{Kind, Reader, Reading};
use serde_json::{Value, json};
use std::borrow::Cow;

/// The mails in a file: those of a mailbox (RFC 4155), or the one that it is.
pub fn split(content: &[u8]) -> impl Iterator<Item = Cow<'_, [u8]>> {
    let is_box = content.trim_ascii_start().starts_with(b"From ");
    let mut rest = if is_box { Some(content.trim_ascii_start()) } else { None };
    let mut alone = (!is_box).then_some(Cow::Borrowed(content));
    std::iter::from_fn(move || {
        if let Some(mail) = alone.take() {
            return Some(mail);
        }
        let open = rest.take()?;
        // Without the line that begins it.
        let body = &open[open.iter().position(|byte| *byte == b'\n').map_or(open.len(), |end| end + 1)..];
        let end = next_of(body);
        let (mail, next) = end.map_or((body, None), |end| (&body[..end], Some(&body[end..])));
        rest = next;
        Some(unquoted(mail))
    })
}

/// Where the next mail of a mailbox begins: a line `From ` after an empty one.
fn next_of(body: &[u8]) -> Option<usize> {
    let mut from = 0;
    while let Some(at) = find(&body[from..], b"\nFrom ") {
        let start = from + at + 1;
        let before = &body[..start - 1];
        if before.is_empty() || before.ends_with(b"\n") || before.ends_with(b"\n\r") {
            return Some(start);
        }
        from = start;
    }
    None
}

/// Lines that a mailbox quoted, `>From `, as they were.
fn unquoted(mail: &[u8]) -> Cow<'_, [u8]> {
    if find(mail, b"\n>From ").is_none() {
        return Cow::Borrowed(mail);
    }
    let mut plain = Vec::with_capacity(mail.len());
    let mut rest = mail;
    while let Some(at) = find(rest, b"\n>From ") {
        plain.extend_from_slice(&rest[..=at]);
        rest = &rest[at + 2..];
    }
    plain.extend_from_slice(rest);
    Cow::Owned(plain)
}

fn find(bytes: &[u8], part: &[u8]) -> Option<usize> {
    bytes.windows(part.len()).position(|window| window == part)
}

/// What a mail says: a value for each recipient, or one that names none.
pub fn told(reader: &Reader, file: &str, number: usize, mail: &[u8]) -> Vec<Value> {
    let place = |kind: &str| json!({"file": file, "mail": number + 1, "kind": kind});
    match reader.read(mail) {
        Ok(reading) => lines(&place(reading.kind.as_str()), &reading),
        Err(error) => {
            let mut told = place("error");
            for key in ["class", "recipient", "status", "action"] {
                told[key] = Value::Null;
            }
            told["error"] = json!(error.to_string());
            vec![told]
        }
    }
}

fn lines(place: &Value, reading: &Reading) -> Vec<Value> {
    let outcome = reading.outcome();
    let mut findings: Vec<Value> = outcome["findings"].as_array().cloned().unwrap_or_default();
    if findings.is_empty() {
        findings.push(json!({"recipient": null, "class": null, "status": null, "action": null}));
    }
    let complains = reading.kind == Kind::Complaint;
    let line = |finding: Value| {
        let mut line = place.clone();
        for from in [&finding, &outcome] {
            for (key, value) in from.as_object().into_iter().flatten().filter(|(key, _)| *key != "findings") {
                line[key] = value.clone();
            }
        }
        // A complaint has no class of failures; what it is stands in its place.
        if complains {
            line["class"] = json!("complaint");
        }
        line
    };
    findings.into_iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mailbox_holds_its_mails_and_a_quoted_line_is_none() {
        let mailbox = b"From a@b Thu Jan  1 00:00:00 2026\nSubject: one\n\nfirst\n>From here\nFrom nowhere\n\nFrom c@d Thu\r\nSubject: two\r\n\r\nsecond\r\n";
        let mails: Vec<String> =
            split(mailbox).map(|mail| String::from_utf8(mail.into_owned()).unwrap_or_default()).collect();
        assert_eq!(mails, ["Subject: one\n\nfirst\nFrom here\nFrom nowhere\n\n", "Subject: two\r\n\r\nsecond\r\n",]);
        assert_eq!(split(b"Subject: alone\n\nFrom x\n\nFrom y").count(), 1);
    }
}
