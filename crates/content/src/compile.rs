//! Templates: from what an author wrote to what is rendered a million times.

use crate::engine::{Engine, HTML, Values, has_tags};
use crate::inspect;
use crate::markup::{Protected, protect};
use crate::weave::{Part, Woven, weave};
use crate::{Finding, Included, Language, Library, Limits, Severity, VersionSource, plain};
use css_inline::{CSSInliner, InlineOptions};
use domain::TrackingChoice;
use minijinja::value::{Serde, Value};
use mrml::prelude::parser::Error as MjmlError;
use mrml::prelude::render::RenderOptions;
use serde::{Deserialize, Serialize};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// The parts of a template in one language, as their author wrote them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TemplateSource {
    /// The subject.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub subject: String,
    /// The body as MJML; instead of `html`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mjml: Option<String>,
    /// The body as HTML; instead of `mjml`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub html: Option<String>,
    /// The text part; made from the body when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Values of variables that a recipient may leave out. A recipient's value replaces the default whole.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub defaults: serde_json::Map<String, serde_json::Value>,
}

/// A published template in one language: everything that it takes in put in place, MJML turned into HTML, styles
/// inlined, the text part made, every tag in place.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompiledTemplate {
    /// The subject.
    pub subject: String,
    /// The HTML part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub html: Option<String>,
    /// The text part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Default values.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub defaults: serde_json::Map<String, serde_json::Value>,
    /// The variables that a recipient has to give, as the template spells them, in order. One that only an
    /// `is defined` asks for is among them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub variables: Vec<String>,
    /// Whether opens and clicks of its mails are told.
    #[serde(default, skip_serializing_if = "TrackingChoice::is_open")]
    pub tracking: TrackingChoice,
}

impl TemplateSource {
    /// Compiles parts that stand by themselves: one language, nothing declared, no other template taken in. Takes
    /// milliseconds: not for a reactor thread.
    ///
    /// # Errors
    /// Everything that is wrong, by part and line.
    pub fn compile(&self, limits: &Limits) -> Result<CompiledTemplate, Vec<Finding>> {
        let built = VersionSource::from(self.clone()).build(&Library::default(), limits)?;
        built.base.ok_or_else(Vec::new)
    }
}

/// The parts of one language with everything in place.
#[derive(Default)]
pub(crate) struct Parts(Vec<(Part, Woven)>);

impl Parts {
    /// Puts in place what `source` takes in; a part that cannot be is left out, and told.
    pub(crate) fn weave(
        source: &TemplateSource,
        library: &Library,
        language: Option<&Language>,
        limits: &Limits,
        findings: &mut Vec<Finding>,
    ) -> Self {
        let given = Part::ALL.into_iter().filter_map(|part| Some((part, part.of(source)?)));
        let mut parts = Vec::new();
        for (part, text) in given {
            if text.contains('\0') {
                findings.push(Finding::new(part.name(), "holds the character U+0000", "leave it out"));
                continue;
            }
            match weave(part, text, library, language, limits) {
                Ok(woven) => parts.push((part, woven)),
                Err(finding) => findings.push(finding),
            }
        }
        Self(parts)
    }

    pub(crate) fn get(&self, part: Part) -> Option<&Woven> {
        self.0.iter().find(|(own, _)| *own == part).map(|(_, woven)| woven)
    }

    pub(crate) fn included(&self) -> impl Iterator<Item = &Included> {
        self.0.iter().flat_map(|(_, woven)| &woven.included)
    }

    /// The body, as MJML or HTML.
    pub(crate) fn body(&self) -> Option<(Part, &Woven)> {
        let body = |part| Some((part, self.get(part)?));
        body(Part::Mjml).or_else(|| body(Part::Html))
    }
}

/// What compiling the parts of one language comes to.
pub(crate) struct Compiled {
    pub(crate) template: CompiledTemplate,
    /// The names that each of the author's own parts takes from its variables.
    pub(crate) used: Vec<(Part, Vec<String>)>,
}

