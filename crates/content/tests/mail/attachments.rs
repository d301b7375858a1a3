//! Files that go along, as a reader sees them.

use crate::common::*;
use crate::dkim::verify;
use bytes::Bytes;
use domain::ContentId;
use mail_auth::DkimResult;
use mail_parser::{MessageParser, MimeHeaders, PartType};
use mailfleet_content::{Attachment, Body, Limits, MailSource, Prepared};
use proptest::prelude::*;

fn file(name: &str, kind: &str, shown_as: Option<&str>, octets: usize) -> Attachment {
    Attachment {
        content: ContentId::of(tenant(), &[name.as_bytes()]),
        octets: octets as u64,
        file_name: name.to_owned(),
        content_type: kind.to_owned(),
        content_id: shown_as.map(str::to_owned),
    }
}

/// Every octet there is, again and again.
fn binary(length: usize) -> Bytes {
    (0..length).map(|index| (index * 7 % 256) as u8).collect::<Vec<_>>().into()
}

fn with(mut source: MailSource, files: Vec<(Attachment, Bytes)>) -> Prepared {
    let (attachments, octets): (Vec<_>, Vec<_>) = files.into_iter().unzip();
    source.attachments = attachments;
    Prepared::with_files(&source, None, None, &octets, &Limits::default()).unwrap()
}

/// The media types of the parts, nested as they are.
fn shape(mime: &[u8]) -> String {
    fn tell(message: &mail_parser::Message<'_>, part: usize, out: &mut String) {
        let part = &message.parts[part];
        let kind = part.content_type().unwrap();
        out.push_str(kind.subtype().unwrap());
        if let PartType::Multipart(children) = &part.body {
            out.push('(');
            for (index, child) in children.iter().enumerate() {
                if index > 0 {
                    out.push(' ');
                }
                tell(message, *child as usize, out);
            }
            out.push(')');
        }
    }
    let message = MessageParser::new().parse(mime).unwrap();
    let mut out = String::new();
    tell(&message, 0, &mut out);
    out
}

#[tokio::test]
async fn files_and_images_arrive_byte_for_byte_under_a_signature_that_verifies() {
    let (pdf, logo) = (binary(100_001), binary(57 * 3));
    let source = inline("Your invoice", Some("<p>See <img src=\"cid:logo\"></p>"), Some("See the invoice."));
    let name = "Rechnung für März, eine mit einem sehr langen Namen, der nicht in eine Zeile passt.pdf";
    let files = vec![
        (file("logo.png", "image/png", Some("logo"), logo.len()), logo.clone()),
        (file(name, "application/pdf", None, pdf.len()), pdf.clone()),
        (file("plain name.txt", "text/plain; charset=utf-8", None, 2), Bytes::from_static(b"a\n")),
    ];
    let rendered = render_to(&with(source, files), "bob@example.net", "", &*KEYS).unwrap();
    assert_strict(&rendered.mime);
    assert!(!rendered.eight_bit);
    assert_eq!(verify(&rendered.mime).await, [DkimResult::Pass, DkimResult::Pass]);
    assert_eq!(shape(&rendered.mime), "mixed(alternative(plain related(html png)) pdf plain)");
    let message = MessageParser::new().parse(&rendered.mime[..]).unwrap();
    let part =
        |kind: &str| message.parts.iter().find(|part| part.content_type().unwrap().subtype() == Some(kind)).unwrap();
    assert_eq!(part("pdf").contents(), &pdf[..]);
    assert_eq!(part("pdf").attachment_name(), Some(name));
    assert!(part("pdf").content_disposition().unwrap().is_attachment());
    assert_eq!(part("png").contents(), &logo[..]);
    assert_eq!(part("png").content_id(), Some("logo"));
    assert!(part("png").content_disposition().unwrap().is_inline());
    let named = |name: &str| message.parts.iter().find(|part| part.attachment_name() == Some(name)).unwrap();
    assert_eq!(named("plain name.txt").contents(), b"a\n");
    // The same message, the same octets.
    let again = render_to(&with(inline("S", None, Some("T")), Vec::new()), "bob@example.net", "", &[]).unwrap();
    assert_eq!(shape(&again.mime), "plain");
}

