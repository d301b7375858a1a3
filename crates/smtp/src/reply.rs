//! Replies (RFC 5321, 4.2): bounded while they are read, harmless once they are kept.

use std::fmt;

/// Longest text kept of a reply, in characters. Longer ones are cut: the text is evidence, not data.
const MAX_TEXT: usize = 500;

/// What a peer answered: the code and its text as one printable line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The three digits, 200 to 599.
    pub code: u16,
    /// The lines joined by spaces, without control characters, at most 500 characters. An enhanced status
    /// code that every line repeats (RFC 2034, 3) is kept once, at the start.
    pub text: String,
}

impl Reply {
    /// 2yz: done.
    pub fn is_positive(&self) -> bool {
        self.code / 100 == 2
    }

    /// 4yz: not now.
    pub fn is_transient(&self) -> bool {
        self.code / 100 == 4
    }

    /// 5yz: never.
    pub fn is_permanent(&self) -> bool {
        self.code / 100 == 5
    }

    /// 421: the peer closes the connection (RFC 5321, 3.8). A deferral wherever it stands.
    pub fn closes(&self) -> bool {
        self.code == 421
    }

    /// Reads a reply whose end [`ReplyScanner`] has found.
    pub(crate) fn from_wire(code: u16, wire: &[u8]) -> Self {
        let mut text = String::new();
        let mut kept = 0;
        let mut status: Option<&str> = None;
        let decoded = String::from_utf8_lossy(wire);
        for (number, line) in decoded.lines().enumerate() {
            let mut line = line.get(4..).unwrap_or_default().trim();
            if number == 0 {
                status = line.split(' ').next().filter(|word| is_enhanced(word));
            } else if let Some(rest) = status.and_then(|status| line.strip_prefix(status)) {
                line = rest.trim_start();
            }
            let joint = if text.is_empty() || line.is_empty() { "" } else { " " };
            for c in joint.chars().chain(line.chars()) {
                if kept >= MAX_TEXT {
                    return Self { code, text };
                }
                text.push(if c.is_control() || is_misleading(c) { ' ' } else { c });
                kept += 1;
            }
        }
        Self { code, text }
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.code, self.text)
    }
}

/// Whether a word is `class.subject.detail` (RFC 3463, 2).
fn is_enhanced(word: &str) -> bool {
    let mut parts = word.split('.');
    let (Some(class), Some(subject), Some(detail), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return false;
    };
    let number = |part: &str| (1..=3).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit());
    matches!(class, "2" | "4" | "5") && number(subject) && number(detail)
}

/// Characters that turn or break the line they are shown in.
fn is_misleading(c: char) -> bool {
    matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// How large a reply may be. RFC 5321, 4.5.3.1.5 allows 512 octets a line; real ones are longer.
#[derive(Clone, Copy, Debug)]
pub struct ReplyLimits {
    /// Octets in a line with its end. Default 2,048.
    pub line: usize,
    /// Lines in a reply. Default 100.
    pub lines: usize,
    /// Octets in a reply. Default 65,536.
    pub total: usize,
}

impl Default for ReplyLimits {
    fn default() -> Self {
        Self { line: 2_048, lines: 100, total: 64 * 1_024 }
    }
}

/// How a peer broke the protocol. Ends the connection; nothing it said afterwards counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A line that does not begin with a reply code and a space, hyphen or its end.
    #[error("a line that is no reply")]
    NotAReply,
    /// Lines of one reply with different codes.
    #[error("a reply whose lines bear different codes")]
    MixedCodes,
    /// A line beyond [`ReplyLimits::line`].
    #[error("a reply line that is too long")]
    LongLine,
    /// More than [`ReplyLimits::lines`] lines, or [`ReplyLimits::total`] octets.
    #[error("a reply that is too long")]
    LongReply,
    /// A code that makes no sense where it stands, such as 250 to `DATA` or 354 to `MAIL`.
    #[error("a reply code that does not fit the command")]
    UnexpectedCode,
    /// Something was said that nobody had asked for.
    #[error("a reply that nobody asked for")]
    Unsolicited,
    /// Plain text stood behind the answer to `STARTTLS` (CVE-2011-0411).
    #[error("plain text behind the answer to STARTTLS")]
    TextBeforeTls,
}

/// Finds the end of a reply in bytes that arrive piece by piece, looking at each byte once.
#[derive(Debug, Default)]
pub(crate) struct ReplyScanner {
    line_start: usize,
    scanned: usize,
    lines: usize,
    code: Option<u16>,
}

impl ReplyScanner {
    /// Looks at all that has arrived of the reply; the code and length of the reply once it is whole.
    pub(crate) fn scan(&mut self, input: &[u8], limits: &ReplyLimits) -> Result<Option<(u16, usize)>, Violation> {
        while let Some(found) = memchr::memchr(b'\n', &input[self.scanned..]) {
            let end = self.scanned + found + 1;
            let line = &input[self.line_start..end];
            if line.len() > limits.line {
                return Err(Violation::LongLine);
            }
            let (code, last) = split(line).ok_or(Violation::NotAReply)?;
            if self.code.is_some_and(|first| first != code) {
                return Err(Violation::MixedCodes);
            }
            self.lines += 1;
            if self.lines > limits.lines || end > limits.total {
                return Err(Violation::LongReply);
            }
            if last {
                *self = Self::default();
                return Ok(Some((code, end)));
            }
            (self.code, self.line_start, self.scanned) = (Some(code), end, end);
        }
        self.scanned = input.len();
        if input.len() - self.line_start >= limits.line {
            return Err(Violation::LongLine);
        }
        if input.len() > limits.total { Err(Violation::LongReply) } else { Ok(None) }
    }
}

