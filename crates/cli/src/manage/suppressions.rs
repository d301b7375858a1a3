//! `suppressions`: who a tenant's mail does not go to.

use super::{
    args::{CauseArg, EntryArgs, FilterArgs, ScopeArg, SuppressionsCommand},
    back, page, when,
};
use crate::{
    api,
    exit::{Exit, Failure},
    output::{Output, Table, grouped, safe},
    reach::Reach,
};
use anyhow::Context;
use clap::ValueEnum;
use proto::v1::{
    AddSuppressionRequest, ExportSuppressionsRequest, ImportSuppressionsRequest, ImportSuppressionsResponse,
    ImportedSuppression, ListSuppressionsRequest, RemoveSuppressionRequest, Suppression, SuppressionCause,
    SuppressionFilter, SuppressionScope,
};
use serde_json::{Value, json};
use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::Path,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// Entries of one message of an import.
const PIECE: usize = 500;
/// Messages of an import that are read ahead of the service.
const AHEAD: usize = 2;
/// The columns of a file.
const COLUMNS: [&str; 5] = ["email", "cause", "scope", "reason", "created_at"];
/// Most refused entries that are listed for people.
const MAX_LISTED: usize = 20;

pub async fn run(command: SuppressionsCommand, reach: &Reach, out: Output) -> anyhow::Result<Exit> {
    match command {
        SuppressionsCommand::List { filter, limit } => list(&filter, limit, reach, out).await,
        SuppressionsCommand::Add { emails, what } => add(emails, what, reach, out).await,
        SuppressionsCommand::Remove { email } => remove(email, reach, out).await,
        SuppressionsCommand::Import { file, what } => import(&file, &what, reach, out).await,
        SuppressionsCommand::Export { filter, output } => export(&filter, output.as_deref(), reach, out).await,
    }
}

const fn cause(arg: CauseArg) -> SuppressionCause {
    match arg {
        CauseArg::HardBounce => SuppressionCause::HardBounce,
        CauseArg::Complaint => SuppressionCause::Complaint,
        CauseArg::Unsubscribe => SuppressionCause::Unsubscribe,
        CauseArg::Manual => SuppressionCause::Manual,
    }
}

const fn scope(arg: ScopeArg) -> SuppressionScope {
    match arg {
        ScopeArg::All => SuppressionScope::All,
        ScopeArg::Bulk => SuppressionScope::Bulk,
    }
}

/// The word of a cause, as the command line takes it.
fn cause_word(cause: SuppressionCause) -> String {
    word(cause.as_str_name(), "SUPPRESSION_CAUSE_")
}

fn scope_word(scope: SuppressionScope) -> String {
    word(scope.as_str_name(), "SUPPRESSION_SCOPE_")
}

fn word(name: &str, prefix: &str) -> String {
    name.trim_start_matches(prefix).to_ascii_lowercase().replace('_', "-")
}

fn filter(args: &FilterArgs) -> anyhow::Result<SuppressionFilter> {
    let now = service::clock::now();
    let since = args.since.as_deref().map(|since| back(since, now)).transpose()?;
    Ok(SuppressionFilter {
        cause: args.cause.map_or(SuppressionCause::Unspecified, cause).into(),
        scope: args.scope.map_or(SuppressionScope::Unspecified, scope).into(),
        since: since.map(api::stamp),
    })
}

