//! Delivery reports with a structure (RFC 3464, RFC 6533).

use super::{
    Action, Finding, Limits,
    fields::{Fields, untyped},
    judge::{Evidence, Judge, reply_in, status_in},
    letter::Letter,
    prose,
};
use domain::{EnhancedStatus, text::sanitise};

/// Longest name of a host that is kept, in characters.
const MAX_HOST: usize = 255;
/// Longest address that is kept, in characters.
const MAX_ADDRESS: usize = 320;

/// What the structured part says, by recipient; empty when it says nothing about any.
pub(super) fn read(letter: &Letter<'_>, judge: &Judge, limits: &Limits) -> (Vec<Finding>, Option<String>) {
    let mut findings = Vec::new();
    let mut reporting = None;
    for blocks in &letter.statuses {
        for block in blocks {
            let mta = block.get("reporting-mta").map(|mta| sanitise(untyped(mta), MAX_HOST));
            reporting = reporting.take().or(mta);
        }
        let about: Vec<&Fields> = blocks.iter().filter(|block| is_about_a_recipient(block)).collect();
        let alone = about.len() == 1;
        for block in about.into_iter().take(limits.recipients.saturating_sub(findings.len())) {
            findings.push(finding(block, alone, letter, judge));
        }
    }
    (findings, reporting)
}

fn is_about_a_recipient(block: &Fields) -> bool {
    block.has_any(&["final-recipient", "original-recipient", "action", "x-actual-recipient"])
        || (block.has_any(&["status"]) && block.has_any(&["diagnostic-code"]))
}

fn finding(block: &Fields, alone: bool, letter: &Letter<'_>, judge: &Judge) -> Finding {
    let address = |name| {
        // A name without a domain is one of the system's own users, but a type alone is half a field.
        let given = block.get(name).filter(|value| value.contains(';') || value.contains('@')).unwrap_or_default();
        let bare = untyped(given);
        let bare = sanitise(&unxtext(bare), MAX_ADDRESS);
        (!bare.is_empty()).then_some(bare)
    };
    let original = address("original-recipient");
    let last = address("final-recipient").filter(|last| last.contains('@') || original.is_none());
    let recipient = last.or_else(|| address("x-actual-recipient")).or_else(|| original.clone());
    // "smtp; 550 …", "X-Postfix; …", "X-Notes; …": who told it. Some write no type, and a text with a semicolon in it.
    let diagnostics: Vec<&str> = block.all("diagnostic-code").collect();
    let diagnostic = diagnostics.iter().map(|text| told(text)).max_by_key(|text| weight(text));
    let given: Option<EnhancedStatus> =
        block.get("status").and_then(|status| Some(status_in(status)?.0)).or_else(|| {
            let word = block.get("status")?.split_whitespace().next()?;
            word.parse().ok()
        });
    // What was written for people counts for the one that it is about.
    let section = match &recipient {
        _ if alone => prose::all_of(letter),
        Some(recipient) => prose::about(letter, recipient),
        None => String::new(),
    };
    let judged = judge.judge(Evidence { status: given, diagnostic, prose: &section });
    let action = action(block.get("action").unwrap_or_default(), judged.status.or(given));
    let remote = block.get("remote-mta").map(|mta| sanitise(untyped(mta), MAX_HOST)).filter(|mta| !mta.is_empty());
    let failed = matches!(action, Action::Failed | Action::Delayed);
    Finding {
        original_recipient: original.filter(|original| Some(original) != recipient.as_ref()),
        recipient,
        action: Some(action),
        status: if failed { judged.status } else { given },
        class: failed.then_some(judged.class),
        bounce: (action == Action::Failed).then(|| judged.bounce()),
        diagnostic: judged.diagnostic.filter(|_| failed || diagnostic.is_some()),
        remote_mta: remote,
        rule: judged.rule.filter(|_| failed),
    }
}

/// How much a diagnostic says.
fn weight(text: &str) -> (bool, usize) {
    (reply_in(text).is_some(), text.len())
}

/// A diagnostic without its type.
fn told(text: &str) -> &str {
    match text.split_once(';') {
        Some((kind, rest)) if kind.len() <= 20 && !kind.trim().contains(' ') => rest.trim(),
        _ => text.trim(),
    }
}

fn action(word: &str, status: Option<EnhancedStatus>) -> Action {
    let word = word.split([' ', '(', ';']).next().unwrap_or_default().to_ascii_lowercase();
    match word.as_str() {
        "delayed" | "deferred" | "delay" => Action::Delayed,
        "delivered" | "deliverable" | "success" => Action::Delivered,
        "relayed" => Action::Relayed,
        "expanded" => Action::Expanded,
        "failed" | "failure" | "fail" | "error" => Action::Failed,
        _ => match status.map(EnhancedStatus::class) {
            Some(2) => Action::Delivered,
            _ => Action::Failed,
        },
    }
}

/// An address as RFC 3461, 4 and RFC 6533, 3 write it: `+40` and `\x{40}` stand for `@`.
fn unxtext(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(['+', '\\']) {
        plain.push_str(&rest[..at]);
        let tail = &rest[at..];
        let (length, code) = if let Some(inner) = tail.strip_prefix("\\x{") {
            match inner.find('}') {
                Some(end) if end <= 6 => (end + 4, u32::from_str_radix(&inner[..end], 16).ok()),
                _ => (1, None),
            }
        } else {
            // A tag behind a plus is more common than a character that had to be hidden: only what cannot stand in
            // an address is taken for one.
            let code = tail.get(1..3).and_then(|digits| u32::from_str_radix(digits, 16).ok());
            (3, code.filter(|code| matches!(code, 0x20 | 0x2b | 0x3d | 0x40) && !text.contains('@')))
        };
        match code.and_then(char::from_u32) {
            Some(c) => {
                plain.push(c);
                rest = &tail[length..];
            }
            None => {
                plain.push_str(&tail[..1]);
                rest = &tail[1..];
            }
        }
    }
    plain.push_str(rest);
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_characters_of_an_address_are_shown_and_a_tag_stays() {
        for (written, plain) in [
            ("a+tag@b.test", "a+tag@b.test"),
            ("a+2Bx+40b.test", "a+x@b.test"),
            (r"\x{40}", "@"),
            (r"j\x{F6}rg@b.test", "jörg@b.test"),
            (r"a\x{zz}@b", r"a\x{zz}@b"),
            ("a+", "a+"),
        ] {
            assert_eq!(unxtext(written), plain);
        }
    }
}
