//! Lanes, slots and shards: the coordinates of work on the bus.

use crate::{DomainName, sandbox::SANDBOX};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{fmt, num::NonZeroU16, str::FromStr};

/// How urgent a message is. `Transactional` never waits behind `Bulk`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lane {
    /// One person waits for it: a password reset, a receipt.
    Transactional,
    /// Many get it: a newsletter.
    Bulk,
}

impl Lane {
    /// Both, the urgent one first.
    pub const ALL: [Self; 2] = [Self::Transactional, Self::Bulk];

    /// The token in subjects, metrics and the command.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Transactional => "transactional",
            Self::Bulk => "bulk",
        }
    }

    /// The code in Postgres: 0 transactional, 1 bulk.
    pub const fn code(self) -> i16 {
        match self {
            Self::Transactional => 0,
            Self::Bulk => 1,
        }
    }

    /// The lane with this code.
    pub const fn from_code(code: i16) -> Option<Self> {
        match code {
            0 => Some(Self::Transactional),
            1 => Some(Self::Bulk),
            _ => None,
        }
    }
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Lane {
    type Err = SlotError;

    fn from_str(text: &str) -> Result<Self, SlotError> {
        Self::ALL.into_iter().find(|lane| lane.as_str() == text).ok_or(SlotError::Lane)
    }
}

/// A token that names no lane, slot or shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SlotError {
    /// Neither `transactional` nor `bulk`.
    #[error("must be transactional or bulk")]
    Lane,
    /// Neither a named site nor `h0` to `h63`.
    #[error("must be a named site or h0 to h63")]
    Slot,
    /// Not a number below the number of shards.
    #[error("must be a number below the number of shards")]
    Shard,
}

/// The receivers that have a slot of their own: token, the domains of their mailboxes, and the suffixes
/// of their MX hosts. New ones go to the end: the position is the code in Postgres.
const NAMED: &[(&str, &[&str], &[&str])] = &[
    ("google", &["gmail.com", "googlemail.com"], &["google.com", "googlemail.com"]),
    (
        "microsoft",
        &["outlook.com", "hotmail.com", "live.com", "msn.com", "hotmail.co.uk", "hotmail.fr", "outlook.de"],
        &["olc.protection.outlook.com"],
    ),
    ("microsoft365", &[], &["mail.protection.outlook.com", "mx.microsoft"]),
    ("yahoo", &["yahoo.com", "ymail.com", "rocketmail.com", "aol.com", "yahoo.co.uk", "yahoo.fr"], &["yahoodns.net"]),
    ("apple", &["icloud.com", "me.com", "mac.com"], &["icloud.com", "apple.com"]),
    ("comcast", &["comcast.net", "xfinity.com"], &["comcast.net"]),
    ("gmx", &["gmx.de", "gmx.net", "gmx.com", "web.de"], &["gmx.net", "web.de", "gmx.com"]),
    ("orange", &["orange.fr", "wanadoo.fr"], &["orange.fr"]),
    ("mimecast", &[], &["mimecast.com"]),
    ("barracuda", &[], &["barracudanetworks.com", "ess.barracuda.com"]),
    ("qq", &["qq.com", "foxmail.com"], &["qq.com"]),
    ("netease", &["163.com", "126.com", "yeah.net"], &["netease.com", "163.com"]),
    ("yahoo-japan", &["yahoo.co.jp"], &["yahoo.co.jp"]),
];

/// Slots that hold the sites without a name, by hash.
const HASHED: u16 = 64;

/// A destination site: the receivers behind one set of MX hosts. Either a named one (`google`) or, until
/// or unless its MX hosts are known, the recipient domain or the first MX host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SiteId(String);

impl SiteId {
    /// The site that a recipient domain belongs to as far as its name tells.
    pub fn of_domain(domain: &str) -> Self {
        let named = NAMED.iter().find(|(_, domains, _)| domains.contains(&domain));
        Self(named.map_or(domain, |(name, ..)| name).to_owned())
    }

    /// The site behind a set of MX hosts, given in order of preference: a named one when the first host
    /// is known, otherwise the first host's name. `None` when there is no host.
    pub fn of_mx_hosts(hosts: &[DomainName]) -> Option<Self> {
        let first = hosts.iter().min()?;
        let known = |host: &DomainName| {
            NAMED.iter().find(|(_, _, suffixes)| suffixes.iter().any(|suffix| host.is_within(suffix)))
        };
        let named = hosts.iter().find_map(known);
        Some(Self(named.map_or(first.as_str(), |(name, ..)| name).to_owned()))
    }

