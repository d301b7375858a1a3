//! Files that go along with a mail: what may be one, and how it travels.
//!
//! A file is encoded once, when its content is prepared, and copied into every recipient's mail. Its name is
//! encoded by lettre (RFC 2231), as its disposition is (RFC 2183).

use crate::mime::{base64_lines_into, base64_octets};
use crate::{Body, Finding, Limits, MailSource, header};
use domain::ContentId;
use lettre::message::header::{ContentDisposition, Headers};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;

/// Longest file name, in octets.
const MAX_FILE_NAME: usize = 255;
/// Longest media type with its parameters, in characters.
const MAX_TYPE: usize = 200;
/// Longest Content-ID, in characters.
const MAX_CONTENT_ID: usize = 120;
/// What the header and the signatures of a mail take, when its size is estimated.
const HEADER_OCTETS: u64 = 16 * 1024;
/// What the header of a part and its boundary take at most, besides the name's encoded form.
const PART_OCTETS: u64 = 1_024;
/// The type of a file of which nothing else is said.
const UNKNOWN: &str = "application/octet-stream";

/// A file that goes along with a mail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attachment {
    /// The content that holds its octets.
    pub content: ContentId,
    /// How many there are.
    pub octets: u64,
    /// Its name; may be empty when the HTML part shows it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub file_name: String,
    /// Its media type with parameters; empty for one that is not known.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub content_type: String,
    /// Under which name the HTML part shows it: `cid:NAME`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_id: Option<String>,
}

impl MailSource {
    /// About how many octets the finished mail has, as far as it can be told without its template: files as they
    /// travel, parts as they were written, and a header.
    pub fn estimated_octets(&self) -> u64 {
        let files: u64 = self.attachments.iter().map(|file| base64_octets(file.octets) + PART_OCTETS).sum();
        let parts = match &self.body {
            Body::Inline { html, text, .. } => [html, text].into_iter().flatten().map(|part| part.len() as u64).sum(),
            Body::Template { .. } | Body::Raw { .. } => 0,
        };
        files + parts + HEADER_OCTETS
    }

    pub(crate) fn files(&self, limits: &Limits, findings: &mut Vec<Finding>) {
        if self.attachments.is_empty() {
            return;
        }
        if matches!(self.body, Body::Raw { .. }) {
            let fix = "write them into the mail's own body";
            findings.push(Finding::new("attachments", "cannot stand beside a finished mail", fix));
        }
        if self.attachments.len() > limits.max_attachments {
            let fix = format!("give at most {}", limits.max_attachments);
            findings.push(Finding::new("attachments", format!("has {} files", self.attachments.len()), fix));
            return;
        }
        let mut shown = HashSet::new();
        for (index, file) in self.attachments.iter().enumerate() {
            let path = |part: &str| format!("attachments[{index}].{part}");
            let mut fault = |part, problem: &str, fix: &str| findings.push(Finding::new(path(part), problem, fix));
            if file.octets == 0 {
                fault("data", "is empty", "give the file's octets, or leave it out");
            } else if file.octets > limits.max_attachment_bytes as u64 {
                fault("data", "is too large", &format!("keep it within {} octets", limits.max_attachment_bytes));
            }
            if let Some(problem) = file_name_problem(&file.file_name, file.content_id.is_some()) {
                fault("file_name", problem, "give a plain file name of at most 255 octets, such as invoice.pdf");
            }
            if let Err(problem) = media_type(&file.content_type) {
                fault("content_type", problem, "give a type such as application/pdf, or leave it out");
            }
            let Some(id) = &file.content_id else { continue };
            if !is_content_id(id) {
                let fix = "give 1 to 120 characters of a-z, A-Z, 0-9, dot, underscore, hyphen, plus and @";
                fault("content_id", "is no name that the HTML part could show it under", fix);
            } else if !shown.insert(id) {
                fault("content_id", "is the name of an earlier file as well", "give each its own");
            }
        }
    }
}

fn file_name_problem(name: &str, is_shown: bool) -> Option<&'static str> {
    if name.is_empty() {
        return (!is_shown).then_some("is missing");
    }
    if name.len() > MAX_FILE_NAME {
        return Some("is too long");
    }
    if name.contains(['/', '\\']) || matches!(name, "." | "..") || name.trim() != name {
        return Some("is a path, or begins or ends with a blank");
    }
    if name.contains('\t') { Some("holds a control character") } else { header::name_problem(name) }
}

