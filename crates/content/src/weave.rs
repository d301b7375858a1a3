//! Layouts and includes, put in place when a version is published.
//!
//! `{% extends "layout" %}` and `{% block name %}` … `{% endblock %}`, with `{{ super() }}` for what the layout has
//! there, and `{% include "footer" %}` are replaced by what they stand for: the same part of another template of the
//! tenant. What comes out is one template that names no other, so rendering looks nothing up, and MJML, styles and
//! the text part see the mail as a whole. An included part sees every variable of the place it stands in.
//!
//! A fault in what was taken in is told at the line of the author's own source that takes it in, with the template
//! and the line where it lies.

mod parse;

use crate::language::choose;
use crate::library::{Included, Ingredient, Library, Pins, Reference};
use crate::{Finding, Language, Limits, TemplateSource};
use parse::{Node, ONE_NAME, Parsed, parse};
use std::collections::{BTreeSet, HashMap};
use std::ops::Range;

/// Most pieces that one part is put together from: blocks, includes, and the texts between them.
const MAX_PIECES: usize = 2_000;

/// A part of a template, which takes in the same part of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Subject,
    Mjml,
    Html,
    Text,
}

impl Part {
    pub(crate) const ALL: [Self; 4] = [Self::Subject, Self::Mjml, Self::Html, Self::Text];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Subject => "subject",
            Self::Mjml => "mjml",
            Self::Html => "html",
            Self::Text => "text",
        }
    }

    /// This part of a source, if it has one.
    pub(crate) fn of(self, source: &TemplateSource) -> Option<&str> {
        let text = match self {
            Self::Subject => Some(source.subject.as_str()),
            Self::Mjml => source.mjml.as_deref(),
            Self::Html => source.html.as_deref(),
            Self::Text => source.text.as_deref(),
        };
        text.filter(|text| !text.is_empty())
    }
}

/// A part with everything in place, and where each piece of it comes from.
#[derive(Debug, Default)]
pub(crate) struct Woven {
    pub(crate) text: String,
    pieces: Vec<Piece>,
    /// The templates that pieces come from: `footer@3`.
    origins: Vec<String>,
    /// The versions that were taken in, in the order of their first use.
    pub(crate) included: Vec<Included>,
}

#[derive(Debug)]
struct Piece {
    at: usize,
    /// `None`: the author's own.
    origin: Option<usize>,
    /// The line within its origin.
    line: usize,
    /// The line of the author's own source that it stands for.
    own_line: usize,
}

impl Woven {
    /// Turns a finding about this text into one about the author's source.
    pub(crate) fn place(&self, finding: Finding) -> Finding {
        let Some(line) = finding.line else { return finding };
        let start = self.text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum::<usize>();
        let rest = &self.text[start..];
        let first = rest.find(|c: char| !c.is_whitespace() || c == '\n').unwrap_or(0);
        self.place_at(finding, start + first)
    }

    /// The same for a finding whose place is known to the octet.
    pub(crate) fn place_at(&self, mut finding: Finding, at: usize) -> Finding {
        let index = self.pieces.partition_point(|piece| piece.at <= at);
        let Some(piece) = index.checked_sub(1).map(|index| &self.pieces[index]) else { return finding };
        let below = self.text[piece.at..at.max(piece.at)].matches('\n').count();
        match piece.origin {
            None => finding.at(Some(piece.own_line + below)),
            Some(origin) => {
                let line = piece.line + below;
                finding.problem = format!("in {} line {line}: {}", self.origins[origin], finding.problem);
                finding.at(Some(piece.own_line))
            }
        }
    }
}

/// The templates that one source names, in any part.
pub(crate) fn references(source: &TemplateSource) -> BTreeSet<Reference> {
    let mut found = BTreeSet::new();
    for text in Part::ALL.into_iter().filter_map(|part| part.of(source)) {
        // What does not parse is told when it is put in place.
        if let Ok(parsed) = parse(text) {
            found.extend(parsed.extends.iter().filter_map(|(name, _)| Reference::parse(name)));
            gather(&parsed.nodes, &mut found);
        }
    }
    found
}

