//! Raw MIME: a whole mail that somebody else built.
//!
//! It is sent as it is, but for what delivery needs: strict line ends, no field that names other recipients
//! or another transport, Message-ID and Date when it has none, and a `From` that is the accepted one.

use crate::dkim::BodyHash;
use crate::header::{Fields, is_field_name};
use crate::{Finding, Limits, MailSource};
use bytes::Bytes;
use domain::Mailbox;

/// Longest line in octets, without CRLF (RFC 5322, 2.1.1).
const MAX_LINE: usize = 998;
/// Most header fields taken.
const MAX_FIELDS: usize = 500;

/// Fields of which there may be one (RFC 5322, 3.6; RFC 2045, 3). Two of them are read differently by
/// filter and reader.
const ONCE: [&str; 13] = [
    "From",
    "Sender",
    "Reply-To",
    "To",
    "Cc",
    "Message-ID",
    "In-Reply-To",
    "References",
    "Subject",
    "Date",
    "MIME-Version",
    "Content-Type",
    "Content-Transfer-Encoding",
];

/// A raw mail, checked and ready to be signed.
pub(crate) struct RawMail {
    pub(crate) fields: Fields,
    pub(crate) body: Bytes,
    /// The body is everybody's, so its hash is taken once.
    pub(crate) body_hash: BodyHash,
    /// Whether the body has octets above 127, so that it needs 8BITMIME (RFC 6152).
    pub(crate) eight_bit: bool,
}

impl RawMail {
    pub(crate) fn parse(raw: &Bytes, source: &MailSource, limits: &Limits) -> Result<Self, Finding> {
        if raw.len() > limits.max_message_bytes {
            let fix = format!("keep it within {} octets", limits.max_message_bytes);
            return Err(Finding::new("raw", "is too large", fix));
        }
        if let Some(at) = raw.iter().position(|byte| *byte == 0) {
            let fix = "encode binary parts in base64";
            return Err(Finding::new("raw", "holds a NUL", fix).at(Some(line_of(raw, at))));
        }
        let mail = strict_lines(raw);
        let mut at = 0;
        for line in mail.split_inclusive(|byte| *byte == b'\n') {
            if line.len() > MAX_LINE + 2 {
                let fix = "encode long lines in quoted-printable or base64, and fold header fields";
                let problem = format!("has a line of {} octets; {MAX_LINE} are allowed", line.len() - 2);
                return Err(Finding::new("raw", problem, fix).at(Some(line_of(&mail, at))));
            }
            at += line.len();
        }
        let (fields, end) = header(&mail, source)?;
        let body = mail.slice(end..);
        let from = from_of(&fields)?;
        if from != source.from.mailbox {
            let fix = "send from the address that the From field shows";
            return Err(Finding::new("raw", "has another From than the call's", fix));
        }
        Ok(Self { fields, body_hash: BodyHash::of(&body), eight_bit: !body.is_ascii(), body })
    }
}

/// The mail with every line ended by CRLF; the same octets when they are strict already.
fn strict_lines(raw: &Bytes) -> Bytes {
    let mut previous = 0;
    let mut is_strict = raw.ends_with(b"\r\n");
    for (index, byte) in raw.iter().enumerate() {
        is_strict &= (*byte == b'\n') == (previous == b'\r') || index == 0 && *byte != b'\n';
        previous = *byte;
    }
    if is_strict {
        return raw.clone();
    }
    let mut out = Vec::with_capacity(raw.len() + raw.len() / 32 + 2);
    let mut rest = &raw[..];
    while !rest.is_empty() {
        let end = rest.iter().position(|byte| matches!(byte, b'\r' | b'\n')).unwrap_or(rest.len());
        out.extend_from_slice(&rest[..end]);
        out.extend_from_slice(b"\r\n");
        let skip = if rest[end..].starts_with(b"\r\n") { 2 } else { 1 };
        rest = rest.get(end + skip..).unwrap_or_default();
    }
    out.into()
}

/// The fields that are kept, and where the body starts.
fn header(mail: &[u8], source: &MailSource) -> Result<(Fields, usize), Finding> {
    let bad = |problem: String, fix: &str, at: usize| Finding::new("raw", problem, fix).at(Some(line_of(mail, at)));
    let mut fields = Fields::default();
    let mut seen = [false; ONCE.len()];
    let (mut at, mut count) = (0, 0);
    while at < mail.len() {
        if mail[at..].starts_with(b"\r\n") {
            return Ok((fields, at + 2));
        }
        let end = field_end(mail, at);
        let field = &mail[at..end];
        let colon = field.iter().position(|byte| *byte == b':').unwrap_or(0);
        let name = std::str::from_utf8(&field[..colon]).unwrap_or_default();
        if !is_field_name(name) {
            let fix = "start with header fields, each NAME: VALUE, then an empty line, then the body";
            return Err(bad("has a line that is no header field".into(), fix, at));
        }
        if field.iter().any(|byte| !matches!(byte, b'\t' | b'\r' | b'\n' | 0x20..=0x7e)) {
            let fix = "encode it as RFC 2047 has it";
            return Err(bad(format!("has a field {name} with characters outside of ASCII"), fix, at));
        }
        if let Some(index) = ONCE.iter().position(|once| once.eq_ignore_ascii_case(name))
            && std::mem::replace(&mut seen[index], true)
        {
            return Err(bad(format!("has two fields {name}"), "keep one", at));
        }
        count += 1;
        if count > MAX_FIELDS {
            return Err(bad("has too many header fields".into(), "keep at most 500", at));
        }
        if is_kept(name, &field[colon + 1..], source) {
            fields.push_whole(field, colon);
        }
        at = end;
    }
    // A header without a body.
    Ok((fields, mail.len()))
}

