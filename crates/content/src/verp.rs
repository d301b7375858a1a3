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
