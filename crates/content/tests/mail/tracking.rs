//! What a tracker puts into mails, and what it leaves alone.

use crate::common::*;
use crate::dkim::verify;
use bytes::Bytes;
use domain::token::{HONEYPOT_PLACE, LONGEST_LINK};
use domain::verp::message_of_return_path;
use domain::{Lane, Overrides, Token, TokenKeys, TrackingChoice, TrackingSite};
use mail_auth::DkimResult;
use mail_parser::MessageParser;
use mailfleet_content::{
    Body, CompiledTemplate, Limits, MailSource, Prepared, RenderError, RenderRequest, Rendered, TemplateSource,
    Tracker, Unsubscribe, VersionSource,
};
use proptest::prelude::*;
use std::sync::Arc;

const BASE: &str = "https://click.example.com";
const CLICKS: TrackingChoice = TrackingChoice { opens: Some(false), clicks: Some(true) };

fn keys() -> TokenKeys {
    TokenKeys::new([7; 32], [])
}

fn site() -> TrackingSite {
    TrackingSite::new(BASE.parse().unwrap())
}

fn tracker(site: Option<TrackingSite>) -> Arc<Tracker> {
    Arc::new(Tracker::new(keys(), site))
}

fn tracked(source: &MailSource) -> Prepared {
    prepared(source).tracked_by(tracker(Some(site())))
}

fn bulk(html: &str) -> MailSource {
    MailSource { lane: Lane::Bulk, ..inline("S", Some(html), Some("T")) }
}

fn html_of(mail: &Rendered) -> String {
    let parsed = MessageParser::new().parse(&mail.mime[..]).unwrap();
    parsed.body_html(0).unwrap().replace("\r\n", "\n")
}

fn header(mail: &Rendered, name: &str) -> Option<String> {
    let parsed = MessageParser::new().parse(&mail.mime[..]).unwrap();
    parsed.header_raw(name).map(|value| value.trim().to_owned())
}

/// What stands between two marks, each time.
fn between(text: &str, before: &str, after: &str) -> Vec<String> {
    text.split(before).skip(1).filter_map(|rest| Some(rest.split_once(after)?.0.to_owned())).collect()
}

fn clicks(html: &str) -> Vec<(u16, String)> {
    let open = |token: String| match keys().open(&token) {
        Some(Token::Click { message: of, place, url }) if of == message() => (place, url),
        other => panic!("{other:?}"),
    };
    between(html, &format!("\"{BASE}/c/"), "\"").into_iter().map(open).collect()
}

fn to_overridden(prepared: &Prepared, own: &Overrides) -> Rendered {
    let request = RenderRequest {
        message_id: message(),
        tenant: tenant(),
        campaign: None,
        recipient: &mailbox("bob@example.net"),
        variables: "{}",
        overrides: Some(own),
        keys: &[],
    };
    prepared.render(request).unwrap()
}

/// A piece of HTML, and what each link in it leads to that is led through us.
#[derive(Clone, Debug)]
struct Piece(String, Option<String>);

fn piece() -> impl Strategy<Value = Piece> {
    let plain = prop_oneof![
        "[ a-z0-9.,äß😀\n]{0,30}",
        Just("<p class='x' title=\"a > b\">".to_owned()),
        Just("</p><br/><!-- <a href=\"https://no.test/\"> --> ".to_owned()),
        Just("<style>a[href='https://no.test']{color:red}</style>".to_owned()),
        Just("<img src=\"https://no.test/i.png\" alt='&lt;'>".to_owned()),
        Just("<a href=\"mailto:a@no.test?subject=https://no.test\">m</a>".to_owned()),
        Just("<a name=top  id = top>t</a><A HREF='#top'>t</A>".to_owned()),
        Just("<a href='tel:+49 1'>t</a><a href=\"/rel\">r</a>".to_owned()),
        Just("<a href=\"https://CLICK.example.com/pref?x=1\">own</a>".to_owned()),
        Just("< a href=\"https://no.test/\"> &copy; &amp;amp; </bogus>".to_owned()),
        Just("<!--[if mso]><a href=\"https://no.test/\"><![endif]-->".to_owned()),
    ]
    .prop_map(|text| Piece(text, None));
    let link = ("[a-z]{1,8}", "[a-zA-Z0-9/._~%=&;?ö-]{0,40}", 0..5_u8).prop_map(|(host, path, form)| {
        let url = format!("https://{host}.test/{path}");
        let escaped = url.replace('&', "&amp;");
        let html = match form {
            0 => format!("<a class=\"b\"  href=\"{escaped}\" style='c'>x</a>"),
            1 => format!("<area\n shape=rect href='{escaped}'\tcoords=1>"),
            2 => format!("<A HREF={escaped} >x</A>"),
            3 => format!("<a target=_blank href = \"\n {} \">x</a>", escaped.replace('/', "&#x2f;")),
            _ => format!("<a href=\"{}\">x</a>", escaped.replace(':', "&colon;")),
        };
        Piece(html, Some(url))
    });
    prop_oneof![plain, link]
}

