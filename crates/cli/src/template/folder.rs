//! A template as a folder of files, which is how its author keeps it.

use crate::exit::Failure;
use anyhow::Context;
use domain::TrackingChoice;
use proto::v1::{
    Lane, PublishTemplateVersionRequest, TemplatePurpose, TemplateTranslation, TemplateVariable, Tracking,
    VariableType, publish_template_version_request, template_translation,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{
    fs, io,
    path::{Path, PathBuf},
};

const SUBJECT: &str = "subject.txt";
const MJML: &str = "body.mjml";
const HTML: &str = "body.html";
const TEXT: &str = "body.txt";
const DEFAULTS: &str = "defaults.json";
const SETTINGS: &str = "template.json";
/// The types of variables by the words of `template.json`.
const TYPES: [(&str, VariableType); 7] = [
    ("any", VariableType::Any),
    ("string", VariableType::String),
    ("number", VariableType::Number),
    ("integer", VariableType::Integer),
    ("boolean", VariableType::Boolean),
    ("list", VariableType::List),
    ("object", VariableType::Object),
];

/// `template.json`.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    #[serde(skip_serializing_if = "String::is_empty")]
    language: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    purpose: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    lane: String,
    #[serde(skip_serializing_if = "TrackingChoice::is_open")]
    tracking: TrackingChoice,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    variables: Vec<Variable>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Variable {
    name: String,
    #[serde(rename = "type", skip_serializing_if = "String::is_empty")]
    kind: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    optional: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    default: Option<Value>,
    #[serde(skip_serializing_if = "String::is_empty")]
    description: String,
}

/// The parts of one language.
struct Parts {
    subject: String,
    mjml: Option<String>,
    html: Option<String>,
    text: String,
    defaults: String,
}

/// A folder that was read.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    /// The languages of its translations, in their order in the request.
    languages: Vec<String>,
    /// What it holds, for no template yet.
    pub source: PublishTemplateVersionRequest,
}

impl Folder {
    /// Reads a folder.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let listing = fs::read_dir(path).with_context(|| format!("cannot read the folder {}", path.display()))?;
        let mut languages = Vec::new();
        for entry in listing {
            let entry = entry.with_context(|| format!("cannot read the folder {}", path.display()))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if entry.path().is_dir() && !name.starts_with('.') {
                languages.push(name);
            }
        }
        languages.sort();
        let own = read_parts(path)?;
        let settings = settings(path)?;
        let mut translations = Vec::new();
        for language in &languages {
            let Parts { subject, mjml, html, text, defaults } = read_parts(&path.join(language))?;
            let mjml = mjml.map(template_translation::Body::Mjml);
            translations.push(TemplateTranslation {
                language: language.clone(),
                subject,
                body: mjml.or_else(|| html.map(template_translation::Body::Html)),
                text,
                defaults_json: defaults,
            });
        }
        let here = path.join(SETTINGS);
        let purpose = match settings.purpose.as_str() {
            "" | "mail" => TemplatePurpose::Mail,
            "partial" => TemplatePurpose::Partial,
            _ => return Err(Failure::usage(format!("{}: purpose must be mail or partial", here.display()))),
        };
        let lane = match settings.lane.as_str() {
            "" => Lane::Unspecified,
            "transactional" => Lane::Transactional,
            "bulk" => Lane::Bulk,
            _ => return Err(Failure::usage(format!("{}: lane must be transactional or bulk", here.display()))),
        };
        let variables: anyhow::Result<_> = settings.variables.into_iter().map(|one| variable(&here, one)).collect();
        let mjml = own.mjml.map(publish_template_version_request::Body::Mjml);
        let source = PublishTemplateVersionRequest {
            template: String::new(),
            subject: own.subject,
            body: mjml.or_else(|| own.html.map(publish_template_version_request::Body::Html)),
            text: own.text,
            defaults_json: own.defaults,
            language: settings.language,
            translations,
            variables: variables?,
            purpose: purpose.into(),
            lane: lane.into(),
            validate_only: false,
            tracking: (!settings.tracking.is_open()).then(|| {
                let TrackingChoice { opens, clicks } = settings.tracking;
                Tracking { opens, clicks }
            }),
        };
        Ok(Self { path: path.to_owned(), languages, source })
    }

    /// The file behind a field of the request.
    pub fn file_of(&self, field: &str) -> PathBuf {
        let inner = field.strip_prefix("translations[").and_then(|rest| rest.split_once(']'));
        let (folder, field) =
            match inner.and_then(|(at, rest)| Some((self.languages.get(at.parse::<usize>().ok()?)?, rest))) {
                Some((language, rest)) => (self.path.join(language), rest.trim_start_matches('.')),
                None => (self.path.clone(), field),
            };
        let file = match field.split(['.', '[', ',']).next().unwrap_or(field) {
            "subject" => SUBJECT,
            "mjml" => MJML,
            "html" => HTML,
            "text" => TEXT,
            "defaults_json" => DEFAULTS,
            "language" | "variables" | "purpose" | "lane" | "tracking" => SETTINGS,
            _ => return folder,
        };
        folder.join(file)
    }
}

