//! A sample of the failpoint sweep, and the table of the whole of it.

#![allow(clippy::unwrap_used, reason = "a test ends at its first surprise")]

use mailfleet_tests::failpoints::{Stage, Table, cells, sample};
use std::collections::BTreeSet;

#[tokio::test]
async fn a_kill_at_a_durable_step_leads_where_the_table_says() {
    let table = Table::load();
    let mut stage = Stage::start().await;
    for cell in sample() {
        let outcome = stage.play(cell).await;
        let known: Vec<_> = table.of(cell).collect();
        assert!(table.allows(cell, &outcome), "{cell} led to {outcome}, and the table has {known:#?}");
        assert!(outcome.reached, "{cell} was not reached");
    }
    stage.end().await;
}

#[test]
fn the_table_has_every_cell_and_reaches_every_point() {
    let table = Table::load();
    let (known, wanted): (BTreeSet<_>, BTreeSet<_>) = (table.cells().collect(), cells().into_iter().collect());
    assert_eq!(known, wanted);
    for point in failpoint::NAMES {
        assert!(table.reaches(point), "{point} is never reached");
    }
}

#[test]
fn the_table_breaks_no_promise() {
    let table = Table::load();
    for cell in table.cells() {
        for outcome in table.of(cell) {
            assert!(outcome.copies <= 1 + outcome.doubts, "{cell}: {outcome}");
            assert!(outcome.state != "delivered" || outcome.copies > 0, "{cell}: {outcome}");
        }
    }
}
