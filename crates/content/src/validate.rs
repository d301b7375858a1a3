//! What accepting a call checks, before anything is stored.

use crate::compile::{hide_tags, syntax};
use crate::engine::has_tags;
use crate::raw::RawMail;
use crate::{Body, FeedbackId, Finding, Limits, MailSource, NameAddr, ReturnPath, Unsubscribe, header};
use bytes::Bytes;
use domain::Mailbox;

/// Longest domain under which every message can have a return path of its own (an address has 254 octets).
const MAX_RETURN_PATH_DOMAIN: usize = 196;
/// Longest display name, in octets.
const MAX_NAME: usize = 320;
/// Longest unsubscribe address, in octets: it cannot be folded, and a line has 998.
const MAX_URL: usize = 900;

impl MailSource {
    /// Everything that is wrong with it, by field; nothing when it can be accepted. A template's and a raw
    /// mail's own content are looked at when they are stored: [`crate::TemplateSource::compile`] and
    /// [`validate_raw`].
    pub fn validate(&self, limits: &Limits) -> Vec<Finding> {
        let mut findings = Vec::new();
        name_addr("from", &self.from, &mut findings);
        let from = self.from.mailbox.domain();
        if !from.is_within(self.signing_domain.as_str()) && !self.signing_domain.is_within(from.as_str()) {
            let problem = "has a domain that the signing domain does not cover";
            let fix = format!("use an address under {}", self.signing_domain);
            findings.push(Finding::new("from.mailbox", problem, fix));
        }
        let lists = [("reply_to", Some(&self.reply_to)), ("to_header", self.to_header.as_ref())];
        for (field, list) in lists.into_iter().chain([("cc_header", Some(&self.cc_header))]) {
            let list = list.map_or(&[][..], Vec::as_slice);
            if list.len() > limits.max_header_addresses {
                let fix = format!("give at most {}", limits.max_header_addresses);
                findings.push(Finding::new(field, format!("has {} addresses", list.len()), fix));
                continue;
            }
            for (index, addr) in list.iter().enumerate() {
                name_addr(&format!("{field}[{index}]"), addr, &mut findings);
            }
        }
        self.custom_headers(limits, &mut findings);
        self.inline_body(limits, &mut findings);
        self.files(limits, &mut findings);
        if let Some(unsubscribe) = &self.unsubscribe {
            unsubscribe_ways(unsubscribe, limits, &mut findings);
        }
        if let Some(text) = &self.list_id
            && list_id(text).is_none()
        {
            let fix = "write a name and an identifier, as in Weekly news <news.example.com>";
            findings.push(Finding::new("list_id", "is not a list identifier", fix));
        }
        if let Some(id) = &self.feedback_id
            && feedback_id(id).is_none()
        {
            let fix = "give up to three parts and a sender of 5 to 15 characters, of letters, digits, '.', '_' and '-'";
            findings.push(Finding::new("feedback_id", "is not of the form that receivers read", fix));
        }
        if let ReturnPath::PerMessage(domain) = &self.return_path
            && domain.as_str().len() > MAX_RETURN_PATH_DOMAIN
        {
            let fix = format!("use a domain of at most {MAX_RETURN_PATH_DOMAIN} octets");
            findings.push(Finding::new("return_path", "is too long", fix));
        }
        findings
    }

    fn custom_headers(&self, limits: &Limits, findings: &mut Vec<Finding>) {
        if self.headers.len() > limits.max_headers {
            let fix = format!("give at most {}", limits.max_headers);
            findings.push(Finding::new("headers", format!("has {} fields", self.headers.len()), fix));
            return;
        }
        for (index, (name, value)) in self.headers.iter().enumerate() {
            let path = |part: &str| format!("headers[{index}].{part}");
            if !header::is_field_name(name) {
                let fix = "use 1 to 70 printable ASCII characters without a colon";
                findings.push(Finding::new(path("name"), "is not a header field name", fix));
            } else if !header::is_settable(name) {
                let fix = "leave it out; mailfleet makes this field, or has a field of its own for it";
                findings.push(Finding::new(path("name"), format!("{name} cannot be set"), fix));
            } else if self.makes(name) {
                findings.push(Finding::new(path("name"), format!("{name} is set twice"), "set it in one place"));
            }
            if let Some(problem) = header::text_problem(value) {
                findings.push(Finding::new(path("value"), problem, "write plain text on one line"));
            } else if value.len() > limits.max_header_bytes {
                let fix = format!("keep it within {} octets", limits.max_header_bytes);
                findings.push(Finding::new(path("value"), "is too long", fix));
            } else {
                findings.extend(syntax(&path("value"), value, limits));
            }
        }
    }

    /// Whether a field of this source already makes this header.
    fn makes(&self, name: &str) -> bool {
        let is = |field: &str| name.eq_ignore_ascii_case(field);
        (is("List-Unsubscribe") && self.unsubscribe.is_some())
            || (is("List-Id") && self.list_id.is_some())
            || (is("Feedback-ID") && self.feedback_id.is_some())
    }

    fn inline_body(&self, limits: &Limits, findings: &mut Vec<Finding>) {
        let Body::Inline { subject, html, text } = &self.body else { return };
        if subject.trim().is_empty() {
            findings.push(Finding::new("body.subject", "is missing", "give the mail a subject"));
        } else if let Some(problem) = header::text_problem(subject.trim()) {
            findings.push(Finding::new("body.subject", problem, "write plain text on one line"));
        } else if subject.chars().count() > limits.max_subject_chars {
            let fix = format!("keep it within {} characters", limits.max_subject_chars);
            findings.push(Finding::new("body.subject", "is too long", fix));
        } else {
            findings.extend(syntax("body.subject", subject, limits));
        }
        if html.is_none() && text.is_none() {
            findings.push(Finding::new("body", "has neither html nor text", "give one or both"));
        }
        if let Some(text) = text {
            findings.extend(syntax("body.text", text, limits));
        }
        if let Some(Err(finding)) = html.as_ref().map(|html| hide_tags("body.html", html, limits)) {
            findings.push(finding);
        }
    }
}