fn is_token(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`{|}~".contains(&byte);
    !text.is_empty() && text.bytes().all(plain)
}

/// A media type as it stands in `Content-Type` (RFC 2045, 5.1): type, subtype, and parameters whose values are
/// tokens, or quoted without escapes.
fn media_type(text: &str) -> Result<String, &'static str> {
    if text.is_empty() {
        return Ok(UNKNOWN.to_owned());
    }
    if text.len() > MAX_TYPE {
        return Err("is too long");
    }
    let mut pieces = text.split(';').map(str::trim);
    let essence = pieces.next().unwrap_or_default().to_ascii_lowercase();
    match essence.split_once('/') {
        // Their parts may not be encoded (RFC 2045, 6.4), and a reader would take them for parts of this mail.
        Some(("multipart" | "message", _)) => return Err("is a type that only whole mails have"),
        Some((kind, subtype)) if is_token(kind) && is_token(subtype) => {}
        _ => return Err("is no media type"),
    }
    let mut out = essence;
    for piece in pieces {
        let (name, value) = piece.split_once('=').ok_or("has a parameter that is not NAME=VALUE")?;
        let inner = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
        let is_quotable = |text: &str| text.bytes().all(|byte| matches!(byte, b' '..=b'~') && !b"\"\\".contains(&byte));
        if !is_token(name) || !(is_token(value) || inner.len() < value.len() && is_quotable(inner)) {
            return Err("has a parameter that is not NAME=VALUE");
        }
        if ["name", "boundary"].iter().any(|ours| name.eq_ignore_ascii_case(ours)) {
            return Err("has a parameter that mailfleet sets itself");
        }
        out.push_str(&format!("; {}=\"{inner}\"", name.to_ascii_lowercase()));
    }
    Ok(out)
}

fn is_content_id(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-+@".contains(&byte);
    (1..=MAX_CONTENT_ID).contains(&text.len()) && text.bytes().all(plain)
}

/// The files of a mail as parts of its body: header fields, an empty line and the octets, without a final CRLF.
#[derive(Default)]
pub(crate) struct Files {
    /// Those that the HTML part shows.
    pub(crate) shown: Vec<Vec<u8>>,
    /// The others.
    pub(crate) attached: Vec<Vec<u8>>,
}

impl Files {
    /// Encodes what the source names; it has been validated.
    pub(crate) fn new<'a>(files: impl Iterator<Item = (&'a Attachment, &'a [u8])>) -> Self {
        let mut all = Self::default();
        for (file, octets) in files {
            let place = if file.content_id.is_some() { &mut all.shown } else { &mut all.attached };
            place.push(part(file, octets));
        }
        all
    }

    /// As parts of a body.
    pub(crate) fn octets(&self) -> usize {
        self.shown.iter().chain(&self.attached).map(Vec::len).sum()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.shown.is_empty() && self.attached.is_empty()
    }
}

fn part(file: &Attachment, octets: &[u8]) -> Vec<u8> {
    let media_type = media_type(&file.content_type).unwrap_or_else(|_| UNKNOWN.to_owned());
    let mut disposition = Headers::new();
    disposition.set(match (&file.content_id, file.file_name.as_str()) {
        (Some(_), "") => ContentDisposition::inline(),
        (Some(_), name) => ContentDisposition::inline_with_name(name),
        (None, name) => ContentDisposition::attachment(name),
    });
    let mut head = format!("Content-Type: {media_type}\r\n{disposition}Content-Transfer-Encoding: base64\r\n");
    if let Some(id) = &file.content_id {
        head.push_str(&format!("Content-ID: <{id}>\r\n"));
    }
    head.push_str("\r\n");
    let mut out = Vec::with_capacity(head.len() + usize::try_from(base64_octets(octets.len() as u64)).unwrap_or(0));
    out.extend_from_slice(head.as_bytes());
    base64_lines_into(octets, &mut out);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_media_type_is_strict() {
        for (given, written) in [
            ("", "application/octet-stream"),
            ("image/PNG", "image/png"),
            ("text/calendar; method=REQUEST;charset=utf-8", "text/calendar; method=\"REQUEST\"; charset=\"utf-8\""),
            ("application/x; a=\"b c\"", "application/x; a=\"b c\""),
        ] {
            assert_eq!(media_type(given).as_deref(), Ok(written));
        }
        for bad in [
            "png",
            "image/",
            "/png",
            "image/png\r\nBcc: x@y.test",
            "image/png; name=x",
            "image/png; a",
            "image/png; a=\"b\"c\"",
            "image/png; a=b c",
            "image/p\u{e4}ng",
            "multipart/mixed",
            "message/rfc822",
            &format!("a/{}", "b".repeat(200)),
        ] {
            assert!(media_type(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_file_name_is_one_name_and_hides_nothing() {
        for good in ["a.pdf", "Rechnung M\u{e4}rz.pdf", "\u{6f22}\u{5b57}.txt", "a \"b\".txt"] {
            assert_eq!(file_name_problem(good, false), None, "{good}");
        }
        let long = "x".repeat(256);
        for bad in ["", "../a", "a\\b", "..", " a", "a\r\nX: y", "a\tb", "gpj.\u{202e}exe", "a\u{2066}b", long.as_str()]
        {
            assert!(file_name_problem(bad, false).is_some(), "{bad:?}");
        }
        assert_eq!(file_name_problem("", true), None);
    }
}
