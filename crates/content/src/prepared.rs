//! One content, parsed, and the mails rendered from it.

use crate::attachment::Files;
use crate::compile::{default_values, derived_text, hide_tags};
use crate::dkim::BodyHash;
use crate::engine::{Engine, HTML, Part, Values, scope};
use crate::header::{self, AddressField, Fields};
use crate::mime::{self, BuiltBody, TextPart};
use crate::raw::RawMail;
use crate::validate::{feedback_id, https_url, list_id, mailto_url};
use crate::{
    Body, CompiledTemplate, ContentError, Finding, Limits, MailSource, RenderError, ReturnPath, SigningKey,
    Unsubscribe, overrides, verp,
};
use bytes::Bytes;
use domain::{CampaignId, EnvelopeSender, Lane, Mailbox, MessageId, Overrides, TenantId};
use minijinja::value::Value;
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

/// The sender's own name in a `Feedback-ID` that the caller did not give.
const FEEDBACK_SENDER: &str = "mailfleet";

/// A content ready to be rendered: its templates parsed, its shared header fields encoded. Keep it, share
/// it: it is `Send + Sync` and rendering changes nothing in it.
pub struct Prepared {
    engine: Engine,
    limits: Limits,
    defaults: Arc<Values>,
    body: PreparedBody,
    /// Address fields, the same for all.
    head: Fields,
    /// Whether `head` lacks a `To`, which then is the recipient's.
    own_to: bool,
    /// Further fields that are the same for all.
    shared: Fields,
    /// Further fields that are templates: name, what errors call it, value.
    own: Vec<(String, String, Part)>,
    unsubscribe: Option<UnsubscribeParts>,
    /// Whether `Feedback-ID` is to be made from campaign and tenant.
    feedback: bool,
    lane: Lane,
    return_path: ReturnPath,
    signing_domain: String,
    files: Files,
    sandbox: bool,
    utf8: bool,
}

enum PreparedBody {
    Built { subject: Part, html: Option<Part>, text: Option<Part> },
    Raw(RawMail),
}

struct UnsubscribeParts {
    url: Option<Part>,
    mailto: Option<Part>,
    one_click: bool,
}

/// One recipient's mail.
#[derive(Clone, Copy)]
pub struct RenderRequest<'a> {
    /// The message; Message-ID, Date, boundary and signature time derive from it.
    pub message_id: MessageId,
    /// Its tenant, for `Feedback-ID`.
    pub tenant: TenantId,
    /// Its campaign, for `Feedback-ID`.
    pub campaign: Option<CampaignId>,
    /// The envelope recipient.
    pub recipient: &'a Mailbox,
    /// The recipient's variables: a JSON object, or nothing.
    pub variables: &'a str,
    /// What the recipient has instead of, or beside, what the content says. A raw mail stays as it is.
    pub overrides: Option<&'a Overrides>,
    /// The keys that sign, each with a signature of its own.
    pub keys: &'a [SigningKey],
}

/// A finished mail.
#[derive(Clone, PartialEq, Eq)]
pub struct Rendered {
    /// Header and body; every line ends in CRLF. Not dot-stuffed.
    pub mime: Bytes,
    /// Whether the body needs 8BITMIME. Only raw mail ever does.
    pub eight_bit: bool,
    /// What its transaction says.
    pub envelope: Envelope,
}

/// What the transaction of a mail says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// The `MAIL FROM` address.
    pub sender: EnvelopeSender,
    /// Whether it needs SMTPUTF8: a local part, in the envelope or a header, is not ASCII.
    pub smtputf8: bool,
    /// Whether the mail is only tried, and to be sent to nobody.
    pub sandbox: bool,
}

/// A mail to be looked at, in its parts and as a whole.
#[derive(Clone)]
pub struct Preview {
    /// The subject. Empty for raw mail.
    pub subject: String,
    /// The HTML part.
    pub html: Option<String>,
    /// The text part.
    pub text: Option<String>,
    /// The whole.
    pub mail: Rendered,
}

// Neither shows what is in the mail: it may end up in a log.
impl fmt::Debug for RenderRequest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RenderRequest").field("message_id", &self.message_id).finish_non_exhaustive()
    }
}

impl fmt::Debug for Rendered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rendered").field("octets", &self.mime.len()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Preview {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Preview").field("mail", &self.mail).finish_non_exhaustive()
    }
}

impl fmt::Debug for Prepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prepared").field("lane", &self.lane).finish_non_exhaustive()
    }
}