/// What is wrong with a raw mail that is to be sent as `source` says.
pub fn validate_raw(source: &MailSource, raw: &Bytes, limits: &Limits) -> Vec<Finding> {
    RawMail::parse(raw, source, limits).err().into_iter().collect()
}

fn name_addr(field: &str, addr: &NameAddr, findings: &mut Vec<Finding>) {
    let Some(name) = &addr.name else { return };
    let field = format!("{field}.name");
    if let Some(problem) = header::name_problem(name) {
        findings.push(Finding::new(field, problem, "write a plain name on one line"));
    } else if name.len() > MAX_NAME {
        findings.push(Finding::new(field, "is too long", format!("keep it within {MAX_NAME} octets")));
    }
}

fn unsubscribe_ways(unsubscribe: &Unsubscribe, limits: &Limits, findings: &mut Vec<Finding>) {
    let Unsubscribe { mailto, url, one_click, hosted } = unsubscribe;
    if mailto.is_none() && url.is_none() && !hosted {
        findings.push(Finding::new("unsubscribe", "is empty", "give a url, a mailto, or both"));
    }
    if *hosted && url.is_some() {
        let fix = "leave out one of the two: hosted is the fleet's own address in place of yours";
        findings.push(Finding::new("unsubscribe.hosted", "stands beside a url", fix));
    }
    if *one_click && url.is_none() && !hosted {
        let fix = "give an https url that takes the POST, set hosted, or leave one_click out";
        findings.push(Finding::new("unsubscribe.one_click", "needs a url", fix));
    }
    if let Some(url) = url {
        let field = "unsubscribe.url";
        findings.extend(syntax(field, url, limits));
        if !has_tags(url)
            && let Err(problem) = https_url(url)
        {
            findings.push(Finding::new(field, problem, "give an https address of printable ASCII"));
        }
    }
    if let Some(mailto) = mailto {
        let field = "unsubscribe.mailto";
        findings.extend(syntax(field, mailto, limits));
        if !has_tags(mailto)
            && let Err(problem) = mailto_url(mailto)
        {
            findings.push(Finding::new(field, problem, "give a mailbox, as in leave@example.com?subject=leave"));
        }
    }
}

/// The characters of an address between angle brackets.
fn is_url_text(text: &str) -> bool {
    text.len() <= MAX_URL && text.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'<' | b'>' | b'"'))
}

/// An https address fit for `List-Unsubscribe`.
pub(crate) fn https_url(text: &str) -> Result<&str, &'static str> {
    let text = text.trim();
    let host = text.strip_prefix("https://").ok_or("is not an https address")?;
    if host.is_empty() || host.starts_with(['/', '?', '#', ':']) {
        return Err("is not an https address");
    }
    if is_url_text(text) { Ok(text) } else { Err("is too long or holds characters that an address cannot") }
}

/// A `mailto:` address fit for `List-Unsubscribe`.
pub(crate) fn mailto_url(text: &str) -> Result<String, &'static str> {
    let text = text.trim();
    let rest = text.strip_prefix("mailto:").unwrap_or(text);
    let address = rest.split('?').next().unwrap_or(rest);
    if address.parse::<Mailbox>().is_err() {
        return Err("is not a mailbox");
    }
    if is_url_text(rest) { Ok(format!("mailto:{rest}")) } else { Err("is too long or holds characters that it cannot") }
}

/// The value of `List-Id`: the name encoded, the identifier in angle brackets.
pub(crate) fn list_id(text: &str) -> Option<String> {
    let text = text.trim();
    let (name, id) = match text.strip_suffix('>') {
        Some(head) => head.rsplit_once('<')?,
        None => ("", text),
    };
    let is_label = |label: &str| {
        !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_+=".contains(&byte))
    };
    if id.len() > 255 || !id.contains('.') || !id.split('.').all(is_label) {
        return None;
    }
    let name = name.trim().trim_matches('"');
    if name.is_empty() {
        return Some(format!("<{id}>"));
    }
    if name.len() > MAX_NAME || header::text_problem(name).is_some() {
        return None;
    }
    let is_atom = |byte: u8| byte.is_ascii_alphanumeric() || b" -_".contains(&byte);
    let name = if name.bytes().all(is_atom) && name.len() < 60 {
        name.to_owned()
    } else {
        header::encoded_words("List-Id: ".len(), name)
    };
    let fold = if name.len() + id.len() < 60 { " " } else { "\r\n " };
    Some(format!("{name}{fold}<{id}>"))
}

/// The value of `Feedback-ID`.
pub(crate) fn feedback_id(id: &FeedbackId) -> Option<String> {
    let is_token = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    let fits = id.parts.len() <= 3
        && id.parts.iter().all(|part| part.len() <= 64 && is_token(part))
        && (5..=15).contains(&id.sender.len())
        && is_token(&id.sender);
    if !fits {
        return None;
    }
    let mut parts: Vec<&str> = id.parts.iter().map(String::as_str).collect();
    parts.resize(3, "");
    Some(format!("{}:{}", parts.join(":"), id.sender))
}
