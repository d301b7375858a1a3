//! The providers' own libraries find the stand-ins to be what they talk to: they are what our drivers are tested at.

use crate::clients::does;
use serde_json::{Value, json};
use std::path::Path;
use testkit::{
    packages::{self, Language},
    provider::{Account, FakeProvider},
};
use tokio::process::Command;

const KEY: &str = "key-1";

/// Each provider with a stand-in of it.
async fn stand_ins() -> Vec<(&'static str, FakeProvider)> {
    let key = || KEY.to_owned();
    let ses = Account::Ses { region: "eu-central-1".to_owned(), key_id: "AKIAEXAMPLE".to_owned(), secret: key() };
    let mut all = Vec::new();
    for (name, account) in [
        ("sendgrid", Account::Sendgrid { key: key() }),
        ("mailgun", Account::Mailgun { domain: "mg.example.com".to_owned(), key: key() }),
        ("ses", ses),
        ("postmark", Account::Postmark { token: key() }),
        ("sparkpost", Account::Sparkpost { key: key() }),
        ("resend", Account::Resend { key: key() }),
    ] {
        all.push((name, FakeProvider::start(account).await.unwrap()));
    }
    all
}

/// What the libraries of a language say of the stand-ins with the right key and with a wrong one, once their packages
/// are there.
async fn agree(name: &str, files: &[&str], language: Language, run: &[&str], refusals: &[(&str, u16)]) {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("sdks-{name}"));
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/sdks");
    let what = format!("the providers' libraries for {name}");
    if packages::install(&folder, &from, files, language, &what).unwrap().is_none() {
        return;
    }
    let command = |words: &[&str]| {
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).current_dir(&folder);
        command
    };
    let all = stand_ins().await;
    let places = |key: &str| -> String {
        all.iter()
            .map(|(name, at)| ((*name).to_owned(), json!({"url": at.url(), "key": key})))
            .collect::<Value>()
            .to_string()
    };
    let says = async |key: &str| does(command(run).arg(places(key))).await.unwrap();
    let (right, wrong) = (says(KEY).await, says("key-2").await);
    for (name, status) in refusals {
        assert!(right.contains(&format!("{name} taken")), "{name}: {right}");
        assert!(wrong.contains(&format!("{name} {status}")), "{name}: {wrong}");
        let (_, at) = all.iter().find(|(known, _)| known == name).unwrap();
        let taken: Vec<_> = at.taken().into_iter().map(|taken| (taken.recipient, taken.mid)).collect();
        assert_eq!(taken, [("kim@example.net".to_owned(), "01a2089f-f02b-717a-b2a9-35479c6be73a".to_owned())]);
    }
}

#[tokio::test]
async fn the_python_libraries_send_to_the_stand_ins() {
    let run = &[".venv/bin/python", "send.py"];
    let refusals = &[("sendgrid", 401), ("mailgun", 401), ("ses", 403), ("sparkpost", 401), ("resend", 403)];
    agree("python", &["send.py", "requirements.txt"], Language::Python, run, refusals).await;
}

#[tokio::test]
async fn the_javascript_library_of_postmark_sends_to_the_stand_in() {
    let run = &["node", "send.mjs"];
    agree("javascript", &["send.mjs", "package.json"], Language::JavaScript, run, &[("postmark", 401)]).await;
}
