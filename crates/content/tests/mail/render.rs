//! Templates, MIME and headers as a reader gets them.

use crate::common::*;
use bytes::Bytes;
use domain::{EnvelopeSender, Lane, verp::message_of_return_path};
use mail_parser::{MessageParser, MimeHeaders};
use mailfleet_content::{
    Body, CompiledTemplate, FeedbackId, Limits, Prepared, RenderError, ReturnPath, TemplateSource, Unsubscribe,
};
use serde_json::json;

const MJML: &str = r#"<mjml>
<mj-head><mj-title>Hi {{ name }}</mj-title><mj-preview>For {{ name }}</mj-preview>
<mj-style>.big { font-size: 20px } .big:hover { color: red } @media (max-width:480px) { .big { font-size: 30px } }</mj-style></mj-head>
<mj-body>
{% for item in items %}
<mj-section css-class="row"><mj-column>
  <mj-text>{{ item.name }} &amp; {{ item.price }} {% if item.price > 10 %}<b class="big">dear</b>{% endif %}</mj-text>
  <mj-button href="{{ item.url }}?to={{ name | urlencode }}">Buy "{{ item.name }}"</mj-button>
</mj-column></mj-section>
{% endfor %}
<mj-raw>{% if footer %}<p>{{ footer }}</p>{% endif %}</mj-raw>
<mj-section><mj-column><mj-table>{% for item in items %}<tr><td>{{ item.name }}</td></tr>{% endfor %}</mj-table></mj-column></mj-section>
</mj-body></mjml>"#;

fn mjml() -> TemplateSource {
    TemplateSource {
        subject: "Your order, {{ name }}".into(),
        mjml: Some(MJML.into()),
        defaults: json!({ "footer": "Example Ltd" }).as_object().unwrap().clone(),
        ..TemplateSource::default()
    }
}

fn order() -> String {
    json!({ "name": "Zoë <b>", "items": [
        { "name": "Tea", "price": 3, "url": "https://shop.test/tea" },
        { "name": "Pot", "price": 30, "url": "https://shop.test/pot" },
    ]})
    .to_string()
}

#[test]
fn mjml_becomes_html_once_and_its_tags_work_for_each_recipient() {
    let compiled = compile(&mjml());
    assert_eq!(compiled.variables, ["items", "name"]);
    let html = compiled.html.as_ref().unwrap();
    assert!(html.contains("{% for item in items %}") && !html.contains("<mj-"));
    assert!(html.contains("@media (max-width:480px)") && html.contains(":hover"), "{html}");
    let stored: CompiledTemplate = serde_json::from_str(&serde_json::to_string(&compiled).unwrap()).unwrap();
    assert_eq!(stored, compiled);

    let rendered = render(&prepared_template(&mjml()), &order()).unwrap();
    assert_strict(&rendered.mime);
    let mail = MessageParser::new().parse(&rendered.mime[..]).unwrap();
    assert_eq!(mail.subject(), Some("Your order, Zoë <b>"));
    let html = mail.body_html(0).unwrap();
    assert!(html.contains("Hi Zoë &lt;b&gt;"), "{html}");
    assert!(html.contains("href=\"https:&#x2f;&#x2f;shop.test&#x2f;pot?to=Zo%C3%AB%20%3Cb%3E\""), "{html}");
    assert_eq!(html.matches(">Tea</td></tr><tr>").count(), 1, "{html}");
    assert_eq!(html.matches("dear").count(), 1);
    assert!(html.contains("style=\"font-size: 20px"), "{html}");
    assert!(html.contains(">Example Ltd</p>"));
    let text = mail.body_text(0).unwrap();
    assert_eq!(
        text.replace("\r\n", "\n"),
        "Tea & 3 \nBuy \"Tea\" (https://shop.test/tea?to=Zo%C3%AB%20%3Cb%3E)\nPot & 30 dear\nBuy \"Pot\" (https://shop.test/pot?to=Zo%C3%AB%20%3Cb%3E)\n\nExample Ltd\n\nTea\nPot\n"
    );
}

