//! What an operator types: sending, listing and watching.

use mail_parser::{MessageParser, MimeHeaders};
use mailfleet_tests::processes::ProcessFleet;
use serde_json::{Value, json};
use std::process::Output;
use testkit::{LIMIT, eventually};

/// What is shown is compared word for word: faults on purpose would add to it.
const NO_FAULTS: (&str, &str) = ("MAILFLEET_FAULTS", "0");

/// The lines of an answer, each a JSON value.
fn lines(output: &Output) -> Vec<Value> {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn joined<'a>(words: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    [words, more].concat()
}

#[tokio::test]
async fn a_mail_with_files_and_labels_is_sent_listed_and_watched_from_the_command_line() {
    let fleet = ProcessFleet::start(&[NO_FAULTS]).await;
    let _mails = fleet.mails().await;
    let path = |name: &str| fleet.folder().join(name).to_string_lossy().into_owned();
    std::fs::write(path("report.bin"), [0_u8, 255, 13, 10, 7]).unwrap();
    std::fs::write(path("logo.png"), b"\x89PNG").unwrap();
    std::fs::write(path("body.html"), "<p><img src=\"cid:logo\"></p>").unwrap();
    let (report, logo, html) = (path("report.bin=application/pdf"), path("logo.png"), path("body.html"));
    let shown = format!("logo={logo}");
    let common = ["send", "--json", "--from", "news@example.com", "--subject", "S", "--html-file", &html];
    let sent = lines(
        &fleet
            .command(&joined(
                &common,
                &["--to", "ann@a.test", "--attach", &report, "--inline", &shown, "--tag", "real", "--meta", "order=17"],
            ))
            .await,
    );
    let real = sent[0]["message_ids"][0].as_str().unwrap().to_owned();
    let sent =
        lines(&fleet.command(&joined(&common, &["--to", "unknown@a.test", "--sandbox", "--tag", "tried"])).await);
    let tried = sent[0]["message_ids"][0].as_str().unwrap().to_owned();

    // From the beginning, and from in between: no gap, no repeat.
    let told = lines(&fleet.command(&["watch", "--json", "--after", "0", "--limit", "4"]).await);
    assert_eq!(told.iter().map(|event| event["seq"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 2, 3, 4]);
    let again = lines(&fleet.command(&["watch", "--json", "--after", "2", "--limit", "2"]).await);
    assert_eq!(again, told[2..]);
    let of = |id: &str| -> Vec<&str> {
        let own = told.iter().filter(|event| event["message_id"] == id);
        own.map(|event| event["event"].as_str().unwrap()).collect()
    };
    assert_eq!((of(&real), of(&tried)), (vec!["accepted", "delivered"], vec!["accepted", "bounced"]));
    let bounced =
        lines(&fleet.command(&["watch", "--json", "--after", "0", "--event", "bounced", "--limit", "1"]).await);
    assert_eq!(
        (&bounced[0]["route"], &bounced[0]["sandbox"], &bounced[0]["tags"]),
        (&json!("sandbox"), &json!(true), &json!(["tried"]))
    );

    let listed = lines(&fleet.command(&["messages", "--json", "--tag", "real", "--since", "1h"]).await);
    assert_eq!(listed.len(), 1);
    assert_eq!(
        (&listed[0]["message_id"], &listed[0]["state"], &listed[0]["metadata"]["order"]),
        (&json!(real), &json!("delivered"), &json!("17"))
    );
    let all = fleet.command(&["messages"]).await;
    let all = String::from_utf8_lossy(&all.stdout).into_owned();
    assert!(all.contains(&real) && all.contains(&tried) && all.contains("(sandbox) tried"), "{all}");
    let refused = fleet.command(&["watch", "--after", "1000000"]).await;
    assert_eq!(refused.status.code(), Some(1), "{}", String::from_utf8_lossy(&refused.stderr));

    let mailbox = fleet.state().unwrap().mailbox.join("a.test");
    let files = eventually(LIMIT, async || {
        let files: Vec<_> = std::fs::read_dir(&mailbox).ok()?.flatten().map(|entry| entry.path()).collect();
        (!files.is_empty()).then_some(files)
    });
    let files = files.await.expect("the sink keeps what it took");
    assert_eq!(files.len(), 1, "what was tried is not there: {files:?}");
    let copy = std::fs::read(&files[0]).unwrap();
    let message = MessageParser::new().parse(&copy).unwrap();
    let named = |name: &str| message.parts.iter().find(|part| part.attachment_name() == Some(name)).unwrap();
    assert_eq!(named("report.bin").contents(), [0_u8, 255, 13, 10, 7]);
    assert_eq!(named("logo.png").content_id(), Some("logo"));
    fleet.stop().await;
}

#[tokio::test]
async fn an_operators_rules_judge_replies_and_what_others_would_change_is_told() {
    let rules = testkit::shared::folder().join(format!("rules-{}.toml", std::process::id()));
    let write = |text: &str| {
        let rule = format!(
            "version = \"own\"\n[[rule]]\nname = \"ours\"\nclass = \"spam_block\"\ntexts = [{text:?}]\n\
             examples = [\"550 5.1.1 No such user\"]"
        );
        std::fs::write(&rules, rule).unwrap();
        rules.to_string_lossy().into_owned()
    };
    let own = write("no such user");
    let fleet = ProcessFleet::start(&[NO_FAULTS, ("MAILFLEET_SENDER__REPLY_RULES", &own)]).await;
    let _mails = fleet.mails().await;
    let send = ["send", "--json", "--from", "news@example.com", "--subject", "S", "--text", "T"];
    fleet.command(&joined(&send, &["--to", "unknown@a.test"])).await;
    let bounced =
        lines(&fleet.command(&["watch", "--json", "--after", "0", "--event", "bounced", "--limit", "1"]).await);
    assert_eq!(bounced[0]["bounce_class"], "spam_block", "{bounced:?}");
    let replayed = lines(&fleet.command(&["classify", "--stored", "--since", "1h", "--json"]).await);
    let changes = replayed[0]["changes"].as_array().unwrap();
    assert_eq!(
        (changes.len(), &changes[0]["from"]["class"], &changes[0]["to"]["class"], &changes[0]["count"]),
        (1, &json!("spam_block"), &json!("invalid_recipient"), &json!(1)),
        "{replayed:?}"
    );
    let same = lines(&fleet.command(&["classify", "--stored", "--json", "--rules", &own]).await);
    assert_eq!((&same[0]["changes"], &same[0]["replies"]), (&json!([]), &json!(1)));

    let file = fleet.folder().join("replies.txt").to_string_lossy().into_owned();
    std::fs::write(&file, "550-5.1.1 No such\r\n550 5.1.1 user\r\n\r\n450 4.2.0 Greylisted\r\nnonsense\r\n").unwrap();
    let told = fleet.command(&["classify", "554 5.7.1 blocked using zen.spamhaus.org", &file]).await;
    assert_eq!(told.status.code(), Some(1), "one line is no reply");
    let told: Vec<Value> =
        String::from_utf8_lossy(&told.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let seen: Vec<_> = told.iter().map(|one| (&one["line"], &one["kind"], &one["class"], &one["action"])).collect();
    let (reply, failed, delayed) = (&json!("reply"), &json!("failed"), &json!("delayed"));
    assert_eq!(
        seen,
        [
            (&Value::Null, reply, &json!("spam_block"), failed),
            (&json!(1), reply, &json!("invalid_recipient"), failed),
            (&json!(4), reply, &json!("greylisted"), delayed),
            (&json!(5), &json!("unreadable"), &Value::Null, &Value::Null),
        ]
    );
    assert_eq!((&told[0]["file"], &told[1]["file"]), (&Value::Null, &json!(file)));

    write("another text");
    let refused = fleet.command(&["classify", "--rules", &own, "550 x"]).await;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(64), "{said}");
    assert!(said.contains("rule \"ours\" has the example") && said.contains("before it decides"), "{said}");
    fleet.stop().await;
    std::fs::remove_file(&rules).unwrap();
}
