//! Bodies: which transfer encoding a text gets, the encoders, and the two-part body.
//!
//! The encoder is our own: it costs 5 to 10 µs for 10 KB where lettre's part builder takes 34, and its
//! boundary is the message's, not random, so that the same message gives the same octets.

use crate::attachment::Files;
use base64::{Engine, engine::general_purpose::STANDARD};
use std::borrow::Cow;

/// Longest line of text left as it is (RFC 5322, 2.1.1 allows 998).
const MAX_LINE: usize = 990;
/// Longest line of quoted-printable and base64 (RFC 2045, 6.7 and 6.8).
const ENCODED_LINE: usize = 76;
/// Octets that one line of base64 holds.
const LINE_OCTETS: usize = ENCODED_LINE / 4 * 3;
/// What every boundary starts with. Quoted-printable and base64 never hold it (RFC 2045, 6.7).
const BOUNDARY: &str = "=_mf_";

/// How a body travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    SevenBit,
    QuotedPrintable,
    Base64,
}

impl Encoding {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::SevenBit => "7bit",
            Self::QuotedPrintable => "quoted-printable",
            Self::Base64 => "base64",
        }
    }

    /// The plainest that holds this text, whose lines end in LF.
    pub(crate) fn of(text: &str) -> Self {
        let bytes = text.as_bytes();
        let wide = bytes.iter().fold(0_usize, |count, byte| count + usize::from(*byte >= 0x80));
        // Three octets for one against four for three.
        if wide * 6 > bytes.len() {
            return Self::Base64;
        }
        let is_control = |byte: u8| (byte < 0x20 && byte != b'\n' && byte != b'\t') | (byte == 0x7f);
        let controls = bytes.iter().fold(false, |found, byte| found | is_control(*byte));
        let fits = || text.split('\n').all(|line| line.len() <= MAX_LINE);
        if wide == 0 && !controls && fits() && !text.contains(BOUNDARY) {
            Self::SevenBit
        } else {
            Self::QuotedPrintable
        }
    }

    pub(crate) fn encode_into(self, text: &str, out: &mut Vec<u8>) {
        match self {
            Self::SevenBit => crlf_into(text, out),
            Self::QuotedPrintable => quoted_printable_into(text, out),
            Self::Base64 => base64_into(text, out),
        }
    }
}

/// The text with LF for every line end, as all below expects it.
pub(crate) fn lf(text: &str) -> Cow<'_, str> {
    if !text.contains('\r') {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.replace("\r\n", "\n").replace('\r', "\n"))
}

