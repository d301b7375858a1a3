//! The command line of `template`.

use clap::{Args, Subcommand, ValueEnum};
use std::path::PathBuf;

/// What a folder of a template holds, for `--help`.
const FOLDER: &str = "A template is a folder:
  subject.txt      the subject
  body.mjml        the body as MJML; or body.html
  body.txt         the text part; without it one is made from the body
  defaults.json    values for variables that a recipient lacks
  template.json    {\"language\": \"en\", \"purpose\": \"mail\" or \"partial\", \"lane\": \"bulk\" or \"transactional\",
                    \"variables\": [{\"name\": \"items[].price\", \"type\": \"number\", \"optional\": true,
                                   \"default\": 0, \"description\": \"...\"}]}
  de/, pt-BR/ ...  the first four in another language

Types are any, string, number, integer, boolean, list and object. Parts may take in the same part of other
templates: {% include \"footer\" %}, {% extends \"layout\" %} with {% block name %} ... {% endblock %}.";

#[derive(Debug, Subcommand)]
pub enum TemplateCommand {
    /// All templates of the tenant
    List,
    /// A template, or what one of its versions was published from
    Get {
        /// NAME, or NAME@VERSION
        template: String,
        /// Write the source of the version into this folder, as `publish` reads it
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
    },
    /// Publish a folder as the next version, and tell what should be looked at
    ///
    /// Ends with 1 when it is refused: every fault is told with file and line, and nothing is stored.
    #[command(after_help = FOLDER)]
    Publish {
        /// The template's name
        template: String,
        /// The folder
        folder: PathBuf,
        /// Make the template when there is none of this name
        #[arg(long)]
        create: bool,
        /// Look only, and store nothing
        #[arg(long)]
        check: bool,
    },
    /// How two versions differ, part by part, as a unified diff
    ///
    /// Ends with 1 when they do.
    Diff {
        /// The template's name
        template: String,
        /// The version to compare from; without it, the one before
        from: Option<u32>,
        /// The version to compare to; without it, the newest
        to: Option<u32>,
        /// Unchanged lines around each change
        #[arg(long, value_name = "LINES", default_value_t = 3)]
        context: u32,
    },
    /// Render a mail for one recipient and send nothing
    ///
    /// Shows the subject and the text part. The mail is what would be sent but for its signatures.
    Preview(PreviewArgs),
}

#[derive(Debug, Args)]
pub struct PreviewArgs {
    /// NAME, or NAME@VERSION
    #[arg(required_unless_present = "folder", conflicts_with = "folder")]
    pub template: Option<String>,
    /// A folder that is not published yet, instead
    #[arg(long, value_name = "DIR")]
    pub folder: Option<PathBuf>,
    /// A variable; may be repeated. NAME=TEXT, or NAME:=JSON
    #[arg(long = "var", value_name = "NAME=VALUE")]
    pub vars: Vec<String>,
    /// A file with a JSON object of variables
    #[arg(long, value_name = "FILE")]
    pub vars_file: Option<PathBuf>,
    /// The language that the recipient reads, such as de or pt-BR
    #[arg(long, value_name = "TAG", default_value = "")]
    pub language: String,
    /// The recipient
    #[arg(long, value_name = "ADDRESS", default_value = "")]
    pub to: String,
    /// The author: address, or "Name <address>"; without it, one in a sending domain of the tenant
    #[arg(long, value_name = "ADDRESS")]
    pub from: Option<String>,
    /// Print this part alone
    #[arg(long, value_enum)]
    pub part: Option<PartArg>,
    /// Write the whole mail into this file
    #[arg(long, value_name = "FILE")]
    pub eml: Option<PathBuf>,
}

/// A part of a mail.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum PartArg {
    /// The subject
    Subject,
    /// The HTML part
    Html,
    /// The text part
    Text,
    /// The whole mail
    Eml,
}
