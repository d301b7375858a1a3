//! The DNS that receivers would ask for signing keys: what `CreateDomain` told to publish, and nothing else.

use mail_auth::common::parse::TxtRecordParser;
use mail_auth::common::verify::DomainKey;
use mail_auth::hickory_resolver::config::{ResolverConfig, ResolverOpts};
use mail_auth::{AuthenticatedMessage, DkimResult, MessageAuthenticator, Parameters, ResolverCache, Txt};
use proto::v1::DnsRecord;
use std::{borrow::Borrow, collections::HashMap, hash::Hash, sync::Arc, time::Instant};

/// Published keys.
#[derive(Default)]
pub struct Zone(HashMap<Box<str>, Txt>);

impl Zone {
    /// With the keys among these records.
    pub fn publish(records: &[DnsRecord]) -> Self {
        let mut zone = Self::default();
        zone.add(records);
        zone
    }

    /// Publishes the keys among these records as well.
    pub fn add(&mut self, records: &[DnsRecord]) {
        let keys = records.iter().filter(|record| record.purpose.starts_with("dkim"));
        self.0.extend(keys.map(|record| {
            let key = DomainKey::parse(record.value.as_bytes()).unwrap();
            let name: Box<str> = format!("{}.", record.name).into();
            (name, Txt::DomainKey(Arc::new(key)))
        }));
    }

    /// What an independent implementation says of each signature of a mail.
    pub async fn verify(&self, mail: &[u8]) -> Vec<DkimResult> {
        let authenticator = MessageAuthenticator::new(ResolverConfig::default(), ResolverOpts::default()).unwrap();
        let message = AuthenticatedMessage::parse(mail).unwrap();
        let outputs = authenticator.verify_dkim(Parameters::new(&message).with_txt_cache(self)).await;
        outputs.iter().map(|output| output.result().clone()).collect()
    }
}

impl ResolverCache<Box<str>, Txt> for Zone {
    fn get<Q>(&self, name: &Q) -> Option<Txt>
    where
        Box<str>: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.0.get(name).cloned()
    }

    fn remove<Q>(&self, _: &Q) -> Option<Txt>
    where
        Box<str>: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        None
    }

    fn insert(&self, _: Box<str>, _: Txt, _: Instant) {}
}
