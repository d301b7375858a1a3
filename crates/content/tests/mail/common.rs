//! Sources, requests and keys that the tests share.

use domain::{ContentId, DomainName, Lane, Mailbox, MessageId, TenantId};
use mailfleet_content::{
    Body, CompiledTemplate, Limits, MailSource, NameAddr, Prepared, RenderError, RenderRequest, Rendered, ReturnPath,
    SigningKey, TemplateSource,
};
use std::sync::LazyLock;

pub static KEYS: LazyLock<[SigningKey; 2]> = LazyLock::new(|| {
    let rsa = SigningKey::generate_rsa_2048().unwrap();
    let ed = SigningKey::generate_ed25519().unwrap();
    [
        SigningKey::rsa_from_pkcs8(domain_name("example.com"), "r1", &rsa.pkcs8).unwrap(),
        SigningKey::ed25519_from_pkcs8(domain_name("example.com"), "e1", &ed.pkcs8).unwrap(),
    ]
});

pub fn domain_name(text: &str) -> DomainName {
    text.parse().unwrap()
}

pub fn mailbox(text: &str) -> Mailbox {
    text.parse().unwrap()
}

pub fn named(name: &str, address: &str) -> NameAddr {
    NameAddr { name: Some(name.to_owned()), mailbox: mailbox(address) }
}

pub fn content_id() -> ContentId {
    ContentId::of(tenant(), &[b"content"])
}

pub fn tenant() -> TenantId {
    "019a0000-0000-7000-8000-00000000000a".parse().unwrap()
}

pub fn message() -> MessageId {
    "019a0000-0000-7000-8000-000000000001".parse().unwrap()
}

pub fn source(body: Body) -> MailSource {
    MailSource {
        from: named("Ann Example", "ann@example.com"),
        reply_to: Vec::new(),
        to_header: None,
        cc_header: Vec::new(),
        headers: Vec::new(),
        body,
        unsubscribe: None,
        list_id: None,
        feedback_id: None,
        lane: Lane::Transactional,
        return_path: ReturnPath::PerMessage(domain_name("bounces.example.com")),
        signing_domain: domain_name("example.com"),
        attachments: Vec::new(),
        sandbox: false,
        tracking: Default::default(),
    }
}

pub fn inline(subject: &str, html: Option<&str>, text: Option<&str>) -> MailSource {
    source(Body::Inline { subject: subject.to_owned(), html: html.map(str::to_owned), text: text.map(str::to_owned) })
}

pub fn compile(source: &TemplateSource) -> CompiledTemplate {
    source.compile(&Limits::default()).unwrap()
}

pub fn template(subject: &str, html: &str) -> TemplateSource {
    TemplateSource { subject: subject.to_owned(), html: Some(html.to_owned()), ..TemplateSource::default() }
}

pub fn prepared(source: &MailSource) -> Prepared {
    Prepared::new(source, None, None, &Limits::default()).unwrap()
}

pub fn prepared_template(template: &TemplateSource) -> Prepared {
    let mail = source(Body::Template { content: content_id() });
    Prepared::new(&mail, Some(&compile(template)), None, &Limits::default()).unwrap()
}

pub fn render(prepared: &Prepared, variables: &str) -> Result<Rendered, RenderError> {
    render_to(prepared, "bob@example.net", variables, &[])
}

pub fn render_to(
    prepared: &Prepared,
    recipient: &str,
    variables: &str,
    keys: &[SigningKey],
) -> Result<Rendered, RenderError> {
    prepared.render(RenderRequest {
        message_id: message(),
        tenant: tenant(),
        campaign: None,
        recipient: &mailbox(recipient),
        variables,
        overrides: None,
        keys,
    })
}

pub fn text(rendered: &Rendered) -> String {
    String::from_utf8(rendered.mime.to_vec()).unwrap()
}

/// Line ends are CRLF alone and no line is longer than a mail's may be.
pub fn assert_strict(mime: &[u8]) {
    let text = String::from_utf8_lossy(mime);
    assert!(!text.replace("\r\n", "").contains(['\r', '\n', '\0']), "a bare CR, LF or NUL");
    assert!(text.ends_with("\r\n"));
    assert!(mime.split(|byte| *byte == b'\n').all(|line| line.len() <= 999), "a line over 998 octets");
}
