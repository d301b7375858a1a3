//! The fault runner: a real fleet under load, a seeded schedule of faults, and a checker.
//!
//! ```text
//! chaos [--seed N] [--minutes M] [--faults LIST|all|each] [--mailfleet PATH] [--keep]
//! ```
//!
//! Prints its seed and schedule first, ends by itself, and its last line is one JSON object. Ends with 1 when a promise
//! was broken, and with 2 when the run could not be made. `each` does one run after the other, each with one fault, and
//! `--minutes` is the length of each; its last line sums them up. What a run does and proves is told in
//! `mailfleet_tests::chaos`.

use anyhow::{Context, bail};
use mailfleet_tests::chaos::{Fault, Options, Report, Wanted, parse, run};
use std::{
    io::Write,
    process::ExitCode,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::signal::unix::{SignalKind, signal};

/// How long faults are done when nobody says.
const MINUTES: f64 = 3.0;
/// The same for each run of `each`.
const MINUTES_EACH: f64 = 0.5;

struct Arguments {
    options: Options,
    each: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let outcome = tokio::select! {
        outcome = all() => outcome,
        // What was started ends with what is dropped.
        told = told_to_end() => Err(told.err().unwrap_or_else(|| anyhow::anyhow!("interrupted"))),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            say(&format!("{error:#}"));
            ExitCode::from(2)
        }
    }
}

async fn told_to_end() -> anyhow::Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

async fn all() -> anyhow::Result<bool> {
    let Arguments { options, each } = arguments()?;
    if !each {
        let report = run(&options, &say).await?;
        say(&serde_json::to_string(&report)?);
        return Ok(report.is_sound());
    }
    let mut total = Report { seed: options.seed, ..Report::default() };
    for fault in Fault::ALL {
        let faults = vec![Wanted { fault, service: None }];
        let report = run(&Options { faults, ..options.clone() }, &say).await?;
        say(&serde_json::to_string(&report)?);
        total.add(&report);
    }
    say(&serde_json::to_string(&total)?);
    Ok(total.is_sound())
}

fn arguments() -> anyhow::Result<Arguments> {
    let (mut seed, mut minutes, mut list, mut keep) = (None, None, "all".to_owned(), false);
    let mut mailfleet = "target/debug/mailfleet".into();
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().with_context(|| format!("{word} needs a value"));
        match word.as_str() {
            "--seed" => seed = Some(value()?.parse().context("--seed is a number")?),
            "--minutes" => minutes = Some(value()?.parse::<f64>().context("--minutes is a number")?),
            "--faults" => list = value()?,
            "--mailfleet" => mailfleet = value()?.into(),
            "--keep" => keep = true,
            _ => bail!("{word} is unknown; there are --seed N, --minutes M, --faults LIST, --mailfleet PATH, --keep"),
        }
    }
    let each = list == "each";
    let minutes = minutes.unwrap_or(if each { MINUTES_EACH } else { MINUTES });
    let length = Duration::try_from_secs_f64(minutes * 60.0).context("--minutes is above zero")?;
    let faults = if each { Vec::new() } else { parse(&list)? };
    let seed = seed.unwrap_or_else(any_seed);
    Ok(Arguments { options: Options { seed, length, faults, mailfleet, keep }, each })
}

/// A seed that nobody chose; short enough to be typed.
fn any_seed() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_micros() as u64 % 1_000_000
}

fn say(text: &str) {
    // Nobody listens any more: the exit code tells.
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}
