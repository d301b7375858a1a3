//! Template versions: layouts, includes, translations, declared variables, and what publishing finds.

use crate::common::*;
use domain::Lane;
use mailfleet_content::{
    Built, Declaration, Finding, Ingredient, Language, Library, Limits, Severity, TemplateSource, Translation,
    VariableKind, VersionSource,
};
use serde_json::json;

fn tag(text: &str) -> Language {
    text.parse().unwrap()
}

fn build(source: &VersionSource, library: &Library) -> Result<Built, Vec<Finding>> {
    source.build(library, &Limits::default())
}

/// Publishes a version into a library, as the store would.
fn publish(library: &mut Library, name: &str, version: u32, source: VersionSource) {
    let built = build(&source, &Library { of: Some(name.to_owned()), ..library.clone() }).unwrap();
    let ingredient = Ingredient { latest: version, source, pins: built.report.pins };
    library.pins.insert(name.to_owned(), version);
    for known in library.versions.iter_mut().filter(|((known, _), _)| known == name) {
        known.1.latest = version;
    }
    library.versions.insert((name.to_owned(), version), ingredient);
}

fn partial(parts: TemplateSource) -> VersionSource {
    VersionSource { is_partial: true, ..VersionSource::from(parts) }
}

fn mjml_part(mjml: &str, text: &str) -> TemplateSource {
    TemplateSource { mjml: Some(mjml.to_owned()), text: Some(text.to_owned()), ..TemplateSource::default() }
}

/// A layout with a footer in two languages.
fn house_style() -> Library {
    let mut library = Library::default();
    let footer = |words: &str| {
        mjml_part(
            &format!("<mj-section><mj-column><mj-text>{words} {{{{ company }}}}</mj-text></mj-column></mj-section>"),
            &format!("-- \n{words} {{{{ company }}}}\n"),
        )
    };
    let mut source = partial(footer("Regards,"));
    source.language = Some(tag("en"));
    source.parts.defaults = json!({ "company": "Example Ltd" }).as_object().unwrap().clone();
    source.translations = vec![Translation { language: tag("de"), parts: footer("Mit Gruß,") }];
    publish(&mut library, "footer", 1, source);
    let layout = mjml_part(
        "<mjml><mj-body>{% block main %}{% endblock %}\n{% include \"footer\" %}</mj-body></mjml>",
        "{% block main %}{% endblock %}\n{% include \"footer\" %}",
    );
    publish(&mut library, "layout", 1, partial(layout));
    library
}

fn welcome() -> VersionSource {
    let parts = |subject: &str, words: &str| TemplateSource {
        subject: subject.to_owned(),
        ..mjml_part(
            &format!(
                "{{% extends \"layout\" %}}\n{{% block main %}}<mj-section><mj-column><mj-text>{words} {{{{ name }}}}</mj-text></mj-column></mj-section>{{% endblock %}}"
            ),
            &format!("{{% extends \"layout\" %}}{{% block main %}}{words} {{{{ name }}}}{{% endblock %}}"),
        )
    };
    VersionSource {
        language: Some(tag("en")),
        translations: vec![Translation { language: tag("de"), parts: parts("Willkommen", "Hallo") }],
        ..VersionSource::from(parts("Welcome", "Hello"))
    }
}

fn told(findings: &[Finding]) -> Vec<(&str, Option<usize>, Severity, &str)> {
    findings.iter().map(|one| (one.field.as_str(), one.line, one.severity, one.problem.as_str())).collect()
}

#[test]
fn a_layout_and_a_footer_stand_in_the_mail_in_its_language() {
    let built = build(&welcome(), &house_style()).unwrap();
    let base = built.base.unwrap();
    assert_eq!(base.text.as_deref(), Some("Hello {{ name }}\n-- \nRegards, {{ company }}"));
    let html = base.html.unwrap();
    assert!(
        html.contains("Hello {{ name }}") && html.contains("Regards, {{ company }}") && !html.contains("{%"),
        "{html}"
    );
    assert_eq!((base.variables, base.defaults["company"].as_str()), (vec!["name".to_owned()], Some("Example Ltd")));
    let (language, german) = &built.translations[0];
    assert_eq!((language.as_str(), german.subject.as_str()), ("de", "Willkommen"));
    assert_eq!(german.text.as_deref(), Some("Hallo {{ name }}\n-- \nMit Gruß, {{ company }}"));
    let included: Vec<_> = built.report.included.iter().map(|one| (one.name.as_str(), one.version)).collect();
    assert_eq!(included, [("layout", 1), ("footer", 1)]);
    assert_eq!(built.report.pins.into_iter().collect::<Vec<_>>(), [("layout".to_owned(), 1)]);
}

