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
mod sink;
mod spread;
mod usage;

use arguments::{Arguments, Scenario};
use clap::Parser;
use std::{fs, path::Path};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    if let Some(sink) = arguments.as_sink() {
        return sink::serve(sink).await;
    }
    let folder = std::env::temp_dir().join(format!("mailfleet-bench-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    let outcome = run(&arguments, &folder).await;
    if arguments.keep {
        report::note(&format!("kept {}", folder.display()));
    } else {
        fs::remove_dir_all(&folder)?;
    }
    outcome
}

async fn run(arguments: &Arguments, folder: &Path) -> anyhow::Result<()> {
    match arguments.scenario {
        Scenario::Systems => scenarios::systems::run(arguments, folder).await,
        Scenario::Latency => scenarios::latency::run(arguments, folder).await,
        Scenario::Depth => scenarios::depth::run(arguments, folder).await,
        Scenario::Replicas => scenarios::replicas::run(arguments, folder).await,
    }
}
