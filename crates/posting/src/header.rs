//! Fields of a request that decide something: each exactly once, as visible text.

use http::HeaderMap;

/// Why a field cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// It is not there.
    Missing,
    /// It is there more than once, or holds other than visible ASCII: two readers could take it for two things.
    Ambiguous,
}

/// The value of the one field of this name.
pub fn only<'a>(headers: &'a HeaderMap, name: &str) -> Result<&'a str, Unusable> {
    let mut all = headers.get_all(name).iter();
    let first = all.next().ok_or(Unusable::Missing)?;
    if all.next().is_some() {
        return Err(Unusable::Ambiguous);
    }
    first.to_str().map_err(|_| Unusable::Ambiguous)
}
