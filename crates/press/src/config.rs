//! What a press may keep, and how much it may do at once.

use content::Limits;
use serde::{Deserialize, Serialize};
use std::{num::NonZeroUsize, thread::available_parallelism, time::Duration};

/// The `[press]` part of a service's section.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PressConfig {
    /// Memory for parsed contents, in octets, estimated as twice their stored size. Default 128 MiB. Larger:
    /// fewer loads when many contents are in motion at once.
    pub content_cache_bytes: u64,
    /// How many contents to expect in that memory; sizes the table. Default 10,000.
    pub content_cache_items: NonZeroUsize,
    /// How many domains' keys to keep. Default 10,000, about 20 KB each at most.
    pub key_cache_items: NonZeroUsize,
    /// How long keys are kept before they are looked up again. Default 60 s. Larger: a key that was rotated
    /// or withdrawn signs for longer.
    #[serde(with = "humantime_serde")]
    pub key_ttl: Duration,
    /// How long the database is left alone after it did not answer. Default 500 ms.
    #[serde(with = "humantime_serde")]
    pub outage_pause: Duration,
    /// Chunks of bulk mail rendered at the same time. Default: the number of cores.
    pub workers: NonZeroUsize,
    /// Chunks of transactional mail rendered at the same time, beside those. Default: the number of cores;
    /// they stand idle while no such mail comes.
    pub reserved_workers: NonZeroUsize,
    /// By how much the threads that render bulk mail give way to every other thread of the machine: 0 (not at all) to
    /// 19, as in nice(1); more is taken as 19. Default 10, at which a thread beside them gets nine times as much of a
    /// core. Smaller: urgent mail waits longer while bulk mail keeps every core busy. Larger: bulk mail comes to a halt
    /// beside a program that keeps every core busy itself.
    pub bulk_niceness: u8,
    /// Bounds on one rendering.
    pub limits: Limits,
}

impl Default for PressConfig {
    fn default() -> Self {
        const ITEMS: NonZeroUsize = NonZeroUsize::new(10_000).expect("not zero");
        let cores = available_parallelism().unwrap_or(NonZeroUsize::MIN);
        Self {
            content_cache_bytes: 128 * 1024 * 1024,
            content_cache_items: ITEMS,
            key_cache_items: ITEMS,
            key_ttl: Duration::from_secs(60),
            outage_pause: Duration::from_millis(500),
            workers: cores,
            reserved_workers: cores,
            bulk_niceness: 10,
            limits: Limits::default(),
        }
    }
}