async fn list(args: &FilterArgs, limit: usize, reach: &Reach, out: Output) -> anyhow::Result<Exit> {
    let filter = filter(args)?;
    let mut client = reach.api_for_tenant().await?.suppressions();
    let mut found: Vec<Suppression> = Vec::new();
    let mut page_token = String::new();
    while found.len() < limit {
        let page_size = page(limit - found.len());
        let request = ListSuppressionsRequest { filter: Some(filter), page_size, page_token };
        let answer = client.list_suppressions(request).await?.into_inner();
        found.extend(answer.suppressions);
        page_token = answer.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    let more = !page_token.is_empty();
    let value = json!({"suppressions": found.iter().map(as_json).collect::<Vec<_>>(), "more": more});
    out.answer(&value, || {
        let mut table = Table::new(5, &["address", "cause", "scope", "since", "reason"]);
        for entry in &found {
            table.row(vec![
                safe(&entry.email),
                cause_word(entry.cause()),
                scope_word(entry.scope()),
                when(entry.created_at.as_ref()),
                safe(&entry.reason),
            ]);
        }
        let rest = if more { "there are more; --limit shows them, export has all\n" } else { "" };
        if table.is_empty() { "nobody is suppressed".to_owned() } else { format!("{}{rest}", table.text()) }
    })?;
    Ok(Exit::Ok)
}

fn as_json(entry: &Suppression) -> Value {
    json!({
        "email": entry.email, "cause": cause_word(entry.cause()), "scope": scope_word(entry.scope()),
        "reason": entry.reason, "created_at": entry.created_at.as_ref().map(api::time),
    })
}

async fn add(emails: Vec<String>, what: EntryArgs, reach: &Reach, out: Output) -> anyhow::Result<Exit> {
    let request = AddSuppressionRequest {
        emails,
        reason: what.reason,
        cause: cause(what.cause).into(),
        scope: scope(what.scope).into(),
    };
    let answer = reach.api_for_tenant().await?.suppressions().add_suppression(request).await?.into_inner();
    out.answer(&json!({"added": answer.added, "messages_closed": answer.messages_closed}), || {
        format!("{} added, {} resting messages closed", grouped(answer.added), grouped(answer.messages_closed))
    })?;
    Ok(Exit::Ok)
}

async fn remove(email: String, reach: &Reach, out: Output) -> anyhow::Result<Exit> {
    let request = RemoveSuppressionRequest { email };
    let removed = reach.api_for_tenant().await?.suppressions().remove_suppression(request).await?.into_inner().removed;
    out.answer(&json!({"removed": removed}), || {
        if removed { "removed".to_owned() } else { "it was not on the tenant's list".to_owned() }
    })?;
    Ok(if removed { Exit::Ok } else { Exit::Finding })
}

async fn import(file: &Path, what: &EntryArgs, reach: &Reach, out: Output) -> anyhow::Result<Exit> {
    let mut lines = Lines::open(file, what)?;
    let mut client = reach.api_for_tenant().await?.lasting_suppressions();
    let (sender, receiver) = mpsc::channel(AHEAD);
    let reading = async move {
        while let Some(entries) = lines.piece()? {
            // The service has ended the call; its answer says why.
            if sender.send(ImportSuppressionsRequest { entries }).await.is_err() {
                break;
            }
        }
        anyhow::Ok(())
    };
    let (read, answer) = tokio::join!(reading, client.import_suppressions(ReceiverStream::new(receiver)));
    read?;
    let answer = answer.context("the import ended early; what it had read is suppressed, and a repeat is harmless")?;
    let answer = answer.into_inner();
    let refused: Vec<Value> = answer
        .refusals
        .iter()
        .map(|one| json!({"position": one.position, "field": one.field, "why": one.description}))
        .collect();
    let value = json!({
        "read": answer.read, "added": answer.added, "refused": answer.refused, "refusals": refused,
        "messages_closed": answer.messages_closed,
    });
    out.answer(&value, || imported(&answer))?;
    Ok(if answer.refused == 0 { Exit::Ok } else { Exit::Finding })
}

fn imported(answer: &ImportSuppressionsResponse) -> String {
    let mut text = format!(
        "{} read, {} added, {} refused, {} resting messages closed",
        grouped(answer.read),
        grouped(answer.added),
        grouped(answer.refused),
        grouped(answer.messages_closed)
    );
    for one in answer.refusals.iter().take(MAX_LISTED) {
        // The first line names the columns.
        text.push_str(&format!("\n  line {}: {} {}", one.position + 2, one.field, safe(&one.description)));
    }
    if answer.refused > MAX_LISTED as u64 {
        text.push_str("\n  and more; --json lists the first 1,000");
    }
    text
}

/// The lines of a CSV file as entries.
struct Lines {
    reader: csv::Reader<File>,
    name: String,
    columns: [Option<usize>; 4],
    default: ImportedSuppression,
}

impl Lines {
    fn open(file: &Path, what: &EntryArgs) -> anyhow::Result<Self> {
        let name = file.display().to_string();
        let here = || format!("cannot read {name}");
        let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_path(file).with_context(here)?;
        let heads = reader.headers().with_context(here)?;
        let column = |name: &str| heads.iter().position(|head| head.eq_ignore_ascii_case(name));
        let columns = ["email", "cause", "scope", "reason"].map(column);
        if columns[0].is_none() {
            return Err(Failure::usage(format!("{name} has no column named email in its first line")));
        }
        let default = ImportedSuppression {
            email: String::new(),
            cause: cause(what.cause).into(),
            scope: scope(what.scope).into(),
            reason: what.reason.clone(),
        };
        Ok(Self { reader, name, columns, default })
    }

    /// The next entries; `None` at the end.
    fn piece(&mut self) -> anyhow::Result<Option<Vec<ImportedSuppression>>> {
        let mut entries = Vec::with_capacity(PIECE);
        let mut row = csv::StringRecord::new();
        while entries.len() < PIECE
            && self.reader.read_record(&mut row).with_context(|| format!("cannot read {}", self.name))?
        {
            let cell = |column: usize| self.columns[column].and_then(|at| row.get(at)).filter(|text| !text.is_empty());
            let mut entry =
                ImportedSuppression { email: cell(0).unwrap_or_default().to_owned(), ..self.default.clone() };
            if let Some(text) = cell(1) {
                entry.cause = cause(self.read(text, "cause")?).into();
            }
            if let Some(text) = cell(2) {
                entry.scope = scope(self.read(text, "scope")?).into();
            }
            if let Some(text) = cell(3) {
                entry.reason = text.to_owned();
            }
            entries.push(entry);
        }
        Ok((!entries.is_empty()).then_some(entries))
    }

    fn read<T: ValueEnum>(&self, text: &str, column: &str) -> anyhow::Result<T> {
        T::from_str(&text.replace('_', "-"), true).map_err(|_| {
            let words = T::value_variants().iter().filter_map(ValueEnum::to_possible_value);
            let words: Vec<String> = words.map(|word| word.get_name().to_owned()).collect();
            Failure::usage(format!("{}: {} is no {column}; give {}", self.name, safe(text), words.join(", ")))
        })
    }
}

async fn export(args: &FilterArgs, output: Option<&Path>, reach: &Reach, out: Output) -> anyhow::Result<Exit> {
    let filter = Some(filter(args)?);
    let mut client = reach.api_for_tenant().await?.lasting_suppressions();
    let request = ExportSuppressionsRequest { filter };
    let mut pieces = client.export_suppressions(request).await?.into_inner();
    let target: Box<dyn Write + Send> = match output {
        Some(file) => Box::new(File::create(file).with_context(|| format!("cannot write {}", file.display()))?),
        None => Box::new(io::stdout()),
    };
    let mut target = BufWriter::new(target);
    let mut count: u64 = 0;
    if !out.json {
        target.write_all(&csv_line(&COLUMNS)?)?;
    }
    while let Some(piece) = pieces.message().await.context("the export ended early")? {
        for entry in &piece.suppressions {
            count += 1;
            let line = if out.json { json_line(entry) } else { csv_line(&cells(entry))? };
            match target.write_all(&line) {
                // A reader that went away is no error: it has had enough.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(Exit::Ok),
                written => written.context("cannot write the export")?,
            }
        }
    }
    target.flush().context("cannot write the export")?;
    if output.is_some() {
        out.answer(&json!({"exported": count}), || format!("{} exported", grouped(count)))?;
    }
    Ok(Exit::Ok)
}

fn cells(entry: &Suppression) -> [String; 5] {
    let at = entry.created_at.as_ref().map(|at| api::time(at).to_rfc3339()).unwrap_or_default();
    [entry.email.clone(), cause_word(entry.cause()), scope_word(entry.scope()), entry.reason.clone(), at]
}

fn csv_line(cells: &[impl AsRef<[u8]>]) -> anyhow::Result<Vec<u8>> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(cells)?;
    writer.into_inner().map_err(|error| anyhow::anyhow!("{error}"))
}

