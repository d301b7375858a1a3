//! Bodies on their way to and from the wire.

use bytes::{Bytes, BytesMut};
use memchr::memmem;
use std::sync::LazyLock;

/// What ends a message (RFC 5321, 4.1.1.4).
const END: &[u8] = b"\r\n.\r\n";

static END_FINDER: LazyLock<memmem::Finder<'static>> = LazyLock::new(|| memmem::Finder::new(END));
static DOT_LINE_FINDER: LazyLock<memmem::Finder<'static>> = LazyLock::new(|| memmem::Finder::new(b"\r\n."));

/// Appends `body` to `out` as DATA carries it: every line ends in CRLF (a bare CR or LF becomes one), a
/// leading dot is doubled, and the final dot stands behind it (RFC 5321, 2.3.8 and 4.5.2).
///
/// A body whose lines end in CRLF, the last one too, is only stuffed: its signature stays valid.
pub fn wire_form(body: &[u8], out: &mut Vec<u8>) {
    out.reserve(body.len() + body.len() / 64 + END.len());
    let mut rest = body;
    while !rest.is_empty() {
        if rest[0] == b'.' {
            out.push(b'.');
        }
        let Some(end) = memchr::memchr2(b'\r', b'\n', rest) else {
            out.extend_from_slice(rest);
            out.extend_from_slice(b"\r\n");
            break;
        };
        if rest[end] == b'\r' && rest.get(end + 1) == Some(&b'\n') {
            out.extend_from_slice(&rest[..end + 2]);
            rest = &rest[end + 2..];
        } else {
            out.extend_from_slice(&rest[..end]);
            out.extend_from_slice(b"\r\n");
            rest = &rest[end + 1..];
        }
    }
    out.extend_from_slice(&END[2..]);
}

/// Whether every CR stands before an LF and every LF behind a CR. Anything else is how one message
/// becomes two at a receiver that is less strict (CVE-2023-51764 and its siblings).
pub(crate) fn has_only_crlf(body: &[u8]) -> bool {
    let mut rest = body;
    while let Some(at) = memchr::memchr2(b'\r', b'\n', rest) {
        if rest[at] != b'\r' || rest.get(at + 1) != Some(&b'\n') {
            return false;
        }
        rest = &rest[at + 2..];
    }
    true
}

/// Takes the stuffing out of a received body: the first dot of a line goes, whatever follows it
/// (RFC 5321, 4.5.2).
fn unstuffed(body: Bytes) -> Bytes {
    if !body.starts_with(b".") && DOT_LINE_FINDER.find(&body).is_none() {
        return body;
    }
    let mut out = BytesMut::with_capacity(body.len());
    let mut rest = &body[..];
    while !rest.is_empty() {
        let line = memmem::find(rest, b"\r\n").map_or(rest.len(), |at| at + 2);
        out.extend_from_slice(rest[..line].strip_prefix(b".").unwrap_or(&rest[..line]));
        rest = &rest[line..];
    }
    out.freeze()
}

/// What [`BodyScanner::take`] found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// The end has not arrived.
    More,
    /// The body, unstuffed; the input now begins behind the final dot.
    Whole(Bytes),
    /// It ended, but was longer than the limit; it was thrown away.
    TooLarge,
    /// Bare CR or LF: whatever stands behind it cannot be trusted to be commands.
    BareLineEnd,
}

/// Finds the end of a message in bytes that arrive piece by piece.
#[derive(Debug, Default)]
pub(crate) struct BodyScanner {
    scanned: usize,
    /// Octets thrown away because the message is over the limit.
    dropped: usize,
}

impl BodyScanner {
    /// Octets of the message seen so far.
    pub(crate) fn seen(&self, input: &[u8]) -> usize {
        self.dropped + input.len()
    }

