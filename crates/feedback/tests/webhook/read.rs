//! What posts say, provider by provider.

mod mailgun;
mod postmark;
mod resend;
mod sendgrid;
mod ses;
mod shapes;
mod sparkpost;

use mailfleet_feedback::webhook::{Batch, Event, Limits, Provider, read};
use serde_json::Value;

/// Our message in all samples.
pub const MID: &str = "01a2089f-f02b-717a-b2a9-35479c6be73a";

/// Reads a post in which nothing may be unreadable.
#[track_caller]
pub fn batch(provider: Provider, body: &Value) -> Batch {
    let batch = read(provider, body.to_string().as_bytes(), &Limits::default()).unwrap();
    assert_eq!(batch.unreadable, Vec::new());
    batch
}

/// Reads a post of one event.
#[track_caller]
pub fn only(provider: Provider, body: &Value) -> Event {
    let batch = batch(provider, body);
    let [event] = &batch.events[..] else { panic!("{batch:?}") };
    event.clone()
}

/// `kind class suppressed`, with `-` for what is not there.
pub fn told(event: &Event) -> String {
    let class = event.class.map_or("-", |class| class.as_str());
    let suppressed = event.suppressed.map_or("-".to_owned(), |why| format!("{why:?}").to_lowercase());
    format!("{} {class} {suppressed}", event.kind.as_str())
}

/// That an event is about our message and our recipient.
#[track_caller]
pub fn is_ours(event: &Event) {
    assert_eq!(event.message.map(|id| id.to_string()).as_deref(), Some(MID), "{event:?}");
    assert!(event.recipient.as_ref().is_some_and(|to| to.domain_str() == "example.net"), "{event:?}");
}

/// `base` with the fields of `more`.
pub fn merged(mut base: Value, more: &Value) -> Value {
    for (key, value) in more.as_object().unwrap() {
        base[key] = value.clone();
    }
    base
}
