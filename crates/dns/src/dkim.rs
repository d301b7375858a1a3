//! DKIM keys as they are published.

use base64::{Engine, engine::general_purpose::STANDARD};

/// Shortest RSA key that receivers should be asked to trust (RFC 8301 takes 1,024 and advises 2,048).
pub const GOOD_RSA_BITS: usize = 2048;
/// Shortest RSA key that receivers take (RFC 8301, 3.2).
pub const LEAST_RSA_BITS: usize = 1024;

/// A tag of a list such as `v=DKIM1; p=…` (RFC 6376, 3.2).
#[must_use]
pub fn tag<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let tags = text.split(';').filter_map(|part| part.split_once('='));
    tags.map(|(tag, value)| (tag.trim(), value.trim())).find(|(tag, _)| *tag == name).map(|(_, value)| value)
}

/// What a record says of its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    /// No key: an empty `p=` says that it is revoked.
    Revoked,
    /// `p=` is not base64.
    NotBase64,
    /// Marked as a test with `t=y`, so that receivers may not count it.
    Test,
    /// An Ed25519 key (RFC 8463).
    Ed25519,
    /// Said to be Ed25519, and is not.
    NotEd25519,
    /// An RSA key with a modulus of so many bits.
    Rsa(usize),
    /// Said to be RSA, and is not.
    NotRsa,
    /// Of a kind that receivers do not know.
    Unknown(String),
}

/// A published DKIM key (RFC 6376, 3.6.1).
#[must_use]
pub fn key(text: &str) -> Key {
    let value: String = tag(text, "p").unwrap_or_default().split_ascii_whitespace().collect();
    if value.is_empty() {
        return Key::Revoked;
    }
    let Ok(octets) = STANDARD.decode(&value) else { return Key::NotBase64 };
    if tag(text, "t").is_some_and(|flags| flags.split(':').any(|flag| flag.trim() == "y")) {
        return Key::Test;
    }
    match tag(text, "k").unwrap_or("rsa") {
        "ed25519" if octets.len() == 32 => Key::Ed25519,
        "ed25519" => Key::NotEd25519,
        "rsa" => rsa_bits(&octets).map_or(Key::NotRsa, Key::Rsa),
        other => Key::Unknown(other.to_owned()),
    }
}

/// The length of the modulus of a key: SubjectPublicKeyInfo, or the RSAPublicKey inside it (RFC 6376 has had both).
fn rsa_bits(octets: &[u8]) -> Option<usize> {
    let (0x30, outer, _) = element(octets)? else { return None };
    let modulus = match element(outer)? {
        (0x02, modulus, _) => modulus,
        (0x30, _, rest) => {
            let (0x03, bits, _) = element(rest)? else { return None };
            let (0x30, key, _) = element(bits.strip_prefix(&[0])?)? else { return None };
            let (0x02, modulus, _) = element(key)? else { return None };
            modulus
        }
        _ => return None,
    };
    let first = modulus.iter().position(|octet| *octet != 0)?;
    Some((modulus.len() - first) * 8 - modulus[first].leading_zeros() as usize)
}

/// The first element of DER: its tag, what is in it, and what follows it.
fn element(octets: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, first], rest) = octets.split_first_chunk::<2>()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81 | 0x82 => {
            let (length, rest) = rest.split_at_checked(usize::from(first & 0x0f))?;
            (length.iter().fold(0, |sum, octet| sum << 8 | usize::from(*octet)), rest)
        }
        _ => return None,
    };
    let (inside, rest) = rest.split_at_checked(length)?;
    Some((tag, inside, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_key_is_told_apart() {
        for (text, expected) in [
            ("v=DKIM1; p=", Key::Revoked),
            ("v=DKIM1; k=rsa", Key::Revoked),
            ("v=DKIM1; p=!!", Key::NotBase64),
            ("v=DKIM1; t=s:y; p=MAQCAgEA", Key::Test),
            ("v=DKIM1; p=MAQC AgEA", Key::Rsa(9)),
            ("v=DKIM1; k=rsa; p=AAAA", Key::NotRsa),
            ("v=DKIM1; k=ed25519; p=AAAA", Key::NotEd25519),
            ("v=DKIM1; k=ed25519; p=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", Key::Ed25519),
            ("v=DKIM1; k=dsa; p=AAAA", Key::Unknown("dsa".to_owned())),
        ] {
            assert_eq!(key(text), expected, "{text}");
        }
    }

    #[test]
    fn keys_that_are_cut_short_are_none() {
        assert_eq!(rsa_bits(&[]), None);
        assert_eq!(rsa_bits(&[0x30, 0x82, 0xff, 0xff, 0x02]), None);
        assert_eq!(rsa_bits(&[0x30, 0x03, 0x02, 0x01, 0x00]), None);
        assert_eq!(rsa_bits(&[0x30, 0x04, 0x02, 0x02, 0x01, 0x00]), Some(9));
    }
}
