//! Tags and metadata: what callers call their mails.

use super::{Violation, text::is_forbidden};
use std::collections::BTreeMap;

/// Most tags of a message.
pub const MAX_TAGS: usize = 10;
/// Most entries of a message's metadata.
pub const MAX_ENTRIES: usize = 20;
/// Longest tag or key, in characters.
pub const MAX_WORD: usize = 64;
/// Longest value, in characters.
pub const MAX_VALUE: usize = 500;

/// Whether a text can be a tag or a key.
fn is_word(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte);
    (1..=MAX_WORD).contains(&text.len()) && text.bytes().all(plain)
}

/// A tag that a list or a stream is narrowed to; `None` when empty.
///
/// # Errors
/// The fault.
pub fn tag(field: &str, text: &str) -> Result<Option<String>, Violation> {
    match text {
        "" => Ok(None),
        text if is_word(text) => Ok(Some(text.to_owned())),
        _ => Err(Violation::new(field, no_word("tag"))),
    }
}

fn no_word(what: &str) -> String {
    format!("is no {what}; give 1 to {MAX_WORD} characters of a-z, A-Z, 0-9, dot, underscore, colon and hyphen")
}

/// Tags beside those that the mail has; each once.
///
/// # Errors
/// The first fault.
pub fn tags(field: &str, given: Vec<String>, shared: &[String]) -> Result<Vec<String>, Violation> {
    let mut tags: Vec<String> = Vec::with_capacity(given.len());
    for (at, tag) in given.into_iter().enumerate() {
        if !is_word(&tag) {
            return Err(Violation::new(format!("{field}[{at}]"), no_word("tag")));
        }
        if !tags.contains(&tag) && !shared.contains(&tag) {
            tags.push(tag);
        }
        if tags.len() + shared.len() > MAX_TAGS {
            return Err(Violation::new(field, format!("has too many different tags; give at most {MAX_TAGS} in all")));
        }
    }
    Ok(tags)
}

/// Metadata beside that of the mail.
///
/// # Errors
/// The first fault.
pub fn metadata(
    field: &str,
    given: BTreeMap<String, String>,
    shared: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, Violation> {
    let new = given.keys().filter(|key| !shared.contains_key(*key)).count();
    if new + shared.len() > MAX_ENTRIES {
        return Err(Violation::new(field, format!("has too many entries; give at most {MAX_ENTRIES} in all")));
    }
    for (at, (key, value)) in given.iter().enumerate() {
        if !is_word(key) {
            // Not by its name: it may be anything.
            return Err(Violation::new(
                field,
                format!("has a key, number {} in their order, that {}", at + 1, no_word("key")),
            ));
        }
        if value.chars().count() > MAX_VALUE || value.chars().any(is_forbidden) {
            let text = format!(
                "is too long or has a control or direction-changing character; give one line of at most {MAX_VALUE} characters"
            );
            return Err(Violation::new(format!("{field}[{key}]"), text));
        }
    }
    Ok(given)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
        entries.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn words(count: usize) -> Vec<String> {
        (0..count).map(|index| format!("t{index}")).collect()
    }

    #[test]
    fn tags_are_plain_few_and_told_once() {
        let shared = vec!["a".to_owned()];
        let given = ["b", "a", "b"].map(str::to_owned).to_vec();
        assert_eq!(tags("tags", given, &shared), Ok(vec!["b".to_owned()]));
        for bad in ["", "a b", "a\r\nb", "\u{e4}", &"x".repeat(65)] {
            let fault = tags("tags", vec!["ok".to_owned(), bad.to_owned()], &[]).expect_err(bad);
            assert_eq!(fault.field, "tags[1]");
        }
        assert!(tags("tags", words(10), &[]).is_ok());
        assert!(tags("tags", words(10), &shared).is_err());
    }

    #[test]
    fn metadata_is_bounded_and_of_one_line() {
        assert!(metadata("m", map(&[("order", "17 / a \u{e4}")]), &map(&[])).is_ok());
        assert_eq!(metadata("m", map(&[("a b", "x")]), &map(&[])).expect_err("bad key").field, "m");
        for bad in ["a\nb", "a\0b", "a\u{202e}b", &"x".repeat(501)] {
            assert_eq!(metadata("m", map(&[("k", bad)]), &map(&[])).expect_err(bad).field, "m[k]");
        }
        let many: BTreeMap<_, _> = words(20).into_iter().map(|key| (key, String::new())).collect();
        assert!(metadata("m", many.clone(), &map(&[])).is_ok());
        assert!(metadata("m", map(&[("t3", "x")]), &many).is_ok(), "instead of one");
        assert!(metadata("m", map(&[("other", "x")]), &many).is_err());
    }
}
