//! Values that are never shown.

use serde::{Deserialize, Serialize, Serializer};
use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
};

/// Largest secret that is read, in bytes.
const MAX_SECRET: u64 = 64 * 1024;

/// A secret that is kept in a file. The path is shown, what it holds is not.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SecretFile(PathBuf);

/// A secret cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the secret in {path}")]
pub struct SecretError {
    path: PathBuf,
    source: io::Error,
}

impl SecretFile {
    /// The secret in this file.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Where it is kept.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Reads it, without white space at its end.
    ///
    /// # Errors
    /// When the file cannot be read, is not UTF-8, or is too large for a secret.
    pub fn read(&self) -> Result<String, SecretError> {
        let here = |source| SecretError { path: self.0.clone(), source };
        if fs::metadata(&self.0).map_err(here)?.len() > MAX_SECRET {
            return Err(here(io::Error::other("is too large for a secret")));
        }
        let mut text = fs::read_to_string(&self.0).map_err(here)?;
        text.truncate(text.trim_end().len());
        Ok(text)
    }
}

impl fmt::Debug for SecretFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretFile({})", self.0.display())
    }
}

/// A URL that may hold a password. Shown without what stands before its `@` and without its query.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct SecretUrl(String);

impl SecretUrl {
    /// A URL.
    pub fn new(url: impl Into<String>) -> Self {
        Self(url.into())
    }

    /// The whole URL, to connect with.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (base, query) = self.0.split_once('?').map_or((self.0.as_str(), ""), |(base, _)| (base, "?***"));
        match (base.split_once("://"), base.rsplit_once('@')) {
            (Some((scheme, _)), Some((_, host))) => write!(f, "{scheme}://***@{host}{query}"),
            (Some(_), None) => write!(f, "{base}{query}"),
            // Not a URL; it may be anything.
            (None, _) => f.write_str("***"),
        }
    }
}

impl fmt::Debug for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for SecretUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_shown_without_its_password() {
        for (url, shown) in [
            ("postgres://me:secret@db:5432/mail", "postgres://***@db:5432/mail"),
            ("postgres://db/mail?password=secret", "postgres://db/mail?***"),
            ("postgres://me:se@cret@db/mail", "postgres://***@db/mail"),
            ("host=db password=secret", "***"),
        ] {
            assert_eq!(SecretUrl::new(url).to_string(), shown);
        }
    }

    #[test]
    fn a_secret_is_read_without_its_line_end() {
        let path = std::env::temp_dir().join(format!("mailfleet-secret-{}", std::process::id()));
        fs::write(&path, "hush\n").expect("writes");
        let secret = SecretFile::new(&path);
        assert_eq!(secret.read().expect("reads"), "hush");
        assert!(!format!("{secret:?}").contains("hush"));
        fs::remove_file(&path).expect("removes");
        assert!(secret.read().is_err());
    }
}
