//! The layers, laid over each other and read.

use crate::env;
use figment::{
    Figment, Profile, Provider,
    error::Kind,
    providers::{Format, Serialized, Toml},
    value::{Dict, Value},
};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    collections::BTreeMap,
    fmt, io,
    path::{Path, PathBuf},
};

/// Before every variable that sets a value.
const PREFIX: &str = "MAILFLEET_";
/// Between section and key in the name of a variable.
const SEPARATOR: &str = "__";
/// Variables that others use too, and what they set when nothing of ours does.
const FALLBACKS: [(&str, &str); 2] = [("DATABASE_URL", "postgres.url"), ("NATS_URL", "nats.url")];
/// Most problems that are listed.
const MAX_PROBLEMS: usize = 50;
/// Every section of the fleet.
const SECTIONS: [&str; 16] = [
    "analytics",
    "console",
    "content",
    "dispatcher",
    "feedback",
    "fleet",
    "http",
    "ingest",
    "local",
    "nats",
    "postgres",
    "renderer",
    "runtime",
    "secrets",
    "sender",
    "telemetry",
];

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not TOML.
    #[error("the configuration file {path} is not TOML: {message}")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and what.
        message: String,
    },
    /// Values that cannot be used, all of them.
    #[error("the configuration is not valid:{}", list(.0))]
    Invalid(Vec<Problem>),
    /// Nothing is wrong; it was only to be checked, and has been shown.
    #[error("the configuration is valid")]
    Checked,
}

impl ConfigError {
    /// A value that a service finds wrong after it was read, such as two that contradict each other.
    pub fn invalid(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Invalid(vec![Problem { key: key.into(), message: message.into(), origin: None }])
    }
}

/// One value that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Its path, `section.key`.
    pub key: String,
    /// What is wrong with it.
    pub message: String,
    /// The variable or the file that it comes from.
    pub origin: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.message)?;
        self.origin.as_ref().map_or(Ok(()), |origin| write!(f, " ({origin})"))
    }
}

fn list(problems: &[Problem]) -> String {
    problems.iter().map(|problem| format!("\n  {problem}")).collect()
}

/// The layers above the defaults in code.
#[derive(Clone, Debug, Default)]
pub struct Layers {
    file: Option<PathBuf>,
    values: Dict,
    /// Which variable set a path.
    origins: BTreeMap<String, String>,
}

impl Layers {
    /// One file and the environment of this process.
    ///
    /// # Errors
    /// When the file cannot be read or is not TOML.
    pub fn load(file: Option<&Path>) -> Result<Self, ConfigError> {
        Self::from_parts(file, &env::all())
    }

    /// One file and these variables, whatever the environment of the process; for tests.
    ///
    /// # Errors
    /// When the file cannot be read or is not TOML.
    pub fn from_parts(file: Option<&Path>, variables: &[(String, String)]) -> Result<Self, ConfigError> {
        let mut figment = Figment::new();
        let mut origins = BTreeMap::new();
        let variable = |name: &str| variables.iter().find(|(key, value)| key == name && !value.is_empty());
        for (name, path) in FALLBACKS {
            if let Some((_, value)) = variable(name) {
                figment = figment.merge(Serialized::default(path, value));
                origins.insert(path.to_owned(), name.to_owned());
            }
        }
        if let Some(path) = file {
            let text =
                std::fs::read_to_string(path).map_err(|source| ConfigError::File { path: path.to_owned(), source })?;
            let syntax =
                |error: &dyn fmt::Display| ConfigError::Syntax { path: path.to_owned(), message: error.to_string() };
            let table: toml::Table = text.parse().map_err(|error: toml::de::Error| syntax(&error))?;
            origins.retain(|path, _| !has(&table, path));
            figment = figment.merge(Toml::string(&text));
        }
        for (name, text) in variables {
            let Some(path) = path_of(name) else { continue };
            let value: Value = text.parse().unwrap_or_else(|never| match never {});
            figment = figment.merge(Serialized::default(&path, value));
            origins.insert(path, name.clone());
        }
        // No provider above can fail: the file has been parsed, and the others are values.
        let values = figment.data().ok().and_then(|mut profiles| profiles.remove(&Profile::Default));
        Ok(Self { file: file.map(Path::to_owned), values: values.unwrap_or_default(), origins })
    }

