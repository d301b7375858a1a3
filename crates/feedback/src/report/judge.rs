//! Why a copy could not be delivered: from what a system was told, what it says itself, and what it wrote for people.
//!
//! Words come before codes: what a receiver says in words is what it means, and many systems make up a status. The words
//! of the reply come first, then those of the report in any language, then the status that says more.

use crate::webhook::{Bounce, bounce_of};
use domain::{BounceClass, EnhancedStatus, Ruleset, SmtpReply, Stage, Verdict, text::sanitise};
use std::sync::LazyLock;

/// Longest reason that is kept, in characters.
const MAX_SHOWN: usize = 500;
/// Most of a text that is judged at once, in characters: what a reply holds.
const PIECE: usize = 1_800;
/// The rule of `replies.toml` that takes any mention of spam for what it is.
const VAGUE: &str = "spam";
/// Pieces of a text that are judged.
const MAX_PIECES: usize = 40;

static PHRASES: LazyLock<Ruleset> = LazyLock::new(|| {
    #[expect(clippy::expect_used, reason = "a constant, which a test reads as well")]
    Ruleset::parse(include_str!("../../rules/phrases.toml")).expect("the rules that are built in hold")
});

/// Decides by rules.
#[derive(Clone, Debug)]
pub(super) struct Judge {
    replies: Ruleset,
}

/// What a report tells of one failure.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Evidence<'a> {
    /// The status that the report gives.
    pub(super) status: Option<EnhancedStatus>,
    /// What the refusing system said.
    pub(super) diagnostic: Option<&'a str>,
    /// What was written for people about this recipient.
    pub(super) prose: &'a str,
}

/// What it comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Judged {
    pub(super) class: BounceClass,
    pub(super) status: Option<EnhancedStatus>,
    /// Whether it is a failure for good, as far as codes tell.
    pub(super) for_good: bool,
    pub(super) diagnostic: Option<String>,
    pub(super) rule: Option<String>,
}

impl Judged {
    /// What it says about the recipient.
    pub(super) const fn bounce(&self) -> Bounce {
        bounce_of(self.class, self.for_good)
    }
}

impl Judge {
    pub(super) fn new(replies: Ruleset) -> Self {
        Self { replies }
    }

    pub(super) fn version(&self) -> String {
        format!("{}/{}", self.replies.version(), PHRASES.version())
    }

    /// Decides.
    pub(super) fn judge(&self, evidence: Evidence<'_>) -> Judged {
        let told = evidence.diagnostic.map(str::trim).filter(|told| !told.is_empty());
        let reply = told.and_then(reply_in).or_else(|| reply_in(evidence.prose));
        let within = |text| status_in(text).map(|(status, _)| status);
        let of_reply = reply.as_ref().and_then(|reply| reply.enhanced().or_else(|| within(reply.text())));
        let of_words = of_reply.or_else(|| told.and_then(within)).or_else(|| within(evidence.prose));
        let status = better(evidence.status, of_words);
        let code =
            reply.as_ref().map(SmtpReply::code).or_else(|| status.map(|status| status.class() as u16 * 100 + 50));
        let code = code.unwrap_or(550);
        let for_good = match (status, &reply) {
            (Some(status), _) if status.class() != 2 => status.class() == 5,
            (_, Some(reply)) => !reply.is_transient(),
            _ => true,
        };
        let line = || evidence.prose.lines().find(|line| status_in(line).is_some()).map(str::to_owned);
        let shown = told.map(str::to_owned).or_else(|| reply.as_ref().map(ToString::to_string)).or_else(line);
        let diagnostic = shown.map(|shown| sanitise(&shown, MAX_SHOWN)).filter(|shown| !shown.is_empty());
        let (class, rule) = self.class(evidence, told, reply.as_ref(), status, code);
        Judged { class, status, for_good, diagnostic, rule }
    }

    fn class(
        &self,
        evidence: Evidence<'_>,
        told: Option<&str>,
        reply: Option<&SmtpReply>,
        status: Option<EnhancedStatus>,
        code: u16,
    ) -> (BounceClass, Option<String>) {
        // What the refusing system said.
        let said: Vec<SmtpReply> =
            reply.cloned().into_iter().chain(told.map(|told| worded(code, status, told))).collect();
        for reply in &said {
            if let Some(found) = self.by_words(reply) {
                return found;
            }
        }
        // What the report says in words.
        let pieces: Vec<SmtpReply> = pieces(evidence.prose).map(|piece| worded(code, None, &piece)).collect();
        let by_phrase = pieces.iter().find_map(|piece| found(&PHRASES, piece));
        if let Some((class, rule)) = by_phrase {
            return (class, Some(rule));
        }
        let by_words: Vec<_> = pieces.iter().filter_map(|piece| self.by_words(piece)).collect();
        let is_vague = |found: &&(BounceClass, Option<String>)| found.1.as_deref() == Some(VAGUE);
        if let Some(found) = by_words.iter().find(|found| !is_vague(found)).or(by_words.first()) {
            return found.clone();
        }
        // The codes: that of the reply, then the report's own.
        for status in [reply.and_then(SmtpReply::enhanced), status, evidence.status].into_iter().flatten() {
            if let Some(found) = self.by_code(&worded(code, Some(status), "")) {
                return found;
            }
        }
        said.iter().find_map(|reply| self.by_code(reply)).unwrap_or((BounceClass::Uncategorized, None))
    }

