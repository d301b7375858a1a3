//! Header fields: what may stand in them, how it is encoded and folded.
//!
//! Address fields are encoded by lettre, once per content. Unstructured ones are done here: a subject is
//! encoded for every recipient, and a text that looks like an encoded word, or has a word too long to fold,
//! has to come out as it went in.

use crate::NameAddr;
use base64::{Engine, engine::general_purpose::STANDARD};
use chrono::{DateTime, Utc};
use lettre::message::header::{Cc, From as FromField, Headers, ReplyTo, To};
use lettre::message::{Mailbox as LettreMailbox, Mailboxes};

/// Longest header line aimed at, in octets (RFC 5322, 2.1.1).
const LINE: usize = 76;
/// Longest word left as it is; a longer one is encoded, so that it can be folded at all.
const WORD: usize = 200;
/// Octets of text in one encoded word: 45 make 60 of base64, 72 with its frame (RFC 2047, 2: at most 75).
const ENCODED: usize = 45;

/// A block of complete fields, each `Name: value CRLF`, that knows where each starts.
#[derive(Clone, Default)]
pub(crate) struct Fields {
    bytes: Vec<u8>,
    marks: Vec<Mark>,
}

#[derive(Clone, Copy)]
struct Mark {
    start: usize,
    colon: usize,
    end: usize,
}

impl Fields {
    pub(crate) fn with_capacity(bytes: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes), marks: Vec::with_capacity(24) }
    }

    /// Appends a field whose value is encoded and folded already.
    pub(crate) fn push(&mut self, name: &str, value: impl AsRef<[u8]>) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(name.as_bytes());
        let colon = self.bytes.len();
        self.bytes.extend_from_slice(b": ");
        self.bytes.extend_from_slice(value.as_ref());
        self.bytes.extend_from_slice(b"\r\n");
        self.marks.push(Mark { start, colon, end: self.bytes.len() });
    }

    /// Appends a field as it stands, final CRLF included. `colon` is where its name ends.
    pub(crate) fn push_whole(&mut self, field: &[u8], colon: usize) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(field);
        self.marks.push(Mark { start, colon: start + colon, end: self.bytes.len() });
    }

    /// Appends a field with an unstructured value.
    pub(crate) fn push_text(&mut self, name: &str, value: &str) {
        self.push(name, unstructured(name, value));
    }

    pub(crate) fn extend(&mut self, other: &Self) {
        let base = self.bytes.len();
        self.bytes.extend_from_slice(&other.bytes);
        let moved = |mark: &Mark| Mark { start: base + mark.start, colon: base + mark.colon, end: base + mark.end };
        self.marks.extend(other.marks.iter().map(moved));
    }

    /// As [`Self::extend`], without fields of these names.
    pub(crate) fn extend_without(&mut self, other: &Self, names: &[(String, String)]) {
        for mark in &other.marks {
            let name = &other.bytes[mark.start..mark.colon];
            if !names.iter().any(|(replaced, _)| replaced.as_bytes().eq_ignore_ascii_case(name)) {
                self.push_whole(&other.bytes[mark.start..mark.end], mark.colon - mark.start);
            }
        }
    }

    /// Names and raw values, fold and final CRLF included.
    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = (&[u8], &[u8])> {
        self.marks.iter().map(|mark| (&self.bytes[mark.start..mark.colon], &self.bytes[mark.colon + 1..mark.end]))
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.iter().any(|(field, _)| field.eq_ignore_ascii_case(name.as_bytes()))
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// An address field.
#[derive(Clone, Copy)]
pub(crate) enum AddressField {
    From,
    To,
    Cc,
    ReplyTo,
}

impl Fields {
    /// Appends an address field; nothing when the list is empty.
    pub(crate) fn push_addresses(&mut self, field: AddressField, list: &[NameAddr]) {
        if list.is_empty() {
            return;
        }
        let boxes: Mailboxes = list.iter().map(lettre_mailbox).collect();
        let mut headers = Headers::new();
        match field {
            AddressField::From => headers.set(FromField::from(boxes)),
            AddressField::To => headers.set(To::from(boxes)),
            AddressField::Cc => headers.set(Cc::from(boxes)),
            AddressField::ReplyTo => headers.set(ReplyTo::from(boxes)),
        }
        let text = headers.to_string();
        let colon = text.find(':').unwrap_or(0);
        self.push_whole(text.as_bytes(), colon);
    }
}

fn lettre_mailbox(addr: &NameAddr) -> LettreMailbox {
    // Ours is the narrower grammar, and it has been through it.
    let address = lettre::Address::new_dangerous(addr.mailbox.local(), addr.mailbox.domain_str());
    let name = addr.name.as_deref().map(str::trim).filter(|name| !name.is_empty());
    LettreMailbox::new(name.map(str::to_owned), address)
}

/// A name as RFC 5322, 3.6.8 has it, and short enough to leave room on its line.
pub(crate) fn is_field_name(name: &str) -> bool {
    (1..=70).contains(&name.len()) && name.bytes().all(|byte| matches!(byte, 33..=126) && byte != b':')
}

/// Whether a caller may set this field: not those that mailfleet makes, that belong to the transport, or
/// that say how the body is built.
pub(crate) fn is_settable(name: &str) -> bool {
    const OURS: [&str; 19] = [
        "from",
        "to",
        "cc",
        "bcc",
        "sender",
        "reply-to",
        "subject",
        "date",
        "message-id",
        "mime-version",
        "dkim-signature",
        "domainkey-signature",
        "received",
        "received-spf",
        "return-path",
        "delivered-to",
        "authentication-results",
        "list-unsubscribe-post",
        "apparently-to",
    ];
    let lower = name.to_ascii_lowercase();
    !OURS.contains(&lower.as_str())
        && !["content-", "resent-", "arc-", "x-mailfleet-"].iter().any(|prefix| lower.starts_with(prefix))
}

/// What is wrong with a text that is to stand in a header, if anything.
pub(crate) fn text_problem(text: &str) -> Option<&'static str> {
    text.chars().find_map(|c| match c {
        '\r' | '\n' => Some("holds a line break"),
        '\t' => None,
        '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' => Some("holds a control character"),
        // They make a line end for some readers, or turn the text that follows (CVE-2021-42574).
        '\u{2028}' | '\u{2029}' => Some("holds a line separator"),
        '\u{202a}'..='\u{202e}' => Some("holds a character that overrides the direction of text"),
        _ => None,
    })
}

