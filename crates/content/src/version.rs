//! A template version: parts in one or several languages, declared variables, and what publishing makes of them.

use crate::compile::{Compiled, Parts, compile, hide_tags, mjml_to_html, syntax};
use crate::declare::{Declared, declared};
use crate::engine::UNSUBSCRIBE_URL;
use crate::language::choose;
use crate::library::{Included, Library, Pins, Reference};
use crate::weave::{Part, references};
use crate::{CompiledTemplate, Declaration, Finding, Language, Limits, Severity, TemplateSource, inspect};
use domain::{Lane, TrackingChoice};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Most octets of the defaults of one language, as JSON.
const MAX_DEFAULTS: usize = 64 * 1024;

/// A template version as its author wrote it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct VersionSource {
    /// The parts, for recipients whom no translation suits better.
    pub parts: TemplateSource,
    /// The language that these are in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language: Option<Language>,
    /// The parts in other languages.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub translations: Vec<Translation>,
    /// What recipients have to give.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub variables: Vec<Declaration>,
    /// Whether it is a layout or a piece for other templates alone, and no mail by itself.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_partial: bool,
    /// What it is written for, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lane: Option<Lane>,
    /// Whether opens and clicks of its mails are told.
    #[serde(default, skip_serializing_if = "TrackingChoice::is_open")]
    pub tracking: TrackingChoice,
}

/// The parts in another language.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Translation {
    /// The language.
    pub language: Language,
    /// The parts.
    #[serde(flatten)]
    pub parts: TemplateSource,
}

impl From<TemplateSource> for VersionSource {
    fn from(parts: TemplateSource) -> Self {
        Self { parts, ..Self::default() }
    }
}

/// What is kept beside a version for who looks at it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// What its own references stand for.
    #[serde(default, skip_serializing_if = "Pins::is_empty")]
    pub pins: Pins,
    /// All versions that it takes in, those within them as well.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub included: Vec<Included>,
    /// What should be looked at.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<Finding>,
    /// The variables that it uses without a default, as it spells them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub wanted: Vec<String>,
}

/// What accepting a mail has to know of a version.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rules {
    /// The language of the version's own parts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language: Option<Language>,
    /// What recipients' variables have to be.
    #[serde(default, skip_serializing_if = "Declared::is_empty")]
    pub declared: Declared,
}

/// A version that can be published.
#[derive(Clone, Debug)]
pub struct Built {
    /// The compiled parts; `None` for a partial.
    pub base: Option<CompiledTemplate>,
    /// The compiled translations; none for a partial.
    pub translations: Vec<(Language, CompiledTemplate)>,
    /// What accepting has to know.
    pub rules: Rules,
    /// What is told of it.
    pub report: Report,
}

/// One language of a version.
struct Tongue<'a> {
    /// What comes before the names of its fields: `translations[0].`.
    prefix: String,
    language: Option<&'a Language>,
    source: &'a TemplateSource,
    parts: Parts,
    defaults: serde_json::Map<String, serde_json::Value>,
}

impl VersionSource {
    /// The templates that this one names.
    pub fn references(&self) -> BTreeSet<Reference> {
        self.sources().flat_map(|(_, _, source)| references(source)).collect()
    }

    fn sources(&self) -> impl Iterator<Item = (String, Option<&Language>, &TemplateSource)> {
        let translations = self.translations.iter().enumerate().map(|(index, translation)| {
            (format!("translations[{index}]."), Some(&translation.language), &translation.parts)
        });
        std::iter::once((String::new(), self.language.as_ref(), &self.parts)).chain(translations)
    }

    /// The parts that a recipient of this language gets: an index of `translations`, or `None` for the own ones.
    pub fn choose(&self, language: &Language) -> Option<usize> {
        let languages = self.translations.iter().map(|translation| &translation.language);
        choose(language, self.language.as_ref(), languages)
    }

