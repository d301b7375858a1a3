//! Template tags in markup, hidden while other programs work on it.
//!
//! MJML, CSS inlining and HTML-to-text all parse markup, and each would do harm to `{{ a < b }}` or move
//! `{% for %}` out of a table, where HTML allows no text. So tags are replaced by stand-ins first: a comment
//! where a tag stands between elements, a plain word in text and attributes; and are put back afterwards.

use std::fmt::Write;

/// Elements without content (HTML, 13.1.2).
const VOID: [&str; 14] =
    ["area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "param", "source", "track", "wbr"];
/// Elements whose content is text alone.
const RAW_TEXT: [&str; 7] = ["style", "script", "title", "textarea", "mj-style", "mj-title", "mj-preview"];
/// Elements that are closed by the next of their kind.
const SELF_CLOSED: [&str; 9] = ["p", "li", "dt", "dd", "option", "tr", "td", "th", "tbody"];
/// Elements that hold elements and no text: even `{{ rows | safe }}` is a comment there.
const STRUCTURAL: [&str; 17] = [
    "table",
    "thead",
    "tbody",
    "tfoot",
    "tr",
    "colgroup",
    "select",
    "mjml",
    "mj-body",
    "mj-section",
    "mj-wrapper",
    "mj-column",
    "mj-group",
    "mj-table",
    "mj-social",
    "mj-navbar",
    "mj-hero",
];

/// One template tag.
struct Tag {
    source: String,
    is_control: bool,
    /// Where its stand-in starts.
    at: usize,
    line: usize,
}

/// Markup with stand-ins for its template tags.
pub(crate) struct Protected {
    pub(crate) text: String,
    /// How deep its elements nest at most.
    pub(crate) depth: usize,
    /// The first element that its parent ends before it is closed, and its line.
    pub(crate) unclosed: Option<(String, usize)>,
    tags: Vec<Tag>,
    marker: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Text,
    /// Within `<...>`, perhaps within a quoted value.
    Tag(Option<u8>),
    Comment,
    /// Up to the end tag of the innermost element.
    RawText,
}

struct Scanner<'a> {
    source: &'a str,
    at: usize,
    line: usize,
    mode: Mode,
    /// The start tag being read; pushed when it ends.
    opening: Option<(String, usize)>,
    open: Vec<(String, usize)>,
    out: Protected,
}

/// Replaces the template tags of `source`, which parses as a template.
pub(crate) fn protect(source: &str) -> Protected {
    let mut marker = String::from("mfv");
    while source.contains(&marker) {
        marker.push('q');
    }
    let out =
        Protected { text: String::with_capacity(source.len()), depth: 0, unclosed: None, tags: Vec::new(), marker };
    let mut scanner = Scanner { source, at: 0, line: 1, mode: Mode::Text, opening: None, open: Vec::new(), out };
    scanner.run();
    scanner.note_unclosed(0);
    scanner.out
}

impl<'a> Scanner<'a> {
    fn run(&mut self) {
        while self.at < self.source.len() {
            let rest = &self.source[self.at..];
            if rest.starts_with("{#") {
                self.skip(rest.find("#}").map_or(rest.len(), |end| end + 2));
            } else if rest.starts_with("{%") {
                self.control(rest);
            } else if rest.starts_with("{{") {
                let end = tag_end(rest, "}}");
                self.stand_in(&rest[..end], false);
                self.skip(end);
            } else {
                self.markup(rest);
            }
        }
    }

    fn control(&mut self, rest: &'a str) {
        let end = tag_end(rest, "%}");
        let word = rest[2..end].trim_start_matches(['-', '+']).trim_start();
        if !word.strip_prefix("raw").is_some_and(|after| after.starts_with([' ', '\t', '\n', '-', '+', '%'])) {
            self.stand_in(&rest[..end], true);
            self.skip(end);
            return;
        }
        // What is raw is literal: its braces are escaped when tags are put back.
        self.skip(end);
        let (close, after) = find_endraw(&self.source[self.at..]);
        let stop = self.at + close;
        while self.at < stop {
            self.markup(&self.source[self.at..]);
        }
        self.skip(after - close);
    }

    fn skip(&mut self, bytes: usize) {
        self.line += self.source[self.at..self.at + bytes].matches('\n').count();
        self.at += bytes;
    }

    fn copy(&mut self, bytes: usize) {
        let text = &self.source[self.at..self.at + bytes];
        self.out.text.push_str(text);
        self.skip(bytes);
    }

