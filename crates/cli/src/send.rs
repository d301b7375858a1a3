//! `send`: one mail, or one to every line of a file.

use crate::{
    args::{LaneArg, SendArgs},
    campaign::{self, Cut},
    exit::{Exit, Failure},
    output::{Output, grouped, safe},
    reach::Reach,
};
use anyhow::Context;
use chrono::{DateTime, Utc};
use domain::BatchId;
use proto::v1::{
    Address, Attachment, InlineContent, Lane, Mail, Recipient, SendMessageRequest, TemplateRef, mail::Content,
};
use serde_json::{Map, Value, json};
use std::{fs, path::Path, time::Duration};

/// A file is sent in pieces of this size, two at a time.
const CUT: Cut = Cut { recipients: 1_000, calls: 2 };
/// Most refused recipients that are listed for people.
const MAX_LISTED: usize = 20;

/// Sends what the command line says.
pub async fn run(args: SendArgs, reach: &Reach, out: Output) -> anyhow::Result<Exit> {
    let variables = variables(&args.vars)?;
    let mail = mail(&args)?;
    let api = reach.api_for_tenant().await?;
    let now = service::clock::now();
    match &args.csv {
        None => {
            let variables_json = Value::Object(variables).to_string();
            let recipients = args
                .to
                .iter()
                .map(|to| Recipient {
                    email: parse_address(to).email,
                    variables_json: variables_json.clone(),
                    language: args.language.clone().unwrap_or_default(),
                    ..Recipient::default()
                })
                .collect();
            let idempotency_key = args.idempotency_key.clone().unwrap_or_default();
            let request = SendMessageRequest { mail: Some(mail), recipients, idempotency_key };
            let answer = api.send(request).await.context("the mail was refused")?;
            let value = json!({
                "batch_id": answer.batch_id, "message_ids": answer.message_ids, "replayed": answer.replayed,
            });
            out.answer(&value, || {
                let mut text = String::from(if answer.replayed { "accepted before:" } else { "accepted:" });
                for id in &answer.message_ids {
                    text.push_str(&format!("\n  {id}"));
                }
                text.push_str("\nfollow it with: mailfleet why MESSAGE");
                text
            })?;
            Ok(Exit::Ok)
        }
        Some(path) => {
            let recipients = campaign::read_csv(path, &variables, args.language_column.as_deref())?;
            let recipients: Vec<Recipient> = recipients
                .into_iter()
                .map(|mut one| {
                    if one.language.is_empty() {
                        one.language = args.language.clone().unwrap_or_default();
                    }
                    one
                })
                .collect();
            let total = recipients.len();
            let key = args.idempotency_key.clone().unwrap_or_else(|| BatchId::new(now).to_string());
            let sent = campaign::send(&api, &mail, recipients, &key, CUT, |answered| {
                out.progress(&format!("{} of {} answered", grouped(answered as i128), grouped(total as i128)));
            })
            .await?;
            out.progress_done();
            let refused: Vec<Value> = sent
                .refused
                .iter()
                .map(|(email, why)| json!({"email": email, "field": why.field, "why": why.description}))
                .collect();
            let value = json!({
                "accepted": sent.accepted.len(), "refused": refused, "batch_ids": sent.batches,
                "campaign_id": mail.campaign_id,
            });
            out.answer(&value, || told(&sent))?;
            Ok(if sent.refused.is_empty() { Exit::Ok } else { Exit::Finding })
        }
    }
}

fn told(sent: &campaign::Sent) -> String {
    let mut text =
        format!("{} accepted, {} refused", grouped(sent.accepted.len() as i128), grouped(sent.refused.len() as i128));
    for (email, why) in sent.refused.iter().take(MAX_LISTED) {
        text.push_str(&format!("\n  {}: {}", safe(email), safe(&why.description)));
    }
    if sent.refused.len() > MAX_LISTED {
        text.push_str(&format!("\n  and {} more; --json lists all", sent.refused.len() - MAX_LISTED));
    }
    text
}

