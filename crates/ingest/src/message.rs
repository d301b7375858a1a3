//! A message as its owner is told about it.

use crate::wire::timestamp;
use domain::{Closing, Lane, Place, fact};
use proto::v1::{self, GetMessageResponse, MessageEvent, MessageState, MessageSummary, WatchedEvent};
use store::{Event, Listed, LogEntry, MessageView, Whereabouts};

/// The answer to `GetMessage`.
pub fn answer(view: MessageView) -> GetMessageResponse {
    let next_attempt_at = match &view.whereabouts {
        Whereabouts::Waiting { due, .. } => Some(timestamp(*due)),
        Whereabouts::Released { .. }
        | Whereabouts::Sending { .. }
        | Whereabouts::InDoubt { .. }
        | Whereabouts::Closed(_)
        | Whereabouts::Moving => None,
    };
    GetMessageResponse {
        message_id: view.id.to_string(),
        batch_id: view.batch.to_string(),
        campaign_id: view.campaign.map_or_else(String::new, |id| id.to_string()),
        recipient: view.recipient.to_string(),
        state: state(&view.whereabouts).into(),
        waits_for: waits_for(&view),
        next_attempt_at,
        attempts: attempts(&view),
        accepted_at: Some(timestamp(view.id.created_at())),
        expires_at: Some(timestamp(view.expires_at)),
        site: view.site.to_string(),
        timeline: view.events.into_iter().map(event).collect(),
        tags: view.labels.tags,
        metadata: view.labels.metadata,
        sandbox: view.labels.sandbox,
        trace_id: view.trace.map_or_else(String::new, |trace| trace.trace_id()),
    }
}

/// The state for the wire.
pub const fn state(whereabouts: &Whereabouts) -> MessageState {
    match whereabouts {
        Whereabouts::Waiting { .. } => MessageState::Queued,
        // Seen between two tables: on its way from one to the next.
        Whereabouts::Released { .. } | Whereabouts::Moving => MessageState::Released,
        Whereabouts::Sending { .. } => MessageState::Sending,
        Whereabouts::InDoubt { .. } => MessageState::InDoubt,
        Whereabouts::Closed(closing) => closed(*closing),
    }
}

const fn closed(closing: Closing) -> MessageState {
    match closing {
        Closing::Delivered => MessageState::Delivered,
        Closing::Bounced => MessageState::Bounced,
        Closing::Expired => MessageState::Expired,
        Closing::Cancelled => MessageState::Cancelled,
        Closing::Suppressed => MessageState::Suppressed,
        Closing::Failed => MessageState::Failed,
        Closing::Unknown => MessageState::Unknown,
    }
}

/// The state of a message in a list.
const fn listed_state(place: Place) -> MessageState {
    match place {
        Place::Nowhere => MessageState::Unspecified,
        Place::Waiting => MessageState::Queued,
        Place::Released => MessageState::Released,
        Place::Sending => MessageState::Sending,
        Place::InDoubt => MessageState::InDoubt,
        Place::Closed(closing) => closed(closing),
    }
}

/// The place that a state of the wire is; `None` for the unspecified one.
pub const fn place(state: MessageState) -> Option<Place> {
    match state {
        MessageState::Unspecified => None,
        MessageState::Queued => Some(Place::Waiting),
        MessageState::Released => Some(Place::Released),
        MessageState::Sending => Some(Place::Sending),
        MessageState::InDoubt => Some(Place::InDoubt),
        MessageState::Delivered => Some(Place::Closed(Closing::Delivered)),
        MessageState::Bounced => Some(Place::Closed(Closing::Bounced)),
        MessageState::Expired => Some(Place::Closed(Closing::Expired)),
        MessageState::Cancelled => Some(Place::Closed(Closing::Cancelled)),
        MessageState::Suppressed => Some(Place::Closed(Closing::Suppressed)),
        MessageState::Failed => Some(Place::Closed(Closing::Failed)),
        MessageState::Unknown => Some(Place::Closed(Closing::Unknown)),
    }
}

