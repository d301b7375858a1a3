//! Where the links of an HTML part stand, found by a parser and changed without touching an octet beside them.
//!
//! The parser streams and decides what is a tag, an attribute, a comment or a script; its output is not used. What it
//! finds are places, so that everything else of the part stays as its author wrote it.

use domain::token::LONGEST_LINK;
use html5ever::tendril::StrTendril;
use html5ever::tokenizer::{BufferQueue, Token, TokenSink, TokenSinkResult, Tokenizer, TokenizerOpts};
use lol_html::html_content::{Attribute, Element};
use lol_html::{HtmlRewriter, Settings, element, end_tag};
use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::rc::Rc;

/// The attribute by which an author keeps a link as it is.
pub(crate) const MARK: &str = "data-mailfleet-track";

/// Something that may be changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Spot {
    /// The value of an `href`, and the http or https address that it stands for.
    Link(Range<usize>, String),
    /// An attribute that is for us alone, with the blanks before it.
    Mark(Range<usize>),
}

/// What there is to change in one HTML part.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Spots {
    /// In their order.
    pub(crate) spots: Vec<Spot>,
    /// Where the content of the body begins.
    pub(crate) body: usize,
    /// Where it ends: before `</body>`, or at the end of all.
    pub(crate) end: usize,
}

impl Spots {
    /// Looks through an HTML part. Markup that cannot be looked through has no spots.
    pub(crate) fn of(html: &str) -> Self {
        let found = RefCell::new(Vec::new());
        let body = Cell::new(None);
        let end = Rc::new(Cell::new(None));
        let settings = Settings::new()
            .with_strict(false)
            .append_element_content_handler(element!("a, area", |element| {
                look_at(html, element, &mut found.borrow_mut());
                Ok(())
            }))
            .append_element_content_handler(element!("body", |element| {
                if body.get().is_none() {
                    body.set(Some(element.source_location().bytes().end));
                    let end = Rc::clone(&end);
                    element.on_end_tag(end_tag!(move |tag| {
                        end.set(Some(tag.source_location().bytes().start));
                        Ok(())
                    }))?;
                }
                Ok(())
            }));
        let mut parser = HtmlRewriter::new(settings, |_: &[u8]| {});
        if parser.write(html.as_bytes()).and_then(|()| parser.end()).is_err() {
            return Self { end: html.len(), ..Self::default() };
        }
        let spots = found.into_inner();
        Self { spots, body: body.get().unwrap_or(0), end: end.get().unwrap_or(html.len()) }
    }
}

fn look_at(html: &str, element: &Element<'_, '_>, found: &mut Vec<Spot>) {
    let named = |name: &str| element.attributes().iter().find(|attribute| attribute.name() == name);
    let mark = named(MARK);
    let is_off = mark.is_some_and(|mark| mark.value().trim().eq_ignore_ascii_case("off"));
    let mark = mark.and_then(|mark| Some(Spot::Mark(attribute_at(html, mark)?)));
    let link = named("href").filter(|_| !is_off).and_then(|href| {
        let at = href.value_source_location()?.bytes();
        // What is longer written out than a link whose every octet is a reference is too long decoded as well.
        let value = html.get(at.clone()).filter(|value| value.len() <= LONGEST_LINK * 6)?;
        let decoded = decode(value);
        let url = decoded.trim_matches([' ', '\t', '\n', '\r', '\u{c}']);
        is_followed(url).then(|| Spot::Link(at, url.to_owned()))
    });
    let start = |spot: &Spot| match spot {
        Spot::Link(at, _) | Spot::Mark(at) => at.start,
    };
    let mut here: Vec<Spot> = [mark, link].into_iter().flatten().collect();
    here.sort_by_key(start);
    found.extend(here);
}

/// The whole of an attribute with the blanks before it, which stay where nothing else would part its neighbours.
fn attribute_at(html: &str, attribute: &Attribute<'_>) -> Option<Range<usize>> {
    let bytes = html.as_bytes();
    let name = attribute.name_source_location()?.bytes();
    let end = match attribute.value_source_location().map(|value| value.bytes()) {
        Some(value) => match bytes.get(value.end) {
            Some(quote @ (b'"' | b'\'')) if bytes.get(value.start.wrapping_sub(1)) == Some(quote) => value.end + 1,
            _ => value.end,
        },
        None => name.end,
    };
    let parts = bytes.get(end).is_none_or(|byte| byte.is_ascii_whitespace() || matches!(byte, b'/' | b'>'));
    let head = &bytes[..name.start];
    let start = if parts { head.trim_ascii_end().len() } else { name.start };
    Some(start..end)
}

/// Whether a link is one that can be led through us: http or https with a host, of a length that a token holds, and
/// without characters that a redirect could not repeat.
fn is_followed(url: &str) -> bool {
    let starts = |scheme: &str| url.get(..scheme.len()).is_some_and(|head| head.eq_ignore_ascii_case(scheme));
    (starts("https://") || starts("http://"))
        && host_of(url).is_some_and(|host| !host.is_empty())
        && url.len() <= LONGEST_LINK
        && !url.contains(|c: char| c.is_control())
}

/// The host of an http or https address, as it is written.
pub(crate) fn host_of(url: &str) -> Option<&str> {
    let (_, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?', '#', '\\']).next()?;
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => Some(name),
        _ => Some(host),
    }
}

