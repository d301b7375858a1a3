//! Signatures, as another implementation verifies them.

use crate::common::*;
use bytes::Bytes;
use domain::Lane;
use mail_auth::common::parse::TxtRecordParser;
use mail_auth::common::verify::DomainKey;
use mail_auth::hickory_resolver::config::{ResolverConfig, ResolverOpts};
use mail_auth::{AuthenticatedMessage, DkimResult, MessageAuthenticator, Parameters, ResolverCache, Txt};
use mailfleet_content::{Body, Limits, Prepared, SigningKey};
use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Instant;

/// The DNS of the tests: the public halves of the keys, and nothing else.
struct Zone(HashMap<Box<str>, Txt>);

impl Zone {
    fn of(keys: &[SigningKey]) -> Self {
        let entry = |key: &SigningKey| {
            let record = DomainKey::parse(key.dns_txt().as_bytes()).unwrap();
            (format!("{}.", key.dns_name()).into(), Txt::DomainKey(Arc::new(record)))
        };
        Self(keys.iter().map(entry).collect())
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

pub async fn verify(mail: &[u8]) -> Vec<DkimResult> {
    let authenticator = MessageAuthenticator::new(ResolverConfig::default(), ResolverOpts::default()).unwrap();
    let message = AuthenticatedMessage::parse(mail).unwrap();
    let zone = Zone::of(&*KEYS);
    let outputs = authenticator.verify_dkim(Parameters::new(&message).with_txt_cache(&zone)).await;
    outputs.iter().map(|output| output.result().clone()).collect()
}

fn signed() -> Vec<u8> {
    let mut source = inline(
        "Hallo {{ name }} — a subject that is long enough to be folded more than once, I should think so",
        Some("<p>Hello   {{ name }}\t</p>\n\n  <p>two</p>  \n\n"),
        Some("Hello {{ name }}  \n\n.\nFrom here  on\n\n\n"),
    );
    source.lane = Lane::Bulk;
    source.headers = vec![("X-Long".into(), "word ".repeat(60))];
    render_to(&prepared(&source), "bob@example.net", r#"{"name":"Zoë"}"#, &*KEYS).unwrap().mime.to_vec()
}

#[tokio::test]
async fn rsa_and_ed25519_signatures_both_verify() {
    let mail = signed();
    assert_strict(&mail);
    assert_eq!(verify(&mail).await, [DkimResult::Pass, DkimResult::Pass]);
    let text = String::from_utf8(mail).unwrap();
    assert!(!text.contains("l="), "a body length tag");
    assert!(text.contains("a=rsa-sha256; c=relaxed/relaxed;") && text.contains("a=ed25519-sha256;"));
    assert!(text.split("\r\n").all(|line| line.len() <= 78));
}

#[tokio::test]
async fn blanks_that_a_relay_changes_do_not_matter() {
    let text = String::from_utf8(signed()).unwrap();
    let folded = text.replace("\r\nX-Mailfleet-Id: ", "\r\nX-Mailfleet-Id:\t  ").replace("; charset", ";  charset");
    assert_ne!(text, folded);
    assert_eq!(verify(folded.as_bytes()).await, [DkimResult::Pass, DkimResult::Pass]);
}

#[tokio::test]
async fn what_is_added_or_changed_breaks_every_signature() {
    let mail = String::from_utf8(signed()).unwrap();
    let passes = |result: &DkimResult| *result == DkimResult::Pass;
    let broken = [
        format!("{mail}appended\r\n"),
        format!("From: eve@evil.test\r\n{mail}"),
        mail.replacen("\r\nTo: ", "\r\nFrom: eve@evil.test\r\nTo: ", 1),
        mail.replacen("\r\nDate: ", "\r\nSubject: other\r\nDate: ", 1),
        mail.replacen("\r\nDate: ", "\r\nReply-To: eve@evil.test\r\nDate: ", 1),
        mail.replacen("\r\nDate: ", "\r\nCc: eve@evil.test\r\nDate: ", 1),
        mail.replacen("\r\nDate: ", "\r\nList-Unsubscribe: <https://evil.test>\r\nDate: ", 1),
        mail.replacen("\r\nDate: ", "\r\nContent-Type: text/html\r\nDate: ", 1),
        mail.replacen("bob@example.net", "eve@example.net", 1),
        mail.replacen("From here", "From there", 1),
    ];
    for (index, changed) in broken.iter().enumerate() {
        assert_ne!(changed, &mail, "{index}");
        assert!(!verify(changed.as_bytes()).await.iter().any(passes), "change {index} was not noticed");
    }
}

#[tokio::test]
async fn a_raw_mail_is_signed_as_it_goes_out() {
    let raw =
        b"From: ann@example.com\nSubject: =?utf-8?q?caf=C3=A9?=\nTo: a@example.net,\n b@example.net\n\n \tx  y \n\n";
    let source = source(Body::Raw { content: content_id() });
    let prepared = Prepared::new(&source, None, Some(Bytes::from_static(raw)), &Limits::default()).unwrap();
    let mail = render_to(&prepared, "a@example.net", "", &*KEYS).unwrap().mime;
    assert_eq!(verify(&mail).await, [DkimResult::Pass, DkimResult::Pass]);
    let header_only = Bytes::from_static(b"From: ann@example.com\r\n\r\n");
    let prepared = Prepared::new(&source, None, Some(header_only), &Limits::default()).unwrap();
    let mail = render_to(&prepared, "a@example.net", "", &*KEYS).unwrap().mime;
    assert_eq!(verify(&mail).await, [DkimResult::Pass, DkimResult::Pass]);
}

#[test]
fn the_time_of_a_signature_is_the_message_s() {
    let text = String::from_utf8(signed()).unwrap();
    assert!(text.contains(&format!("t={};", message().created_at().timestamp())));
}
