//! Subjects. One type builds and parses each family; tokens are enums and numbers, never addresses or
//! domains.

use crate::Prefix;
use domain::{Lane, Shard, Slot};
use serde::{Deserialize, de::IntoDeserializer, de::value};
use std::fmt;

/// A text that is not a subject of the family asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not a subject of this family")]
pub struct SubjectError;

/// One of the two stages at which work travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// References, on their way to a renderer.
    Render,
    /// Finished mail, on its way to the owner of its shard.
    Send,
}

impl Stage {
    /// Both, in the order in which a message passes them.
    pub const ALL: [Self; 2] = [Self::Render, Self::Send];

    /// The token.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Render => "render",
            Self::Send => "send",
        }
    }
}

/// The coordinates of a chunk: `<lane>.<shard>.<slot>`.
pub trait WorkSubject: Copy + fmt::Debug + Send + Sync + 'static {
    /// The stage whose subjects these are.
    const STAGE: Stage;

    /// The subject of these coordinates.
    fn new(lane: Lane, shard: Shard, slot: Slot) -> Self;

    /// Lane, shard and slot.
    fn coordinates(&self) -> (Lane, Shard, Slot);

    /// The subject as the broker sees it.
    fn subject(&self, prefix: &Prefix) -> String {
        let (lane, shard, slot) = self.coordinates();
        format!("{prefix}.{}.{lane}.{shard}.{slot}", Self::STAGE.as_str())
    }

    /// The coordinates that a subject names.
    ///
    /// # Errors
    /// When the prefix or the stage is another, or a token names no lane, shard or slot.
    fn parse(prefix: &Prefix, subject: &str) -> Result<Self, SubjectError> {
        let rest = subject.strip_prefix(prefix.as_str()).and_then(|rest| rest.strip_prefix('.')).ok_or(SubjectError)?;
        let mut tokens = rest.split('.');
        let mut next = || tokens.next().ok_or(SubjectError);
        if next()? != Self::STAGE.as_str() {
            return Err(SubjectError);
        }
        let lane = next()?.parse().map_err(|_| SubjectError)?;
        let shard = shard(next()?).ok_or(SubjectError)?;
        let slot = slot(next()?).ok_or(SubjectError)?;
        if tokens.next().is_some() {
            return Err(SubjectError);
        }
        Ok(Self::new(lane, shard, slot))
    }
}

/// A number without sign or leading zeros, so that each shard has one spelling.
fn number(text: &str) -> Option<u16> {
    let plain = text == "0" || (!text.starts_with('0') && text.bytes().all(|byte| byte.is_ascii_digit()));
    plain.then(|| text.parse().ok()).flatten()
}

fn shard(text: &str) -> Option<Shard> {
    let number: value::U16Deserializer<value::Error> = number(text)?.into_deserializer();
    Shard::deserialize(number).ok()
}

fn slot(text: &str) -> Option<Slot> {
    // Hashed slots are most of them and can be read without comparing names.
    match text.strip_prefix('h').and_then(number) {
        Some(code) => Slot::from_code(i16::try_from(code).ok()?).filter(|slot| slot.named_site().is_none()),
        None => text.parse().ok(),
    }
}

macro_rules! work_subjects {
    ($($(#[$doc:meta])* $name:ident: $stage:ident;)+) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name {
            /// How urgent.
            pub lane: Lane,
            /// Whose: the group of slots.
            pub shard: Shard,
            /// Where to: the receiver, or one of 64 hashes of receivers.
            pub slot: Slot,
        }

        impl WorkSubject for $name {
            const STAGE: Stage = Stage::$stage;

            fn new(lane: Lane, shard: Shard, slot: Slot) -> Self {
                Self { lane, shard, slot }
            }

            fn coordinates(&self) -> (Lane, Shard, Slot) {
                (self.lane, self.shard, self.slot)
            }
        }
    )+};
}

work_subjects! {
    /// `<prefix>.render.<lane>.<shard>.<slot>`: chunks of references.
    RenderSubject: Render;
    /// `<prefix>.send.<lane>.<shard>.<slot>`: chunks of finished mail.
    SendSubject: Send;
}

impl From<RenderSubject> for SendSubject {
    fn from(RenderSubject { lane, shard, slot }: RenderSubject) -> Self {
        Self { lane, shard, slot }
    }
}

/// `<prefix>.events.<kind>`: what happened, best effort, for live views.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EventSubject {
    kind: String,
}

