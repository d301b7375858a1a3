//! Any template and any variables: refused at publish, failed for this recipient, or one strict mail with the fields
//! that it should have. It always ends; libFuzzer's time and memory limits see to that.
//!
//! The input is a kind, whose highest bit has the mail tracked, then subject, body, header value and variables with a
//! 0x1e between them.
#![no_main]

use content::{Body, Limits, MailSource, NameAddr, Prepared, RenderRequest, ReturnPath, TemplateSource, Tracker, Unsubscribe};
use domain::{ContentId, EnvelopeSender, Lane, Mailbox, MessageId, TenantId, TokenKeys, TrackingChoice, TrackingSite};
use libfuzzer_sys::fuzz_target;
use mail_parser::MessageParser;
use std::sync::{Arc, LazyLock};

static TENANT: LazyLock<TenantId> = LazyLock::new(|| "019a0000-0000-7000-8000-00000000000a".parse().expect("an id"));
static MESSAGE: LazyLock<MessageId> = LazyLock::new(|| "019a0000-0000-7000-8000-000000000001".parse().expect("an id"));
static TRACKER: LazyLock<Arc<Tracker>> = LazyLock::new(|| {
    let site = TrackingSite::new("https://click.example.com".parse().expect("a base address"));
    Arc::new(Tracker::new(TokenKeys::new([7; 32], []), Some(site)))
});
static RECIPIENT: LazyLock<Mailbox> = LazyLock::new(|| "bob@example.net".parse().expect("an address"));

/// Every field that the mail of this target may have, each once.
const FIELDS: [&str; 13] = [
    "from",
    "to",
    "subject",
    "mime-version",
    "content-type",
    "content-transfer-encoding",
    "date",
    "message-id",
    "list-unsubscribe",
    "list-unsubscribe-post",
    "x-value",
    "x-mailfleet-id",
    "x-mailfleet-token",
];

fn source(body: Body, value: &str) -> MailSource {
    MailSource {
        from: NameAddr { name: None, mailbox: "ann@example.com".parse().expect("an address") },
        reply_to: Vec::new(),
        to_header: None,
        cc_header: Vec::new(),
        headers: vec![("X-Value".into(), value.into())],
        body,
        unsubscribe: Some(Unsubscribe { mailto: None, url: Some("https://u.test/{{ x }}".into()), one_click: true, hosted: false }),
        list_id: None,
        feedback_id: None,
        lane: Lane::Transactional,
        return_path: ReturnPath::Fixed(EnvelopeSender(None)),
        signing_domain: "example.com".parse().expect("a name"),
        attachments: Vec::new(),
        sandbox: false,
        tracking: TrackingChoice { opens: Some(true), clicks: Some(true) },
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((kind, rest)) = data.split_first() else { return };
    let Ok(text) = std::str::from_utf8(rest) else { return };
    let mut parts = text.split('\u{1e}');
    let mut next = || parts.next().unwrap_or_default().to_owned();
    let (subject, body, value, variables) = (next(), next(), next(), next());
    let limits = Limits::default();
    let (source, template) = match kind % 4 {
        0 => (source(Body::Inline { subject, html: Some(body), text: None }, &value), None),
        1 => (source(Body::Inline { subject, html: None, text: Some(body) }, &value), None),
        kind => {
            let (html, mjml) = if kind == 2 { (Some(body), None) } else { (None, Some(body)) };
            let Ok(compiled) = (TemplateSource { subject, html, mjml, ..TemplateSource::default() }).compile(&limits)
            else {
                return;
            };
            (source(Body::Template { content: ContentId::of(*TENANT, &[b"x"]) }, &value), Some(compiled))
        }
    };
    let prepared = Prepared::new(&source, template.as_ref(), None, &limits);
    let Ok(prepared) = prepared else {
        assert!(!source.validate(&limits).is_empty(), "accepted or published, then refused");
        return;
    };
    let prepared = if kind & 0x80 == 0 { prepared } else { prepared.tracked_by(TRACKER.clone()) };
    let request = RenderRequest {
        message_id: *MESSAGE,
        tenant: *TENANT,
        campaign: None,
        recipient: &RECIPIENT,
        variables: &variables,
        overrides: None,
        keys: &[],
    };
    let Ok(rendered) = prepared.render(request) else { return };
    let mime = std::str::from_utf8(&rendered.mime).expect("a made mail is text");
    assert!(mime.is_ascii() && mime.ends_with("\r\n"));
    assert!(!mime.replace("\r\n", "").contains(['\r', '\n', '\0']));
    assert!(mime.split("\r\n").all(|line| line.len() <= 998));
    let head = &mime[..mime.find("\r\n\r\n").expect("a header ends")];
    let mut names: Vec<String> = head
        .split("\r\n")
        .filter(|line| !line.starts_with([' ', '\t']))
        .map(|line| line.split(':').next().unwrap_or_default().to_ascii_lowercase())
        .collect();
    assert!(names.iter().all(|name| FIELDS.contains(&name.as_str())), "{head}");
    names.sort();
    assert!(names.is_sorted_by(|one, two| one < two), "a field stands twice: {head}");
    let mail = MessageParser::new().parse(&rendered.mime[..]).expect("a mail");
    assert_eq!(mail.from().and_then(|from| from.first()).and_then(|from| from.address()), Some("ann@example.com"));
    assert_eq!(mail.to().map(|to| to.iter().count()), Some(1));
    assert!((1..=3).contains(&mail.parts.len()), "{} parts", mail.parts.len());
});
