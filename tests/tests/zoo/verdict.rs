//! Whether what was seen is what was declared, and what holds for every receiver.

use crate::{
    habitat::{Letter, Observed},
    species::{Bounds, EndedBy, Expect, Outcome, Species},
};
use testkit::peer::{Conversation, Copy, End};

/// Classes of trouble that says nothing about the recipient: it never ends a message.
const TROUBLE: [&str; 5] =
    ["bad_connection", "no_answer_from_host", "dns_failure", "transient_failure", "rate_limited"];

/// Everything that is not as it was declared, or not as it must be.
pub fn complaints(species: &Species, observed: &Observed) -> Vec<String> {
    let mut found = Vec::new();
    for letter in &observed.letters {
        let before = found.len();
        declared(&species.mail[letter.mail].expect, letter, observed, &mut found);
        invariant(letter, observed, &mut found);
        for complaint in &mut found[before..] {
            *complaint = format!("{}: {complaint}", letter.view.recipient);
        }
    }
    bounded(&species.bounds, observed, &mut found);
    let ids: Vec<String> = observed.letters.iter().map(|letter| letter.id.as_uuid().simple().to_string()).collect();
    let strangers = observed.hosts.values().flat_map(|(_, copies)| copies);
    let strangers = strangers.filter(|copy| copy.fleet_id.as_ref().is_none_or(|id| !ids.contains(id))).count();
    if strangers > 0 {
        found.push(format!("{strangers} copies of nothing that was sent to it"));
    }
    let in_clear: u32 = observed.conversations().map(|one| one.clear_mails).sum();
    if species.needs_tls() && in_clear > 0 {
        found.push(format!("TLS is required, and {in_clear} senders were named in clear"));
    }
    found
}

/// What one message's declaration says. Every field of it is named here, so that none is forgotten.
fn declared(expect: &Expect, letter: &Letter, observed: &Observed, found: &mut Vec<String>) {
    let Expect { outcome, code, status, class, text, attempts, copies, doubts, tls } = expect;
    let mut check = |what: &str, holds: bool, seen: String| {
        if !holds {
            found.push(format!("{what} is {seen}"));
        }
    };
    let last = letter.attempts().next_back().cloned().unwrap_or_default();
    let within = |[least, most]: &[usize; 2], count: usize| (*least..=*most).contains(&count);
    let kept: Vec<&Copy> = observed.copies(letter.id).filter(|copy| copy.kept).collect();
    let made = letter.attempts().count();
    check("outcome", letter.outcome() == Some(*outcome), format!("{:?}", letter.view.state()));
    check("code", code.is_none_or(|code| code == last.smtp_code), last.smtp_code.to_string());
    check("status", status.as_ref().is_none_or(|status| *status == last.enhanced_status), last.enhanced_status.clone());
    check("class", class.as_ref().is_none_or(|class| *class == last.bounce_class), last.bounce_class.clone());
    check("text", text.as_ref().is_none_or(|text| last.text.contains(text)), last.text.clone());
    check("attempts", within(attempts, made), made.to_string());
    check("copies", within(copies, kept.len()), kept.len().to_string());
    check("doubts", within(doubts, letter.doubts()), letter.doubts().to_string());
    check("tls", tls.is_none_or(|tls| kept.iter().all(|copy| copy.tls == tls)), format!("{tls:?} in part"));
}

/// What must hold of every message, whatever its receiver does.
fn invariant(letter: &Letter, observed: &Observed, found: &mut Vec<String>) {
    let copies: Vec<&Copy> = observed.copies(letter.id).collect();
    let kept = copies.iter().filter(|copy| copy.kept).count();
    if kept > 1 + letter.doubts() {
        found.push(format!("{kept} copies with {} doubts", letter.doubts()));
    }
    if letter.outcome() == Some(Outcome::Delivered) && !copies.iter().any(|copy| copy.acknowledged) {
        found.push("delivered, and no copy was acknowledged".to_owned());
    }
    if copies.iter().any(|copy| !copy.recipient.eq_ignore_ascii_case(&letter.view.recipient)) {
        found.push("a copy went to somebody else".to_owned());
    }
    let mut senders: Vec<&str> = copies.iter().map(|copy| copy.sender.as_str()).collect();
    senders.dedup();
    if senders.len() > 1 {
        found.push(format!("the envelope changed from one attempt to the next: {senders:?}"));
    }
    for bounce in letter.attempts().filter(|event| event.event == "bounced") {
        if bounce.smtp_code / 100 == 4 || TROUBLE.contains(&bounce.bounce_class.as_str()) {
            found.push(format!("trouble for now ended it: {} {}", bounce.smtp_code, bounce.bounce_class));
        }
    }
}