#[test]
fn a_published_version_means_the_same_when_what_it_takes_in_has_newer_versions() {
    let mut library = house_style();
    let before = build(&welcome(), &library).unwrap();
    let mut footer = library.versions[&("footer".to_owned(), 1)].source.clone();
    footer.parts.text = Some("new footer".to_owned());
    publish(&mut library, "footer", 2, footer);
    let after = build(&welcome(), &library).unwrap();
    assert_eq!(after.base, before.base, "the layout still takes in the footer that it was published with");
    let found = after.report.findings.iter().find(|one| one.field == "template").unwrap();
    assert!(found.problem.contains("footer@1") && found.severity == Severity::Info, "{found}");
    let layout = library.versions[&("layout".to_owned(), 1)].source.clone();
    publish(&mut library, "layout", 2, layout);
    let renewed = build(&welcome(), &library).unwrap().base.unwrap();
    assert_eq!(renewed.text.as_deref(), Some("Hello {{ name }}\nnew footer"));
}

#[test]
fn a_fault_in_what_is_taken_in_is_told_where_it_is_taken_in() {
    let mut library = house_style();
    let broken = partial(mjml_part("<!-- no piece -->\n<mj-include path='x' />", "x"));
    publish(&mut library, "broken", 1, broken);
    let mut source = welcome();
    source.translations.clear();
    source.parts.mjml = Some("<mjml>\n<mj-body>\n{% include 'broken' %}\n</mj-body>\n</mjml>".to_owned());
    let findings = build(&source, &library).unwrap_err();
    let error = findings.iter().find(|one| one.severity == Severity::Error).unwrap();
    assert_eq!((error.field.as_str(), error.line), ("mjml", Some(3)), "{error}");
    assert!(error.problem.starts_with("in broken@1 line 2: "), "{error}");
}

#[test]
fn what_costs_readers_is_found_with_field_line_and_severity() {
    let html = "<p>Hi {{ frist }}</p>\n<img src='a.png'>\n<img src='b.png' alt=''>\n<img {{ given }}>\n<p>bye</p>";
    let mut source = VersionSource::from(template("Hi", html));
    source.lane = Some(Lane::Bulk);
    source.variables = ["first", "given", "unused"]
        .map(|name| Declaration { name: name.to_owned(), ..Declaration::default() })
        .to_vec();
    let built = build(&source, &Library::default()).unwrap();
    assert_eq!(
        told(&built.report.findings),
        [
            ("html", Some(2), Severity::Warning, "has img without alt"),
            ("text", None, Severity::Info, "is missing; readers without HTML get one that is made from the body"),
            (
                "html",
                None,
                Severity::Warning,
                "has no link to unsubscribe that could be recognised, which bulk mail needs"
            ),
            ("html", Some(1), Severity::Warning, "uses the variable frist, which is not declared"),
            ("variables[0].name", None, Severity::Info, "is used by no part"),
            ("variables[2].name", None, Severity::Info, "is used by no part"),
        ]
    );
    source.lane = Some(Lane::Transactional);
    source.variables.clear();
    source.parts.html = Some(format!("<p>Hi</p><!--{}-->", "x".repeat(103 * 1024)));
    source.parts.text = Some("Hi".to_owned());
    let built = build(&source, &Library::default()).unwrap();
    assert_eq!(
        told(&built.report.findings),
        [("html", None, Severity::Warning, "comes to 103 KB as HTML; Gmail cuts what is over 102 KB")]
    );
    source.lane = Some(Lane::Bulk);
    source.parts = template("Hi", "<p><a href='{{ url }}'>Abmelden</a></p>");
    source.parts.text = Some("Hi".to_owned());
    assert_eq!(told(&build(&source, &Library::default()).unwrap().report.findings), []);
}

