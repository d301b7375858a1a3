//! Names, ids, keys and addresses.

use super::Violation;
use content::Language;
use domain::{AddressError, CampaignId, Mailbox};
use proto::v1::ErrorReason;
use std::str::FromStr;

/// Longest name of a tenant, template or key, in characters.
pub const MAX_NAME: usize = 100;
/// Longest idempotency key, in characters.
pub const MAX_KEY: usize = 128;
/// The text form of a UUID that is taken.
const UUID_LEN: usize = 36;

/// A name that stands in commands and addresses: `a-z A-Z 0-9 . _ -`, not the form of an id.
///
/// # Errors
/// The fault.
pub fn name(field: &str, text: &str) -> Result<String, Violation> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if text.is_empty() || text.len() > MAX_NAME || !text.bytes().all(plain) {
        return Err(Violation::new(
            field,
            format!("is not a name; give 1 to {MAX_NAME} characters of a-z, A-Z, 0-9, dot, underscore and hyphen"),
        ));
    }
    if domain::TemplateId::from_str(text).is_ok() {
        return Err(Violation::new(field, "has the form of an id; give a name that cannot be taken for one"));
    }
    Ok(text.to_owned())
}

/// An id as answers write it.
///
/// # Errors
/// The fault.
pub fn id<T: FromStr>(field: &str, text: &str) -> Result<T, Violation> {
    let fault = || Violation::new(field, "is not an id; give it as the answer wrote it: 36 characters, a UUID");
    if text.len() != UUID_LEN {
        return Err(fault());
    }
    text.parse().map_err(|_| fault())
}

/// An id that may be left out.
///
/// # Errors
/// The fault.
pub fn optional_id<T: FromStr>(field: &str, text: &str) -> Result<Option<T>, Violation> {
    if text.is_empty() { Ok(None) } else { id(field, text).map(Some) }
}

/// A campaign: a UUID of the caller's choosing but the nil one, which stands for none.
///
/// # Errors
/// The fault.
pub fn campaign(field: &str, text: &str) -> Result<Option<CampaignId>, Violation> {
    match optional_id::<CampaignId>(field, text)? {
        Some(id) if id.as_uuid().as_bytes() == &[0; 16] => {
            Err(Violation::new(field, "is the nil UUID; choose another, or leave it out"))
        }
        campaign => Ok(campaign),
    }
}

/// An idempotency key; `None` when empty.
///
/// # Errors
/// The fault.
pub fn idempotency_key(field: &str, text: &str) -> Result<Option<String>, Violation> {
    if text.is_empty() {
        return Ok(None);
    }
    if text.len() > MAX_KEY || !text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ') {
        return Err(Violation::new(
            field,
            format!("is not a key; give 1 to {MAX_KEY} printable ASCII characters, a UUID for example"),
        ));
    }
    Ok(Some(text.to_owned()))
}

/// A language; `None` when empty.
///
/// # Errors
/// The fault.
pub fn language(field: &str, text: &str) -> Result<Option<Language>, Violation> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|error| {
        let description = format!("{error}; give one such as de or pt-BR (BCP 47), or leave it empty");
        Violation::of(ErrorReason::LanguageInvalid, field, description)
    })
}

/// An address.
///
/// # Errors
/// The fault.
pub fn email(field: impl Into<String>, text: &str) -> Result<Mailbox, Violation> {
    text.parse::<Mailbox>().map_err(|error| {
        let fix = match error {
            AddressError::Empty | AddressError::NotOneAt => "give local@domain",
            AddressError::TooLong => "give a shorter one",
            AddressError::LocalCharacter | AddressError::LocalDots => "give the plain form local@domain",
            AddressError::Domain => "give a domain name that can stand in DNS",
        };
        Violation::of(ErrorReason::RecipientInvalid, field, format!("{error}; {fix}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_with_tricks_are_refused() {
        let long = format!("{}@example.com", "x".repeat(65));
        for bad in [
            "",
            "plain",
            "a@b@example.com",
            "a@example.com\r\nRCPT TO:<b@example.com>",
            "a@example.com,b@example.com",
            "a(comment)@example.com",
            "\"quoted\"@example.com",
            "<a@example.com>",
            "@route:a@example.com",
            "group:a@example.com;",
            "a b@example.com",
            "a@[127.0.0.1]",
            "a@127.0.0.1",
            "a@localhost",
            "a\u{202e}b@example.com",
            "a\u{200b}@example.com",
            "a@exam\u{202e}ple.com",
            "a@exa mple.com",
            "a@example..com",
            "a@-example.com",
            ".a@example.com",
            "a\0@example.com",
            &long,
        ] {
            let fault = email("email", bad).expect_err(bad);
            assert_eq!(fault.reason, ErrorReason::RecipientInvalid);
            assert!(bad.is_empty() || !fault.description.contains(bad), "the value is repeated");
        }
    }

    #[test]
    fn what_is_checked_is_what_is_delivered_to() {
        let mailbox = email("email", "jörg@BÜCHER.example").expect("is an address");
        assert_eq!(mailbox.domain_str(), "xn--bcher-kva.example");
        assert!(mailbox.needs_smtputf8());
    }

    #[test]
    fn keys_are_printable_and_short() {
        assert_eq!(idempotency_key("k", ""), Ok(None));
        assert_eq!(idempotency_key("k", "order 17/a"), Ok(Some("order 17/a".to_owned())));
        for bad in ["a\nb", "ä", &"x".repeat(129)] {
            assert!(idempotency_key("k", bad).is_err());
        }
    }

    #[test]
    fn names_cannot_be_taken_for_ids() {
        assert!(name("name", "welcome-1.de_AT").is_ok());
        for bad in ["", "a b", "a/b", "ä", "a\n", &"x".repeat(101), "01890a5d-ac96-774b-bcce-b302099a8057"] {
            assert!(name("name", bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_nil_campaign_is_refused() {
        assert!(campaign("c", "00000000-0000-0000-0000-000000000000").is_err());
        assert_eq!(campaign("c", ""), Ok(None));
        assert!(campaign("c", "{01890a5d-ac96-774b-bcce-b302099a8057}").is_err());
        assert!(campaign("c", "01890a5d-ac96-774b-bcce-b302099a8057").is_ok_and(|id| id.is_some()));
    }
}
