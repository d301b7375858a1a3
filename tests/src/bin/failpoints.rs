//! The failpoint sweep: kills a process of a real fleet at every durable step, crossed with what the receiver says,
//! and compares what became of each message with `tests/failpoints/outcomes.txt`.
//!
//! ```text
//! failpoints [--sample] [--only TEXT] [--fleets N] [--rounds N] [--write]
//! ```
//!
//! `--only` takes the cells whose name, as in `sender.dot.after × accept`, contains the text; `--fleets` says how many
//! fleets share the work. `--write` adds outcomes that the table does not have, for somebody to judge before they are
//! committed; otherwise they are failures. The last line is a JSON object.

#![allow(clippy::unwrap_used, reason = "a sweep ends at its first surprise")]

use anyhow::{Context, bail};
use futures_util::future::try_join_all;
use mailfleet_tests::failpoints::{Cell, Stage, Table, cells, sample};
use std::{collections::VecDeque, io::Write, sync::Mutex, time::Instant};

/// Who is killed again and again is started again ever later: after so many cells a new fleet goes on.
const CELLS_OF_A_FLEET: usize = 6;

/// What the fleets share.
struct Sweep {
    left: VecDeque<Cell>,
    table: Table,
    surprises: Vec<String>,
    played: usize,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = arguments()?;
    let left = arguments.cells.repeat(arguments.rounds).into();
    let sweep = Mutex::new(Sweep { left, table: Table::load(), surprises: Vec::new(), played: 0 });
    let begun = Instant::now();
    try_join_all((0..arguments.fleets).map(|_| play(&sweep))).await?;
    let Sweep { table, surprises, played, .. } = sweep.into_inner().unwrap();
    if arguments.write {
        table.store();
    }
    let ok = surprises.is_empty() || arguments.write;
    let summary = serde_json::json!({
        "cells": arguments.cells.len(), "played": played, "surprises": surprises, "seconds": begun.elapsed().as_secs(),
        "ok": ok,
    });
    say(&summary.to_string())?;
    if ok { Ok(()) } else { bail!("{} outcomes are not in the table", surprises.len()) }
}

/// One fleet's share.
async fn play(sweep: &Mutex<Sweep>) -> anyhow::Result<()> {
    let mut stage = Stage::start().await;
    let mut here = 0;
    loop {
        let next = sweep.lock().unwrap().left.pop_front();
        let Some(cell) = next else { break };
        if here == CELLS_OF_A_FLEET {
            stage.end().await;
            stage = Stage::start().await;
            here = 0;
        }
        here += 1;
        let begun = Instant::now();
        let outcome = stage.play(cell).await;
        let mut sweep = sweep.lock().unwrap();
        sweep.played += 1;
        let known = sweep.table.allows(cell, &outcome);
        let (mark, seconds) = (if known { ' ' } else { '!' }, begun.elapsed().as_secs_f64());
        say(&format!("{mark} {:<30} {:<20} {outcome}   {seconds:.1} s", cell.point, cell.peer.word()))?;
        if !known {
            sweep.surprises.push(cell.to_string());
            sweep.table.add(cell, outcome);
        }
    }
    stage.end().await;
    Ok(())
}

struct Arguments {
    cells: Vec<Cell>,
    fleets: usize,
    rounds: usize,
    write: bool,
}

fn arguments() -> anyhow::Result<Arguments> {
    let mut found = Arguments { cells: cells(), fleets: 2, rounds: 1, write: false };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().with_context(|| format!("{word} needs a value"));
        match word.as_str() {
            "--sample" => found.cells = sample(),
            "--write" => found.write = true,
            "--fleets" => found.fleets = value()?.parse::<usize>().context("--fleets is a number")?.max(1),
            "--rounds" => found.rounds = value()?.parse().context("--rounds is a number")?,
            "--only" => {
                let text = value()?;
                found.cells.retain(|cell| cell.to_string().contains(&text));
            }
            _ => bail!("{word} is unknown; there are --sample, --only TEXT, --fleets N, --rounds N, --write"),
        }
    }
    if found.cells.is_empty() { bail!("no cell is left") } else { Ok(found) }
}

fn say(text: &str) -> anyhow::Result<()> {
    Ok(writeln!(std::io::stdout(), "{text}")?)
}
