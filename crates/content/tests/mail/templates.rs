//! Any template with any variables: refused when it is published, failed for one recipient, or a strict mail.

use crate::common::*;
use mailfleet_content::{
    Body, Ingredient, Library, Limits, MailSource, Prepared, TemplateSource, Unsubscribe, VersionSource,
};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

const NAMES: [&str; 8] = ["x", "xs", "o", "o.a", "xs[0]", "missing", "loop.index", "loop"];
#[rustfmt::skip]
const CONSTANTS: [&str; 16] = [
    "'text'", "''", "'\\r\\nBcc: eve@evil.test'", "'<b>'", "1", "0", "-1", "99999", "9223372036854775807", "1.5", "true",
    "none", "[1, 2]", "{'a': 1}", "range(9)", "range(99999)",
];
#[rustfmt::skip]
const FILTERS: [&str; 48] = [
    "abs", "bool", "capitalize", "count", "e", "escape", "float", "indent(3)", "indent(99999)", "int", "join(', ')", "length",
    "lower", "replace('a', 'bb')", "round", "round(2)", "safe", "string", "title", "trim", "upper", "urlencode",
    "format(1)", "attr('a')", "default('d')", "dictsort", "first", "items", "last", "lines", "list", "map('upper')",
    "map(attribute='a')", "max", "min", "reject", "rejectattr('a')", "reverse", "select", "selectattr('a', 'eq', 1)", "sort",
    "split", "split('')", "unique", "tojson", "pprint", "groupby('a')", "nosuch",
];
#[rustfmt::skip]
const OPERATORS: [&str; 19] = [
    "+", "-", "*", "/", "//", "%", "**", "~", "==", "!=", "<", "<=", ">", ">=", "and", "or", "in", "not in", "is eq",
];

/// Expressions, right ones and wrong ones.
fn expr() -> impl Strategy<Value = String> {
    let owned = |texts: &'static [&'static str]| prop::sample::select(texts).prop_map(str::to_owned);
    prop_oneof![owned(&NAMES), owned(&CONSTANTS)].prop_recursive(4, 12, 3, move |inner| {
        let two = (inner.clone(), inner.clone());
        prop_oneof![
            4 => (inner.clone(), owned(&FILTERS)).prop_map(|(value, filter)| format!("{value} | {filter}")),
            4 => (two.clone(), owned(&OPERATORS)).prop_map(|((a, b), op)| format!("{a} {op} {b}")),
            1 => two.clone().prop_map(|(a, b)| format!("({a} if {b})")),
            1 => (two.clone(), inner.clone()).prop_map(|((a, b), c)| format!("({a} if {b} else {c})")),
            1 => two.clone().prop_map(|(a, b)| format!("{a}[{b}]")),
            1 => two.clone().prop_map(|(a, b)| format!("{a}[{b}:]")),
            1 => two.prop_map(|(a, b)| format!("[{a}, {b}]")),
            1 => inner.clone().prop_map(|a| format!("({a})")),
            1 => inner.clone().prop_map(|a| format!("not {a}")),
            1 => inner.clone().prop_map(|a| format!("-{a}")),
            1 => inner.prop_map(|a| format!("loop({a})")),
        ]
    })
}

/// Whole templates: text, markup and tags around one another.
fn template_text() -> impl Strategy<Value = String> {
    let text = prop::sample::select(vec![
        "text ",
        "é",
        "<p>",
        "</p>",
        "<table>",
        "<tr><td>",
        "</table>",
        "<style>p { color: red }</style>",
        "<a href='",
        "'>",
        "<!--",
        "-->",
        "{",
        "}}",
        "{#",
        "#}",
        "\n",
        "\r\n",
        "<mjml><mj-body>",
        "<mj-text>",
        "</mj-text>",
        "&#123;&#123;",
    ]);
    let leaf = prop_oneof![
        3 => text.prop_map(str::to_owned),
        4 => expr().prop_map(|value| format!("{{{{ {value} }}}}")),
        1 => "\\PC{0,12}",
        1 => (prop::sample::select(vec!["x", "y", "o"]), expr()).prop_map(|(name, value)| format!("{{% set {name} = {value} %}}")),
        1 => prop::sample::select(vec![
            "{% include 'x' %}", "{% extends 'y' %}", "{% block a %}", "{%- block b -%}", "{% endblock %}", "{{ super() }}", "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "{% autoescape false %}", "{% do x %}", "{% break %}",
            "{% raw %}{{ x }}{% endraw %}", "{% raw %}", "{% endif %}", "{%- if x -%}", "{{ x", "{{ debug() }}", "{{ now() }}",
        ]).prop_map(str::to_owned),
    ];
    leaf.prop_recursive(4, 24, 5, |inner| {
        let several = prop::collection::vec(inner.clone(), 1..4).prop_map(|parts| parts.concat());
        prop_oneof![
            3 => prop::collection::vec(inner, 1..5).prop_map(|parts| parts.concat()),
            2 => (expr(), several.clone()).prop_map(|(value, inner)| format!("{{% if {value} %}}{inner}{{% endif %}}")),
            2 => (expr(), several.clone()).prop_map(|(value, inner)| format!("{{% for i in {value} %}}{inner}{{% endfor %}}")),
            1 => (expr(), several.clone()).prop_map(|(value, inner)| format!("{{% for i in {value} recursive %}}{inner}{{% endfor %}}")),
            1 => (expr(), several.clone()).prop_map(|(value, inner)| format!("{{% with x = {value} %}}{inner}{{% endwith %}}")),
            1 => several.clone().prop_map(|inner| format!("{{% set x %}}{inner}{{% endset %}}")),
            1 => several.prop_map(|inner| format!("{{% filter upper %}}{inner}{{% endfilter %}}")),
        ]
    })
}

