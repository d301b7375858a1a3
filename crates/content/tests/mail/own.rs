//! What one recipient has of his own.

use crate::common::*;
use crate::dkim::verify;
use domain::Overrides;
use mail_auth::DkimResult;
use mailfleet_content::{Prepared, RenderError, RenderRequest, Rendered};

fn render_own(prepared: &Prepared, own: &Overrides) -> Result<Rendered, RenderError> {
    prepared.render(RenderRequest {
        message_id: message(),
        tenant: tenant(),
        campaign: None,
        recipient: &mailbox("bob@example.net"),
        variables: r#"{"name":"Bob"}"#,
        overrides: Some(own),
        keys: &*KEYS,
    })
}

fn own(subject: &str, headers: &[(&str, &str)]) -> Overrides {
    Overrides {
        subject: Some(subject.to_owned()).filter(|subject| !subject.is_empty()),
        headers: headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        ..Overrides::default()
    }
}

fn shared() -> Prepared {
    let mut source = inline("For {{ name }}", None, Some("T"));
    source.headers = vec![
        ("X-Constant".into(), "all".into()),
        ("X-Variable".into(), "for {{ name }}".into()),
        ("X-Kept".into(), "kept".into()),
    ];
    prepared(&source)
}

#[tokio::test]
async fn a_recipients_own_fields_stand_instead_of_the_mails_and_are_signed_as_they_are() {
    let own =
        own("{{ name }} stays as it is: Grüße", &[("x-constant", "mine"), ("X-VARIABLE", "mine too"), ("X-New", "n")]);
    let mail = render_own(&shared(), &own).unwrap();
    assert_eq!(verify(&mail.mime).await, [DkimResult::Pass, DkimResult::Pass]);
    let parsed = mail_parser::MessageParser::new().parse(&mail.mime[..]).unwrap();
    assert_eq!(parsed.subject(), Some("{{ name }} stays as it is: Grüße"));
    let text = text(&mail);
    for line in ["x-constant: mine", "X-VARIABLE: mine too", "X-New: n", "X-Kept: kept"] {
        assert!(text.contains(&format!("\r\n{line}\r\n")), "no {line} in {text}");
    }
    assert!(!text.contains("X-Constant: all") && !text.contains("X-Variable: for"), "{text}");
    // A changed subject breaks the signature: it is under it.
    let forged = String::from_utf8(mail.mime.to_vec()).unwrap().replace("X-Kept", "Subject: other\r\nX-Kept");
    assert!(verify(forged.as_bytes()).await.iter().all(|result| *result != DkimResult::Pass));
}

#[test]
fn without_own_ones_the_mails_stand() {
    let text = text(&render_own(&shared(), &Overrides::default()).unwrap());
    for line in ["Subject: For Bob", "X-Constant: all", "X-Variable: for Bob"] {
        assert!(text.contains(&format!("\r\n{line}\r\n")), "no {line} in {text}");
    }
}

#[test]
fn what_was_stored_past_the_checks_still_begins_no_line() {
    for (subject, headers) in [
        ("a\r\nBcc: eve@evil.test", &[][..]),
        ("", &[("X-A", "a\r\nBcc: eve@evil.test")][..]),
        ("", &[("Bcc", "eve@evil.test")][..]),
        ("", &[("X-A: b\r\nBcc", "eve@evil.test")][..]),
    ] {
        let refused = render_own(&shared(), &own(subject, headers)).unwrap_err();
        assert!(matches!(refused, RenderError::Header { .. }), "{refused}");
    }
}
