//! Making one mail of about 10 KB: rendered, built and hashed; what each signature adds to that, and what ten links, an
//! image and a way out add when they are signed, in a body with variables and in one that is the same for all.

#![allow(clippy::unwrap_used, missing_docs)]

use content::{
    Body, Limits, MailSource, NameAddr, Prepared, RenderRequest, ReturnPath, SigningKey, TemplateSource, Tracker,
};
use criterion::{Criterion, criterion_group, criterion_main};
use domain::{ContentId, DomainName, Lane, Mailbox, MessageId, TenantId, TokenKeys, TrackingSite};
use std::{hint::black_box, sync::Arc};

const VARIABLES: &str = r#"{"name":"Ada 7","order":"B-7","city":"Turku","street":"Quay 7","item":"Lamp","size":"M","colour":"blue","price":"19.90","date":"2 May","clerk":"Noor"}"#;

/// As [`template`], with ten links; `constant` leaves the variables out.
fn linked(constant: bool) -> TemplateSource {
    let mut source = template();
    let html = source.html.take().unwrap();
    let html = (0..10).fold(html, |html, number| {
        let link = format!("<a class=\"b\" href=\"https://shop.bench.test/a/{number}?ref=mail&amp;to=x\">Look</a></p>");
        html.replacen("</p>", &link, 1)
    });
    source.html = Some(if constant { html.replace("{{", "").replace("}}", "") } else { html });
    source
}

fn template() -> TemplateSource {
    let filler = "Thank you for your order. It has left our house this morning and will be with you soon. ".repeat(5);
    let names = ["order", "city", "street", "item", "size", "colour", "price", "date", "clerk"];
    let sections: String = names.iter().map(|name| format!("<h2>{{{{ {name} }}}}</h2><p>{filler}</p>")).collect();
    TemplateSource {
        subject: "{{ name }}, your order {{ order }} is on its way".to_owned(),
        html: Some(format!("<html><body><h1>Hello {{{{ name }}}}</h1>{sections}</body></html>")),
        ..TemplateSource::default()
    }
}

fn prepared(template: &TemplateSource) -> Prepared {
    let source = MailSource {
        from: NameAddr { name: Some("Bench".to_owned()), mailbox: "shop@bench.test".parse().unwrap() },
        reply_to: Vec::new(),
        to_header: None,
        cc_header: Vec::new(),
        headers: Vec::new(),
        body: Body::Template { content: ContentId::of(tenant(), &[b"bench"]) },
        unsubscribe: None,
        list_id: None,
        feedback_id: None,
        lane: Lane::Bulk,
        return_path: ReturnPath::PerMessage("bounces.bench.test".parse().unwrap()),
        signing_domain: "bench.test".parse().unwrap(),
        attachments: Vec::new(),
        sandbox: false,
        tracking: Default::default(),
    };
    let compiled = template.compile(&Limits::default()).unwrap();
    Prepared::new(&source, Some(&compiled), None, &Limits::default()).unwrap()
}

fn tenant() -> TenantId {
    "019a0000-0000-7000-8000-00000000000a".parse().unwrap()
}

fn mail(criterion: &mut Criterion) {
    let plain = prepared(&template());
    let domain: DomainName = "bench.test".parse().unwrap();
    let rsa = SigningKey::generate_rsa_2048().unwrap();
    let rsa = SigningKey::rsa_from_pkcs8(domain.clone(), "r1", &rsa.pkcs8).unwrap();
    let ed25519 = SigningKey::generate_ed25519().unwrap();
    let ed25519 = SigningKey::ed25519_from_pkcs8(domain, "e1", &ed25519.pkcs8).unwrap();
    let recipient: Mailbox = "r7@receiver.test".parse().unwrap();
    let message_id: MessageId = "019a0000-0000-7000-8000-000000000001".parse().unwrap();
    let cases = [
        ("render", vec![]),
        ("render_sign_ed25519", vec![ed25519.clone()]),
        ("render_sign_rsa2048", vec![rsa.clone()]),
        ("render_sign_both", vec![rsa, ed25519]),
    ];
    let request = |keys| RenderRequest {
        message_id,
        tenant: tenant(),
        campaign: None,
        recipient: &recipient,
        variables: VARIABLES,
        overrides: None,
        keys,
    };
    let mut group = criterion.benchmark_group("mail");
    for (name, keys) in &cases {
        group.bench_function(*name, |bench| bench.iter(|| plain.render(black_box(request(keys))).unwrap()));
    }
    let site = TrackingSite::new("https://click.bench.test".parse().unwrap());
    let tracker = Arc::new(Tracker::new(TokenKeys::new([7; 32], []), Some(site)));
    for (name, constant) in [("links", false), ("links_constant", true)] {
        let untracked = prepared(&linked(constant));
        group.bench_function(name, |bench| bench.iter(|| untracked.render(black_box(request(&[]))).unwrap()));
        let tracked = prepared(&linked(constant)).tracked_by(Arc::clone(&tracker));
        let name = format!("{name}_tracked");
        group.bench_function(name, |bench| bench.iter(|| tracked.render(black_box(request(&[]))).unwrap()));
    }
    group.finish();
    criterion.bench_function("template/compile", |bench| {
        let source = template();
        bench.iter(|| black_box(&source).compile(&Limits::default()).unwrap());
    });
}

criterion_group!(benches, mail);
criterion_main!(benches);
