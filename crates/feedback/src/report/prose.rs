//! Reports that were written for people: whom they name, and what they say about each.

use super::{
    Returned,
    letter::{Letter, clip, returned_in},
};
use std::collections::HashSet;

/// Most lines that are looked at.
const MAX_LINES: usize = 3_000;
/// Most octets that are said about one recipient.
const MAX_SECTION: usize = 16 * 1024;

/// Where the mail that came back begins: these stand at the start of a line, in lower case.
const COPY_BEGINS: &[&str] = &[
    "------ this is a copy of",
    "----- this is a copy of",
    "this is a copy of the message, including all the headers",
    "--- below this line is a copy of",
    "--- the header of the original",
    "the header of the original message is following",
    "--- undelivered message follows",
    "--- original message follows",
    "----- original message -----",
    "----- originalnachricht",
    "-----original message-----",
    "---- original message",
    "--- original message",
    "original message follows",
    "original message headers",
    "the original message headers",
    "original headers:",
    "message headers:",
    "message header:",
    "message headers follow",
    "----- message header follows",
    "--- message header follows",
    "----- message headers follow",
    "--------message not delivered",
    "--- unsent message follows",
    "----- unsent message follows",
    "--------------- original message",
    "-------- unsent message",
    "unsent message below",
    "the unsent message follows",
    "--- enclosed is a copy",
    "enclosed is a copy of",
    "--- returned message",
    "----- returned mail",
    "returned message follows",
    "your message follows",
    "your original message",
    "your message reads (in part)",
    "the first 50 lines of the original message",
    "the text of your message",
    "-- original message --",
    "--- mensaje original",
    "--- message d'origine",
    "--- messaggio originale",
    "--- mensagem original",
    "--- исходное сообщение",
    "--- 原始邮件",
    "--- 元のメッセージ",
    "ursprüngliche nachrichtenkopfzeilen",
    "ursprüngliche nachrichtenköpfe",
    "en-têtes de message d'origine",
    "encabezados de mensaje originales",
    "intestazioni originali",
    "元のメッセージ ヘッダー",
    "原始邮件头",
    "received: from ",
    "return-path: <",
    "dkim-signature: ",
];

/// Local parts that no mail of ours goes to, and that reports name as the one to ask.
const NOBODY: &[&str] = &[
    "postmaster",
    "mailer-daemon",
    "mail-daemon",
    "mailerdaemon",
    "abuse",
    "hostmaster",
    "helpdesk",
    "support",
    "noc",
    "delist",
    "unblock",
    "spam",
    "root",
    "mdaemon",
];

/// What a report says for people, up to the mail that came back.
pub(super) fn all_of(letter: &Letter<'_>) -> String {
    let mut all = String::new();
    for text in &letter.texts {
        all.push_str(before_copy(text).0);
        all.push_str("\n\n");
    }
    all
}

/// What it says about this recipient, as far as that can be told apart.
pub(super) fn about(letter: &Letter<'_>, recipient: &str) -> String {
    let all = all_of(letter);
    let sections = sections(&all, &HashSet::new());
    let named = sections.into_iter().find(|section| section.recipient.eq_ignore_ascii_case(recipient));
    named.map(|section| section.text).unwrap_or_default()
}

/// A recipient and what is said about him.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Section {
    pub(super) recipient: String,
    pub(super) text: String,
    /// Whether he is named by himself, not within what is said.
    is_heading: bool,
}

