//! The templates of a tenant that a template version takes in: its layout, what it includes, and theirs.
//!
//! A published version names others by name, or by `name@version`. Which versions these are is settled when it is
//! published and kept beside it, so that a version means the same for ever, also as a part of another.

use crate::VersionSource;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::fmt;

/// Longest name of a template, in characters.
const MAX_NAME: usize = 100;

/// How a template names another: `footer`, or `footer@3`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    /// The template's name.
    pub name: String,
    /// Its version; `None`: the newest one when this is published.
    pub version: Option<u32>,
}

impl Reference {
    /// Reads a reference; `None` when it names nothing that could be published.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (name, version) = match text.split_once('@') {
            None => (text, None),
            Some((name, version)) => (name, Some(version.parse().ok().filter(|version| *version > 0)?)),
        };
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        let is_name = !name.is_empty() && name.len() <= MAX_NAME && name.bytes().all(plain);
        is_name.then(|| Self { name: name.to_owned(), version })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.version {
            Some(version) => write!(f, "{}@{version}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

/// The versions that the references of one version stand for, by reference as it is written.
pub type Pins = BTreeMap<String, u32>;

/// A version that another one takes in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Included {
    /// The template's name.
    pub name: String,
    /// Its version.
    pub version: u32,
}

/// A published version as an ingredient of others.
#[derive(Clone, Debug)]
pub struct Ingredient {
    /// The number of its template's newest version.
    pub latest: u32,
    /// What it was published from.
    pub source: VersionSource,
    /// What its own references stand for.
    pub pins: Pins,
}

/// All versions that one template may take in, loaded beforehand.
#[derive(Clone, Debug, Default)]
pub struct Library {
    /// The name of the template that is being published, if it has one: what includes it is a circle.
    pub of: Option<String>,
    /// What the references of the template that is being published stand for.
    pub pins: Pins,
    /// The versions, by name and number.
    pub versions: HashMap<(String, u32), Ingredient>,
}

impl Library {
    /// What a reference stands for, with its version; `pins` are of the version that makes it.
    pub(crate) fn resolve(&self, pins: &Pins, reference: &Reference) -> Option<(u32, &Ingredient)> {
        let version = reference.version.or_else(|| pins.get(&reference.to_string()).copied())?;
        let found = self.versions.get(&(reference.name.clone(), version))?;
        Some((version, found))
    }
}
