//! Many recipients through `SendBatch`: in pieces, several at a time, each repeatable.

use crate::exit::Failure;
use anyhow::Context;
use client::Client;
use proto::v1::{Mail, Recipient, Refusal, SendBatchRequest, SendBatchResponse, recipient_result::Outcome};
use serde_json::{Map, Value};
use std::{
    path::Path,
    time::{Duration, Instant},
};
use tokio::task::JoinSet;

/// Most recipients that a file may name; each is held in memory.
const MAX_RECIPIENTS: usize = 1_000_000;

/// How a campaign is cut into calls.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    /// Recipients in a call, 1 to 10,000.
    pub recipients: usize,
    /// Calls under way at the same time.
    pub calls: usize,
}

/// What became of a campaign's recipients at the accept.
#[derive(Debug, Default)]
pub struct Sent {
    /// The accepted calls, for cancelling.
    pub batches: Vec<String>,
    /// Recipient and message id.
    pub accepted: Vec<(String, String)>,
    /// Recipient and why not.
    pub refused: Vec<(String, Refusal)>,
    /// How long each call took, the last try alone.
    pub latencies: Vec<Duration>,
}

/// Ends the name of a column that holds JSON.
const JSON_COLUMN: &str = ":json";

/// Reads recipients from a CSV file: a column `email`, one that tells their language when it is named, and every other
/// one is a variable: a text, or with a name that ends in `:json` whatever it says.
pub fn read_csv(path: &Path, shared: &Map<String, Value>, language: Option<&str>) -> anyhow::Result<Vec<Recipient>> {
    let here = || format!("cannot read {}", path.display());
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_path(path).with_context(here)?;
    let heads = reader.headers().with_context(here)?.clone();
    let email = heads
        .iter()
        .position(|head| head.eq_ignore_ascii_case("email"))
        .ok_or_else(|| Failure::usage(format!("{} has no column named email in its first line", path.display())))?;
    let language = match language {
        None => None,
        Some(name) => Some(heads.iter().position(|head| head == name).ok_or_else(|| {
            Failure::usage(format!("{} has no column named {name} in its first line", path.display()))
        })?),
    };
    let mut recipients = Vec::new();
    for row in reader.records() {
        let row = row.with_context(here)?;
        let mut variables = shared.clone();
        for (position, value) in row.iter().enumerate() {
            let Some(head) = heads.get(position).filter(|_| position != email && Some(position) != language) else {
                continue;
            };
            match head.strip_suffix(JSON_COLUMN) {
                // An empty field is a variable that is not given.
                Some(_) if value.is_empty() => {}
                Some(name) => {
                    let line = row.position().map_or(0, csv::Position::line);
                    let wrong =
                        |_| Failure::usage(format!("{} line {line}: the column {head} holds no JSON", path.display()));
                    variables.insert(name.to_owned(), serde_json::from_str(value).map_err(wrong)?);
                }
                None => drop(variables.insert(head.to_owned(), Value::String(value.to_owned()))),
            }
        }
        if recipients.len() == MAX_RECIPIENTS {
            return Err(Failure::usage(format!("{} names over {MAX_RECIPIENTS} recipients; cut it", path.display())));
        }
        recipients.push(Recipient {
            email: row.get(email).unwrap_or_default().to_owned(),
            variables_json: Value::Object(variables).to_string(),
            language: language.and_then(|column| row.get(column)).unwrap_or_default().to_owned(),
            ..Recipient::default()
        });
    }
    if recipients.is_empty() {
        return Err(Failure::usage(format!("{} names no recipient", path.display())));
    }
    Ok(recipients)
}

/// Sends one mail to all of them. `key` makes every piece repeatable; `progress` learns how many recipients have
/// an answer.
pub async fn send(
    api: &Client,
    mail: &Mail,
    recipients: Vec<Recipient>,
    key: &str,
    cut: Cut,
    mut progress: impl FnMut(usize),
) -> anyhow::Result<Sent> {
    let mut sent = Sent::default();
    let mut answered = 0;
    let mut calls = JoinSet::new();
    let pieces: Vec<Vec<Recipient>> = recipients.chunks(cut.recipients.max(1)).map(<[Recipient]>::to_vec).collect();
    let mut pieces = pieces.into_iter().enumerate();
    loop {
        while calls.len() < cut.calls
            && let Some((number, piece)) = pieces.next()
        {
            let emails: Vec<String> = piece.iter().map(|recipient| recipient.email.clone()).collect();
            let idempotency_key = format!("{key}/{number}");
            let request = SendBatchRequest { mail: Some(mail.clone()), recipients: piece, idempotency_key };
            let api = api.clone();
            calls.spawn(async move { (emails, call(&api, request).await) });
        }
        let Some(done) = calls.join_next().await else { break };
        let (emails, outcome) = done.context("a call was lost")?;
        let (answer, took) = outcome?;
        answered += emails.len();
        sent.latencies.push(took);
        sent.batches.push(answer.batch_id);
        for (email, result) in emails.into_iter().zip(answer.results) {
            match result.outcome {
                Some(Outcome::MessageId(id)) => sent.accepted.push((email, id)),
                Some(Outcome::Refused(why)) => sent.refused.push((email, why)),
                None => sent.refused.push((email, Refusal::default())),
            }
        }
        progress(answered);
    }
    Ok(sent)
}

/// One call, and how long it took with its repeats.
async fn call(api: &Client, request: SendBatchRequest) -> anyhow::Result<(SendBatchResponse, Duration)> {
    let begun = Instant::now();
    let answer = api.send_batch(request).await.context("the campaign was refused")?;
    Ok((answer, begun.elapsed()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, text: &str) -> std::path::PathBuf {
        let path = std::env::temp_dir().join(format!("mailfleet-{name}-{}", std::process::id()));
        std::fs::write(&path, text).expect("writes");
        path
    }

    #[test]
    fn every_column_but_the_address_is_a_variable() {
        let path = file("columns", "name,Email,city\nAda, ada@example.com ,London\n");
        let shared = Map::from_iter([("season".to_owned(), Value::from("spring")), ("city".to_owned(), "?".into())]);
        let recipients = read_csv(&path, &shared, None).expect("reads");
        assert_eq!(recipients[0].email, "ada@example.com");
        let variables: Value = serde_json::from_str(&recipients[0].variables_json).expect("is JSON");
        assert_eq!(variables, serde_json::json!({"name": "Ada", "city": "London", "season": "spring"}));
        std::fs::remove_file(path).expect("removes");
    }

    #[test]
    fn a_column_may_tell_the_language_and_hold_json() {
        let path =
            file("languages", "email,tongue,age:json,items:json\nada@example.com,de,36,\nbob@example.com,,\"7\",[1]\n");
        let recipients = read_csv(&path, &Map::new(), Some("tongue")).expect("reads");
        assert_eq!((recipients[0].language.as_str(), recipients[1].language.as_str()), ("de", ""));
        assert_eq!(recipients[0].variables_json, r#"{"age":36}"#);
        assert_eq!(recipients[1].variables_json, r#"{"age":7,"items":[1]}"#);
        assert!(read_csv(&path, &Map::new(), Some("language")).is_err());
        std::fs::remove_file(path).expect("removes");
    }

    #[test]
    fn a_file_without_addresses_is_refused_by_name() {
        for (name, text) in [("no-column", "name\nAda\n"), ("no-row", "email\n"), ("empty", "")] {
            let path = file(name, text);
            assert!(read_csv(&path, &Map::new(), None).is_err(), "{name}");
            std::fs::remove_file(path).expect("removes");
        }
    }
}
