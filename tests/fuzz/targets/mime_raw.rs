//! Any octets as a raw mail: refused, or sent as one strict mail of the accepted author whose signature another
//! implementation verifies.
#![no_main]

use bytes::Bytes;
use content::{Body, Limits, MailSource, NameAddr, Prepared, RenderRequest, ReturnPath, SigningKey, validate_raw};
use domain::{ContentId, EnvelopeSender, Lane, Mailbox, TenantId};
use libfuzzer_sys::fuzz_target;
use mail_auth::{
    AuthenticatedMessage, DkimResult, MessageAuthenticator, Parameters, ResolverCache, Txt,
    common::{parse::TxtRecordParser, verify::DomainKey},
    hickory_resolver::config::{ResolverConfig, ResolverOpts},
};
use mail_parser::MessageParser;
use std::{borrow::Borrow, hash::Hash, sync::Arc, sync::LazyLock, time::Instant};
use tokio::runtime::{Builder, Runtime};

/// The DNS: the public half of the key under every name.
struct Zone(Txt);

impl ResolverCache<Box<str>, Txt> for Zone {
    fn get<Q>(&self, _: &Q) -> Option<Txt>
    where
        Box<str>: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        Some(self.0.clone())
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

struct Office {
    runtime: Runtime,
    verifier: MessageAuthenticator,
    zone: Zone,
    keys: [SigningKey; 1],
    source: MailSource,
    recipient: Mailbox,
    tenant: TenantId,
}

static OFFICE: LazyLock<Office> = LazyLock::new(|| {
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    let verifier = runtime.block_on(async {
        MessageAuthenticator::new(ResolverConfig::default(), ResolverOpts::default()).expect("a resolver")
    });
    let made = SigningKey::generate_ed25519().expect("a key");
    let key = SigningKey::ed25519_from_pkcs8("example.com".parse().expect("a name"), "s1", &made.pkcs8);
    let record = DomainKey::parse(made.dns_txt.as_bytes()).expect("a record");
    let tenant: TenantId = "019a0000-0000-7000-8000-00000000000a".parse().expect("an id");
    let source = MailSource {
        from: NameAddr { name: None, mailbox: "ann@example.com".parse().expect("an address") },
        reply_to: Vec::new(),
        to_header: None,
        cc_header: Vec::new(),
        headers: Vec::new(),
        body: Body::Raw { content: ContentId::of(tenant, &[b"raw"]) },
        unsubscribe: None,
        list_id: None,
        feedback_id: None,
        lane: Lane::Transactional,
        return_path: ReturnPath::Fixed(EnvelopeSender(None)),
        signing_domain: "example.com".parse().expect("a name"),
        attachments: Vec::new(),
        sandbox: false,
        tracking: Default::default(),
    };
    Office {
        runtime,
        verifier,
        zone: Zone(Txt::DomainKey(Arc::new(record))),
        keys: [key.expect("a key")],
        source,
        recipient: "bob@example.net".parse().expect("an address"),
        tenant,
    }
});

/// Whether the last lines of a body hold blanks alone. They count for nothing (RFC 6376, 3.4.4), which mail-auth 0.13.3
/// does not know.
fn ends_in_blanks(body: &[u8]) -> bool {
    let last = body.iter().rposition(|byte| !b" \t\r\n".contains(byte));
    let rest = last.map_or(body, |last| &body[last..]);
    let mut after_line = rest.iter().skip_while(|byte| last.is_some() && **byte != b'\n');
    after_line.any(|byte| b" \t".contains(byte))
}

/// The fields of a mail: names in lower case.
fn names(head: &[u8]) -> Vec<String> {
    let lines = head.split(|byte| *byte == b'\n').filter(|line| !line.is_empty() && !b" \t\r".contains(&line[0]));
    lines.map(|line| String::from_utf8_lossy(line).split(':').next().unwrap_or_default().to_ascii_lowercase()).collect()
}

fuzz_target!(|data: &[u8]| {
    let office = &*OFFICE;
    // Half of all inputs start within the header of a mail that is taken.
    let raw = match data.split_first() {
        Some((flag, rest)) if flag % 2 == 0 => Bytes::from([b"From: ann@example.com\r\n".as_slice(), rest].concat()),
        _ => Bytes::copy_from_slice(data),
    };
    let limits = Limits::default();
    let prepared = Prepared::new(&office.source, None, Some(raw.clone()), &limits);
    assert_eq!(prepared.is_ok(), validate_raw(&office.source, &raw, &limits).is_empty());
    let Ok(prepared) = prepared else { return };
    let request = RenderRequest {
        message_id: "019a0000-0000-7000-8000-000000000001".parse().expect("an id"),
        tenant: office.tenant,
        campaign: None,
        recipient: &office.recipient,
        variables: "",
        overrides: None,
        keys: &office.keys,
    };
    let mime = prepared.render(request).expect("what was accepted can be sent").mime;
    let text = mime.split(|byte| *byte == b'\n').collect::<Vec<_>>();
    let (last, lines) = text.split_last().expect("there is a piece");
    assert!(last.is_empty(), "the last line ends");
    for line in lines {
        let line = line.strip_suffix(b"\r").expect("lines end in CRLF");
        assert!(line.len() <= 998 && !line.contains(&b'\r') && !line.contains(&0));
    }
    let end = memchr::memmem::find(&mime, b"\r\n\r\n").map_or(mime.len(), |at| at + 2);
    let names = names(&mime[..end]);
    assert_eq!(names.iter().filter(|name| *name == "from").count(), 1);
    assert!(!names.iter().any(|name| matches!(name.as_str(), "bcc" | "return-path")));
    let mail = MessageParser::new().parse(&mime[..]).expect("a mail");
    let from = mail.from().and_then(|from| from.first()).and_then(|from| from.address());
    assert_eq!(from, Some("ann@example.com"));

    if ends_in_blanks(&mime[(end + 2).min(mime.len())..]) {
        return;
    }
    let message = AuthenticatedMessage::parse(&mime).expect("a mail");
    let parameters = Parameters::new(&message).with_txt_cache(&office.zone);
    let outputs = office.runtime.block_on(office.verifier.verify_dkim(parameters));
    // Signatures that came along are their own business.
    let passes = outputs.iter().filter(|output| *output.result() == DkimResult::Pass).count();
    assert_eq!(passes, 1, "{outputs:?}");
});
