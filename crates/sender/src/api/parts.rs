//! A finished mail taken apart, for the APIs that want its parts and make a mail of them themselves.
//!
//! They sign what they make, so our signature stays behind; and they write the envelope's recipient into the To field.
//! What they could not carry as it is meant is refused rather than changed.

use super::Answer;
use domain::Mailbox as Address;
use mail_parser::{HeaderName, HeaderValue, Message, MessageParser, MessagePart, MimeHeaders, PartType};
use serde_json::{Map, Value};
use std::panic::catch_unwind;

/// How deep parts may lie within each other.
const MAX_DEPTH: usize = 16;

/// Fields that the provider writes itself, or that held for the mail as it was.
const REMADE: [&str; 13] = [
    "from",
    "to",
    "cc",
    "bcc",
    "reply-to",
    "subject",
    "date",
    "mime-version",
    "return-path",
    "received",
    "dkim-signature",
    "x-sg-id",
    "x-sg-eid",
];

/// A mail's parts.
#[derive(Debug, Default)]
pub(super) struct Parts {
    pub(super) from: Mailbox,
    /// The envelope's recipient, by the name that the mail calls him.
    pub(super) to: Mailbox,
    pub(super) reply_to: Vec<Mailbox>,
    pub(super) subject: String,
    /// The other fields, each value on one line.
    pub(super) headers: Vec<(String, String)>,
    pub(super) text: Option<String>,
    pub(super) html: Option<String>,
    /// Further alternatives of the text, as an invitation or an AMP page.
    pub(super) others: Vec<Other>,
    pub(super) files: Vec<File>,
}

/// An address with the name beside it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Mailbox {
    pub(super) name: Option<String>,
    pub(super) address: String,
}

/// An alternative that is neither text nor HTML.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Other {
    /// Its type, without parameters.
    pub(super) essence: String,
    pub(super) content_type: String,
    pub(super) text: String,
}

/// A file, or an image within the HTML.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct File {
    pub(super) name: String,
    pub(super) content_type: String,
    /// By which the HTML names it.
    pub(super) content_id: Option<String>,
    pub(super) data: Vec<u8>,
}

impl Mailbox {
    /// As it stands in a header field (RFC 5322, section 3.4), but in UTF-8.
    pub(super) fn to_field(&self) -> String {
        match &self.name {
            None => self.address.clone(),
            Some(name) => format!("\"{}\" <{}>", name.replace('\\', "\\\\").replace('"', "\\\""), self.address),
        }
    }
}

impl File {
    /// Its type, without parameters.
    pub(super) fn essence(&self) -> &str {
        self.content_type.split(';').next().unwrap_or_default()
    }
}

impl Parts {
    /// The parts of a mail to `recipient`.
    pub(super) fn of(mime: &[u8], recipient: &str) -> Result<Self, Answer> {
        // The parser breaks down over some mails, which a sender of finished ones may have made.
        catch_unwind(|| {
            let mail = MessageParser::new().parse(mime).ok_or_else(|| Answer::unfit("the mail has no header"))?;
            Self::parsed(&mail, recipient)
        })
        .unwrap_or_else(|_| Err(Answer::unfit("the mail cannot be read")))
    }

    fn parsed(mail: &Message<'_>, recipient: &str) -> Result<Self, Answer> {
        let [from] = mailboxes(mail, HeaderName::From)?
            .try_into()
            .map_err(|_| Answer::unfit("the mail has not one address in From"))?;
        let mut parts = Self {
            from,
            to: to(mail, recipient)?,
            reply_to: mailboxes(mail, HeaderName::ReplyTo)?,
            subject: mail.subject().unwrap_or_default().to_owned(),
            ..Self::default()
        };
        for (name, value) in mail.headers_raw() {
            let lower = name.to_ascii_lowercase();
            if !REMADE.contains(&lower.as_str()) && !lower.starts_with("content-") {
                parts.headers.push((name.to_owned(), unfolded(value)));
            }
        }
        parts.take(mail, 0, Place { is_body: true, is_alternative: false }, 0)?;
        // An empty one is none, to all of them.
        parts.text = parts.text.filter(|text| !text.is_empty());
        parts.html = parts.html.filter(|html| !html.is_empty());
        if parts.text.is_none() && parts.html.is_none() {
            return Err(Answer::unfit("the mail has neither text nor HTML, and this API wants one of them"));
        }
        Ok(parts)
    }

