//! Addresses from outside: whatever somebody gives, what is taken is one mailbox at one domain, and the same text
//! everywhere it is written.

#![allow(clippy::unwrap_used, missing_docs)]

extern crate mailfleet_domain as domain;

use domain::{DomainName, EnvelopeSender, Mailbox, Slot};
use proptest::prelude::*;

/// What tricks are made of, and plain pieces that let some of them through.
#[rustfmt::skip]
const PIECES: [&str; 68] = [
    "a", "b.c", "example.com", "EXAMPLE.org", "@", "@", ".", "..", "-", "_", "+", "=", "!", "%", "/", "'", "*", "`",
    "{", "}", "|", "~", " ", "\t", "\r", "\n", "\r\n", "\0", "\u{b}", "\u{7f}", "\u{85}", "<", ">", "(", ")", "[",
    "]", "[127.0.0.1]", "\"", "\\", ",", ":", ";", "RCPT TO:<x@y.test>", "\r\nDATA\r\n", "127.0.0.1", "0x7f",
    "xn--", "xn--bcher-kva", "bücher", "bu\u{308}cher", "ß", "ς", "漢", "א", "\u{661}", "😀", "\u{3002}", "\u{ff0e}",
    "\u{ff20}", "\u{ff41}", "\u{2024}", "\u{212a}", "\u{ad}", "\u{200d}", "\u{202e}", "\u{2028}", "\u{e0041}",
];

fn text() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(&PIECES[..]).prop_map(str::to_owned);
    prop::collection::vec(prop_oneof![12 => piece, 1 => "\\PC{1,4}"], 1..12).prop_map(|pieces| pieces.concat())
}

/// Whether a text may stand between the angle brackets of a command, read by nobody's parser but this one.
fn is_one_path(text: &str) -> bool {
    let Some((local, domain)) = text.split_once('@') else { return false };
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let is_special = |c: char| c.is_whitespace() || c.is_control() || "<>()[]@,;:\\\"".contains(c);
    (1..=64).contains(&local.len())
        && !local.contains(is_special)
        && domain.split('.').count() >= 2
        && domain.split('.').all(is_label)
        && text.len() <= 254
}

proptest! {
    #[test]
    fn whatever_is_given_one_mailbox_is_taken_or_none(text in text()) {
        if let Ok(mailbox) = text.parse::<Mailbox>() {
            prop_assert!(is_one_path(mailbox.as_str()), "{:?}", mailbox.as_str());
            prop_assert_eq!(mailbox.to_string().parse::<Mailbox>(), Ok(mailbox.clone()));
            let sender = EnvelopeSender(Some(mailbox.clone()));
            prop_assert_eq!(sender.as_str(), mailbox.as_str());
            // The domain that policies and the resolver are asked about is the one that RCPT TO names.
            prop_assert_eq!(mailbox.as_str(), format!("{}@{}", mailbox.local(), mailbox.domain()));
        }
        if let Ok(domain) = text.parse::<DomainName>() {
            prop_assert!(is_one_path(&format!("a@{domain}")), "{:?}", domain);
            prop_assert_eq!(domain.to_string().parse::<DomainName>(), Ok(domain));
        }
    }

    #[test]
    fn what_is_stored_is_read_as_what_was_given(text in text()) {
        let json = serde_json::to_string(&text).unwrap();
        prop_assert_eq!(serde_json::from_str::<Mailbox>(&json).ok(), text.parse().ok());
        prop_assert_eq!(serde_json::from_str::<DomainName>(&json).ok(), text.parse().ok());
    }

    #[test]
    fn however_a_domain_is_spelled_it_is_one(
        labels in prop::collection::vec("[a-z0-9äöüñéгд漢字]{1,12}", 1..4), top in "[a-z]{2,6}",
        local in "[a-zA-Z0-9]{1,20}",
    ) {
        let plain = format!("{}.{top}", labels.join("."));
        let Ok(domain) = plain.parse::<DomainName>() else { return Ok(()) };
        for (ascii, given) in domain.as_str().split('.').zip(plain.split('.')) {
            prop_assert_eq!(given.is_ascii(), ascii == given);
            prop_assert!(given.is_ascii() || ascii.starts_with("xn--"));
        }
        let wide = plain.chars().map(|c| match c {
            '.' => '\u{3002}',
            'a'..='z' => char::from_u32(u32::from(c) + 0xfee0).unwrap(),
            _ => c,
        });
        let spelled = [plain.to_uppercase(), domain.to_string(), domain.to_string().to_uppercase(), wide.collect()];
        for spelled in spelled {
            prop_assert_eq!(spelled.parse::<DomainName>(), Ok(domain.clone()), "{}", spelled);
            let Ok(mailbox) = format!("{local}@{spelled}").parse::<Mailbox>() else { continue };
            prop_assert_eq!(mailbox.domain(), domain.clone());
            let lower = format!("{}@{domain}", local.to_lowercase()).parse::<Mailbox>().unwrap();
            prop_assert_eq!(mailbox.hash(), lower.hash());
        }
    }

    /// Slots come from the bus as numbers, and somebody's newer or broken one must not be taken on.
    #[test]
    fn a_number_is_a_slot_or_is_refused(number in prop_oneof![0_u16..200, any::<u16>()]) {
        let read = serde_json::from_str::<Slot>(&number.to_string());
        prop_assert_eq!(read.is_ok(), usize::from(number) < Slot::all().count());
        if let Ok(slot) = read {
            prop_assert_eq!(i32::from(slot.code()), i32::from(number));
            prop_assert_eq!(slot.to_string().parse::<Slot>(), Ok(slot));
            prop_assert_eq!(serde_json::to_string(&slot).unwrap(), number.to_string());
        }
    }
}
