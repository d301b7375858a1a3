//! What must not be in a log: panics, errors that nobody caused, addresses, bodies.

use super::{config::DOMAIN, load};
use std::{collections::BTreeMap, fs, path::Path};

/// What an entry of a log has that it must not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Wrong {
    /// Something panicked.
    Panic,
    /// An error that no fault of the run explains.
    Error,
    /// A recipient's address.
    Address,
    /// A subject or body.
    Content,
}

/// A kind of wrong entries.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct LogFinding {
    /// What is wrong.
    pub wrong: Wrong,
    /// Whose log.
    pub member: String,
    /// The first such line, shortened.
    pub line: String,
    /// How many there are like it.
    pub count: usize,
}

/// Errors that faults cause: by their target and a part of the line, and why each is right.
const EXPECTED: [(&str, &str, &str); 2] = [
    ("async_nats", "", "the broker's client tells of each connection that breaks"),
    (
        "mailfleet_service::boot",
        "is not available",
        "a service that starts while a neighbour is away ends, and starts again",
    ),
];

/// Reads a log.
///
/// # Errors
/// When it cannot be read.
pub fn read(member: &str, path: &Path) -> std::io::Result<Vec<LogFinding>> {
    Ok(judge(member, &String::from_utf8_lossy(&fs::read(path)?)))
}

/// Judges the lines of a log.
pub fn judge(member: &str, text: &str) -> Vec<LogFinding> {
    let mut found: BTreeMap<(Wrong, String), (String, usize)> = BTreeMap::new();
    for line in text.lines() {
        let Some((wrong, likeness)) = wrong(line) else { continue };
        let short = || line.chars().take(400).collect();
        found.entry((wrong, likeness)).or_insert_with(|| (short(), 0)).1 += 1;
    }
    found
        .into_iter()
        .map(|((wrong, _), (line, count))| LogFinding { wrong, member: member.to_owned(), line, count })
        .collect()
}

/// What is wrong with a line, and what makes others like it.
fn wrong(line: &str) -> Option<(Wrong, String)> {
    if line.contains(load::BODY_MARK) || line.contains(load::SUBJECT_MARK) {
        return Some((Wrong::Content, String::new()));
    }
    if line.contains(load::LOCAL_MARK) || has_address(line) {
        return Some((Wrong::Address, String::new()));
    }
    let Ok(entry) = serde_json::from_str::<serde_json::Value>(line) else {
        // Not one of ours: what the runtime prints when it comes to its end.
        let ours = line.trim().is_empty();
        return (!ours).then(|| (if line.contains("panicked") { Wrong::Panic } else { Wrong::Error }, line.to_owned()));
    };
    let message = entry["message"].as_str().unwrap_or_default();
    if message == "panicked" {
        return Some((Wrong::Panic, entry["place"].as_str().unwrap_or_default().to_owned()));
    }
    let target = entry["target"].as_str().unwrap_or_default();
    let expected = || EXPECTED.iter().any(|(by, part, _)| target.starts_with(by) && line.contains(part));
    (entry["level"] == "ERROR" && !expected()).then(|| (Wrong::Error, message.to_owned()))
}

/// Whether there is a mailbox at one of our recipients' domains.
fn has_address(line: &str) -> bool {
    line.match_indices(DOMAIN).any(|(at, _)| {
        let before = line[..at].trim_end_matches(|c: char| c.is_ascii_alphanumeric() || c == '.' || c == '-');
        before.ends_with('@')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(line: &str) -> Option<Wrong> {
        judge("sender-a", line).first().map(|finding| finding.wrong)
    }

    #[test]
    fn a_panic_an_error_an_address_and_a_body_are_found() {
        assert_eq!(one(r#"{"level":"ERROR","message":"panicked","place":"a.rs:1:1"}"#), Some(Wrong::Panic));
        assert_eq!(one("thread 'main' panicked at a.rs"), Some(Wrong::Panic));
        assert_eq!(one(r#"{"level":"ERROR","message":"cannot go on"}"#), Some(Wrong::Error));
        assert_eq!(one(r#"{"level":"INFO","message":"to ann@clean3.zqx.test"}"#), Some(Wrong::Address));
        assert_eq!(
            one(&format!(r#"{{"level":"INFO","message":"x","a":"{}"}}"#, load::LOCAL_MARK)),
            Some(Wrong::Address)
        );
        assert_eq!(one(&format!(r#"{{"level":"INFO","message":"{}"}}"#, load::BODY_MARK)), Some(Wrong::Content));
    }

    #[test]
    fn sites_and_warnings_are_right() {
        assert_eq!(one(r#"{"level":"INFO","message":"a site is left alone","mx.site":"clean3.zqx.test"}"#), None);
        assert_eq!(one(r#"{"level":"WARN","message":"a claim failed"}"#), None);
        assert_eq!(one(""), None);
    }

    #[test]
    fn an_error_that_a_fault_causes_is_right_and_the_same_from_elsewhere_is_not() {
        let line = |target: &str| {
            format!(
                r#"{{"level":"ERROR","message":"cannot go on","error":"postgres is not available","target":"{target}"}}"#
            )
        };
        assert_eq!(one(&line("mailfleet_service::boot")), None);
        assert_eq!(one(&line("mailfleet_sender::desk")), Some(Wrong::Error));
        assert_eq!(
            one(r#"{"level":"ERROR","message":"cannot go on","target":"mailfleet_service::boot"}"#),
            Some(Wrong::Error)
        );
    }

    #[test]
    fn lines_that_are_alike_are_counted_as_one() {
        let line = "{\"level\":\"ERROR\",\"message\":\"no\"}\n";
        assert_eq!(judge("x", &line.repeat(3))[0].count, 3);
    }
}
