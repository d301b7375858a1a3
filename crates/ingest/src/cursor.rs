//! Pages of lists: how long they are, and where the next one begins.
//!
//! A token names the last entry of its page, so a page costs the same wherever it lies, and entries that come or go
//! meanwhile neither repeat nor hide others. What it holds is nobody's business: callers give back what they got.

use crate::validate::Violation;
use std::fmt::Write;

/// Entries of a page whose size is left open.
const DEFAULT_SIZE: u32 = 100;
/// Longest token.
const MAX_TOKEN: usize = 1_000;
/// Stands between the parts of a token, none of which holds it.
const JOINT: char = '\n';

/// The size of a page.
///
/// # Errors
/// When it is above `most`.
pub fn size(given: u32, most: u32) -> Result<u32, Violation> {
    match given {
        0 => Ok(DEFAULT_SIZE.min(most)),
        given if given <= most => Ok(given),
        _ => Err(Violation::new("page_size", format!("is too large; give 1 to {most}, or 0 for {DEFAULT_SIZE}"))),
    }
}

/// What a token tells of the entry before the page; `None` for the first page.
///
/// # Errors
/// When it is no token of this list.
pub fn place<T>(token: &str, read: impl Fn(&[&str]) -> Option<T>) -> Result<Option<T>, Violation> {
    if token.is_empty() {
        return Ok(None);
    }
    let fault = || Violation::new("page_token", "is no token of this list; give the next_page_token of its last page");
    let text = decode(token).ok_or_else(fault)?;
    let parts: Vec<&str> = text.split(JOINT).collect();
    read(&parts).map(Some).ok_or_else(fault)
}

/// Cuts what was fetched, one more than a page holds, to the page, and makes the token of the next one; empty when this
/// is the last.
pub fn cut<T>(entries: &mut Vec<T>, size: u32, place: impl Fn(&T) -> Vec<String>) -> String {
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    if entries.len() <= size {
        return String::new();
    }
    entries.truncate(size);
    entries.last().map_or_else(String::new, |last| encode(&place(last).join(&JOINT.to_string())))
}

fn encode(text: &str) -> String {
    text.bytes().fold(String::with_capacity(2 * text.len()), |mut token, byte| {
        write!(token, "{byte:02x}").expect("a string takes all that is written");
        token
    })
}

fn decode(token: &str) -> Option<String> {
    if token.len() > MAX_TOKEN || !token.len().is_multiple_of(2) || !token.bytes().all(|byte| byte.is_ascii_hexdigit())
    {
        return None;
    }
    let octet = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let text = String::from_utf8(token.as_bytes().chunks_exact(2).map(octet).collect::<Option<Vec<u8>>>()?).ok()?;
    // Postgres takes no NUL in a text.
    (!text.contains('\0')).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_leads_to_the_entry_after_its_page() {
        let mut entries = vec!["a", "b", "c"];
        let token = cut(&mut entries, 2, |entry| vec![(*entry).to_owned(), "7".to_owned()]);
        assert_eq!(entries, ["a", "b"]);
        let found = place(&token, |parts| Some((parts.first()?.to_string(), parts.get(1)?.parse::<i64>().ok()?)));
        assert_eq!(found, Ok(Some(("b".to_owned(), 7))));
        assert_eq!(cut(&mut entries, 2, |entry| vec![(*entry).to_owned()]), "");
        assert_eq!(place("", |_| Some(())), Ok(None));
    }

    #[test]
    fn what_is_no_token_is_refused() {
        for bad in ["x", "abc", "zz", "ff", "é", &"0".repeat(2_000)] {
            assert!(place(bad, |parts| parts.first()?.parse::<i64>().ok()).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_page_has_a_most() {
        assert_eq!((size(0, 1_000), size(1_000, 1_000), size(0, 50)), (Ok(100), Ok(1_000), Ok(50)));
        assert!(size(1_001, 1_000).is_err());
    }
}
