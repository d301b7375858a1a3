//! The text part made from HTML.
//!
//! Done once per content, on the template: the tags survive, so rendering a recipient's text costs no HTML
//! parsing. Mails lay out with tables, so tables are read as blocks, and links stand where they are used
//! instead of in footnotes, which a loop's variables would not reach.

use crate::markup::Protected;
use html2text::config;
use html2text::render::TextDecorator;
use lol_html::html_content::ContentType;
use lol_html::{RewriteStrSettings, doc_comments, element, rewrite_str};

/// Lines are left to the reader's program to wrap: a wrapped address is a broken one.
const WIDTH: usize = 100_000;

/// Why no text could be made.
pub(crate) struct NoText;

/// The text of an HTML template, with its tags in place; empty when there is none to read.
pub(crate) fn text_of(html: &Protected) -> Result<String, NoText> {
    let flat = flatten(&html.as_words(&html.text)).map_err(|_| NoText)?;
    let text = config::with_decorator(Reader::default())
        .allow_width_overflow()
        .raw_mode(true)
        .string_from_read(flat.as_bytes(), WIDTH)
        .map_err(|_| NoText)?;
    Ok(html.restore_text(&tidy(&text)))
}

/// Leaves what is to be read, without tables.
fn flatten(html: &str) -> Result<String, lol_html::errors::RewritingError> {
    let handlers = vec![
        element!("head, style, script, template, title", |e| {
            e.remove();
            Ok(())
        }),
        element!("[hidden], [style*='display:none'], [style*='display: none']", |e| {
            e.remove();
            Ok(())
        }),
        element!("table, thead, tbody, tfoot, tr, center", |e| {
            e.set_tag_name("div")?;
            Ok(())
        }),
        element!("td, th", |e| {
            e.set_tag_name("span")?;
            e.after(" ", ContentType::Text);
            Ok(())
        }),
        element!("hr", |e| {
            e.replace("<p>---</p>", ContentType::Html);
            Ok(())
        }),
    ];
    let settings =
        handlers.into_iter().fold(RewriteStrSettings::new(), RewriteStrSettings::append_element_content_handler);
    let settings = settings.append_document_content_handler(doc_comments!(|c| {
        c.remove();
        Ok(())
    }));
    rewrite_str(html, settings)
}

/// Trims lines, allows one empty line in a row, and says an address once where it is its own label.
fn tidy(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut empty = 0;
    for line in text.lines() {
        let line = line.split_whitespace().collect::<Vec<_>>().join(" ");
        if line.is_empty() {
            empty += 1;
            continue;
        }
        if empty > 0 && !out.is_empty() {
            out.push('\n');
        }
        empty = 0;
        out.push_str(&once(&line));
        out.push('\n');
    }
    out
}

/// `https://a (https://a)` becomes `https://a`.
fn once(line: &str) -> String {
    let words: Vec<&str> = line.split(' ').collect();
    let mut out: Vec<&str> = Vec::with_capacity(words.len());
    for word in words {
        let inner = word.strip_prefix('(').and_then(|word| word.strip_suffix(')'));
        if inner.is_some_and(|inner| out.last() == Some(&inner)) {
            continue;
        }
        out.push(word);
    }
    out.join(" ")
}

#[derive(Clone, Default)]
struct Reader {
    links: Vec<String>,
}

impl TextDecorator for Reader {
    type Annotation = ();

    fn decorate_link_start(&mut self, url: &str) -> (String, ()) {
        self.links.push(url.trim().to_owned());
        (String::new(), ())
    }

    fn decorate_link_end(&mut self) -> String {
        match self.links.pop() {
            Some(url) if !url.is_empty() && !url.starts_with('#') && !url.starts_with("mailto:") => format!(" ({url})"),
            _ => String::new(),
        }
    }

    fn decorate_em_start(&self) -> (String, ()) {
        (String::new(), ())
    }

    fn decorate_em_end(&self) -> String {
        String::new()
    }

    fn decorate_strong_start(&self) -> (String, ()) {
        (String::new(), ())
    }

    fn decorate_strong_end(&self) -> String {
        String::new()
    }

    fn decorate_strikeout_start(&self) -> (String, ()) {
        (String::new(), ())
    }

    fn decorate_strikeout_end(&self) -> String {
        String::new()
    }

    fn decorate_code_start(&self) -> (String, ()) {
        (String::new(), ())
    }

    fn decorate_code_end(&self) -> String {
        String::new()
    }

    fn decorate_preformat_first(&self) {}

    fn decorate_preformat_cont(&self) {}

    fn decorate_image(&mut self, _src: &str, title: &str) -> (String, ()) {
        (title.to_owned(), ())
    }

    fn header_prefix(&self, _level: usize) -> String {
        String::new()
    }

    fn quote_prefix(&self) -> String {
        "> ".to_owned()
    }

    fn unordered_item_prefix(&self) -> String {
        "- ".to_owned()
    }

    fn ordered_item_prefix(&self, i: i64) -> String {
        format!("{i}. ")
    }

    fn make_subblock_decorator(&self) -> Self {
        self.clone()
    }

    fn decorate_superscript_start(&self) -> (String, ()) {
        (String::new(), ())
    }

    fn decorate_superscript_end(&self) -> String {
        String::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::markup::protect;

    fn text(html: &str) -> String {
        text_of(&protect(html)).ok().unwrap()
    }

    #[test]
    fn loops_in_tables_stay_around_their_rows() {
        let html =
            "<table>{% for x in xs %}<tr><td>{{ x.a }}</td><td>{{ x.b }}</td></tr>{% endfor %}</table><p>End</p>";
        assert_eq!(text(html), "{% for x in xs %}{{ x.a }} {{ x.b }}\n{% endfor %}\nEnd\n");
    }

    #[test]
    fn links_stand_where_they_are_used() {
        assert_eq!(text("<p>See <a href='{{ url }}'>the offer</a> now</p>"), "See the offer ({{ url }}) now\n");
        assert_eq!(text("<a href='https://a.test/x'>https://a.test/x</a>"), "https://a.test/x\n");
    }

    #[test]
    fn what_is_not_shown_is_not_read() {
        let html = "<head><title>T</title><style>p{}</style></head><body><div style='display:none'>pre</div>\
                    <!-- no --><p>Hi &amp; bye &#123;&#123; x</p><ul><li>one<li>two</ul><img alt='Logo' src='l.png'></body>";
        assert_eq!(text(html), "Hi & bye {{ '{' }}{ x\n- one\n- two\n\nLogo\n");
    }
}
