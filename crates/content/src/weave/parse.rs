//! What a source takes in, found among its tokens.

use minijinja::machinery::{Span, Token, tokenize};
use minijinja::syntax::SyntaxConfig;
use std::collections::BTreeSet;
use std::ops::Range;

/// A piece of a source.
pub(super) enum Node {
    Text(Range<usize>),
    Include(String, usize),
    /// `{{ super() }}`, and where it stands.
    Super(usize),
    Block {
        name: String,
        nodes: Vec<Node>,
    },
    /// White space before this is dropped.
    TrimBack,
    /// White space after this is dropped.
    TrimNext,
}

/// A source in pieces.
#[derive(Default)]
pub(super) struct Parsed {
    pub(super) extends: Option<(String, usize)>,
    /// The first thing outside of every block.
    pub(super) loose: Option<usize>,
    pub(super) nodes: Vec<Node>,
}

/// What is wrong with a source, and where.
pub(super) struct Wrong {
    pub(super) at: usize,
    pub(super) problem: String,
    pub(super) fix: &'static str,
}

impl Wrong {
    fn new(at: usize, problem: impl Into<String>, fix: &'static str) -> Self {
        Self { at, problem: problem.into(), fix }
    }
}

/// Most blocks within one another.
const MAX_OPEN: usize = 32;

pub(super) const ONE_NAME: &str =
    "name one template in quotes: {% include \"footer\" %}, or one version of it: \"footer@3\"";

/// Finds what is to be put in place. What does not even tokenise is one text: checking its syntax says why.
pub(super) fn parse(source: &str) -> Result<Parsed, Wrong> {
    let tokens: Result<Vec<(Token<'_>, Span)>, _> = tokenize(source, false, SyntaxConfig::default()).collect();
    let Ok(tokens) = tokens else {
        return Ok(Parsed { nodes: vec![Node::Text(0..source.len())], ..Parsed::default() });
    };
    let mut parser = Parser { source, done: 0, parsed: Parsed::default(), open: Vec::new(), names: BTreeSet::new() };
    let mut at = 0;
    while let Some((token, span)) = tokens.get(at) {
        let start = offset(span.start_offset);
        let rest = &tokens[at..];
        let last = rest.len() - 1;
        at += match token {
            Token::BlockStart => {
                let length = rest.iter().position(|(token, _)| matches!(token, Token::BlockEnd)).unwrap_or(last);
                let stop = offset(rest[length].1.end_offset);
                // A tag may be the last that there is.
                let inner = rest.get(1..length).unwrap_or_default().iter();
                let inner: Vec<&Token<'_>> = inner.map(|(token, _)| token).collect();
                parser.tag(&inner, start..stop)?;
                length + 1
            }
            Token::VariableStart => {
                let length = rest.iter().position(|(token, _)| matches!(token, Token::VariableEnd)).unwrap_or(last);
                let stop = offset(rest[length].1.end_offset);
                let inner = rest.get(1..length).unwrap_or_default();
                if let [(Token::Ident("super"), _), (Token::ParenOpen, _), (Token::ParenClose, _)] = inner {
                    parser.special(start..stop, Node::Super(start));
                } else {
                    parser.loose(start);
                }
                length + 1
            }
            Token::TemplateData(text) => {
                let blank = text.len() - text.trim_start().len();
                if blank < text.len() {
                    parser.loose(start + blank);
                }
                1
            }
            _ => 1,
        };
    }
    parser.finish()
}

fn offset(at: u32) -> usize {
    usize::try_from(at).unwrap_or(usize::MAX)
}

fn quoted<'a>(tokens: &[&'a Token<'_>]) -> Option<&'a str> {
    match tokens {
        [Token::Str(text)] => Some(*text),
        [Token::String(text)] => Some(&**text),
        _ => None,
    }
}

struct Parser<'a> {
    source: &'a str,
    /// How much of the source stands in nodes.
    done: usize,
    parsed: Parsed,
    /// The blocks that are open: name, where it starts, and the nodes around it.
    open: Vec<(String, usize, Vec<Node>)>,
    names: BTreeSet<String>,
}

