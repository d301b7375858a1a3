//! The `[renderer]` section.

use press::PressConfig;
use serde::{Deserialize, Serialize};
use std::{num::NonZeroUsize, time::Duration};

/// What an operator decides about rendering.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RendererConfig {
    /// Chunks of each lane that this process holds at a time: loading, rendering, or waiting for the broker to
    /// take what was rendered. Default 8. Larger hides a slow broker and holds more finished mail in memory, up
    /// to 25 MB a chunk.
    pub chunks_under_way: NonZeroUsize,
    /// Finished chunks of one rendered chunk whose publish waits for its answer at the same time. Default 8.
    pub publishes_in_flight: NonZeroUsize,
    /// Contents of one chunk that are loaded at the same time. Default 4; each takes a connection to the database.
    pub loads_in_flight: NonZeroUsize,
    /// How long mail rests that the broker had no room for. Default 1 s.
    #[serde(with = "humantime_serde")]
    pub refused_delay: Duration,
    /// How long mail rests that this fleet cannot render now: its DKIM key does not open, for example. Default 30 s.
    #[serde(with = "humantime_serde")]
    pub fault_delay: Duration,
    /// How long a chunk stays with the broker when the database does not answer, or nobody knows whether the
    /// broker took what was rendered. Default 2 s; below the 45 s after which repair releases its mail again.
    #[serde(with = "humantime_serde")]
    pub hold_delay: Duration,
    /// How often the neighbours are looked at for readiness. Default 1 s.
    #[serde(with = "humantime_serde")]
    pub health_interval: Duration,
    /// How long a neighbour may take to answer that look. Default 2 s.
    #[serde(with = "humantime_serde")]
    pub health_timeout: Duration,
    /// What is kept in memory and how much is rendered at the same time.
    pub press: PressConfig,
}

impl Default for RendererConfig {
    fn default() -> Self {
        const CHUNKS: NonZeroUsize = NonZeroUsize::new(8).expect("not zero");
        const LOADS: NonZeroUsize = NonZeroUsize::new(4).expect("not zero");
        Self {
            chunks_under_way: CHUNKS,
            publishes_in_flight: CHUNKS,
            loads_in_flight: LOADS,
            refused_delay: Duration::from_secs(1),
            fault_delay: Duration::from_secs(30),
            hold_delay: Duration::from_secs(2),
            health_interval: Duration::from_secs(1),
            health_timeout: Duration::from_secs(2),
            press: PressConfig::default(),
        }
    }
}
