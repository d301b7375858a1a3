//! The table of outcomes: a text that people read and a program compares.

use super::{Cell, Peer};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::{self, Write},
    path::PathBuf,
};

/// What became of one message.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Outcome {
    /// Whether the process was killed at the point.
    pub reached: bool,
    /// How the message ended.
    pub state: String,
    /// Attempts in doubt.
    pub doubts: usize,
    /// Attempts that the receiver put off.
    pub deferrals: usize,
    /// Releases that went missing.
    pub lost: usize,
    /// Copies at the receiver.
    pub copies: usize,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { reached, state, doubts, deferrals, lost, copies } = self;
        let reached = if *reached { "yes" } else { "no" };
        write!(f, "{reached:<8} {state:<10} {doubts:<7} {deferrals:<10} {lost:<5} {copies}")
    }
}

/// The outcomes that each cell may have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table(BTreeMap<Cell, BTreeSet<Outcome>>);

const HEAD: &str = "\
# What becomes of a message when a process is killed at a point of its road, by what the receiver says.
# Written by `failpoints --write` from what was seen; a cell with several lines has several legitimate outcomes, since
# the kill races what other threads and services are doing. Doubts, deferrals and lost releases are counted from the
# message's events, copies at the receiver. Lost releases are the fewest there are: a machine under load repairs too
# early, which costs a rendering and never a copy. Where a point is not reached, the reply ends the attempt before it.
";

impl Table {
    fn path() -> PathBuf {
        PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/failpoints/outcomes.txt"))
    }

    /// The committed one; empty when there is none.
    pub fn load() -> Self {
        Self::parse(&std::fs::read_to_string(Self::path()).unwrap_or_default())
    }

    /// Takes the committed one's place.
    pub fn store(&self) {
        std::fs::write(Self::path(), self.to_string()).unwrap();
    }

    /// Reads a table's text.
    ///
    /// # Panics
    /// When a line is none.
    pub fn parse(text: &str) -> Self {
        let mut table = Self::default();
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        for line in lines.filter(|line| !line.starts_with("point ")) {
            let (cell, outcome) = read(line).unwrap_or_else(|| panic!("no line of the table: {line:?}"));
            table.add(cell, outcome);
        }
        table
    }

    /// Adds a legitimate outcome.
    pub fn add(&mut self, cell: Cell, outcome: Outcome) {
        self.0.entry(cell).or_default().insert(outcome);
    }

    /// Whether a cell may have this outcome.
    pub fn allows(&self, cell: Cell, outcome: &Outcome) -> bool {
        self.of(cell)
            .any(|known| Outcome { lost: known.lost, ..outcome.clone() } == *known && known.lost <= outcome.lost)
    }

    /// The outcomes that a cell may have.
    pub fn of(&self, cell: Cell) -> impl Iterator<Item = &Outcome> {
        self.0.get(&cell).into_iter().flatten()
    }

    /// The cells that it knows.
    pub fn cells(&self) -> impl Iterator<Item = Cell> {
        self.0.keys().copied()
    }

    /// Whether a process has been killed there, whatever the receiver said.
    pub fn reaches(&self, point: &str) -> bool {
        let at = self.0.iter().filter(|(cell, _)| cell.point == point);
        at.flat_map(|(_, outcomes)| outcomes).any(|outcome| outcome.reached)
    }
}

fn read(line: &str) -> Option<(Cell, Outcome)> {
    let mut words = line.split_whitespace();
    let point = words.next()?;
    let point = failpoint::NAMES.iter().find(|name| **name == point)?;
    let peer = Peer::of_word(words.next()?)?;
    let reached = match words.next()? {
        "yes" => true,
        "no" => false,
        _ => return None,
    };
    let state = words.next()?.to_owned();
    let mut number = || words.next()?.parse().ok();
    let (doubts, deferrals, lost, copies) = (number()?, number()?, number()?, number()?);
    Some((Cell { point, peer }, Outcome { reached, state, doubts, deferrals, lost, copies }))
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{HEAD}")?;
        let head = ["point", "peer", "reached", "state", "doubts", "deferrals", "lost"];
        let [point, peer, reached, state, doubts, deferrals, lost] = head;
        writeln!(f, "{point:<30} {peer:<20} {reached:<8} {state:<10} {doubts:<7} {deferrals:<10} {lost:<5} copies")?;
        for (cell, outcomes) in &self.0 {
            for outcome in outcomes {
                let mut line = format!("{:<30} {:<20} ", cell.point, cell.peer.word());
                write!(line, "{outcome}")?;
                writeln!(f, "{}", line.trim_end())?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_reads_as_it_was_written() {
        let cell = Cell { point: failpoint::NAMES[0], peer: Peer::DropAfterDotOnce };
        let one = Outcome { reached: true, state: "delivered".into(), doubts: 1, deferrals: 0, lost: 2, copies: 2 };
        let other = Outcome { reached: false, ..one.clone() };
        let mut table = Table::default();
        table.add(cell, one.clone());
        table.add(cell, other);
        assert_eq!(Table::parse(&table.to_string()), table);
        assert_eq!(table.of(cell).count(), 2);
        assert!(table.allows(cell, &one) && table.allows(cell, &Outcome { lost: 3, ..one.clone() }));
        assert!(!table.allows(cell, &Outcome { lost: 1, ..one.clone() }), "fewer than the fewest");
        assert!(!table.allows(cell, &Outcome { copies: 1, ..one }));
        assert!(table.reaches(cell.point) && !table.reaches(failpoint::NAMES[1]));
    }
}
