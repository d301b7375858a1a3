//! Bodies: which transfer encoding a text gets, the encoders, and the two-part body.
//!
//! The encoder is our own: it costs 5 to 10 µs for 10 KB where lettre's part builder takes 34, and its
//! boundary is the message's, not random, so that the same message gives the same octets.

use base64::{Engine, engine::general_purpose::STANDARD};
use std::borrow::Cow;

/// Longest line of text left as it is (RFC 5322, 2.1.1 allows 998).
const MAX_LINE: usize = 990;
/// Longest line of quoted-printable and base64 (RFC 2045, 6.7 and 6.8).
const ENCODED_LINE: usize = 76;
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
    let canonical = text.replace('\n', "\r\n");
    for (index, piece) in canonical.as_bytes().chunks(ENCODED_LINE / 4 * 3).enumerate() {
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

/// Builds a body of one part, or of alternatives in rising preference. `token` makes the boundary.
pub(crate) fn build(parts: &[TextPart<'_>], token: &str) -> BuiltBody {
    let size: usize = parts.iter().map(|part| part.text.len()).sum();
    let mut bytes = Vec::with_capacity(size + size / 12 + 1_024);
    if let [part] = parts {
        let encoding = Encoding::of(&part.text);
        encoding.encode_into(&part.text, &mut bytes);
        if !bytes.ends_with(b"\r\n") {
            bytes.extend_from_slice(b"\r\n");
        }
        return BuiltBody { content_type: content_type(part.subtype), encoding, bytes };
    }
    for part in parts {
        let encoding = Encoding::of(&part.text);
        let head = format!(
            "--{BOUNDARY}{token}\r\nContent-Type: {}\r\nContent-Transfer-Encoding: {}\r\n\r\n",
            content_type(part.subtype),
            encoding.as_str()
        );
        bytes.extend_from_slice(head.as_bytes());
        encoding.encode_into(&part.text, &mut bytes);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(format!("--{BOUNDARY}{token}--\r\n").as_bytes());
    let content_type = format!("multipart/alternative;\r\n boundary=\"{BOUNDARY}{token}\"");
    BuiltBody { content_type, encoding: Encoding::SevenBit, bytes }
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
        let body = build(&parts, "0123");
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