    /// Takes in a part, and those within it.
    fn take(&mut self, mail: &Message<'_>, index: u32, place: Place, depth: usize) -> Result<(), Answer> {
        if depth > MAX_DEPTH {
            return Err(Answer::unfit(format!("the mail has parts more than {MAX_DEPTH} deep")));
        }
        let part = mail.part(index).ok_or_else(|| Answer::unfit("the mail cannot be read"))?;
        let essence = essence(part);
        if let PartType::Multipart(within) = &part.body {
            let kind = essence.strip_prefix("multipart/").unwrap_or("mixed");
            if matches!(kind, "signed" | "encrypted" | "report") {
                return Err(Answer::unfit(format!("a mail of type {essence} would be broken; use the SMTP relay")));
            }
            for (position, inner) in within.iter().enumerate() {
                let is_alternative = kind == "alternative";
                // Beside a body only the first may be another.
                let is_body = place.is_body && (is_alternative || position == 0);
                self.take(mail, *inner, Place { is_body, is_alternative }, depth + 1)?;
            }
            return Ok(());
        }
        if depth == 0 && !essence.starts_with("text/") {
            return Err(Answer::unfit(format!("a mail of type {essence} would be broken; use the SMTP relay")));
        }
        let is_attachment = part.content_disposition().is_some_and(|disposition| disposition.is_attachment());
        let text = match &part.body {
            PartType::Text(text) | PartType::Html(text) if place.is_body && !is_attachment => Some(text),
            _ => None,
        };
        match (essence.as_str(), text) {
            ("text/plain", Some(text)) if self.text.is_none() => self.text = Some(text.to_string()),
            ("text/html", Some(text)) if self.html.is_none() => self.html = Some(text.to_string()),
            (_, Some(text)) if place.is_alternative => {
                let content_type = content_type(part, &essence);
                self.others.push(Other { essence, content_type, text: text.to_string() });
            }
            _ => {
                let data = match &part.body {
                    PartType::Message(message) => message.raw_message().to_vec(),
                    _ => part.contents().to_vec(),
                };
                let name = part.attachment_name().map_or_else(|| unnamed(&essence, self.files.len()), one_line);
                let content_id = part.content_id().map(|id| one_line(id.trim_matches(['<', '>'])));
                let content_type = content_type(part, &essence);
                self.files.push(File { name, content_type, content_id, data });
            }
        }
        Ok(())
    }

    /// For an API that knows text and HTML alone: an invitation goes along as a file, which mail programs know it by.
    pub(super) fn with_others_as_files(mut self) -> Result<Self, Answer> {
        for other in std::mem::take(&mut self.others) {
            if other.essence != "text/calendar" {
                return Err(Answer::unfit(format!(
                    "this API carries no alternative of type {}; use the SMTP relay",
                    other.essence
                )));
            }
            self.files.push(File {
                name: "invite.ics".to_owned(),
                content_type: other.content_type,
                content_id: None,
                data: other.text.into_bytes(),
            });
        }
        Ok(self)
    }

    /// The other fields for an API that takes each of them once.
    pub(super) fn single_headers(&self) -> Result<Map<String, Value>, Answer> {
        let mut object = Map::new();
        for (index, (name, value)) in self.headers.iter().enumerate() {
            if self.headers[..index].iter().any(|(before, _)| before.eq_ignore_ascii_case(name)) {
                return Err(Answer::unfit(format!("this API takes one field {name}, the mail has several")));
            }
            object.insert(name.clone(), value.clone().into());
        }
        Ok(object)
    }
}

/// The members of an object that are there: an API takes null for a value.
pub(super) fn present(mut object: Value) -> Value {
    if let Some(members) = object.as_object_mut() {
        members.retain(|_, value| !value.is_null());
    }
    object
}

/// All of these; nothing where there are none.
pub(super) fn several(all: impl ExactSizeIterator<Item = Value>) -> Option<Value> {
    (all.len() > 0).then(|| all.collect())
}

/// Where a part lies.
#[derive(Clone, Copy)]
struct Place {
    /// Where the text of the mail is looked for, not its files.
    is_body: bool,
    is_alternative: bool,
}