    fn stand_in(&mut self, source: &str, is_control: bool) {
        let index = self.out.tags.len();
        let at = self.out.text.len();
        self.out.tags.push(Tag { source: source.to_owned(), is_control, at, line: self.line });
        let structural = || self.open.last().is_some_and(|(name, _)| STRUCTURAL.contains(&name.as_str()));
        let marker = &self.out.marker;
        let done = if self.mode == Mode::Text && (is_control || structural()) {
            write!(self.out.text, "<!--{marker}{index}x-->")
        } else {
            write!(self.out.text, "{marker}{index}x")
        };
        debug_assert!(done.is_ok());
    }

    /// Takes one step through markup that starts no template tag.
    fn markup(&mut self, rest: &'a str) {
        // Whatever changes the mode starts with one of these, so all up to the next is taken at once.
        let first = rest.chars().next().map_or(1, char::len_utf8);
        let special = |c| matches!(c, '<' | '>' | '{' | '-' | '"' | '\'');
        let step = rest[first..].find(special).map_or(rest.len(), |next| first + next);
        match self.mode {
            Mode::Text => {
                let after = rest.as_bytes().get(1).copied().unwrap_or(b' ');
                if rest.starts_with("<!--") {
                    self.mode = Mode::Comment;
                    self.copy(4);
                } else if let Some(name) = rest.strip_prefix("</") {
                    self.close(&name_of(name));
                    self.mode = Mode::Tag(None);
                    self.copy(2);
                } else if rest.starts_with('<') && after.is_ascii_alphabetic() {
                    self.opening = Some((name_of(&rest[1..]), self.line));
                    self.mode = Mode::Tag(None);
                    self.copy(1);
                } else if rest.starts_with('<') && matches!(after, b'!' | b'?') {
                    self.mode = Mode::Tag(None);
                    self.copy(1);
                } else {
                    self.copy(step);
                }
            }
            Mode::Comment => {
                if rest.starts_with("-->") {
                    self.mode = Mode::Text;
                    self.copy(3);
                } else {
                    self.copy(step);
                }
            }
            Mode::RawText => {
                let ends = self
                    .open
                    .last()
                    .is_none_or(|(name, _)| rest.strip_prefix("</").is_some_and(|after| name_of(after) == *name));
                if ends {
                    self.mode = Mode::Text;
                } else {
                    self.copy(step);
                }
            }
            Mode::Tag(Some(quote)) => {
                if rest.as_bytes()[0] == quote {
                    self.mode = Mode::Tag(None);
                }
                self.copy(step);
            }
            Mode::Tag(None) => {
                match rest.as_bytes()[0] {
                    quote @ (b'"' | b'\'') => self.mode = Mode::Tag(Some(quote)),
                    b'>' => {
                        let closed = self.out.text.ends_with('/');
                        self.mode = Mode::Text;
                        if let Some((name, line)) = self.opening.take() {
                            self.push(name, line, closed);
                        }
                    }
                    _ => {}
                }
                self.copy(step);
            }
        }
    }

    fn push(&mut self, name: String, line: usize, closed: bool) {
        let is_mjml = name.starts_with("mj");
        // HTML gives `/>` no meaning outside of void elements; MJML does.
        if VOID.contains(&name.as_str()) || (closed && is_mjml) {
            return;
        }
        if SELF_CLOSED.contains(&name.as_str()) && self.open.last().is_some_and(|(open, _)| *open == name) {
            self.open.pop();
        }
        if RAW_TEXT.contains(&name.as_str()) {
            self.mode = Mode::RawText;
        }
        self.open.push((name, line));
        self.out.depth = self.out.depth.max(self.open.len());
    }

    fn close(&mut self, name: &str) {
        if let Some(index) = self.open.iter().rposition(|(open, _)| open == name) {
            self.note_unclosed(index + 1);
            self.open.truncate(index);
        }
    }

    fn note_unclosed(&mut self, from: usize) {
        let may_stay = |name: &str| SELF_CLOSED.contains(&name);
        if self.out.unclosed.is_none() {
            self.out.unclosed = self.open[from..].iter().find(|(name, _)| !may_stay(name)).cloned();
        }
    }
}

fn name_of(text: &str) -> String {
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '-' && c != ':').unwrap_or(text.len());
    text[..end].to_ascii_lowercase()
}

