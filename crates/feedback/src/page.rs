//! The pages on which a recipient says that he wants no more mail. They need no scripts and nothing from elsewhere, and
//! work on a phone. Their words are data: `pages/LANGUAGE.toml`.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::sync::LazyLock;

/// The looks of every page: its own alone, since its hash stands in the policy.
const STYLE: &str = "\
:root{color-scheme:light dark}\
body{margin:0;font:1.125rem/1.5 system-ui,sans-serif;background:Canvas;color:CanvasText}\
main{max-width:32rem;margin:0 auto;padding:15vh 1.25rem 2rem;overflow-wrap:anywhere}\
h1{font-size:1.5rem;line-height:1.25;margin:0 0 .75rem}\
p{margin:0 0 1.5rem}\
button{font:inherit;font-weight:600;min-height:3rem;padding:.5rem 1.5rem;width:100%;border:0;border-radius:.5rem;\
background:#0b57d0;color:#fff;cursor:pointer}\
button.quiet{background:transparent;color:inherit;border:1px solid currentColor}\
button:focus-visible{outline:3px solid #f29900;outline-offset:2px}\
@media(min-width:40rem){button{width:auto}}";

static POLICY: LazyLock<String> = LazyLock::new(|| {
    let hash = STANDARD.encode(Sha256::digest(STYLE));
    format!(
        "default-src 'none'; style-src 'sha256-{hash}'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )
});

static WORDS: LazyLock<Vec<(Language, Words)>> = LazyLock::new(|| {
    let read = |(language, text): (Language, &str)| {
        #[expect(clippy::expect_used, reason = "a constant, which a test reads as well")]
        (language, toml::from_str(text).expect("the words of a language are whole"))
    };
    [(Language::English, include_str!("../pages/en.toml")), (Language::Chinese, include_str!("../pages/zh.toml"))]
        .map(read)
        .into()
});

/// A language that the pages speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// English: for whoever reads none of the others.
    English,
    /// Chinese.
    Chinese,
}

impl Language {
    const ALL: [Self; 2] = [Self::English, Self::Chinese];

    /// As in `lang`, and the first part of the tags that it is for (RFC 5646).
    const fn tag(self) -> &'static str {
        match self {
            Self::English => "en",
            Self::Chinese => "zh",
        }
    }
}

/// A page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page<'a> {
    /// Asks whether no more mail is wanted, at an address that is mostly hidden.
    Ask {
        /// The address; `None` when it cannot be told now.
        address: Option<&'a str>,
    },
    /// No more mail will come.
    Done,
    /// Mail will come again.
    Back,
    /// The link is none of ours.
    Unknown,
    /// Nothing can be kept now.
    Later,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Words {
    ask_title: String,
    ask_text: String,
    ask_text_nameless: String,
    ask_button: String,
    done_title: String,
    done_text: String,
    done_button: String,
    back_title: String,
    back_text: String,
    unknown_title: String,
    unknown_text: String,
    later_title: String,
    later_text: String,
    later_button: String,
}

/// The language of the pages for whoever accepts these (RFC 9110, 12.5.4): the one that he likes best.
pub fn language(accept: &str) -> Language {
    let mut best = (Language::English, 0.0_f32);
    for range in accept.split(',').take(30) {
        let mut parts = range.split(';');
        let tag = parts.next().unwrap_or("").trim().to_ascii_lowercase();
        let quality = parts.find_map(|part| part.trim().strip_prefix("q=")).map_or(Ok(1.0), str::parse);
        let Ok(quality) = quality else { continue };
        let fits = Language::ALL.into_iter().find(|language| tag.split('-').next() == Some(language.tag()));
        if let Some(language) = fits.filter(|_| quality > best.1) {
            best = (language, quality);
        }
    }
    best.0
}

/// The policy under which every page is shown: nothing is loaded, no script runs, forms go back here.
pub fn content_security_policy() -> &'static str {
    &POLICY
}

/// A page in a language.
pub fn render(page: Page<'_>, language: Language) -> String {
    let words = WORDS.iter().find(|(one, _)| *one == language).or(WORDS.first()).map(|(_, words)| words);
    let Some(words) = words else { return String::new() };
    // The button, the word that its form says, and whether it is the page's main business.
    let (title, text, button) = match page {
        Page::Ask { address } => {
            let text = match address {
                Some(address) => words.ask_text.replace("{address}", address),
                None => words.ask_text_nameless.clone(),
            };
            (&words.ask_title, text, Some((&words.ask_button, "unsubscribe", true)))
        }
        Page::Done => (&words.done_title, words.done_text.clone(), Some((&words.done_button, "resubscribe", false))),
        Page::Back => (&words.back_title, words.back_text.clone(), None),
        Page::Unknown => (&words.unknown_title, words.unknown_text.clone(), None),
        Page::Later => (&words.later_title, words.later_text.clone(), Some((&words.later_button, "unsubscribe", true))),
    };
    let form = button.map_or_else(String::new, |(button, action, main)| {
        let class = if main { "" } else { " class=\"quiet\"" };
        format!(
            "<form method=\"post\"><button{class} name=\"action\" value=\"{action}\">{}</button></form>",
            escaped(button)
        )
    });
    format!(
        "<!doctype html><html lang=\"{tag}\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\"><meta name=\"robots\" content=\"noindex\">\
         <title>{title}</title><style>{STYLE}</style></head><body><main><h1>{title}</h1><p>{text}</p>{form}</main></body></html>",
        tag = language.tag(),
        title = escaped(title),
        text = escaped(&text),
    )
}

fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            c => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_language_has_every_word() {
        for (language, text) in [
            (Language::English, include_str!("../pages/en.toml")),
            (Language::Chinese, include_str!("../pages/zh.toml")),
        ] {
            let words: Result<Words, _> = toml::from_str(text);
            assert!(words.is_ok_and(|words| words.ask_text.contains("{address}")), "{language:?}");
        }
        assert_eq!(WORDS.len(), Language::ALL.len());
    }

    #[test]
    fn the_language_that_is_liked_best_is_taken() {
        for (accept, expected) in [
            ("", Language::English),
            ("zh-CN,zh;q=0.9,en;q=0.8", Language::Chinese),
            ("en;q=0.5, zh-Hant;q=0.7", Language::Chinese),
            ("de, en;q=0.5", Language::English),
            ("zh;q=0", Language::English),
            ("zh;q=x, en", Language::English),
        ] {
            assert_eq!(language(accept), expected, "{accept}");
        }
    }

    #[test]
    fn what_a_page_is_told_cannot_add_to_it() {
        let address = Some("<script>alert(1)</script>\"'@example.com");
        let html = render(Page::Ask { address }, Language::English);
        assert!(html.contains("&lt;script&gt;") && !html.contains("<script"), "{html}");
        assert!(html.contains("value=\"unsubscribe\""));
        let policy = content_security_policy();
        assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    }
}