/// The value of an attribute with its character references replaced, as browsers do it: `&copy=` stays in an
/// attribute, `&amp;copy=` does not.
fn decode(value: &str) -> Cow<'_, str> {
    if !value.contains('&') {
        return Cow::Borrowed(value);
    }
    let tokenizer = Tokenizer::new(FirstValue::default(), TokenizerOpts::default());
    let input = BufferQueue::default();
    input.push_back(StrTendril::from(format!("<a href=\"{}\">", value.replace('"', "&quot;"))));
    let _done = tokenizer.feed(&input);
    tokenizer.end();
    Cow::Owned(tokenizer.sink.0.take())
}

/// Keeps the value of the first attribute of the last tag.
#[derive(Default)]
struct FirstValue(RefCell<String>);

impl TokenSink for FirstValue {
    type Handle = ();

    fn process_token(&self, token: Token, _line: u64) -> TokenSinkResult<()> {
        if let Token::TagToken(tag) = token
            && let Some(attribute) = tag.attrs.first()
        {
            self.0.replace(attribute.value.to_string());
        }
        TokenSinkResult::Continue
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn links(html: &str) -> Vec<String> {
        let link = |spot| match spot {
            Spot::Link(_, url) => Some(url),
            Spot::Mark(_) => None,
        };
        Spots::of(html).spots.into_iter().filter_map(link).collect()
    }

    #[test]
    fn links_are_what_a_browser_follows_with_their_references_decoded() {
        for (html, expected) in [
            ("<a href=\"https://a.test/?x=1&amp;copy=2\">", "https://a.test/?x=1&copy=2"),
            ("<a href='https://a.test/?x=1&copy=2'>", "https://a.test/?x=1&copy=2"),
            ("<A HREF=HTTPS://a.test/x>", "HTTPS://a.test/x"),
            ("<a href=\"https:&#x2f;&#47;a.test/&quot;&eacute;\">", "https://a.test/\"é"),
            ("<a href=' \n https://a.test/ '>", "https://a.test/"),
            ("<map><area shape=rect href=http://a.test></map>", "http://a.test"),
            ("<a href='https://a.test/1' href='https://b.test/2'>", "https://a.test/1"),
            ("<a data-mailfleet-track=\"on\" href='https://a.test/1'>", "https://a.test/1"),
        ] {
            assert_eq!(links(html), [expected], "{html}");
        }
        let long = format!("<a href=\"https://a.test/{}\">", "x".repeat(LONGEST_LINK));
        for html in [
            "<a href='mailto:a@example.com'>",
            "<a href='tel:+123'>",
            "<a href='#top'>",
            "<a href='/path'>",
            "<a href='//a.test/'>",
            "<a href='https://'>",
            "<a href='https:///a.test'>",
            "<a href='javascript:alert(1)//https://a.test'>",
            "<a href>",
            "<a name='https://a.test/'>",
            "<!-- <a href='https://a.test/'> -->",
            "<script>'<a href=\"https://a.test/\">'</script>",
            "<style><a href='https://a.test/'></style>",
            "<textarea><a href='https://a.test/'></textarea>",
            "<img src='https://a.test/'><link href='https://a.test/'><form action='https://a.test/'>",
            "<a href='https://a.test/a\nb'>",
            "<a data-mailfleet-track='OFF' href='https://a.test/'>",
            long.as_str(),
        ] {
            assert_eq!(links(html), Vec::<String>::new(), "{html}");
        }
    }

    #[test]
    fn the_mark_goes_with_its_quotes_and_leaves_its_neighbours_apart() {
        for (html, left) in [
            ("<a data-mailfleet-track=\"off\" href=x>", "<a href=x>"),
            ("<a href=x\n  data-mailfleet-track='off'>", "<a href=x>"),
            ("<a href=x data-mailfleet-track=off >", "<a href=x >"),
            ("<a data-mailfleet-track href=x>", "<a href=x>"),
            ("<a title=\"t\" data-mailfleet-track=\"off\"href=x>", "<a title=\"t\" href=x>"),
        ] {
            let [Spot::Mark(at)] = &Spots::of(html).spots[..] else { panic!("{html}") };
            assert_eq!(format!("{}{}", &html[..at.start], &html[at.end..]), left);
        }
    }

    #[test]
    fn the_body_is_where_its_tags_are() {
        let html = "<html><body class=x><p></p><!-- </body> --></body></html>";
        let Spots { body, end, .. } = Spots::of(html);
        assert_eq!((&html[body..body + 3], &html[end..]), ("<p>", "</body></html>"));
        let html = "<p>no body</p>\n";
        let Spots { body, end, .. } = Spots::of(html);
        assert_eq!((body, end), (0, html.len()));
        let html = "<body><p>not closed";
        let Spots { body, end, .. } = Spots::of(html);
        assert_eq!((body, end), (6, html.len()));
    }

    #[test]
    fn hosts_are_told_as_they_are_written() {
        for (url, host) in [
            ("https://a.test", "a.test"),
            ("https://a.test:8443/x", "a.test"),
            ("https://u:p@a.test?x", "a.test"),
            ("http://[::1]:80/", "[::1]"),
            ("http://[::1]", "[::1]"),
        ] {
            assert_eq!(host_of(url), Some(host));
        }
    }
}