proptest! {
    #[test]
    fn every_link_leads_where_it_did_and_nothing_else_changes(
        pieces in prop::collection::vec(piece(), 0..12), in_body in any::<bool>(), constant in any::<bool>(),
    ) {
        let html: String = pieces.iter().map(|piece| piece.0.as_str()).collect();
        let html = if in_body { format!("<html><body bgcolor=red>{html}</body></html>") } else { html };
        let html = if constant { html } else { format!("{{# a template #}}{html}{{{{ nothing }}}}") };
        let mut source = bulk(&html);
        source.tracking = CLICKS;
        let variables = r#"{"nothing":""}"#;
        let before = html_of(&render(&prepared(&source), variables).unwrap());
        let after = html_of(&render(&tracked(&source), variables).unwrap());
        let expected: Vec<(u16, String)> =
            (0..).zip(pieces.iter().filter_map(|piece| piece.1.clone())).collect();
        let found: Vec<String> = after
            .match_indices(&format!("{BASE}/c/"))
            .map(|(at, head)| {
                let rest = &after[at + head.len()..];
                let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '-' && c != '_').unwrap();
                rest[..end].to_owned()
            })
            .collect();
        let opened: Vec<_> = found
            .iter()
            .map(|token| match keys().open(token) {
                Some(Token::Click { message: of, place, url }) if of == message() => (place, url),
                other => panic!("{other:?}"),
            })
            .collect();
        prop_assert_eq!(&opened, &expected);
        // What lies between the links is what lay there before.
        let mut rest = before.as_str();
        let mut parts = after.as_str();
        for token in &found {
            let (head, tail) = parts.split_once(&format!("{BASE}/c/{token}")).unwrap();
            prop_assert!(rest.starts_with(head), "{head:?} in {rest:?}");
            rest = &rest[head.len()..];
            let end = tail.chars().next().unwrap();
            rest = &rest[rest.find(end).unwrap()..];
            if end.is_ascii_whitespace() { rest = rest.trim_start(); }
            parts = if end.is_ascii_whitespace() { tail.trim_start() } else { tail };
        }
        prop_assert_eq!(rest, parts);
    }
}

proptest! {
    #[test]
    fn any_markup_is_survived_and_every_token_in_it_is_good(
        scraps in prop::collection::vec(prop::sample::select(&SCRAPS[..]), 0..40), honeypot in any::<bool>(),
    ) {
        let mut source = bulk("{{ html | safe }}");
        source.tracking = TrackingChoice { opens: Some(true), clicks: Some(true) };
        let site = TrackingSite { honeypot, ..site() };
        let prepared = prepared(&source).tracked_by(tracker(Some(site)));
        let variables = serde_json::json!({ "html": scraps.concat() }).to_string();
        let html = html_of(&render(&prepared, &variables).unwrap());
        for part in html.split(BASE).skip(1) {
            let token = part[3..].split(|c: char| !c.is_ascii_alphanumeric() && c != '-' && c != '_').next().unwrap();
            let opened = keys().open(token);
            prop_assert_eq!(opened.as_ref().map(Token::message), Some(message()), "{}", part);
        }
        prop_assert!(html.contains("/o/"));
    }
}

/// What markup is made of, and goes wrong with.
const SCRAPS: [&str; 30] = [
    "<a",
    "<area",
    "<body",
    "</body",
    "</html>",
    "</a>",
    ">",
    "/>",
    " ",
    "\n",
    "href",
    "=",
    "\"",
    "'",
    "https://a.test/x",
    "http://b.test",
    "&amp;",
    "&#x2f;",
    "data-mailfleet-track",
    "=off",
    "=\"off\"",
    "<!--",
    "-->",
    "<script>",
    "</script>",
    "<svg>",
    "<select>",
    "<template>",
    "äß😀",
    "<![CDATA[",
];

