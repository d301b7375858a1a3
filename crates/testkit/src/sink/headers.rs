//! The two header fields that tell which message a copy is of.

/// What the header of a message says of its identity.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Identity {
    /// `X-Mailfleet-Id`.
    pub(super) fleet_id: Option<String>,
    /// `Message-ID`, angle brackets and all.
    pub(super) message_id: Option<String>,
}

impl Identity {
    /// Reads the header up to the empty line.
    pub(super) fn of(message: &[u8]) -> Self {
        let mut found = Self::default();
        let mut lines = message.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii_end).peekable();
        while let Some(line) = lines.next() {
            if line.is_empty() || (found.fleet_id.is_some() && found.message_id.is_some()) {
                break;
            }
            let (slot, value) = if let Some(value) = field(line, b"message-id:") {
                (&mut found.message_id, value)
            } else if let Some(value) = field(line, b"x-mailfleet-id:") {
                (&mut found.fleet_id, value)
            } else {
                continue;
            };
            let folded = lines.peek().filter(|next| matches!(next.first(), Some(b' ' | b'\t')));
            let value = if value.is_empty() { folded.map_or(value, |next| next.trim_ascii()) } else { value };
            if !value.is_empty() && slot.is_none() {
                *slot = Some(String::from_utf8_lossy(value).into_owned());
            }
        }
        found
    }

    /// The one by which copies are told apart.
    pub(super) fn key(&self) -> Option<&str> {
        self.fleet_id.as_deref().or(self.message_id.as_deref())
    }
}

fn field<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (head, value) = line.split_at_checked(name.len())?;
    head.eq_ignore_ascii_case(name).then(|| value.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_read_folded_or_not_and_the_body_is_not() {
        let folded = Identity::of(
            b"From: a\r\nMESSAGE-ID:\r\n <1@a.test>\r\nX-Mailfleet-Id: abc\r\n\r\nMessage-ID: <2@b.test>\r\n",
        );
        assert_eq!(folded.message_id.as_deref(), Some("<1@a.test>"));
        assert_eq!(folded.key(), Some("abc"));
        assert_eq!(Identity::of(b"From: a\r\n\r\nMessage-ID: <2@b.test>\r\n"), Identity::default());
    }
}
