//! What a receiver said, as providers hand it on, and what it means.

use super::MAX_REPLY;
use crate::webhook::{Bounce, Event, event::bounce_of};
use domain::{BounceClass, EnhancedStatus, Ruleset, SmtpReply, Stage, text::sanitise};

/// The most octets of a reply that are looked at.
const LOOKED_AT: usize = 4_000;

/// A reply, as far as the provider tells it.
#[derive(Clone, Debug, Default)]
pub(super) struct Told {
    status: Option<EnhancedStatus>,
    text: Option<String>,
    class: Option<BounceClass>,
}

impl Told {
    /// Of the three digits, the enhanced status and the words, of which any may be missing or stand in the words:
    /// `550 5.1.1 no such user`, `smtp; 550 5.1.1 …`.
    pub(super) fn new(code: Option<i64>, status: &str, words: &str) -> Self {
        let words = start(words).trim();
        let bare = match words.split_once(';') {
            Some((kind, rest)) if kind.trim().eq_ignore_ascii_case("smtp") => rest.trim_start(),
            Some(_) | None => words,
        };
        let given: Option<EnhancedStatus> = status.trim().parse().ok();
        let own: Option<SmtpReply> = bare.parse().ok();
        let code = own.as_ref().map(SmtpReply::code).or(code.and_then(|code| u16::try_from(code).ok()));
        let words_status = bare.split_whitespace().next().and_then(|head| head.parse().ok());
        let status = own.as_ref().and_then(SmtpReply::enhanced).or(given).or(words_status);
        let code = code.filter(|code| (200..600).contains(code)).or(status.map(|status| match status.class() {
            2 => 250,
            4 => 450,
            _ => 550,
        }));
        let text = own.as_ref().map_or(bare, SmtpReply::text);
        let reply = code.map(|code| match status {
            Some(status) if own.as_ref().is_none_or(|own| own.enhanced().is_none()) => {
                let text = text.strip_prefix(&status.to_string()).unwrap_or(text);
                SmtpReply::new(code, &format!("{status} {text}"))
            }
            Some(_) | None => own.clone().unwrap_or_else(|| SmtpReply::new(code, text)),
        });
        let failed = reply.as_ref().filter(|reply| (400..600).contains(&reply.code()));
        // Which command it answered is not told; providers report a recipient, so as to RCPT TO.
        let class = failed.and_then(|reply| Ruleset::builtin().classify(Stage::RcptTo, reply).class());
        let shown = sanitise(words, MAX_REPLY);
        Self { status, text: (!shown.is_empty()).then_some(shown), class }
    }

    /// What the rules for replies make of it: `None` when it is no failure, or there is no code.
    pub(super) const fn class(&self) -> Option<BounceClass> {
        self.class
    }

    /// The class that the rules found, unless they know nothing; else the provider's.
    pub(super) fn class_or(&self, provider: BounceClass) -> BounceClass {
        self.class.filter(|class| *class != BounceClass::Uncategorized).unwrap_or(provider)
    }

    /// What a final failure of this reply says about the recipient.
    pub(super) fn bounce(&self) -> Bounce {
        bounce_of(self.class.unwrap_or(BounceClass::Uncategorized), self.is_for_good())
    }

    /// Whether the status is one for now.
    pub(super) fn is_transient(&self) -> bool {
        self.status.is_some_and(|status| status.class() == 4)
    }

    fn is_for_good(&self) -> bool {
        self.status.is_none_or(|status| status.class() == 5)
    }

    /// Puts it into an event, with the rules' class when it is a failure.
    pub(super) fn put(self, event: &mut Event) {
        event.status = self.status;
        event.reply = self.text;
        event.class = self.class;
    }
}

/// The first octets of a text, at a boundary of its characters.
fn start(text: &str) -> &str {
    let mut end = text.len().min(LOOKED_AT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
