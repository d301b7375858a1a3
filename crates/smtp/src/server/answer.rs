//! What a handler answers.

use std::borrow::Cow;

/// A reply and what becomes of the connection behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The code, 200 to 599.
    pub code: u16,
    /// One line, its enhanced status code first. Line ends in it are taken out.
    pub text: Cow<'static, str>,
    /// What follows.
    pub then: Then,
}

/// What becomes of the connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Then {
    /// It goes on.
    #[default]
    Continue,
    /// It is closed once the reply is out.
    Close,
    /// It is closed and the reply is not sent.
    CloseSilently,
    /// It is reset (TCP RST) and the reply is not sent.
    Reset,
    /// The body is read up to so many octets; then the connection is reset, or at the final dot if that
    /// comes first. Has a meaning only in the answer to `DATA`.
    ResetInBody(usize),
}

impl Answer {
    /// A reply after which the session goes on.
    pub const fn new(code: u16, text: &'static str) -> Self {
        Self { code, text: Cow::Borrowed(text), then: Then::Continue }
    }

    /// A reply with words made up on the spot.
    pub const fn owned(code: u16, text: String) -> Self {
        Self { code, text: Cow::Owned(text), then: Then::Continue }
    }

    /// The same with another sequel.
    #[must_use]
    pub fn then(self, then: Then) -> Self {
        Self { then, ..self }
    }

    /// Whether it grants what was asked.
    pub fn is_positive(&self) -> bool {
        matches!(self.code, 200..400)
    }

    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        let digits = self.code.clamp(200, 599);
        out.extend([digits / 100, digits / 10 % 10, digits % 10].map(|digit| b'0' + digit as u8));
        out.push(b' ');
        out.extend(self.text.bytes().map(|byte| if matches!(byte, b'\r' | b'\n' | 0) { b' ' } else { byte }));
        out.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_one_line_whatever_its_text() {
        let mut out = Vec::new();
        Answer::owned(550, "5.1.1 no\r\n250 yes".into()).write(&mut out);
        assert_eq!(out, b"550 5.1.1 no  250 yes\r\n");
    }
}
