//! Addresses as SMTP carries them.
//!
//! Only `dot-string@domain` is taken (RFC 5321, 4.1.2; RFC 6531, 3.3 for UTF-8 local parts). Quoted
//! local parts, comments, groups, source routes and address literals are refused: nobody needs them to
//! be reached, and each has let one library check a domain that another then did not deliver to.

use crate::text::is_deceptive;
use idna::uts46::{AsciiDenyList, DnsLength, Hyphens, Uts46};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{fmt, str::FromStr};
use uuid::Uuid;

/// Longest local part in octets (RFC 5321, 4.5.3.1.1).
const MAX_LOCAL: usize = 64;
/// Longest address in octets: a path of 256 less its angle brackets (RFC 5321, 4.5.3.1.3).
const MAX_ADDRESS: usize = 254;

/// Why a text is not an address or a domain. The text itself is never repeated, since it may be logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Nothing was given.
    #[error("is empty")]
    Empty,
    /// More than 254 octets, or a local part over 64.
    #[error("is too long; an address has at most 254 octets, its local part at most 64")]
    TooLong,
    /// No `@`, or more than one.
    #[error("must have exactly one @")]
    NotOneAt,
    /// A space, control character, or other character that a plain local part cannot hold.
    #[error(
        "has a character that a plain local part cannot hold; quoted local parts, comments, groups and routes are not taken"
    )]
    LocalCharacter,
    /// Dots at an end of the local part, or two in a row.
    #[error("has a local part with a dot at its end or two in a row")]
    LocalDots,
    /// Not a domain name of two or more labels that has an A-label form.
    #[error("has a domain that is not a valid host name of two or more labels")]
    Domain,
}

/// A domain name of two or more labels, lower case, as A-labels (RFC 5890, 2.3.2.1).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DomainName(String);

impl DomainName {
    /// The name as A-labels, without a final dot.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this name is `parent` or lies below it.
    pub fn is_within(&self, parent: &str) -> bool {
        self.0 == parent || self.0.strip_suffix(parent).is_some_and(|head| head.ends_with('.'))
    }
}

impl FromStr for DomainName {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if text.is_empty() {
            return Err(AddressError::Empty);
        }
        if text.len() > 1_000 {
            return Err(AddressError::TooLong);
        }
        // UTS 46 drops what cannot be seen; what somebody read would then not be what is delivered to.
        if text.chars().any(is_deceptive) {
            return Err(AddressError::Domain);
        }
        // UTS 46, non-transitional, letters, digits and hyphens only: bidi and look-alike tricks that are
        // no valid label fail here, and what is checked is what is delivered to.
        let ascii = Uts46::new()
            .to_ascii(text.as_bytes(), AsciiDenyList::STD3, Hyphens::CheckFirstLast, DnsLength::Verify)
            .map_err(|_| AddressError::Domain)?
            .into_owned();
        let top = ascii.rsplit_once('.').ok_or(AddressError::Domain)?.1;
        // No top label is a number (RFC 3696, 2); some libraries read one as part of an IPv4 address, `0x7f` too.
        if top.starts_with("0x") || top.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(AddressError::Domain);
        }
        Ok(Self(ascii))
    }
}

/// A mailbox: `local@domain`, the domain as A-labels, the local part as it was given.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mailbox {
    address: String,
    at: u8,
}

impl Mailbox {
    /// `local@domain`, fit for MAIL FROM and RCPT TO between angle brackets.
    pub fn as_str(&self) -> &str {
        &self.address
    }

    /// The part before the `@`.
    pub fn local(&self) -> &str {
        &self.address[..usize::from(self.at)]
    }

    /// The domain as A-labels.
    pub fn domain(&self) -> DomainName {
        DomainName(self.domain_str().to_owned())
    }

    /// The domain as A-labels, borrowed.
    pub fn domain_str(&self) -> &str {
        &self.address[usize::from(self.at) + 1..]
    }

    /// Whether the local part needs SMTPUTF8 (RFC 6531, 3.3).
    pub fn needs_smtputf8(&self) -> bool {
        !self.address.is_ascii()
    }

    /// The key under which this recipient is suppressed and found: the same for the address in lower case. `ß` and `ss`
    /// are two mailboxes.
    pub fn hash(&self) -> AddressHash {
        let mut hash = Sha256::new();
        hash.update(self.local().to_lowercase().as_bytes());
        hash.update(b"@");
        hash.update(self.domain_str().as_bytes());
        let mut head = [0; 16];
        head.copy_from_slice(&hash.finalize()[..16]);
        AddressHash(Uuid::from_bytes(head))
    }
}