/// A message in a list.
pub fn summary(listed: Listed) -> MessageSummary {
    MessageSummary {
        message_id: listed.id.to_string(),
        batch_id: listed.batch.to_string(),
        campaign_id: listed.campaign.map_or_else(String::new, |id| id.to_string()),
        recipient: listed.recipient.to_string(),
        state: listed_state(listed.place).into(),
        accepted_at: Some(timestamp(listed.id.created_at())),
        closed_at: listed.closed_at.map(timestamp),
        tags: listed.labels.tags,
        metadata: listed.labels.metadata,
        sandbox: listed.labels.sandbox,
    }
}

/// An entry of the log as a watcher is told about it.
pub fn watched(entry: LogEntry) -> WatchedEvent {
    let lane = match entry.lane {
        Lane::Transactional => v1::Lane::Transactional,
        Lane::Bulk => v1::Lane::Bulk,
    };
    WatchedEvent {
        message_id: entry.message.to_string(),
        batch_id: entry.batch.to_string(),
        campaign_id: entry.campaign.map_or_else(String::new, |id| id.to_string()),
        recipient: entry.recipient.to_string(),
        lane: lane.into(),
        site: entry.site.to_string(),
        event: Some(event(entry.event)),
        tags: entry.labels.tags,
        metadata: entry.labels.metadata,
        sandbox: entry.labels.sandbox,
    }
}

fn waits_for(view: &MessageView) -> String {
    if view.cancel_asked && !matches!(view.whereabouts, Whereabouts::Closed(_)) {
        return "its cancellation to take effect".to_owned();
    }
    match &view.whereabouts {
        Whereabouts::Waiting { paused: true, .. } => "its queue to be resumed".to_owned(),
        Whereabouts::Waiting { attempt: 0, .. } => "its time, and its turn in the queue".to_owned(),
        Whereabouts::Waiting { last_reply: Some(reply), .. } => format!("its next attempt, after the reply: {reply}"),
        Whereabouts::Waiting { .. } => "its next attempt".to_owned(),
        Whereabouts::Released { .. } | Whereabouts::Moving => "its turn at the receiver".to_owned(),
        Whereabouts::Sending { .. } => "the receiver's reply".to_owned(),
        Whereabouts::InDoubt { .. } => "the decision whether to send it again".to_owned(),
        Whereabouts::Closed(_) => String::new(),
    }
}

fn attempts(view: &MessageView) -> u32 {
    let told = view.events.iter().filter_map(|event| event.detail.attempt).max().unwrap_or(0);
    let counted = match &view.whereabouts {
        Whereabouts::Waiting { attempt, .. }
        | Whereabouts::Released { attempt, .. }
        | Whereabouts::Sending { attempt, .. } => *attempt,
        Whereabouts::InDoubt { .. } | Whereabouts::Closed(_) | Whereabouts::Moving => 0,
    };
    u32::from(told.max(counted))
}

fn event(event: Event) -> MessageEvent {
    let detail = event.detail;
    MessageEvent {
        at: Some(timestamp(event.at)),
        event: fact::word(event.kind, event.closing).to_owned(),
        // Of what came back it names the source alone.
        release: if event.kind.is_feedback() { 0 } else { event.ordinal },
        attempt: detail.attempt.map_or(0, u32::from),
        smtp_code: detail.code.map_or(0, u32::from),
        enhanced_status: detail.enhanced.unwrap_or_default(),
        text: detail.text.unwrap_or_default(),
        bounce_class: detail.class.unwrap_or_default(),
        host: detail.host.unwrap_or_default(),
        tls: detail.tls.unwrap_or_default(),
        next_attempt_at: detail.next_at.map(timestamp),
        route: detail.route.unwrap_or_default(),
        url: detail.url.unwrap_or_default(),
        user_agent: detail.agent.unwrap_or_default(),
        network: detail.network.unwrap_or_default(),
        source: detail.source.unwrap_or_default(),
        rule: detail.rule.unwrap_or_default(),
        took: detail.took_ms.map(|millis| crate::wire::duration(std::time::Duration::from_millis(millis))),
    }
}
