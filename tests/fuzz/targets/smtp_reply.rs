//! Any bytes as a reply, in any pieces: the same end, one printable line, a verdict.
#![no_main]

// The reader of replies is private to its crate, so its files are compiled in here.
#[path = "../../../crates/smtp/src/client/capabilities.rs"]
#[allow(dead_code)]
mod capabilities;
#[path = "../../../crates/smtp/src/reply.rs"]
#[allow(dead_code)]
mod reply;

use domain::{Ruleset, SmtpReply, Stage, Verdict};
use libfuzzer_sys::fuzz_target;
use reply::{Reply, ReplyLimits, ReplyScanner, Violation};

type Found = Result<Option<(u16, usize)>, Violation>;

fn in_pieces(wire: &[u8], piece: usize, limits: &ReplyLimits) -> Found {
    let mut scanner = ReplyScanner::default();
    for end in (piece..wire.len()).step_by(piece) {
        let found = scanner.scan(&wire[..end], limits);
        if found != Ok(None) {
            return found;
        }
    }
    scanner.scan(wire, limits)
}

fuzz_target!(|data: &[u8]| {
    let [piece, size, wire @ ..] = data else { return };
    let size = usize::from(*size);
    let tight = ReplyLimits { line: 8 + size, lines: 1 + size / 8, total: 16 + size * 4 };
    for limits in [ReplyLimits::default(), tight] {
        let whole = ReplyScanner::default().scan(wire, &limits);
        // Which of two rules is seen to be broken first may depend on the pieces; that one is, may not.
        assert_eq!(in_pieces(wire, 1 + usize::from(*piece), &limits).ok(), whole.ok());
        let Ok(Some((code, length))) = whole else { continue };
        assert!((200..600).contains(&code) && length <= limits.total && wire[..length].ends_with(b"\n"));
        let reply = Reply::from_wire(code, &wire[..length]);
        assert!(!reply.text.chars().any(char::is_control) && reply.text.chars().count() <= 500);
        let _any = capabilities::Capabilities::from_wire(&wire[..length]);
        let judged = SmtpReply::new(code, &reply.text);
        for stage in [Stage::Greeting, Stage::MailFrom, Stage::RcptTo, Stage::Dot] {
            match Ruleset::builtin().classify(stage, &judged) {
                Verdict::Delivered => assert!(stage == Stage::Dot && code / 100 == 2),
                Verdict::Bounce { .. } => assert!(stage != Stage::Greeting && code / 100 == 5),
                Verdict::Defer { .. } => {}
            }
        }
    }
});
