//! Templates: from what an author wrote to what is rendered a million times.

use crate::engine::{Engine, HTML, Values, has_tags};
use crate::markup::{Protected, protect};
use crate::{Finding, Limits, plain};
use css_inline::{CSSInliner, InlineOptions};
use minijinja::value::{Serde, Value};
use mrml::prelude::parser::Error as MjmlError;
use mrml::prelude::render::RenderOptions;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// A template as its author wrote it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TemplateSource {
    /// The subject.
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

/// A published template: MJML turned into HTML, styles inlined, the text part made, every tag in place.
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
    /// What the author should know and need not change.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Finding>,
}

impl TemplateSource {
    /// Compiles and checks every part. Takes milliseconds: not for a reactor thread.
    ///
    /// # Errors
    /// Everything that is wrong, by part and line.
    pub fn compile(&self, limits: &Limits) -> Result<CompiledTemplate, Vec<Finding>> {
        let mut findings = Vec::new();
        let mut warnings = Vec::new();
        if self.subject.trim().is_empty() {
            findings.push(Finding::new("subject", "is missing", "give the mail a subject"));
        } else {
            findings.extend(syntax("subject", &self.subject, limits));
        }
        if self.subject.trim().contains(['\r', '\n']) {
            findings.push(Finding::new("subject", "has more than one line", "write it on one line"));
        }
        if self.mjml.is_some() && self.html.is_some() {
            findings.push(Finding::new("html", "stands beside mjml", "give the body once, as mjml or as html"));
        }
        if self.mjml.is_none() && self.html.is_none() && self.text.is_none() {
            findings.push(Finding::new("html", "is missing", "give mjml, html or text"));
        }
        if let Some(text) = &self.text {
            findings.extend(syntax("text", text, limits));
        }
        let body = match (&self.mjml, &self.html) {
            (Some(mjml), _) => Some(("mjml", mjml)),
            (None, Some(html)) => Some(("html", html)),
            (None, None) => None,
        };
        let mut html = None;
        let mut text = self.text.clone();
        if let Some((field, source)) = body {
            match markup(field, source, limits, &mut warnings) {
                Ok(hidden) => {
                    if text.is_none() {
                        text = derived_text(field, &hidden, limits, &mut warnings);
                    }
                    html = Some(hidden.restore(&hidden.text));
                }
                Err(finding) => findings.push(finding),
            }
        }
        if !findings.is_empty() {
            return Err(findings);
        }
        let mut compiled = CompiledTemplate {
            subject: self.subject.trim().to_owned(),
            html,
            text,
            defaults: self.defaults.clone(),
            variables: Vec::new(),
            warnings,
        };
        compiled.variables = compiled.check(limits, body.map_or(HTML, |(field, _)| field))?;
        Ok(compiled)
    }
}

impl CompiledTemplate {
    /// Parses the compiled parts; tells which variables they want.
    fn check(&self, limits: &Limits, body: &str) -> Result<Vec<String>, Vec<Finding>> {
        // Inlined styles make a body grow; what is bounded is what the author wrote.
        let roomy = Limits { max_source_bytes: usize::MAX, ..limits.clone() };
        let mut engine = Engine::new(limits);
        let mut findings = Vec::new();
        let mut variables = Vec::new();
        let parts = [("subject", Some(&self.subject)), (HTML, self.html.as_ref()), ("text", self.text.as_ref())];
        for (name, source) in parts {
            let Some(source) = source else { continue };
            match engine.add(name, source, &roomy) {
                Ok(_) => variables.extend(engine.variables(name)),
                Err(finding) => findings.push(finding),
            }
        }
        for finding in &mut findings {
            if finding.field == HTML {
                // Lines of the compiled body are not the author's.
                finding.line = None;
                finding.field = body.to_owned();
            }
        }
        if !findings.is_empty() {
            return Err(findings);
        }
        variables.retain(|name| !self.defaults.contains_key(name.split('.').next().unwrap_or(name)));
        variables.sort();
        variables.dedup();
        Ok(variables)
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
        warnings.push(Finding::new(field, "has no text that a text part could be made from", fix));
    }
    text
}

fn markup(field: &str, source: &str, limits: &Limits, warnings: &mut Vec<Finding>) -> Result<Protected, Finding> {
    let hidden = hide_tags(field, source, limits)?;
    let html = if field == "mjml" { mjml_to_html(&hidden, warnings)? } else { hidden.text.clone() };
    let html = inline_styles(field, &hidden.group_rows(&html))?;
    if let Some((tag, line)) = hidden.lost_in(&html) {
        let problem = format!("{} stands where the conversion drops it", clip(tag));
        let fix = "put it in the text or in an attribute of an element that is shown, or between elements";
        return Err(Finding::new(field, problem, fix).at(Some(line)));
    }
    Ok(hidden.with_text(html))
}

fn mjml_to_html(hidden: &Protected, warnings: &mut Vec<Finding>) -> Result<String, Finding> {
    let parsed = mrml::parse(&hidden.text).map_err(|error| mjml_finding(hidden, &error))?;
    for warning in parsed.warnings.iter().take(20) {
        let fix = "see the MJML reference for what this element takes";
        let line = hidden.line_at(warning.span.start);
        warnings.push(Finding::new("mjml", warning.kind.to_string(), fix).at(Some(line)));
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
