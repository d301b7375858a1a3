//! What people read on a terminal, and what programs read with `--json`.

use serde::Serialize;
use std::io::{self, IsTerminal, Write};

/// Where answers go.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    /// One JSON value a line instead of text.
    pub json: bool,
    /// Whether a person is watching.
    pub terminal: bool,
}

impl Output {
    /// Looks at the standard output.
    pub fn new(json: bool) -> Self {
        Self { json, terminal: io::stdout().is_terminal() && !json }
    }

    /// Gives an answer: the value as JSON, or its text.
    pub fn answer(self, value: &impl Serialize, text: impl FnOnce() -> String) -> anyhow::Result<()> {
        if self.json {
            self.line(&serde_json::to_string(value)?);
        } else {
            self.line(&text());
        }
        Ok(())
    }

    /// Writes a line of the answer. A reader that went away is no error: it has had enough.
    pub fn line(self, text: &str) {
        let mut out = io::stdout().lock();
        let _ = writeln!(out, "{}", text.trim_end());
    }

    /// Tells what is going on; nothing for programs, which read the answer alone.
    pub fn note(self, text: &str) {
        if !self.json {
            self.line(text);
        }
    }

    /// Shows a figure that changes, over the last one on a terminal; nothing elsewhere.
    pub fn progress(self, text: &str) {
        if self.terminal {
            let mut out = io::stdout().lock();
            let _ = write!(out, "\r\x1b[2K{text}");
            let _ = out.flush();
        }
    }

    /// Ends a line of progress.
    pub fn progress_done(self) {
        if self.terminal {
            let _ = writeln!(io::stdout().lock());
        }
    }

    /// Clears the terminal before a view is drawn again.
    pub fn redraw(self, text: &str) {
        let mut out = io::stdout().lock();
        let _ = write!(out, "\x1b[H\x1b[2J{text}");
        let _ = out.flush();
    }
}

/// Says what went wrong, where errors go.
pub fn complain(text: &str) {
    let _ = writeln!(io::stderr().lock(), "mailfleet: {text}");
}

/// A text table: the first column to the left, the others to the right unless told.
#[derive(Debug)]
pub struct Table {
    heads: Vec<String>,
    left: usize,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these columns, of which the first `left` hold words.
    pub fn new(left: usize, heads: &[&str]) -> Self {
        Self { heads: heads.iter().map(|head| (*head).to_owned()).collect(), left, rows: Vec::new() }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// Whether no row was added.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The table as text, two spaces between columns.
    pub fn text(&self) -> String {
        let width = |column: usize| {
            let cells = self.rows.iter().map(|row| row.get(column).map_or(0, |cell| cell.chars().count()));
            cells.chain([self.heads[column].chars().count()]).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.heads.len()).map(width).collect();
        let mut text = String::new();
        for row in std::iter::once(&self.heads).chain(&self.rows) {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate().take(widths.len()) {
                let room = " ".repeat(widths[column].saturating_sub(cell.chars().count()));
                let gap = if column == 0 { "" } else { "  " };
                if column < self.left {
                    line.push_str(&format!("{gap}{cell}{room}"));
                } else {
                    line.push_str(&format!("{gap}{room}{cell}"));
                }
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// A number with thin groups: `12,345`.
pub fn grouped(number: impl Into<i128>) -> String {
    let number: i128 = number.into();
    let digits = number.unsigned_abs().to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3 + 1);
    if number < 0 {
        text.push('-');
    }
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Milliseconds as people read them: `4.2 ms`, `1.35 s`.
pub fn millis(ms: f64) -> String {
    match ms {
        ms if ms < 10.0 => format!("{ms:.1} ms"),
        ms if ms < 1_000.0 => format!("{ms:.0} ms"),
        ms => format!("{:.2} s", ms / 1_000.0),
    }
}

/// Text that came from outside, without what could steer a terminal.
pub fn safe(text: &str) -> String {
    domain::text::sanitise(text, 500)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(1, &["site", "mails"]);
        table.row(vec!["google".to_owned(), "12".to_owned()]);
        table.row(vec!["h7".to_owned(), "1,234".to_owned()]);
        assert_eq!(table.text(), "site    mails\ngoogle     12\nh7      1,234\n");
    }

    #[test]
    fn numbers_are_grouped() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_000), "1,000");
        assert_eq!(grouped(-1_234_567), "-1,234,567");
    }
}