/// The text of a file, and nothing when there is none.
fn text_of(path: &Path) -> anyhow::Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

fn read_parts(folder: &Path) -> anyhow::Result<Parts> {
    let (mjml, html) = (text_of(&folder.join(MJML))?, text_of(&folder.join(HTML))?);
    if mjml.is_some() && html.is_some() {
        return Err(Failure::usage(format!("{} has {MJML} and {HTML}; keep one", folder.display())));
    }
    Ok(Parts {
        // The line end that editors add is none of the subject's.
        subject: text_of(&folder.join(SUBJECT))?.unwrap_or_default().trim_end_matches(['\r', '\n']).to_owned(),
        mjml,
        html,
        text: text_of(&folder.join(TEXT))?.unwrap_or_default(),
        defaults: text_of(&folder.join(DEFAULTS))?.unwrap_or_default().trim().to_owned(),
    })
}

fn settings(folder: &Path) -> anyhow::Result<Settings> {
    let path = folder.join(SETTINGS);
    match text_of(&path)? {
        None => Ok(Settings::default()),
        Some(text) => {
            serde_json::from_str(&text).map_err(|error| Failure::usage(format!("{}: {error}", path.display())))
        }
    }
}

fn variable(here: &Path, given: Variable) -> anyhow::Result<TemplateVariable> {
    let kind = match given.kind.as_str() {
        "" => Some(VariableType::Any),
        word => TYPES.iter().find(|(known, _)| *known == word).map(|(_, kind)| *kind),
    };
    let kind = kind.ok_or_else(|| {
        let words: Vec<&str> = TYPES.iter().map(|(word, _)| *word).collect();
        Failure::usage(format!("{}: the type of {} must be one of {}", here.display(), given.name, words.join(", ")))
    })?;
    Ok(TemplateVariable {
        name: given.name,
        r#type: kind.into(),
        optional: given.optional,
        default_json: given.default.map(|value| value.to_string()).unwrap_or_default(),
        description: given.description,
    })
}

/// Writes a source into a folder, as [`Folder::read`] reads it. Files of other names stay; a part that the source
/// lacks is removed.
pub fn write(path: &Path, source: &PublishTemplateVersionRequest) -> anyhow::Result<()> {
    let (mjml, html) = match &source.body {
        Some(publish_template_version_request::Body::Mjml(text)) => (Some(text.as_str()), None),
        Some(publish_template_version_request::Body::Html(text)) => (None, Some(text.as_str())),
        None => (None, None),
    };
    write_parts(path, &source.subject, (mjml, html), &source.text, &source.defaults_json)?;
    for translation in &source.translations {
        let (mjml, html) = match &translation.body {
            Some(template_translation::Body::Mjml(text)) => (Some(text.as_str()), None),
            Some(template_translation::Body::Html(text)) => (None, Some(text.as_str())),
            None => (None, None),
        };
        let folder = path.join(&translation.language);
        write_parts(&folder, &translation.subject, (mjml, html), &translation.text, &translation.defaults_json)?;
    }
    let settings = Settings {
        language: source.language.clone(),
        purpose: match source.purpose() {
            TemplatePurpose::Partial => "partial".to_owned(),
            TemplatePurpose::Mail | TemplatePurpose::Unspecified => String::new(),
        },
        lane: match source.lane() {
            Lane::Unspecified => String::new(),
            Lane::Transactional => "transactional".to_owned(),
            Lane::Bulk => "bulk".to_owned(),
        },
        tracking: source
            .tracking
            .map_or_else(TrackingChoice::default, |Tracking { opens, clicks }| TrackingChoice { opens, clicks }),
        variables: source.variables.iter().map(write_variable).collect(),
    };
    let value = serde_json::to_value(&settings)?;
    let text = if value == Value::Object(serde_json::Map::new()) {
        None
    } else {
        Some(serde_json::to_string_pretty(&value)? + "\n")
    };
    put(&path.join(SETTINGS), text.as_deref())
}