fn gather(nodes: &[Node], found: &mut BTreeSet<Reference>) {
    for node in nodes {
        match node {
            Node::Include(name, _) => found.extend(Reference::parse(name)),
            Node::Block { nodes, .. } => gather(nodes, found),
            Node::Text(_) | Node::Super(_) | Node::TrimBack | Node::TrimNext => {}
        }
    }
}

/// Puts everything in place.
///
/// # Errors
/// What cannot be, at its line.
pub(crate) fn weave(
    part: Part,
    source: &str,
    library: &Library,
    language: Option<&Language>,
    limits: &Limits,
) -> Result<Woven, Finding> {
    let mut weaver = Weaver {
        part,
        library,
        language,
        limits,
        path: library.of.iter().cloned().collect(),
        count: 0,
        pieces: 0,
        trim_next: false,
        out: Woven::default(),
    };
    weaver.template(Frame { source, origin: None, own_line: 1, pins: &library.pins })?;
    Ok(weaver.out)
}

/// A source, and where it stands.
#[derive(Clone, Copy)]
struct Frame<'a> {
    source: &'a str,
    origin: Option<usize>,
    /// The line of the author's own source that this stands for; of the own source, its first.
    own_line: usize,
    pins: &'a Pins,
}

impl Frame<'_> {
    fn line(&self, at: usize) -> usize {
        1 + self.source[..at].matches('\n').count()
    }

    /// The line of the author's own source.
    fn own(&self, at: usize) -> usize {
        if self.origin.is_none() { self.line(at) } else { self.own_line }
    }
}

/// A template and its layouts, the outermost last.
struct Chain<'a> {
    levels: Vec<(Frame<'a>, Parsed)>,
}

impl Chain<'_> {
    /// What stands for a block, from the innermost template to the layout that made it: level and nodes.
    fn blocks(&self) -> HashMap<&str, Vec<(usize, &[Node])>> {
        let mut blocks: HashMap<&str, Vec<(usize, &[Node])>> = HashMap::new();
        for (level, (_, parsed)) in self.levels.iter().enumerate() {
            let mut rest: Vec<&[Node]> = vec![parsed.nodes.as_slice()];
            while let Some(nodes) = rest.pop() {
                for node in nodes {
                    if let Node::Block { name, nodes } = node {
                        blocks.entry(name).or_default().push((level, nodes.as_slice()));
                        rest.push(nodes);
                    }
                }
            }
        }
        blocks
    }
}

/// Where the weaver stands among blocks: each of the blocks around it, by its name and how far above the innermost
/// template it is.
struct Place<'c, 'p> {
    level: usize,
    within: Option<(&'c str, usize)>,
    above: Option<&'p Place<'c, 'p>>,
}

impl Place<'_, '_> {
    fn is_within(&self, block: (&str, usize)) -> bool {
        self.within == Some(block) || self.above.is_some_and(|above| above.is_within(block))
    }
}

struct Weaver<'a> {
    part: Part,
    library: &'a Library,
    language: Option<&'a Language>,
    limits: &'a Limits,
    /// The templates that are being put in place, the outermost first.
    path: Vec<String>,
    count: usize,
    pieces: usize,
    trim_next: bool,
    out: Woven,
}

impl<'a> Weaver<'a> {
    fn template(&mut self, frame: Frame<'a>) -> Result<(), Finding> {
        let depth = self.path.len();
        let mut chain = Chain { levels: Vec::new() };
        let mut next = Some(frame);
        while let Some(frame) = next.take() {
            let parsed =
                parse(frame.source).map_err(|wrong| self.finding(&frame, wrong.at, wrong.problem, wrong.fix))?;
            if let Some((name, at)) = &parsed.extends {
                next = Some(self.take(&frame, name, *at)?);
            }
            chain.levels.push((frame, parsed));
        }
        if let Some(outermost) = chain.levels.len().checked_sub(1) {
            let blocks = chain.blocks();
            let top = Place { level: outermost, within: None, above: None };
            self.nodes(&chain, &blocks, &chain.levels[outermost].1.nodes, &top)?;
        }
        self.path.truncate(depth);
        Ok(())
    }