    /// The configuration of one service: the defaults, overlaid with what its own sections are given. The
    /// fields of `T` are its sections; `T` itself passes over sections, its sections pass over nothing.
    ///
    /// # Errors
    /// With every problem, when there is one.
    pub fn read<T: DeserializeOwned + Default + Serialize>(&self) -> Result<T, ConfigError> {
        let own = sections_of::<T>();
        let mut problems = Vec::new();
        for name in self.values.keys() {
            if !own.contains(name) && !SECTIONS.contains(&name.as_str()) {
                problems.push(self.problem(name.clone(), "is no section of any service".to_owned()));
            }
        }
        let mut values: Dict = self.values.clone();
        values.retain(|name, _| own.contains(name));
        // Reading stops at the first problem. What causes it is taken out, so that its default takes its
        // place, and the rest is read again, until nothing is wrong any more.
        let config = loop {
            let error = match Value::from(values.clone()).deserialize::<T>() {
                Ok(config) => break Some(config),
                Err(error) => error,
            };
            let key = error.path.join(".");
            problems.push(self.problem(key, words(&error.kind)));
            if !remove(&mut values, &error.path) || problems.len() >= MAX_PROBLEMS {
                break None;
            }
        };
        match config {
            Some(config) if problems.is_empty() => Ok(config),
            _ => Err(ConfigError::Invalid(problems)),
        }
    }

    fn problem(&self, key: String, message: String) -> Problem {
        let from_file = || self.file.as_ref().map(|path| format!("in {}", path.display()));
        let variable = self.origins.iter().find(|(path, _)| **path == key || path.starts_with(&format!("{key}.")));
        let origin = variable.map(|(_, name)| format!("from {name}")).or_else(from_file);
        Problem { key, message, origin }
    }
}

/// The effective values, secrets hidden, as TOML.
pub(crate) fn show<T: Serialize>(config: &T) -> String {
    toml::to_string_pretty(config).unwrap_or_else(|error| format!("# cannot be shown: {error}\n"))
}

/// `MAILFLEET_SENDER__MAX_IN_FLIGHT` is `sender.max_in_flight`. Variables without a section are the
/// command's own.
fn path_of(name: &str) -> Option<String> {
    let rest = name.strip_prefix(PREFIX)?;
    rest.contains(SEPARATOR).then(|| rest.to_ascii_lowercase().replace(SEPARATOR, "."))
}

fn has(table: &toml::Table, path: &str) -> bool {
    let mut keys = path.split('.');
    let first = keys.next().and_then(|key| table.get(key));
    keys.try_fold(first, |value, key| Some(value?.get(key))).flatten().is_some()
}

fn sections_of<T: Default + Serialize>() -> Vec<String> {
    let names = Value::serialize(T::default()).ok().and_then(|value| value.as_dict().cloned());
    names.map(|dict| dict.into_keys().collect()).unwrap_or_default()
}

/// Takes a value out; `false` when there is none, as when a required one is missing.
fn remove(values: &mut Dict, path: &[String]) -> bool {
    match path {
        [] => false,
        [key] => values.remove(key).is_some(),
        [key, rest @ ..] => match values.get_mut(key) {
            Some(Value::Dict(_, inner)) => remove(inner, rest),
            // The problem lies inside a list: all of it goes.
            Some(Value::Array(..)) => values.remove(key).is_some(),
            _ => false,
        },
    }
}

fn words(kind: &Kind) -> String {
    match kind {
        Kind::UnknownField(_, []) => "there is no such key".to_owned(),
        Kind::UnknownField(_, known) => format!("there is no such key; there are {}", known.join(", ")),
        // The value itself may be a secret in the wrong place, so it is not repeated.
        Kind::InvalidType(_, expected) | Kind::InvalidValue(_, expected) => format!("must be {expected}"),
        other => other.to_string(),
    }
}

#[cfg(test)]
#[path = "layers_tests.rs"]
mod tests;
