//! Identifiers: version 7 UUIDs (RFC 9562, 5.7) made from a time passed in, so that ids sort by
//! creation and a message's id tells its day.

use chrono::{DateTime, TimeZone, Utc};
use sha2::{Digest, Sha256};
use std::{fmt, str::FromStr};
use uuid::Uuid;

/// A text that is not an identifier.
#[derive(Debug, thiserror::Error)]
#[error("{text:?} is not a UUID")]
pub struct IdError {
    text: String,
}

macro_rules! typed_ids {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// Makes a fresh id at `now`.
            pub fn new(now: DateTime<Utc>) -> Self {
                Self(v7(now, *Uuid::now_v7().as_bytes()))
            }

            /// The id with this value.
            pub const fn from_uuid(id: Uuid) -> Self {
                Self(id)
            }

            /// The value, for Postgres and the wire.
            pub const fn as_uuid(&self) -> Uuid {
                self.0
            }

            /// When the id was made, to the millisecond.
            pub fn created_at(&self) -> DateTime<Utc> {
                created_at(self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                Uuid::parse_str(text).map(Self).map_err(|_| IdError { text: text.chars().take(64).collect() })
            }
        }
    )+};
}

typed_ids! {
    /// An API key.
    ApiKeyId,
    /// One accepted call: a single message or a batch of up to 10,000 recipients.
    BatchId,
    /// A campaign, chosen by the caller; groups messages for fairness, pausing and figures.
    CampaignId,
    /// An immutable content, named by the hash of what it holds.
    ContentId,
    /// A DKIM key pair.
    DkimKeyId,
    /// Where a tenant has events posted to.
    EndpointId,
    /// A mail that came in.
    InboundId,
    /// A sending domain of a tenant.
    SendingDomainId,
    /// One message: one envelope recipient of one accepted call.
    MessageId,
    /// A template, whose published versions are contents.
    TemplateId,
    /// A tenant: the owner of keys, domains, templates, suppressions and messages.
    TenantId,
}

impl MessageId {
    /// The id of the `index`-th recipient of `batch`. The same batch and index give the same id, so a
    /// repeated idempotent call can be answered without keeping ten thousand ids.
    pub fn of_batch(batch: BatchId, index: u32) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"mailfleet/message");
        hash.update(batch.as_uuid().as_bytes());
        hash.update(index.to_be_bytes());
        let mut tail = [0; 16];
        tail.copy_from_slice(&hash.finalize()[..16]);
        Self(v7(batch.created_at(), tail))
    }
}

impl ContentId {
    /// The id of what `parts` hold, in this order, for this tenant: equal contents of one tenant share a
    /// row, contents of two tenants never do.
    pub fn of(tenant: TenantId, parts: &[&[u8]]) -> Self {
        let mut hash = Sha256::new();
        hash.update(tenant.as_uuid().as_bytes());
        for part in parts {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        let mut head = [0; 16];
        head.copy_from_slice(&hash.finalize()[..16]);
        Self(uuid::Builder::from_custom_bytes(head).into_uuid())
    }
}

/// 48 bits of milliseconds, then version and variant, then 74 bits of `tail`.
fn v7(now: DateTime<Utc>, tail: [u8; 16]) -> Uuid {
    let millis = u64::try_from(now.timestamp_millis()).unwrap_or(0);
    let mut random = [0; 10];
    random.copy_from_slice(&tail[6..]);
    uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid()
}

fn created_at(id: Uuid) -> DateTime<Utc> {
    let bytes = id.as_bytes();
    let millis = bytes[..6].iter().fold(0_i64, |sum, byte| (sum << 8) | i64::from(*byte));
    Utc.timestamp_millis_opt(millis).single().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> DateTime<Utc> {
        Utc.timestamp_millis_opt(millis).unwrap()
    }

    #[test]
    fn an_id_tells_when_it_was_made() {
        let now = at(1_790_000_000_123);
        assert_eq!(MessageId::new(now).created_at(), now);
        assert_eq!(MessageId::new(now).as_uuid().get_version_num(), 7);
        assert_ne!(MessageId::new(now), MessageId::new(now));
    }

    #[test]
    fn the_ids_of_a_batch_can_be_made_again_and_differ() {
        let batch = BatchId::new(at(1_790_000_000_123));
        assert_eq!(MessageId::of_batch(batch, 7), MessageId::of_batch(batch, 7));
        assert_ne!(MessageId::of_batch(batch, 7), MessageId::of_batch(batch, 8));
        assert_eq!(MessageId::of_batch(batch, 7).created_at(), batch.created_at());
    }

    #[test]
    fn equal_contents_share_an_id_within_a_tenant_only() {
        let (one, two) = (TenantId::new(at(1)), TenantId::new(at(2)));
        assert_eq!(ContentId::of(one, &[b"ab", b"c"]), ContentId::of(one, &[b"ab", b"c"]));
        assert_ne!(ContentId::of(one, &[b"ab", b"c"]), ContentId::of(one, &[b"a", b"bc"]));
        assert_ne!(ContentId::of(one, &[b"ab"]), ContentId::of(two, &[b"ab"]));
    }
}