/// As [`text_problem`], for a display name, where isolates only serve to disguise an address.
pub(crate) fn name_problem(text: &str) -> Option<&'static str> {
    let isolate = |c| matches!(c, '\u{2066}'..='\u{2069}');
    text_problem(text)
        .or_else(|| text.contains(isolate).then_some("holds a character that overrides the direction of text"))
}

/// Encodes and folds a text for a field of this name. The text holds no line breaks.
pub(crate) fn unstructured(name: &str, text: &str) -> String {
    let text = text.trim();
    let is_plain = text.is_ascii() && !text.contains("=?");
    if is_plain && name.len() + 2 + text.len() <= LINE {
        return text.to_owned();
    }
    if is_plain && text.split([' ', '\t']).all(|word| word.len() <= WORD) {
        return fold(name.len() + 2, text);
    }
    encoded_words(name.len() + 2, text)
}

/// Breaks before the blank that precedes a word which does not fit.
fn fold(mut column: usize, text: &str) -> String {
    let mut out = String::with_capacity(text.len() + text.len() / 30);
    let mut rest = text;
    while !rest.is_empty() {
        // A piece is its leading blanks and one word.
        let word = rest.find(|c| c != ' ' && c != '\t').unwrap_or(rest.len());
        let end = rest[word..].find([' ', '\t']).map_or(rest.len(), |blank| word + blank);
        let piece = &rest[..end];
        if word > 0 && column + piece.len() > LINE && !out.is_empty() {
            out.push_str("\r\n");
            column = 0;
        }
        out.push_str(piece);
        column += piece.len();
        rest = &rest[end..];
    }
    out
}

/// RFC 2047 encoded words, each of whole characters. Readers drop the blank between two of them.
pub(crate) fn encoded_words(column: usize, text: &str) -> String {
    let mut out = String::with_capacity(text.len() * 2 + 32);
    // The first one shares its line with the field's name.
    let mut room = ENCODED.min(LINE.saturating_sub(column + 12) / 4 * 3).max(12);
    let mut rest = text;
    while !rest.is_empty() {
        let mut end = room.min(rest.len());
        while !rest.is_char_boundary(end) {
            end -= 1;
        }
        if !out.is_empty() {
            out.push_str("\r\n ");
        }
        out.push_str("=?utf-8?B?");
        STANDARD.encode_string(&rest[..end], &mut out);
        out.push_str("?=");
        rest = &rest[end..];
        room = ENCODED;
    }
    out
}

/// RFC 5322, 3.3, in UTC.
pub(crate) fn date(at: DateTime<Utc>) -> String {
    at.format("%a, %d %b %Y %H:%M:%S +0000").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read_back(name: &str, value: &str) -> String {
        let mail = format!("{name}: {value}\r\n\r\n");
        let parsed = mail_parser::MessageParser::new().parse(mail.as_bytes()).unwrap();
        parsed.subject().unwrap_or_default().to_owned()
    }

    proptest! {
        #[test]
        fn any_subject_reads_back_and_folds_within_998(text in "[^\\p{Cc}\u{2028}\u{2029}]{1,300}") {
            let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
            let value = unstructured("Subject", &text);
            prop_assert!(value.is_ascii());
            prop_assert!(value.split("\r\n").all(|line| line.len() <= 998 && !line.contains(['\r', '\n'])));
            prop_assert!(value.split("\r\n").skip(1).all(|line| line.starts_with([' ', '\t']) && !line.trim().is_empty()));
            prop_assert_eq!(read_back("Subject", &value), text);
        }
    }

    #[test]
    fn a_text_that_looks_encoded_comes_out_as_it_went_in() {
        let text = "=?utf-8?B?aGFja2Vk?= is not for you";
        assert_eq!(read_back("Subject", &unstructured("Subject", text)), text);
    }

    #[test]
    fn a_word_of_5000_letters_is_folded() {
        let text = "x".repeat(5_000);
        let value = unstructured("Subject", &text);
        assert!(value.split("\r\n").all(|line| line.len() <= LINE));
        assert_eq!(read_back("Subject", &value), text);
    }

    #[test]
    fn fields_of_the_system_cannot_be_set() {
        for name in ["From", "BCC", "dkim-signature", "Content-Type", "Resent-From", "X-Mailfleet-Id", "Received"] {
            assert!(!is_settable(name), "{name}");
        }
        assert!(is_settable("X-Campaign") && is_settable("In-Reply-To") && is_settable("Auto-Submitted"));
        assert!(!is_field_name("X Y") && !is_field_name("X:Y") && !is_field_name("X\r\nBcc") && !is_field_name(""));
    }

    #[test]
    fn a_date_is_as_the_rfc_has_it() {
        let at = DateTime::from_timestamp(1_790_000_000, 0).unwrap();
        assert_eq!(date(at), "Mon, 21 Sep 2026 14:13:20 +0000");
    }
}
