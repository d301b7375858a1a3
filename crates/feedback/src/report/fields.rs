//! Blocks of fields: what `message/delivery-status` and `message/feedback-report` hold.

/// Most fields of one block.
const MAX_FIELDS: usize = 200;
/// Longest value that is kept, in bytes.
const MAX_VALUE: usize = 8 * 1024;

/// The fields of one block, names in lower case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Fields(Vec<(String, String)>);

impl Fields {
    /// The blocks of a text, which empty lines divide. Lines that are no fields are passed over.
    pub(super) fn blocks(text: &str, most: usize) -> Vec<Self> {
        let mut blocks: Vec<Self> = Vec::new();
        let mut open = Self::default();
        for line in text.lines() {
            if line.trim().is_empty() {
                if !open.0.is_empty() {
                    blocks.push(std::mem::take(&mut open));
                }
                if blocks.len() > most {
                    return blocks;
                }
            } else {
                open.line(line);
            }
        }
        if !open.0.is_empty() {
            blocks.push(open);
        }
        blocks
    }

    fn line(&mut self, line: &str) {
        if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = self.0.last_mut()
                && value.len() + line.len() < MAX_VALUE
            {
                value.push(' ');
                value.push_str(line.trim());
            }
            return;
        }
        let Some((name, value)) = line.split_once(':') else { return };
        let is_name = !name.is_empty() && name.trim_end().bytes().all(|byte| byte.is_ascii_graphic());
        if is_name && self.0.len() < MAX_FIELDS && value.len() < MAX_VALUE {
            self.0.push((name.trim_end().to_ascii_lowercase(), value.trim().to_owned()));
        }
    }

    /// Takes the fields of another block in, behind its own.
    pub(super) fn append(&mut self, other: Self) {
        self.0.extend(other.0);
        self.0.truncate(MAX_FIELDS);
    }

    /// The first value of this name that holds something.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, value)| known == name && !value.is_empty()).map(|(_, value)| value.as_str())
    }

    /// Every value of this name that holds something.
    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let named = self.0.iter().filter(move |(known, value)| known == name && !value.is_empty());
        named.map(|(_, value)| value.as_str())
    }

    /// Whether one of these names is there.
    pub(super) fn has_any(&self, names: &[&str]) -> bool {
        names.iter().any(|name| self.get(name).is_some())
    }
}

/// What stands behind the type of a typed value, `rfc822; someone@example.com`, without comments and brackets.
pub(super) fn untyped(value: &str) -> &str {
    let rest = value.split_once(';').map_or(value, |(_, rest)| rest).trim();
    // A comment, and a value that somebody forgot to leave out.
    let rest = rest.strip_suffix(')').and_then(|head| Some(head.rsplit_once(" (")?.0)).unwrap_or(rest).trim();
    rest.strip_prefix('<').and_then(|inner| inner.strip_suffix('>')).unwrap_or(rest).trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_divided_by_empty_lines_and_folded_lines_joined() {
        let text = "Reporting-MTA: dns; a.test\r\n\r\n\r\nFinal-Recipient: rfc822; x@a.test\r\nDiagnostic-Code: smtp; 550\r\n \
                    5.1.1 no\r\nnot a field\r\nACTION : failed\r\n\r\n";
        let blocks = Fields::blocks(text, 10);
        assert_eq!(blocks.len(), 2);
        assert_eq!(blocks[0].get("reporting-mta"), Some("dns; a.test"));
        assert_eq!(blocks[1].get("diagnostic-code"), Some("smtp; 550 5.1.1 no"));
        assert_eq!(blocks[1].get("action"), Some("failed"));
        assert_eq!(Fields::blocks(&"a: b\n\n".repeat(100), 3).len(), 4);
    }

    #[test]
    fn a_type_a_comment_and_brackets_are_no_part_of_a_value() {
        for (value, bare) in [
            ("rfc822; a@b.test", "a@b.test"),
            ("RFC822;<a@b.test>", "a@b.test"),
            ("a@b.test", "a@b.test"),
            ("dns; mx.b.test (192.0.2.1, the server for the domain b.test.)", "mx.b.test"),
            ("rfc822;", ""),
        ] {
            assert_eq!(untyped(value), bare);
        }
    }
}
