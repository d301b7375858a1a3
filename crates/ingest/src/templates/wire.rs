//! Template sources between the API and what is stored.

use crate::validate::{Faults, Violation, json_object, language, tracking};
use content::{Declaration, Finding, Included, Report, TemplateSource, Translation, VariableKind, VersionSource};
use domain::{Lane, TrackingChoice};
use proto::v1::{
    self, ErrorReason, IncludedTemplate, PublishTemplateVersionRequest, TemplatePurpose, TemplateTranslation,
    TemplateVariable, VariableType, publish_template_version_request, template_translation,
};
use serde_json::{Map, Value};

/// The source of a request. Limits of the content crate are left to it.
pub fn read(request: PublishTemplateVersionRequest, faults: &mut Faults) -> VersionSource {
    let (mjml, html) = match request.body {
        Some(publish_template_version_request::Body::Mjml(text)) => (Some(text), None),
        Some(publish_template_version_request::Body::Html(text)) => (None, Some(text)),
        None => (None, None),
    };
    let parts = TemplateSource {
        subject: request.subject,
        mjml,
        html,
        text: filled(request.text),
        defaults: defaults("defaults_json", &request.defaults_json, faults),
    };
    let own = faults.take(language("language", &request.language)).flatten();
    let translations = request.translations.into_iter().enumerate();
    let translations = translations.filter_map(|(at, given)| translation(at, given, faults)).collect();
    let variables = request.variables.into_iter().enumerate();
    let variables = variables.map(|(at, given)| declaration(at, given, faults)).collect();
    let is_partial = match TemplatePurpose::try_from(request.purpose) {
        Ok(TemplatePurpose::Unspecified | TemplatePurpose::Mail) => false,
        Ok(TemplatePurpose::Partial) => true,
        Err(_) => {
            faults.add("purpose", "is not known; give TEMPLATE_PURPOSE_MAIL or TEMPLATE_PURPOSE_PARTIAL");
            false
        }
    };
    let lane = match v1::Lane::try_from(request.lane) {
        Ok(v1::Lane::Unspecified) => None,
        Ok(v1::Lane::Transactional) => Some(Lane::Transactional),
        Ok(v1::Lane::Bulk) => Some(Lane::Bulk),
        Err(_) => {
            faults.add("lane", "is not known; give LANE_TRANSACTIONAL or LANE_BULK");
            None
        }
    };
    let tracking = tracking(request.tracking);
    VersionSource { parts, language: own, translations, variables, is_partial, lane, tracking }
}