fn mail(args: &SendArgs) -> anyhow::Result<Mail> {
    let now = service::clock::now();
    let content = match (&args.template, &args.raw) {
        (Some(template), _) => Content::Template(template_ref(template)?),
        (None, Some(raw)) => {
            Content::RawMime(fs::read(raw).with_context(|| format!("cannot read {}", raw.display()))?.into())
        }
        (None, None) => Content::Inline(InlineContent {
            subject: args.subject.clone().unwrap_or_default(),
            html: args.html_file.as_deref().map(text_of).transpose()?.unwrap_or_default(),
            text: match (&args.text, &args.text_file) {
                (Some(text), _) => text.clone(),
                (None, Some(file)) => text_of(file)?,
                (None, None) => String::new(),
            },
        }),
    };
    let metadata = pairs("--meta", &args.metadata)?;
    let lane = match args.lane {
        None => Lane::Unspecified,
        Some(LaneArg::Transactional) => Lane::Transactional,
        Some(LaneArg::Bulk) => Lane::Bulk,
    };
    Ok(Mail {
        from: args.from.as_deref().map(parse_address),
        content: Some(content),
        lane: lane.into(),
        campaign_id: args.campaign.clone().unwrap_or_default(),
        send_at: args.at.as_deref().map(|at| moment(at, now)).transpose()?.map(crate::api::stamp),
        time_to_live: args
            .time_to_live
            .as_deref()
            .map(span)
            .transpose()?
            .map(|span| prost_types::Duration { seconds: i64::try_from(span.as_secs()).unwrap_or(i64::MAX), nanos: 0 }),
        attachments: attachments(args)?,
        tags: args.tags.clone(),
        metadata: metadata.into_iter().collect(),
        sandbox: args.sandbox,
        ..Mail::default()
    })
}

/// The files that go along, by their names and types.
fn attachments(args: &SendArgs) -> anyhow::Result<Vec<Attachment>> {
    let mut files = Vec::with_capacity(args.attach.len() + args.inline_files.len());
    for given in &args.attach {
        // A file may have the sign in its name: then it is there.
        let (path, kind) = match given.rsplit_once('=') {
            Some((path, kind)) if kind.contains('/') && !Path::new(given).exists() => (path, Some(kind)),
            _ => (given.as_str(), None),
        };
        files.push(attachment(Path::new(path), kind, String::new())?);
    }
    for (name, path) in pairs("--inline", &args.inline_files)? {
        files.push(attachment(Path::new(&path), None, name)?);
    }
    Ok(files)
}

fn attachment(path: &Path, kind: Option<&str>, content_id: String) -> anyhow::Result<Attachment> {
    let data = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?.into();
    let file_name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let content_type = kind.unwrap_or_else(|| type_of(path)).to_owned();
    Ok(Attachment { file_name, content_type, data, content_id })
}

/// The media type that a file's name tells; empty where it tells none.
fn type_of(path: &Path) -> &'static str {
    let extension = path.extension().map(|text| text.to_string_lossy().to_ascii_lowercase()).unwrap_or_default();
    match extension.as_str() {
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "webp" => "image/webp",
        "svg" => "image/svg+xml",
        "pdf" => "application/pdf",
        "zip" => "application/zip",
        "json" => "application/json",
        "xml" => "application/xml",
        "csv" => "text/csv; charset=utf-8",
        "txt" => "text/plain; charset=utf-8",
        "html" | "htm" => "text/html; charset=utf-8",
        "ics" => "text/calendar; charset=utf-8",
        _ => "",
    }
}

fn text_of(path: &Path) -> anyhow::Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

pub fn template_ref(text: &str) -> anyhow::Result<TemplateRef> {
    let (name, version) = text.split_once('@').unwrap_or((text, "0"));
    let version =
        version.parse().map_err(|_| Failure::usage(format!("{text}: the version after @ must be a number")))?;
    Ok(TemplateRef { template: name.to_owned(), version })
}