/// Where the field that starts at `at` ends, its continuation lines included.
fn field_end(mail: &[u8], at: usize) -> usize {
    let mut end = at;
    loop {
        let line = mail[end..].iter().position(|byte| *byte == b'\n').map_or(mail.len() - end, |last| last + 1);
        end += line;
        if !matches!(mail.get(end), Some(b' ' | b'\t')) {
            return end;
        }
    }
}

fn is_kept(name: &str, value: &[u8], source: &MailSource) -> bool {
    let lower = name.to_ascii_lowercase();
    match lower.as_str() {
        "bcc" | "resent-bcc" | "return-path" | "delivered-to" => false,
        // Ours is about to be made, and an older one of the domain would no longer hold.
        "dkim-signature" => {
            let value: String = String::from_utf8_lossy(value).split_whitespace().collect();
            let domain = value.split(';').find_map(|tag| tag.strip_prefix("d="));
            !domain.is_some_and(|domain| domain.eq_ignore_ascii_case(source.signing_domain.as_str()))
        }
        name => !name.starts_with("x-mailfleet-"),
    }
}

fn from_of(fields: &Fields) -> Result<Mailbox, Finding> {
    let fix = "write one mailbox, as in From: Ann <ann@example.com>";
    let mut froms = fields.iter().filter(|(name, _)| name.eq_ignore_ascii_case(b"From"));
    let Some((_, value)) = froms.next() else {
        return Err(Finding::new("raw", "has no From field", fix));
    };
    let value = std::str::from_utf8(value).unwrap_or_default();
    one_mailbox(value).ok_or_else(|| Finding::new("raw", "has a From field that is not one plain mailbox", fix))
}

/// Reads `ann@example.com` or `name <ann@example.com>`; whatever could be read as a second address, a
/// comment, a group or a route is refused.
fn one_mailbox(value: &str) -> Option<Mailbox> {
    let value = value.split(['\r', '\n']).collect::<String>();
    let value = value.trim();
    let Some(head) = value.strip_suffix('>') else {
        return value.parse().ok();
    };
    let (name, address) = head.rsplit_once('<')?;
    let name = name.trim();
    let is_quoted = |name: &str| {
        let mut escaped = false;
        name.chars().all(|c| {
            let inner = escaped || c != '"';
            escaped = !escaped && c == '\\';
            inner
        }) && !escaped
    };
    let is_name = match name.strip_prefix('"').and_then(|name| name.strip_suffix('"')) {
        Some(quoted) => is_quoted(quoted),
        None => !name.contains(['"', '<', '>', '(', ')', ',', ';', ':', '@', '\\']),
    };
    if is_name { address.trim().parse().ok() } else { None }
}

fn line_of(mail: &[u8], at: usize) -> usize {
    1 + mail[..at].iter().filter(|byte| **byte == b'\n').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_made_strict_and_strict_ones_left_alone() {
        let strict = Bytes::from_static(b"A: b\r\n\r\nc\r\n");
        assert_eq!(strict_lines(&strict).as_ptr(), strict.as_ptr());
        for loose in [&b"A: b\n\nc\n"[..], b"A: b\r\rc\r", b"A: b\r\n\r\nc", b"A: b\n\r\nc\r"] {
            assert_eq!(strict_lines(&Bytes::copy_from_slice(loose)), strict, "{loose:?}");
        }
    }

    #[test]
    fn a_from_field_has_one_mailbox() {
        let ann: Mailbox = "ann@example.com".parse().unwrap();
        for text in
            ["ann@example.com", " Ann <ann@example.com>", "\"A, \\\"B\\\"\"\r\n <ann@example.com>", "<ann@example.com>"]
        {
            assert_eq!(one_mailbox(text).as_ref(), Some(&ann), "{text}");
        }
        for text in [
            "ann@example.com, eve@evil.test",
            "ann@example.com <eve@evil.test>",
            "Eve <eve@evil.test>, Ann <ann@example.com>",
            "Ann (c) <ann@example.com>",
            "\"A\" <x> \"B\" <ann@example.com>",
            "",
        ] {
            assert_eq!(one_mailbox(text), None, "{text}");
        }
    }
}