#[test]
fn a_missing_variable_is_named_and_a_default_fills_in() {
    let prepared = prepared_template(&mjml());
    let error = render(&prepared, r#"{"items":[]}"#).unwrap_err();
    assert_eq!(error, RenderError::MissingVariable { name: "name".into(), part: "subject".into(), line: Some(1) });
    assert!(error.is_permanent());
    assert_eq!(error.to_string(), "variable name is missing; it is used in subject, line 1");
    let error = render(&prepared, r#"{"name":"x","items":[{"name":"Tea"}]}"#).unwrap_err();
    assert!(matches!(&error, RenderError::MissingVariable { name, .. } if name == "item.price"), "{error}");

    let mut source = template("Hi {{ name }}", "<p>{{ user.name }} {{ extra }}</p>");
    source.defaults = json!({ "name": "friend", "user": { "name": "you" }, "extra": "" }).as_object().unwrap().clone();
    assert_eq!(compile(&source).variables, Vec::<String>::new());
    let prepared = prepared_template(&source);
    assert!(text(&render(&prepared, "").unwrap()).contains("Subject: Hi friend\r\n"));
    assert!(text(&render(&prepared, r#"{"name":"Bob"}"#).unwrap()).contains("Subject: Hi Bob\r\n"));
}

#[test]
fn the_same_message_renders_the_same_bytes() {
    let prepared = prepared_template(&mjml());
    let one = render_to(&prepared, "bob@example.net", &order(), &*KEYS).unwrap();
    let two = render_to(&prepared_template(&mjml()), "bob@example.net", &order(), &*KEYS).unwrap();
    assert_eq!(one.mime, two.mime);
    fn shared<T: Send + Sync>(_: &T) {}
    shared(&prepared);
}

#[test]
fn a_mail_looks_like_this() {
    let mut source =
        inline("Hello {{ name }}", Some("<p>Dear {{ name }}, <a href=\"https://example.com/\">look</a></p>"), None);
    source.lane = Lane::Bulk;
    source.reply_to = vec![named("Señor \"Q\"", "q@bücher.example")];
    source.headers = vec![("X-Order".into(), "{{ order }}".into()), ("Auto-Submitted".into(), "auto-generated".into())];
    source.list_id = Some("Weekly news <news.example.com>".into());
    source.unsubscribe = Some(Unsubscribe {
        mailto: Some("leave@example.com?subject=leave".into()),
        url: Some("https://example.com/u/{{ order }}".into()),
        one_click: true,
        hosted: false,
    });
    let rendered = render(&prepared(&source), r#"{"name":"Zoë & co","order":17}"#).unwrap();
    assert_strict(&rendered.mime);
    insta::assert_snapshot!(text(&rendered).replace("\r\n", "\n"));
    let sender = rendered.envelope.sender.0.unwrap();
    assert_eq!(sender.as_str(), "bounce+019a000000007000800000000000 0001@bounces.example.com".replace(' ', ""));
    assert_eq!(message_of_return_path(&sender, None), Some(message()));
    assert!(!rendered.envelope.smtputf8 && !rendered.eight_bit);
}

#[test]
fn bulk_mail_says_what_list_it_is_and_who_it_feeds_back_to() {
    let mut source = inline("S", None, Some("T"));
    source.lane = Lane::Bulk;
    let mail = text(&render(&prepared(&source), "{}").unwrap());
    assert!(mail.contains("List-Id: <bulk.example.com>\r\n"));
    assert!(mail.contains(&format!("Feedback-ID: :{}:bulk:mailfleet\r\n", tenant().as_uuid().simple())));
    source.feedback_id = Some(FeedbackId { parts: vec!["spring".into()], sender: "example".into() });
    assert!(text(&render(&prepared(&source), "{}").unwrap()).contains("Feedback-ID: spring:::example\r\n"));
    source.lane = Lane::Transactional;
    source.feedback_id = None;
    let mail = text(&render(&prepared(&source), "{}").unwrap());
    assert!(!mail.contains("List-Id") && !mail.contains("Feedback-ID"));
    assert!(mail.contains("Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 7bit\r\n"));
}

#[test]
fn smtputf8_is_for_local_parts_and_idn_travels_as_a_labels() {
    let mut source = inline("S", None, Some("T"));
    let plain = render_to(&prepared(&source), "bob@bücher.example", "{}", &[]).unwrap();
    assert!(!plain.envelope.smtputf8);
    assert!(text(&plain).contains("To: bob@xn--bcher-kva.example\r\n"));
    let wide = render_to(&prepared(&source), "пётр@bücher.example", "{}", &[]).unwrap();
    assert!(wide.envelope.smtputf8);
    assert!(text(&wide).contains("To: пётр@xn--bcher-kva.example\r\n"));
    source.reply_to = vec![named("Пётр", "пётр@example.com")];
    let wide = render(&prepared(&source), "{}").unwrap();
    assert!(wide.envelope.smtputf8);
    assert!(text(&wide).contains("<пётр@example.com>\r\n"), "{}", text(&wide));
    source.return_path = ReturnPath::Fixed(EnvelopeSender(None));
    assert_eq!(render(&prepared(&source), "{}").unwrap().envelope.sender, EnvelopeSender(None));
}

#[test]
fn names_in_address_fields_read_back() {
    for name in
        ["Ann", "O'Neil, Ann (x) \"y\" \\", "Zoë 漢字 and a rather long name that has to be folded somewhere", "a@b.c"]
    {
        let mut source = inline("S", None, Some("T"));
        source.from.name = Some(name.into());
        source.to_header = Some(vec![named(name, "one@example.com"), named("Two", "two@example.com")]);
        let rendered = render(&prepared(&source), "{}").unwrap();
        assert_strict(&rendered.mime);
        let mail = MessageParser::new().parse(&rendered.mime[..]).unwrap();
        let from = mail.from().unwrap().first().unwrap();
        assert_eq!((from.name(), from.address()), (Some(name), Some("ann@example.com")));
        let to = mail.to().unwrap().iter().map(|to| to.address().unwrap().to_owned()).collect::<Vec<_>>();
        assert_eq!(to, ["one@example.com", "two@example.com"]);
    }
}

#[test]
fn a_raw_mail_goes_as_it_is_but_for_what_delivery_needs() {
    let raw = b"From: Ann <ann@example.com>\nTo: all@example.net\nBcc: hidden@example.net\n\
        Return-Path: <x@example.com>\nX-Mailfleet-Id: forged\nSubject: {{ raw }}\n\
        DKIM-Signature: v=1; d=Example.com; b=x\nDKIM-Signature: v=1; d=list.test;\n b=y\n\nBody {{ raw }} \xc3\xa9\n";
    let mut source = source(Body::Raw { content: content_id() });
    source.headers = vec![("X-Extra".into(), "1".into())];
    let prepared = |raw: &[u8]| Prepared::new(&source, None, Some(Bytes::copy_from_slice(raw)), &Limits::default());
    let rendered = render_to(&prepared(raw).unwrap(), "bob@example.net", "{}", &*KEYS).unwrap();
    assert!(rendered.eight_bit && !rendered.envelope.smtputf8);
    let mail = text(&rendered);
    assert_strict(&rendered.mime);
    assert!(!mail.contains("hidden@") && !mail.contains("Return-Path") && !mail.contains("forged"));
    assert!(!mail.contains("d=Example.com") && mail.contains("d=list.test"));
    assert!(mail.contains("Subject: {{ raw }}\r\n") && mail.contains("X-Extra: 1\r\n"));
    assert_eq!(mail.matches("Message-ID: <019a0000-").count(), 1);
    assert_eq!(mail.matches("\r\nDate: ").count(), 1);
    assert!(mail.ends_with("\r\n\r\nBody {{ raw }} é\r\n"));

    for bad in [
        &b"From: Eve <eve@evil.test>\r\n\r\nx"[..],
        b"Subject: x\r\n\r\nx",
        b"From: ann@example.com\r\nFrom: ann@example.com\r\n\r\nx",
        b"From: ann@example.com\r\nSubject: a\r\nsubject: b\r\n\r\nx",
        b"From: ann@example.com\r\nno field\r\n\r\nx",
        b"From: ann@example.com\r\n\r\n\0",
        b"From: ann@example.com\r\nSubject: \xff\r\n\r\n",
        &[b"From: ann@example.com\r\n\r\n".as_slice(), &[b'x'; 999]].concat(),
        b"",
    ] {
        assert!(prepared(bad).is_err(), "{}", String::from_utf8_lossy(bad));
    }
}

#[test]
fn an_html_template_keeps_loops_in_tables_and_inlines_its_styles() {
    let html = "<html><head><style>td { color: blue }</style></head><body><table>\
                {% for x in xs %}<tr><td {% if x %}class=\"on\"{% endif %}>{{ x }}</td></tr>{% endfor %}</table></body></html>";
    let rendered = render(&prepared_template(&template("S", html)), r#"{"xs":[0,1]}"#).unwrap();
    let mail = MessageParser::new().parse(&rendered.mime[..]).unwrap();
    let html = mail.body_html(0).unwrap();
    let table = &html[html.find("<table>").unwrap()..html.find("</table>").unwrap()];
    assert_eq!(table.matches("<tr>").count(), 2, "{html}");
    assert_eq!(table.matches("class=\"on\"").count(), 1, "{html}");
    assert_eq!(table.matches("color: blue").count(), 2, "{html}");
    assert!(mail.parts[0].is_content_type("multipart", "alternative"));
}

#[test]
fn a_template_of_ten_kilobytes_costs_no_html_parsing_to_render() {
    let rows: String = "abcdefghij"
        .chars()
        .map(|name| {
            let filler = "<td style=\"padding:4px\">Some words of text that stand in the mail</td>\n".repeat(13);
            format!("<tr>{filler}<td>{{{{ {name} }}}}</td></tr>\n")
        })
        .collect();
    let html = format!("<html><body><table>\n{rows}</table></body></html>");
    assert!((9_500..11_000).contains(&html.len()), "{}", html.len());
    let mut mail = source(Body::Template { content: content_id() });
    mail.lane = Lane::Bulk;
    let compiled = compile(&template("Hi {{ a }}", &html));
    let prepared = Prepared::new(&mail, Some(&compiled), None, &Limits::default()).unwrap();
    let variables = json!({ "a": "Ann", "b": "Böb", "c": 1, "d": 2, "e": 3, "f": 4, "g": 5, "h": 6, "i": 7, "j": 8 });
    let variables = variables.to_string();
    let time = || {
        let started = std::time::Instant::now();
        render(&prepared, &variables).unwrap();
        started.elapsed()
    };
    let best = (0..300).map(|_| time()).min().unwrap();
    // A hundred times what it costs with optimisation: only a slip into parsing HTML per mail comes near.
    assert!(best.as_millis() < 6, "{best:?}");
}