/// The addresses of a field.
fn mailboxes(mail: &Message<'_>, field: HeaderName<'static>) -> Result<Vec<Mailbox>, Answer> {
    let mut all = Vec::new();
    for value in mail.header_values(field) {
        let HeaderValue::Address(addresses) = value else { continue };
        for one in addresses.iter() {
            let address = one.address().ok_or_else(|| Answer::unfit("a name stands where an address is wanted"))?;
            let name = one.name().map(one_line).filter(|name| !name.is_empty());
            all.push(Mailbox { name, address: one_line(address) });
        }
    }
    Ok(all)
}

/// The recipient as the mail names him. An API would write to whoever else stands there, and leave them out if they
/// were left out.
fn to(mail: &Message<'_>, recipient: &str) -> Result<Mailbox, Answer> {
    let mut to = Mailbox { name: None, address: recipient.to_owned() };
    let is_recipient = |address: &str| match (address.parse::<Address>(), recipient.parse::<Address>()) {
        (Ok(one), Ok(other)) => one == other,
        _ => address.eq_ignore_ascii_case(recipient),
    };
    let mut shown = mailboxes(mail, HeaderName::To)?;
    shown.extend(mailboxes(mail, HeaderName::Cc)?);
    for mailbox in shown {
        if !is_recipient(&mailbox.address) {
            return Err(Answer::unfit(
                "the mail names others than its recipient in To or Cc, whom this API would mail too; use the SMTP relay",
            ));
        }
        to.name = to.name.or(mailbox.name);
    }
    Ok(to)
}

/// A part's type without parameters; `text/plain` where it names none (RFC 2045, section 5.2).
fn essence(part: &MessagePart<'_>) -> String {
    let given = part.content_type().and_then(|given| Some(format!("{}/{}", given.ctype(), given.subtype()?)));
    given.map_or_else(|| "text/plain".to_owned(), |given| one_line(&given.to_ascii_lowercase()))
}

/// A part's type with what receivers need of its parameters.
fn content_type(part: &MessagePart<'_>, essence: &str) -> String {
    let given = |name: &str| part.content_type().and_then(|given| given.attribute(name));
    let is_plain = |value: &&str| !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let mut all = essence.to_owned();
    if let Some(method) = given("method").filter(is_plain) {
        all += &format!("; method={method}");
    }
    // What is text was made UTF-8 when it was read.
    if matches!(part.body, PartType::Text(_) | PartType::Html(_)) {
        all += "; charset=utf-8";
    }
    all
}

fn unnamed(essence: &str, index: usize) -> String {
    let ending = match essence {
        "message/rfc822" => "eml",
        "text/calendar" => "ics",
        "text/plain" => "txt",
        "text/html" => "html",
        _ => essence
            .rsplit('/')
            .next()
            .filter(|ending| matches!(*ending, "png" | "jpeg" | "gif" | "pdf"))
            .unwrap_or("bin"),
    };
    format!("part-{}.{ending}", index + 1)
}

fn one_line(text: &str) -> String {
    text.chars().filter(|char| !char.is_control()).collect()
}

