//! Addresses that name their message: its return path, and where its recipient unsubscribes by mail.

use crate::{DomainName, Mailbox, MessageId, TokenKeys};
use std::str::FromStr;

/// What the local part of a return path starts with.
const PREFIX: &str = "bounce+";
/// What the local part of an address to unsubscribe at starts with.
const MAILTO_PREFIX: &str = "unsubscribe+";

/// The envelope sender of `message` under `domain`: `bounce+<50 hexadecimal digits>@domain`, signed. Without keys it
/// is `bounce+<32 hexadecimal digits>@domain`, which anybody can write.
pub fn return_path(message: MessageId, domain: &DomainName, keys: Option<&TokenKeys>) -> Option<Mailbox> {
    let name = match keys {
        Some(keys) => keys.seal_return(message),
        None => message.as_uuid().simple().to_string(),
    };
    Mailbox::from_str(&format!("{PREFIX}{name}@{}", domain.as_str())).ok()
}

/// The message that a bounce to this address is about. With keys, only one that they have signed. Without, what the
/// address says is a hint until the message is found and was sent from that domain.
pub fn message_of_return_path(mailbox: &Mailbox, keys: Option<&TokenKeys>) -> Option<MessageId> {
    let local = mailbox.local().to_ascii_lowercase();
    let name = local.strip_prefix(PREFIX)?;
    match keys {
        Some(keys) => keys.open_return(name),
        None => name.parse().ok(),
    }
}

/// Where the recipient of `message` unsubscribes by mail: `unsubscribe+<50 hexadecimal digits>@domain`, signed.
pub fn unsubscribe_address(message: MessageId, domain: &DomainName, keys: &TokenKeys) -> Option<Mailbox> {
    Mailbox::from_str(&format!("{MAILTO_PREFIX}{}@{}", keys.seal_mailto(message), domain.as_str())).ok()
}

/// The message whose recipient unsubscribes by a mail to this address; `None` when the keys have not signed it.
pub fn message_of_unsubscribe_address(mailbox: &Mailbox, keys: &TokenKeys) -> Option<MessageId> {
    keys.open_mailto(mailbox.local().to_ascii_lowercase().strip_prefix(MAILTO_PREFIX)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn keys() -> TokenKeys {
        TokenKeys::new([7; 32], [])
    }

    proptest! {
        #[test]
        fn a_return_path_names_its_message_however_its_case_was_changed(
            id in any::<u128>(), domain in "([a-z0-9]{1,20}\\.|bücher\\.){1,8}[a-z]{2,6}", signed in any::<bool>(),
        ) {
            let message: MessageId = format!("{id:032x}").parse().unwrap();
            let domain: DomainName = domain.parse().unwrap();
            let used = signed.then(keys);
            let path = return_path(message, &domain, used.as_ref()).unwrap();
            prop_assert_eq!(&path.domain(), &domain);
            prop_assert!(path.as_str().is_ascii() && !path.needs_smtputf8());
            let shouted: Mailbox = path.as_str().to_uppercase().parse().unwrap();
            let named = [&path, &shouted].map(|path| message_of_return_path(path, used.as_ref()));
            prop_assert_eq!(named, [Some(message); 2]);
            let leave = unsubscribe_address(message, &domain, &keys()).unwrap();
            prop_assert_eq!(message_of_unsubscribe_address(&leave, &keys()), Some(message));
            prop_assert_eq!(message_of_unsubscribe_address(&path, &keys()), None);
            prop_assert_eq!(message_of_return_path(&leave, Some(&keys())), None);
        }

        #[test]
        fn any_other_address_names_none(local in "(bounce|bounce\\+|BOUNCE\\+|bounces\\+)?[0-9a-fg{}+-]{1,40}") {
            let Ok(mailbox) = format!("{local}@example.com").parse::<Mailbox>() else { return Ok(()) };
            prop_assert_eq!(message_of_return_path(&mailbox, Some(&keys())), None);
            if let Some(message) = message_of_return_path(&mailbox, None) {
                let digits: String = local.chars().filter(char::is_ascii_hexdigit).collect();
                let id = message.as_uuid().simple().to_string();
                prop_assert!(local.to_lowercase().starts_with("bounce+") && digits.to_lowercase().ends_with(&id));
            }
        }
    }

    #[test]
    fn a_bare_id_names_a_message_only_where_there_are_no_keys() {
        let (message, domain) = (MessageId::from_uuid(Default::default()), "example.com".parse().unwrap());
        let bare = return_path(message, &domain, None).unwrap();
        let signed = return_path(message, &domain, Some(&keys())).unwrap();
        assert_eq!(message_of_return_path(&bare, None), Some(message));
        assert_eq!(message_of_return_path(&bare, Some(&keys())), None);
        assert_eq!(message_of_return_path(&signed, None), None);
        assert_eq!(message_of_return_path(&signed, Some(&TokenKeys::new([8; 32], []))), None, "another fleet's");
        let rotated = TokenKeys::new([8; 32], [[7; 32]]);
        assert_eq!(message_of_return_path(&signed, Some(&rotated)), Some(message));
    }

    #[test]
    fn a_domain_that_leaves_no_room_has_no_return_paths() {
        let long: DomainName = format!("{}com", "xxxxxxxxxxxxxxx.".repeat(15)).parse().unwrap();
        assert_eq!(return_path(MessageId::from_uuid(Default::default()), &long, Some(&keys())), None);
    }
}
