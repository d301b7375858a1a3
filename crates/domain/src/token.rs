//! Signed tokens that name a message: in the links of a mail, in its return path, in its headers.
//!
//! Whoever holds one can do what its kind allows for its one message, and cannot make another: the last 16 octets
//! (8 in a return path, which has 64 characters) are an HMAC-SHA256 over the rest. They need no look-up, do not end,
//! and derive from the message alone, so that a mail which is rendered twice has the same bytes.

use crate::MessageId;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};
use std::fmt;
use uuid::Uuid;

/// Length of a key in bytes.
pub const TOKEN_KEY_LEN: usize = 32;
/// Longest token that is looked at, in characters. A link of 2,048 octets fits.
pub const LONGEST_TOKEN: usize = 4096;
/// Longest address that a click leads to, in octets.
pub const LONGEST_LINK: usize = 2048;
/// The place of the link that no reader sees: whoever follows it is a program.
pub const HONEYPOT_PLACE: u16 = u16::MAX;

/// The only form there is.
const VERSION: u8 = 1;
/// Octets of the MAC in a token.
const MAC_LEN: usize = 16;
/// Octets of the MAC in a return path: nobody guesses one of 2^64 over SMTP, and 64 characters are the limit.
const SHORT_MAC_LEN: usize = 8;
/// Octets before the rest: version, kind, key, message.
const HEAD_LEN: usize = 19;
/// What is signed for a return path: no token has this kind.
const RETURN_KIND: u8 = 0;
/// What is signed for an address to unsubscribe at by mail: no token has this kind, and no return path unsubscribes.
const MAILTO_KIND: u8 = 5;

/// What the holder of a token may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Token {
    /// Have the mail counted as opened.
    Open(MessageId),
    /// Be led to a link of the mail, and have that counted.
    Click {
        /// The mail.
        message: MessageId,
        /// The link's place in the mail, from 0.
        place: u16,
        /// Where it leads: at most [`LONGEST_LINK`] octets.
        url: String,
    },
    /// Unsubscribe the mail's recipient, or see and change what he has asked for.
    Unsubscribe(MessageId),
    /// Tell that a report is about the mail: a header repeats it, since some reports lose the return path.
    Report(MessageId),
}

impl Token {
    /// The message that it names.
    pub const fn message(&self) -> MessageId {
        match self {
            Self::Open(message) | Self::Unsubscribe(message) | Self::Report(message) => *message,
            Self::Click { message, .. } => *message,
        }
    }

    const fn kind(&self) -> u8 {
        match self {
            Self::Open(_) => 1,
            Self::Click { .. } => 2,
            Self::Unsubscribe(_) => 3,
            Self::Report(_) => 4,
        }
    }
}

/// The keys of a fleet's tokens: one signs, all verify.
#[derive(Clone)]
pub struct TokenKeys {
    keys: Vec<Key>,
}

#[derive(Clone)]
struct Key {
    /// Tells keys apart in a token; says nothing about the key.
    id: u8,
    secret: [u8; TOKEN_KEY_LEN],
}

impl TokenKeys {
    /// Keys of which the first signs; the others verify what was signed before it came.
    pub fn new(current: [u8; TOKEN_KEY_LEN], former: impl IntoIterator<Item = [u8; TOKEN_KEY_LEN]>) -> Self {
        let key = |secret: [u8; TOKEN_KEY_LEN]| Key { id: Sha256::digest(secret)[0], secret };
        Self { keys: std::iter::once(current).chain(former).map(key).collect() }
    }