/// What authors write: it is taken, and renders with most variables.
fn tame() -> impl Strategy<Value = String> {
    let part = prop::sample::select(vec![
        "{{ x }}",
        "{{ x | upper }}",
        "{{ x | default('d') | urlencode }}",
        "{{ o.a }}",
        "{{ xs | join(', ') }}",
        "{{ xs | length }}",
        "{% for i in xs %}{{ loop.index }} {{ i }}{% else %}none{% endfor %}",
        "{% if x %}{{ x | safe }}{% endif %}",
        "{% set x = x ~ '!' %}",
        "{% for i in range(99) %}{{ x | string * 9 }}{% endfor %}",
        "{{ x[:3] }}",
        "text ",
        "<b>",
        "</b>",
        "é",
    ]);
    prop::collection::vec(part, 1..5).prop_map(|parts| parts.concat())
}

fn tame_or_any() -> impl Strategy<Value = String> {
    prop_oneof![1 => Just("{{ x }}".to_owned()), 2 => tame(), 1 => template_text()]
}

fn json() -> impl Strategy<Value = Value> {
    let text = prop_oneof![
        3 => "\\PC{0,12}",
        1 => Just("\r\nBcc: eve@evil.test\r\n\r\n".to_owned()),
        1 => "[\u{0}-\u{1f}\u{7f}-\u{9f}\u{2028}<>{}%.]{0,6}",
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(|number| json!(number)),
        text.prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec(("[ab]|\\PC{0,4}", inner), 0..4)
                .prop_map(|items| Value::Object(items.into_iter().collect())),
        ]
    })
}

fn variables() -> impl Strategy<Value = String> {
    let injection = Just(json!("\r\nBcc: eve@evil.test"));
    let text = "\\PC{0,12}".prop_map(Value::from);
    let list = prop::collection::vec(json(), 0..4).prop_map(Value::from);
    let object = json().prop_map(|a| json!({ "a": a }));
    (
        prop_oneof![1 => json(), 1 => injection, 4 => text],
        prop_oneof![1 => json(), 3 => list],
        prop_oneof![1 => json(), 3 => object],
    )
        .prop_map(|(x, xs, o)| json!({ "x": x, "xs": xs, "o": o }).to_string())
}

/// Little fuel, so that what never ends does so soon.
fn limits() -> Limits {
    Limits { fuel: 5_000, max_part_bytes: 100_000, ..Limits::default() }
}

fn rendered_strictly(source: &MailSource, prepared: &Prepared, variables: &str) -> Result<(), TestCaseError> {
    let Ok(rendered) = render(prepared, variables) else { return Ok(()) };
    assert_strict(&rendered.mime);
    prop_assert!(rendered.mime.is_ascii() && rendered.mime.len() < 1_000_000);
    let text = text(&rendered);
    let head = &text[..text.find("\r\n\r\n").unwrap()];
    let fields = head.split("\r\n").filter(|line| !line.starts_with([' ', '\t'])).count();
    let more = source.headers.len() + 2 * usize::from(source.unsubscribe.is_some());
    prop_assert_eq!(fields, 9 + more, "{}", head);
    prop_assert!(!head.contains("\r\nBcc"));
    Ok(())
}

proptest! {
    #[test]
    fn any_template_ends_and_injects_nothing(
        subject in tame_or_any(), body in tame_or_any(), value in tame_or_any(), url in tame_or_any(),
        variables in variables(), has_html in any::<bool>(),
    ) {
        let subject = subject.replace(['\r', '\n'], " ");
        let mut source =
            if has_html { inline(&subject, Some(&body), None) } else { inline(&subject, None, Some(&body)) };
        source.headers = vec![("X-Value".into(), value.replace(['\r', '\n'], " "))];
        source.unsubscribe = Some(Unsubscribe { url: Some(format!("https://u.test/{url}")), mailto: None, one_click: true, hosted: false });
        // Parts that would be refused stand for themselves; the rest is tried all the same.
        for finding in source.validate(&limits()) {
            match finding.field.split('.').next().unwrap_or_default() {
                "headers[0]" => source.headers.clear(),
                "unsubscribe" => source.unsubscribe = None,
                _ if finding.field == "body.subject" => source = MailSource { body: with_subject(source.body, "S"), ..source },
                _ => return Ok(()),
            }
        }
        prop_assert!(source.validate(&limits()).is_empty());
        let prepared = Prepared::new(&source, None, None, &limits());
        let prepared = match prepared {
            Ok(prepared) => prepared,
            Err(error) => return Err(TestCaseError::fail(format!("accepted, then {error}"))),
        };
        rendered_strictly(&source, &prepared, &variables)?;
    }

    #[test]
    fn what_compiles_can_be_prepared_and_rendered(
        body in tame_or_any(), variables in variables(), defaults in json(), is_mjml in any::<bool>(),
    ) {
        let mut template = TemplateSource { subject: "S".into(), ..TemplateSource::default() };
        if is_mjml {
            template.mjml = Some(format!("<mjml><mj-body><mj-section><mj-column><mj-text>{body}</mj-text></mj-column></mj-section></mj-body></mjml>"));
        } else {
            template.html = Some(body);
        }
        template.defaults = Map::from_iter([("missing".to_owned(), defaults)]);
        let Ok(compiled) = template.compile(&limits()) else { return Ok(()) };
        let mail = source(Body::Template { content: content_id() });
        let prepared = Prepared::new(&mail, Some(&compiled), None, &limits());
        match prepared {
            Ok(prepared) => rendered_strictly(&mail, &prepared, &variables)?,
            Err(error) => return Err(TestCaseError::fail(format!("published, then {error}"))),
        }
    }
}