    /// Puts everything in place, compiles and checks it. Takes milliseconds: not for a reactor thread.
    ///
    /// # Errors
    /// Everything that is wrong, and what else was found, by field and line.
    pub fn build(&self, library: &Library, limits: &Limits) -> Result<Built, Vec<Finding>> {
        let mut findings = Vec::new();
        self.languages(limits, &mut findings);
        // What is too large, or too much, is not looked at any further.
        if !findings.is_empty() {
            return Err(findings);
        }
        let mut tongues: Vec<Tongue<'_>> = self
            .sources()
            .take(limits.max_translations + 1)
            .map(|(prefix, language, source)| {
                let mut told = Vec::new();
                let parts = Parts::weave(source, library, language, limits, &mut told);
                findings.extend(prefixed(&prefix, told));
                Tongue { prefix, language, source, parts, defaults: serde_json::Map::new() }
            })
            .collect();
        let included = included(&tongues);
        let defaults: Vec<_> = tongues.iter().map(|tongue| self.defaults(tongue, &included, library)).collect();
        for (tongue, defaults) in tongues.iter_mut().zip(defaults) {
            tongue.defaults = defaults;
        }
        let declared = self.declared(&included, library, &tongues[0].defaults, limits, &mut findings);
        for tongue in &tongues {
            tongue.check_defaults(&declared, &mut findings);
        }
        let mut used = BTreeSet::new();
        let mut wanted = BTreeSet::new();
        let mut compiled = Vec::new();
        for tongue in &tongues {
            let mut told = Vec::new();
            if self.is_partial {
                tongue.check_partial(limits, &mut told);
            } else if let Some(Compiled { mut template, used: names }) =
                compile(tongue.source, &tongue.parts, limits, &mut told)
            {
                inspect::mail(&tongue.parts, &template, self.lane, &mut told);
                let lacking = tongue.lacking(&names);
                if !declared.is_empty() {
                    unknown(tongue, &lacking, &declared, &mut told);
                }
                template.variables = lacking.into_iter().map(|(_, name)| name).collect();
                template.variables.sort();
                template.variables.dedup();
                template.defaults = tongue.defaults.clone();
                template.tracking = self.tracking;
                wanted.extend(template.variables.iter().cloned());
                used.extend(names.into_iter().flat_map(|(_, names)| names));
                compiled.push((tongue.language.cloned(), template));
            }
            findings.extend(prefixed(&tongue.prefix, told));
        }
        if !self.is_partial && compiled.len() == tongues.len() {
            self.unused(&used, &mut findings);
        }
        findings.extend(self.outdated(&included, library));
        if findings.iter().any(|finding| finding.severity == Severity::Error) {
            return Err(findings);
        }
        let own = self.references();
        let pins = library.pins.iter().filter(|(name, _)| own.iter().any(|one| one.to_string() == **name));
        let pins = pins.map(|(name, version)| (name.clone(), *version)).collect();
        let report = Report { pins, included, findings, wanted: wanted.into_iter().collect() };
        let rules = Rules { language: self.language.clone(), declared };
        let mut compiled = compiled.into_iter();
        let base = compiled.next().map(|(_, template)| template);
        let translations = compiled.filter_map(|(language, template)| Some((language?, template))).collect();
        Ok(Built { base, translations, rules, report })
    }

    fn languages(&self, limits: &Limits, findings: &mut Vec<Finding>) {
        let parts = self.sources().flat_map(|(_, _, source)| Part::ALL.map(|part| part.of(source)));
        if parts.flatten().map(str::len).sum::<usize>() > limits.max_version_bytes {
            let fix = format!("keep all parts of all languages within {} octets", limits.max_version_bytes);
            findings.push(Finding::new("template", "is too large", fix));
        }
        if self.translations.len() > limits.max_translations {
            let fix = format!("give at most {}", limits.max_translations);
            findings.push(Finding::new("translations", format!("has {} entries", self.translations.len()), fix));
        }
        let mut seen: BTreeSet<&Language> = self.language.iter().collect();
        for (index, translation) in self.translations.iter().enumerate() {
            if !seen.insert(&translation.language) {
                let field = format!("translations[{index}].language");
                findings.push(Finding::new(field, "stands for other parts already", "give each language once"));
            }
        }
    }

