//! What is made of mails that came back.

#![expect(clippy::unwrap_used, reason = "tests")]

use mailfleet_feedback::report::{Kind, ReadError, Reader};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::{collections::BTreeMap, fs, path::PathBuf};

fn folder() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus"))
}

fn mails() -> BTreeMap<String, Vec<u8>> {
    let files = fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path());
    let mails = files.filter(|path| path.extension().is_some_and(|extension| extension == "eml"));
    mails.map(|path| (path.file_stem().unwrap().to_str().unwrap().to_owned(), fs::read(&path).unwrap())).collect()
}

/// What `expected.jsonl` says of each mail; a status that is not given there does not matter.
fn expected() -> BTreeMap<String, Vec<Value>> {
    let mut expected: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for line in fs::read_to_string(folder().join("expected.jsonl")).unwrap().lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        expected.entry(line["file"].as_str().unwrap().to_owned()).or_default().push(line);
    }
    expected
}

fn found(mail: &[u8]) -> Vec<Value> {
    let reading = match Reader::default().read(mail) {
        Ok(reading) => reading,
        Err(_) => return vec![json!({"kind": "error"})],
    };
    let mut found: Vec<Value> = reading.findings.iter().map(|finding| finding.as_json()).collect();
    if found.is_empty() {
        found.push(json!({}));
    }
    for one in &mut found {
        one["kind"] = json!(reading.kind);
    }
    found
}

#[test]
fn every_mail_of_the_corpus_is_read_as_it_should_be() {
    let (mails, expected) = (mails(), expected());
    assert_eq!(mails.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    let mut wrong = Vec::new();
    for (name, expected) in &expected {
        let found = found(&mails[name]);
        if found.len() != expected.len() {
            wrong.push(format!("{name}: {} findings: {found:?}", found.len()));
            continue;
        }
        for (found, expected) in found.iter().zip(expected) {
            for key in ["kind", "class", "recipient", "status", "action", "bounce"] {
                if found[key] != expected[key] && !(key == "status" && expected[key].is_null()) {
                    wrong.push(format!("{name}: {key} {} instead of {}: {found}", found[key], expected[key]));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {} mails:\n{}", wrong.len(), expected.len(), wrong.join("\n"));
}

#[test]
fn what_came_back_tells_its_message_however_it_was_attached() {
    let mails = mails();
    for name in ["postfix-user-unknown", "exim-unknown-user", "qmail-no-mailbox", "o365-not-found", "arf-abuse", "jmrp"]
    {
        let returned = Reader::default().read(&mails[name]).unwrap().returned;
        assert_eq!(returned.message_id.as_deref(), Some("0190b3f1@shop.example"), "{name}");
        if name != "o365-not-found" {
            assert_eq!(returned.token.as_deref(), Some("AQQAtokenTOKENtoken"), "{name}");
        }
    }
}

#[test]
fn reports_about_a_domain_are_read_row_by_row() {
    let mails = mails();
    for name in ["dmarc-gzip", "dmarc-zip", "dmarc-xml"] {
        let report = Reader::default().read(&mails[name]).unwrap().dmarc.unwrap();
        assert_eq!(
            (report.org.as_str(), report.domain.as_str(), report.policy.as_str()),
            ("far.example", "shop.example", "reject")
        );
        let [row] = report.rows.as_slice() else { panic!("{name}: {report:?}") };
        assert_eq!((row.count, row.dkim, row.spf, row.header_from.as_str()), (12, true, false, "shop.example"));
        assert_eq!(row.dkim_results, ["shop.example/s1=pass"]);
    }
    assert!(matches!(Reader::default().read(&mails["dmarc-broken"]), Err(ReadError::Report(_))));
    let report = Reader::default().read(&mails["tls-gzip"]).unwrap().tls.unwrap();
    let [policy] = report.policies.as_slice() else { panic!("{report:?}") };
    assert_eq!((policy.kind.as_str(), policy.successes, policy.failures), ("sts", 5326, 3));
    assert_eq!(policy.reasons, ["certificate-expired at mx1.shop.example: 3"]);
}

#[test]
fn a_report_that_unpacks_to_more_than_allowed_is_refused() {
    let limits = mailfleet_feedback::report::Limits { unpacked: 500, ..Default::default() };
    let reader = Reader::new(domain::Ruleset::builtin().clone(), limits);
    for name in ["dmarc-gzip", "dmarc-zip"] {
        let refused = reader.read(&mails()[name]).unwrap_err().to_string();
        assert!(refused.contains("too large"), "{name}: {refused}");
    }
}

#[test]
fn a_mail_cut_anywhere_is_read_or_refused_and_never_names_somebody_else() {
    for (name, mail) in mails() {
        let whole: Vec<Value> = found(&mail).iter().map(|finding| finding["recipient"].clone()).collect();
        for end in (0..mail.len()).step_by(mail.len() / 60 + 1) {
            for finding in found(&mail[..end]) {
                let recipient = &finding["recipient"];
                let is_piece = recipient.as_str().is_none_or(|one| {
                    whole.iter().any(|known| known.as_str().is_some_and(|known| known.starts_with(one)))
                        || ["shop.example", "bounces.shop.example"].iter().any(|domain| one.ends_with(domain))
                        || finding["kind"] != "bounce"
                });
                assert!(is_piece, "{name} cut at {end}: {finding}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2_000)) {
        let _read = Reader::default().read(&bytes);
    }

    #[test]
    fn no_changed_mail_makes_it_panic(
        name in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), with in proptest::collection::vec(any::<u8>(), 0..30),
    ) {
        let mails = mails();
        let mut mail = mails.values().nth(name.index(mails.len())).unwrap().clone();
        let at = at.index(mail.len());
        let end = (at + with.len()).min(mail.len());
        mail.splice(at..end, with);
        let _read = Reader::default().read(&mail);
    }
}

#[test]
fn what_is_told_can_be_kept_whatever_a_header_held() {
    let mail = b"From: MAILER-DAEMON@b.test\r\nTo: x@shop.example\r\nSubject: Undelivered mail\r\n\r\nUser unknown.\r\n\r\n\
                 --- Below this line is a copy of the message.\r\n\r\nMessage-ID: <a\0b@c.test>\r\nTo: \0\0 g3@far.example\r\n";
    let reading = Reader::default().read(mail).unwrap();
    assert_eq!(reading.kind, Kind::Bounce);
    assert!(!reading.outcome().to_string().contains("\\u0000"), "{reading:?}");
}

#[test]
fn a_mail_that_the_parser_breaks_down_over_is_refused() {
    let mail = fs::read(folder().join("hostile/multipart-without-a-parent")).unwrap();
    assert_eq!(Reader::default().read(&mail).unwrap_err(), ReadError::Structure);
}

#[test]
fn what_people_write_suppresses_nobody() {
    let mail = b"From: a@b.test\r\nTo: news@shop.example\r\nSubject: hello\r\n\r\nuser unknown 550 5.1.1 x@y.test\r\n";
    let reading = Reader::default().read(mail).unwrap();
    assert_eq!(reading.kind, Kind::Mail);
    assert!(reading.findings.is_empty());
}