    /// The site of mail that is only tried: no receiver's, so that its figures and its pace are its own.
    pub fn sandbox() -> Self {
        Self(SANDBOX.to_owned())
    }

    /// A site id that was stored before.
    pub fn from_stored(text: String) -> Self {
        Self(text)
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Where this site's work travels: a slot of its own for a named site, else one of 64 by hash.
    pub fn slot(&self) -> Slot {
        if let Some(index) = NAMED.iter().position(|(name, ..)| *name == self.0) {
            return Slot(HASHED + u16::try_from(index).expect("the list of named sites is short"));
        }
        let digest = Sha256::digest(self.0.as_bytes());
        Slot(u16::from_be_bytes([digest[0], digest[1]]) % HASHED)
    }
}

impl fmt::Display for SiteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where a site's work travels: a named site, or one of 64 hashes of the site id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct Slot(u16);

impl Slot {
    /// The code in Postgres.
    pub fn code(self) -> i16 {
        i16::try_from(self.0).expect("slots are few")
    }

    /// The slot with this code.
    pub fn from_code(code: i16) -> Option<Self> {
        let code = u16::try_from(code).ok()?;
        (usize::from(code) < usize::from(HASHED) + NAMED.len()).then_some(Self(code))
    }

    /// Every slot, hashed ones first.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..HASHED + u16::try_from(NAMED.len()).expect("the list of named sites is short")).map(Self)
    }

    /// The name of the site that has this slot to itself.
    pub fn named_site(self) -> Option<&'static str> {
        NAMED.get(usize::from(self.0.checked_sub(HASHED)?)).map(|(name, ..)| *name)
    }

    /// The shard that owns this slot.
    pub fn shard(self, shards: ShardCount) -> Shard {
        Shard(self.0 % shards.0.get())
    }
}

impl TryFrom<u16> for Slot {
    type Error = SlotError;

    fn try_from(code: u16) -> Result<Self, SlotError> {
        i16::try_from(code).ok().and_then(Self::from_code).ok_or(SlotError::Slot)
    }
}

impl From<Slot> for u16 {
    fn from(slot: Slot) -> u16 {
        slot.0
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.named_site() {
            Some(name) => f.write_str(name),
            None => write!(f, "h{}", self.0),
        }
    }
}

impl FromStr for Slot {
    type Err = SlotError;

    fn from_str(text: &str) -> Result<Self, SlotError> {
        Self::all().find(|slot| slot.to_string() == text).ok_or(SlotError::Slot)
    }
}

/// How many shards the fleet's slots are spread over; the same in every service of a fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ShardCount(pub NonZeroU16);

impl ShardCount {
    /// Every shard.
    pub fn all(self) -> impl Iterator<Item = Shard> {
        (0..self.0.get()).map(Shard)
    }
}

impl Default for ShardCount {
    fn default() -> Self {
        Self(const { NonZeroU16::new(16).expect("not zero") })
    }
}

/// A group of slots that one sender owns at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Shard(u16);

impl Shard {
    /// The number, from 0.
    pub const fn number(self) -> u16 {
        self.0
    }

    /// The name of its lease.
    pub fn lease_name(self) -> String {
        format!("shard.{}", self.0)
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Shard {
    type Err = SlotError;

    fn from_str(text: &str) -> Result<Self, SlotError> {
        text.parse().map(Self).map_err(|_| SlotError::Shard)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_slot_round_trips_through_its_token_and_its_code() {
        for slot in Slot::all() {
            assert_eq!(slot.to_string().parse(), Ok(slot));
            assert_eq!(Slot::from_code(slot.code()), Some(slot));
        }
        assert_eq!(Slot::from_code(-1), None);
        assert_eq!("h64".parse::<Slot>(), Err(SlotError::Slot));
    }

    #[test]
    fn domains_of_one_receiver_share_its_slot() {
        assert_eq!(SiteId::of_domain("gmail.com").slot(), SiteId::of_domain("googlemail.com").slot());
        assert_eq!(SiteId::of_domain("gmail.com").slot().to_string(), "google");
        let mx: DomainName = "aspmx.l.google.com".parse().unwrap();
        assert_eq!(SiteId::of_mx_hosts(&[mx]).unwrap().as_str(), "google");
    }
}