fn filled(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

fn defaults(field: &str, json: &str, faults: &mut Faults) -> Map<String, Value> {
    match json_object(json) {
        Err(fault) => {
            faults.push(Violation::of(ErrorReason::VariablesInvalid, field, fault.description()));
            Map::new()
        }
        Ok(()) => serde_json::from_str(json).unwrap_or_default(),
    }
}

fn translation(at: usize, given: TemplateTranslation, faults: &mut Faults) -> Option<Translation> {
    let field = format!("translations[{at}].language");
    let spoken = faults.take(language(&field, &given.language))?;
    let (mjml, html) = match given.body {
        Some(template_translation::Body::Mjml(text)) => (Some(text), None),
        Some(template_translation::Body::Html(text)) => (None, Some(text)),
        None => (None, None),
    };
    let parts = TemplateSource {
        subject: given.subject,
        mjml,
        html,
        text: filled(given.text),
        defaults: defaults(&format!("translations[{at}].defaults_json"), &given.defaults_json, faults),
    };
    match spoken {
        Some(language) => Some(Translation { language, parts }),
        None => {
            faults.push(Violation::of(ErrorReason::LanguageInvalid, field, "is empty; give one such as de or pt-BR"));
            None
        }
    }
}

fn declaration(at: usize, given: TemplateVariable, faults: &mut Faults) -> Declaration {
    let kind = match VariableType::try_from(given.r#type) {
        Ok(VariableType::Unspecified | VariableType::Any) => VariableKind::Any,
        Ok(VariableType::String) => VariableKind::String,
        Ok(VariableType::Number) => VariableKind::Number,
        Ok(VariableType::Integer) => VariableKind::Integer,
        Ok(VariableType::Boolean) => VariableKind::Boolean,
        Ok(VariableType::List) => VariableKind::List,
        Ok(VariableType::Object) => VariableKind::Object,
        Err(_) => {
            faults.add(format!("variables[{at}].type"), "is not known; give one of VariableType");
            VariableKind::Any
        }
    };
    let default = match given.default_json.as_str() {
        "" => None,
        // Looked at as part of an object, for the bounds that variables have.
        json => match (json_object(&format!("{{\"v\":{json}}}")), serde_json::from_str(json)) {
            (Ok(()), Ok(value)) => Some(value),
            _ => {
                let field = format!("variables[{at}].default_json");
                let text = "is not a JSON value within the bounds of variables; give one such as \"friend\", 3 or []";
                faults.push(Violation::of(ErrorReason::VariablesInvalid, field, text));
                None
            }
        },
    };
    Declaration { name: given.name, kind, optional: given.optional, default, description: given.description }
}

/// A source as the API takes it.
pub fn write(template: &str, source: VersionSource) -> PublishTemplateVersionRequest {
    let TemplateSource { subject, mjml, html, text, defaults } = source.parts;
    let mjml = mjml.map(publish_template_version_request::Body::Mjml);
    PublishTemplateVersionRequest {
        template: template.to_owned(),
        subject,
        body: mjml.or_else(|| html.map(publish_template_version_request::Body::Html)),
        text: text.unwrap_or_default(),
        defaults_json: json(defaults),
        language: source.language.map(String::from).unwrap_or_default(),
        translations: source.translations.into_iter().map(write_translation).collect(),
        variables: source.variables.into_iter().map(write_declaration).collect(),
        purpose: purpose(source.is_partial).into(),
        lane: match source.lane {
            None => v1::Lane::Unspecified,
            Some(Lane::Transactional) => v1::Lane::Transactional,
            Some(Lane::Bulk) => v1::Lane::Bulk,
        }
        .into(),
        validate_only: false,
        tracking: write_tracking(source.tracking),
    }
}

fn write_tracking(choice: TrackingChoice) -> Option<v1::Tracking> {
    let TrackingChoice { opens, clicks } = choice;
    (!choice.is_open()).then_some(v1::Tracking { opens, clicks })
}

/// What a version is for.
pub const fn purpose(is_partial: bool) -> TemplatePurpose {
    if is_partial { TemplatePurpose::Partial } else { TemplatePurpose::Mail }
}

fn json(defaults: Map<String, Value>) -> String {
    if defaults.is_empty() { String::new() } else { Value::Object(defaults).to_string() }
}

fn write_translation(translation: Translation) -> TemplateTranslation {
    let TemplateSource { subject, mjml, html, text, defaults } = translation.parts;
    let mjml = mjml.map(template_translation::Body::Mjml);
    TemplateTranslation {
        language: translation.language.into(),
        subject,
        body: mjml.or_else(|| html.map(template_translation::Body::Html)),
        text: text.unwrap_or_default(),
        defaults_json: json(defaults),
    }
}

fn write_declaration(declaration: Declaration) -> TemplateVariable {
    let kind = match declaration.kind {
        VariableKind::Any => VariableType::Any,
        VariableKind::String => VariableType::String,
        VariableKind::Number => VariableType::Number,
        VariableKind::Integer => VariableType::Integer,
        VariableKind::Boolean => VariableType::Boolean,
        VariableKind::List => VariableType::List,
        VariableKind::Object => VariableType::Object,
    };
    TemplateVariable {
        name: declaration.name,
        r#type: kind.into(),
        optional: declaration.optional,
        default_json: declaration.default.map(|value| value.to_string()).unwrap_or_default(),
        description: declaration.description,
    }
}

/// Findings as answers tell them.
pub fn findings(found: &[Finding]) -> Vec<v1::Finding> {
    found.iter().map(finding).collect()
}

fn finding(found: &Finding) -> v1::Finding {
    let severity = match found.severity {
        content::Severity::Info => v1::Severity::Info,
        // An error refuses the call, so that none is told here.
        content::Severity::Warning | content::Severity::Error => v1::Severity::Warning,
    };
    v1::Finding {
        field: found.field.clone(),
        line: found.line.and_then(|line| u32::try_from(line).ok()).unwrap_or(0),
        problem: found.problem.clone(),
        fix: found.fix.clone(),
        severity: severity.into(),
    }
}

/// What a version takes in, as answers tell it.
pub fn includes(report: &Report) -> Vec<IncludedTemplate> {
    let told = |one: &Included| IncludedTemplate { template: one.name.clone(), version: one.version };
    report.included.iter().map(told).collect()
}
