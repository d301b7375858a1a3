//! Page tokens: where the next page of a list begins, in a form that callers give back and do not read.

use crate::validate::Violation;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};

/// Entries of a page when the call names no number.
const DEFAULT_SIZE: u32 = 100;
/// Most entries of a page.
const MAX_SIZE: u32 = 1_000;

/// How many entries a page is to have.
///
/// # Errors
/// The fault.
pub fn size(field: &str, given: u32) -> Result<u32, Violation> {
    match given {
        0 => Ok(DEFAULT_SIZE),
        1..=MAX_SIZE => Ok(given),
        _ => Err(Violation::new(field, format!("is too large; give at most {MAX_SIZE}, or 0 for {DEFAULT_SIZE}"))),
    }
}

/// The token for what follows `last` in the list `list`.
pub fn token(list: &str, last: &str) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(format!("{list}\n{last}"))
}

/// What the page of a token follows; `None` for the first page.
///
/// # Errors
/// When it is no token of this list.
pub fn after(field: &str, list: &str, token: &str) -> Result<Option<String>, Violation> {
    if token.is_empty() {
        return Ok(None);
    }
    let text = BASE64_URL_SAFE_NO_PAD.decode(token).ok().and_then(|octets| String::from_utf8(octets).ok());
    let last = text.as_deref().and_then(|text| text.split_once('\n')).filter(|(of, _)| *of == list);
    let last = last.map(|(_, last)| last).filter(|last| !last.contains('\0'));
    let fault = || Violation::new(field, "is not a token of this list; give one as an answer wrote it, or none");
    last.map(|last| Some(last.to_owned())).ok_or_else(fault)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_goes_back_to_where_it_came_from_and_nowhere_else() {
        let made = token("templates", "welcome");
        assert_eq!(after("t", "templates", &made), Ok(Some("welcome".to_owned())));
        assert_eq!(after("t", "templates", ""), Ok(None));
        for bad in [made.as_str(), "welcome", "%%%", &token("others", "a\0b")] {
            assert!(after("t", "others", bad).is_err(), "{bad}");
        }
        assert_eq!((size("s", 0), size("s", 7)), (Ok(100), Ok(7)));
        assert!(size("s", 1_001).is_err());
    }
}