/// Whom an unstructured report is about, and what it says about each.
pub(super) fn recipients(letter: &Letter<'_>, returned: Option<&Returned>, most: usize) -> Vec<Section> {
    let all = all_of(letter);
    let failed: Vec<String> = letter
        .headers("X-Failed-Recipients")
        .iter()
        .flat_map(|value| value.split(','))
        .map(|one| one.trim().trim_matches(['<', '>']).to_owned())
        .filter(|one| one.contains('@'))
        .take(most)
        .collect();
    // Whoever reports, whom it reports to, and who wrote the mail are named as well.
    let mut others: HashSet<String> =
        letter.from().into_iter().chain(letter.to()).map(|one| one.to_lowercase()).collect();
    if let Some(returned) = returned {
        others.extend(returned.from.iter().map(|one| one.to_lowercase()));
    }
    let mut found = sections(&all, &others);
    if !failed.is_empty() {
        let alone = failed.len() == 1;
        let section = |recipient: String| {
            let own = found.iter().find(|section| section.recipient.eq_ignore_ascii_case(&recipient));
            let text = own.filter(|_| !alone).map_or_else(|| all.clone(), |section| section.text.clone());
            Section { recipient, text, is_heading: true }
        };
        return failed.into_iter().map(section).collect();
    }
    if found.iter().any(|section| section.is_heading) {
        found.retain(|section| section.is_heading);
    }
    // Of several names in sentences, those that the mail went to.
    if found.len() > 1 && !found[0].is_heading {
        let sent_to = |section: &Section| {
            returned.is_some_and(|returned| returned.to.iter().any(|to| to.eq_ignore_ascii_case(&section.recipient)))
        };
        if found.iter().any(sent_to) {
            found.retain(sent_to);
        } else {
            found.truncate(1);
        }
    }
    if found.is_empty()
        && let Some([only]) = returned.map(|returned| returned.to.as_slice())
    {
        found.push(Section { recipient: only.clone(), text: all.clone(), is_heading: true });
    }
    if let [only] = found.as_mut_slice() {
        only.text = all;
    }
    found.truncate(most);
    found
}

/// The text before the mail that came back, and that mail.
pub(super) fn before_copy(text: &str) -> (&str, &str) {
    let mut at = 0;
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let lower = line.trim_start_matches(['>', '|', ' ', '\t']).trim_end().to_lowercase();
        if number > 0 && COPY_BEGINS.iter().any(|begin| lower.starts_with(begin)) {
            return text.split_at(at);
        }
        at += line.len();
        if number > MAX_LINES {
            break;
        }
    }
    (text, "")
}

/// The header of the mail that came back, where it stands in the text.
pub(super) fn copy_in(letter: &Letter<'_>) -> Option<Returned> {
    letter.texts.iter().find_map(|text| {
        let (_, copy) = before_copy(text);
        // What announces it, and what some put around it.
        let mut lines = copy.lines().skip_while(|line| !is_field(line)).take(MAX_LINES).peekable();
        lines.peek()?;
        let mut header = String::new();
        for line in lines.take_while(|line| is_field(line) || line.starts_with([' ', '\t'])) {
            header.push_str(line);
            header.push_str("\r\n");
        }
        header.push_str("\r\n");
        returned_in(clip(&header, MAX_SECTION * 4).as_bytes())
    })
}

fn is_field(line: &str) -> bool {
    line.split_once(':').is_some_and(|(name, _)| {
        (2..60).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    })
}

/// Goes through a text line by line: a line that holds an address and little else begins a section.
fn sections(text: &str, others: &HashSet<String>) -> Vec<Section> {
    let mut sections: Vec<Section> = Vec::new();
    let mut open: Option<usize> = None;
    for line in text.lines().take(MAX_LINES) {
        for (address, is_alone) in addresses(line) {
            let lower = address.to_lowercase();
            let local = lower.split('@').next().unwrap_or_default();
            if others.contains(&lower) || (NOBODY.contains(&local) && !is_alone) {
                continue;
            }
            let known = sections.iter().position(|section| section.recipient.eq_ignore_ascii_case(address));
            let at = known.unwrap_or_else(|| {
                sections.push(Section { recipient: address.to_owned(), text: String::new(), is_heading: false });
                sections.len() - 1
            });
            sections[at].is_heading |= is_alone;
            // Another name in what is said about somebody begins nothing.
            if is_alone || open.is_none_or(|open| !sections[open].is_heading) {
                open = Some(at);
            }
        }
        if let Some(open) = open {
            let section = &mut sections[open].text;
            if section.len() + line.len() < MAX_SECTION {
                section.push_str(line);
                section.push('\n');
            }
        }
        if sections.len() > 1_000 {
            break;
        }
    }
    sections
}