    /// What the words of a reply say.
    fn by_words(&self, reply: &SmtpReply) -> Option<(BounceClass, Option<String>)> {
        let own = found(&self.replies, reply).filter(|(_, rule)| !is_of_codes(rule));
        // The word alone says less than any sentence with it.
        let is_vague = own.as_ref().is_some_and(|(_, rule)| rule == VAGUE);
        let phrase = if own.is_none() || is_vague { found(&PHRASES, reply) } else { None };
        let (class, rule) = phrase.or(own)?;
        Some((class, Some(rule)))
    }

    fn by_code(&self, reply: &SmtpReply) -> Option<(BounceClass, Option<String>)> {
        let (class, rule) = found(&self.replies, reply)?;
        (class != BounceClass::Uncategorized).then_some((class, Some(rule)))
    }
}

fn found(rules: &Ruleset, reply: &SmtpReply) -> Option<(BounceClass, String)> {
    let judged = rules.judge(Stage::RcptTo, reply);
    let class = match judged.verdict {
        Verdict::Delivered => return None,
        Verdict::Defer { class, .. } | Verdict::Bounce { class } => class,
    };
    Some((class, judged.rule?.to_owned()))
}

/// Whether a rule of `replies.toml` looks at codes alone.
fn is_of_codes(rule: &str) -> bool {
    rule.starts_with("status-") || rule.starts_with("code-")
}

/// Words as a reply, so that the rules for replies can be asked.
fn worded(code: u16, status: Option<EnhancedStatus>, words: &str) -> SmtpReply {
    let words = sanitise(words, PIECE);
    match status {
        Some(status) => SmtpReply::new(code, &format!("{status} {words}")),
        None => SmtpReply::new(code, &words),
    }
}

/// Of two statuses, the one that says more: `x.0.0` says nothing, and one of the receiver more than one that was made up.
fn better(of_report: Option<EnhancedStatus>, of_reply: Option<EnhancedStatus>) -> Option<EnhancedStatus> {
    let says_something = |status: &EnhancedStatus| status.class() != 2 && (status.subject(), status.detail()) != (0, 0);
    of_reply.filter(says_something).or_else(|| of_report.filter(says_something)).or(of_reply).or(of_report)
}

/// The reply that a text quotes: three digits from 400 to 599 at the start of a word, with what follows. Of several, the
/// last one that has an enhanced status, since what stands before it was said on the way; else the last.
pub(super) fn reply_in(text: &str) -> Option<SmtpReply> {
    let mut last: Option<SmtpReply> = None;
    let bytes = text.as_bytes();
    for (at, _) in text.match_indices(['4', '5']).take(2_000) {
        let starts = at == 0 || !(bytes[at - 1].is_ascii_alphanumeric() || b".-_@/+".contains(&bytes[at - 1]));
        let digits = bytes.get(at..at + 3).is_some_and(|digits| digits.iter().all(u8::is_ascii_digit));
        let ends = match bytes.get(at + 3) {
            None => true,
            Some(b' ' | b'-' | b'\t' | b'\r' | b'\n' | b':' | b',' | b'#' | b'_' | b')' | b']' | b'\'' | b'"') => true,
            Some(_) => false,
        };
        if !(starts && digits && ends) {
            continue;
        }
        let Ok(code) = text[at..at + 3].parse::<u16>() else { continue };
        let rest = text[at + 3..].trim_start_matches(['-', ' ', ':', '#', ',', '_', ')', ']']);
        // What one line says, or, of a reply of many lines, the next ones as well.
        let words: String = rest.lines().take(12).map(|line| unnumbered(line, code)).collect::<Vec<_>>().join(" ");
        let reply = SmtpReply::new(code, words.trim_start());
        // "in 450 seconds", "port 587" and "551 messages" are none: a reply has a status, or words in its own line.
        let is_reply = reply.enhanced().is_some() || looks_quoted(text, at) || rest.len() > 3;
        if is_reply && (reply.enhanced().is_some() || last.as_ref().is_none_or(|last| last.enhanced().is_none())) {
            last = Some(reply);
        }
    }
    last
}