/// What the file's bounds say. Every field is named here, so that none is forgotten.
fn bounded(bounds: &Bounds, observed: &Observed, found: &mut Vec<String>) {
    let Bounds { connections, told, ended_by, deadline } = bounds;
    let attempts: usize = observed.letters.iter().map(|letter| letter.attempts().count()).sum();
    let opened = observed.conversations().count();
    // A try that comes to nothing for a reason of the fleet's own, as when it stops, is no attempt: one for each message.
    if opened > connections * (attempts + observed.letters.len()) {
        found.push(format!("{opened} connections in {attempts} attempts"));
    }
    let most = observed.conversations().map(|one| one.told).max().unwrap_or(0);
    if most > *told {
        found.push(format!("took in {most} octets in one conversation"));
    }
    let by = |end: End| observed.conversations().filter(move |one: &&Conversation| one.end == end).count();
    let (fleet, receiver) = (by(End::Client), by(End::Peer));
    let as_declared = match ended_by {
        EndedBy::Fleet => fleet > 0 && receiver == 0,
        EndedBy::Receiver => fleet == 0 && receiver > 0,
        EndedBy::Both => fleet > 0 && receiver > 0,
        EndedBy::Nobody => fleet == 0 && receiver == 0,
    };
    if !as_declared {
        found.push(format!("{fleet} conversations were ended by the fleet, {receiver} by the receiver"));
    }
    if let Some(stage) = deadline {
        let passed = format!("no progress in time at {stage}");
        if !observed.letters.iter().any(|letter| letter.attempts().any(|event| event.text.contains(&passed))) {
            found.push(format!("no deadline passed at {stage}"));
        }
    }
}

/// The declaration with one field of it made false, for each field.
pub fn falsified(species: &Species, observed: &Observed) -> Vec<(&'static str, Species)> {
    const NEVER: [usize; 2] = [1_000, 1_000];
    let mut all = Vec::new();
    let mut with = |field: &'static str, change: &dyn Fn(&mut Species)| {
        let mut falsified = species.clone();
        change(&mut falsified);
        all.push((field, falsified));
    };
    for (index, mail) in species.mail.iter().enumerate() {
        let Expect { outcome, code, status, class, text, attempts: _, copies: _, doubts: _, tls } = &mail.expect;
        let other = if *outcome == Outcome::Unknown { Outcome::Waiting } else { Outcome::Unknown };
        with("outcome", &|one| one.mail[index].expect.outcome = other);
        with("attempts", &|one| one.mail[index].expect.attempts = NEVER);
        with("copies", &|one| one.mail[index].expect.copies = NEVER);
        with("doubts", &|one| one.mail[index].expect.doubts = NEVER);
        if let Some(code) = code {
            with("code", &|one| one.mail[index].expect.code = Some(code + 1));
        }
        if status.is_some() {
            with("status", &|one| one.mail[index].expect.status = Some("9.9.9".to_owned()));
        }
        if class.is_some() {
            with("class", &|one| one.mail[index].expect.class = Some("none".to_owned()));
        }
        if text.is_some() {
            with("text", &|one| one.mail[index].expect.text = Some("nobody ever said this".to_owned()));
        }
        if let Some(tls) = tls {
            with("tls", &|one| one.mail[index].expect.tls = Some(!tls));
        }
    }
    let other = if species.bounds.ended_by == EndedBy::Nobody { EndedBy::Both } else { EndedBy::Nobody };
    with("end", &|one| one.bounds.ended_by = other);
    if species.bounds.deadline.is_some() {
        with("deadline", &|one| one.bounds.deadline = Some("noon".to_owned()));
    }
    if observed.conversations().next().is_some() {
        with("connections", &|one| one.bounds.connections = 0);
    }
    if observed.conversations().any(|one| one.told > 0) {
        with("octets", &|one| one.bounds.told = 0);
    }
    all
}