/// The addresses in a line, each with whether it heads what follows: it stands at the line's start or alone.
fn addresses(line: &str) -> Vec<(&str, bool)> {
    const AROUND: &[char] = &[
        '<', '>', '(', ')', '[', ']', '"', '\'', '`', ',', ';', ':', '.', '!', '?', '*', '«', '»', '“', '”', '„', '’',
        '‘',
    ];
    let mut found = Vec::new();
    let trimmed = line.trim();
    for (at, _) in line.match_indices('@').take(20) {
        let begins = |c: char| c.is_whitespace() || "<>()[]\"',;:=«»“”„、，。：；（）【】「」*".contains(c);
        let start =
            line[..at].rfind(begins).map_or(0, |start| start + line[start..].chars().next().map_or(1, char::len_utf8));
        let end = line[at..].find(begins).map_or(line.len(), |end| at + end);
        let word = line[start..end].trim_matches(AROUND);
        if !is_address(word) {
            continue;
        }
        // Alone: nothing before it but brackets and a label, and a colon, a bracket or nothing behind it.
        let before = line[..start].trim().trim_end_matches(['<', '(', '"', '\'', '[', '*']).trim();
        let behind = line[end..].trim_start_matches(['>', ')', '"', '\'', ']', '*']).trim_start();
        let is_label = before.is_empty()
            || before.ends_with([':', '：']) && before.split_whitespace().count() <= 4
            || matches!(
                before,
                "-" | "*"
                    | "•"
                    | "·"
                    | "To"
                    | "RCPT TO:"
                    | "expanded from:"
                    | "(expanded from:"
                    | "unrouteable mail domain"
            );
        let closes = behind.is_empty()
            || behind.starts_with([':', ';', ',', '.', '(', '/', '：', '。', '，', '、'])
            || behind.starts_with("...")
            || behind.to_ascii_lowercase().starts_with("on ")
            || trimmed.starts_with('<');
        let is_expansion = before.to_ascii_lowercase().contains("expanded from") || before.contains("generated from");
        found.push((word, is_label && closes && !is_expansion));
    }
    found
}

fn is_address(word: &str) -> bool {
    let Some((local, domain)) = word.rsplit_once('@') else { return false };
    !local.is_empty()
        && local.len() <= 64
        && domain.len() <= 255
        && domain.contains('.')
        && !domain.starts_with('.')
        && !domain.ends_with('.')
        && domain.chars().all(|c| c.is_alphanumeric() || matches!(c, '.' | '-'))
        && domain
            .rsplit('.')
            .next()
            .is_some_and(|top| top.chars().count() >= 2 && !top.chars().all(|c| c.is_ascii_digit()))
        && local.chars().all(|c| c.is_alphanumeric() || "!#$%&'*+-/=?^_`{|}~.".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(text: &str) -> Vec<(String, bool)> {
        sections(text, &HashSet::new()).into_iter().map(|section| (section.recipient, section.is_heading)).collect()
    }

    #[test]
    fn an_address_at_the_start_of_a_line_heads_what_is_said_about_it() {
        let text = "I could not deliver.\n\n<a@one.test>:\n192.0.2.1 does not like recipient.\nRemote host said: 550 no \
                    such user (alias x@two.test)\n\n  b@one.test\n    mailbox full\n";
        let found = sections(text, &HashSet::new());
        let heads: Vec<_> = found.iter().filter(|section| section.is_heading).collect();
        assert_eq!(
            heads.iter().map(|section| section.recipient.as_str()).collect::<Vec<_>>(),
            ["a@one.test", "b@one.test"]
        );
        assert!(heads[0].text.contains("no such user") && !heads[0].text.contains("mailbox full"));
        assert!(heads[1].text.contains("mailbox full"));
    }

    #[test]
    fn addresses_are_found_in_brackets_quotes_and_sentences_of_any_language() {
        for (text, expected) in [
            ("<a@b.test>: unknown", vec![("a@b.test", true)]),
            ("Your message to <a@b.test> could not be sent", vec![("a@b.test", false)]),
            ("'a@b.test' on 1/2/2026", vec![("a@b.test", true)]),
            ("收件人 a@b.test 不存在", vec![("a@b.test", false)]),
            ("收件人：a@b.test。", vec![("a@b.test", true)]),
            ("Final-Recipient: rfc822;a@b.test", vec![("a@b.test", false)]),
            ("mailto:a@b.test", vec![("a@b.test", true)]),
            ("no @ here, nor a@b", vec![]),
        ] {
            let expected: Vec<_> = expected.into_iter().map(|(a, b)| (a.to_owned(), b)).collect();
            assert_eq!(named(text), expected, "{text}");
        }
    }

    #[test]
    fn what_came_back_is_no_part_of_what_is_said() {
        let text =
            "No such user.\n\n--- Below this line is a copy of the message.\n\nReturn-Path: <x@y.test>\nTo: a@b.test\n";
        assert_eq!(before_copy(text).0, "No such user.\n\n");
        assert_eq!(before_copy("Received: from somewhere\nx").1, "", "not in the first line");
    }
}
