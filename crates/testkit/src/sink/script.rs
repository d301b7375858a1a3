//! What a recipient asks for.

use domain::Mailbox;
use std::time::Duration;

/// What happens to a mail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Behaviour {
    /// Taken.
    Accept,
    /// 450 at RCPT.
    Greylist,
    /// 451 at RCPT.
    TempFail,
    /// 550 at RCPT.
    Unknown,
    /// 552 at RCPT.
    Full,
    /// 421 at RCPT.
    Busy,
    /// 554 to the final dot.
    RejectData,
    /// Closed instead of the 354.
    DropBeforeDot,
    /// Reset within the body.
    CutBody,
    /// Kept, and closed without a reply.
    DropAfterDot,
    /// Kept, and a long silence.
    HangAfterDot,
    /// Taken after a while; `None` is the configured one.
    Slow(Option<Duration>),
}

/// The words, none a beginning of a later one with a hyphen behind it.
const WORDS: [(&str, Behaviour); 11] = [
    ("greylist", Behaviour::Greylist),
    ("tempfail", Behaviour::TempFail),
    ("unknown", Behaviour::Unknown),
    ("full", Behaviour::Full),
    ("busy", Behaviour::Busy),
    ("reject-data", Behaviour::RejectData),
    ("drop-before-dot", Behaviour::DropBeforeDot),
    ("cut-body", Behaviour::CutBody),
    ("drop-after-dot", Behaviour::DropAfterDot),
    ("hang-after-dot", Behaviour::HangAfterDot),
    ("slow", Behaviour::Slow(None)),
];

/// A behaviour, and whether it happens only the first time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Script {
    /// What happens.
    pub behaviour: Behaviour,
    /// Only the first time for a recipient; then [`Behaviour::Accept`].
    pub once: bool,
}

impl Script {
    /// Reads the local part; the table stands in the module's documentation.
    pub fn of(recipient: &Mailbox) -> Self {
        let local = recipient.local().to_ascii_lowercase();
        for (word, behaviour) in WORDS {
            let Some(rest) = after_word(&local, word) else { continue };
            let once = after_word(rest, "-once").is_some() || behaviour == Behaviour::Greylist;
            let behaviour = match behaviour {
                Behaviour::Slow(_) => Behaviour::Slow(duration(rest)),
                other => other,
            };
            return Self { behaviour, once };
        }
        Self { behaviour: Behaviour::Accept, once: false }
    }

    /// Whether the domain is one of the slow receivers.
    pub(super) fn is_slow_domain(recipient: &Mailbox) -> bool {
        recipient.domain_str().starts_with("slow.")
    }
}

/// What follows a word that ends there.
fn after_word<'a>(text: &'a str, word: &str) -> Option<&'a str> {
    text.strip_prefix(word).filter(|rest| !rest.starts_with(char::is_alphabetic))
}

/// `-200ms` or `-2s` at the beginning.
fn duration(rest: &str) -> Option<Duration> {
    let rest = rest.strip_prefix('-')?;
    let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let number = rest[..digits].parse().ok()?;
    let unit = &rest[digits..];
    if after_word(unit, "ms").is_some() {
        Some(Duration::from_millis(number))
    } else {
        after_word(unit, "s").map(|_| Duration::from_secs(number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(local: &str) -> (Behaviour, bool) {
        let Script { behaviour, once } = Script::of(&format!("{local}@sink.test").parse().unwrap());
        (behaviour, once)
    }

    #[test]
    fn the_local_part_scripts_the_sink() {
        assert_eq!(script("ann"), (Behaviour::Accept, false));
        assert_eq!(script("greylist"), (Behaviour::Greylist, true));
        assert_eq!(script("Greylist-17"), (Behaviour::Greylist, true));
        assert_eq!(script("tempfail.ann"), (Behaviour::TempFail, false));
        assert_eq!(script("tempfail-once"), (Behaviour::TempFail, true));
        assert_eq!(script("tempfail-once7"), (Behaviour::TempFail, true));
        assert_eq!(script("unknown9"), (Behaviour::Unknown, false));
        assert_eq!(script("drop-after-dot-once.x"), (Behaviour::DropAfterDot, true));
        assert_eq!(script("drop-before-dot"), (Behaviour::DropBeforeDot, false));
        assert_eq!(script("slow"), (Behaviour::Slow(None), false));
        assert_eq!(script("slow-200ms"), (Behaviour::Slow(Some(Duration::from_millis(200))), false));
        assert_eq!(script("slow-2s.ann"), (Behaviour::Slow(Some(Duration::from_secs(2))), false));
    }

    #[test]
    fn names_that_only_begin_like_a_word_are_names() {
        for local in ["fuller", "busybee", "slowpoke", "unknowns", "greylisted", "a.full"] {
            assert_eq!(script(local), (Behaviour::Accept, false), "{local}");
        }
    }
}
