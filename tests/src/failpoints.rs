//! The failpoint sweep: a fleet of real processes, of which one is killed at each durable step of a message's road,
//! crossed with what its receiver says.
//!
//! What a kill may lead to stands in `tests/failpoints/outcomes.txt` ([`Table`]); a run that sees something else fails.
//! Beside the table, each cell proves that the message has one ending, that there are no more copies than one and one
//! for each doubt, and that the audit is clean.

mod cells;
mod stage;
mod table;

pub use cells::{Cell, Peer, cells, sample};
pub use stage::Stage;
pub use table::{Outcome, Table};