#[test]
fn images_of_mjml_are_looked_at_where_they_are_shown() {
    let mjml = |head: &str| {
        format!(
            "<mjml><mj-head>{head}</mj-head><mj-body><mj-section><mj-column>\n<mj-image src='a.png' />\n<mj-image src='b.png' alt='B' />\n</mj-column></mj-section></mj-body></mjml>"
        )
    };
    let found = |head: &str| {
        let source = TemplateSource { subject: "S".into(), mjml: Some(mjml(head)), ..TemplateSource::default() };
        let built = build(&source.into(), &Library::default()).unwrap();
        built
            .report
            .findings
            .into_iter()
            .filter(|one| one.problem.contains("alt"))
            .map(|one| one.line)
            .collect::<Vec<_>>()
    };
    assert_eq!(found("<mj-attributes><mj-image padding='0' /></mj-attributes>"), [Some(2)]);
    assert_eq!(found("<mj-attributes><mj-image alt='' /></mj-attributes>"), []);
}

#[test]
fn declared_defaults_stand_in_and_have_to_fit() {
    let mut source = VersionSource::from(template("Hi {{ name }}", "<p>{{ age }} {{ city }}</p>"));
    let declare =
        |name: &str, kind, default| Declaration { name: name.to_owned(), kind, default, ..Declaration::default() };
    source.variables = vec![
        declare("name", VariableKind::String, Some(json!("friend"))),
        declare("age", VariableKind::Integer, None),
        declare("city", VariableKind::String, None),
    ];
    source.parts.defaults = json!({ "city": "Ulm" }).as_object().unwrap().clone();
    let built = build(&source, &Library::default()).unwrap();
    let base = built.base.unwrap();
    assert_eq!(
        (base.defaults["name"].as_str(), base.variables.as_slice()),
        (Some("friend"), ["age".to_owned()].as_slice())
    );
    let declared = built.rules.declared;
    assert_eq!(declared.check(r#"{"age":3}"#), Ok(()));
    assert_eq!(
        declared.check(r#"{"name":"A"}"#).unwrap_err().description(),
        "is missing; give a number without a fraction"
    );
    let wrong = declared.check(r#"{"age":3,"city":7}"#).unwrap_err();
    assert_eq!((wrong.path.as_str(), wrong.missing), ("city", false));

    source.parts.defaults = json!({ "city": 7 }).as_object().unwrap().clone();
    source.variables[1].default = Some(json!("three"));
    let findings = build(&source, &Library::default()).unwrap_err();
    let fields: Vec<_> =
        findings.iter().filter(|one| one.severity == Severity::Error).map(|one| one.field.as_str()).collect();
    assert_eq!(fields, ["variables", "defaults_json"]);
}

#[test]
fn versions_that_contradict_themselves_are_refused() {
    let mut source = welcome();
    source.translations.push(source.translations[0].clone());
    source.translations.push(Translation { language: tag("en"), parts: source.parts.clone() });
    let findings = build(&source, &house_style()).unwrap_err();
    let fields: Vec<_> =
        findings.iter().filter(|one| one.severity == Severity::Error).map(|one| one.field.as_str()).collect();
    assert_eq!(fields, ["translations[1].language", "translations[2].language"]);

    let limits = Limits { max_version_bytes: 100, max_translations: 0, ..Limits::default() };
    let findings = welcome().build(&house_style(), &limits).unwrap_err();
    let problems: Vec<_> =
        findings.iter().filter(|one| one.severity == Severity::Error).map(|one| one.problem.as_str()).collect();
    assert_eq!(problems, ["is too large", "has 1 entries"]);

    let mut source = VersionSource::from(template("S", "<p>\0</p>"));
    assert_eq!(build(&source, &Library::default()).unwrap_err()[0].field, "html");
    source.parts = TemplateSource::default();
    source.is_partial = true;
    assert_eq!(build(&source, &Library::default()).unwrap_err()[0].problem, "is missing");
}

#[test]
fn a_version_is_stored_and_read_back_the_same() {
    let mut source = welcome();
    source.lane = Some(Lane::Bulk);
    source.variables = vec![Declaration {
        name: "name".to_owned(),
        kind: VariableKind::String,
        default: Some(json!(null)),
        ..Declaration::default()
    }];
    let stored = serde_json::to_string(&source).unwrap();
    let read: VersionSource = serde_json::from_str(&stored).unwrap();
    assert_eq!(serde_json::to_string(&read).unwrap(), stored);
    // What was compiled stands in for the source of versions that were published before sources were kept.
    let old = r#"{"parts":{"subject":"S","html":"<p>{{ x }}</p>","text":"{{ x }}","variables":["x"],"warnings":[]}}"#;
    let old: VersionSource = serde_json::from_str(old).unwrap();
    assert_eq!(old.parts.html.as_deref(), Some("<p>{{ x }}</p>"));
}