fn crlf_into(text: &str, out: &mut Vec<u8>) {
    for (index, line) in text.split('\n').enumerate() {
        if index > 0 {
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(line.as_bytes());
    }
}

const fn literal_table() -> [bool; 256] {
    let mut table = [false; 256];
    let mut byte = 0x20;
    while byte < 0x7f {
        table[byte] = byte != b'=' as usize;
        byte += 1;
    }
    table[b'\t' as usize] = true;
    table
}

/// Octets that quoted-printable leaves as they are, but for blanks at a line's end.
static LITERAL: [bool; 256] = literal_table();

fn quoted_printable_into(text: &str, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    // One column is kept for the soft line break's `=`.
    const ROOM: usize = ENCODED_LINE - 1;
    out.reserve(text.len() + text.len() / 16);
    for (index, line) in text.split('\n').enumerate() {
        if index > 0 {
            out.extend_from_slice(b"\r\n");
        }
        let bytes = line.as_bytes();
        let (mut at, mut column) = (0, 0);
        while at < bytes.len() {
            let run = bytes[at..].iter().take(ROOM - column).take_while(|byte| LITERAL[usize::from(**byte)]).count();
            out.extend_from_slice(&bytes[at..at + run]);
            at += run;
            column += run;
            let Some(byte) = bytes.get(at).copied() else {
                // A blank at the end would be stripped on the way.
                if let Some(blank) = out.pop_if(|last| matches!(last, b' ' | b'\t')) {
                    if column + 2 > ROOM {
                        out.extend_from_slice(b"=\r\n");
                    }
                    out.extend_from_slice(&[b'=', HEX[usize::from(blank >> 4)], HEX[usize::from(blank & 15)]]);
                }
                break;
            };
            let literal = LITERAL[usize::from(byte)];
            if column + if literal { 1 } else { 3 } > ROOM {
                out.extend_from_slice(b"=\r\n");
                column = 0;
                continue;
            }
            out.extend_from_slice(&[b'=', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
            at += 1;
            column += 3;
        }
    }
}

fn base64_into(text: &str, out: &mut Vec<u8>) {
    base64_lines_into(text.replace('\n', "\r\n").as_bytes(), out);
}

/// How many octets that many make as lines of base64.
pub(crate) const fn base64_octets(octets: u64) -> u64 {
    octets.div_ceil(3) * 4 + octets.div_ceil(LINE_OCTETS as u64) * 2
}

/// Lines of base64, the last one without its end.
pub(crate) fn base64_lines_into(octets: &[u8], out: &mut Vec<u8>) {
    for (index, piece) in octets.chunks(LINE_OCTETS).enumerate() {
        if index > 0 {
            out.extend_from_slice(b"\r\n");
        }
        let start = out.len();
        out.resize(start + piece.len().div_ceil(3) * 4, 0);
        let written = STANDARD.encode_slice(piece, &mut out[start..]);
        debug_assert_eq!(written.ok(), Some(out.len() - start));
    }
}

/// One text part: its type and its text with LF line ends.
pub(crate) struct TextPart<'a> {
    pub(crate) subtype: &'static str,
    pub(crate) text: Cow<'a, str>,
}

/// The body of a mail and the fields that describe it.
pub(crate) struct BuiltBody {
    pub(crate) content_type: String,
    pub(crate) encoding: Encoding,
    pub(crate) bytes: Vec<u8>,
}

/// Builds a body of one part, or of alternatives in rising preference, with the files that go along: what the HTML
/// part shows beside it (RFC 2387), the others after the text. `token` makes the boundaries.
pub(crate) fn build(parts: &[TextPart<'_>], token: &str, files: &Files) -> BuiltBody {
    if files.is_empty() {
        return text(parts, token, &[]);
    }
    let has_html = parts.iter().any(|part| part.subtype == "html");
    let (shown, lost): (&[Vec<u8>], &[Vec<u8>]) = if has_html { (&files.shown, &[]) } else { (&[], &files.shown) };
    let text = text(parts, token, shown);
    if lost.is_empty() && files.attached.is_empty() {
        return text;
    }
    let text = text.into_part();
    let children: Vec<&[u8]> = [&text].into_iter().chain(lost).chain(&files.attached).map(Vec::as_slice).collect();
    multipart("mixed", "", &format!("{BOUNDARY}m{token}"), &children)
}

/// The text of a mail, with what its HTML part shows.
fn text(parts: &[TextPart<'_>], token: &str, shown: &[Vec<u8>]) -> BuiltBody {
    let size: usize = parts.iter().map(|part| part.text.len()).sum();
    if let ([part], []) = (parts, shown) {
        let mut bytes = Vec::with_capacity(size + size / 12 + 1_024);
        let encoding = Encoding::of(&part.text);
        encoding.encode_into(&part.text, &mut bytes);
        if !bytes.ends_with(b"\r\n") {
            bytes.extend_from_slice(b"\r\n");
        }
        return BuiltBody { content_type: content_type(part.subtype), encoding, bytes };
    }
    if let [part] = parts {
        return related(part, token, shown);
    }
    let mut bytes = Vec::with_capacity(size + size / 12 + 1_024);
    for part in parts {
        bytes.extend_from_slice(format!("--{BOUNDARY}{token}\r\n").as_bytes());
        if part.subtype == "html" && !shown.is_empty() {
            bytes.extend_from_slice(&related(part, token, shown).into_part());
        } else {
            part.write_into(&mut bytes);
        }
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(format!("--{BOUNDARY}{token}--\r\n").as_bytes());
    let content_type = format!("multipart/alternative;\r\n boundary=\"{BOUNDARY}{token}\"");
    BuiltBody { content_type, encoding: Encoding::SevenBit, bytes }
}

/// An HTML part with what it shows.
fn related(html: &TextPart<'_>, token: &str, shown: &[Vec<u8>]) -> BuiltBody {
    let mut root = Vec::with_capacity(html.text.len() + html.text.len() / 12 + 256);
    html.write_into(&mut root);
    let children: Vec<&[u8]> = [&root].into_iter().chain(shown).map(Vec::as_slice).collect();
    multipart("related", "\r\n type=\"text/html\";", &format!("{BOUNDARY}r{token}"), &children)
}

/// Parts one after the other; none ends in a CRLF of its own.
fn multipart(subtype: &str, parameters: &str, boundary: &str, parts: &[&[u8]]) -> BuiltBody {
    let size: usize = parts.iter().map(|part| part.len() + boundary.len() + 6).sum();
    let mut bytes = Vec::with_capacity(size + boundary.len() + 6);
    for part in parts {
        bytes.extend_from_slice(format!("--{boundary}\r\n").as_bytes());
        bytes.extend_from_slice(part);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
    let content_type = format!("multipart/{subtype};{parameters}\r\n boundary=\"{boundary}\"");
    BuiltBody { content_type, encoding: Encoding::SevenBit, bytes }
}

impl TextPart<'_> {
    /// Appends it with its header fields, without a final CRLF of its own.
    fn write_into(&self, bytes: &mut Vec<u8>) {
        let encoding = Encoding::of(&self.text);
        let head = format!(
            "Content-Type: {}\r\nContent-Transfer-Encoding: {}\r\n\r\n",
            content_type(self.subtype),
            encoding.as_str()
        );
        bytes.extend_from_slice(head.as_bytes());
        encoding.encode_into(&self.text, bytes);
    }
}

impl BuiltBody {
    /// As a part of another body.
    fn into_part(self) -> Vec<u8> {
        let head = format!(
            "Content-Type: {}\r\nContent-Transfer-Encoding: {}\r\n\r\n",
            self.content_type,
            self.encoding.as_str()
        );
        let body = self.bytes.strip_suffix(b"\r\n").unwrap_or(&self.bytes);
        [head.as_bytes(), body].concat()
    }
}

fn content_type(subtype: &str) -> String {
    format!("text/{subtype}; charset=utf-8")
}

#[cfg(test)]
mod tests {
    use super::*;
    use mail_parser::{MessageParser, MimeHeaders};
    use proptest::prelude::*;

    fn read_back(text: &str) -> (String, String) {
        let parts = ["plain", "html"].map(|subtype| TextPart { subtype, text: lf(text) });
        let body = build(&parts, "0123", &Files::default());
        let mut mail = format!("MIME-Version: 1.0\r\nContent-Type: {}\r\n\r\n", body.content_type).into_bytes();
        mail.extend_from_slice(&body.bytes);
        let mail = String::from_utf8(mail).unwrap();
        assert!(mail.is_ascii());
        assert!(!mail.replace("\r\n", "").contains(['\r', '\n']), "a bare CR or LF");
        assert!(mail.split("\r\n").all(|line| line.len() <= 998));
        let parsed = MessageParser::new().parse(mail.as_bytes()).unwrap();
        assert_eq!(parsed.parts.len(), 3);
        assert!(parsed.parts[1].is_content_type("text", "plain"));
        let [plain, html] = [1, 2].map(|index| parsed.parts[index].text_contents().unwrap().to_owned());
        (plain, html)
    }

    proptest! {
        #[test]
        fn any_text_reads_back(text in "(\\PC|[ \t\r\n\0=.-]|From |--=_mf_0123|é|漢|😀){0,400}") {
            let expected = lf(&text).replace('\n', "\r\n");
            let (plain, html) = read_back(&text);
            prop_assert_eq!(plain.replace("\r\n", "\n"), expected.replace("\r\n", "\n"));
            prop_assert_eq!(html.replace("\r\n", "\n"), expected.replace("\r\n", "\n"));
        }

        #[test]
        fn quoted_printable_keeps_its_lines_short_and_their_ends_visible(text in "([ -~\t\n]|é){0,600}") {
            let mut out = Vec::new();
            quoted_printable_into(&text, &mut out);
            for line in out.split(|byte| *byte == b'\n') {
                let line = line.strip_suffix(b"\r").unwrap_or(line);
                prop_assert!(line.len() <= ENCODED_LINE);
                prop_assert!(!line.ends_with(b" ") && !line.ends_with(b"\t"));
            }
        }
    }

    #[test]
    fn the_plainest_encoding_that_fits_is_taken() {
        assert_eq!(Encoding::of("plain\nlines"), Encoding::SevenBit);
        assert_eq!(Encoding::of(&"x".repeat(1_000)), Encoding::QuotedPrintable);
        assert_eq!(Encoding::of("a\0b"), Encoding::QuotedPrintable);
        assert_eq!(Encoding::of("caf\u{e9} and much more plain text around it"), Encoding::QuotedPrintable);
        assert_eq!(Encoding::of("\u{6f22}\u{5b57}"), Encoding::Base64);
        assert_eq!(Encoding::of("--=_mf_0123--"), Encoding::QuotedPrintable);
    }
}
