//! A mail taken apart into what a report may consist of.

use super::{Limits, Returned, fields::Fields};
use mail_parser::{HeaderValue, Message, MessageParser, MessagePart, MimeHeaders, PartType};

/// Header fields of a mail that came back, however it was attached.
const HEADERS_ALONE: [(&str, &str); 3] =
    [("text", "rfc822-headers"), ("message", "rfc822-headers"), ("message", "global-headers")];

/// The parts of a mail that matter here.
pub(super) struct Letter<'a> {
    pub(super) mail: &'a Message<'a>,
    /// What people read, one text for each part.
    pub(super) texts: Vec<String>,
    /// The fields of delivery reports, one for each part.
    pub(super) statuses: Vec<Vec<Fields>>,
    /// The fields of a complaint.
    pub(super) feedback: Option<Fields>,
    /// The fields of a read receipt.
    pub(super) disposition: Option<Fields>,
    /// The mail that came back.
    pub(super) returned: Option<Returned>,
    /// Whether a whole mail is attached.
    pub(super) has_mail: bool,
}

impl<'a> Letter<'a> {
    pub(super) fn open(mail: &'a Message<'a>, limits: &Limits) -> Self {
        let mut letter = Self {
            mail,
            texts: Vec::new(),
            statuses: Vec::new(),
            feedback: None,
            disposition: None,
            returned: None,
            has_mail: false,
        };
        let mut room = limits.text;
        for part in mail.parts.iter().take(limits.parts) {
            letter.part(part, limits, &mut room);
        }
        // A mail with nothing but HTML, or one whose only text is of a kind that nobody knows.
        if letter.texts.is_empty() {
            let text = (0..mail.text_body_count().min(4)).filter_map(|at| mail.body_text(at));
            letter.texts = text.map(|text| clip(&text, limits.text).to_owned()).collect();
        }
        letter
    }

    fn part(&mut self, part: &MessagePart<'_>, limits: &Limits, room: &mut usize) {
        let is = |kind: &str, name: &str| part.is_content_type(kind, name);
        if is("message", "delivery-status") || is("message", "global-delivery-status") {
            let text = String::from_utf8_lossy(clip_bytes(part.contents(), limits.text));
            self.statuses.push(Fields::blocks(&text, limits.recipients));
        } else if is("message", "feedback-report") {
            let text = String::from_utf8_lossy(clip_bytes(part.contents(), limits.text));
            self.feedback = Some(merge(Fields::blocks(&text, 20)));
        } else if is("message", "disposition-notification") || is("message", "global-disposition-notification") {
            let text = String::from_utf8_lossy(clip_bytes(part.contents(), limits.text));
            self.disposition = Some(merge(Fields::blocks(&text, 20)));
        } else if HEADERS_ALONE.iter().any(|(kind, name)| is(kind, name)) {
            let returned = returned_in(clip_bytes(part.contents(), limits.text));
            self.returned = self.returned.take().or(returned);
        } else {
            match &part.body {
                PartType::Message(inner) => {
                    self.has_mail = true;
                    let returned = returned_of(inner);
                    self.returned = self.returned.take().or(Some(returned));
                }
                PartType::Text(text) if *room > 0 => self.text(text, room),
                PartType::Html(html) if *room > 0 && self.texts.is_empty() => {
                    let text = mail_parser::decoders::html::html_to_text(clip(html, *room));
                    self.text(&text, room);
                }
                _ => {}
            }
        }
    }

    fn text(&mut self, text: &str, room: &mut usize) {
        let text = clip(text, *room);
        *room -= text.len();
        if !text.trim().is_empty() {
            self.texts.push(text.to_owned());
        }
    }

    /// A field of its header as text, in one line.
    pub(super) fn header(&self, name: &'static str) -> Option<String> {
        let raw = self.mail.header_raw(name)?;
        Some(raw.split_whitespace().collect::<Vec<_>>().join(" "))
    }

    /// Every field of its header that has this name.
    pub(super) fn headers(&self, name: &str) -> Vec<String> {
        let named = self.mail.headers_raw().filter(|(known, _)| known.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value.split_whitespace().collect::<Vec<_>>().join(" ")).take(50).collect()
    }

    /// Whether its type says that it is a report about mail.
    pub(super) fn calls_itself_a_report(&self) -> bool {
        self.mail.is_content_type("multipart", "report")
    }

    /// Its subject, decoded.
    pub(super) fn subject(&self) -> &str {
        self.mail.subject().unwrap_or_default()
    }

    /// The addresses that it comes from.
    pub(super) fn from(&self) -> Vec<String> {
        addresses(self.mail.from())
    }

    /// The addresses that it went to.
    pub(super) fn to(&self) -> Vec<String> {
        addresses(self.mail.to())
    }
}

fn merge(blocks: Vec<Fields>) -> Fields {
    // An empty line in the middle of one is a mistake that some make.
    blocks
        .into_iter()
        .reduce(|mut all, next| {
            all.append(next);
            all
        })
        .unwrap_or_default()
}

fn addresses(list: Option<&mail_parser::Address<'_>>) -> Vec<String> {
    let Some(list) = list else { return Vec::new() };
    list.iter().filter_map(|one| one.address().map(str::to_owned)).take(50).collect()
}

/// What a header that came back tells of its mail.
pub(super) fn returned_in(header: &[u8]) -> Option<Returned> {
    MessageParser::default().parse_headers(header).map(|mail| returned_of(&mail))
}

fn returned_of(mail: &Message<'_>) -> Returned {
    let token = mail.header("X-Mailfleet-Token").and_then(HeaderValue::as_text);
    Returned {
        message_id: mail.message_id().map(str::to_owned),
        token: token.map(|token| token.trim().to_owned()),
        to: addresses(mail.to()),
        from: addresses(mail.from()),
        subject: mail.subject().map(str::to_owned),
    }
}

/// As much of a text as fits, whole characters.
pub(super) fn clip(text: &str, most: usize) -> &str {
    let mut end = text.len().min(most);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

fn clip_bytes(bytes: &[u8], most: usize) -> &[u8] {
    &bytes[..bytes.len().min(most)]
}
