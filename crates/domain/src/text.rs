//! Foreign words made fit to be shown: what a receiver, a template or a caller wrote ends up in logs, in
//! the event log and on terminals, and must not move the cursor, turn the line or forge a second one.

/// What stands at the end of a text that was cut.
const CUT: char = '…';

/// `text` on one line, at most `max` characters: every run of white space, controls and characters that
/// turn or hide text becomes one space; the ends are trimmed; a cut is shown by `…`.
pub fn sanitise(text: &str, max: usize) -> String {
    let mut shown = String::with_capacity(text.len().min(max * 4));
    let (mut count, mut gap) = (0, false);
    for c in text.chars() {
        if c.is_whitespace() || is_deceptive(c) {
            gap = count > 0;
            continue;
        }
        let needed = if gap { 2 } else { 1 };
        if count + needed > max {
            if count == max {
                shown.pop();
            }
            shown.truncate(shown.trim_end().len());
            if max > 0 {
                shown.push(CUT);
            }
            return shown;
        }
        if gap {
            shown.push(' ');
            gap = false;
        }
        shown.push(c);
        count += needed;
    }
    shown
}

/// What words have in common with others of their kind: in lower case, with `ADDRESS`, `IP`, `HOST`, `URL`,
/// `ID` and `#` in place of what differs from one message to the next.
pub fn shape(words: &str) -> String {
    const AROUND: &[char] = &['.', ',', ';', ':', '!', '?', '(', ')', '[', ']', '"', '\'', '<', '>', '='];
    let mut shape = String::with_capacity(words.len());
    for word in words.split_whitespace() {
        let word = word.to_lowercase();
        let core = word.trim_matches(AROUND);
        let kind = kind_of(core);
        if !shape.is_empty() {
            shape.push(' ');
        }
        match (kind, word.split_once(core)) {
            (Some(kind), Some((before, behind))) if !core.is_empty() => shape.extend([before, kind, behind]),
            _ => shape.push_str(&without_numbers(&word)),
        }
    }
    shape
}

fn kind_of(word: &str) -> Option<&'static str> {
    let is_host = || {
        let mut labels = word.rsplit('.');
        let top = labels.next().unwrap_or_default();
        let rest: Vec<&str> = labels.collect();
        top.len() >= 2
            && top.bytes().all(|byte| byte.is_ascii_alphabetic())
            && !rest.is_empty()
            && rest.iter().all(|label| {
                !label.is_empty()
                    && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
            })
    };
    let digits = word.bytes().filter(u8::is_ascii_digit).count();
    let letters = word.bytes().filter(u8::is_ascii_alphabetic).count();
    if word.contains('@') {
        Some("ADDRESS")
    } else if word.contains("://") {
        Some("URL")
    } else if word.parse::<std::net::IpAddr>().is_ok() {
        Some("IP")
    } else if is_host() {
        Some("HOST")
    } else if digits >= 2 && letters >= 1 && digits + letters >= 8 {
        Some("ID")
    } else {
        None
    }
}

/// `#` in place of each run of digits.
fn without_numbers(word: &str) -> String {
    let mut kept = String::with_capacity(word.len());
    for c in word.chars() {
        if !c.is_ascii_digit() {
            kept.push(c);
        } else if !kept.ends_with('#') {
            kept.push('#');
        }
    }
    kept
}

/// Whether `c` is a control, or turns, hides or joins what stands around it: no such character belongs
/// into an address, a header or a line that somebody reads.
pub fn is_deceptive(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffd}' | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn foreign_words_stay_on_one_line_and_hide_nothing() {
        for (given, shown) in [
            ("user unknown", "user unknown"),
            ("  a\r\nb\t\tc  ", "a b c"),
            ("x\u{1b}[2Jy", "x [2Jy"),
            ("evil\u{202e}txt.exe", "evil txt.exe"),
            ("a\0b", "a b"),
            ("", ""),
            ("\u{feff}\u{200b}", ""),
        ] {
            assert_eq!(sanitise(given, 40), shown);
        }
        assert_eq!(sanitise("abcdef", 4), "abc…");
        assert_eq!(sanitise("abcd", 4), "abcd");
        assert_eq!(sanitise("ab cd", 4), "ab…");
        assert_eq!(sanitise("abcd", 0), "");
    }

    #[test]
    fn texts_that_differ_in_what_is_their_own_have_one_shape() {
        for (words, expected) in [
            (
                "Mail from [192.0.2.7] to <ann@example.org> refused (code 42)",
                "mail from [IP] to <ADDRESS> refused (code #)",
            ),
            ("see https://example.org/x?id=7 for 12-34", "see URL for #-#"),
            ("mx1.example.com: queue id 4XkZ9q1b2Cz9 rejected.", "HOST: queue id ID rejected."),
            ("2001:db8::1 is listed", "IP is listed"),
            ("too  many errors", "too many errors"),
            ("<>", "<>"),
            ("", ""),
        ] {
            assert_eq!(shape(words), expected);
        }
        assert_eq!(shape("a b7f3c2d1e9 at mx4.a.example"), shape("a 0c9d8e7f6a5 at mx5.b.example"));
    }

    proptest! {
        #[test]
        fn a_shape_of_anything_ends(words in any::<String>()) {
            prop_assert!(shape(&words).chars().count() <= words.to_lowercase().chars().count() * 12);
        }

        #[test]
        fn a_sanitised_text_is_short_clean_and_stays_the_same(text in any::<String>(), max in 0_usize..80) {
            let shown = sanitise(&text, max);
            prop_assert!(shown.chars().count() <= max);
            prop_assert!(!shown.chars().any(is_deceptive));
            prop_assert_eq!(sanitise(&shown, max), shown);
        }
    }
}
