//! A message as its owner is told about it.

use crate::wire::timestamp;
use domain::{Closing, fact};
use proto::v1::{GetMessageResponse, MessageEvent, MessageState};
use store::{Event, MessageView, Whereabouts};

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
        Whereabouts::Closed(Closing::Delivered) => MessageState::Delivered,
        Whereabouts::Closed(Closing::Bounced) => MessageState::Bounced,
        Whereabouts::Closed(Closing::Expired) => MessageState::Expired,
        Whereabouts::Closed(Closing::Cancelled) => MessageState::Cancelled,
        Whereabouts::Closed(Closing::Suppressed) => MessageState::Suppressed,
        Whereabouts::Closed(Closing::Failed) => MessageState::Failed,
        Whereabouts::Closed(Closing::Unknown) => MessageState::Unknown,
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
        release: event.ordinal,
        attempt: detail.attempt.map_or(0, u32::from),
        smtp_code: detail.code.map_or(0, u32::from),
        enhanced_status: detail.enhanced.unwrap_or_default(),
        text: detail.text.unwrap_or_default(),
        bounce_class: detail.class.unwrap_or_default(),
        host: detail.host.unwrap_or_default(),
        tls: detail.tls.unwrap_or_default(),
        next_attempt_at: detail.next_at.map(timestamp),
        took: detail.took_ms.map(|millis| crate::wire::duration(std::time::Duration::from_millis(millis))),
    }
}
