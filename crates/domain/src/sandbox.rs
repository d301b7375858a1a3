//! What a receiver would have said: the answers to mail that is only tried.
//!
//! The local part scripts them with the words of the mail sink, so that a caller can prove his handling of bounces
//! and deferrals without a receiver.

use crate::Stage;

/// The site that tried mail goes to, and the route that it takes.
pub const SANDBOX: &str = "sandbox";

/// An answer of the sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SandboxReply {
    /// To which command.
    pub stage: Stage,
    /// The reply code.
    pub code: u16,
    /// Its words, with the enhanced status in front.
    pub text: &'static str,
}

const TAKEN: SandboxReply =
    SandboxReply { stage: Stage::Dot, code: 250, text: "2.0.0 taken by the sandbox, nothing was sent" };

const fn rcpt(code: u16, text: &'static str) -> SandboxReply {
    SandboxReply { stage: Stage::RcptTo, code, text }
}

/// A word, its answer, and whether it is given the first time alone.
const WORDS: [(&str, SandboxReply, bool); 8] = [
    ("greylist", rcpt(450, "4.7.1 greylisted, come back later"), true),
    ("tempfail-once", rcpt(451, "4.3.0 try again later"), true),
    ("tempfail", rcpt(451, "4.3.0 try again later"), false),
    ("busy-once", rcpt(452, "4.3.1 too busy, try again later"), true),
    ("busy", rcpt(452, "4.3.1 too busy, try again later"), false),
    ("unknown", rcpt(550, "5.1.1 no such user"), false),
    ("full", rcpt(552, "5.2.2 the mailbox is full"), false),
    ("reject-data", SandboxReply { stage: Stage::Dot, code: 554, text: "5.7.1 refused as spam" }, false),
];

/// The answer to this local part after `attempts` earlier attempts.
pub fn reply(local: &str, attempts: u16) -> SandboxReply {
    let local = local.to_ascii_lowercase();
    let is_word = |word: &str| local.strip_prefix(word).is_some_and(|rest| !rest.starts_with(char::is_alphabetic));
    match WORDS.iter().find(|(word, ..)| is_word(word)) {
        Some((_, reply, once)) if !once || attempts == 0 => *reply,
        _ => TAKEN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Ruleset, SmtpReply, Verdict};

    #[test]
    fn the_local_part_scripts_the_answer() {
        for (local, attempts, code) in [
            ("ann", 0, 250),
            ("unknowns", 0, 250),
            ("unknown", 0, 550),
            ("Unknown.17", 3, 550),
            ("full-1", 0, 552),
            ("greylist", 0, 450),
            ("greylist", 1, 250),
            ("tempfail-once.a", 0, 451),
            ("tempfail-once.a", 1, 250),
            ("tempfail7", 5, 451),
            ("busy", 2, 452),
            ("busy-once", 1, 250),
            ("reject-data", 0, 554),
        ] {
            assert_eq!(reply(local, attempts).code, code, "{local} after {attempts}");
        }
    }

    #[test]
    fn each_answer_is_judged_as_its_code_says() {
        for (word, reply, _) in WORDS {
            let verdict = Ruleset::builtin().classify(reply.stage, &SmtpReply::new(reply.code, reply.text));
            match reply.code / 100 {
                4 => assert!(matches!(verdict, Verdict::Defer { .. }), "{word}"),
                _ => assert!(matches!(verdict, Verdict::Bounce { .. }), "{word}"),
            }
        }
    }
}