/// Compiles and checks every part; `None` when something is wrong, which is among the findings.
pub(crate) fn compile(
    source: &TemplateSource,
    parts: &Parts,
    limits: &Limits,
    findings: &mut Vec<Finding>,
) -> Option<Compiled> {
    let before = findings.len();
    if source.subject.trim().is_empty() {
        findings.push(Finding::new("subject", "is missing", "give the mail a subject"));
    }
    if source.mjml.is_some() && source.html.is_some() {
        findings.push(Finding::new("html", "stands beside mjml", "give the body once, as mjml or as html"));
    }
    if [Part::Mjml, Part::Html, Part::Text].iter().all(|part| part.of(source).is_none()) {
        findings.push(Finding::new("html", "is missing", "give mjml, html or text"));
    }
    let subject = parts.get(Part::Subject).map(|woven| woven.text.trim().to_owned()).unwrap_or_default();
    if subject.contains(['\r', '\n']) {
        findings.push(Finding::new("subject", "has more than one line", "write it on one line"));
    }
    for part in [Part::Subject, Part::Text] {
        let Some(woven) = parts.get(part) else { continue };
        findings.extend(syntax(part.name(), &woven.text, limits).map(|finding| woven.place(finding)));
    }
    let mut html = None;
    let own_text = parts.get(Part::Text);
    let mut text = own_text.map(|woven| woven.text.clone());
    if let Some((part, woven)) = parts.body() {
        let mut told = Vec::new();
        match markup(part.name(), &woven.text, limits, &mut told) {
            Ok(hidden) => {
                if text.is_none() {
                    text = derived_text(part.name(), &hidden, limits, &mut told);
                }
                html = Some(hidden.restore(&hidden.text));
            }
            Err(finding) => told.push(finding),
        }
        findings.extend(told.into_iter().map(|finding| woven.place(finding)));
    }
    if findings[before..].iter().any(|finding| finding.severity == Severity::Error) {
        return None;
    }
    let defaults = source.defaults.clone();
    let template = CompiledTemplate { subject, html, text, defaults, ..CompiledTemplate::default() };
    let body = parts.body().map_or(Part::Html, |(part, _)| part);
    template.check(own_text.is_some(), body, limits, findings).map(|used| Compiled { template, used })
}

impl CompiledTemplate {
    /// Parses the compiled parts; tells which variables they want.
    fn check(
        &self,
        has_own_text: bool,
        body: Part,
        limits: &Limits,
        findings: &mut Vec<Finding>,
    ) -> Option<Vec<(Part, Vec<String>)>> {
        // Inlined styles make a body grow; what is bounded is what the author wrote.
        let roomy = Limits { max_source_bytes: usize::MAX, ..limits.clone() };
        let mut engine = Engine::new(limits);
        let mut used = Vec::new();
        let mut good = true;
        let parts = [
            ("subject", Part::Subject, Some(&self.subject)),
            (HTML, body, self.html.as_ref()),
            ("text", if has_own_text { Part::Text } else { body }, self.text.as_ref()),
        ];
        for (name, part, source) in parts {
            let Some(source) = source else { continue };
            match engine.add(name, source, &roomy) {
                Ok(_) => used.push((part, engine.variables(name))),
                Err(mut finding) => {
                    if finding.field == HTML {
                        // Lines of the compiled body are not the author's.
                        finding.line = None;
                        finding.field = body.name().to_owned();
                    }
                    findings.push(finding);
                    good = false;
                }
            }
        }
        good.then_some(used)
    }
}

/// The defaults as templates see them.
pub(crate) fn default_values(defaults: &serde_json::Map<String, serde_json::Value>) -> Arc<Values> {
    Arc::new(defaults.iter().map(|(name, value)| (name.clone(), Value::from(Serde(value)))).collect())
}

/// Checks size and syntax of one part.
pub(crate) fn syntax(field: &str, source: &str, limits: &Limits) -> Option<Finding> {
    Engine::new(limits).add(field, source, limits).err()
}

/// Hides the tags of HTML or MJML that parses as a template and nests no deeper than is safe to walk.
pub(crate) fn hide_tags(field: &str, source: &str, limits: &Limits) -> Result<Protected, Finding> {
    if let Some(finding) = syntax(field, source, limits) {
        return Err(finding);
    }
    let hidden = protect(source);
    if hidden.depth > limits.max_element_depth {
        let fix = format!("nest elements at most {} deep and close each", limits.max_element_depth);
        return Err(Finding::new(field, format!("nests elements {} deep", hidden.depth), fix));
    }
    Ok(hidden)
}

/// The text part that is made from a body; `None` when there is nothing to read in it.
pub(crate) fn derived_text(
    field: &str,
    hidden: &Protected,
    limits: &Limits,
    warnings: &mut Vec<Finding>,
) -> Option<String> {
    let roomy = Limits { max_source_bytes: usize::MAX, ..limits.clone() };
    let text = plain::text_of(hidden).ok().filter(|text| !has_tags(text) || syntax("text", text, &roomy).is_none());
    let text = text.filter(|text| !text.trim().is_empty());
    if text.is_none() {
        let fix = "give a text part, for readers without HTML";
        let problem = "has no text that a text part could be made from";
        warnings.push(Finding::new(field, problem, fix).graded(Severity::Warning));
    }
    text
}

