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

    proptest! {
        #[test]
        fn a_sanitised_text_is_short_clean_and_stays_the_same(text in any::<String>(), max in 0_usize..80) {
            let shown = sanitise(&text, max);
            prop_assert!(shown.chars().count() <= max);
            prop_assert!(!shown.chars().any(is_deceptive));
            prop_assert_eq!(sanitise(&shown, max), shown);
        }
    }
}
