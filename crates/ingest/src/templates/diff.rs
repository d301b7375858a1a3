//! How two versions of a template differ, part by part.

use content::{Declaration, Included, TemplateSource, VersionSource};
use proto::v1::TemplatePartDiff;
use serde_json::{Map, Value};
use similar::{ChangeTag, TextDiff};
use std::time::Duration;

/// Longest time to find the smallest difference of one part; after it a larger one is told.
const LIMIT: Duration = Duration::from_millis(200);

/// One side: what it is called, and what it is made of.
pub struct Side {
    /// The version as people name it: `welcome@3`.
    pub name: String,
    /// Its source.
    pub source: VersionSource,
    /// What it takes in.
    pub included: Vec<Included>,
}

/// The parts that differ, in the order of the source. Computes for long: not for a reactor thread.
pub fn differences(from: &Side, to: &Side, context: usize) -> Vec<TemplatePartDiff> {
    let (old, new) = (texts(from), texts(to));
    let text_of = |all: &[(String, String)], part: &str| {
        all.iter().find(|(name, _)| name == part).map(|(_, text)| text.clone()).unwrap_or_default()
    };
    let added = new.iter().filter(|(part, _)| !old.iter().any(|(known, _)| known == part));
    let parts = old.iter().chain(added).map(|(part, _)| part);
    parts
        .filter_map(|part| {
            let (before, after) = (text_of(&old, part), text_of(&new, part));
            (before != after).then(|| {
                let headers = (format!("{}/{part}", from.name), format!("{}/{part}", to.name));
                difference(part, &before, &after, &headers, context)
            })
        })
        .collect()
}

fn difference(part: &str, before: &str, after: &str, headers: &(String, String), context: usize) -> TemplatePartDiff {
    let diff = TextDiff::configure().timeout(LIMIT).diff_lines(before, after);
    let count = |tag| u32::try_from(diff.iter_all_changes().filter(|change| change.tag() == tag).count());
    TemplatePartDiff {
        part: part.to_owned(),
        unified_diff: diff.unified_diff().context_radius(context).header(&headers.0, &headers.1).to_string(),
        lines_added: count(ChangeTag::Insert).unwrap_or(u32::MAX),
        lines_removed: count(ChangeTag::Delete).unwrap_or(u32::MAX),
    }
}

/// The parts of a version as texts, in order; what is empty is left out.
fn texts(side: &Side) -> Vec<(String, String)> {
    let source = &side.source;
    let mut texts = Vec::new();
    parts("", &source.parts, &mut texts);
    texts.push(("settings".to_owned(), settings(source)));
    texts.push(("variables".to_owned(), source.variables.iter().map(variable).collect()));
    let included = side.included.iter().map(|one| format!("{}@{}\n", one.name, one.version));
    texts.push(("includes".to_owned(), included.collect()));
    for translation in &source.translations {
        parts(&format!("translations[{}].", translation.language), &translation.parts, &mut texts);
    }
    texts.retain(|(_, text)| !text.is_empty());
    texts
}

fn parts(prefix: &str, parts: &TemplateSource, texts: &mut Vec<(String, String)>) {
    let mut text = |name: &str, text: String| texts.push((format!("{prefix}{name}"), text));
    text("subject", ended(&parts.subject));
    text("mjml", parts.mjml.clone().unwrap_or_default());
    text("html", parts.html.clone().unwrap_or_default());
    text("text", parts.text.clone().unwrap_or_default());
    text("defaults_json", laid_out(&parts.defaults));
}

/// One line, so that no diff remarks on its end.
fn ended(line: &str) -> String {
    if line.is_empty() { String::new() } else { format!("{line}\n") }
}

fn laid_out(defaults: &Map<String, Value>) -> String {
    if defaults.is_empty() {
        return String::new();
    }
    serde_json::to_string_pretty(defaults).map_or_else(|_| String::new(), |text| text + "\n")
}

fn settings(source: &VersionSource) -> String {
    let language = source.language.as_ref().map(|language| format!("language: {language}\n"));
    let lane = source.lane.map(|lane| format!("lane: {}\n", lane.as_str()));
    let purpose = source.is_partial.then(|| "purpose: partial\n".to_owned());
    [language, lane, purpose].into_iter().flatten().collect()
}

fn variable(declaration: &Declaration) -> String {
    let mut line = format!("{}: {}", declaration.name, declaration.kind);
    if declaration.optional {
        line.push_str(", optional");
    }
    if let Some(default) = &declaration.default {
        line.push_str(&format!(", default {default}"));
    }
    if !declaration.description.is_empty() {
        line.push_str(&format!(" ({})", declaration.description.replace(['\r', '\n'], " ")));
    }
    line + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn side(name: &str, subject: &str, text: &str) -> Side {
        let parts =
            TemplateSource { subject: subject.to_owned(), text: Some(text.to_owned()), ..TemplateSource::default() };
        Side { name: name.to_owned(), source: VersionSource::from(parts), included: Vec::new() }
    }

    #[test]
    fn only_parts_that_differ_are_told_with_their_lines() {
        let lines: String = (1..=9).map(|n| format!("line {n}\n")).collect();
        let (old, mut new) = (side("t@1", "S", &lines), side("t@2", "S", &lines.replace("line 5", "line five")));
        new.source.parts.defaults.insert("a".to_owned(), 1.into());
        let told = differences(&old, &new, 1);
        assert_eq!(told.iter().map(|one| one.part.as_str()).collect::<Vec<_>>(), ["text", "defaults_json"]);
        assert_eq!(
            told[0].unified_diff,
            "--- t@1/text\n+++ t@2/text\n@@ -4,3 +4,3 @@\n line 4\n-line 5\n+line five\n line 6\n"
        );
        assert_eq!((told[0].lines_added, told[0].lines_removed), (1, 1));
        assert_eq!((told[1].lines_added, told[1].lines_removed), (3, 0));
        assert!(differences(&old, &side("t@1", "S", &lines), 3).is_empty());
    }

    #[test]
    fn texts_with_nothing_in_common_are_told_in_time() {
        let begun = std::time::Instant::now();
        let text = |word: &str| (0..40_000).map(|n| format!("{word}{n}\n")).collect::<String>();
        let told = differences(&side("t@1", "S", &text("a")), &side("t@2", "S", &text("b")), 3);
        assert_eq!(told[0].lines_added, 40_000);
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    }
}
