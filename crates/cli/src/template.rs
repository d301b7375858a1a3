//! `template`: what a tenant's mails are made from.

mod args;
mod folder;

pub use args::TemplateCommand;

use crate::{
    api,
    exit::{Exit, Failure},
    output::{Output, Table, safe},
    reach::Reach,
    send::{parse_address, template_ref, variables},
};
use anyhow::Context;
use args::{PartArg, PreviewArgs};
use client::Client;
use folder::Folder;
use proto::v1::{
    CreateTemplateRequest, DiffTemplateVersionsRequest, Finding, GetTemplateRequest, GetTemplateVersionRequest,
    GetTemplateVersionResponse, IncludedTemplate, ListTemplatesRequest, Mail, PreviewTemplateRequest,
    PreviewTemplateResponse, PublishTemplateVersionRequest, Recipient, Severity, Template, TemplatePurpose,
    TemplateVersionSummary, preview_template_request::What, publish_template_version_request::Body,
    template_translation,
};
use serde_json::{Map, Value, json};
use std::{fs, path::Path};
use tonic::{Code, Status};
use tonic_types::StatusExt;

/// Templates fetched at a time.
const PAGE: u32 = 1_000;

/// Does what the command line says.
pub async fn run(command: TemplateCommand, reach: &Reach, out: Output) -> anyhow::Result<Exit> {
    let api = reach.api_for_tenant().await?;
    match command {
        TemplateCommand::List => list(&api, out).await,
        TemplateCommand::Get { template, out: folder } => get(&template, folder.as_deref(), &api, out).await,
        TemplateCommand::Publish { template, folder, create, check } => {
            publish(template, &folder, create, check, &api, out).await
        }
        TemplateCommand::Diff { template, from, to, context } => {
            let request = DiffTemplateVersionsRequest {
                template,
                from_version: from.unwrap_or(0),
                to_version: to.unwrap_or(0),
                context_lines: Some(context),
            };
            diff(request, &api, out).await
        }
        TemplateCommand::Preview(args) => preview(args, &api, out).await,
    }
}

async fn list(api: &Client, out: Output) -> anyhow::Result<Exit> {
    let mut templates: Vec<Template> = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = ListTemplatesRequest { page_size: PAGE, page_token };
        let page = api.templates().list_templates(request).await?.into_inner();
        templates.extend(page.templates);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    let value: Vec<Value> = templates.iter().map(template_json).collect();
    out.answer(&json!({"templates": value}), || {
        if templates.is_empty() {
            return "no templates; `mailfleet template publish NAME FOLDER --create` makes one".to_owned();
        }
        let mut table = Table::new(1, &["name", "latest", "made", "id"]);
        for one in &templates {
            let made = one.created_at.as_ref().map(api::time).unwrap_or_default();
            table.row(vec![
                one.name.clone(),
                version_words(one.latest_version),
                made.format("%Y-%m-%d %H:%M").to_string(),
                one.template_id.clone(),
            ]);
        }
        table.text()
    })?;
    Ok(Exit::Ok)
}

fn version_words(version: u32) -> String {
    if version == 0 { "-".to_owned() } else { version.to_string() }
}

fn template_json(template: &Template) -> Value {
    json!({
        "template_id": template.template_id, "name": template.name, "latest_version": template.latest_version,
        "created_at": template.created_at.as_ref().map(api::time),
    })
}

async fn get(template: &str, folder: Option<&Path>, api: &Client, out: Output) -> anyhow::Result<Exit> {
    let reference = template_ref(template)?;
    if folder.is_none() && !template.contains('@') {
        return overview(reference.template, api, out).await;
    }
    let request = GetTemplateVersionRequest { template: reference.template, version: reference.version };
    let answer = api.templates().get_template_version(request).await?.into_inner();
    let source = answer.source.clone().unwrap_or_default();
    if let Some(folder) = folder {
        folder::write(folder, &source)?;
        let value = json!({"name": answer.name, "version": answer.version, "folder": folder.display().to_string()});
        out.answer(&value, || format!("{}@{} is in {}", answer.name, answer.version, folder.display()))?;
        return Ok(Exit::Ok);
    }
    out.answer(&version_json(&answer, &source), || version_text(&answer, &source, out))?;
    Ok(Exit::Ok)
}

