//! The benchmark: a whole fleet of processes, release build, durable commits; and what people use today beside it,
//! with the same load, the same sink and the same durability. `tests/bench/README.md` tells what is measured and how.
//!
//! Everything is on loopback, in a temporary folder, and gone afterwards. Lines of JSON and tables in Markdown go to
//! stdout, the last line sums up; what is going on goes to stderr.

mod arguments;
mod backends;
mod disk;
mod fleet;
mod load;
mod mail;
mod peer;
mod profile;
mod report;
mod scenarios;
mod sessions;
mod sink;
mod spread;
mod usage;

use anyhow::{Context, bail};
use arguments::{Arguments, Scenario};
use clap::Parser;
use std::{fs, path::Path};
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    if let Some(sink) = arguments.as_sink() {
        return sink::serve(sink).await;
    }
    let folder = std::env::temp_dir().join(format!("mailfleet-bench-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    let shared = sessions::SharedByThread::turn();
    let outcome = tokio::select! {
        outcome = run(&arguments, &folder) => outcome,
        signal = interrupted() => signal.and_then(|name| bail!("broken off by {name}")),
    };
    drop(shared);
    if arguments.keep {
        report::note(&format!("kept {}", folder.display()));
    } else {
        fs::remove_dir_all(&folder)?;
    }
    outcome
}

/// Until somebody wants it to end. What was started ends with the futures that hold it.
async fn interrupted() -> anyhow::Result<&'static str> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        pressed = tokio::signal::ctrl_c() => pressed.map(|()| "SIGINT").context("cannot wait for signals"),
        _ = terminate.recv() => Ok("SIGTERM"),
    }
}

async fn run(arguments: &Arguments, folder: &Path) -> anyhow::Result<()> {
    match arguments.scenario {
        Scenario::Systems => scenarios::systems::run(arguments, folder).await,
        Scenario::Latency => scenarios::latency::run(arguments, folder).await,
        Scenario::Depth => scenarios::depth::run(arguments, folder).await,
        Scenario::Replicas => scenarios::replicas::run(arguments, folder).await,
    }
}
