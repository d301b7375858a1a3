//! Anything that anybody may write, in every place of a mail: refused, or read back as it was by another
//! implementation, with the fields that the mail should have and no others.

use crate::common::*;
use crate::dkim::verify;
use bytes::Bytes;
use mail_auth::DkimResult;
use mail_parser::{Addr, MessageParser};
use mailfleet_content::{Body, Limits, MailSource, NameAddr, Prepared, Unsubscribe, validate_raw};
use proptest::prelude::*;
use serde_json::json;

/// One in so many of the usual cases, for a property that costs more than the usual one.
fn one_in(share: u32) -> ProptestConfig {
    let usual = ProptestConfig::default();
    ProptestConfig { cases: usual.cases.div_ceil(share), ..usual }
}

/// What breaks headers and bodies.
#[rustfmt::skip]
const TRICKS: [&str; 44] = [
    "\r\nBcc: eve@evil.test", "\nBcc: eve@evil.test", "\rBcc: eve@evil.test", "\r\n\r\nbody", "\r\n .\r\n", "\r\n.\r\n",
    "\r", "\n", "\0", "\u{b}", "\u{1b}[2J", "\u{7f}", "\u{85}", "\u{a0}", "\u{2028}", "\u{2029}", "\u{202e}",
    "\u{2066}", "\u{200b}", "\u{feff}", "\t", " ", "  ", "é", "漢字", "👩‍👩‍👧", "שלום", "مرحبا", "=?utf-8?B?aGk=?=", "=?x?q?=0a?=",
    "=3D", "=", "\"", "\\", "<", ">", ",", ";", ":", "(", ")", "eve@evil.test", "--=_mf_", "From ",
];

fn anything() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => prop::sample::select(&TRICKS[..]).prop_map(str::to_owned),
        4 => "[a-zA-Z0-9 ,.!-]{1,20}",
        2 => "\\PC{1,8}",
        1 => "[a-z]{70,90}",
        1 => "[a-zé]{990,1010}",
    ];
    prop::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat().replace('{', "("))
}

/// The same without what no header takes.
fn header_text() -> impl Strategy<Value = String> {
    prop_oneof![
        1 => anything(),
        // Short, so that one trick is seen alone.
        1 => (prop::sample::select(&TRICKS[..]), "[a-z]{0,5}").prop_map(|(trick, text)| format!("{trick} {text}")),
        3 => anything().prop_map(|text| text.chars().filter(|c| is_fit(&c.to_string())).take(300).collect()),
    ]
}

/// Whether a text may stand in a header.
fn is_fit(text: &str) -> bool {
    !text.contains(|c: char| c != '\t' && c.is_control() || ('\u{2028}'..='\u{202e}').contains(&c))
}

/// Whether a text may be a display name.
fn is_fit_name(text: &str) -> bool {
    is_fit(text) && text.len() <= 320 && !text.contains(|c| ('\u{2066}'..='\u{2069}').contains(&c))
}

