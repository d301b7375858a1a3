//! The DNS of the tests: the public halves of the keys, and nothing else.

use mail_auth::common::parse::TxtRecordParser;
use mail_auth::common::verify::DomainKey;
use mail_auth::hickory_resolver::config::{ResolverConfig, ResolverOpts};
use mail_auth::{AuthenticatedMessage, DkimResult, MessageAuthenticator, Parameters, ResolverCache, Txt};
use std::{borrow::Borrow, collections::HashMap, hash::Hash, sync::Arc, time::Instant};

pub struct Zone(HashMap<Box<str>, Txt>);

impl Zone {
    /// Records by selector.
    pub fn new(domain: &str, records: &[(&str, &str)]) -> Self {
        let entry = |(selector, text): &(&str, &str)| {
            let record = DomainKey::parse(text.as_bytes()).unwrap();
            (format!("{selector}._domainkey.{domain}.").into(), Txt::DomainKey(Arc::new(record)))
        };
        Self(records.iter().map(entry).collect())
    }

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