impl Prepared {
    /// Parses a content without files. `template` and `raw` are what the body names.
    ///
    /// # Errors
    /// When what the content names is not given, or does not hold what accepting it checked.
    pub fn new(
        source: &MailSource,
        template: Option<&CompiledTemplate>,
        raw: Option<Bytes>,
        limits: &Limits,
    ) -> Result<Self, ContentError> {
        Self::with_files(source, template, raw, &[], limits)
    }

    /// As [`Prepared::new`]; `files` holds the octets of each attachment, in their order.
    ///
    /// # Errors
    /// As [`Prepared::new`].
    pub fn with_files(
        source: &MailSource,
        template: Option<&CompiledTemplate>,
        raw: Option<Bytes>,
        files: &[Bytes],
        limits: &Limits,
    ) -> Result<Self, ContentError> {
        if files.len() != source.attachments.len() {
            return Err(ContentError::Missing("attachment"));
        }
        if let Some(finding) = source.validate(limits).into_iter().next() {
            return Err(finding.into());
        }
        let mut engine = Engine::new(limits);
        // A compiled body is larger than what its author wrote.
        let roomy = Limits { max_source_bytes: usize::MAX, ..limits.clone() };
        let mut defaults = Arc::default();
        let body = match &source.body {
            Body::Template { .. } => {
                let template = template.ok_or(ContentError::Missing("template"))?;
                defaults = default_values(&template.defaults);
                let CompiledTemplate { subject, html, text, .. } = template;
                built(&mut engine, subject, html.as_deref(), text.as_deref(), &roomy)?
            }
            Body::Inline { subject, html, text } => {
                let mut text = text.clone();
                if let (Some(html), None) = (html, &text) {
                    let hidden = hide_tags(HTML, html, limits)?;
                    text = derived_text(HTML, &hidden, limits, &mut Vec::new());
                }
                built(&mut engine, subject, html.as_deref(), text.as_deref(), &roomy)?
            }
            Body::Raw { .. } => {
                let raw = raw.ok_or(ContentError::Missing("raw mail"))?;
                PreparedBody::Raw(RawMail::parse(&raw, source, limits)?)
            }
        };
        let mut prepared = Self {
            engine,
            limits: limits.clone(),
            defaults,
            head: Fields::default(),
            own_to: false,
            shared: Fields::default(),
            own: Vec::new(),
            unsubscribe: None,
            feedback: false,
            lane: source.lane,
            return_path: source.return_path.clone(),
            signing_domain: source.signing_domain.to_string(),
            files: Files::new(source.attachments.iter().zip(files.iter().map(|octets| &octets[..]))),
            sandbox: source.sandbox,
            utf8: false,
            body,
        };
        prepared.fields(source)?;
        Ok(prepared)
    }

    fn fields(&mut self, source: &MailSource) -> Result<(), Finding> {
        let to = source.to_header.as_deref().unwrap_or_default();
        match &self.body {
            PreparedBody::Raw(raw) => self.head = raw.fields.clone(),
            PreparedBody::Built { .. } => {
                self.head.push_addresses(AddressField::From, std::slice::from_ref(&source.from));
                self.head.push_addresses(AddressField::To, to);
                self.head.push_addresses(AddressField::Cc, &source.cc_header);
                self.head.push_addresses(AddressField::ReplyTo, &source.reply_to);
                self.own_to = to.is_empty();
                let all = to.iter().chain(&source.cc_header).chain(&source.reply_to).chain([&source.from]);
                self.utf8 = all.into_iter().any(|addr| addr.mailbox.needs_smtputf8());
            }
        }
        // What a raw mail says itself stands.
        for (index, (name, value)) in source.headers.iter().enumerate() {
            if self.head.has(name) {
                continue;
            }
            let label = format!("headers[{index}].value");
            match self.engine.add(&label, value, &self.limits)? {
                Part::Constant(value) => self.shared.push_text(name, &value),
                part @ Part::Template(_) => self.own.push((name.clone(), label, part)),
            }
        }
        let bulk = source.lane == Lane::Bulk;
        if self.lacks("List-Id") {
            let own = bulk.then(|| format!("<bulk.{}>", source.signing_domain));
            if let Some(id) = source.list_id.as_deref().and_then(list_id).or(own) {
                self.shared.push("List-Id", id);
            }
        }
        if self.lacks("Feedback-ID") {
            match source.feedback_id.as_ref().and_then(feedback_id) {
                Some(id) => self.shared.push("Feedback-ID", id),
                None => self.feedback = bulk,
            }
        }
        if let Some(Unsubscribe { mailto, url, one_click }) = &source.unsubscribe
            && !self.head.has("List-Unsubscribe")
        {
            let mut part = |field: &str, text: &Option<String>| -> Result<Option<Part>, Finding> {
                text.as_ref().map(|text| self.engine.add(field, text, &self.limits)).transpose()
            };
            let url = part("unsubscribe.url", url)?;
            let mailto = part("unsubscribe.mailto", mailto)?;
            self.unsubscribe = Some(UnsubscribeParts { url, mailto, one_click: *one_click });
        }
        Ok(())
    }

