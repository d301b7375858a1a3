//! `messages`: a list, page after page.

use crate::{
    api,
    args::MessagesArgs,
    exit::{Exit, Failure},
    output::{Output, Table, safe},
    reach::Reach,
    why::state_word,
};
use chrono::{DateTime, Utc};
use proto::v1::{ListMessagesRequest, MessageState, MessageSummary};
use serde_json::{Value, json};

/// Most messages asked for at once.
const PAGE: u32 = 500;

/// Lists messages.
pub async fn run(args: &MessagesArgs, reach: &Reach, out: Output) -> anyhow::Result<Exit> {
    let now = service::clock::now();
    let time = |text: &Option<String>| text.as_deref().map(|text| moment(text, now)).transpose();
    let mut request = ListMessagesRequest {
        campaign_id: args.campaign.clone().unwrap_or_default(),
        tag: args.tag.clone().unwrap_or_default(),
        recipient: args.to.clone().unwrap_or_default(),
        accepted_from: time(&args.since)?.map(api::stamp),
        accepted_before: time(&args.before)?.map(api::stamp),
        state: args.state.as_deref().map(state).transpose()?.unwrap_or(MessageState::Unspecified).into(),
        page_size: 0,
        page_token: String::new(),
    };
    let mut client = reach.api_for_tenant().await?.mail();
    let mut left = args.limit;
    let mut table = Table::new(5, &["accepted", "message", "recipient", "state", "tags"]);
    loop {
        request.page_size = left.min(PAGE);
        let page = client.list_messages(request.clone()).await?.into_inner();
        left = left.saturating_sub(u32::try_from(page.messages.len()).unwrap_or(u32::MAX));
        for message in &page.messages {
            if out.json {
                out.line(&as_json(message).to_string());
            } else {
                table.row(row(message));
            }
        }
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() || left == 0 {
            break;
        }
    }
    if !out.json {
        out.line(if table.is_empty() { "no message passes".to_owned() } else { table.text() }.as_str());
        if left == 0 && !request.page_token.is_empty() {
            out.note("and more; --limit shows them");
        }
    }
    Ok(Exit::Ok)
}

fn row(message: &MessageSummary) -> Vec<String> {
    let at = message.accepted_at.as_ref().map(api::time).unwrap_or_default();
    let mut tags = message.tags.clone();
    if message.sandbox {
        tags.insert(0, "(sandbox)".to_owned());
    }
    vec![
        at.format("%Y-%m-%d %H:%M:%S").to_string(),
        message.message_id.clone(),
        safe(&message.recipient),
        state_word(message.state()),
        tags.join(" "),
    ]
}

fn as_json(message: &MessageSummary) -> Value {
    let time = |stamp: &Option<prost_types::Timestamp>| stamp.as_ref().map(api::time);
    json!({
        "message_id": message.message_id, "batch_id": message.batch_id, "campaign_id": message.campaign_id,
        "recipient": message.recipient, "state": state_word(message.state()),
        "accepted_at": time(&message.accepted_at), "closed_at": time(&message.closed_at),
        "tags": message.tags, "metadata": message.metadata, "sandbox": message.sandbox,
    })
}

fn state(word: &str) -> anyhow::Result<MessageState> {
    let name = format!("MESSAGE_STATE_{}", word.to_ascii_uppercase());
    MessageState::from_str_name(&name).filter(|state| *state != MessageState::Unspecified).ok_or_else(|| {
        let known = (1..).map_while(|code| MessageState::try_from(code).ok()).map(state_word);
        Failure::usage(format!("--state {word}: must be one of {}", known.collect::<Vec<_>>().join(", ")))
    })
}

/// A time, or a span before now.
pub fn moment(text: &str, now: DateTime<Utc>) -> anyhow::Result<DateTime<Utc>> {
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Ok(time.to_utc());
    }
    let span = humantime::parse_duration(text).map_err(|_| {
        Failure::usage(format!("{text}: must be a time such as 2030-01-31T08:00:00Z, or a span such as 2h"))
    })?;
    Ok(now - span)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_named_as_they_are_shown() {
        assert_eq!(state("in_doubt").expect("is one"), MessageState::InDoubt);
        let told = state("sent").expect_err("is none").to_string();
        assert!(told.contains("delivered") && told.contains("unknown"), "{told}");
    }

    #[test]
    fn a_span_counts_back_from_now() {
        let now = DateTime::from_timestamp(7_200, 0).expect("is a time");
        assert_eq!(moment("2h", now).expect("is a span"), DateTime::UNIX_EPOCH);
        assert!(moment("yesterday", now).is_err());
    }
}
