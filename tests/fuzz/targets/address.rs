//! Any text as an address: what is taken is fit for the wire and stays itself.
#![no_main]

use domain::verp::{message_of_return_path, return_path};
use domain::{DomainName, Mailbox, MessageId, TokenKeys};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(domain) = text.parse::<DomainName>() {
        assert_eq!(domain.as_str().parse(), Ok(domain.clone()));
        assert!(domain.as_str().bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.')));
        assert!(domain.as_str().contains('.') && domain.as_str().len() <= 253);
        let message: MessageId = "019a0000-0000-7000-8000-000000000001".parse().expect("an id");
        let keys = TokenKeys::new([7; 32], []);
        for keys in [None, Some(&keys)] {
            if let Some(path) = return_path(message, &domain, keys) {
                let named = message_of_return_path(&path, keys);
                assert_eq!((named, path.domain()), (Some(message), domain.clone()));
            }
        }
    }
    let Ok(mailbox) = text.parse::<Mailbox>() else { return };
    let written = mailbox.as_str();
    assert_eq!(written.parse(), Ok(mailbox.clone()));
    assert_eq!(written, format!("{}@{}", mailbox.local(), mailbox.domain()));
    assert_eq!(mailbox.domain_str().parse(), Ok(mailbox.domain()));
    assert!(!written.contains(|c: char| c.is_control() || c.is_whitespace() || "<>()[],;:\\\"".contains(c)));
    assert!(written.len() <= 254 && mailbox.local().len() <= 64 && written.matches('@').count() == 1);
    // Beyond ASCII upper case may be another mailbox: that of `ß` is `SS`.
    for other in [written.to_ascii_uppercase(), written.to_lowercase()] {
        assert_eq!(mailbox.hash(), other.parse().map_or(mailbox.hash(), |other: Mailbox| other.hash()));
    }
    if let Some(message) = message_of_return_path(&mailbox, None) {
        let again = return_path(message, &mailbox.domain(), None).expect("as short as this one, or shorter");
        assert_eq!(message_of_return_path(&again, None), Some(message));
    }
});