async fn overview(name: String, api: &Client, out: Output) -> anyhow::Result<Exit> {
    let answer = api.templates().get_template(GetTemplateRequest { name }).await?.into_inner();
    let template = answer.template.unwrap_or_default();
    let mut value = template_json(&template);
    let version = |one: &TemplateVersionSummary| {
        json!({
            "version": one.version, "published_at": one.published_at.as_ref().map(api::time),
            "purpose": purpose(one.purpose()), "languages": one.languages,
        })
    };
    value["versions"] = answer.versions.iter().map(version).collect();
    out.answer(&value, || {
        let mut table = Table::new(4, &["version", "published", "purpose", "translations"]);
        for one in &answer.versions {
            let published = one.published_at.as_ref().map(api::time).unwrap_or_default();
            table.row(vec![
                one.version.to_string(),
                published.format("%Y-%m-%d %H:%M:%S UTC").to_string(),
                purpose(one.purpose()).to_owned(),
                one.languages.join(", "),
            ]);
        }
        let versions = if table.is_empty() { "nothing is published\n".to_owned() } else { table.text() };
        format!(
            "{} ({})\n\n{versions}\nsee a version with: mailfleet template get {}@VERSION",
            template.name, template.template_id, template.name
        )
    })?;
    Ok(Exit::Ok)
}

fn purpose(purpose: TemplatePurpose) -> &'static str {
    match purpose {
        TemplatePurpose::Partial => "partial",
        TemplatePurpose::Mail | TemplatePurpose::Unspecified => "mail",
    }
}

fn parts(source: &PublishTemplateVersionRequest) -> Vec<(String, &str)> {
    let mut parts = vec![("subject".to_owned(), source.subject.as_str())];
    match &source.body {
        Some(Body::Mjml(text)) => parts.push(("mjml".to_owned(), text)),
        Some(Body::Html(text)) => parts.push(("html".to_owned(), text)),
        None => {}
    }
    parts.push(("text".to_owned(), &source.text));
    parts.push(("defaults_json".to_owned(), &source.defaults_json));
    for one in &source.translations {
        let name = |part: &str| format!("{}: {part}", one.language);
        parts.push((name("subject"), &one.subject));
        match &one.body {
            Some(template_translation::Body::Mjml(text)) => parts.push((name("mjml"), text)),
            Some(template_translation::Body::Html(text)) => parts.push((name("html"), text)),
            None => {}
        }
        parts.push((name("text"), &one.text));
        parts.push((name("defaults_json"), &one.defaults_json));
    }
    parts.retain(|(_, text)| !text.is_empty());
    parts
}