    /// The defaults of one language: its own, the version's, those of the declarations, then those of what is taken
    /// in, the same way.
    fn defaults(
        &self,
        tongue: &Tongue<'_>,
        included: &[Included],
        library: &Library,
    ) -> serde_json::Map<String, serde_json::Value> {
        let mut defaults = tongue.source.defaults.clone();
        let mut add = |source: &Self, parts: &TemplateSource| {
            let declared = source.variables.iter().filter_map(|one| Some((&one.name, one.default.as_ref()?)));
            let all = parts.defaults.iter().chain(&source.parts.defaults).chain(declared);
            for (name, value) in all {
                if !defaults.contains_key(name) {
                    defaults.insert(name.clone(), value.clone());
                }
            }
        };
        add(self, tongue.source);
        for one in included {
            let Some(ingredient) = library.versions.get(&(one.name.clone(), one.version)) else { continue };
            let chosen = tongue.language.and_then(|language| ingredient.source.choose(language));
            let translation = chosen.map(|index| &ingredient.source.translations[index].parts);
            add(&ingredient.source, translation.unwrap_or(&ingredient.source.parts));
        }
        defaults
    }

    fn declared(
        &self,
        included: &[Included],
        library: &Library,
        defaults: &serde_json::Map<String, serde_json::Value>,
        limits: &Limits,
        findings: &mut Vec<Finding>,
    ) -> Declared {
        let own = self.variables.iter().enumerate().map(|(index, one)| (format!("variables[{index}]"), one));
        let others = included
            .iter()
            .filter_map(|one| Some((one, library.versions.get(&(one.name.clone(), one.version))?)))
            .flat_map(|(one, ingredient)| {
                let field = format!("variables, in {}@{}", one.name, one.version);
                ingredient.source.variables.iter().map(move |variable| (field.clone(), variable))
            });
        declared(own.chain(others), |name| defaults.contains_key(name), limits, findings)
    }

    /// Declarations of its own that nothing uses.
    fn unused(&self, used: &BTreeSet<String>, findings: &mut Vec<Finding>) {
        let roots: BTreeSet<&str> = used.iter().filter_map(|name| name.split('.').next()).collect();
        for (index, declaration) in self.variables.iter().enumerate() {
            let root = declaration.name.split(['.', '[']).next().unwrap_or_default();
            if !roots.contains(root) {
                let fix = "use it, or declare it no more: recipients without it are refused";
                let finding = Finding::new(format!("variables[{index}].name"), "is used by no part", fix);
                findings.push(finding.graded(Severity::Info));
            }
        }
    }

    /// Versions that are taken in through another and are not the newest.
    fn outdated(&self, included: &[Included], library: &Library) -> Vec<Finding> {
        let newest: BTreeMap<&str, u32> = included
            .iter()
            .filter_map(|one| Some((one.name.as_str(), library.versions.get(&(one.name.clone(), one.version))?.latest)))
            .collect();
        let own = self.references();
        let is_pinned = |name: &str| own.iter().any(|one| one.name == name);
        included
            .iter()
            .filter(|one| newest.get(one.name.as_str()).is_some_and(|latest| *latest > one.version))
            .filter(|one| !is_pinned(&one.name))
            .map(|one| {
                let problem =
                    format!("takes in {}@{} through another template; a newer version is there", one.name, one.version);
                let fix = "publish the template that takes it in again, then this one";
                Finding::new("template", problem, fix).graded(Severity::Info)
            })
            .collect()
    }
}