    /// Whether no field of this name is there yet.
    fn lacks(&self, name: &str) -> bool {
        !self.head.has(name)
            && !self.shared.has(name)
            && !self.own.iter().any(|(own, ..)| own.eq_ignore_ascii_case(name))
    }

    /// What a mail's transaction says, which is known without rendering it.
    pub fn envelope(&self, message: MessageId, recipient: &Mailbox) -> Envelope {
        let sender = match &self.return_path {
            ReturnPath::PerMessage(domain) => EnvelopeSender(verp::return_path(message, domain)),
            ReturnPath::Fixed(sender) => sender.clone(),
        };
        let smtputf8 =
            self.utf8 || recipient.needs_smtputf8() || sender.0.as_ref().is_some_and(Mailbox::needs_smtputf8);
        Envelope { sender, smtputf8, sandbox: self.sandbox }
    }

    /// Octets that every mail has, whatever its recipient's variables: its files, or its body as it was given.
    pub fn least_octets(&self) -> usize {
        match &self.body {
            PreparedBody::Raw(raw) => raw.body.len(),
            PreparedBody::Built { .. } => self.files.octets(),
        }
    }

    /// Renders, builds and signs one recipient's mail.
    ///
    /// # Errors
    /// Why this recipient's mail cannot be made; see [`RenderError::is_permanent`].
    pub fn render(&self, request: RenderRequest<'_>) -> Result<Rendered, RenderError> {
        let scope = scope(request.variables, &self.defaults, &self.limits)?;
        let token = request.message_id.as_uuid().simple().to_string();
        let created_at = request.message_id.created_at();

        let mut fields = Fields::with_capacity(2_048);
        fields.extend(&self.head);
        if self.own_to {
            fields.push("To", request.recipient.as_str());
        }
        let overrides = request.overrides.filter(|_| matches!(self.body, PreparedBody::Built { .. }));
        let replaced = overrides.map_or(&[][..], |own| own.headers.as_slice());
        let built;
        let (body, body_hash, eight_bit): (&[u8], _, _) = match &self.body {
            PreparedBody::Raw(raw) => (&raw.body, raw.body_hash.clone(), raw.eight_bit),
            PreparedBody::Built { subject, html, text } => {
                let subject = match overrides.and_then(|own| own.subject.as_deref()) {
                    Some(own) => Cow::Borrowed(own),
                    None => self.engine.render(subject, &scope)?,
                };
                fields.push_text("Subject", self.subject(&subject)?);
                built = self.build(html.as_ref(), text.as_ref(), &scope, &token)?;
                fields.push("MIME-Version", "1.0");
                fields.push("Content-Type", &built.content_type);
                fields.push("Content-Transfer-Encoding", built.encoding.as_str());
                (&built.bytes, BodyHash::of(&built.bytes), false)
            }
        };
        if !self.head.has("Date") {
            fields.push("Date", header::date(created_at));
        }
        if !self.head.has("Message-ID") {
            fields.push("Message-ID", format!("<{}@{}>", request.message_id, self.signing_domain));
        }
        self.list_fields(&mut fields, &request, &scope)?;
        if replaced.is_empty() {
            fields.extend(&self.shared);
        } else {
            fields.extend_without(&self.shared, replaced);
        }
        for (name, label, part) in &self.own {
            if replaced.iter().any(|(own, _)| own.eq_ignore_ascii_case(name)) {
                continue;
            }
            let value = self.engine.render(part, &scope)?;
            if let Some(problem) = header::text_problem(value.trim()) {
                return Err(RenderError::Header { field: label.clone(), problem });
            }
            if value.len() > self.limits.max_header_bytes {
                return Err(RenderError::Header { field: label.clone(), problem: "is too long" });
            }
            fields.push_text(name, &value);
        }
        overrides::push(replaced, &mut fields, &self.limits)?;
        fields.push("X-Mailfleet-Id", &token);

        let mut mime = Vec::with_capacity(fields.as_bytes().len() + body.len() + request.keys.len() * 1_200 + 2);
        for key in request.keys {
            key.sign_into(&mut mime, &fields, &body_hash, created_at.timestamp())?;
        }
        mime.extend_from_slice(fields.as_bytes());
        mime.extend_from_slice(b"\r\n");
        mime.extend_from_slice(body);
        if mime.len() > self.limits.max_message_bytes {
            return Err(RenderError::Limit { part: "the mail".to_owned(), limit: "octets" });
        }
        let envelope = self.envelope(request.message_id, request.recipient);
        Ok(Rendered { mime: mime.into(), eight_bit, envelope })
    }

