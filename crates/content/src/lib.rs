//! From template and variables to finished, signed MIME.
//!
//! The road: [`MailSource`] says what an accepted call wants sent, [`VersionSource::build`] turns what
//! an author wrote into a [`CompiledTemplate`] for each language once, at publish. [`Prepared`] holds the parsed parts of one
//! content, is shared by every thread, and renders one recipient's mail at a time.
//!
//! Guarantees
//! - The same content, message, variables and keys give the same bytes: Message-ID, Date, MIME boundary and
//!   the time of the signature derive from the message id. (Ed25519 and PKCS#1 v1.5 signatures are
//!   deterministic.)
//! - What comes out is strict: CRLF alone ends a line, no line of a generated mail is longer than 998
//!   octets, header values hold no control characters whatever the variables held.
//! - A template has no clock, no randomness, no files and no network. What it takes in of other templates is put
//!   in place when it is published, so that a compiled one stands by itself. It ends within its fuel, which bounds
//!   time and memory together.
//! - What a [`Tracker`] puts into a mail is signed and derives from the message too. Of an HTML part nothing changes but
//!   the links that are led through it and the image it adds; finished mail that a caller gives keeps its body.
//! - A failure to render is the recipient's alone and names the variable, part and line.
//!
//! The template language is MiniJinja without macros and `do`: `{{ name }}`, `if`, `for`, `set`, `with`, `filter`
//! and `raw`, in published templates `include`, `extends`, `block` and `super()` with names that stand there, and the filters, tests and functions that a [`Finding`] lists when another is
//! used. `{{ unsubscribe_url }}` is where the recipient unsubscribes: his own variable of that name, else the address in
//! `List-Unsubscribe`, else the fleet's own, else a default of the template. A template cannot make lists grow: `a * b` wants both marked as numbers (`a | float * b | int`),
//! `a + b` one of them, and texts are joined with `~`. In HTML every value is escaped unless it is marked
//! `| safe`; in subject, text and header values none is.
//!
//! Nothing here does I/O or reads a clock, and nothing is logged.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod attachment;
mod compile;
mod declare;
mod dkim;
mod engine;
mod error;
mod finding;
mod header;
mod inspect;
mod language;
mod library;
mod limits;
mod links;
mod markup;
mod mime;
mod overrides;
mod plain;
mod prepared;
mod raw;
mod source;
mod tracker;
mod validate;
mod version;
mod vet;
mod weave;

pub use attachment::Attachment;
pub use compile::{CompiledTemplate, TemplateSource};
pub use declare::{Declaration, Declared, Misfit, VariableKind};
pub use dkim::{GeneratedKey, KeyAlgorithm, KeyError, SigningKey};
pub use engine::UNSUBSCRIBE_URL;
pub use error::{ContentError, RenderError};
pub use finding::{Finding, Severity};
pub use inspect::clipped_finding;
pub use language::{Language, LanguageError, choose};
pub use library::{Included, Ingredient, Library, Pins, Reference};
pub use limits::Limits;
pub use overrides::validate_overrides;
pub use prepared::{Envelope, Prepared, Preview, RenderRequest, Rendered};
pub use source::{Body, FeedbackId, MailSource, NameAddr, ReturnPath, Unsubscribe};
pub use tracker::Tracker;
pub use validate::validate_raw;
pub use version::{Built, Report, Rules, Translation, VersionSource};