/// The code of one line, and whether it is the last of its reply.
fn split(line: &[u8]) -> Option<(u16, bool)> {
    let line = line.strip_suffix(b"\n")?;
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let (digits, rest) = line.split_at_checked(3)?;
    if !matches!(digits[0], b'2'..=b'5') || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let code = digits.iter().fold(0, |code, digit| code * 10 + u16::from(digit - b'0'));
    match rest.first() {
        None | Some(b' ') => Some((code, true)),
        Some(b'-') => Some((code, false)),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(wire: &[u8]) -> Result<Option<(u16, usize)>, Violation> {
        ReplyScanner::default().scan(wire, &ReplyLimits::default())
    }

    #[test]
    fn a_reply_ends_with_the_line_that_has_no_hyphen() {
        assert_eq!(read(b"250-a\r\n250 b\r\n250 c\r\n"), Ok(Some((250, 14))));
        assert_eq!(read(b"250\r\n"), Ok(Some((250, 5))));
        assert_eq!(read(b"250-a\r\n250"), Ok(None));
    }

    #[test]
    fn what_is_no_reply_is_refused() {
        for wire in [&b"hello\r\n"[..], b"\r\n", b"99\r\n", b"150 x\r\n", b"600 x\r\n", b"250x\r\n", b"25\xff x\r\n"] {
            assert_eq!(read(wire), Err(Violation::NotAReply), "{wire:?}");
        }
        assert_eq!(read(b"250-a\r\n550 b\r\n"), Err(Violation::MixedCodes));
    }

    #[test]
    fn a_reply_is_bounded_before_its_end_has_arrived() {
        let mut line = b"250 ".to_vec();
        line.resize(2_048, b'x');
        assert_eq!(read(&line), Err(Violation::LongLine));
        assert_eq!(read(&b"250-x\r\n".repeat(101)), Err(Violation::LongReply));
        let wide = [b"250-".to_vec(), vec![b'x'; 1_900], b"\r\n".to_vec()].concat();
        assert_eq!(read(&wide.repeat(40)), Err(Violation::LongReply));
    }

    #[test]
    fn text_is_one_printable_line_and_repeats_no_status() {
        let reply = Reply::from_wire(550, b"550-5.1.1 no such\x00 user\x1b[31m\r\n550 5.1.1 here \xff\r\n");
        assert_eq!(reply.text, "5.1.1 no such  user [31m here \u{fffd}");
        for head in [&b"550 "[..], b"550-x\r\n550-\r\n550 "] {
            let long =
                Reply::from_wire(550, &[head.to_vec(), vec![b'x'; 2_000], b"\r\n550 more\r\n".to_vec()].concat());
            assert_eq!(long.text.len(), MAX_TEXT);
        }
    }

    /// What looks like a reply, and what does not.
    fn wire() -> impl Strategy<Value = Vec<u8>> {
        let text =
            prop::sample::select(vec!["250", "250-", "250 ", "550 ", "99", "\r\n", "\r\n", "\n", "\r", " ", "-", "x"]);
        let piece = prop_oneof![
            12 => text.prop_map(|text| text.as_bytes().to_vec()),
            1 => prop::collection::vec(any::<u8>(), 0..50),
            1 => (4_usize..80).prop_map(|length| [b"250-", vec![b'x'; length].as_slice(), b"\r\n"].concat()),
        ];
        prop::collection::vec(piece, 0..16).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn any_chunking_finds_the_same_end(lines in 1_usize..20, cuts in prop::collection::vec(1_usize..30, 1..40)) {
            let mut wire = b"250-line of text\r\n".repeat(lines);
            wire.extend_from_slice(b"250 end\r\nrest");
            let mut scanner = ReplyScanner::default();
            let mut arrived = 0;
            let mut found = None;
            for cut in cuts.iter().cycle() {
                arrived = (arrived + cut).min(wire.len());
                found = scanner.scan(&wire[..arrived], &ReplyLimits::default()).unwrap();
                if found.is_some() || arrived == wire.len() { break; }
            }
            prop_assert_eq!(found, Some((250, wire.len() - 4)));
        }

        #[test]
        fn any_bytes_are_read_the_same_in_any_pieces(
            wire in wire(), cuts in prop::collection::vec(1_usize..40, 1..20),
            limits in (4_usize..80, 1_usize..6, 4_usize..200).prop_map(|(line, lines, total)| ReplyLimits { line, lines, total }),
        ) {
            let whole = ReplyScanner::default().scan(&wire, &limits);
            let (mut scanner, mut arrived, mut pieces) = (ReplyScanner::default(), 0, Ok(None));
            for cut in cuts.iter().cycle() {
                arrived = (arrived + cut).min(wire.len());
                pieces = scanner.scan(&wire[..arrived], &limits);
                if pieces != Ok(None) || arrived == wire.len() { break; }
                prop_assert!(arrived <= limits.total, "{arrived} octets are kept");
            }
            // Which of two rules is seen to be broken first may depend on the pieces; that one is, may not.
            prop_assert_eq!(pieces.ok(), whole.ok());
            if let Ok(Some((code, length))) = whole {
                prop_assert!((200..600).contains(&code) && length <= limits.total);
                let lines = wire[..length].split_inclusive(|byte| *byte == b'\n');
                prop_assert!(lines.clone().count() <= limits.lines);
                for line in lines {
                    prop_assert!(line.len() <= limits.line && line.starts_with(code.to_string().as_bytes()));
                }
            }
        }

        #[test]
        fn no_bytes_make_an_unprintable_text(bytes in prop::collection::vec(any::<u8>(), 0..3_000)) {
            let reply = Reply::from_wire(250, &bytes);
            prop_assert!(!reply.text.chars().any(char::is_control));
            prop_assert!(reply.text.chars().count() <= MAX_TEXT);
        }
    }
}