/// Where a tag that starts `text` ends; delimiters within its string literals do not count.
fn tag_end(text: &str, close: &str) -> usize {
    let bytes = text.as_bytes();
    let mut quote = None;
    let mut at = 2;
    while at < bytes.len() {
        match (quote, bytes[at]) {
            (Some(_), b'\\') => at += 1,
            (Some(open), byte) if byte == open => quote = None,
            (Some(_), _) => {}
            (None, byte @ (b'"' | b'\'')) => quote = Some(byte),
            (None, _) if bytes[at..].starts_with(close.as_bytes()) => return at + 2,
            (None, _) => {}
        }
        at += 1;
    }
    bytes.len()
}

/// Where `{% endraw %}` starts and ends.
fn find_endraw(text: &str) -> (usize, usize) {
    let mut from = 0;
    while let Some(found) = text[from..].find("{%") {
        let start = from + found;
        let end = start + tag_end(&text[start..], "%}");
        let word = text[start + 2..end].trim_start_matches(['-', '+']).trim_start();
        if word.starts_with("endraw") {
            return (start, end);
        }
        from = start + 2;
    }
    (text.len(), text.len())
}

impl Protected {
    /// The same tags around another text.
    pub(crate) fn with_text(self, text: String) -> Self {
        Self { text, ..self }
    }

    /// Starts a row group in every table whose rows follow a stand-in. HTML parsers put one around rows that
    /// have none, and would start it within a loop and end it outside.
    pub(crate) fn group_rows(&self, html: &str) -> String {
        let mark = format!("<!--{}", self.marker);
        let mut out = String::with_capacity(html.len() + 64);
        let mut rest = html;
        while let Some(at) = rest.find(&mark) {
            let (head, tail) = rest.split_at(at);
            out.push_str(head);
            let mut after = tail;
            while after.starts_with(&mark) {
                after = after.split_once("-->").map_or("", |(_, after)| after).trim_start();
            }
            let is_row = after.get(..3).is_some_and(|start| start.eq_ignore_ascii_case("<tr"));
            let opener = out.trim_end();
            let is_table = opener.ends_with('>')
                && opener.rfind('<').is_some_and(|start| name_of(&opener[start + 1..]) == "table");
            if is_row && is_table {
                out.push_str("<tbody>");
            }
            let length = tail.len() - after.len();
            out.push_str(&tail[..length]);
            rest = after;
        }
        out.push_str(rest);
        out
    }

    /// The line of the source that an octet of the protected text comes from.
    pub(crate) fn line_at(&self, at: usize) -> usize {
        let head = self.text.get(..at).unwrap_or(&self.text);
        let hidden = self.tags.iter().take_while(|tag| tag.at < at).map(|tag| tag.source.matches('\n').count());
        1 + head.matches('\n').count() + hidden.sum::<usize>()
    }

    /// Puts the tags back into markup.
    pub(crate) fn restore(&self, text: &str) -> String {
        self.rebuild(text, |tag| tag.source.clone())
    }

    /// Puts the tags back into text made from markup. A control tag that has a line to itself takes that
    /// line's end with it, so that loops leave no empty lines.
    pub(crate) fn restore_text(&self, text: &str) -> String {
        let mut joined = String::with_capacity(text.len());
        for line in text.split_inclusive('\n') {
            let mut rest = line.trim();
            let mut only_control = !rest.is_empty();
            while !rest.is_empty() && only_control {
                match self.stand_in_at(rest) {
                    Some((index, end)) if self.tags[index].is_control => rest = rest[end..].trim_start(),
                    _ => only_control = false,
                }
            }
            joined.push_str(if only_control { line.trim() } else { line });
        }
        self.rebuild(&joined, |tag| tag.source.clone())
    }

    /// Tags that did not survive: their source and line.
    pub(crate) fn lost_in(&self, text: &str) -> Option<(&str, usize)> {
        let lost = self.tags.iter().enumerate().find(|(index, _)| !text.contains(&format!("{}{index}x", self.marker)));
        lost.map(|(_, tag)| (tag.source.as_str(), tag.line))
    }

    /// Whether a name of an attribute stands for a tag, which may give any attribute.
    pub(crate) fn is_stand_in(&self, name: &str) -> bool {
        self.stand_in_at(name).is_some()
    }

    /// The stand-ins as plain words instead of comments, for readers that drop comments.
    pub(crate) fn as_words(&self, text: &str) -> String {
        self.rebuild_with(
            text,
            |out, literal| out.push_str(literal),
            |out, index| {
                let done = write!(out, "{}{index}x", self.marker);
                debug_assert!(done.is_ok());
            },
        )
    }

    fn stand_in_at(&self, text: &str) -> Option<(usize, usize)> {
        let rest = text.strip_prefix(&self.marker)?;
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let index: usize = rest[..digits].parse().ok()?;
        (rest[digits..].starts_with('x') && index < self.tags.len()).then_some((index, self.marker.len() + digits + 1))
    }