    /// Looks at what has arrived; `input` begins with the first byte of the message.
    pub(crate) fn take(&mut self, input: &mut BytesMut, limit: usize) -> Taken {
        // A message without lines: the CRLF of the final dot is that of the DATA line.
        if self.dropped == 0 && input.starts_with(&END[2..]) {
            drop(input.split_to(END.len() - 2));
            return Taken::Whole(Bytes::new());
        }
        let from = self.scanned.saturating_sub(END.len() - 1);
        if let Some(at) = END_FINDER.find(&input[from..]) {
            let body_end = from + at + 2;
            if self.dropped + body_end > limit {
                drop(input.split_to(body_end + 3));
                return Taken::TooLarge;
            }
            let raw = input.split_to(body_end).freeze();
            drop(input.split_to(3));
            return if has_only_crlf(&raw) { Taken::Whole(unstuffed(raw)) } else { Taken::BareLineEnd };
        }
        self.scanned = input.len();
        if self.dropped + input.len() > limit + END.len() {
            let gone = input.len() - (END.len() - 1);
            drop(input.split_to(gone));
            self.dropped += gone;
            self.scanned = input.len();
        }
        Taken::More
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn wire(body: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        wire_form(body, &mut out);
        out
    }

    /// The plain reading of "every line ends in CRLF", to compare with.
    fn normalised(body: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut bytes = body.iter().copied().peekable();
        while let Some(byte) = bytes.next() {
            match byte {
                b'\r' => {
                    bytes.next_if_eq(&b'\n');
                    out.extend_from_slice(b"\r\n");
                }
                b'\n' => out.extend_from_slice(b"\r\n"),
                _ => out.push(byte),
            }
        }
        if !out.is_empty() && !out.ends_with(b"\r\n") {
            out.extend_from_slice(b"\r\n");
        }
        out
    }

    #[test]
    fn dots_are_doubled_and_line_ends_made_crlf() {
        assert_eq!(wire(b"a\r\n.b\r\n"), b"a\r\n..b\r\n.\r\n");
        assert_eq!(wire(b"."), b"..\r\n.\r\n");
        assert_eq!(wire(b""), b".\r\n");
        assert_eq!(wire(b"a\n.\nb\r.\rc\n.\r\n"), b"a\r\n..\r\nb\r\n..\r\nc\r\n..\r\n.\r\n");
    }

    #[test]
    fn the_end_is_found_at_every_cut() {
        let whole = b"a\r\n..\r\n.b\r\r\n.\r\nQUIT\r\n".to_vec();
        let clean = b"a\r\n..\r\nbc\r\n.\r\nQUIT\r\n".to_vec();
        for cut in 0..clean.len() {
            let mut input = BytesMut::from(&clean[..cut]);
            let mut scanner = BodyScanner::default();
            let mut taken = scanner.take(&mut input, 1_000);
            input.extend_from_slice(&clean[cut..]);
            if taken == Taken::More {
                taken = scanner.take(&mut input, 1_000);
            }
            assert_eq!(taken, Taken::Whole(Bytes::from_static(b"a\r\n.\r\nbc\r\n")), "cut at {cut}");
            assert_eq!(&input[..], b"QUIT\r\n");
        }
        let mut input = BytesMut::from(&whole[..]);
        assert_eq!(BodyScanner::default().take(&mut input, 1_000), Taken::BareLineEnd);
    }

    #[test]
    fn bare_line_ends_are_no_end_of_message() {
        for smuggled in [&b"a\n.\nb"[..], b"a\r.\rb", b"a\n.\r\nb", b"a\r\n.\nb", b"a\r\n.\rb", b"a\r\n\0.\r\nb"] {
            let mut input = BytesMut::from(smuggled);
            assert_eq!(BodyScanner::default().take(&mut input, 1_000), Taken::More, "{smuggled:?}");
        }
    }

    #[test]
    fn a_message_over_the_limit_is_thrown_away_to_its_end() {
        let mut scanner = BodyScanner::default();
        let mut input = BytesMut::new();
        for _ in 0..1_000 {
            input.extend_from_slice(&[b'x'; 100]);
            assert_eq!(scanner.take(&mut input, 1_000), Taken::More);
            assert!(input.len() < 1_200);
        }
        input.extend_from_slice(b"\r\n.\r\nNOOP\r\n");
        assert_eq!(scanner.take(&mut input, 1_000), Taken::TooLarge);
        assert_eq!(&input[..], b"NOOP\r\n");
    }

    proptest! {
        #[test]
        fn any_body_is_one_message_at_any_chunking(
            body in prop::collection::vec(prop_oneof![
                4 => Just(b'\r'), 4 => Just(b'\n'), 4 => Just(b'.'), 2 => Just(b'a'), 1 => any::<u8>(),
            ], 0..200),
            step in 1_usize..20,
        ) {
            let sent = wire(&body);
            let (mut scanner, mut input, mut found) = (BodyScanner::default(), BytesMut::new(), Vec::new());
            for chunk in sent.chunks(step) {
                input.extend_from_slice(chunk);
                match scanner.take(&mut input, 10_000) {
                    Taken::More => {}
                    Taken::Whole(body) => found.push(body),
                    other => panic!("{other:?}"),
                }
            }
            prop_assert_eq!(found, vec![Bytes::from(normalised(&body))]);
            prop_assert!(input.is_empty());
        }
    }
}
