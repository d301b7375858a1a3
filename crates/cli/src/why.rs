//! `why`: a message's story in words.

use crate::{
    api,
    exit::{Exit, Failure},
    output::{Output, safe},
    reach::Reach,
};
use chrono::{DateTime, Utc};
use proto::v1::{GetMessageRequest, GetMessageResponse, MessageEvent, MessageState};
use serde_json::{Value, json};

/// Tells the story of a message.
pub async fn run(message: &str, reach: &Reach, out: Output) -> anyhow::Result<Exit> {
    if message.parse::<domain::MessageId>().is_err() {
        return Err(Failure::usage(format!("{message:?} is no message id; it is the UUID that the accept returned")));
    }
    let request = GetMessageRequest { message_id: message.to_owned() };
    let answer = reach.api_for_tenant().await?.mail().get_message(request).await?.into_inner();
    let now = service::clock::now();
    out.answer(&as_json(&answer), || story(&answer, now))?;
    Ok(Exit::Ok)
}

/// Calls a message, or an accepted call, back.
pub async fn cancel(message: Option<&str>, batch: Option<&str>, reach: &Reach, out: Output) -> anyhow::Result<Exit> {
    let mut client = reach.api_for_tenant().await?.mail();
    if let Some(batch_id) = batch.map(str::to_owned) {
        client.cancel_batch(proto::v1::CancelBatchRequest { batch_id }).await?;
        out.answer(&json!({"cancelled": true}), || {
            "called back: no attempt to deliver one of its messages begins any more".to_owned()
        })?;
        return Ok(Exit::Ok);
    }
    let message_id = message.unwrap_or_default().to_owned();
    let state = client.cancel_message(proto::v1::CancelMessageRequest { message_id }).await?.into_inner().state();
    let late = is_final(state) && state != MessageState::Cancelled;
    out.answer(&json!({"state": state_word(state), "too_late": late}), || {
        if late {
            format!("too late: it is {} already", state_word(state))
        } else {
            "called back: no attempt to deliver it begins any more".to_owned()
        }
    })?;
    Ok(if late { Exit::Finding } else { Exit::Ok })
}

/// The word for a state: `queued`, `delivered`.
pub fn state_word(state: MessageState) -> String {
    state.as_str_name().trim_start_matches("MESSAGE_STATE_").to_ascii_lowercase()
}

fn is_final(state: MessageState) -> bool {
    match state {
        MessageState::Unspecified
        | MessageState::Queued
        | MessageState::Released
        | MessageState::Sending
        | MessageState::InDoubt => false,
        MessageState::Delivered
        | MessageState::Bounced
        | MessageState::Expired
        | MessageState::Cancelled
        | MessageState::Suppressed
        | MessageState::Failed
        | MessageState::Unknown => true,
    }
}

fn story(message: &GetMessageResponse, now: DateTime<Utc>) -> String {
    let mut text = format!("message {} to {}\n", message.message_id, safe(&message.recipient));
    if !message.site.is_empty() {
        text.push_str(&format!("receiver {}\n", safe(&message.site)));
    }
    if !message.campaign_id.is_empty() {
        text.push_str(&format!("campaign {}\n", message.campaign_id));
    }
    if !message.trace_id.is_empty() {
        text.push_str(&format!("trace    {}\n", message.trace_id));
    }
    if !message.tags.is_empty() {
        text.push_str(&format!("tags     {}\n", message.tags.join(" ")));
    }
    for (key, value) in &message.metadata {
        text.push_str(&format!("{}: {}\n", safe(key), safe(value)));
    }
    if message.sandbox {
        text.push_str("sandbox: nothing is sent\n");
    }
    text.push('\n');
    let mut last: Option<DateTime<Utc>> = None;
    for event in &message.timeline {
        let at = event.at.as_ref().map(api::time).unwrap_or_default();
        let when = match last {
            None => at.format("%Y-%m-%d %H:%M:%S%.3f UTC").to_string(),
            Some(before) => format!("{:>27}", format!("+{}", round(at - before))),
        };
        text.push_str(&format!("  {when}  {}\n", happened(event)));
        last = Some(at);
    }
    text.push('\n');
    text.push_str(&where_it_is(message, now));
    text
}

