//! What is no fault of a template and still costs it readers.

use crate::compile::Parts;
use crate::declare::Declared;
use crate::markup::Protected;
use crate::weave::{Part, Woven};
use crate::{CompiledTemplate, Finding, Severity};
use domain::Lane;
use lol_html::{RewriteStrSettings, element, rewrite_str};
use minijinja::machinery::{Token, tokenize};
use minijinja::syntax::SyntaxConfig;
use std::cell::{Cell, RefCell};

/// Gmail shows this much of an HTML part, and a link to the rest.
pub(crate) const GMAIL_CLIPS_AT: usize = 102 * 1024;
/// Most findings of one sort that are told of one part.
const MAX_TOLD: usize = 20;

/// What links to leave a list are called in, in lower case: where none of these stands, none is likely there.
const LEAVING: [&str; 24] = [
    "unsubscribe",
    "opt-out",
    "opt out",
    "opt_out",
    "optout",
    "abmelden",
    "abbestellen",
    "austragen",
    "désinscri",
    "désabonn",
    "darse de baja",
    "darme de baja",
    "cancelar suscripción",
    "cancelar a subscrição",
    "cancelar inscrição",
    "disiscri",
    "annulla l'iscrizione",
    "afmelden",
    "uitschrijven",
    "wypisz",
    "avregistrera",
    "отписаться",
    "配信停止",
    "退订",
];

/// Images that say nothing to who does not see them.
pub(crate) fn images(field: &str, hidden: &Protected, findings: &mut Vec<Finding>) {
    let found = RefCell::new(Vec::new());
    // Attributes that MJML gives to all images, or to all elements.
    let given_to_all = Cell::new(false);
    let heads = RefCell::new(Vec::new());
    let handlers = vec![
        element!("mj-attributes mj-image[alt], mj-attributes mj-all[alt]", |_| {
            given_to_all.set(true);
            Ok(())
        }),
        element!("mj-head mj-image, mj-head mj-carousel-image", |e| {
            heads.borrow_mut().push(e.source_location().bytes().start);
            Ok(())
        }),
        element!("img:not([alt]), mj-image:not([alt]), mj-carousel-image:not([alt])", |e| {
            if !e.attributes().iter().any(|attribute| hidden.is_stand_in(&attribute.name())) {
                found.borrow_mut().push((e.source_location().bytes().start, e.tag_name()));
            }
            Ok(())
        }),
    ];
    let settings =
        handlers.into_iter().fold(RewriteStrSettings::new(), RewriteStrSettings::append_element_content_handler);
    // Markup that cannot be read is told by what converts it.
    if rewrite_str(&hidden.text, settings).is_err() {
        return;
    }
    let (found, heads) = (found.into_inner(), heads.into_inner());
    let missing = found.into_iter().filter(|(at, name)| !heads.contains(at) && (name == "img" || !given_to_all.get()));
    for (at, name) in missing.take(MAX_TOLD) {
        let fix = "say in alt what it shows; alt=\"\" for one that only decorates";
        let finding = Finding::new(field, format!("has {name} without alt"), fix);
        findings.push(finding.at(Some(hidden.line_at(at))).graded(Severity::Warning));
    }
}

/// What a whole mail lacks, or has too much of.
pub(crate) fn mail(parts: &Parts, compiled: &CompiledTemplate, lane: Option<Lane>, findings: &mut Vec<Finding>) {
    let body = parts.body().map_or(Part::Text, |(part, _)| part).name();
    if parts.get(Part::Text).is_none() && compiled.text.is_some() {
        let problem = "is missing; readers without HTML get one that is made from the body";
        let fix = "write one, where the text made from the body reads badly";
        findings.push(Finding::new("text", problem, fix).graded(Severity::Info));
    }
    findings.extend(compiled.html.as_ref().and_then(|html| clipped(body, html)));
    let leaves = [&compiled.html, &compiled.text].into_iter().flatten().any(|text| {
        let text = text.to_lowercase();
        LEAVING.iter().any(|word| text.contains(word))
    });
    if lane != Some(Lane::Transactional) && !leaves {
        let severity = if lane == Some(Lane::Bulk) { Severity::Warning } else { Severity::Info };
        let problem = "has no link to unsubscribe that could be recognised, which bulk mail needs";
        let fix = "add one, such as <a href=\"{{ unsubscribe_url }}\">Unsubscribe</a>, which every mail of a tracked fleet has";
        findings.push(Finding::new(body, problem, fix).graded(severity));
    }
}

/// Whether Gmail would cut this rendered HTML part.
pub fn clipped_finding(html: &str) -> Option<Finding> {
    clipped("html", html)
}

fn clipped(field: &str, html: &str) -> Option<Finding> {
    (html.len() > GMAIL_CLIPS_AT).then(|| {
        let problem = format!("comes to {} KB as HTML; Gmail cuts what is over 102 KB", html.len() / 1024);
        Finding::new(field, problem, "make it shorter, or move styles and rows out").graded(Severity::Warning)
    })
}

/// A variable that a part uses and that nobody declares or gives a default, at its first use.
pub(crate) fn unknown(part: Part, name: &str, woven: Option<&Woven>, declared: &Declared) -> Finding {
    let known: Vec<&str> = declared.names().take(MAX_TOLD).collect();
    let fix = format!("declare it, give it a default, or use one of {}", known.join(", "));
    let problem = format!("uses the variable {name}, which is not declared");
    let finding = Finding::new(part.name(), problem, fix).graded(Severity::Warning);
    let root = name.split('.').next().unwrap_or(name);
    match woven.and_then(|woven| Some((woven, first_use(&woven.text, root)?))) {
        Some((woven, at)) => woven.place_at(finding, at),
        None => finding,
    }
}

/// Where a template first names a variable.
fn first_use(text: &str, name: &str) -> Option<usize> {
    let mut after_dot = false;
    for token in tokenize(text, false, SyntaxConfig::default()) {
        let (token, span) = token.ok()?;
        match token {
            Token::Ident(ident) if ident == name && !after_dot => return usize::try_from(span.start_offset).ok(),
            token => after_dot = matches!(token, Token::Dot),
        }
    }
    None
}
