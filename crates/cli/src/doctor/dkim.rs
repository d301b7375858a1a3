//! DKIM keys as they are published.

use super::{Finding, Grade};
use base64::{Engine, engine::general_purpose::STANDARD};

/// Shortest RSA key that receivers should be asked to trust (RFC 8301 takes 1,024 and advises 2,048).
const GOOD_RSA_BITS: usize = 2048;
/// Shortest RSA key that receivers take (RFC 8301, 3.2).
const LEAST_RSA_BITS: usize = 1024;

/// A tag of a list such as `v=DKIM1; p=…` (RFC 6376, 3.2).
pub(super) fn tag<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let tags = text.split(';').filter_map(|part| part.split_once('='));
    tags.map(|(tag, value)| (tag.trim(), value.trim())).find(|(tag, _)| *tag == name).map(|(_, value)| value)
}

/// A published DKIM key (RFC 6376, 3.6.1).
pub(super) fn key(name: &str, text: &str) -> Finding {
    let value: String = tag(text, "p").unwrap_or_default().split_ascii_whitespace().collect();
    if value.is_empty() {
        return (Grade::Fail, format!("{name} has no key in it"), "an empty p= says that the key is revoked");
    }
    let Ok(octets) = STANDARD.decode(&value) else {
        return (Grade::Fail, format!("{name}: p= is not base64"), "publish it as GetDomain shows it");
    };
    if tag(text, "t").is_some_and(|flags| flags.split(':').any(|flag| flag.trim() == "y")) {
        return (Grade::Warn, format!("{name} is marked as a test (t=y)"), "receivers may not count it; leave t=y out");
    }
    match tag(text, "k").unwrap_or("rsa") {
        "ed25519" if octets.len() == 32 => (Grade::Ok, format!("{name}: Ed25519"), ""),
        "ed25519" => (Grade::Fail, format!("{name}: is no Ed25519 key"), "publish it as GetDomain shows it"),
        "rsa" => match rsa_bits(&octets) {
            None => (Grade::Fail, format!("{name}: is no RSA key"), "publish it as GetDomain shows it"),
            Some(bits) if bits < LEAST_RSA_BITS => {
                (Grade::Fail, format!("{name}: RSA with {bits} bits"), "receivers ignore it; make a new key")
            }
            Some(bits) if bits < GOOD_RSA_BITS => {
                (Grade::Warn, format!("{name}: RSA with {bits} bits"), "short; make a new key of 2,048 bits")
            }
            Some(bits) => (Grade::Ok, format!("{name}: RSA with {bits} bits"), ""),
        },
        other => (Grade::Fail, format!("{name}: k={other} is no known kind"), "use rsa or ed25519"),
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
    fn keys_that_are_cut_short_are_none() {
        assert_eq!(rsa_bits(&[]), None);
        assert_eq!(rsa_bits(&[0x30, 0x82, 0xff, 0xff, 0x02]), None);
        assert_eq!(rsa_bits(&[0x30, 0x03, 0x02, 0x01, 0x00]), None);
        assert_eq!(rsa_bits(&[0x30, 0x04, 0x02, 0x02, 0x01, 0x00]), Some(9));
    }
}
