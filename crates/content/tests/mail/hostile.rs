//! What authors, callers and recipients' data can do to a rendering: fail, and nothing else.

use crate::common::*;
use mail_parser::MessageParser;
use mailfleet_content::{Body, Limits, MailSource, NameAddr, Prepared, RenderError, TemplateSource, Unsubscribe};
use proptest::prelude::*;
use serde_json::json;
use std::time::{Duration, Instant};

/// The most memory this process has held, in KiB.
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok()).unwrap_or(0)
}

/// Renders a text part and returns the error, which has to come soon.
fn bomb(text: &str) -> RenderError {
    let prepared = prepared(&inline("S", None, Some(text)));
    let started = Instant::now();
    let error = render(&prepared, r#"{"s":"0123456789","xs":[1,2,3]}"#).unwrap_err();
    assert!(started.elapsed() < Duration::from_secs(1), "{text}: {:?}", started.elapsed());
    error
}

#[test]
fn template_bombs_run_out_of_fuel() {
    let doubling = "{% set s = s ~ s %}".repeat(60);
    let capturing = format!("{{% set s %}}{}{{% endset %}}", "{{ s }}{{ s }}").repeat(60);
    let wide = format!("{{% for i in range(99999) %}}{}{{% endfor %}}", "x".repeat(10_000));
    let kept = format!("{{% set t %}}{wide}{{% endset %}}");
    let fed = "{% set s = s | replace('0', s) %}".repeat(30);
    for text in [
        "{% for i in range(99999) %}{% for j in range(99999) %}{{ i }}{% endfor %}{% endfor %}",
        "{{ 'x' * 99999999 }}",
        "{% for i in range(99999) %}{{ s | string * 100 }}{% endfor %}",
        "{{ range(99999) | join('%99999s' | format(s)) }}",
        "{{ 'x\ny' | indent(99999999) }}",
        "{{ ('x' * 6000000) | list | join('x' * 6000000) }}",
        "{{ ('x' * 6000000) | split('') | sort | unique | length }}",
        "{% for i in range(9999) %}{% for j in xs | sort %}{{ ('x' * 99999) | upper | length }}{% endfor %}{% endfor %}",
        "{% for x in xs recursive %}{{ loop(xs) }}{{ loop(xs) }}{% endfor %}",
        "{% for i in range(99999) %}{{ xs | string }}{% endfor %}",
        &doubling,
        &capturing,
        &wide,
        &kept,
        &fed,
    ] {
        let before = peak_kib();
        let error = bomb(text);
        let limited = matches!(error, RenderError::Limit { .. });
        assert!(limited || matches!(error, RenderError::Template { .. }), "{text}: {error}");
        assert!(peak_kib() - before < 64 * 1024, "{text} took {} KiB", peak_kib() - before);
    }
}

/// Turning a list into text is charged only when it is done, so lists that could grow are no templates.
#[test]
fn lists_that_could_grow_are_refused_when_accepted() {
    for text in [
        "{{ [1] * 99999999 }}",
        "{{ xs * 99999999 }}",
        "{% set a = xs + xs %}",
        "{% set a = namespace() %}{% set a.b = a %}{{ a }}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    ] {
        let findings = inline("S", None, Some(text)).validate(&Limits::default());
        assert_eq!(findings[0].field, "body.text", "{text}");
    }
}

#[test]
fn tags_nested_too_deep_are_refused() {
    let nested = format!("{}x{}", "{% if true %}".repeat(10_000), "{% endif %}".repeat(10_000));
    assert!(!inline("S", None, Some(&nested)).validate(&Limits::default()).is_empty());
    let deep = format!("{{{{ {}1{} }}}}", "(".repeat(20_000), ")".repeat(20_000));
    assert!(!inline("S", None, Some(&deep)).validate(&Limits::default()).is_empty());
}

#[test]
fn nothing_outside_can_be_reached() {
    for text in [
        "{% include 'x' %}",
        "{% import 'x' as y %}",
        "{% extends 'x' %}",
        "{{ now() }}",
        "{{ debug() }}",
        "{{ env('HOME') }}",
        "{{ s | pprint }}",
        "{{ random() }}",
    ] {
        let source = inline("S", None, Some(text));
        let refused = !source.validate(&Limits::default()).is_empty();
        assert!(refused || render(&prepared(&source), r#"{"s":1}"#).is_err(), "{text}");
    }
}

#[test]
fn markup_nested_too_deep_is_refused_before_it_is_walked() {
    let html = "<div>".repeat(50_000);
    let findings = template("S", &html).compile(&Limits::default()).unwrap_err();
    assert_eq!(findings[0].field, "html");
    assert!(!inline("S", Some(&html), None).validate(&Limits::default()).is_empty());
    let mjml = format!("<mjml><mj-body>{}</mj-body></mjml>", "<mj-wrapper>".repeat(20_000));
    let source = TemplateSource { subject: "S".into(), mjml: Some(mjml), ..TemplateSource::default() };
    assert_eq!(source.compile(&Limits::default()).unwrap_err()[0].field, "mjml");
    // As deep as is allowed is walked without trouble, on the small stack that a test has.
    let html = format!("{}x{}", "<div>".repeat(100), "</div>".repeat(100));
    assert!(render(&prepared_template(&template("S", &html)), "").is_ok());
}

#[test]
fn no_field_takes_a_line_break() {
    let limits = Limits::default();
    let fields =
        |source: &MailSource| source.validate(&limits).into_iter().map(|finding| finding.field).collect::<Vec<_>>();
    let mut source = inline("a\r\nBcc: x@evil.test", None, Some("T"));
    source.from.name = Some("Ann\r\nBcc: x@evil.test".into());
    source.reply_to = vec![NameAddr { name: Some("a\u{202e}b".into()), mailbox: mailbox("a@example.com") }];
    source.headers = vec![
        ("X-A\r\nBcc".into(), "x".into()),
        ("X-B".into(), "a\nb".into()),
        ("Bcc".into(), "x@evil.test".into()),
        ("List-Unsubscribe".into(), "<https://x.test>".into()),
        ("X-C".into(), "{{ open".into()),
    ];
    source.unsubscribe = Some(Unsubscribe {
        url: Some("https://a.test/> <b".into()),
        mailto: Some("a@b.test\r\nBcc:x@y.test".into()),
        one_click: true,
        hosted: false,
    });
    source.list_id = Some("a\r\nb".into());
    assert_eq!(
        fields(&source),
        [
            "from.name",
            "reply_to[0].name",
            "headers[0].name",
            "headers[1].value",
            "headers[2].name",
            "headers[3].name",
            "headers[4].value",
            "body.subject",
            "unsubscribe.url",
            "unsubscribe.mailto",
            "list_id",
        ]
    );
    let mut foreign = inline("S", None, Some("T"));
    foreign.from.mailbox = mailbox("ann@other.test");
    assert_eq!(fields(&foreign), ["from.mailbox"]);
}

#[test]
fn a_variable_cannot_inject_a_header() {
    let mut source = inline("Hi {{ name }}", Some("<p>{{ name }}</p>"), None);
    let evil = json!({ "name": "x\r\nBcc: eve@evil.test\r\n\r\nbody" }).to_string();
    let error = render(&prepared(&source), &evil).unwrap_err();
    assert_eq!(error, RenderError::Header { field: "subject".into(), problem: "holds a line break" });

    source = inline("S", None, Some("{{ name }}"));
    source.headers = vec![("X-Name".into(), "for {{ name }}".into())];
    let error = render(&prepared(&source), &evil).unwrap_err();
    assert_eq!(error, RenderError::Header { field: "headers[0].value".into(), problem: "holds a line break" });

    source.headers.clear();
    source.unsubscribe = Some(Unsubscribe { url: Some("https://{{ name }}".into()), ..Unsubscribe::default() });
    let error = render(&prepared(&source), r#"{"name":"a.test>,<https://b.test"}"#).unwrap_err();
    assert!(matches!(&error, RenderError::Header { field, .. } if field == "unsubscribe.url"));
}

#[test]
fn variables_are_a_bounded_json_object() {
    let prepared = prepared(&inline("S", None, Some("T")));
    assert_eq!(render(&prepared, "[1]").unwrap_err().reason(), "variables");
    assert_eq!(render(&prepared, "{\"a\":").unwrap_err().reason(), "variables");
    assert_eq!(render(&prepared, &format!("{{\"a\":{}}}", "[".repeat(30_000))).unwrap_err().reason(), "variables");
    let large = format!("{{\"a\":\"{}\"}}", "x".repeat(70_000));
    assert_eq!(render(&prepared, &large).unwrap_err().reason(), "limit");
}

#[test]
fn findings_name_the_part_the_line_and_the_way_out() {
    let check = |source: &TemplateSource, field: &str, line: Option<usize>| {
        let findings = source.compile(&Limits::default()).unwrap_err();
        assert_eq!((findings[0].field.as_str(), findings[0].line), (field, line), "{findings:?}");
        assert!(!findings[0].fix.is_empty());
    };
    check(&template("", "<p>x</p>"), "subject", None);
    check(&template("S", "<p>\n{{ a b }}</p>"), "html", Some(2));
    check(&template("S", "<p>{% if a %}</p>"), "html", Some(1));
    check(&template("{{ a | nosuch }}", "<p>x</p>"), "subject", Some(1));
    let mjml =
        |text: &str| TemplateSource { subject: "S".into(), mjml: Some(text.into()), ..TemplateSource::default() };
    check(&mjml("<mjml>\n<mj-body>\n{{ x }}\n<mj-text></mj-body></mjml>"), "mjml", Some(4));
    check(&mjml("<p>x</p>"), "mjml", Some(1));
    check(&mjml("<mjml><mj-body><mj-include path=\"/etc/passwd\" /></mj-body></mjml>"), "mjml", Some(1));
    check(&TemplateSource { subject: "S".into(), ..TemplateSource::default() }, "html", None);
}

#[test]
fn html_is_escaped_and_text_is_not() {
    let prepared = prepared(&inline("{{ x }}", Some("<p title=\"{{ x }}\">{{ x }}</p>"), Some("{{ x }}")));
    let rendered = render(&prepared, r#"{"x":"<i>\"&'"}"#).unwrap();
    let mail = MessageParser::new().parse(&rendered.mime[..]).unwrap();
    assert_eq!(mail.subject(), Some("<i>\"&'"));
    assert_eq!(mail.body_text(0).unwrap(), "<i>\"&'");
    assert_eq!(mail.body_html(0).unwrap(), "<p title=\"&lt;i&gt;&quot;&amp;&#x27;\">&lt;i&gt;&quot;&amp;&#x27;</p>");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_value_of_a_variable_reads_back(value in "(\\PC|[\t\n=.-]|\r\n|é|漢){0,300}") {
        let prepared = prepared(&inline("S", Some("<p>{{ x }}</p>"), Some("{{ x }}")));
        let rendered = render(&prepared, &json!({ "x": value }).to_string()).unwrap();
        assert_strict(&rendered.mime);
        let mail = MessageParser::new().parse(&rendered.mime[..]).unwrap();
        let text = mail.parts[1].text_contents().unwrap();
        prop_assert_eq!(text.replace("\r\n", "\n"), value.replace("\r\n", "\n"));
    }

    #[test]
    fn no_source_makes_the_compiler_panic(html in "([<>/{}%#\"'= a-z!-]|<table>|<mj-text>|\\{\\{ x \\}\\}|\\{% if x %\\}|\\{% endif %\\}|<!--|-->|<style>|é){0,60}") {
        let limits = Limits::default();
        let compiled = template("S", &html).compile(&limits);
        let mjml = TemplateSource { subject: "S".into(), mjml: Some(html.clone()), ..TemplateSource::default() };
        let _ = mjml.compile(&limits);
        let _ = inline(&html, Some(&html), None).validate(&limits);
        if let Ok(compiled) = compiled {
            let mail = source(Body::Template { content: content_id() });
            let prepared = Prepared::new(&mail, Some(&compiled), None, &limits).unwrap();
            if let Ok(rendered) = render(&prepared, r#"{"x":1}"#) {
                assert_strict(&rendered.mime);
            }
        }
    }
}