fn version_json(answer: &GetTemplateVersionResponse, source: &PublishTemplateVersionRequest) -> Value {
    let parts: Map<String, Value> = parts(source).into_iter().map(|(name, text)| (name, Value::from(text))).collect();
    let variables: Vec<Value> = source
        .variables
        .iter()
        .map(|one| {
            json!({
                "name": one.name, "type": type_word(one.r#type()), "optional": one.optional,
                "default": serde_json::from_str::<Value>(&one.default_json).ok(), "description": one.description,
            })
        })
        .collect();
    json!({
        "template_id": answer.template_id, "name": answer.name, "version": answer.version,
        "published_at": answer.published_at.as_ref().map(api::time), "purpose": purpose(source.purpose()),
        "language": source.language, "parts": parts, "variables": variables,
        "required_variables": answer.required_variables, "includes": includes(&answer.includes),
        "findings": findings_json(&answer.findings),
    })
}

/// `VARIABLE_TYPE_STRING` as `string`.
fn type_word(kind: proto::v1::VariableType) -> String {
    kind.as_str_name().trim_start_matches("VARIABLE_TYPE_").to_lowercase()
}

fn includes(included: &[IncludedTemplate]) -> Vec<String> {
    included.iter().map(|one| format!("{}@{}", one.template, one.version)).collect()
}

fn version_text(answer: &GetTemplateVersionResponse, source: &PublishTemplateVersionRequest, out: Output) -> String {
    let published = answer.published_at.as_ref().map(api::time).unwrap_or_default();
    let mut text =
        format!("{}@{}, published {}\n", answer.name, answer.version, published.format("%Y-%m-%d %H:%M:%S UTC"));
    let mut told = |what: &str, words: String| {
        if !words.is_empty() {
            text.push_str(&format!("{what}: {words}\n"));
        }
    };
    told("language", source.language.clone());
    told("takes in", includes(&answer.includes).join(", "));
    told("wants", safe(&answer.required_variables.join(", ")));
    for one in &source.variables {
        let optional = if one.optional { ", optional" } else { "" };
        let default =
            if one.default_json.is_empty() { String::new() } else { format!(", default {}", one.default_json) };
        told("variable", safe(&format!("{} is {}{optional}{default}", one.name, type_word(one.r#type()))));
    }
    for (name, part) in parts(source) {
        text.push_str(&format!("\n--- {name}\n{}\n", shown(part, out).trim_end()));
    }
    if !answer.findings.is_empty() {
        text.push_str(&format!("\n{}", findings_text(&answer.findings, |field| field.to_owned())));
    }
    text
}

/// Text of several lines as it is, but on a terminal without what could steer it.
fn shown(text: &str, out: Output) -> String {
    if !out.terminal {
        return text.to_owned();
    }
    let plain = |c: char| if matches!(c, '\n' | '\t') || !domain::text::is_deceptive(c) { c } else { '\u{fffd}' };
    text.replace("\r\n", "\n").chars().map(plain).collect()
}

async fn publish(
    template: String,
    path: &Path,
    create: bool,
    check: bool,
    api: &Client,
    out: Output,
) -> anyhow::Result<Exit> {
    let folder = Folder::read(path)?;
    if create && !check {
        let made = api.templates().create_template(CreateTemplateRequest { name: template.clone() }).await;
        match made {
            Err(status) if status.code() != Code::AlreadyExists => return Err(status.into()),
            _ => {}
        }
    }
    let request =
        PublishTemplateVersionRequest { template: template.clone(), validate_only: check, ..folder.source.clone() };
    let answer = api.templates().publish_template_version(request).await;
    let answer = answer.map_err(|status| refused(status, &folder))?.into_inner();
    let file = |field: &str| folder.file_of(field).display().to_string();
    let value = json!({
        "name": template, "version": (!check).then_some(answer.version), "includes": includes(&answer.includes),
        "findings": findings_json(&answer.findings),
    });
    out.answer(&value, || {
        let mut text = findings_text(&answer.findings, file);
        text.push_str(&if check {
            "it could be published; nothing was stored".to_owned()
        } else {
            format!("{template}@{} is published", answer.version)
        });
        text
    })?;
    Ok(Exit::Ok)
}

/// Every fault with its file; other failures as they are.
fn refused(status: Status, folder: &Folder) -> anyhow::Error {
    let faults = status.get_details_bad_request().map(|bad| bad.field_violations).unwrap_or_default();
    let faults: Vec<_> = faults.iter().filter(|one| one.field != "template").collect();
    if status.code() != Code::InvalidArgument || faults.is_empty() {
        return status.into();
    }
    let lines = faults.iter().map(|one| {
        let place = folder.file_of(&one.field).display().to_string();
        match one.description.strip_prefix("line ").and_then(|rest| rest.split_once(": ")) {
            Some((line, rest)) => format!("{place}:{line}: {}: {}", one.field, safe(rest)),
            None => format!("{place}: {}: {}", one.field, safe(&one.description)),
        }
    });
    Failure::finding(format!("refused, and nothing was stored\n{}", lines.collect::<Vec<_>>().join("\n")))
}

fn severity(finding: &Finding) -> &'static str {
    match finding.severity() {
        Severity::Warning => "warning",
        Severity::Info | Severity::Unspecified => "info",
    }
}

fn findings_json(findings: &[Finding]) -> Value {
    findings
        .iter()
        .map(|one| {
            json!({
                "severity": severity(one), "field": one.field, "line": (one.line > 0).then_some(one.line),
                "problem": one.problem, "fix": one.fix,
            })
        })
        .collect()
}

/// A line for each: place, severity, problem and fix.
fn findings_text(findings: &[Finding], place: impl Fn(&str) -> String) -> String {
    let line = |one: &Finding| {
        let line = if one.line > 0 { format!(":{}", one.line) } else { String::new() };
        format!("{}{line}: {}: {}; {}\n", place(&one.field), severity(one), safe(&one.problem), safe(&one.fix))
    };
    findings.iter().map(line).collect()
}

async fn diff(request: DiffTemplateVersionsRequest, api: &Client, out: Output) -> anyhow::Result<Exit> {
    let answer = api.templates().diff_template_versions(request).await?.into_inner();
    let parts: Vec<Value> = answer
        .parts
        .iter()
        .map(|one| {
            json!({
                "part": one.part, "unified_diff": one.unified_diff, "lines_added": one.lines_added,
                "lines_removed": one.lines_removed,
            })
        })
        .collect();
    let value = json!({"from_version": answer.from_version, "to_version": answer.to_version, "parts": parts});
    out.answer(&value, || {
        if answer.parts.is_empty() {
            return format!("versions {} and {} have the same source", answer.from_version, answer.to_version);
        }
        answer.parts.iter().map(|one| shown(&one.unified_diff, out)).collect()
    })?;
    Ok(if answer.parts.is_empty() { Exit::Ok } else { Exit::Finding })
}

async fn preview(args: PreviewArgs, api: &Client, out: Output) -> anyhow::Result<Exit> {
    let folder = args.folder.as_deref().map(Folder::read).transpose()?;
    let what = match (&folder, &args.template) {
        (Some(folder), _) => What::Source(folder.source.clone()),
        (None, template) => What::Template(template_ref(template.as_deref().unwrap_or_default())?),
    };
    let mut given = match &args.vars_file {
        None => Map::new(),
        Some(path) => {
            let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
            serde_json::from_str(&text)
                .map_err(|error| Failure::usage(format!("{} is no JSON object: {error}", path.display())))?
        }
    };
    given.extend(variables(&args.vars)?);
    let recipient = Recipient {
        email: args.to,
        variables_json: Value::Object(given).to_string(),
        language: args.language,
        ..Recipient::default()
    };
    let mail = args.from.as_deref().map(|from| Mail { from: Some(parse_address(from)), ..Mail::default() });
    let request = PreviewTemplateRequest { what: Some(what), recipient: Some(recipient), mail };
    let answer = api.templates().preview_template(request).await;
    let answer = match (answer, &folder) {
        (Ok(answer), _) => answer.into_inner(),
        (Err(status), Some(folder)) => return Err(refused(status, folder)),
        (Err(status), None) => return Err(status.into()),
    };
    if let Some(path) = &args.eml {
        fs::write(path, &answer.eml).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let value = json!({
        "version": (answer.version > 0).then_some(answer.version), "language": answer.language,
        "subject": answer.subject, "html": answer.html, "text": answer.text,
        "eml": String::from_utf8_lossy(&answer.eml), "findings": findings_json(&answer.findings),
    });
    out.answer(&value, || preview_text(&answer, args.part, args.eml.as_deref(), out))?;
    Ok(Exit::Ok)
}

fn preview_text(answer: &PreviewTemplateResponse, part: Option<PartArg>, eml: Option<&Path>, out: Output) -> String {
    match part {
        Some(PartArg::Subject) => return shown(&answer.subject, out),
        Some(PartArg::Html) => return shown(&answer.html, out),
        Some(PartArg::Text) => return shown(&answer.text, out),
        Some(PartArg::Eml) => return shown(&String::from_utf8_lossy(&answer.eml), out),
        None => {}
    }
    let mut text = findings_text(&answer.findings, |field| field.to_owned());
    if !text.is_empty() {
        text.push('\n');
    }
    if !answer.language.is_empty() {
        text.push_str(&format!("Language: {}\n", answer.language));
    }
    text.push_str(&format!("Subject: {}\n\n{}", safe(&answer.subject), shown(&answer.text, out)));
    if let Some(path) = eml {
        text.push_str(&format!("\nthe whole mail is in {}", path.display()));
    }
    text
}