proptest! {
    #[test]
    fn whatever_templates_take_in_is_refused_or_can_be_rendered(
        own in template_text(), other in template_text(), layout in template_text(), variables in variables(),
    ) {
        let mut library = Library { of: Some("own".to_owned()), ..Library::default() };
        for (name, text) in [("x", &other), ("y", &layout)] {
            let source = VersionSource::from(template("S", text));
            // Also in circles, which published versions cannot make.
            let pins = [("x".to_owned(), 1), ("y".to_owned(), 1)].into();
            library.versions.insert((name.to_owned(), 1), Ingredient { latest: 2, source, pins });
            library.pins.insert(name.to_owned(), 1);
        }
        let source = VersionSource::from(template("S", &format!("{{% extends 'y' %}}{own}")));
        for source in [source, VersionSource::from(template("S", &own))] {
            let Ok(built) = source.build(&library, &limits()) else { continue };
            let mail = super::common::source(Body::Template { content: content_id() });
            match Prepared::new(&mail, built.base.as_ref(), None, &limits()) {
                Ok(prepared) => rendered_strictly(&mail, &prepared, &variables)?,
                Err(error) => return Err(TestCaseError::fail(format!("published, then {error}"))),
            }
        }
    }
}

#[test]
fn a_text_that_ends_in_a_tag_that_was_not_finished_is_no_panic() {
    for end in ["{{", "{%", "{{-", "{%-", "{% block a %}{{", "{#"] {
        let source = VersionSource::from(template("S", &format!("Hello {end}")));
        assert!(source.references().is_empty(), "{end}");
        drop(source.build(&Library::default(), &limits()));
    }
}

#[test]
fn blocks_that_would_hold_themselves_or_lie_too_deep_are_findings() {
    let library = |layout: &str, own: &str| {
        let mut library = Library { of: Some("own".to_owned()), ..Library::default() };
        let source = VersionSource::from(template("S", layout));
        library.versions.insert(("layout".to_owned(), 1), Ingredient { latest: 1, source, pins: [].into() });
        library.pins.insert("layout".to_owned(), 1);
        VersionSource::from(template("S", own)).build(&library, &limits())
    };
    let wrong = |layout: &str, own: &str| {
        let findings = library(layout, own).map(drop).expect_err("is refused");
        findings.into_iter().map(|finding| finding.problem).collect::<String>()
    };
    let layout = "x{% block a %}{% block b %}{% endblock %}{% endblock %}";
    let own = "{% extends 'layout' %}{% block b %}{% block a %}{{ super() }}{% endblock %}{% endblock %}";
    assert!(wrong(layout, own).contains("within itself"), "{}", wrong(layout, own));
    let deep: String = (0..100_000).map(|at| format!("{{% block b{at} %}}")).collect();
    assert!(wrong("x", &deep).contains("within one another") || wrong("x", &deep).contains("too large"));
    let many = format!("{{% extends 'layout' %}}{{% block a %}}{}{{% endblock %}}", "{{ super() }}".repeat(3_000));
    assert!(wrong("x{% block a %}y{% endblock %}", &many).contains("pieces"));
}

#[test]
fn mjml_that_its_parser_panics_at_is_a_finding() {
    let mjml = "<mjml><mj-body><mj-section><mj-column><mj-text>mfv1xf\u{1925}2\u{a80c}>0't._</mj-text></mj-column></mj-section></mj-body></mjml>";
    let template = TemplateSource { subject: "S".into(), mjml: Some(mjml.to_owned()), ..TemplateSource::default() };
    let findings = template.compile(&limits()).expect_err("is refused");
    assert!(
        findings.iter().any(|finding| finding.field == "mjml" && finding.problem.contains("cannot be read")),
        "{findings:?}"
    );
}

fn with_subject(body: Body, subject: &str) -> Body {
    match body {
        Body::Inline { html, text, .. } => Body::Inline { subject: subject.to_owned(), html, text },
        other => other,
    }
}