    fn nodes<'c>(
        &mut self,
        chain: &'c Chain<'a>,
        blocks: &HashMap<&'c str, Vec<(usize, &'c [Node])>>,
        nodes: &'c [Node],
        place: &Place<'c, '_>,
    ) -> Result<(), Finding> {
        let frame = chain.levels[place.level].0;
        for node in nodes {
            self.pieces += 1;
            if self.pieces > MAX_PIECES {
                let problem = format!("is put together from more than {MAX_PIECES} pieces");
                return Err(self.finding(&frame, 0, problem, "use fewer blocks, includes and super()"));
            }
            match node {
                Node::Text(range) => self.text(&frame, range.clone())?,
                Node::TrimBack => {
                    let length = self.out.text.trim_end().len();
                    self.out.text.truncate(length);
                    self.out.pieces.retain(|piece| piece.at < length || piece.at == 0);
                }
                Node::TrimNext => self.trim_next = true,
                Node::Include(name, at) => {
                    let depth = self.path.len();
                    let included = self.take(&frame, name, *at)?;
                    // A template's last line end is not part of it.
                    let source = included.source;
                    let source = source.strip_suffix('\n').unwrap_or(source);
                    let source = source.strip_suffix('\r').unwrap_or(source);
                    self.template(Frame { source, ..included })?;
                    self.path.truncate(depth);
                }
                Node::Block { name, .. } => self.block(chain, blocks, (name, 0), place)?,
                Node::Super(at) => {
                    let above = place.within.filter(|(name, nth)| blocks[name].len() > nth + 1);
                    let Some((name, nth)) = above else {
                        let fix = "use it in a block that the layout has as well";
                        return Err(self.finding(&frame, *at, "has super() where a layout has nothing", fix));
                    };
                    self.block(chain, blocks, (name, nth + 1), place)?;
                }
            }
        }
        Ok(())
    }

    fn block<'c>(
        &mut self,
        chain: &'c Chain<'a>,
        blocks: &HashMap<&'c str, Vec<(usize, &'c [Node])>>,
        within: (&'c str, usize),
        above: &Place<'c, '_>,
    ) -> Result<(), Finding> {
        let (name, nth) = within;
        let Some((level, nodes)) = blocks.get(name).and_then(|all| all.get(nth)) else { return Ok(()) };
        if above.is_within(within) {
            let frame = chain.levels[*level].0;
            let fix = "let each block hold others that do not hold it";
            return Err(self.finding(&frame, 0, format!("has the block {name} within itself"), fix));
        }
        self.nodes(chain, blocks, nodes, &Place { level: *level, within: Some(within), above: Some(above) })
    }

    fn text(&mut self, frame: &Frame<'_>, range: Range<usize>) -> Result<(), Finding> {
        let mut text = &frame.source[range.clone()];
        let mut at = range.start;
        if self.trim_next {
            text = text.trim_start();
            at = range.end - text.len();
            self.trim_next = text.is_empty();
        }
        if text.is_empty() {
            return Ok(());
        }
        if self.count > 0 && self.out.text.len() + text.len() > self.limits.max_source_bytes {
            let fix = format!("keep it within {} octets, included", self.limits.max_source_bytes);
            return Err(self.finding(frame, at, "is too large with all that it takes in", fix));
        }
        self.out.pieces.push(Piece {
            at: self.out.text.len(),
            origin: frame.origin,
            line: frame.line(at),
            own_line: frame.own(at),
        });
        self.out.text.push_str(text);
        Ok(())
    }

    /// What a reference stands for, as the next source to put in place.
    fn take(&mut self, frame: &Frame<'a>, name: &str, at: usize) -> Result<Frame<'a>, Finding> {
        let told: String = name.chars().take(60).collect();
        let Some(reference) = Reference::parse(name) else {
            return Err(self.finding(frame, at, format!("names {told:?}, which is no template's name"), ONE_NAME));
        };
        if self.path.contains(&reference.name) {
            let circle = format!("{} -> {}", self.path.join(" -> "), reference.name);
            let fix = "let templates take in one another in one direction alone";
            return Err(self.finding(frame, at, format!("goes in a circle: {circle}"), fix));
        }
        self.count += 1;
        let own = usize::from(self.library.of.is_some());
        if self.path.len() - own >= self.limits.max_include_depth {
            let fix = format!("nest templates at most {} deep", self.limits.max_include_depth);
            return Err(self.finding(frame, at, format!("takes in {told} too deep"), fix));
        }
        if self.count > self.limits.max_includes {
            let fix = format!(
                "take in at most {} in one part, those of included templates as well",
                self.limits.max_includes
            );
            return Err(self.finding(frame, at, "takes in too many templates", fix));
        }
        let library = self.library;
        let Some((version, ingredient)) = library.resolve(frame.pins, &reference) else {
            let fix = "publish it first, or correct the name";
            return Err(self.finding(frame, at, format!("takes in {told}, which is not published"), fix));
        };
        let source = self.part_of(ingredient).ok_or_else(|| {
            let part = self.part.name();
            let fix = format!("publish {} with one, or leave it out here", reference.name);
            self.finding(frame, at, format!("takes in {told}, which has no {part} part"), fix)
        })?;
        let label = format!("{}@{version}", reference.name);
        let origin = self.out.origins.iter().position(|known| *known == label).unwrap_or_else(|| {
            self.out.origins.push(label);
            self.out.included.push(Included { name: reference.name.clone(), version });
            self.out.origins.len() - 1
        });
        self.path.push(reference.name);
        Ok(Frame { source, origin: Some(origin), own_line: frame.own(at), pins: &ingredient.pins })
    }

    fn part_of(&self, ingredient: &'a Ingredient) -> Option<&'a str> {
        let translations = &ingredient.source.translations;
        let own = ingredient.source.language.as_ref();
        let languages = translations.iter().map(|translation| &translation.language);
        let chosen = self.language.and_then(|language| choose(language, own, languages));
        let parts = chosen.map_or(&ingredient.source.parts, |index| &translations[index].parts);
        self.part.of(parts)
    }

    fn finding(&self, frame: &Frame<'_>, at: usize, problem: impl Into<String>, fix: impl Into<String>) -> Finding {
        let problem = problem.into();
        let problem = match frame.origin {
            None => problem,
            Some(origin) => format!("in {} line {}: {problem}", self.out.origins[origin], frame.line(at)),
        };
        Finding::new(self.part.name(), problem, fix).at(Some(frame.own(at)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::VersionSource;

    fn library(templates: &[(&str, &str)]) -> Library {
        let mut library = Library { of: Some("own".to_owned()), ..Library::default() };
        for (name, text) in templates {
            let parts = TemplateSource { text: Some((*text).to_owned()), ..TemplateSource::default() };
            let pins = references(&parts).iter().map(|reference| (reference.to_string(), 1)).collect();
            let source = VersionSource { parts, ..VersionSource::default() };
            library.versions.insert(((*name).to_owned(), 1), Ingredient { latest: 1, source, pins });
            library.pins.insert((*name).to_owned(), 1);
        }
        library
    }

    fn woven(source: &str, templates: &[(&str, &str)]) -> Result<String, String> {
        let limits = Limits::default();
        let woven = weave(Part::Text, source, &library(templates), None, &limits);
        woven.map(|woven| woven.text).map_err(|finding| finding.to_string())
    }

    const LAYOUT: (&str, &str) = (
        "layout",
        "<{% block head %}H{% endblock %}|{% block main %}M{% block in %}I{% endblock %}{% endblock main %}>",
    );

    #[test]
    fn blocks_of_a_template_replace_those_of_its_layout() {
        let taken = |source: &str| woven(source, &[LAYOUT]).unwrap();
        assert_eq!(taken("{% extends 'layout' %}"), "<H|MI>");
        assert_eq!(
            taken("{# why #}\n{% extends 'layout' %}\n{% block main %}own {{ x }}{% endblock %}\n"),
            "<H|own {{ x }}>"
        );
        assert_eq!(taken("{% extends 'layout' %}{% block in %}[{{ super() }}]{% endblock %}"), "<H|M[I]>");
        assert_eq!(taken("{% extends \"layout@1\" %}{% block head %}{{ super() }}+{% endblock %}"), "<H+|MI>");
        assert_eq!(taken("{% block a %}A{% endblock %}"), "A");
        let two = [
            LAYOUT,
            (
                "middle",
                "{% extends 'layout' %}{% block main %}({% block more %}m{% endblock %}{{ super() }}){% endblock %}",
            ),
        ];
        assert_eq!(
            woven("{% extends 'middle' %}{% block more %}{{ super() }}!{% endblock %}", &two).unwrap(),
            "<H|(m!MI)>"
        );
    }

    #[test]
    fn includes_stand_in_their_place_and_white_space_is_as_they_say() {
        let there = [("f", "{% if x %}F{% endif %}\n"), ("g", "<{% include 'f' %}>")];
        assert_eq!(woven("a {% include 'f' %} b", &there).unwrap(), "a {% if x %}F{% endif %} b");
        assert_eq!(woven("a \n{%- include 'g' -%}\n b", &there).unwrap(), "a<{% if x %}F{% endif %}>b");
        let literal = "{% raw %}{% include 'f' %}{% endraw %}{# {% include 'f' %} #}";
        assert_eq!(woven(literal, &[]).unwrap(), literal);
        assert_eq!(
            woven("{% for x in xs %}{%- block b -%} {{ x }} {%- endblock %}{% endfor %}", &[]).unwrap(),
            "{% for x in xs %}{{ x }}{% endfor %}"
        );
    }

    #[test]
    fn what_cannot_be_put_in_place_is_told_with_its_line() {
        let there = [
            LAYOUT,
            ("ring", "{% include 'gnir' %}"),
            ("gnir", "\n{% include 'ring' %}"),
            ("back", "{% include 'own' %}"),
        ];
        for (source, told) in [
            ("\n{% include 'absent' %}", "text line 2: takes in absent, which is not published"),
            ("\n{% include name %}", "text line 2: includes something else than one name"),
            ("{% include '../x' %}", "text line 1: names \"../x\", which is no template's name"),
            (
                "\n\n{% include 'ring' %}",
                "text line 3: in gnir@1 line 2: goes in a circle: own -> ring -> gnir -> ring",
            ),
            ("{% include 'back' %}", "text line 1: in back@1 line 1: goes in a circle: own -> back -> own"),
            ("x\n{% extends 'layout' %}", "text line 2: names its layout after something else"),
            ("{% extends 'layout' %}\n\nx{% block main %}{% endblock %}", "text line 3: has something outside"),
            ("{% block a %}{% endblock %}\n{% block a %}{% endblock %}", "text line 2: has the block a twice"),
            ("{% block a %}", "text line 1: does not end the block a"),
            ("x{% endblock %}", "text line 1: ends a block that was not begun"),
            ("{% block a %}{{ super() }}{% endblock %}", "text line 1: has super() where a layout has nothing"),
        ] {
            let error = woven(source, &there).unwrap_err();
            assert!(error.starts_with(told), "{source}: {error}");
        }
    }

    #[test]
    fn templates_that_would_grow_without_end_are_refused() {
        let names: Vec<String> = (0..12).map(|n| format!("t{n}")).collect();
        let doubling: Vec<String> = (0..12).map(|n| format!("{{% include 't{}' %}}", n + 1).repeat(2)).collect();
        let there: Vec<(&str, &str)> =
            names.iter().zip(&doubling).map(|(name, text)| (name.as_str(), text.as_str())).collect();
        assert!(woven("{% include 't0' %}", &there).unwrap_err().contains("too deep"));
        let wide = "{% include 'leaf' %}".repeat(101);
        assert!(woven(&wide, &[("leaf", "x")]).unwrap_err().contains("too many"));
        let large = "x".repeat(300_000);
        assert!(woven("{% include 'a' %}{% include 'a' %}", &[("a", &large)]).unwrap_err().contains("too large"));
    }

    #[test]
    fn a_finding_is_placed_in_the_authors_own_source() {
        let limits = Limits::default();
        let library = library(&[("f", "one\ntwo")]);
        let woven = weave(Part::Text, "a\nb\n{% include 'f' %}\nc\n", &library, None, &limits).unwrap();
        let placed = |line| {
            let finding = woven.place(Finding::new("text", "is odd", "").at(Some(line)));
            (finding.line, finding.problem)
        };
        assert_eq!(placed(2), (Some(2), "is odd".to_owned()));
        assert_eq!(placed(4), (Some(3), "in f@1 line 2: is odd".to_owned()));
        assert_eq!(placed(5), (Some(4), "is odd".to_owned()));
    }
}
