//! The environment. Services read configuration, not this; it is for the command's own few variables.

/// The value of an environment variable; `None` when it is absent, empty or not Unicode.
#[expect(clippy::disallowed_methods, reason = "this crate is the one reader of the environment")]
pub fn var(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Every variable whose name and value are Unicode.
#[expect(clippy::disallowed_methods, reason = "this crate is the one reader of the environment")]
pub(crate) fn all() -> Vec<(String, String)> {
    let unicode = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    std::env::vars_os().filter_map(unicode).collect()
}