impl FromStr for Mailbox {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if text.is_empty() {
            return Err(AddressError::Empty);
        }
        let (local, domain) = text.split_once('@').ok_or(AddressError::NotOneAt)?;
        if domain.contains('@') {
            return Err(AddressError::NotOneAt);
        }
        if local.len() > MAX_LOCAL {
            return Err(AddressError::TooLong);
        }
        if local.is_empty() || !local.chars().all(|c| c == '.' || is_atext(c)) {
            return Err(AddressError::LocalCharacter);
        }
        if local.starts_with('.') || local.ends_with('.') || local.contains("..") {
            return Err(AddressError::LocalDots);
        }
        let domain: DomainName = domain.parse().map_err(|error| match error {
            AddressError::TooLong => AddressError::TooLong,
            _ => AddressError::Domain,
        })?;
        let address = format!("{local}@{}", domain.as_str());
        if address.len() > MAX_ADDRESS {
            return Err(AddressError::TooLong);
        }
        let at = u8::try_from(local.len()).expect("a local part has at most 64 octets");
        Ok(Self { address, at })
    }
}

/// `atext` of RFC 5322, 3.2.3, with the UTF-8 of RFC 6532, 3.2, less what only misleads a reader:
/// controls, spaces, and the characters that turn or hide text.
fn is_atext(c: char) -> bool {
    match c {
        'a'..='z' | 'A'..='Z' | '0'..='9' => true,
        _ if c.is_ascii() => "!#$%&'*+-/=?^_`{|}~".contains(c),
        // Wide and small forms of ASCII: somebody's normalisation would make an `@` or a comma of them.
        '\u{fe50}'..='\u{fe6f}' | '\u{ff00}'..='\u{ff5e}' => false,
        // Private use, and code points that are no characters.
        '\u{e000}'..='\u{f8ff}' | '\u{fdd0}'..='\u{fdef}' | '\u{f0000}'.. => false,
        _ => !c.is_whitespace() && !is_deceptive(c),
    }
}

/// The first 16 octets of SHA-256 over the lower-cased address: names a recipient in tables and logs
/// without telling who it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AddressHash(Uuid);

impl AddressHash {
    /// The hash with this value.
    pub const fn from_uuid(value: Uuid) -> Self {
        Self(value)
    }

    /// The value, for Postgres.
    pub const fn as_uuid(&self) -> Uuid {
        self.0
    }
}

/// The `MAIL FROM` address; `None` is the null sender `<>` of a DSN, so that a bounce cannot bounce
/// (RFC 5321, 4.5.5).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvelopeSender(pub Option<Mailbox>);

impl EnvelopeSender {
    /// What stands between the angle brackets.
    pub fn as_str(&self) -> &str {
        self.0.as_ref().map_or("", Mailbox::as_str)
    }
}

