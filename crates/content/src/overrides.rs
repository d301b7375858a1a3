//! Subject and header fields of one recipient's own.

use crate::header::{self, Fields};
use crate::{Finding, Limits, RenderError};
use domain::Overrides;

/// Most header fields of one recipient's own.
const MAX_HEADERS: usize = 20;
/// Fields that belong to the list, not to a recipient.
const OF_THE_LIST: [&str; 3] = ["List-Unsubscribe", "List-Id", "Feedback-ID"];

/// Everything that is wrong with what a recipient has of his own, by field: `subject`, `headers[1].name`.
pub fn validate_overrides(own: &Overrides, limits: &Limits) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(subject) = own.subject.as_deref() {
        if subject.trim().is_empty() {
            findings.push(Finding::new("subject", "is blank", "give a subject, or leave it empty for the mail's"));
        } else if let Some(problem) = header::text_problem(subject) {
            findings.push(Finding::new("subject", problem, "write plain text on one line"));
        } else if subject.chars().count() > limits.max_subject_chars {
            let fix = format!("keep it within {} characters", limits.max_subject_chars);
            findings.push(Finding::new("subject", "is too long", fix));
        }
    }
    if own.headers.len() > MAX_HEADERS {
        let fix = format!("give at most {MAX_HEADERS}");
        findings.push(Finding::new("headers", format!("has {} fields", own.headers.len()), fix));
        return findings;
    }
    for (index, (name, value)) in own.headers.iter().enumerate() {
        let path = |part: &str| format!("headers[{index}].{part}");
        let is_repeated = own.headers[..index].iter().any(|(other, _)| other.eq_ignore_ascii_case(name));
        if !header::is_field_name(name) {
            let fix = "use 1 to 70 printable ASCII characters without a colon";
            findings.push(Finding::new(path("name"), "is not a header field name", fix));
        } else if !header::is_settable(name) || OF_THE_LIST.iter().any(|field| field.eq_ignore_ascii_case(name)) {
            let fix = "leave it out; mailfleet makes this field, or it belongs to the whole mail";
            findings.push(Finding::new(path("name"), format!("{name} cannot be set"), fix));
        } else if is_repeated {
            findings.push(Finding::new(path("name"), format!("{name} is set twice"), "set it once"));
        }
        if let Some(problem) = value_problem(value, limits) {
            let fix = format!("write plain text on one line, within {} octets", limits.max_header_bytes);
            findings.push(Finding::new(path("value"), problem, fix));
        }
    }
    findings
}

fn value_problem(value: &str, limits: &Limits) -> Option<&'static str> {
    if value.len() > limits.max_header_bytes { Some("is too long") } else { header::text_problem(value) }
}

/// Appends a recipient's own fields.
pub(crate) fn push(own: &[(String, String)], fields: &mut Fields, limits: &Limits) -> Result<(), RenderError> {
    for (index, (name, value)) in own.iter().enumerate() {
        // Accepting them has looked; what was stored since then is not to be trusted with a header all the same.
        let problem = if !header::is_field_name(name) || !header::is_settable(name) {
            Some("cannot be set")
        } else {
            value_problem(value, limits)
        };
        if let Some(problem) = problem {
            return Err(RenderError::Header { field: format!("recipient.headers[{index}]"), problem });
        }
        fields.push_text(name, value);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields_at_fault(subject: &str, headers: &[(&str, &str)]) -> Vec<String> {
        let own = Overrides {
            subject: Some(subject.to_owned()),
            headers: headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            ..Overrides::default()
        };
        validate_overrides(&own, &Limits::default()).into_iter().map(|finding| finding.field).collect()
    }

    #[test]
    fn nothing_of_a_recipients_own_begins_a_line_or_takes_a_field_of_the_system() {
        assert!(
            fields_at_fault("Gr\u{fc}\u{df}e {{ name }}", &[("X-Order", "17"), ("In-Reply-To", "<a@b.test>")])
                .is_empty()
        );
        for bad in ["a\r\nBcc: eve@evil.test", "a\nb", "a\0b", "a\u{202e}b", "a\u{2028}b"] {
            assert_eq!(fields_at_fault(bad, &[("X-A", bad)]), ["subject", "headers[0].value"], "{bad:?}");
            assert_eq!(fields_at_fault("s", &[(bad, "x")]), ["headers[0].name"], "{bad:?}");
        }
        for name in ["From", "bcc", "Subject", "DKIM-Signature", "Content-Type", "list-unsubscribe", "List-Id"] {
            assert_eq!(fields_at_fault("s", &[(name, "x")]), ["headers[0].name"], "{name}");
        }
        assert_eq!(fields_at_fault("s", &[("X-A", "1"), ("x-a", "2")]), ["headers[1].name"]);
        assert_eq!(fields_at_fault(&"s".repeat(999), &[("X-A", &"1".repeat(5_000))]), ["subject", "headers[0].value"]);
        assert_eq!(fields_at_fault("s", &[("X-A", "1"); 21]), ["headers"]);
    }
}