/// A field's value on one line (RFC 5322, section 2.2.3).
fn unfolded(value: &str) -> String {
    one_line(value.trim())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Meaning;
    use domain::BounceClass;

    const HEAD: &str = "From: =?utf-8?q?M=C3=BCller?= <shop@example.com>\r\nTo: Ann <ann@receiver.test>\r\n\
        Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\nDate: Fri, 27 Nov 2026 10:00:00 +0000\r\nMessage-ID: <1@example.com>\r\n\
        DKIM-Signature: v=1; a=x\r\nList-Unsubscribe: <https://click.example.com/u/1>,\r\n <mailto:u@example.com>\r\n\
        MIME-Version: 1.0\r\n";

    fn of(rest: &str) -> Result<Parts, Answer> {
        Parts::of(format!("{HEAD}{rest}").as_bytes(), "ann@receiver.test")
    }

    fn why(answer: Result<Parts, Answer>) -> String {
        let answer = answer.unwrap_err();
        assert_eq!(answer.meaning, Meaning::Refused(BounceClass::ContentRelated));
        answer.text
    }

    #[test]
    fn a_mail_is_taken_apart_as_it_was_put_together() {
        let parts = of("Content-Type: multipart/mixed; boundary=m\r\n\r\n\
            --m\r\nContent-Type: multipart/related; boundary=r\r\n\r\n\
            --r\r\nContent-Type: multipart/alternative; boundary=a\r\n\r\n\
            --a\r\nContent-Type: text/plain; charset=iso-8859-1\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\nGr=FC=DFe\r\n\
            --a\r\nContent-Type: text/html\r\n\r\n<img src=\"cid:logo\">\r\n\
            --a\r\nContent-Type: text/calendar; method=REQUEST\r\n\r\nBEGIN:VCALENDAR\r\n--a--\r\n\
            --r\r\nContent-Type: image/png; name=logo.png\r\nContent-ID: <logo>\r\nContent-Transfer-Encoding: base64\r\n\r\nAAEC\r\n--r--\r\n\
            --m\r\nContent-Type: text/plain\r\nContent-Disposition: attachment; filename=notes.txt\r\n\r\nnotes\r\n\
            --m\r\nContent-Type: message/rfc822\r\n\r\nSubject: inner\r\n\r\nbody\r\n--m--\r\n")
        .unwrap();
        assert_eq!(parts.from.to_field(), "\"Müller\" <shop@example.com>");
        assert_eq!(parts.to.to_field(), "\"Ann\" <ann@receiver.test>");
        assert_eq!(parts.subject, "Grüße");
        let headers: Vec<_> = parts.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let unsubscribe = "<https://click.example.com/u/1>, <mailto:u@example.com>";
        assert_eq!(headers, [("Message-ID", "<1@example.com>"), ("List-Unsubscribe", unsubscribe)]);
        assert_eq!((parts.text.as_deref(), parts.html.as_deref()), (Some("Grüße"), Some("<img src=\"cid:logo\">")));
        let files: Vec<_> = parts
            .files
            .iter()
            .map(|file| (file.name.as_str(), file.content_type.as_str(), file.content_id.as_deref()))
            .collect();
        assert_eq!(
            files,
            [
                ("logo.png", "image/png", Some("logo")),
                ("notes.txt", "text/plain; charset=utf-8", None),
                ("part-3.eml", "message/rfc822", None),
            ]
        );
        assert_eq!((parts.files[0].data.as_slice(), parts.files[1].data.as_slice()), (&[0, 1, 2][..], &b"notes"[..]));
        assert!(parts.files[2].data.starts_with(b"Subject: inner"));
        assert_eq!(parts.others.len(), 1);
        let file = parts.with_others_as_files().unwrap().files.pop().unwrap();
        let kind = "text/calendar; method=REQUEST; charset=utf-8";
        assert_eq!((file.name.as_str(), file.content_type.as_str()), ("invite.ics", kind));
    }

    #[test]
    fn what_would_not_arrive_as_it_is_meant_is_refused() {
        let head = |rest: &str| Parts::of(rest.as_bytes(), "ann@receiver.test");
        assert!(why(head("From: a@x.test\r\nTo: ann@receiver.test, bob@receiver.test\r\n\r\n.")).contains("others"));
        assert!(why(head("From: a@x.test\r\nTo: ann@receiver.test\r\nCc: bob@x.test\r\n\r\n.")).contains("others"));
        assert!(why(head("From: a@x.test, b@x.test\r\n\r\n.")).contains("From"));
        assert!(why(of("Content-Type: multipart/signed; boundary=s\r\n\r\n--s--\r\n")).contains("multipart/signed"));
        assert!(why(of("Content-Type: application/pkcs7-mime\r\n\r\nAAEC")).contains("application/pkcs7-mime"));
        let amp = of("Content-Type: multipart/alternative; boundary=a\r\n\r\n--a\r\n\r\nx\r\n\
            --a\r\nContent-Type: text/x-amp-html\r\n\r\n<html amp4email>\r\n--a--\r\n");
        assert!(why(amp.unwrap().with_others_as_files()).contains("text/x-amp-html"));
        let twice = of("X-A: 1\r\nx-a: 2\r\n\r\n.").unwrap();
        assert!(twice.single_headers().unwrap_err().text.contains("several"));
        assert!(why(of("\r\n")).contains("neither text nor HTML"));
    }

    #[test]
    fn a_recipient_whom_the_mail_does_not_show_is_written_to_all_the_same() {
        let hidden =
            Parts::of(b"From: a@x.test\r\nTo: undisclosed-recipients:;\r\n\r\n.", "ann@receiver.test").unwrap();
        assert_eq!(hidden.to, Mailbox { name: None, address: "ann@receiver.test".to_owned() });
        let other_case = Parts::of(b"From: a@x.test\r\nTo: ann@RECEIVER.test\r\n\r\n.", "ann@receiver.test").unwrap();
        assert_eq!(other_case.to.address, "ann@receiver.test");
    }
}