impl Parser<'_> {
    fn loose(&mut self, at: usize) {
        if self.open.is_empty() {
            self.parsed.loose.get_or_insert(at);
        }
    }

    fn text(&mut self, until: usize) {
        if self.done < until {
            self.parsed.nodes.push(Node::Text(self.done..until));
        }
    }

    /// Puts a node in the place of a tag.
    fn special(&mut self, range: Range<usize>, node: Node) {
        self.text(range.start);
        let tag = &self.source[range.clone()];
        if tag.starts_with("{%-") || tag.starts_with("{{-") {
            self.parsed.nodes.push(Node::TrimBack);
        }
        self.parsed.nodes.push(node);
        if tag.ends_with("-%}") || tag.ends_with("-}}") {
            self.parsed.nodes.push(Node::TrimNext);
        }
        self.done = range.end;
    }

    fn tag(&mut self, inner: &[&Token<'_>], range: Range<usize>) -> Result<(), Wrong> {
        let at = range.start;
        match inner {
            [Token::Ident("include"), name @ ..] => {
                let name =
                    quoted(name).ok_or_else(|| Wrong::new(at, "includes something else than one name", ONE_NAME))?;
                let name = name.to_owned();
                self.loose(at);
                self.special(range, Node::Include(name, at));
            }
            [Token::Ident("extends"), name @ ..] => {
                let fix = "name one layout in quotes, before everything else: {% extends \"layout\" %}";
                let name = quoted(name).ok_or_else(|| Wrong::new(at, "extends something else than one name", fix))?;
                if self.parsed.extends.is_some() || self.parsed.loose.is_some() || !self.names.is_empty() {
                    return Err(Wrong::new(at, "names its layout after something else", fix));
                }
                self.parsed.extends = Some((name.to_owned(), at));
                self.text(at);
                self.done = range.end;
            }
            [Token::Ident("block"), Token::Ident(name)] => {
                let fix = "give each block a name of its own";
                if !self.names.insert((*name).to_owned()) {
                    return Err(Wrong::new(at, format!("has the block {name} twice"), fix));
                }
                if self.open.len() >= MAX_OPEN {
                    let problem = format!("has more than {MAX_OPEN} blocks within one another");
                    return Err(Wrong::new(at, problem, "end some before others begin"));
                }
                self.text(at);
                let tag = &self.source[range.clone()];
                if tag.starts_with("{%-") {
                    self.parsed.nodes.push(Node::TrimBack);
                }
                let around = std::mem::take(&mut self.parsed.nodes);
                self.open.push(((*name).to_owned(), at, around));
                if tag.ends_with("-%}") {
                    self.parsed.nodes.push(Node::TrimNext);
                }
                self.done = range.end;
            }
            [Token::Ident("block"), ..] => {
                return Err(Wrong::new(at, "has a block without a name", "write {% block name %} ... {% endblock %}"));
            }
            [Token::Ident("endblock"), name @ ..] => {
                self.text(at);
                let Some((open, _, around)) = self.open.pop() else {
                    return Err(Wrong::new(at, "ends a block that was not begun", "write {% block name %} before it"));
                };
                if !name.is_empty() && !matches!(name, [Token::Ident(name)] if *name == open) {
                    return Err(Wrong::new(at, format!("ends the block {open} by another name"), "write its own"));
                }
                let tag = &self.source[range.clone()];
                if tag.starts_with("{%-") {
                    self.parsed.nodes.push(Node::TrimBack);
                }
                let nodes = std::mem::replace(&mut self.parsed.nodes, around);
                self.parsed.nodes.push(Node::Block { name: open, nodes });
                if tag.ends_with("-%}") {
                    self.parsed.nodes.push(Node::TrimNext);
                }
                self.done = range.end;
            }
            _ => self.loose(at),
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Parsed, Wrong> {
        if let Some((name, at, _)) = self.open.pop() {
            return Err(Wrong::new(at, format!("does not end the block {name}"), "write {% endblock %} after it"));
        }
        self.text(self.source.len());
        if let (Some(_), Some(at)) = (&self.parsed.extends, self.parsed.loose) {
            let fix = "move it into a {% block name %} of the layout; what stands outside of blocks would be lost";
            return Err(Wrong::new(at, "has something outside of every block, beside a layout", fix));
        }
        Ok(self.parsed)
    }
}
