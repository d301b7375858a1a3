//! The signature of SendGrid's event webhook: ECDSA over the timestamp and the raw body.

use crate::webhook::{Reason, Window, header, window::unix_seconds};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, ParsedPublicKey};
use base64::{Engine, engine::general_purpose::STANDARD};
use chrono::{DateTime, Utc};
use http::HeaderMap;

const SIGNATURE: &str = "x-twilio-email-event-webhook-signature";
const TIMESTAMP: &str = "x-twilio-email-event-webhook-timestamp";
/// What the encoding of each P-256 public key begins with (RFC 5480): nothing else is taken.
const P256_SPKI: &[u8] = &[
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
/// Longest text of a key, and longest signature: 72 octets of DER.
const LONGEST: usize = 512;
const LONGEST_SIGNATURE: usize = 96;

/// The key that SendGrid shows for a signed webhook.
pub(super) struct SendgridKey(ParsedPublicKey);

impl SendgridKey {
    /// Reads base64 of the key's DER, with or without the lines of PEM around it.
    pub(super) fn parse(text: &str) -> Option<Self> {
        if text.len() > LONGEST {
            return None;
        }
        let bare: String = text
            .replace("-----BEGIN PUBLIC KEY-----", "")
            .replace("-----END PUBLIC KEY-----", "")
            .split_ascii_whitespace()
            .collect();
        let der = STANDARD.decode(bare).ok()?;
        let point = der.strip_prefix(P256_SPKI)?;
        ParsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point).ok().map(Self)
    }
}

pub(super) fn verify(
    keys: &[SendgridKey],
    headers: &HeaderMap,
    body: &[u8],
    window: Window,
    now: DateTime<Utc>,
) -> Result<(), Reason> {
    let only = |name| {
        header::only(headers, name).map_err(|unusable| match unusable {
            header::Unusable::Missing => Reason::MissingHeader { name },
            header::Unusable::Ambiguous => Reason::AmbiguousHeader { name },
        })
    };
    let (signature, timestamp) = (only(SIGNATURE)?, only(TIMESTAMP)?);
    let at = unix_seconds(timestamp).ok_or(Reason::Malformed { what: "the timestamp is not a number of seconds" })?;
    window.check(at, now).map_err(Reason::Untimely)?;
    if signature.len() > LONGEST_SIGNATURE {
        return Err(Reason::WrongSignature);
    }
    let signature = STANDARD.decode(signature).map_err(|_| Reason::WrongSignature)?;
    let signed = [timestamp.as_bytes(), body].concat();
    let holds = keys.iter().any(|key| key.0.verify_sig(&signed, &signature).is_ok());
    if holds { Ok(()) } else { Err(Reason::WrongSignature) }
}
