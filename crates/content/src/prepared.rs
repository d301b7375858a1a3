//! One content, parsed, and the mails rendered from it.

use crate::attachment::Files;
use crate::compile::{default_values, derived_text, hide_tags};
use crate::dkim::BodyHash;
use crate::engine::{Engine, HTML, Part, UNSUBSCRIBE_URL, Values};
use crate::header::{self, AddressField, Fields};
use crate::links::MARK;
use crate::mime::{self, BuiltBody, TextPart};
use crate::raw::RawMail;
use crate::tracker::{Addressee, Marks, Wish, unmarked};
use crate::validate::{feedback_id, list_id};
use crate::{
    Body, CompiledTemplate, ContentError, Finding, Limits, MailSource, RenderError, ReturnPath, SigningKey, Tracker,
    Unsubscribe, overrides,
};
use bytes::Bytes;
use domain::{
    CampaignId, DomainName, EnvelopeSender, Lane, Mailbox, MessageId, Overrides, TenantId, Token, TrackingChoice, verp,
};
use minijinja::value::Value;
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

mod leave;

use leave::{UnsubscribeParts, View};

/// The sender's own name in a `Feedback-ID` that the caller did not give.
const FEEDBACK_SENDER: &str = "mailfleet";
/// Where a preview unsubscribes, which is nobody's mail.
const NOWHERE: &str = "https://example.com/unsubscribe";

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
    /// Whether the fleet's own address is to be told, if it has one.
    hosted: bool,
    wish: Wish,
    /// What a tracker puts in; without one mails bear no tokens.
    marks: Option<Marks>,
    /// Whether `Feedback-ID` is to be made from campaign and tenant.
    feedback: bool,
    lane: Lane,
    return_path: ReturnPath,
    signing_domain: DomainName,
    files: Files,
    sandbox: bool,
    utf8: bool,
}

enum PreparedBody {
    Built { subject: Part, html: Option<Part>, text: Option<Part> },
    Raw(RawMail),
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
        let (mut template_choice, mut marked) = (TrackingChoice::default(), false);
        let is_marked = |html: Option<&str>| html.is_some_and(|html| html.contains(MARK));
        let body = match &source.body {
            Body::Template { .. } => {
                let template = template.ok_or(ContentError::Missing("template"))?;
                defaults = default_values(&template.defaults);
                let CompiledTemplate { subject, html, text, .. } = template;
                (template_choice, marked) = (template.tracking, is_marked(html.as_deref()));
                built(&mut engine, subject, html.as_deref(), text.as_deref(), &roomy)?
            }
            Body::Inline { subject, html, text } => {
                let mut text = text.clone();
                if let (Some(html), None) = (html, &text) {
                    let hidden = hide_tags(HTML, html, limits)?;
                    text = derived_text(HTML, &hidden, limits, &mut Vec::new());
                }
                marked = is_marked(html.as_deref());
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
            hosted: false,
            wish: Wish { lane: source.lane, call: source.tracking, template: template_choice, marked },
            marks: None,
            feedback: false,
            lane: source.lane,
            return_path: source.return_path.clone(),
            signing_domain: source.signing_domain.clone(),
            files: Files::new(source.attachments.iter().zip(files.iter().map(|octets| &octets[..]))),
            sandbox: source.sandbox,
            utf8: false,
            body,
        };
        prepared.fields(source)?;
        Ok(prepared)
    }

    /// The same, with what `tracker` puts into each mail. What is the same for all mails is looked through once, here.
    #[must_use]
    pub fn tracked_by(mut self, tracker: Arc<Tracker>) -> Self {
        let constant = match &self.body {
            PreparedBody::Built { html: Some(Part::Constant(html)), .. } => Some(mime::lf(html)),
            PreparedBody::Built { .. } | PreparedBody::Raw(_) => None,
        };
        self.marks = Some(Marks::new(tracker, &self.wish, &self.signing_domain, constant.as_deref()));
        self
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
        self.hosted = self.lacks("List-Unsubscribe")
            && match &source.unsubscribe {
                None => bulk,
                Some(Unsubscribe { url, hosted, .. }) => url.is_none() && (bulk || *hosted),
            };
        if let Some(Unsubscribe { mailto, url, one_click, .. }) = &source.unsubscribe
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
            ReturnPath::PerMessage(domain) => {
                EnvelopeSender(verp::return_path(message, domain, self.marks.as_ref().map(Marks::keys)))
            }
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
        let view = self.view(&request, None)?;
        self.finish(request, &view)
    }