/// `Name <address>`, or an address alone. What is wrong with it, the service tells.
pub fn parse_address(text: &str) -> Address {
    let parts = text.trim().strip_suffix('>').and_then(|text| text.rsplit_once('<'));
    match parts {
        Some((name, email)) => {
            Address { email: email.trim().to_owned(), name: name.trim().trim_matches('"').to_owned() }
        }
        None => Address { email: text.trim().to_owned(), name: String::new() },
    }
}

/// Variables from `NAME=TEXT` and `NAME:=JSON`.
pub fn variables(given: &[String]) -> anyhow::Result<Map<String, Value>> {
    let read = |pair: &String| {
        let wrong = || Failure::usage(format!("--var {pair}: must be NAME=TEXT, or NAME:=JSON"));
        let (name, value) = pair.split_once('=').ok_or_else(wrong)?;
        let (name, value) = match name.strip_suffix(':') {
            Some(name) => (name, serde_json::from_str(value).map_err(|_| wrong())?),
            None => (name, Value::String(value.to_owned())),
        };
        if name.is_empty() { Err(wrong()) } else { Ok((name.to_owned(), value)) }
    };
    given.iter().map(read).collect()
}

/// What an option of the form NAME=VALUE was given.
fn pairs(option: &str, given: &[String]) -> anyhow::Result<Vec<(String, String)>> {
    given
        .iter()
        .map(|pair| match pair.split_once('=') {
            Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
            _ => Err(Failure::usage(format!("{option} {pair}: must be NAME=VALUE"))),
        })
        .collect()
}

/// A span such as `90m`.
pub fn span(text: &str) -> anyhow::Result<Duration> {
    humantime::parse_duration(text).map_err(|_| Failure::usage(format!("{text}: must be a span such as 90m or 4h")))
}

/// A time, or a span from now.
pub fn moment(text: &str, now: DateTime<Utc>) -> anyhow::Result<DateTime<Utc>> {
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Ok(time.to_utc());
    }
    let span = humantime::parse_duration(text.trim_start_matches('+')).map_err(|_| {
        Failure::usage(format!("{text}: must be a time such as 2030-01-31T08:00:00Z, or a span such as 2h"))
    })?;
    Ok(now + span)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_author_may_have_a_name() {
        let address = parse_address("\"News of Example\" <news@example.com>");
        assert_eq!((address.name.as_str(), address.email.as_str()), ("News of Example", "news@example.com"));
        assert_eq!(parse_address(" a@example.com ").email, "a@example.com");
    }

    #[test]
    fn a_time_may_be_given_from_now() {
        let now = DateTime::UNIX_EPOCH;
        assert_eq!(moment("2h", now).expect("is a span"), now + Duration::from_secs(7_200));
        assert_eq!(moment("1970-01-01T01:00:00+01:00", now).expect("is a time"), now);
        assert!(moment("soon", now).is_err());
    }

    #[test]
    fn a_variable_is_a_text_or_json() {
        let given = ["a=1=2", "b:=[1]", "c:=\"x\""].map(str::to_owned);
        assert_eq!(Value::Object(variables(&given).expect("are variables")), json!({"a": "1=2", "b": [1], "c": "x"}));
        for bad in ["a", "=1", ":=1", "a:=x"] {
            assert!(variables(&[bad.to_owned()]).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_name_of_a_file_tells_its_type() {
        assert_eq!(type_of(Path::new("a/Logo.PNG")), "image/png");
        assert_eq!(type_of(Path::new("a/report")), "");
        assert!(pairs("--inline", &["logo".to_owned()]).is_err());
    }

    #[test]
    fn a_template_may_name_its_version() {
        assert_eq!(template_ref("welcome@3").expect("is one").version, 3);
        assert_eq!(template_ref("welcome").expect("is one").version, 0);
        assert!(template_ref("welcome@x").is_err());
    }
}