fn markup(field: &str, source: &str, limits: &Limits, warnings: &mut Vec<Finding>) -> Result<Protected, Finding> {
    let hidden = hide_tags(field, source, limits)?;
    inspect::images(field, &hidden, warnings);
    let html = if field == "mjml" { mjml_to_html(&hidden, warnings)? } else { hidden.text.clone() };
    let html = inline_styles(field, &hidden.group_rows(&html))?;
    if let Some((tag, line)) = hidden.lost_in(&html) {
        let problem = format!("{} stands where the conversion drops it", clip(tag));
        let fix = "put it in the text or in an attribute of an element that is shown, or between elements";
        return Err(Finding::new(field, problem, fix).at(Some(line)));
    }
    Ok(hidden.with_text(html))
}

pub(crate) fn mjml_to_html(hidden: &Protected, warnings: &mut Vec<Finding>) -> Result<String, Finding> {
    // The parser beneath cuts some texts inside a character (htmlparser 0.2.1, `parse_text_impl`).
    catch_unwind(AssertUnwindSafe(|| read_mjml(hidden, warnings))).unwrap_or_else(|_| {
        let fix = "write `>` as &gt; and look for tags that are not closed";
        Err(Finding::new("mjml", "cannot be read as MJML", fix))
    })
}

fn read_mjml(hidden: &Protected, warnings: &mut Vec<Finding>) -> Result<String, Finding> {
    let parsed = mrml::parse(&hidden.text).map_err(|error| mjml_finding(hidden, &error))?;
    for warning in parsed.warnings.iter().take(20) {
        let fix = "see the MJML reference for what this element takes";
        let line = hidden.line_at(warning.span.start);
        let finding = Finding::new("mjml", warning.kind.to_string(), fix).at(Some(line));
        warnings.push(finding.graded(Severity::Warning));
    }
    parsed
        .element
        .render(&RenderOptions::default())
        .map_err(|error| Finding::new("mjml", error.to_string(), "see the MJML reference"))
}

fn mjml_finding(hidden: &Protected, error: &MjmlError) -> Finding {
    let (problem, at) = match error {
        MjmlError::UnexpectedElement { position, .. } => ("has an element that may not stand here".into(), position),
        MjmlError::UnexpectedToken { position, .. } => ("has markup that may not stand here".into(), position),
        MjmlError::MissingAttribute { name, position, .. } => (format!("lacks the attribute {name}"), position),
        MjmlError::InvalidAttribute { position, .. } => ("has an attribute that is not valid".into(), position),
        MjmlError::InvalidFormat { position, .. } => ("has a value that is not valid".into(), position),
        MjmlError::IncludeLoaderError { position, .. } => ("includes another file".into(), position),
        MjmlError::EndOfStream { .. } => {
            let problem = match &hidden.unclosed {
                Some((name, _)) => format!("does not close the element {name}"),
                None => "ends before every element is closed".to_owned(),
            };
            let line = hidden.unclosed.as_ref().map(|(_, line)| *line);
            return Finding::new("mjml", problem, "close each element").at(line);
        }
        MjmlError::NoRootNode => {
            return Finding::new("mjml", "has no mjml element", "start with <mjml><mj-body>");
        }
        MjmlError::SizeLimit { .. } => return Finding::new("mjml", "is too large", "make it smaller"),
        MjmlError::ParserError { source, .. } => {
            return Finding::new(
                "mjml",
                format!("does not parse: {source}"),
                "close each element and quote attributes",
            );
        }
    };
    Finding::new("mjml", problem, "see the MJML reference; includes are not taken").at(Some(hidden.line_at(at.start)))
}

/// Moves styles into the elements, which is what most mail readers honour, and keeps what cannot move:
/// media queries, pseudo-classes, selectors that only one reader matches.
fn inline_styles(field: &str, html: &str) -> Result<String, Finding> {
    let options = InlineOptions {
        keep_style_tags: true,
        remove_inlined_selectors: true,
        keep_link_tags: true,
        load_remote_stylesheets: false,
        apply_width_attributes: true,
        apply_height_attributes: true,
        ..InlineOptions::default()
    };
    CSSInliner::new(options)
        .inline(html)
        .map_err(|error| Finding::new(field, format!("has styles that cannot be inlined: {error}"), "correct the CSS"))
}

fn clip(tag: &str) -> String {
    tag.chars().take(60).collect()
}
