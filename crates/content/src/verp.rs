//! Return paths that name their message.

use domain::{DomainName, Mailbox, MessageId};
use std::str::FromStr;

/// What the local part of a return path starts with.
const PREFIX: &str = "bounce+";

/// The envelope sender of `message` under `domain`: `bounce+<32 hexadecimal digits>@domain`.
pub fn return_path(message: MessageId, domain: &DomainName) -> Option<Mailbox> {
    Mailbox::from_str(&format!("{PREFIX}{}@{}", message.as_uuid().simple(), domain.as_str())).ok()
}

/// The message that a bounce to this address is about. Anybody can write such an address: what it says is
/// a hint until the message is found and was sent from that domain.
pub fn message_of_return_path(mailbox: &Mailbox) -> Option<MessageId> {
    let local = mailbox.local().to_ascii_lowercase();
    local.strip_prefix(PREFIX)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_return_path_names_its_message_however_its_case_was_changed(
            id in any::<u128>(), domain in "([a-z0-9]{1,20}\\.|bücher\\.){1,8}[a-z]{2,6}",
        ) {
            let message: MessageId = format!("{id:032x}").parse().unwrap();
            let domain: DomainName = domain.parse().unwrap();
            let path = return_path(message, &domain).unwrap();
            prop_assert_eq!(path.domain(), domain);
            prop_assert!(path.as_str().is_ascii() && !path.needs_smtputf8());
            let shouted: Mailbox = path.as_str().to_uppercase().parse().unwrap();
            prop_assert_eq!([message_of_return_path(&path), message_of_return_path(&shouted)], [Some(message); 2]);
        }

        #[test]
        fn any_other_address_names_none(local in "(bounce|bounce\\+|BOUNCE\\+|bounces\\+)?[0-9a-fg{}+-]{1,40}") {
            let Ok(mailbox) = format!("{local}@example.com").parse::<Mailbox>() else { return Ok(()) };
            if let Some(message) = message_of_return_path(&mailbox) {
                let digits: String = local.chars().filter(char::is_ascii_hexdigit).collect();
                let id = message.as_uuid().simple().to_string();
                prop_assert!(local.to_lowercase().starts_with("bounce+") && digits.to_lowercase().ends_with(&id));
            }
        }
    }

    #[test]
    fn a_domain_that_leaves_no_room_has_no_return_paths() {
        let long: DomainName = format!("{}com", "xxxxxxxxxxxxxxx.".repeat(15)).parse().unwrap();
        assert_eq!(return_path(MessageId::from_uuid(Default::default()), &long), None);
    }
}
