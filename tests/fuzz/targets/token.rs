//! Any text as a token or an address that names a message: nothing that we have not signed opens, and what opens is
//! written again letter by letter.
#![no_main]

use domain::{Mailbox, MessageId, Token, TokenKeys, verp};
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

static KEYS: LazyLock<TokenKeys> = LazyLock::new(|| TokenKeys::new([7; 32], [[8; 32]]));

/// A token of the message that the input names, with one character changed: it opens nothing.
fn changed(data: &[u8]) {
    let Some((id, [kind, at, with, ..])) = data.split_at_checked(16) else { return };
    let number = u128::from_be_bytes(id.try_into().expect("16 octets"));
    let message: MessageId = format!("{number:032x}").parse().expect("any 128 bits are an id");
    let url = String::from_utf8_lossy(&data[19..]).into_owned();
    let whole = match kind % 6 {
        0 => KEYS.seal(&Token::Open(message)),
        1 => KEYS.seal(&Token::Click { message, place: 3, url }),
        2 => KEYS.seal(&Token::Unsubscribe(message)),
        3 => KEYS.seal(&Token::Report(message)),
        4 => KEYS.seal_return(message),
        _ => KEYS.seal_mailto(message),
    };
    let at = usize::from(*at) * whole.len() / 256;
    let with = char::from(b' ' + with % 95);
    let forged = format!("{}{with}{}", &whole[..at], &whole[at + 1..]);
    if !forged.eq_ignore_ascii_case(&whole) {
        let opened = [KEYS.open_return(&forged), KEYS.open_mailto(&forged), KEYS.open(&forged).map(|one| one.message())];
        assert_eq!(opened, [None; 3], "{whole} became {forged}");
    }
}

fuzz_target!(|data: &[u8]| {
    changed(data);
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Some(token) = KEYS.open(text) {
        let again = [KEYS.seal(&token), TokenKeys::new([8; 32], []).seal(&token)];
        assert!(again.iter().any(|one| one == text), "opened what was never written: {text}");
    }
    for opened in [KEYS.open_return(text), KEYS.open_mailto(text)].into_iter().flatten() {
        let written = [KEYS.seal_return(opened), KEYS.seal_mailto(opened)];
        let old = TokenKeys::new([8; 32], []);
        let older = [old.seal_return(opened), old.seal_mailto(opened)];
        let mut all = written.iter().chain(&older);
        assert!(all.any(|one| one.eq_ignore_ascii_case(text)), "opened what was never written: {text}");
    }
    if let Ok(mailbox) = text.parse::<Mailbox>() {
        let bounce = verp::message_of_return_path(&mailbox, Some(&KEYS));
        let leave = verp::message_of_unsubscribe_address(&mailbox, &KEYS);
        assert!(bounce.is_none() || leave.is_none(), "one address for two things: {text}");
    }
});