macro_rules! text {
    ($name:ident) => {
        impl TryFrom<String> for $name {
            type Error = AddressError;

            fn try_from(text: String) -> Result<Self, AddressError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> String {
                value.to_string()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}
text!(DomainName);
text!(Mailbox);

impl fmt::Debug for DomainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<redacted:{}>", &self.hash().0.simple().to_string()[..8])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn plain_addresses_are_taken_and_their_domain_becomes_what_is_looked_up() {
        for (given, taken) in [
            ("a@example.com", "a@example.com"),
            ("First.Last+tag@Example.COM", "First.Last+tag@example.com"),
            ("o'hara=x@sub.example.org", "o'hara=x@sub.example.org"),
            ("jörg@bücher.example", "jörg@xn--bcher-kva.example"),
            ("用户@例子.测试", "用户@xn--fsqu00a.xn--0zwm56d"),
            ("a@xn--bcher-kva.example", "a@xn--bcher-kva.example"),
            // UTS 46 maps before it checks; what comes out is what is delivered to.
            ("a@ｅxample.com", "a@example.com"),
            ("a@example。com", "a@example.com"),
        ] {
            assert_eq!(given.parse::<Mailbox>().unwrap().as_str(), taken);
        }
        assert!("jörg@example.com".parse::<Mailbox>().unwrap().needs_smtputf8());
        assert!(!"jorg@bücher.example".parse::<Mailbox>().unwrap().needs_smtputf8());
    }

    #[test]
    fn hostile_addresses_are_refused_and_never_repeated() {
        use AddressError::*;
        let long_local = format!("{}@example.com", "x".repeat(65));
        let long_label = format!("a@{}.com", "x".repeat(64));
        let long_domain = format!("a@{}com", "xxxxxxx.".repeat(32));
        let long_address = format!("{}@{}.com", "x".repeat(64), "y.".repeat(93) + "yyyyyyyy");
        for (hostile, why) in [
            ("", Empty),
            ("a", NotOneAt),
            ("a@b@example.com", NotOneAt),
            ("a@example.com@", NotOneAt),
            ("@example.com", LocalCharacter),
            ("a@", Domain),
            ("a@localhost", Domain),
            ("a b@example.com", LocalCharacter),
            ("a@example.com\r\nRCPT TO:<x@example.org>", NotOneAt),
            ("a\r\nDATA@example.com", LocalCharacter),
            ("a\n@example.com", LocalCharacter),
            ("a@exa\rmple.com", Domain),
            ("a@example.com\n", Domain),
            (" a@example.com", LocalCharacter),
            ("a@example.com ", Domain),
            ("a\0@example.com", LocalCharacter),
            ("a@exa\0mple.com", Domain),
            ("a(comment)@example.com", LocalCharacter),
            ("a@(comment)example.com", Domain),
            ("a@example.com(comment)", Domain),
            ("<a@example.com>", LocalCharacter),
            ("Name <a@example.com>", LocalCharacter),
            ("\"a b\"@example.com", LocalCharacter),
            ("\"a\"@example.com", LocalCharacter),
            ("a\\@example.com", LocalCharacter),
            ("@relay.example,@b.example:a@example.com", NotOneAt),
            ("group:a@example.com;", LocalCharacter),
            ("group:a@example.com,b@example.com;", NotOneAt),
            ("a,b@example.com", LocalCharacter),
            (".a@example.com", LocalDots),
            ("a.@example.com", LocalDots),
            ("a..b@example.com", LocalDots),
            ("a@.example.com", Domain),
            ("a@example..com", Domain),
            ("a@example.com.", Domain),
            ("a@-example.com", Domain),
            ("a@exa_mple.com", Domain),
            ("a@exa%2emple.com", Domain),
            ("a@example.com:25", Domain),
            ("a@[127.0.0.1]", Domain),
            ("a@[IPv6:::1]", Domain),
            ("a@127.0.0.1", Domain),
            ("a@127.0.0.0x1", Domain),
            ("a@１２７.0.0.1", Domain),
            ("a\u{202e}b@example.com", LocalCharacter),
            ("a\u{200b}b@example.com", LocalCharacter),
            ("a\u{ff20}b@example.com", LocalCharacter),
            ("a\u{e0041}@example.com", LocalCharacter),
            ("a@exa\u{202e}mple.com", Domain),
            ("a@exa\u{200d}mple.com", Domain),
            ("a@xn--a.com", Domain),
            ("a@xn--\u{fc}.com", Domain),
            ("a@אa.com", Domain),
            ("a@\u{301}example.com", Domain),
            (&long_local, TooLong),
            (&long_label, Domain),
            (&long_domain, Domain),
            (&long_address, TooLong),
        ] {
            let refused = hostile.parse::<Mailbox>();
            assert_eq!(refused, Err(why), "{}", hostile.escape_debug());
        }
        assert_eq!("x".repeat(5_000).parse::<DomainName>(), Err(TooLong));
    }

    #[test]
    fn an_address_is_shown_by_its_hash_alone() {
        let mailbox: Mailbox = "someone@example.com".parse().unwrap();
        assert!(!format!("{mailbox:?}").contains("someone"));
        assert_eq!(mailbox.hash(), "SomeOne@EXAMPLE.com".parse::<Mailbox>().unwrap().hash());
    }

    fn assert_fit(mailbox: &Mailbox) -> Result<(), TestCaseError> {
        let text = mailbox.as_str();
        prop_assert_eq!(text.parse::<Mailbox>(), Ok(mailbox.clone()));
        prop_assert!(text.len() <= MAX_ADDRESS && mailbox.local().len() <= MAX_LOCAL);
        prop_assert!(!text.contains(|c: char| c.is_whitespace() || is_deceptive(c) || "<>()[],;:\\\"".contains(c)));
        // What was checked is what RCPT TO names and the resolver looks up.
        prop_assert_eq!(text, format!("{}@{}", mailbox.local(), mailbox.domain()));
        prop_assert!(mailbox.domain().as_str() == mailbox.domain_str());
        prop_assert!(mailbox.domain_str().bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.')));
        prop_assert_eq!(mailbox.domain_str().parse::<DomainName>(), Ok(mailbox.domain()));
        Ok(())
    }

    proptest! {
        #[test]
        fn what_is_taken_is_fit_for_the_wire(text in ".{0,40}@.{0,40}") {
            if let Ok(mailbox) = text.parse::<Mailbox>() {
                assert_fit(&mailbox)?;
            }
        }

        #[test]
        fn an_address_survives_being_written(
            local in "[a-zA-Z0-9!#$%&'*+/=?^_`{|}~äñ漢-]{1,10}(\\.[a-z0-9+]{1,8}){0,3}", domain in "([a-z0-9äñ漢]{1,12}\\.){1,4}[a-z]{2,6}",
        ) {
            let mailbox = format!("{local}@{domain}").parse::<Mailbox>();
            prop_assume!(mailbox.is_ok());
            assert_fit(&mailbox.unwrap())?;
        }
    }
}
