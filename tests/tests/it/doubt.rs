//! A doubt is told wherever somebody looks.

use mailfleet_tests::{mail, processes::ProcessFleet};
use proto::v1::{self, MessageState};
use std::path::Path;
use testkit::until;

/// What the journal says of a message, all files together.
fn journal(folder: &Path, id: &str) -> Vec<String> {
    let files = std::fs::read_dir(folder.join("journal")).unwrap().map(|entry| entry.unwrap().path());
    let texts = files.filter(|path| path.extension().is_some()).map(|path| std::fs::read_to_string(path).unwrap());
    texts
        .flat_map(|text| text.lines().filter(|line| line.contains(id)).map(str::to_owned).collect::<Vec<_>>())
        .collect()
}

#[tokio::test]
async fn a_doubt_stands_in_the_journal_the_metrics_the_api_and_the_story_of_its_message() {
    let fleet = ProcessFleet::start(&[("MAILFLEET_DISPATCHER__RESEND_TRANSACTIONAL", "false")]).await;
    let mails = fleet.mails().await;
    // Who ends doubts stands still meanwhile.
    fleet.freeze("dispatcher").await;
    let request = mail().to("drop-after-dot@sink.test").key("doubt").message();
    let sent = mails.clone().send_message(request).await.unwrap().into_inner();
    let id = sent.message_ids[0].clone();
    let state = async || {
        let request = v1::GetMessageRequest { message_id: id.clone() };
        let seen = mails.clone().get_message(request).await.unwrap().into_inner();
        (seen.state(), seen.timeline.iter().filter(|event| event.event == "in_doubt").count())
    };
    let why = async || String::from_utf8(fleet.command(&["why", &id]).await.stdout).unwrap();
    until("it is in doubt", async || state().await == (MessageState::InDoubt, 1)).await;
    let lines = journal(fleet.folder(), &id);
    let reply = lines.last().expect("the journal knows it");
    assert!(reply.starts_with("R ") && reply.contains("in_doubt"), "{lines:?}");
    assert_eq!(
        fleet.metric("sender", r#"mailfleet_sender_attempts_total{result="in_doubt",route="relay"}"#).await,
        1.0
    );
    let story = why().await;
    assert!(story.contains("may have been delivered: no answer came to the last line"), "{story}");
    assert!(story.contains("An attempt may have delivered it, and nobody knows yet"), "{story}");

    // The policy of its lane ends it.
    fleet.thaw("dispatcher").await;
    until("its doubt ends", async || state().await == (MessageState::Unknown, 1)).await;
    assert_eq!(fleet.metric("dispatcher", r#"mailfleet_dispatcher_closed_doubts_total{result="unknown"}"#).await, 1.0);
    let story = why().await;
    assert!(story.contains("may have been delivered, and is not sent again"), "{story}");
    fleet.stop().await;
}