    /// Renders one recipient's mail and tells its parts apart.
    ///
    /// # Errors
    /// As [`Prepared::render`].
    pub fn preview(&self, request: RenderRequest<'_>) -> Result<Preview, RenderError> {
        let mail = self.render(request)?;
        let PreparedBody::Built { subject, html, text } = &self.body else {
            return Ok(Preview { subject: String::new(), html: None, text: None, mail });
        };
        let scope = scope(request.variables, &self.defaults, &self.limits)?;
        let part = |part: &Part| self.engine.render(part, &scope).map(Cow::into_owned);
        let subject = part(subject)?.trim().to_owned();
        let html = html.as_ref().map(part).transpose()?;
        let text = text.as_ref().map(part).transpose()?;
        Ok(Preview { subject, html, text, mail })
    }

    fn subject<'a>(&self, text: &'a str) -> Result<&'a str, RenderError> {
        let text = text.trim();
        let problem = if text.is_empty() {
            Some("is empty")
        } else if text.chars().count() > self.limits.max_subject_chars {
            Some("is too long")
        } else {
            header::text_problem(text)
        };
        problem.map_or(Ok(text), |problem| Err(RenderError::Header { field: "subject".to_owned(), problem }))
    }

    fn build(
        &self,
        html: Option<&Part>,
        text: Option<&Part>,
        scope: &Value,
        token: &str,
    ) -> Result<BuiltBody, RenderError> {
        let mut parts = Vec::with_capacity(2);
        for (subtype, part) in [("plain", text), ("html", html)] {
            let Some(part) = part else { continue };
            let text = match self.engine.render(part, scope)? {
                Cow::Borrowed(text) => mime::lf(text),
                Cow::Owned(text) if text.contains('\r') => Cow::Owned(mime::lf(&text).into_owned()),
                Cow::Owned(text) => Cow::Owned(text),
            };
            parts.push(TextPart { subtype, text });
        }
        Ok(mime::build(&parts, token, &self.files))
    }

    fn list_fields(&self, fields: &mut Fields, request: &RenderRequest<'_>, scope: &Value) -> Result<(), RenderError> {
        if let Some(UnsubscribeParts { url, mailto, one_click }) = &self.unsubscribe {
            let refused = |field: &str, problem| RenderError::Header { field: field.to_owned(), problem };
            let mut ways = Vec::with_capacity(2);
            if let Some(part) = url {
                let url = self.engine.render(part, scope)?;
                let url = https_url(&url).map_err(|problem| refused("unsubscribe.url", problem))?;
                ways.push(format!("<{url}>"));
            }
            if let Some(part) = mailto {
                let mailto = self.engine.render(part, scope)?;
                let mailto = mailto_url(&mailto).map_err(|problem| refused("unsubscribe.mailto", problem))?;
                ways.push(format!("<{mailto}>"));
            }
            fields.push("List-Unsubscribe", ways.join(",\r\n "));
            if *one_click {
                fields.push("List-Unsubscribe-Post", "List-Unsubscribe=One-Click");
            }
        }
        if self.feedback {
            let campaign = request.campaign.map_or_else(String::new, |id| id.as_uuid().simple().to_string());
            let tenant = request.tenant.as_uuid().simple();
            let id = format!("{campaign}:{tenant}:{}:{FEEDBACK_SENDER}", self.lane.as_str());
            fields.push("Feedback-ID", id);
        }
        Ok(())
    }
}

fn built(
    engine: &mut Engine,
    subject: &str,
    html: Option<&str>,
    text: Option<&str>,
    limits: &Limits,
) -> Result<PreparedBody, Finding> {
    let mut add = |name: &str, source: Option<&str>| source.map(|text| engine.add(name, text, limits)).transpose();
    let subject = add("subject", Some(subject))?;
    let html = add(HTML, html)?;
    let text = add("text", text)?;
    match subject {
        Some(subject) if html.is_some() || text.is_some() => Ok(PreparedBody::Built { subject, html, text }),
        _ => Err(Finding::new("body", "has neither html nor text", "give one or both")),
    }
}