fn included(tongues: &[Tongue<'_>]) -> Vec<Included> {
    let mut all: Vec<Included> = Vec::new();
    for one in tongues.iter().flat_map(|tongue| tongue.parts.included()) {
        if !all.contains(one) {
            all.push(one.clone());
        }
    }
    all
}

fn prefixed(prefix: &str, findings: Vec<Finding>) -> impl Iterator<Item = Finding> {
    findings.into_iter().map(move |mut finding| {
        finding.field.insert_str(0, prefix);
        finding
    })
}

/// Variables that are neither declared nor have a default, each once for a part.
fn unknown(tongue: &Tongue<'_>, lacking: &[(Part, String)], declared: &Declared, findings: &mut Vec<Finding>) {
    let mut told = BTreeSet::new();
    for (part, name) in lacking {
        if !declared.covers(name) && told.insert((part.name(), name)) {
            findings.push(inspect::unknown(*part, name, tongue.parts.get(*part), declared));
        }
    }
}

impl Tongue<'_> {
    /// The names that have no default and that not every mail has, with the part that uses them.
    fn lacking(&self, used: &[(Part, Vec<String>)]) -> Vec<(Part, String)> {
        let mut lacking = Vec::new();
        for (part, names) in used {
            let mut names: Vec<&String> = names.iter().collect();
            names.sort();
            let root = |name: &String| name.split('.').next().unwrap_or(name).to_owned();
            let names = names.into_iter().filter(|name| {
                let root = root(name);
                root != UNSUBSCRIBE_URL && !self.defaults.contains_key(&root)
            });
            lacking.extend(names.map(|name| (*part, name.clone())));
        }
        lacking
    }

    fn check_defaults(&self, declared: &Declared, findings: &mut Vec<Finding>) {
        if serde_json::to_string(&self.source.defaults).map_or(0, |text| text.len()) > MAX_DEFAULTS {
            let fix = format!("keep them within {MAX_DEFAULTS} octets");
            findings.push(Finding::new(format!("{}defaults_json", self.prefix), "are too large", fix));
        }
        for (name, value) in &self.defaults {
            // What a translation falls back on is told once, by the version's own parts.
            if !self.prefix.is_empty() && !self.source.defaults.contains_key(name) {
                continue;
            }
            if let Err(misfit) = declared.check_default(name, value) {
                let own = self.source.defaults.contains_key(name);
                let field = if own { format!("{}defaults_json", self.prefix) } else { "variables".to_owned() };
                let problem = format!("gives {} a default that {}", misfit.path, misfit.problem());
                let fix = format!("give a default that is {}, as declared", misfit.wanted.words());
                findings.push(Finding::new(field, problem, fix));
            }
        }
    }

    /// A piece is no mail, so that only what holds for it wherever it is taken in can be looked at.
    fn check_partial(&self, limits: &Limits, findings: &mut Vec<Finding>) {
        for part in Part::ALL {
            let Some(woven) = self.parts.get(part) else { continue };
            let mut told = Vec::new();
            match part {
                Part::Subject | Part::Text => told.extend(syntax(part.name(), &woven.text, limits)),
                Part::Mjml | Part::Html => match hide_tags(part.name(), &woven.text, limits) {
                    Err(finding) => told.push(finding),
                    Ok(hidden) => {
                        inspect::images(part.name(), &hidden, &mut told);
                        if part == Part::Mjml && woven.text.contains("<mjml") {
                            // A layout is tried with what its blocks hold by themselves.
                            let tried = mjml_to_html(&hidden, &mut told);
                            told.extend(tried.err().map(|finding| finding.graded(Severity::Warning)));
                        }
                    }
                },
            }
            findings.extend(told.into_iter().map(|finding| woven.place(finding)));
        }
        if Part::ALL.iter().all(|part| part.of(self.source).is_none()) {
            findings.push(Finding::new("html", "is missing", "give subject, mjml, html or text"));
        }
    }
}