    fn rebuild(&self, text: &str, tag: impl Fn(&Tag) -> String) -> String {
        self.rebuild_with(text, escape_into, |out, index| {
            // A brace before a tag would make another tag of both.
            if out.ends_with('{') {
                out.pop();
                out.push_str("{{ '{' }}");
            }
            out.push_str(&tag(&self.tags[index]));
        })
    }

    fn rebuild_with(
        &self,
        text: &str,
        literal: impl Fn(&mut String, &str),
        mut tag: impl FnMut(&mut String, usize),
    ) -> String {
        let mut out = String::with_capacity(text.len() * 2);
        let mut from = 0;
        let mut search = 0;
        while let Some(found) = text[search..].find(&self.marker) {
            let start = search + found;
            let Some((index, length)) = self.stand_in_at(&text[start..]) else {
                search = start + self.marker.len();
                continue;
            };
            let (mut head, mut end) = (&text[from..start], start + length);
            if let Some(before) = head.strip_suffix("<!--")
                && text[end..].starts_with("-->")
            {
                head = before;
                end += 3;
            } else if text[end..].starts_with("=\"\"") {
                // It stood where an attribute's name does.
                end += 3;
            }
            literal(&mut out, head);
            tag(&mut out, index);
            from = end;
            search = end;
        }
        literal(&mut out, &text[from..]);
        out
    }
}

/// Appends text that is no template: what looks like a tag (from an entity, or minified CSS) is quoted.
fn escape_into(out: &mut String, text: &str) {
    let mut rest = text;
    while let Some(at) = rest.find('{') {
        out.push_str(&rest[..at]);
        let next = rest.as_bytes().get(at + 1).copied();
        if matches!(next, Some(b'{' | b'%' | b'#')) {
            out.push_str("{{ '{' }}");
        } else {
            out.push('{');
        }
        rest = &rest[at + 1..];
    }
    out.push_str(rest);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(source: &str) -> String {
        let hidden = protect(source);
        hidden.restore(&hidden.text)
    }

    #[test]
    fn tags_come_back_as_they_were() {
        for source in [
            "Hello {{ name }}",
            "<a href=\"{{ url }}?a={{ \"}}\" }}\">{% if a < b %}x{% endif %}</a>",
            "<table>{% for x in xs %}<tr><td>{{ x }}</td></tr>{% endfor %}</table>",
            "<style>a { color: {{ color }} }</style>",
            "<!--[if mso]>{{ x }}<![endif]--><p {% if x %}class=\"y\"{% endif %}>",
            "mfv0x {{ a }} mfv",
        ] {
            assert_eq!(round(source), source);
        }
    }

    #[test]
    fn a_tag_between_elements_is_a_comment_and_a_word_elsewhere() {
        let hidden = protect("<table>{% for x in xs %}<tr><td class='{% if x %}a{% endif %}'>{{ x }}</td></tr>");
        assert_eq!(hidden.text, "<table><!--mfv0x--><tr><td class='mfv1xamfv2x'>mfv3x</td></tr>");
    }

    #[test]
    fn raw_blocks_and_comments_become_literal_and_nothing() {
        assert_eq!(round("a{# no #}b{% raw %}{{ x }}{% endraw %}c"), "ab{{ '{' }}{ x }}c");
    }

    #[test]
    fn braces_that_a_conversion_makes_are_quoted() {
        let hidden = protect("{{ a }}");
        assert_eq!(hidden.restore("{{ b }} mfv0x {#"), "{{ '{' }}{ b }} {{ a }} {{ '{' }}#");
        assert_eq!(hidden.restore("{mfv0x"), "{{ '{' }}{{ a }}");
    }

    #[test]
    fn depth_counts_open_elements_only() {
        assert_eq!(protect(&"<p>x".repeat(500)).depth, 1);
        assert_eq!(protect(&"<br><img>".repeat(500)).depth, 0);
        assert_eq!(protect(&"<div></div>".repeat(500)).depth, 1);
        assert_eq!(protect(&"<div>".repeat(500)).depth, 500);
    }

    #[test]
    fn a_lost_tag_is_named_with_its_line() {
        let hidden = protect("a\n{{ b }}");
        assert_eq!(hidden.lost_in("a"), Some(("{{ b }}", 2)));
        assert_eq!(hidden.lost_in(&hidden.text), None);
        assert_eq!(hidden.line_at(hidden.text.len()), 2);
    }
}
