//! What a caller calls his mails, for lists and event streams, and what differs from recipient to recipient beside
//! the variables.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What all messages of a call are called; kept once a call.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Labels {
    /// Words that group mails.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// The caller's own words about them.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
    /// Whether they are only tried: nothing is sent.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub sandbox: bool,
    /// Whether some recipient has tags of his own, which stand with his message.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub own_tags: bool,
}

impl Labels {
    /// Whether there is nothing to keep.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What a message is called whose recipient has these of his own.
    #[must_use]
    pub fn with(mut self, own: Option<&Overrides>) -> Self {
        let Some(own) = own else { return self };
        for tag in &own.tags {
            if !self.tags.contains(tag) {
                self.tags.push(tag.clone());
            }
        }
        self.metadata.extend(own.metadata.iter().map(|(key, value)| (key.clone(), value.clone())));
        self
    }
}

/// What one recipient has instead of, or beside, what his mail says to all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Overrides {
    /// The subject, as final text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// Header fields, as final text; one that the mail has under the same name is replaced.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<(String, String)>,
    /// Further tags.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Further metadata; an entry of the same key is replaced.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
    /// Whether neither opens nor clicks of this recipient are told, whatever the mail says.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub untracked: bool,
}

impl Overrides {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(key: &str, value: &str) -> BTreeMap<String, String> {
        BTreeMap::from([(key.to_owned(), value.to_owned())])
    }

    #[test]
    fn a_recipient_adds_tags_and_replaces_metadata() {
        let all = Labels { tags: vec!["a".to_owned()], metadata: map("order", "0"), ..Labels::default() };
        let own = Overrides {
            tags: vec!["a".to_owned(), "b".to_owned()],
            metadata: map("order", "17"),
            ..Overrides::default()
        };
        let labels = all.clone().with(Some(&own));
        assert_eq!((labels.tags.join(" "), labels.metadata), ("a b".to_owned(), map("order", "17")));
        assert_eq!(all.clone().with(None), all);
    }

    #[test]
    fn nothing_is_kept_of_nothing() {
        assert_eq!(serde_json::to_string(&Labels::default()).unwrap(), "{}");
        assert_eq!(serde_json::to_string(&Overrides::default()).unwrap(), "{}");
        assert_eq!(serde_json::from_str::<Overrides>("{}").unwrap(), Overrides::default());
    }
}