/// An event in words.
pub fn happened(event: &MessageEvent) -> String {
    let mut text = match event.event.as_str() {
        "accepted" => "was accepted".to_owned(),
        "deferred" => "was put off by the receiver".to_owned(),
        "delivered" => "was delivered".to_owned(),
        "bounced" => "was refused for good".to_owned(),
        "expired" => "ran out of time".to_owned(),
        "cancelled" => "was called back".to_owned(),
        "suppressed" => "was not sent: the recipient is on the suppression list".to_owned(),
        "failed" => "could not be made or moved".to_owned(),
        "unknown" => "may have been delivered, and is not sent again".to_owned(),
        "in_doubt" => "may have been delivered: no answer came to the last line".to_owned(),
        "returned" | "returned_soft" | "returned_block" => "came back after it had been delivered".to_owned(),
        "complained" => "was called spam by the recipient".to_owned(),
        "opened" => "was opened".to_owned(),
        "opened_machine" => "had its image fetched by a machine".to_owned(),
        "clicked" => "had a link followed".to_owned(),
        "clicked_machine" => "had a link followed by a machine".to_owned(),
        "unsubscribed" => "made the recipient unsubscribe".to_owned(),
        "resubscribed" => "has a recipient who wants mail again".to_owned(),
        "confirmed" => "was taken by the receiver, the provider says".to_owned(),
        "lost_release" => "went missing on the broker, and was put back".to_owned(),
        other => other.replace('_', " "),
    };
    if event.attempt > 0 {
        text.push_str(&format!(" at attempt {}", event.attempt));
    }
    if !event.route.is_empty() {
        text.push_str(&format!(" by {}", safe(&event.route)));
    }
    if !event.host.is_empty() {
        text.push_str(&format!(" [{}]", safe(&event.host)));
    }
    if event.smtp_code != 0 {
        text.push_str(&format!(": {}", event.smtp_code));
        if !event.enhanced_status.is_empty() {
            text.push_str(&format!(" {}", safe(&event.enhanced_status)));
        }
    }
    if !event.text.is_empty() {
        text.push_str(&format!("{}{}", if event.smtp_code == 0 { ": " } else { " " }, safe(&event.text)));
    }
    if !event.bounce_class.is_empty() {
        text.push_str(&format!(" ({})", event.bounce_class.replace('_', " ")));
    }
    if let Some(next) = &event.next_attempt_at {
        text.push_str(&format!("; next try {}", api::time(next).format("%H:%M:%S UTC")));
    }
    text
}

fn where_it_is(message: &GetMessageResponse, now: DateTime<Utc>) -> String {
    let state = message.state();
    let mut text = match state {
        MessageState::Queued => "It rests".to_owned(),
        MessageState::Released => "It is being made, or waits for its turn at the receiver".to_owned(),
        MessageState::Sending => "An attempt to deliver it is under way".to_owned(),
        MessageState::InDoubt => "An attempt may have delivered it, and nobody knows yet".to_owned(),
        MessageState::Unspecified => "It is between two places; ask again".to_owned(),
        closed => format!("It is over: {}", state_word(closed).replace('_', " ")),
    };
    if !message.waits_for.is_empty() {
        text.push_str(&format!("; it waits for: {}", safe(&message.waits_for)));
    }
    text.push('.');
    if let Some(next) = message.next_attempt_at.as_ref().map(api::time) {
        let at = next.format("%Y-%m-%d %H:%M:%S UTC");
        text.push_str(&if next <= now {
            format!("\nIt has been due since {at}.")
        } else {
            format!("\nIt goes next in {} ({at}).", round(next - now))
        });
    }
    if message.attempts > 0 && !is_final(state) {
        text.push_str(&format!("\nAttempts so far: {}.", message.attempts));
    }
    if let Some(end) = message.expires_at.as_ref().map(api::time)
        && !is_final(state)
    {
        text.push_str(&format!("\nAttempts end {}.", end.format("%Y-%m-%d %H:%M:%S UTC")));
    }
    text
}

