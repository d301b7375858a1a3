//! `watch`: events as they happen, without a gap or a repeat.

use crate::{
    api,
    args::WatchArgs,
    exit::Exit,
    output::{Output, complain, safe},
    reach::Reach,
    why::{event_json, happened},
};
use client::{Client, retry_delay};
use proto::v1::{WatchEventsRequest, WatchEventsResponse, WatchedEvent};
use serde_json::{Value, json};
use std::time::Duration;
use tonic::Status;

/// Shortest pause before a stream is begun again.
const PAUSE: Duration = Duration::from_millis(200);

/// Follows events until it is interrupted, or has told as many as were asked for.
pub async fn run(args: WatchArgs, reach: &Reach, out: Output) -> anyhow::Result<Exit> {
    let api = reach.api_for_tenant().await?;
    let mut request = WatchEventsRequest {
        after_seq: args.after,
        events: args.events,
        campaign_id: args.campaign.unwrap_or_default(),
        tag: args.tag.unwrap_or_default(),
    };
    let mut left = args.limit.unwrap_or(u64::MAX);
    let mut failures = 0;
    let following = async {
        while left > 0 {
            let before = request.after_seq;
            let ended = follow(&api, &mut request, &mut left, out).await;
            let Err(status) = ended else { break };
            if request.after_seq != before {
                failures = 0;
            }
            failures += 1;
            let Some(pause) = retry_delay(&status, failures) else { return Err(status) };
            if !out.json && failures == 1 {
                complain(&format!("the stream ended, going on: {}", status.message()));
            }
            tokio::time::sleep(pause.max(PAUSE)).await;
        }
        Ok(())
    };
    tokio::select! {
        ended = following => ended?,
        _ = tokio::signal::ctrl_c() => {}
    }
    Ok(Exit::Ok)
}

/// One stream; `request` goes along with it, so that the next one begins where it ended.
async fn follow(api: &Client, request: &mut WatchEventsRequest, left: &mut u64, out: Output) -> Result<(), Status> {
    let mut events = api.mail().watch_events(request.clone()).await?.into_inner();
    while *left > 0 {
        let Some(WatchEventsResponse { seq, event }) = events.message().await? else {
            return Err(Status::unavailable("the service ended it"));
        };
        if let Some(event) = &event {
            if out.json {
                out.line(&as_json(seq, event).to_string());
            } else {
                out.line(&line(seq, event));
            }
            *left -= 1;
        }
        request.after_seq = Some(seq);
    }
    Ok(())
}

fn line(seq: u64, watched: &WatchedEvent) -> String {
    let event = watched.event.clone().unwrap_or_default();
    let at = event.at.as_ref().map(api::time).unwrap_or_default();
    let mut text = format!(
        "{seq:>10}  {}  {}  {}  {}",
        at.format("%Y-%m-%d %H:%M:%S%.3f"),
        watched.message_id,
        safe(&watched.recipient),
        happened(&event)
    );
    if watched.sandbox {
        text.push_str("  (sandbox)");
    }
    if !watched.tags.is_empty() {
        text.push_str(&format!("  [{}]", watched.tags.join(" ")));
    }
    text
}

fn as_json(seq: u64, watched: &WatchedEvent) -> Value {
    let mut value = json!({
        "seq": seq, "message_id": watched.message_id, "batch_id": watched.batch_id,
        "campaign_id": watched.campaign_id, "recipient": watched.recipient,
        "lane": watched.lane().as_str_name().trim_start_matches("LANE_").to_ascii_lowercase(), "site": watched.site,
        "tags": watched.tags, "metadata": watched.metadata, "sandbox": watched.sandbox,
    });
    // What happened stands beside what it happened to.
    if let (Value::Object(all), Some(event)) = (&mut value, &watched.event)
        && let Value::Object(own) = event_json(event)
    {
        all.extend(own);
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::v1::MessageEvent;

    fn watched() -> WatchedEvent {
        WatchedEvent {
            message_id: "m".to_owned(),
            recipient: "a\u{1b}[2J@example.com".to_owned(),
            event: Some(MessageEvent { event: "bounced".to_owned(), smtp_code: 550, ..MessageEvent::default() }),
            tags: vec!["welcome".to_owned()],
            sandbox: true,
            ..WatchedEvent::default()
        }
    }

    #[test]
    fn a_line_tells_place_message_and_event_and_cannot_steer_the_terminal() {
        let line = line(17, &watched());
        assert!(line.trim_start().starts_with("17 ") && line.contains("was refused for good: 550"), "{line}");
        assert!(line.ends_with("(sandbox)  [welcome]") && !line.contains('\u{1b}'), "{line}");
        let json = as_json(17, &watched());
        assert_eq!((&json["seq"], &json["event"], &json["smtp_code"]), (&json!(17), &json!("bounced"), &json!(550)));
    }

    #[test]
    fn a_stream_goes_on_after_what_passes_by_itself_alone() {
        assert!(retry_delay(&Status::unavailable("stopping"), 1).is_some());
        for over in [Status::unauthenticated("no"), Status::out_of_range("gone"), Status::invalid_argument("what")] {
            assert_eq!(retry_delay(&over, 1), None);
        }
    }
}
