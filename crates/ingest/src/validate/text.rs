//! Free text that ends up in headers, lists and logs.

use super::Violation;

/// Longest reason, in characters.
pub const MAX_REASON: usize = 200;

/// Whether a character ends a line, hides, or turns the direction of what follows. Joiners and variation selectors
/// stay: emoji and several scripts need them.
pub(super) fn is_forbidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// One line of at most `max` characters without control or direction-changing characters.
///
/// # Errors
/// The fault.
pub fn free_text(field: &str, text: &str, max: usize) -> Result<(), Violation> {
    if text.chars().count() > max {
        return Err(Violation::new(field, format!("is too long; give at most {max} characters")));
    }
    if text.chars().any(is_forbidden) {
        return Err(Violation::new(
            field,
            "has a line break, control or direction-changing character; give one line of plain text",
        ));
    }
    Ok(())
}

/// Why somebody does something: free text, `manual` when empty.
///
/// # Errors
/// The fault.
pub fn reason(field: &str, text: &str) -> Result<String, Violation> {
    reason_or(field, text, "manual")
}

/// Why somebody does something: free text, `default` when empty.
///
/// # Errors
/// The fault.
pub fn reason_or(field: &str, text: &str, default: &str) -> Result<String, Violation> {
    free_text(field, text, MAX_REASON)?;
    Ok(if text.trim().is_empty() { default.to_owned() } else { text.trim().to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_can_begin_a_second_line_or_turn_the_first() {
        for bad in ["a\r\nBcc: b", "a\nb", "a\rb", "a\0b", "a\u{202e}b", "a\u{2028}b", "a\u{85}b", "\u{1b}[2J"] {
            assert!(free_text("reason", bad, 100).is_err(), "{bad:?}");
        }
        for good in ["", "plain", "Grüße 👩\u{200d}🚀 ❤\u{fe0f}", "عربي\u{200f}"] {
            assert!(free_text("reason", good, 100).is_ok(), "{good:?}");
        }
        assert!(free_text("reason", &"x".repeat(101), 100).is_err());
    }
}