/// A line of a reply of many lines without its code.
fn unnumbered(line: &str, code: u16) -> &str {
    let line = line.trim();
    match line.strip_prefix(&code.to_string()) {
        Some(rest) => rest.trim_start_matches(['-', ' ']),
        None => line,
    }
}

fn looks_quoted(text: &str, at: usize) -> bool {
    let before = text[..at].trim_end();
    before.is_empty() || before.ends_with([';', ':', '"', '\'', '(', '[', '<', '>', '#']) || text[..at].ends_with('\n')
}

/// The first enhanced status of a failure in a text, and what follows it.
pub(super) fn status_in(text: &str) -> Option<(EnhancedStatus, &str)> {
    let mut from = 0;
    for word in text.split(|c: char| c.is_whitespace() || "()[]<>;:,\"'#=-".contains(c)).take(5_000) {
        let at = word.as_ptr() as usize - text.as_ptr() as usize;
        from = from.max(at);
        let bare = word.trim_end_matches('.');
        if let Ok(status) = bare.parse::<EnhancedStatus>()
            && status.class() != 2
        {
            return Some((status, &text[at + word.len()..]));
        }
    }
    None
}

/// A text in pieces that a rule can look at: paragraphs, long ones cut.
fn pieces(text: &str) -> impl Iterator<Item = String> + '_ {
    let mut paragraphs: Vec<String> = vec![String::new()];
    for line in text.lines() {
        let open = paragraphs.last_mut().expect("there is one");
        if line.trim().is_empty() || open.len() + line.len() > PIECE {
            if paragraphs.len() >= MAX_PIECES {
                break;
            }
            paragraphs.push(line.trim().to_owned());
        } else {
            if !open.is_empty() {
                open.push(' ');
            }
            open.push_str(line.trim());
        }
    }
    paragraphs.into_iter().filter(|paragraph| !paragraph.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_phrases_that_are_built_in_hold() {
        let read = Ruleset::parse(include_str!("../../rules/phrases.toml"));
        assert!(read.is_ok(), "{}", read.unwrap_err());
    }

    #[test]
    fn a_quoted_reply_is_found_and_a_number_is_none() {
        for (text, reply) in [
            ("host mx.a.test[192.0.2.1] said: 550 5.1.1 <x@a.test>: no (in reply to RCPT TO)", Some("550 5.1.1")),
            (
                "smtp; 550-5.7.1 [192.0.2.1 12] Our system has detected\n550-5.7.1 mail\n550 5.7.1 end",
                Some("550 5.7.1"),
            ),
            ("SMTP error from remote mail server after RCPT TO:<x@a.test>: 550 User unknown", Some("550")),
            ("smtp;452 4.2.2 mailbox full", Some("452 4.2.2")),
            ("#5.1.1 smtp;550 #5.1.0 Address rejected", Some("550 5.1.0")),
            ("delivery expired, message too old (4.4.7)", None),
            ("after 450 messages", Some("450")),
            ("nothing at all, port 5870", None),
        ] {
            let found = reply_in(text).map(|reply| match reply.enhanced() {
                Some(status) => format!("{} {status}", reply.code()),
                None => reply.code().to_string(),
            });
            assert_eq!(found.as_deref(), reply, "{text}");
        }
    }

    #[test]
    fn words_come_before_codes_and_a_status_that_says_something_before_one_that_does_not() {
        use BounceClass::*;
        let judge = Judge::new(Ruleset::builtin().clone());
        for (status, diagnostic, prose, class, bounce) in [
            ("5.0.0", "smtp; 550 5.1.1 <x@a.test>: Recipient address rejected", "", InvalidRecipient, Bounce::Hard),
            ("5.1.1", "smtp; 452 4.2.2 over quota", "", QuotaIssues, Bounce::Soft),
            ("5.0.0", "smtp; 550 Unknown user", "", InvalidRecipient, Bounce::Hard),
            ("5.1.1", "", "", InvalidRecipient, Bounce::Hard),
            ("5.0.0", "", "Die E-Mail-Adresse wurde nicht gefunden", InvalidRecipient, Bounce::Hard),
            ("5.7.1", "smtp; 554 5.7.1 blocked using zen.spamhaus.org", "", SpamBlock, Bounce::Block),
            ("4.4.1", "connect to mx.a.test[192.0.2.1]:25: Connection timed out", "", NoAnswerFromHost, Bounce::Soft),
            ("5.0.0", "", "", Uncategorized, Bounce::Soft),
        ] {
            let evidence = Evidence { status: status.parse().ok(), diagnostic: Some(diagnostic), prose };
            let judged = judge.judge(evidence);
            assert_eq!((judged.class, judged.bounce()), (class, bounce), "{status} {diagnostic} {prose}: {judged:?}");
        }
    }
}
