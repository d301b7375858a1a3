//! Pages of lists: how long they are, and where the next one begins.
//!
//! A token names the last entry of its page, so a page costs the same wherever it lies, and entries that come or go
//! meanwhile neither repeat nor hide others. What it holds is nobody's business: callers give back what they got. It is
//! bound to its list, whose that is, and its filters.

use crate::validate::Violation;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use domain::TenantId;
use prost::Message;
use proto::v1::ErrorReason;
use sha2::{Digest, Sha256};

/// Entries of a page whose size is left open.
const DEFAULT_SIZE: u32 = 100;
/// Longest token.
pub const MAX_TOKEN: usize = 1_000;
/// Stands between the parts of a token, none of which holds it.
const JOINT: &str = "\n";

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

/// A list as one call asks for it.
pub struct List {
    digest: String,
}

impl List {
    /// `filters`: the request without the size and the token of its page; `()` where there are none.
    pub fn of(name: &str, tenant: Option<TenantId>, filters: &impl Message) -> Self {
        let mut hash = Sha256::new();
        hash.update(name.as_bytes());
        hash.update([0]);
        hash.update(tenant.map(|tenant| tenant.as_uuid()).unwrap_or_default().as_bytes());
        hash.update(filters.encode_to_vec());
        Self { digest: BASE64_URL_SAFE_NO_PAD.encode(&hash.finalize()[..8]) }
    }

    /// What a token tells of the entry before its page; `None` for the first page.
    ///
    /// # Errors
    /// When it is no token of this list.
    pub fn place<T>(&self, token: &str, read: impl Fn(&[&str]) -> Option<T>) -> Result<Option<T>, Violation> {
        if token.is_empty() {
            return Ok(None);
        }
        let told = || {
            let token = Some(token).filter(|token| token.len() <= MAX_TOKEN)?;
            // Postgres takes no NUL in a text.
            let text = String::from_utf8(BASE64_URL_SAFE_NO_PAD.decode(token).ok()?).ok()?;
            let text = Some(text).filter(|text| !text.contains('\0'))?;
            let (list, parts) = text.split_once(JOINT)?;
            let parts: Vec<&str> = parts.split(JOINT).collect();
            if list == self.digest { read(&parts) } else { None }
        };
        told().map(Some).ok_or_else(|| {
            let text = "is no token of this list with these filters; give next_page_token of the page before, or none";
            Violation::of(ErrorReason::PageTokenInvalid, "page_token", text)
        })
    }

    /// The token of the page after this entry.
    pub fn token(&self, place: &[String]) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(format!("{}{JOINT}{}", self.digest, place.join(JOINT)))
    }

    /// Cuts what was fetched, one more than a page holds, to the page, and makes the token of the next one; empty when
    /// this is the last.
    pub fn cut<T>(&self, entries: &mut Vec<T>, size: u32, place: impl Fn(&T) -> Vec<String>) -> String {
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        if entries.len() <= size {
            return String::new();
        }
        entries.truncate(size);
        entries.last().map_or_else(String::new, |last| self.token(&place(last)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::v1::ListMessagesRequest;

    fn list() -> List {
        List::of("names", None, &())
    }

    #[test]
    fn a_token_leads_to_the_entry_after_its_page() {
        let mut entries = vec!["a", "b", "c"];
        let token = list().cut(&mut entries, 2, |entry| vec![(*entry).to_owned(), "7".to_owned()]);
        assert_eq!(entries, ["a", "b"]);
        let read = |parts: &[&str]| Some((parts.first()?.to_string(), parts.get(1)?.parse::<i64>().ok()?));
        assert_eq!(list().place(&token, read), Ok(Some(("b".to_owned(), 7))));
        assert_eq!(list().cut(&mut entries, 2, |entry| vec![(*entry).to_owned()]), "");
        assert_eq!(list().place("", |_| Some(())), Ok(None));
    }

    #[test]
    fn a_token_is_good_for_its_own_list_alone() {
        let tenant = TenantId::new(chrono::DateTime::UNIX_EPOCH);
        let tagged = |tag: &str| ListMessagesRequest { tag: tag.to_owned(), ..Default::default() };
        let own = || List::of("messages", Some(tenant), &tagged("a"));
        let token = own().token(&["7".to_owned()]);
        let read = |parts: &[&str]| parts.first()?.parse::<i64>().ok();
        assert_eq!(own().place(&token, read), Ok(Some(7)));
        let another = TenantId::new(chrono::DateTime::UNIX_EPOCH);
        for other in [
            List::of("messages", Some(tenant), &tagged("b")),
            List::of("messages", Some(another), &tagged("a")),
            List::of("messages", None, &tagged("a")),
            List::of("letters", Some(tenant), &tagged("a")),
        ] {
            assert_eq!(other.place(&token, read).expect_err("another list").reason, ErrorReason::PageTokenInvalid);
        }
    }

    #[test]
    fn what_is_no_token_is_refused() {
        let nul = list().token(&["a\0b".to_owned()]);
        let word = list().token(&["a".to_owned()]);
        for bad in ["x", "abc", "zz", "ff", "é", "%%%", &word[1..], &nul, &"0".repeat(2_000)] {
            assert!(list().place(bad, |parts| Some(parts.first()?.len())).is_err(), "{bad}");
        }
        assert!(list().place(&word, |parts| parts.first()?.parse::<i64>().ok()).is_err());
    }

    #[test]
    fn a_page_has_a_most() {
        assert_eq!((size(0, 1_000), size(1_000, 1_000), size(0, 50)), (Ok(100), Ok(1_000), Ok(50)));
        assert!(size(1_001, 1_000).is_err());
    }
}