fn blanks_made_one(text: &str) -> String {
    text.split([' ', '\t']).filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

/// A mail's fields: name and value, unfolded, read by nobody's parser but this one.
fn fields(mime: &[u8]) -> (Vec<(String, String)>, usize) {
    let end = mime.windows(4).position(|window| window == b"\r\n\r\n").map_or(mime.len(), |at| at + 2);
    let head = String::from_utf8(mime[..end].to_vec()).unwrap();
    let mut fields: Vec<(String, String)> = Vec::new();
    for line in head.split_terminator("\r\n") {
        match fields.last_mut() {
            Some((_, value)) if line.starts_with([' ', '\t']) => value.push_str(line),
            _ => {
                let (name, value) = line.split_once(':').unwrap();
                fields.push((name.to_owned(), value.to_owned()));
            }
        }
    }
    (fields, end + 2)
}

fn names(mime: &[u8]) -> Vec<String> {
    fields(mime).0.into_iter().map(|(name, _)| name).collect()
}

/// What one case of a mail says, and where.
#[derive(Debug)]
struct Words {
    from: String,
    to: String,
    reply_to: String,
    subject: String,
    constant: String,
    variable: String,
    text: String,
    html: String,
}

fn words() -> impl Strategy<Value = Words> {
    let names = (header_text(), header_text(), header_text());
    (names, header_text(), header_text(), header_text(), anything(), anything()).prop_map(
        |((from, to, reply_to), subject, constant, variable, text, html)| Words {
            from,
            to,
            reply_to,
            subject,
            constant,
            variable,
            text,
            html,
        },
    )
}

impl Words {
    fn source(&self) -> MailSource {
        let mut source = inline("{{ subject }}", Some("{{ html | safe }}"), Some("{{ text }}"));
        source.from.name = Some(self.from.clone());
        source.to_header = Some(vec![named(&self.to, "one@example.net"), named("Two", "two@example.net")]);
        source.reply_to = vec![named(&self.reply_to, "answers@example.com")];
        source.headers =
            vec![("X-Constant".into(), self.constant.clone()), ("X-Variable".into(), "{{ variable }}".into())];
        source
    }

    fn variables(&self) -> String {
        let Self { subject, variable, text, html, .. } = self;
        json!({ "subject": subject, "variable": variable, "text": text, "html": html }).to_string()
    }

    fn can_be_accepted(&self) -> bool {
        [&self.from, &self.to, &self.reply_to].into_iter().all(|name| is_fit_name(name))
            && is_fit(&self.constant)
            && self.constant.len() <= 4_096
    }

    fn can_be_rendered(&self) -> bool {
        let subject = self.subject.trim();
        is_fit(subject)
            && !subject.is_empty()
            && subject.chars().count() <= 998
            && is_fit(self.variable.trim())
            && self.variable.len() <= 4_096
    }
}

fn shown(addr: &Addr<'_>) -> (String, String) {
    let text = |part: Option<&str>| part.unwrap_or_default().to_owned();
    (blanks_made_one(&text(addr.name())), text(addr.address()))
}

fn lines(text: &str) -> String {
    text.replace("\r\n", "\n").replace('\r', "\n")
}

const SIGNED: [&str; 10] = [
    "From",
    "To",
    "Reply-To",
    "Subject",
    "MIME-Version",
    "Content-Type",
    "Content-Transfer-Encoding",
    "Date",
    "Message-ID",
    "X-Mailfleet-Id",
];

/// The octets whose change a signature must notice, blanks apart: those of the value of each signed field, and last those
/// of the body.
fn signed_octets(mime: &[u8]) -> Vec<Vec<usize>> {
    let (_, body) = fields(mime);
    let graphic = |from: usize, to: usize| (from..to).filter(|at| mime[*at].is_ascii_graphic());
    let mut found: Vec<Vec<usize>> = Vec::new();
    let (mut at, mut is_signed) = (0, false);
    for line in mime[..body].split_inclusive(|byte| *byte == b'\n') {
        let mut from = at;
        if !line.starts_with(b" ") && !line.starts_with(b"\t") {
            let colon = line.iter().position(|byte| *byte == b':').unwrap_or(0);
            is_signed = SIGNED.iter().any(|name| name.as_bytes() == &line[..colon]);
            from += colon + 1;
            found.extend(is_signed.then(Vec::new));
        }
        if let (true, Some(field)) = (is_signed, found.last_mut()) {
            field.extend(graphic(from, at + line.len()));
        }
        at += line.len();
    }
    found.push(graphic(body, mime.len()).collect());
    found
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

proptest! {
    #[test]
    fn any_words_are_refused_or_read_back(words in words()) {
        let (source, limits) = (words.source(), Limits::default());
        let findings = source.validate(&limits);
        prop_assert_eq!(findings.is_empty(), words.can_be_accepted(), "{:?}", findings);
        if !findings.is_empty() {
            return Ok(());
        }
        let rendered = match render(&prepared(&source), &words.variables()) {
            Ok(rendered) => rendered,
            Err(error) => {
                prop_assert_eq!(error.reason(), "header");
                prop_assert!(!words.can_be_rendered(), "{}", error);
                return Ok(());
            }
        };
        prop_assert!(words.can_be_rendered());
        prop_assert!(rendered.mime.is_ascii() && !rendered.envelope.smtputf8 && !rendered.eight_bit);
        assert_strict(&rendered.mime);
        prop_assert_eq!(names(&rendered.mime), [
            "From", "To", "Reply-To", "Subject", "MIME-Version", "Content-Type", "Content-Transfer-Encoding", "Date",
            "Message-ID", "X-Constant", "X-Variable", "X-Mailfleet-Id",
        ]);
        let mail = MessageParser::new().parse(&rendered.mime[..]).unwrap();
        prop_assert_eq!(blanks_made_one(mail.subject().unwrap_or_default()), blanks_made_one(words.subject.trim()));
        let people = |list: Option<&mail_parser::Address<'_>>| list.unwrap().iter().map(shown).collect::<Vec<_>>();
        let person = |name: &str, address: &str| (blanks_made_one(name.trim()), address.to_owned());
        prop_assert_eq!(people(mail.from()), [person(&words.from, "ann@example.com")]);
        prop_assert_eq!(people(mail.to()), [person(&words.to, "one@example.net"), person("Two", "two@example.net")]);
        prop_assert_eq!(people(mail.reply_to()), [person(&words.reply_to, "answers@example.com")]);
        prop_assert_eq!(mail.parts.len(), 3);
        prop_assert_eq!(lines(mail.parts[1].text_contents().unwrap()), lines(&words.text));
        prop_assert_eq!(lines(mail.parts[2].text_contents().unwrap()), lines(&words.html));
    }

    /// A list's name, addresses to unsubscribe at and parts of a Feedback-ID, which have grammars of their own.
    #[test]
    fn no_value_of_a_structured_field_makes_another(id in header_text(), url in anything(), mailto in anything()) {
        let mut source = inline("S", None, Some("T"));
        source.list_id = Some(format!("{id} <news.example.com>"));
        source.unsubscribe = Some(Unsubscribe {
            url: Some("https://{{ url }}".into()),
            mailto: Some("{{ mailto }}@example.com".into()),
            one_click: true,
            hosted: false,
        });
        if !source.validate(&Limits::default()).is_empty() {
            return Ok(());
        }
        if let Ok(rendered) = render(&prepared(&source), &json!({ "url": url, "mailto": mailto }).to_string()) {
            assert_strict(&rendered.mime);
            let (fields, _) = fields(&rendered.mime);
            let value = |name: &str| fields.iter().filter(|(field, _)| field == name).map(|(_, value)| value).collect::<Vec<_>>();
            prop_assert_eq!(fields.len(), 12);
            prop_assert_eq!((value("From").len(), value("Bcc").len(), value("List-Id").len()), (1, 0, 1));
            let [ways] = value("List-Unsubscribe")[..] else { panic!("one field") };
            prop_assert_eq!((ways.matches('<').count(), ways.matches('>').count()), (2, 2), "{}", ways);
            prop_assert!(value("List-Id")[0].ends_with(" <news.example.com>"));
        }
    }
}

proptest! {
    #![proptest_config(one_in(8))]

    #[test]
    fn a_signature_holds_for_any_mail_and_for_no_other(
        words in words().prop_filter("a mail", |words| words.can_be_accepted() && words.can_be_rendered()), [field, place] in any::<[prop::sample::Index; 2]>(), octet in 0x21_u8..0x7f,
    ) {
        let rendered = render_to(&prepared(&words.source()), "bob@example.net", &words.variables(), &*KEYS).unwrap();
        let mut mime = rendered.mime.to_vec();
        runtime().block_on(async {
            prop_assert_eq!(verify(&mime).await, [DkimResult::Pass, DkimResult::Pass]);
            let fields = signed_octets(&mime);
            prop_assert_eq!(fields.len(), SIGNED.len() + 1);
            let places = &fields[field.index(fields.len())];
            if !places.is_empty() && mime[places[place.index(places.len())]] != octet {
                let at = places[place.index(places.len())];
                mime[at] = octet;
                let results = verify(&mime).await;
                prop_assert!(!results.contains(&DkimResult::Pass), "octet {at} made {:?}", octet as char);
            }
            Ok(())
        })?;
    }
}

/// Header fields and bodies of raw mail, and what is none.
fn raw() -> impl Strategy<Value = Vec<u8>> {
    let text = prop::sample::select(vec![
        "From: ann@example.com\r\n",
        "From: Ann <ann@example.com>\n",
        "from : ann@example.com\r\n",
        "From: eve@evil.test\r\n",
        "From:\r\n ann@example.com\r\n",
        "Subject: x\r\n",
        "Subject: \r\n folded\r\n",
        "Bcc: eve@evil.test\r\n",
        "To: a@b.test,\r\n\tc@d.test\r\n",
        "X-Empty:\r\n",
        "X-Blank: \r\n \t\r\n",
        "X-Wide:  a   b \t c \r\n",
        "Content-Type: text/plain;\r\n boundary=\"x\"\r\n",
        "DKIM-Signature: v=1; d=example.com; b=x\r\n",
        "Date: now\r\n",
        "DKIM-Signature: v=1; d=list.test; b=x\r\n",
        "Message-ID: <1@example.com>\r\n",
        "Return-Path: <x@y.test>\r\n",
        "\r\n",
        "\r\n",
        "\n",
        "\r",
        "\n\n",
        "body",
        "  body  \t \r\n",
        ".\r\n",
        "\t",
        " ",
        "é",
        "\0",
        ":",
        "x{{ x }}",
    ]);
    let piece = prop_oneof![
        14 => text.prop_map(|text| text.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..40),
        1 => prop_oneof![Just(997_usize), Just(998), Just(999)].prop_map(|length| vec![b'x'; length]),
    ];
    (any::<bool>(), prop::collection::vec(piece, 0..12)).prop_map(|(is_ours, pieces)| {
        let start: &[u8] = if is_ours { b"From: ann@example.com\r\n" } else { b"" };
        [start, &pieces.concat()].concat()
    })
}

/// Whether the last lines of a body hold blanks alone. They count for nothing (RFC 6376, 3.4.4), which mail-auth
/// 0.13.3 does not know.
fn ends_in_blanks(body: &[u8]) -> bool {
    let last = body.iter().rposition(|byte| !b" \t\r\n".contains(byte));
    let rest = last.map_or(body, |last| &body[last..]);
    let mut after_line = rest.iter().skip_while(|byte| last.is_some() && **byte != b'\n');
    after_line.any(|byte| b" \t".contains(byte))
}

proptest! {
    #[test]
    fn any_raw_mail_is_refused_or_sent_in_strict_form_under_its_author_s_name(raw in raw()) {
        let source = source(Body::Raw { content: content_id() });
        let raw = Bytes::from(raw);
        let refused = !validate_raw(&source, &raw, &Limits::default()).is_empty();
        let prepared = Prepared::new(&source, None, Some(raw.clone()), &Limits::default());
        prop_assert_eq!(prepared.is_err(), refused);
        let Ok(prepared) = prepared else { return Ok(()) };
        let rendered = render_to(&prepared, "bob@example.net", "", &KEYS[1..]).unwrap();
        assert_strict(&rendered.mime);
        let names = names(&rendered.mime);
        let count = |wanted: &str| names.iter().filter(|name| name.eq_ignore_ascii_case(wanted)).count();
        prop_assert_eq!((count("From"), count("Bcc"), count("Return-Path")), (1, 0, 0));
        prop_assert_eq!((count("Date"), count("Message-ID"), count("X-Mailfleet-Id")), (1, 1, 1));
        let mail = MessageParser::new().parse(&rendered.mime[..]).unwrap();
        let from: Vec<_> = mail.from().unwrap().iter().map(|from| from.address().unwrap_or_default()).collect();
        prop_assert_eq!(from, ["ann@example.com"]);
        if ends_in_blanks(&rendered.mime[fields(&rendered.mime).1.min(rendered.mime.len())..]) {
            return Ok(());
        }
        let results = runtime().block_on(verify(&rendered.mime));
        // Signatures that came along are their own business.
        let passes = results.iter().filter(|result| **result == DkimResult::Pass).count();
        prop_assert_eq!(passes, 1, "{}", String::from_utf8_lossy(&rendered.mime));
    }

    #[test]
    fn any_variables_are_taken_or_refused(variables in prop_oneof![
        anything(),
        "[\\[\\]{}\":,0-9a-ex \\\\u.+-]{0,60}",
        anything().prop_map(|text| json!({ "x": text, "\r\nBcc": text }).to_string()),
    ]) {
        let prepared = prepared(&inline("Hi {{ x }}", None, Some("{{ x }}")));
        if let Ok(rendered) = render(&prepared, &variables) {
            assert_strict(&rendered.mime);
            prop_assert_eq!(names(&rendered.mime).len(), 9);
        }
    }
}

#[test]
fn a_name_alone_is_not_a_person() {
    let source = MailSource {
        from: NameAddr { name: Some(" \t".into()), mailbox: mailbox("ann@example.com") },
        ..inline("S", None, Some("T"))
    };
    let mime = render(&prepared(&source), "").unwrap().mime;
    assert!(fields(&mime).0.contains(&("From".into(), " ann@example.com".into())));
}