fn json_line(entry: &Suppression) -> Vec<u8> {
    format!("{}\n", as_json(entry)).into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(name: &str, text: &str) -> (anyhow::Result<Lines>, std::path::PathBuf) {
        let path = std::env::temp_dir().join(format!("mailfleet-suppressions-{name}-{}", std::process::id()));
        std::fs::write(&path, text).expect("writes");
        let what = EntryArgs { cause: CauseArg::Unsubscribe, scope: ScopeArg::Bulk, reason: String::new() };
        (Lines::open(&path, &what), path)
    }

    #[test]
    fn a_line_says_what_it_says_and_the_command_the_rest() {
        let text = "Email,cause,scope\nada@example.com,hard_bounce,all\nbob@example.com,,\n";
        let (lines, path) = lines("columns", text);
        let mut lines = lines.expect("opens");
        let entries = lines.piece().expect("reads").expect("has some");
        assert_eq!((entries[0].cause(), entries[0].scope()), (SuppressionCause::HardBounce, SuppressionScope::All));
        assert_eq!((entries[1].cause(), entries[1].scope()), (SuppressionCause::Unsubscribe, SuppressionScope::Bulk));
        assert!(lines.piece().expect("reads").is_none());
        std::fs::remove_file(path).expect("removes");
    }

    #[test]
    fn a_file_that_means_nothing_is_refused_by_name() {
        let (opened, path) = lines("no-column", "address\na@example.com\n");
        assert!(opened.is_err());
        std::fs::remove_file(path).expect("removes");
        let (opened, path) = lines("bad-cause", "email,cause\na@example.com,spite\n");
        let error = opened.expect("opens").piece().expect_err("means nothing").to_string();
        assert!(error.contains("spite") && error.contains("hard-bounce"), "{error}");
        std::fs::remove_file(path).expect("removes");
    }

    #[test]
    fn what_is_exported_can_be_imported() {
        let entry = Suppression {
            email: "ada@example.com".to_owned(),
            cause: SuppressionCause::Complaint.into(),
            scope: SuppressionScope::Bulk.into(),
            reason: "said \"no\", twice".to_owned(),
            created_at: None,
        };
        let text = [csv_line(&COLUMNS), csv_line(&cells(&entry))].map(|line| line.expect("is written")).concat();
        let (opened, path) = lines("round-trip", &String::from_utf8(text).expect("is text"));
        let entries = opened.expect("opens").piece().expect("reads").expect("has some");
        assert_eq!(entries.len(), 1);
        assert_eq!(
            (&entries[0].email, entries[0].cause(), &entries[0].reason),
            (&entry.email, entry.cause(), &entry.reason)
        );
        std::fs::remove_file(path).expect("removes");
    }
}