#[test]
fn links_are_signed_in_their_order_whether_the_part_has_variables_or_not() {
    let html = "<p><a href=\"https://a.test/?x=1&amp;y=2\">1</a><a href=\"https://b.test/\">2</a>\
                <a href=\"https://a.test/?x=1&amp;y=2\">3</a></p>";
    let expected = ["https://a.test/?x=1&y=2", "https://b.test/", "https://a.test/?x=1&y=2"];
    let expected: Vec<(u16, String)> = (0..).zip(expected.map(str::to_owned)).collect();
    for html in [html.to_owned(), format!("{html}{{{{ name }}}}")] {
        let mail = render(&tracked(&bulk(&html)), r#"{"name":"Ann"}"#).unwrap();
        assert_strict(&mail.mime);
        assert_eq!(clicks(&html_of(&mail)), expected, "{html}");
    }
    // Minijinja writes the slashes of a value as references.
    let html = "{% for l in links %}<a href=\"{{ l }}\">x</a>{% endfor %}";
    let mail =
        render(&tracked(&bulk(html)), r#"{"links":["https://a.test/?q=\"&r","javascript:x","mailto:a@b.test"]}"#);
    let html = html_of(&mail.unwrap());
    assert_eq!(clicks(&html), [(0, "https://a.test/?q=\"&r".to_owned())]);
    assert!(html.contains("javascript:x") && html.contains("mailto:a@b.test"));
}

#[test]
fn the_text_part_and_a_template_keep_their_links() {
    let template = template("S", "<p><a href=\"https://a.test/x\">look</a></p>");
    let mail = MailSource { lane: Lane::Bulk, ..source(Body::Template { content: content_id() }) };
    let prepared = Prepared::new(&mail, Some(&compile(&template)), None, &Limits::default()).unwrap();
    let mail = render(&prepared.tracked_by(tracker(Some(site()))), "{}").unwrap();
    assert_eq!(clicks(&html_of(&mail)), [(0, "https://a.test/x".to_owned())]);
    let parsed = MessageParser::new().parse(&mail.mime[..]).unwrap();
    assert!(parsed.body_text(0).unwrap().contains("https://a.test/x"));
}

#[test]
fn a_marked_link_stays_and_loses_its_mark_tracked_or_not() {
    let html = "<a data-mailfleet-track=\"off\" href=\"https://a.test/1\">1</a><a href=\"https://a.test/2\">2</a>";
    let without = html.replace(" data-mailfleet-track=\"off\"", "");
    let mut source = bulk(html);
    source.tracking = CLICKS;
    for (source, tracked_links) in [
        (source.clone(), 1),
        (MailSource { lane: Lane::Transactional, tracking: TrackingChoice::default(), ..source.clone() }, 0),
    ] {
        let html = html_of(&render(&tracked(&source), "{}").unwrap());
        assert_eq!(clicks(&html).len(), tracked_links);
        assert!(html.contains("<a href=\"https://a.test/1\">") && !html.contains("data-mailfleet"), "{html}");
    }
    assert_eq!(html_of(&render(&prepared(&source), "{}").unwrap()), without);
    assert_eq!(html_of(&render(&prepared(&bulk(&format!("{html}{{{{ x }}}}"))), r#"{"x":""}"#).unwrap()), without);
}

#[test]
fn links_that_are_too_long_for_a_token_stay() {
    let of = |length: usize| format!("https://a.test/{}", "x".repeat(length - "https://a.test/".len()));
    let (fits, long) = (of(LONGEST_LINK), of(LONGEST_LINK + 1));
    let html =
        html_of(&render(&tracked(&bulk(&format!("<a href=\"{long}\">l</a><a href=\"{fits}\">f</a>"))), "{}").unwrap());
    assert_eq!(clicks(&html), [(0, fits)]);
    assert!(html.contains(&long));
}

#[test]
fn one_image_stands_at_the_end_of_the_body_and_at_its_start_in_a_mail_that_gmail_cuts() {
    let pixel = |html: &str| {
        let html = html_of(&render(&tracked(&bulk(html)), "{}").unwrap());
        let found = between(&html, &format!("<img src=\"{BASE}/o/"), "\"");
        assert_eq!(found.len(), 1, "{html}");
        assert_eq!(keys().open(&found[0]), Some(Token::Open(message())));
        html
    };
    let html = pixel("<html><body><p>Hi</p></body></html>");
    assert!(html.starts_with("<html><body><p>Hi</p><img ") && html.contains("\"></body></html>"), "{html}");
    assert!(html.contains(" width=\"1\" height=\"1\" alt=\"\" role=\"presentation\" aria-hidden=\"true\" "), "{html}");
    assert!(pixel("<p>Hi</p>").starts_with("<p>Hi</p><img "));
    let long = format!("<html><body class=a><p>{}</p></body></html>", "word ".repeat(22_000));
    assert!(pixel(&long).starts_with("<html><body class=a><img "));
    let text_only = MailSource { lane: Lane::Bulk, ..inline("S", None, Some("T")) };
    assert!(!text(&render(&tracked(&text_only), "{}").unwrap()).contains("/o/"));
}

#[test]
fn a_link_that_nobody_sees_is_there_only_when_it_is_asked_for() {
    let source = bulk("<a href=\"https://a.test/\">x</a>");
    assert_eq!(clicks(&html_of(&render(&tracked(&source), "{}").unwrap())).len(), 1);
    let site = TrackingSite { honeypot: true, ..site() };
    let html = html_of(&render(&prepared(&source).tracked_by(tracker(Some(site))), "{}").unwrap());
    let expected = [(0, "https://a.test/".to_owned()), (HONEYPOT_PLACE, format!("{BASE}/"))];
    assert_eq!(clicks(&html), expected);
    assert!(html.contains("display:none") && html.contains("tabindex=\"-1\" aria-hidden=\"true\""));
}

#[test]
fn whoever_says_no_is_not_tracked() {
    let (yes, no) = (
        TrackingChoice { opens: Some(true), clicks: Some(true) },
        TrackingChoice { opens: Some(false), clicks: Some(false) },
    );
    let open = TrackingChoice::default();
    let html = "<p><a href=\"https://a.test/\">x</a></p>";
    let seen = |prepared: Prepared, untracked: bool| {
        let html = html_of(&to_overridden(&prepared, &Overrides { untracked, ..Overrides::default() }));
        (html.contains("/o/"), html.contains("/c/"))
    };
    for (lane, call, template, expected) in [
        (Lane::Bulk, open, open, true),
        (Lane::Bulk, no, open, false),
        (Lane::Bulk, open, no, false),
        (Lane::Bulk, yes, no, false),
        (Lane::Bulk, no, yes, false),
        (Lane::Transactional, open, open, false),
        (Lane::Transactional, yes, open, true),
        (Lane::Transactional, open, yes, true),
    ] {
        let mail = MailSource { lane, tracking: call, ..source(Body::Template { content: content_id() }) };
        let compiled = CompiledTemplate {
            subject: "S".to_owned(),
            html: Some(html.to_owned()),
            tracking: template,
            ..CompiledTemplate::default()
        };
        let prepared = || Prepared::new(&mail, Some(&compiled), None, &Limits::default()).unwrap();
        assert_eq!(
            seen(prepared().tracked_by(tracker(Some(site()))), false),
            (expected, expected),
            "{lane} {call:?} {template:?}"
        );
        assert_eq!(seen(prepared().tracked_by(tracker(Some(site()))), true), (false, false), "the recipient's word");
        assert_eq!(seen(prepared().tracked_by(tracker(None)), false), (false, false), "without a site");
    }
    let parts = TemplateSource { subject: "S".to_owned(), html: Some(html.to_owned()), ..TemplateSource::default() };
    let version = VersionSource { parts, tracking: no, ..VersionSource::default() };
    assert_eq!(version.build(&Default::default(), &Limits::default()).unwrap().base.unwrap().tracking, no);
}

#[test]
fn a_sending_domain_may_have_links_of_its_own() {
    let mut site = site();
    site.domains.insert("example.com".parse().unwrap(), "https://l.example.com".parse().unwrap());
    let html = "<a href=\"https://a.test/\">x</a><a href=\"https://click.example.com/x\">y</a>";
    let html = html_of(&render(&prepared(&bulk(html)).tracked_by(tracker(Some(site))), "{}").unwrap());
    assert_eq!(between(&html, "\"https://l.example.com/c/", "\"").len(), 1);
    assert!(html.contains("\"https://click.example.com/x\"") && html.contains("\"https://l.example.com/o/"));
}

#[tokio::test]
async fn bulk_mail_can_be_left_in_one_click_and_the_signature_covers_it() {
    let source = bulk("<a href=\"{{ unsubscribe_url }}\">leave</a>");
    let mail = render_to(&tracked(&source), "bob@example.net", "{}", &*KEYS).unwrap();
    let url = between(&header(&mail, "List-Unsubscribe").unwrap(), "<", ">").remove(0);
    let token = url.strip_prefix(&format!("{BASE}/u/")).unwrap();
    assert_eq!(keys().open(token), Some(Token::Unsubscribe(message())));
    assert_eq!(header(&mail, "List-Unsubscribe-Post").as_deref(), Some("List-Unsubscribe=One-Click"));
    // The link in the mail leads there directly.
    assert!(html_of(&mail).contains(&format!("<a href=\"{url}\">leave</a>")), "{}", html_of(&mail));
    assert_eq!(verify(&mail.mime).await, [DkimResult::Pass, DkimResult::Pass]);
    let report = header(&mail, "X-Mailfleet-Token").unwrap();
    assert_eq!(keys().open(&report), Some(Token::Report(message())));
    for name in ["List-Unsubscribe", "List-Unsubscribe-Post", "X-Mailfleet-Token"] {
        let forged = text(&mail).replacen("\r\nSubject:", &format!("\r\n{name}: x\r\nSubject:"), 1);
        let verdicts = verify(forged.as_bytes()).await;
        assert!(verdicts.iter().all(|verdict| *verdict != DkimResult::Pass), "a second {name} is noticed");
        let changed = text(&mail).replacen(&format!("\r\n{name}: "), &format!("\r\n{name}: y"), 1);
        assert!(verify(changed.as_bytes()).await.iter().all(|verdict| *verdict != DkimResult::Pass), "{name}");
    }
    let repeated = render_to(&tracked(&source), "bob@example.net", "{}", &*KEYS).unwrap();
    assert_eq!(repeated.mime, mail.mime);
}

#[test]
fn what_a_caller_says_about_leaving_stands() {
    let ways = |change: &dyn Fn(&mut MailSource)| {
        let mut source = bulk("<a href=\"{{ unsubscribe_url }}\">leave</a>");
        change(&mut source);
        assert_eq!(source.validate(&Limits::default()), []);
        let mail = render(&tracked(&source), "{}").unwrap();
        (header(&mail, "List-Unsubscribe"), header(&mail, "List-Unsubscribe-Post").is_some(), html_of(&mail))
    };
    let own = Unsubscribe { url: Some("https://own.test/l?a=1&b=2".to_owned()), ..Unsubscribe::default() };
    let (field, one_click, html) = ways(&|source| source.unsubscribe = Some(own.clone()));
    assert_eq!((field.as_deref(), one_click), (Some("<https://own.test/l?a=1&b=2>"), false));
    assert!(html.contains("own.test") && !html.contains("/c/") && !html.contains("/u/"), "{html}");
    let mailto = Unsubscribe { mailto: Some("leave@example.com".to_owned()), ..Unsubscribe::default() };
    let (field, one_click, _) = ways(&|source| source.unsubscribe = Some(mailto.clone()));
    let field = field.unwrap();
    assert!(field.starts_with(&format!("<{BASE}/u/")) && field.ends_with("<mailto:leave@example.com>") && one_click);
    let written = ("List-Unsubscribe".to_owned(), "<https://own.test/>".to_owned());
    let (field, one_click, _) = ways(&|source| source.headers = vec![written.clone()]);
    assert_eq!((field.as_deref(), one_click), (Some("<https://own.test/>"), false));
    let hosted = Unsubscribe { hosted: true, ..Unsubscribe::default() };
    let (field, one_click, html) = ways(&|source| {
        source.lane = Lane::Transactional;
        source.unsubscribe = Some(hosted.clone());
    });
    assert!(field.unwrap().starts_with(&format!("<{BASE}/u/")) && one_click && html.contains("/u/"));
    let (field, one_click, html) = ways(&|source| source.lane = Lane::Transactional);
    assert_eq!((field, one_click), (None, false));
    assert!(html.contains(&format!("\"{BASE}/u/")), "the variable is there all the same");

    let both = Unsubscribe { hosted: true, ..own };
    let findings = MailSource { unsubscribe: Some(both), ..bulk("x") }.validate(&Limits::default());
    assert_eq!(findings.iter().map(|one| one.field.as_str()).collect::<Vec<_>>(), ["unsubscribe.hosted"]);
}

#[test]
fn a_recipients_own_unsubscribe_url_wins_and_a_default_gives_way() {
    let source = bulk("<a href=\"{{ unsubscribe_url }}\">leave</a>");
    let own = html_of(&render(&tracked(&source), r#"{"unsubscribe_url":"https://own.test/?u=1&v"}"#).unwrap());
    assert!(own.contains("own.test") && !own.contains("/u/") && !own.contains("/c/"), "{own}");
    let error = render(&prepared(&source).tracked_by(tracker(None)), "{}").unwrap_err();
    assert!(matches!(error, RenderError::MissingVariable { name, .. } if name == "unsubscribe_url"));
    let mut template = template("S", "<a href=\"{{ unsubscribe_url }}\">leave</a>");
    let compiled = compile(&template);
    assert_eq!(compiled.variables, Vec::<String>::new(), "nobody has to give it");
    template.defaults.insert("unsubscribe_url".to_owned(), "https://default.test/".into());
    let mail = source_of_template();
    let of = |tracker: Arc<Tracker>| {
        let prepared = Prepared::new(&mail, Some(&compile(&template)), None, &Limits::default()).unwrap();
        html_of(&render(&prepared.tracked_by(tracker), "{}").unwrap())
    };
    assert!(of(tracker(Some(site()))).contains(&format!("\"{BASE}/u/")));
    assert!(of(tracker(None)).contains("default.test"));
}

fn source_of_template() -> MailSource {
    MailSource { lane: Lane::Bulk, ..source(Body::Template { content: content_id() }) }
}

#[test]
fn a_preview_shows_links_as_they_were_written_and_misses_no_address_to_leave_at() {
    let html = "<a href=\"https://a.test/\">x</a><a data-mailfleet-track=off href=\"{{ unsubscribe_url }}\">leave</a>";
    let request = RenderRequest {
        message_id: message(),
        tenant: tenant(),
        campaign: None,
        recipient: &mailbox("bob@example.net"),
        variables: "{}",
        overrides: None,
        keys: &[],
    };
    let preview = prepared(&bulk(html)).preview(request).unwrap();
    let shown = "<a href=\"https://a.test/\">x</a><a href=\"https://example.com/unsubscribe\">leave</a>";
    assert_eq!((preview.html.as_deref(), html_of(&preview.mail)), (Some(shown), shown.to_owned()));
    assert_eq!(header(&preview.mail, "X-Mailfleet-Token"), None);
}

#[test]
fn a_finished_mail_keeps_its_body_and_gets_return_path_and_token() {
    let raw = b"From: ann@example.com\r\nSubject: S\r\nContent-Type: text/html\r\nX-Mailfleet-Token: forged\r\n\r\n\
                <a data-mailfleet-track=\"off\" href=\"https://a.test/\">x</a>\r\n";
    let mail = MailSource { lane: Lane::Bulk, ..source(Body::Raw { content: content_id() }) };
    let prepared = Prepared::new(&mail, None, Some(Bytes::from_static(raw)), &Limits::default()).unwrap();
    let prepared = prepared.tracked_by(tracker(Some(site())));
    let mail = render(&prepared, "{}").unwrap();
    assert!(text(&mail).ends_with("\r\n\r\n<a data-mailfleet-track=\"off\" href=\"https://a.test/\">x</a>\r\n"));
    assert!(!text(&mail).contains("forged"));
    assert_eq!(keys().open(&header(&mail, "X-Mailfleet-Token").unwrap()), Some(Token::Report(message())));
    let envelope = prepared.envelope(message(), &mailbox("bob@example.net"));
    assert_eq!(envelope, mail.envelope, "known without rendering");
    let sender = mail.envelope.sender.0.unwrap();
    assert_eq!(sender.local().len(), "bounce+".len() + 50);
    assert_eq!(message_of_return_path(&sender, Some(&keys())), Some(message()));
    assert!(header(&mail_of(&prepared), "List-Unsubscribe").unwrap().contains("/u/"), "bulk mail can be left");
}

fn mail_of(prepared: &Prepared) -> Rendered {
    render(prepared, "{}").unwrap()
}