    /// The token as it stands in a link or a header: letters, digits, `-` and `_`.
    pub fn seal(&self, token: &Token) -> String {
        let key = &self.keys[0];
        let mut bytes = head(token.kind(), key, token.message());
        if let Token::Click { place, url, .. } = token {
            bytes.extend_from_slice(&place.to_be_bytes());
            bytes.extend_from_slice(url.as_bytes());
        }
        let mac = key.mac(&bytes).finalize().into_bytes();
        bytes.extend_from_slice(&mac[..MAC_LEN]);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// The token that stands there; `None` when it is none of ours, or has been changed.
    pub fn open(&self, text: &str) -> Option<Token> {
        if text.len() > LONGEST_TOKEN {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (signed, mac) = bytes.split_at_checked(bytes.len().checked_sub(MAC_LEN)?)?;
        let (head, rest) = signed.split_first_chunk::<HEAD_LEN>()?;
        let [VERSION, kind, id, message @ ..] = head else { return None };
        self.verifies(*id, signed, mac).then_some(())?;
        let message = MessageId::from_uuid(Uuid::from_bytes(*message));
        match (kind, rest) {
            (1, []) => Some(Token::Open(message)),
            (2, [high, low, url @ ..]) => {
                let url = String::from_utf8(url.to_vec()).ok()?;
                Some(Token::Click { message, place: u16::from_be_bytes([*high, *low]), url })
            }
            (3, []) => Some(Token::Unsubscribe(message)),
            (4, []) => Some(Token::Report(message)),
            _ => None,
        }
    }

    /// What names the message in the local part of its return path: 50 hexadecimal digits, whatever becomes of their
    /// case on the way.
    pub fn seal_return(&self, message: MessageId) -> String {
        self.seal_short(RETURN_KIND, message)
    }

    /// The message that a return path names; `None` when we have not written it.
    pub fn open_return(&self, text: &str) -> Option<MessageId> {
        self.open_short(RETURN_KIND, text)
    }

    /// What names the message in the local part of the address at which its recipient unsubscribes by mail, likewise.
    pub fn seal_mailto(&self, message: MessageId) -> String {
        self.seal_short(MAILTO_KIND, message)
    }

    /// The message that an address to unsubscribe at names; `None` when we have not written it.
    pub fn open_mailto(&self, text: &str) -> Option<MessageId> {
        self.open_short(MAILTO_KIND, text)
    }

    fn seal_short(&self, kind: u8, message: MessageId) -> String {
        let key = &self.keys[0];
        let mac = key.mac(&head(kind, key, message)).finalize().into_bytes();
        let mut text = String::with_capacity(50);
        for byte in message.as_uuid().as_bytes().iter().chain([&key.id]).chain(&mac[..SHORT_MAC_LEN]) {
            text.push(char::from_digit(u32::from(byte >> 4), 16).expect("four bits are a hexadecimal digit"));
            text.push(char::from_digit(u32::from(byte & 15), 16).expect("four bits are a hexadecimal digit"));
        }
        text
    }

    fn open_short(&self, kind: u8, text: &str) -> Option<MessageId> {
        let digits: Option<Vec<u8>> =
            text.bytes().map(|byte| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())).collect();
        let digits = digits.filter(|digits| digits.len() == 2 * (16 + 1 + SHORT_MAC_LEN))?;
        let bytes: Vec<u8> = digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect();
        let (message, rest) = bytes.split_first_chunk::<16>()?;
        let (id, mac) = rest.split_first()?;
        let message = MessageId::from_uuid(Uuid::from_bytes(*message));
        let mut of_id = self.keys.iter().filter(|key| key.id == *id);
        of_id.any(|key| key.mac(&head(kind, key, message)).verify_truncated_left(mac).is_ok()).then_some(message)
    }

    /// Whether one of the keys with this id signed it. In constant time for each key.
    fn verifies(&self, id: u8, signed: &[u8], mac: &[u8]) -> bool {
        self.keys.iter().filter(|key| key.id == id).any(|key| key.mac(signed).verify_truncated_left(mac).is_ok())
    }
}

impl Key {
    fn mac(&self, bytes: &[u8]) -> Hmac<Sha256> {
        let mac = Hmac::<Sha256>::new_from_slice(&self.secret).expect("HMAC takes keys of any length");
        mac.chain_update(bytes)
    }
}

fn head(kind: u8, key: &Key, message: MessageId) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(64);
    bytes.extend_from_slice(&[VERSION, kind, key.id]);
    bytes.extend_from_slice(message.as_uuid().as_bytes());
    bytes
}

impl fmt::Debug for TokenKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenKeys(<hidden>)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn keys() -> TokenKeys {
        TokenKeys::new([7; TOKEN_KEY_LEN], [])
    }

    fn token() -> impl Strategy<Value = Token> {
        let message = any::<u128>().prop_map(|id| MessageId::from_uuid(Uuid::from_u128(id)));
        (message, 0..4_u8, any::<u16>(), "https?://[a-zäöü0-9./?&=]{1,80}").prop_map(|(message, kind, place, url)| {
            match kind {
                0 => Token::Open(message),
                1 => Token::Click { message, place, url },
                2 => Token::Unsubscribe(message),
                _ => Token::Report(message),
            }
        })
    }

    proptest! {
        #[test]
        fn a_token_is_read_back_and_another_fleet_reads_none(token in token()) {
            let text = keys().seal(&token);
            prop_assert_eq!(keys().open(&text), Some(token.clone()));
            prop_assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)));
            prop_assert_eq!(TokenKeys::new([8; TOKEN_KEY_LEN], []).open(&text), None);
            let rotated = TokenKeys::new([8; TOKEN_KEY_LEN], [[7; TOKEN_KEY_LEN]]);
            prop_assert_eq!(rotated.open(&text), Some(token.clone()));
            prop_assert_ne!(rotated.seal(&token), text);
        }

        #[test]
        fn any_changed_bit_and_any_cut_is_noticed(token in token(), at in any::<prop::sample::Index>(), bit in 0..8_u8) {
            let mut bytes = URL_SAFE_NO_PAD.decode(keys().seal(&token)).unwrap();
            let cut = URL_SAFE_NO_PAD.encode(&bytes[..at.index(bytes.len())]);
            prop_assert_eq!(keys().open(&cut), None);
            let place = at.index(bytes.len());
            bytes[place] ^= 1_u8 << bit;
            prop_assert_eq!(keys().open(&URL_SAFE_NO_PAD.encode(bytes)), None);
        }

        #[test]
        fn a_return_path_is_read_back_in_any_case_and_no_other(id in any::<u128>(), at in 0..50_usize) {
            let message = MessageId::from_uuid(Uuid::from_u128(id));
            let text = keys().seal_return(message);
            prop_assert_eq!(text.len(), 50);
            prop_assert_eq!(keys().open_return(&text.to_uppercase()), Some(message));
            let digit = char::from(text.as_bytes()[at]).to_digit(16).unwrap();
            let other = char::from_digit((digit + 1) % 16, 16).unwrap();
            let forged = format!("{}{other}{}", &text[..at], &text[at + 1..]);
            prop_assert_eq!(keys().open_return(&forged), None);
            prop_assert_eq!(keys().open_mailto(&text), None, "a return path unsubscribes nobody");
            prop_assert_eq!(keys().open_mailto(&keys().seal_mailto(message)), Some(message));
            prop_assert_eq!(keys().open_return(&text[..48]), None);
        }

        #[test]
        fn no_text_makes_it_panic(text in any::<String>()) {
            let _read = (keys().open(&text), keys().open_return(&text));
        }
    }
}