    fn finish(&self, request: RenderRequest<'_>, view: &View) -> Result<Rendered, RenderError> {
        let scope = &view.scope;
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
                    None => self.engine.render(subject, scope)?,
                };
                fields.push_text("Subject", self.subject(&subject)?);
                let html = html.as_ref().map(|part| self.html(part, &request, view)).transpose()?;
                built = self.build(html, text.as_ref(), scope, &token)?;
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
        self.list_fields(&mut fields, &request, view)?;
        if replaced.is_empty() {
            fields.extend(&self.shared);
        } else {
            fields.extend_without(&self.shared, replaced);
        }
        for (name, label, part) in &self.own {
            if replaced.iter().any(|(own, _)| own.eq_ignore_ascii_case(name)) {
                continue;
            }
            let value = self.engine.render(part, scope)?;
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
        if let Some(marks) = &self.marks {
            // Some reports about a mail lose its return path and keep its header.
            fields.push("X-Mailfleet-Token", marks.keys().seal(&Token::Report(request.message_id)));
        }

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

    /// Renders one recipient's mail and tells its parts apart. Without a tracker `unsubscribe_url` stands for an
    /// address of nobody's. The parts are shown as they were before tracking.
    ///
    /// # Errors
    /// As [`Prepared::render`].
    pub fn preview(&self, request: RenderRequest<'_>) -> Result<Preview, RenderError> {
        let view = self.view(&request, Some(NOWHERE))?;
        let mail = self.finish(request, &view)?;
        let PreparedBody::Built { subject, html, text } = &self.body else {
            return Ok(Preview { subject: String::new(), html: None, text: None, mail });
        };
        let part = |part: &Part| self.engine.render(part, &view.scope).map(Cow::into_owned);
        let subject = part(subject)?.trim().to_owned();
        let shown = |html| if self.wish.marked { unmarked(Cow::Owned(html)).into_owned() } else { html };
        let html = html.as_ref().map(part).transpose()?.map(shown);
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

    /// A part with LF line ends.
    fn part<'a>(&self, part: &'a Part, scope: &Value) -> Result<Cow<'a, str>, RenderError> {
        Ok(match self.engine.render(part, scope)? {
            Cow::Borrowed(text) => mime::lf(text),
            Cow::Owned(text) if text.contains('\r') => Cow::Owned(mime::lf(&text).into_owned()),
            Cow::Owned(text) => Cow::Owned(text),
        })
    }

    /// The HTML part as this recipient gets it.
    fn html<'a>(&self, part: &'a Part, request: &RenderRequest<'_>, view: &View) -> Result<Cow<'a, str>, RenderError> {
        let html = self.part(part, &view.scope)?;
        let Some(marks) = &self.marks else {
            return Ok(if self.wish.marked { unmarked(html) } else { html });
        };
        // A recipient may have an address of his own instead of all others.
        let named = view.scope.get_attr(UNSUBSCRIBE_URL).ok();
        let to = Addressee {
            message: request.message_id,
            untracked: request.overrides.is_some_and(|own| own.untracked),
            leave: [named.as_ref().and_then(Value::as_str), view.own_url.as_deref()],
        };
        Ok(marks.put_into(html, to))
    }

    fn build(
        &self,
        html: Option<Cow<'_, str>>,
        text: Option<&Part>,
        scope: &Value,
        token: &str,
    ) -> Result<BuiltBody, RenderError> {
        let text = text.map(|part| self.part(part, scope)).transpose()?;
        let of = |subtype, text| TextPart { subtype, text };
        let parts = [text.map(|text| of("plain", text)), html.map(|html| of("html", html))];
        let parts: Vec<_> = parts.into_iter().flatten().collect();
        Ok(mime::build(&parts, token, &self.files))
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
