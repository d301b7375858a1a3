//! Why a content cannot be prepared, or a mail not be rendered.

use crate::Finding;

/// A stored content that cannot be rendered for anybody.
#[derive(Debug, thiserror::Error)]
pub enum ContentError {
    /// The body names a content, and none was handed in.
    #[error("the {0} that the body names was not given")]
    Missing(&'static str),
    /// A part does not parse or breaks a rule; accepting it should have found this.
    #[error("the content is not valid: {0}")]
    Invalid(Finding),
}

impl From<Finding> for ContentError {
    fn from(finding: Finding) -> Self {
        Self::Invalid(finding)
    }
}

/// Why one recipient's mail cannot be rendered. The texts name variables, parts and lines, never values,
/// and may be shown to whoever sent the mail.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RenderError {
    /// A template uses a variable that was neither given nor has a default.
    #[error("variable {name} is missing; it is used in {part}{}", at_line(*.line))]
    MissingVariable {
        /// The variable as the template spells it: `user.name`.
        name: String,
        /// The part that uses it: `subject`, `html`, `text`, `headers[0].value`.
        part: String,
        /// The line in that part, from 1.
        line: Option<usize>,
    },
    /// The variables are no JSON object, or too large.
    #[error("the variables {0}")]
    Variables(String),
    /// The template failed in another way: a sum of texts, an unknown filter.
    #[error("{part} failed{}: {problem}", at_line(*.line))]
    Template {
        /// The part that failed.
        part: String,
        /// The line in that part, from 1.
        line: Option<usize>,
        /// What the engine says.
        problem: String,
    },
    /// Fuel, recursion or size went past its limit.
    #[error("{part} went past the limit of {limit}")]
    Limit {
        /// The part that did.
        part: String,
        /// Which limit.
        limit: &'static str,
    },
    /// A rendered value cannot stand in a header.
    #[error("{field} {problem}")]
    Header {
        /// The field: `subject`, `headers[1].value`, `unsubscribe.url`.
        field: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A key refused to sign. Not the recipient's doing.
    #[error("the signing key refused to sign")]
    Sign,
}

impl RenderError {
    /// Whether the recipient's mail can never be rendered from this content and these variables.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::MissingVariable { .. }
            | Self::Variables(_)
            | Self::Template { .. }
            | Self::Limit { .. }
            | Self::Header { .. } => true,
            Self::Sign => false,
        }
    }

    /// A stable word for figures and logs: `missing_variable`, `variables`, `template`, `limit`, `header`,
    /// `sign`.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::MissingVariable { .. } => "missing_variable",
            Self::Variables(_) => "variables",
            Self::Template { .. } => "template",
            Self::Limit { .. } => "limit",
            Self::Header { .. } => "header",
            Self::Sign => "sign",
        }
    }
}

fn at_line(line: Option<usize>) -> String {
    line.map_or_else(String::new, |line| format!(", line {line}"))
}
