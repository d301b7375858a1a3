//! The command line.

use clap::{Parser, ValueEnum};
use std::{path::PathBuf, time::Duration};

/// Measures the release build end to end, and peers in the same run.
#[derive(Clone, Debug, Parser)]
#[command(name = "bench", max_term_width = 110)]
pub struct Arguments {
    /// What is measured
    #[arg(long, value_enum, default_value_t = Scenario::Systems)]
    pub scenario: Scenario,
    /// Mails of a measurement, one recipient each
    #[arg(long, value_name = "N", default_value_t = 20_000)]
    pub mails: usize,
    /// About how many octets a mail has before it is signed
    #[arg(long, value_name = "OCTETS", default_value_t = 10_000)]
    pub size: usize,
    /// Connections that hand mail in to a peer, and calls under way at the fleet
    #[arg(long, value_name = "N", default_value_t = 30)]
    pub conns: usize,
    /// Recipients in one call to the fleet
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub batch: usize,
    /// Round trip to the sink, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 0)]
    pub rtt: u64,
    /// Which systems: those that sign, those that do not, or all
    #[arg(long, value_enum, default_value_t = Dkim::Both)]
    pub dkim: Dkim,
    /// Of a hundred recipients, how many get a 451 the first time
    #[arg(long, value_name = "PERCENT", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=100))]
    pub share_4xx: u8,
    /// Recipient domains; each is a site of its own to the fleet
    #[arg(long, value_name = "N", default_value_t = 8)]
    pub domains: usize,
    /// Mails before each measurement: connections are open, contents and keys are cached, plans are made
    #[arg(long, value_name = "N", default_value_t = 2_000)]
    pub warm_up: usize,
    /// How often each system is measured; the run with the median rate counts
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub repeat: usize,
    /// Measure the fleet alone
    #[arg(long)]
    pub without_peers: bool,
    /// `depth`: the backlogs to drain
    #[arg(long, value_name = "N,..", value_delimiter = ',', default_values_t = [10_000, 100_000, 1_000_000])]
    pub depths: Vec<usize>,
    /// `depth`: mails measured at each depth. `latency`: recipients of the bulk backlog. `replicas`: mails of each run
    #[arg(long, value_name = "N")]
    pub window: Option<usize>,
    /// `latency`: transactional mails of each measurement, sent one by one
    #[arg(long, value_name = "N", default_value_t = 500)]
    pub samples: usize,
    /// `systems`: profile the measured part into this file with perf; see tests/bench/budget.sh. Costs time itself
    #[arg(long, value_name = "FILE", requires = "without_peers")]
    pub profile: Option<PathBuf>,
    /// The command of the fleet
    #[arg(long, value_name = "PATH", default_value = "target/release/mailfleet")]
    pub mailfleet: PathBuf,
    /// Leave folder and logs behind
    #[arg(long)]
    pub keep: bool,
    /// Run as the sink of another benchmark process
    #[arg(long, hide = true)]
    pub be_the_sink: bool,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// Rate and cost of the fleet and of Postfix, signed and plain
    Systems,
    /// How long one mail takes when nothing else goes on, and while a bulk backlog drains
    Latency,
    /// Whether the cost of a mail depends on how many wait
    Depth,
    /// One sender and two, and a distant receiver that allows few connections
    Replicas,
}

/// Which systems are measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Dkim {
    /// Signed only
    On,
    /// Plain only
    Off,
    /// All
    Both,
}

/// What the sink's process is told.
#[derive(Clone, Copy, Debug)]
pub struct SinkArguments {
    /// See [`Arguments::rtt`].
    pub round_trip: Duration,
}

impl Arguments {
    /// What to do as a sink, when this process is to be one.
    pub fn as_sink(&self) -> Option<SinkArguments> {
        self.be_the_sink.then_some(SinkArguments { round_trip: self.round_trip() })
    }

    /// Round trip to the sink.
    pub fn round_trip(&self) -> Duration {
        Duration::from_millis(self.rtt)
    }
}
