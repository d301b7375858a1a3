//! What is wrong with a content, where, and what to do about it.

use serde::{Deserialize, Serialize};
use std::fmt;

/// How much a finding matters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Good to know.
    Info,
    /// Some readers get less than the author meant.
    Warning,
    /// It cannot be taken.
    #[default]
    Error,
}

/// One thing to put right.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Path of the field, as in `headers[2].name` or `mjml`.
    pub field: String,
    /// Line within the field, from 1, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// What is wrong with its value.
    pub problem: String,
    /// What would be taken instead.
    pub fix: String,
    /// How much it matters.
    #[serde(default)]
    pub severity: Severity,
}

impl Finding {
    pub(crate) fn new(field: impl Into<String>, problem: impl Into<String>, fix: impl Into<String>) -> Self {
        let (field, problem, fix) = (field.into(), problem.into(), fix.into());
        Self { field, line: None, problem, fix, severity: Severity::Error }
    }

    pub(crate) fn graded(mut self, severity: Severity) -> Self {
        self.severity = severity;
        self
    }

    pub(crate) fn at(mut self, line: Option<usize>) -> Self {
        self.line = line;
        self
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{} line {line}: {}; {}", self.field, self.problem, self.fix),
            None => write!(f, "{}: {}; {}", self.field, self.problem, self.fix),
        }
    }
}