impl EventSubject {
    /// The subject of events of this kind: up to 64 lower-case letters, digits, `_` or `-`.
    ///
    /// # Errors
    /// When the kind cannot be one token.
    pub fn new(kind: &str) -> Result<Self, SubjectError> {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte);
        let fits = !kind.is_empty() && kind.len() <= 64 && kind.bytes().all(plain);
        fits.then(|| Self { kind: kind.to_owned() }).ok_or(SubjectError)
    }

    /// The kind.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// The subject as the broker sees it.
    pub fn subject(&self, prefix: &Prefix) -> String {
        format!("{prefix}.events.{}", self.kind)
    }

    /// The kind that a subject names.
    ///
    /// # Errors
    /// When it is no subject of an event under this prefix.
    pub fn parse(prefix: &Prefix, subject: &str) -> Result<Self, SubjectError> {
        let rest = subject.strip_prefix(prefix.as_str()).and_then(|rest| rest.strip_prefix(".events."));
        Self::new(rest.ok_or(SubjectError)?)
    }
}

/// Everything that happens: `<prefix>.events.*`.
pub(crate) fn all_events(prefix: &Prefix) -> String {
    format!("{prefix}.events.*")
}

/// The doorbell of the dispatcher.
pub(crate) fn doorbell(prefix: &Prefix) -> String {
    format!("{prefix}.doorbell.dispatcher")
}

/// Where the health probe publishes.
pub(crate) fn probe(prefix: &Prefix) -> String {
    format!("{prefix}.probe")
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::ShardCount;
    use proptest::prelude::*;
    use std::num::NonZeroU16;

    fn prefix() -> impl Strategy<Value = Prefix> {
        "[a-z][a-z0-9_-]{0,31}".prop_map(|text| text.parse().expect("fits the pattern"))
    }

    /// One of these, seldom another.
    fn token(known: &'static [&'static str]) -> impl Strategy<Value = String> {
        prop_oneof![15 => prop::sample::select(known).prop_map(str::to_owned), 1 => "[ .*>a-z0-9]{0,6}"]
    }

    proptest! {
        #[test]
        fn a_work_subject_is_read_as_it_was_written(
            prefix in prefix(),
            lane in prop::sample::select(Lane::ALL.to_vec()),
            slot in prop::sample::select(Slot::all().collect::<Vec<_>>()),
            shards in 1_u16..,
        ) {
            let shard = slot.shard(ShardCount(NonZeroU16::new(shards).expect("from 1")));
            let render = RenderSubject { lane, shard, slot };
            prop_assert_eq!(RenderSubject::parse(&prefix, &render.subject(&prefix)), Ok(render));
            let send = SendSubject::from(render);
            prop_assert_eq!(SendSubject::parse(&prefix, &send.subject(&prefix)), Ok(send));
            prop_assert_eq!(SendSubject::parse(&prefix, &render.subject(&prefix)), Err(SubjectError));
        }

        #[test]
        fn an_event_subject_is_read_as_it_was_written(prefix in prefix(), kind in "[a-z0-9_-]{1,64}") {
            let event = EventSubject::new(&kind).expect("fits the pattern");
            prop_assert_eq!(EventSubject::parse(&prefix, &event.subject(&prefix)), Ok(event));
        }

        #[test]
        fn no_text_is_two_subjects(tokens in (
            token(&["mailfleet", "mailfleet", "mail"]), token(&["render", "send", "events"]), token(&["bulk", "transactional", "Bulk"]),
            token(&["0", "7", "65535", "65536", "007", "+7", "-1", "\u{661}"]),
            token(&["h0", "h63", "h64", "h00", "h+1", "google", "yahoo-japan", "*", ">"]), 2_usize..6,
        ).prop_map(|(prefix, family, lane, shard, slot, most)| {
            [prefix, family, lane, shard, slot].into_iter().take(most).collect::<Vec<_>>()
        })) {
            let (prefix, text) = (Prefix::default(), tokens.join("."));
            let render = RenderSubject::parse(&prefix, &text).map(|subject| subject.subject(&prefix));
            let send = SendSubject::parse(&prefix, &text).map(|subject| subject.subject(&prefix));
            let event = EventSubject::parse(&prefix, &text).map(|subject| subject.subject(&prefix));
            let read: Vec<String> = [render, send, event].into_iter().flatten().collect();
            prop_assert!(read.len() <= 1);
            prop_assert!(read.iter().all(|written| *written == text), "{:?} from {:?}", read, text);
        }

        #[test]
        fn what_parses_is_written_back_the_same(text in "(render|send)\\.(bulk|transactional)\\.[0-9h+]{1,6}\\.[a-z0-9.]{1,9}") {
            let (prefix, text) = (Prefix::default(), format!("mailfleet.{text}"));
            if let Ok(subject) = RenderSubject::parse(&prefix, &text) {
                prop_assert_eq!(subject.subject(&prefix), text);
            }
        }
    }

    #[test]
    fn the_form_is_the_documented_one() {
        let slot: Slot = "google".parse().expect("a named site");
        let shard = shard("7").expect("a number");
        let subject = RenderSubject { lane: Lane::Bulk, shard, slot };
        assert_eq!(subject.subject(&Prefix::default()), "mailfleet.render.bulk.7.google");
    }
}
