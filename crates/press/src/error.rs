//! Why a mail was not rendered, and what becomes of it.

use crate::PoolClosed;
use content::{ContentError, KeyError, RenderError};
use domain::{ContentId, DkimKeyId, DomainName, fact::FactDetail, text::sanitise};
use std::{error::Error, sync::Arc};
use store::StoreError;

/// The longest text in a fact, in characters.
const MAX_REASON_CHARS: usize = 500;

/// Why a mail was not rendered. No text holds a value of the recipient's.
#[derive(Debug, thiserror::Error)]
pub enum PressError {
    /// This recipient's mail cannot be made from this content.
    #[error(transparent)]
    Render(#[from] RenderError),
    /// The content cannot be rendered for anybody.
    #[error("content {id} cannot be rendered")]
    Content {
        /// The content.
        id: ContentId,
        /// What is wrong with it.
        source: Arc<ContentError>,
    },
    /// The stored body of the content is of another kind or shape than its use says.
    #[error("content {id} is not what its use says")]
    Shape {
        /// The content.
        id: ContentId,
    },
    /// The tenant has no content of this name.
    #[error("content {id} does not exist")]
    NoContent {
        /// The content.
        id: ContentId,
    },
    /// No active key signs for the domain.
    #[error("{domain} is not a sending domain with an active DKIM key")]
    NoKey {
        /// The domain that was to sign.
        domain: DomainName,
    },
    /// Rendering panicked.
    #[error("rendering broke down")]
    Panicked,
    /// A stored key does not open: this process and the one that stored it have different master keys.
    #[error("cannot open DKIM key {id}; is the master key the one it was sealed with?")]
    Sealed {
        /// The key.
        id: DkimKeyId,
    },
    /// A stored key opened and is no key.
    #[error("DKIM key {id} cannot be used")]
    Key {
        /// The key.
        id: DkimKeyId,
        /// What is wrong with it.
        source: KeyError,
    },
    /// The database failed.
    #[error("cannot load what the mail is made from")]
    Store(#[from] StoreError),
    /// The database did not answer a moment ago and is left alone.
    #[error("the database does not answer")]
    Outage,
    /// This process is stopping.
    #[error("rendering has stopped")]
    Stopped(#[from] PoolClosed),
}

/// What becomes of a mail that was not rendered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It can never be: its message is closed as failed.
    Fail,
    /// Something of the fleet's own keeps it back: it rests and is tried again.
    Park,
    /// Nothing can be loaded or parked now: whatever holds the job keeps it.
    Hold,
}

impl PressError {
    /// What becomes of the mail. A doubt is decided for the mail: only what its content, its variables or
    /// its domain can never yield closes it.
    pub fn verdict(&self) -> Verdict {
        match self {
            Self::Render(error) if error.is_permanent() => Verdict::Fail,
            Self::Content { .. } | Self::Shape { .. } | Self::NoContent { .. } => Verdict::Fail,
            Self::NoKey { .. } | Self::Panicked => Verdict::Fail,
            Self::Render(_) | Self::Sealed { .. } | Self::Key { .. } => Verdict::Park,
            Self::Store(StoreError::Corrupt { .. }) => Verdict::Park,
            Self::Store(_) | Self::Outage | Self::Stopped(_) => Verdict::Hold,
        }
    }

    /// A stable word for figures: `missing_variable`, `no_key`, `outage`, ….
    pub fn class(&self) -> &'static str {
        match self {
            Self::Render(error) => error.reason(),
            Self::Content { .. } => "content",
            Self::Shape { .. } => "content_shape",
            Self::NoContent { .. } => "no_content",
            Self::NoKey { .. } => "no_key",
            Self::Panicked => "panic",
            Self::Sealed { .. } => "sealed_key",
            Self::Key { .. } => "bad_key",
            Self::Store(_) | Self::Outage => "outage",
            Self::Stopped(_) => "stopped",
        }
    }

    /// What the closing fact says: names variables, parts and lines, never values.
    pub fn reason(&self) -> FactDetail {
        let mut text = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        FactDetail {
            class: Some(self.class().to_owned()),
            text: Some(sanitise(&text, MAX_REASON_CHARS)),
            ..FactDetail::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_variable_closes_the_mail_and_is_named() {
        let error = PressError::from(RenderError::MissingVariable {
            name: "user.name".to_owned(),
            part: "html".to_owned(),
            line: Some(3),
        });
        assert_eq!(error.verdict(), Verdict::Fail);
        let reason = error.reason();
        assert_eq!(reason.class.as_deref(), Some("missing_variable"));
        assert!(reason.text.unwrap().contains("user.name"));
    }

    #[test]
    fn a_fault_of_the_fleet_closes_no_mail() {
        let id = DkimKeyId::from_uuid(uuid_of_nothing());
        for error in [
            PressError::Outage,
            PressError::Store(StoreError::Timeout),
            PressError::Sealed { id },
            PressError::Key { id, source: KeyError::NotAKey },
            PressError::Render(RenderError::Sign),
            PressError::Stopped(PoolClosed),
        ] {
            assert_ne!(error.verdict(), Verdict::Fail, "{error}");
        }
    }

    fn uuid_of_nothing() -> uuid::Uuid {
        uuid::Uuid::nil()
    }
}