fn write_variable(variable: &TemplateVariable) -> Variable {
    let word = TYPES.iter().find(|(_, kind)| *kind == variable.r#type()).map_or("any", |(word, _)| word);
    Variable {
        name: variable.name.clone(),
        kind: word.to_owned(),
        optional: variable.optional,
        default: serde_json::from_str(&variable.default_json).ok(),
        description: variable.description.clone(),
    }
}

fn write_parts(
    folder: &Path,
    subject: &str,
    (mjml, html): (Option<&str>, Option<&str>),
    text: &str,
    defaults: &str,
) -> anyhow::Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let filled = |text: String| Some(text).filter(|text| !text.trim().is_empty());
    put(&folder.join(SUBJECT), filled(format!("{subject}\n")).as_deref())?;
    put(&folder.join(MJML), mjml)?;
    put(&folder.join(HTML), html)?;
    put(&folder.join(TEXT), filled(text.to_owned()).as_deref())?;
    let laid_out = serde_json::from_str::<Value>(defaults).ok();
    let laid_out = laid_out.map(|value| serde_json::to_string_pretty(&value)).transpose()?;
    put(&folder.join(DEFAULTS), laid_out.map(|text| text + "\n").as_deref())
}

fn put(path: &Path, text: Option<&str>) -> anyhow::Result<()> {
    match text {
        Some(text) => fs::write(path, text).with_context(|| format!("cannot write {}", path.display())),
        None => match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove {}", path.display()))
            }
            _ => Ok(()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("mailfleet-template-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("is made");
        path
    }

    #[test]
    fn what_is_written_reads_back_the_same() {
        let path = folder("round");
        let source = PublishTemplateVersionRequest {
            subject: "Hi {{ name }}".to_owned(),
            body: Some(publish_template_version_request::Body::Html("<p>Hi</p>\n".to_owned())),
            defaults_json: r#"{"name":"you"}"#.to_owned(),
            language: "en".to_owned(),
            translations: vec![TemplateTranslation {
                language: "de".to_owned(),
                subject: "Hallo".to_owned(),
                body: Some(template_translation::Body::Mjml("<mjml></mjml>".to_owned())),
                ..TemplateTranslation::default()
            }],
            variables: vec![TemplateVariable {
                name: "age".to_owned(),
                r#type: VariableType::Integer.into(),
                default_json: "3".to_owned(),
                ..TemplateVariable::default()
            }],
            purpose: TemplatePurpose::Mail.into(),
            lane: Lane::Bulk.into(),
            tracking: Some(Tracking { opens: Some(false), clicks: None }),
            ..PublishTemplateVersionRequest::default()
        };
        fs::write(path.join(MJML), "of an earlier version").expect("is written");
        write(&path, &source).expect("is written");
        let mut read = Folder::read(&path).expect("is read");
        read.source.defaults_json.retain(|c| !c.is_whitespace());
        assert_eq!(read.source, source);
        assert_eq!(read.file_of("translations[0].mjml"), path.join("de").join(MJML));
        assert_eq!(read.file_of("variables[0].name"), path.join(SETTINGS));
        assert_eq!(read.file_of("html"), path.join(HTML));
        fs::remove_dir_all(path).expect("is removed");
    }

    #[test]
    fn settings_that_mean_nothing_are_told_with_their_file() {
        let path = folder("settings");
        for bad in [r#"{"lane":"fast"}"#, r#"{"variables":[{"name":"x","type":"text"}]}"#, r#"{"langauge":"de"}"#] {
            fs::write(path.join(SETTINGS), bad).expect("is written");
            let error = Folder::read(&path).expect_err("is refused");
            assert!(error.to_string().contains(SETTINGS), "{error}");
        }
        fs::remove_dir_all(path).expect("is removed");
    }
}
