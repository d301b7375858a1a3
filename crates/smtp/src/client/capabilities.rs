//! What a peer offers in its answer to `EHLO`.

/// The extensions that this client makes use of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// RFC 2920.
    pub pipelining: bool,
    /// RFC 6152.
    pub eight_bit_mime: bool,
    /// RFC 6531.
    pub smtputf8: bool,
    /// RFC 3207.
    pub starttls: bool,
    /// RFC 1870: offered, and the limit in octets unless it is 0 or left out.
    pub size: Option<Option<u64>>,
    /// RFC 4616, mechanism PLAIN.
    pub auth_plain: bool,
    /// The old mechanism LOGIN.
    pub auth_login: bool,
}

impl Capabilities {
    /// Reads all lines of the answer; the first one only greets.
    pub(crate) fn from_wire(wire: &[u8]) -> Self {
        let mut found = Self::default();
        let text = String::from_utf8_lossy(wire);
        for line in text.lines().skip(1) {
            let mut words = line.get(4..).unwrap_or_default().split_ascii_whitespace();
            let Some(keyword) = words.next() else { continue };
            match keyword.to_ascii_uppercase().as_str() {
                "PIPELINING" => found.pipelining = true,
                "8BITMIME" => found.eight_bit_mime = true,
                "SMTPUTF8" => found.smtputf8 = true,
                "STARTTLS" => found.starttls = true,
                "SIZE" => found.size = Some(words.next().and_then(|word| word.parse().ok()).filter(|size| *size > 0)),
                "AUTH" => found.mechanisms(words),
                // `AUTH=LOGIN PLAIN`, from before RFC 4954.
                other if other.starts_with("AUTH=") => found.mechanisms(std::iter::once(&keyword[5..]).chain(words)),
                _ => {}
            }
        }
        found
    }

    fn mechanisms<'a>(&mut self, words: impl Iterator<Item = &'a str>) {
        for word in words {
            self.auth_plain |= word.eq_ignore_ascii_case("PLAIN");
            self.auth_login |= word.eq_ignore_ascii_case("LOGIN");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keywords_are_read_in_any_case_and_the_greeting_is_not_one() {
        let found = Capabilities::from_wire(
            b"250-PIPELINING hello\r\n250-size 1000\r\n250-8BITMIME\r\n250-AUTH=LOGIN\r\n250-X\xff\r\n250 auth plain\r\n",
        );
        let expected = Capabilities {
            eight_bit_mime: true,
            size: Some(Some(1_000)),
            auth_plain: true,
            auth_login: true,
            ..Capabilities::default()
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn a_size_of_zero_or_nonsense_is_no_limit() {
        for line in [&b"250-x\r\n250 SIZE 0\r\n"[..], b"250-x\r\n250 SIZE\r\n", b"250-x\r\n250 SIZE -5\r\n"] {
            assert_eq!(Capabilities::from_wire(line).size, Some(None));
        }
    }
}