/// A span as people say it, to two units.
fn round(span: chrono::Duration) -> String {
    let span = span.to_std().unwrap_or_default();
    let unit = match span.as_secs() {
        0..10 => 1_000_000,
        10..3_600 => 1_000_000_000,
        _ => 60_000_000_000,
    };
    let nanos = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
    humantime::format_duration(std::time::Duration::from_nanos(nanos - nanos % unit)).to_string()
}

fn as_json(message: &GetMessageResponse) -> Value {
    let time = |stamp: &Option<prost_types::Timestamp>| stamp.as_ref().map(api::time);
    let timeline: Vec<Value> = message.timeline.iter().map(event_json).collect();
    json!({
        "message_id": message.message_id, "batch_id": message.batch_id, "campaign_id": message.campaign_id,
        "recipient": message.recipient, "site": message.site, "state": state_word(message.state()), "waits_for": message.waits_for,
        "next_attempt_at": time(&message.next_attempt_at), "attempts": message.attempts,
        "accepted_at": time(&message.accepted_at), "expires_at": time(&message.expires_at), "timeline": timeline,
        "tags": message.tags, "metadata": message.metadata, "sandbox": message.sandbox,
        "trace_id": message.trace_id,
    })
}

/// An event as programs read it.
pub fn event_json(event: &MessageEvent) -> Value {
    let time = |stamp: &Option<prost_types::Timestamp>| stamp.as_ref().map(api::time);
    json!({
        "at": time(&event.at), "event": event.event, "release": event.release, "attempt": event.attempt,
        "smtp_code": event.smtp_code, "enhanced_status": event.enhanced_status, "text": event.text,
        "bounce_class": event.bounce_class, "host": event.host, "tls": event.tls, "route": event.route,
        "next_attempt_at": time(&event.next_attempt_at),
        "url": event.url, "user_agent": event.user_agent, "network": event.network, "source": event.source,
        "rule": event.rule,
        "took_ms": event.took.as_ref().map(|took| took.seconds * 1_000 + i64::from(took.nanos) / 1_000_000),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Option<prost_types::Timestamp> {
        Some(prost_types::Timestamp { seconds, nanos: 0 })
    }

    #[test]
    fn a_put_off_message_says_why_and_when_it_goes_next() {
        let message = GetMessageResponse {
            message_id: "m".to_owned(),
            recipient: "a@example.com".to_owned(),
            state: MessageState::Queued.into(),
            waits_for: "the next attempt".to_owned(),
            next_attempt_at: at(160),
            attempts: 1,
            timeline: vec![
                MessageEvent { at: at(0), event: "accepted".to_owned(), ..MessageEvent::default() },
                MessageEvent {
                    at: at(1),
                    event: "deferred".to_owned(),
                    smtp_code: 451,
                    enhanced_status: "4.7.1".to_owned(),
                    text: "come back later".to_owned(),
                    ..MessageEvent::default()
                },
            ],
            ..GetMessageResponse::default()
        };
        let now = DateTime::from_timestamp(100, 0).expect("is a time");
        let story = story(&message, now);
        assert!(story.contains("was put off by the receiver: 451 4.7.1 come back later"), "{story}");
        assert!(story.contains("It goes next in 1m (1970-01-01 00:02:40 UTC)"), "{story}");
    }

    #[test]
    fn words_from_outside_cannot_steer_the_terminal() {
        let event = MessageEvent {
            event: "bounced".to_owned(),
            text: "no\u{1b}[2Jsuch\nuser".to_owned(),
            ..MessageEvent::default()
        };
        assert!(!happened(&event).contains(['\u{1b}', '\n']));
    }
}