#[test]
fn each_combination_has_the_plainest_shape_that_holds_it() {
    let image = || (file("a.png", "image/png", Some("a"), 3), binary(3));
    let other = || (file("a.bin", "", None, 3), binary(3));
    for (html, text, files, expected) in [
        (Some("<p>h</p>"), Some("t"), vec![image()], "alternative(plain related(html png))"),
        (Some("<p>h</p>"), Some("t"), vec![other()], "mixed(alternative(plain html) octet-stream)"),
        (None, Some("t"), vec![other()], "mixed(plain octet-stream)"),
        // Without an HTML part nothing shows it.
        (None, Some("t"), vec![image()], "mixed(plain png)"),
        (None, Some("t"), vec![image(), other()], "mixed(plain png octet-stream)"),
    ] {
        let mime = render(&with(inline("S", html, text), files), "").unwrap().mime;
        assert_strict(&mime);
        assert_eq!(shape(&mime), expected);
    }
}

#[test]
fn what_cannot_go_along_is_named() {
    let mut source = inline("S", None, Some("T"));
    source.attachments = vec![
        file("../etc/passwd", "", None, 1),
        file("a\r\nBcc: eve@evil.test", "text/html\r\nX: y", None, 1),
        file("a", "message/rfc822", None, 0),
        file("", "", None, 18 * 1024 * 1024 + 1),
        file("", "image/png", Some("a b"), 1),
        file("", "image/png", Some("logo"), 1),
        file("", "image/png", Some("logo"), 1),
    ];
    let fields: Vec<String> = source.validate(&Limits::default()).into_iter().map(|finding| finding.field).collect();
    assert_eq!(
        fields,
        [
            "attachments[0].file_name",
            "attachments[1].file_name",
            "attachments[1].content_type",
            "attachments[2].data",
            "attachments[2].content_type",
            "attachments[3].data",
            "attachments[3].file_name",
            "attachments[4].content_id",
            "attachments[6].content_id",
        ]
    );
    source.attachments = vec![file("a", "", None, 1); 51];
    assert_eq!(source.validate(&Limits::default())[0].field, "attachments");
    source.attachments = vec![file("a", "", None, 1)];
    source.body = Body::Raw { content: content_id() };
    assert_eq!(source.validate(&Limits::default())[0].field, "attachments");
    assert!(Prepared::new(&source, None, None, &Limits::default()).is_err(), "the octets are missing");
}

#[test]
fn the_estimate_is_near_the_finished_mail_and_never_below() {
    let octets = binary(1_000_000);
    let mut source = inline("S", None, Some("T"));
    source.attachments = vec![file("a.bin", "", None, octets.len())];
    let estimate = source.estimated_octets();
    let prepared = Prepared::with_files(&source, None, None, &[octets], &Limits::default()).unwrap();
    let size = render_to(&prepared, "bob@example.net", "", &*KEYS).unwrap().mime.len() as u64;
    assert!((size..size + 20_000).contains(&estimate), "{estimate} for {size}");
    let least = prepared.least_octets() as u64;
    assert!((1_300_000..size).contains(&least), "{least} for {size}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_file_and_any_name_read_back(octets in prop::collection::vec(any::<u8>(), 1..500), name in "[^\\p{Cc}/\\\\\u{2028}\u{2029}\u{202a}-\u{202e}\u{2066}-\u{2069}]{1,60}") {
        let name = name.trim().to_owned();
        prop_assume!(!name.is_empty() && name != "." && name != ".." && name.len() <= 255);
        let octets = Bytes::from(octets);
        let file = file(&name, "", None, octets.len());
        let mime = render(&with(inline("S", None, Some("T")), vec![(file, octets.clone())]), "").unwrap().mime;
        assert_strict(&mime);
        let message = MessageParser::new().parse(&mime[..]).unwrap();
        let part = message.attachment(0).unwrap();
        prop_assert_eq!(part.contents(), &octets[..]);
        prop_assert_eq!(part.attachment_name(), Some(name.as_str()));
    }
}
