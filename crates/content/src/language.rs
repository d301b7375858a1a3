//! Languages of recipients and translations: BCP 47 tags, and which translation a recipient gets.

use icu_locale_core::Locale;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Longest tag taken, in octets; what stands in use is far shorter (RFC 5646, 4.4.1).
const MAX_TAG: usize = 35;

/// A language as BCP 47 writes it, in canonical case and without extensions: `de`, `pt-BR`, `zh-Hant-TW`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Language(String);

/// A text that is no language tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not a language tag")]
pub struct LanguageError;

impl Language {
    /// The tag.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The language alone: `pt` of `pt-BR`.
    fn primary(&self) -> &str {
        self.0.split('-').next().unwrap_or(&self.0)
    }
}

impl FromStr for Language {
    type Err = LanguageError;

    fn from_str(text: &str) -> Result<Self, LanguageError> {
        if text.len() > MAX_TAG {
            return Err(LanguageError);
        }
        let id = Locale::try_from_str(text).map_err(|_| LanguageError)?.id;
        if id.language.is_unknown() { Err(LanguageError) } else { Ok(Self(id.to_string())) }
    }
}

impl TryFrom<String> for Language {
    type Error = LanguageError;

    fn try_from(text: String) -> Result<Self, LanguageError> {
        text.parse()
    }
}

impl From<Language> for String {
    fn from(language: Language) -> Self {
        language.0
    }
}

impl fmt::Display for Language {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Language {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Language({})", self.0)
    }
}

/// Which of `translations` a recipient with this language gets; `None`: the version's own parts, which are in `own`
/// where that is known.
///
/// The tag is shortened from its end until something matches (RFC 4647, 3.4). When nothing does, another region's or
/// script's text of the same language is better than a foreign one: the version's own, else the first by tag.
pub fn choose<'a>(
    wanted: &Language,
    own: Option<&Language>,
    translations: impl Iterator<Item = &'a Language> + Clone,
) -> Option<usize> {
    let mut tag = wanted.as_str();
    loop {
        if let Some(found) = translations.clone().position(|language| language.as_str() == tag) {
            return Some(found);
        }
        if own.is_some_and(|own| own.as_str() == tag) {
            return None;
        }
        match tag.rsplit_once('-') {
            Some((shorter, _)) => tag = shorter,
            None => break,
        }
    }
    if own.is_some_and(|own| own.primary() == wanted.primary()) {
        return None;
    }
    let related = translations.enumerate().filter(|(_, language)| language.primary() == wanted.primary());
    related.min_by_key(|(_, language)| *language).map(|(index, _)| index)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(text: &str) -> Language {
        text.parse().unwrap()
    }

    #[test]
    fn tags_are_read_whatever_their_case_and_written_in_one() {
        for (given, told) in
            [("de", "de"), ("PT-br", "pt-BR"), ("zh-hant-tw", "zh-Hant-TW"), ("de-u-co-phonebk", "de"), ("fil", "fil")]
        {
            assert_eq!(tag(given).as_str(), told);
        }
        for bad in ["", "d", "de_DE", "german", "de-", "-de", "und", "de\r\n", "x-klingon", &"de-".repeat(20)] {
            assert!(bad.parse::<Language>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_recipient_gets_the_nearest_translation() {
        let there = [tag("de"), tag("pt-PT"), tag("pt-BR"), tag("zh-Hant")];
        let chosen = |wanted: &str, own: Option<&str>| {
            let own = own.map(tag);
            choose(&tag(wanted), own.as_ref(), there.iter()).map(|index| there[index].as_str())
        };
        assert_eq!(chosen("de-CH-1996", Some("en")), Some("de"));
        assert_eq!(chosen("pt-BR", Some("en")), Some("pt-BR"));
        assert_eq!(chosen("pt-AO", Some("en")), Some("pt-BR"), "the same language, the first by tag");
        assert_eq!(chosen("zh", None), Some("zh-Hant"));
        assert_eq!(chosen("fr", Some("en")), None);
        assert_eq!(chosen("de-AT", Some("de-AT")), None, "the version's own parts match better");
        assert_eq!(chosen("pt-AO", Some("pt-MZ")), None);
        assert_eq!(chosen("en-GB", Some("en")), None);
    }
}
