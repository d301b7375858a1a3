//! The table of streams and consumers, and the comparison of what is wanted with what is found.

use crate::{Bus, MAX_CHUNK_BYTES, Prefix, Stage, subject};
use async_nats::jetstream::{
    consumer,
    stream::{Config, DiscardPolicy, RetentionPolicy, StorageType},
};
use domain::{Lane, Shard, ShardCount};
use std::fmt;

/// The consumer that all renderers share.
pub(crate) const RENDER_CONSUMER: &str = "render";
/// Room for headers beside a chunk in the largest message of a stream.
const HEADER_BYTES: usize = 1024;

/// The name of the stream of a stage and lane.
pub fn stream_name(prefix: &Prefix, stage: Stage, lane: Lane) -> String {
    let stage = match stage {
        Stage::Render => "RENDER",
        Stage::Send => "SEND",
    };
    let lane = match lane {
        Lane::Transactional => "T",
        Lane::Bulk => "B",
    };
    format!("{}_{stage}_{lane}", prefix.as_str().to_ascii_uppercase())
}

/// The name of a shard's consumer.
pub fn shard_consumer(shard: Shard) -> String {
    format!("shard-{shard}")
}

/// One row of the table.
pub(super) struct Row {
    pub stream: Config,
    pub consumers: Vec<consumer::pull::Config>,
    /// Whether it carries work, and is not the probe.
    pub work: bool,
}

pub(super) fn table(bus: &Bus, shards: ShardCount) -> Vec<Row> {
    let work = Stage::ALL.into_iter().flat_map(|stage| Lane::ALL.map(|lane| work_row(bus, shards, stage, lane)));
    work.chain([probe_row(bus)]).collect()
}

fn work_row(bus: &Bus, shards: ShardCount, stage: Stage, lane: Lane) -> Row {
    let config = bus.config();
    let both_lanes = match stage {
        Stage::Render => config.render_max_bytes,
        Stage::Send => config.send_max_bytes,
    };
    let max_bytes = match lane {
        Lane::Transactional => both_lanes / 4,
        Lane::Bulk => both_lanes - both_lanes / 4,
    };
    let subjects = format!("{}.{}.{lane}", config.prefix, stage.as_str());
    let consumers = match stage {
        Stage::Render => {
            let filter = format!("{subjects}.>");
            vec![work_consumer(bus, RENDER_CONSUMER.to_owned(), filter, config.render_max_ack_pending)]
        }
        Stage::Send => {
            let of = |shard| {
                let filter = format!("{subjects}.{shard}.>");
                work_consumer(bus, shard_consumer(shard), filter, config.send_max_ack_pending)
            };
            shards.all().map(of).collect()
        }
    };
    let stream = Config {
        name: stream_name(&config.prefix, stage, lane),
        subjects: vec![format!("{subjects}.>")],
        retention: RetentionPolicy::WorkQueue,
        discard: DiscardPolicy::New,
        max_bytes: i64::try_from(max_bytes).unwrap_or(i64::MAX),
        max_message_size: i32::try_from(MAX_CHUNK_BYTES + HEADER_BYTES).unwrap_or(i32::MAX),
        duplicate_window: config.duplicate_window,
        ..in_memory(config.replicas)
    };
    Row { stream, consumers, work: true }
}

fn work_consumer(bus: &Bus, name: String, filter: String, max_ack_pending: i64) -> consumer::pull::Config {
    consumer::pull::Config {
        durable_name: Some(name),
        filter_subject: filter,
        ack_policy: consumer::AckPolicy::Explicit,
        ack_wait: bus.config().ack_wait,
        // The limit of attempts lives in Postgres; a limit here would strand messages.
        max_deliver: -1,
        max_ack_pending,
        memory_storage: true,
        ..Default::default()
    }
}

fn probe_row(bus: &Bus) -> Row {
    let config = bus.config();
    let stream = Config {
        name: format!("{}_PROBE", config.prefix.as_str().to_ascii_uppercase()),
        subjects: vec![subject::probe(&config.prefix)],
        retention: RetentionPolicy::Limits,
        discard: DiscardPolicy::Old,
        max_bytes: -1,
        max_messages: 1,
        max_message_size: i32::try_from(HEADER_BYTES).unwrap_or(i32::MAX),
        duplicate_window: config.duplicate_window,
        ..in_memory(config.replicas)
    };
    Row { stream, consumers: Vec::new(), work: false }
}

fn in_memory(replicas: usize) -> Config {
    Config {
        storage: StorageType::Memory,
        num_replicas: replicas,
        max_messages: -1,
        max_messages_per_subject: -1,
        max_consumers: -1,
        ..Default::default()
    }
}

/// A setting: its name, what was found, what is wanted.
pub(super) type Setting = (&'static str, String, String);

pub(super) fn differs((_, found, wanted): &Setting) -> bool {
    found != wanted
}

fn setting<T: fmt::Debug>(field: &'static str, found: T, wanted: T) -> Setting {
    (field, format!("{found:?}"), format!("{wanted:?}"))
}

/// The settings that a stream keeps for life.
pub(super) fn fixed(found: &Config, wanted: &Config) -> Vec<Setting> {
    vec![setting("storage", found.storage, wanted.storage), setting("retention", found.retention, wanted.retention)]
}

pub(super) fn changeable(found: &Config, wanted: &Config) -> Vec<Setting> {
    vec![
        setting("subjects", &found.subjects, &wanted.subjects),
        setting("discard", found.discard, wanted.discard),
        setting("max_bytes", found.max_bytes, wanted.max_bytes),
        setting("max_msgs", found.max_messages, wanted.max_messages),
        setting("max_msg_size", found.max_message_size, wanted.max_message_size),
        setting("num_replicas", found.num_replicas, wanted.num_replicas),
        setting("duplicate_window", found.duplicate_window, wanted.duplicate_window),
    ]
}

pub(super) fn consumer_settings(found: &consumer::Config, wanted: &consumer::pull::Config) -> Vec<Setting> {
    vec![
        setting("deliver_subject", &found.deliver_subject, &None),
        setting("filter_subject", &found.filter_subject, &wanted.filter_subject),
        setting("ack_policy", found.ack_policy, wanted.ack_policy),
        setting("ack_wait", found.ack_wait, wanted.ack_wait),
        setting("max_deliver", found.max_deliver, wanted.max_deliver),
        setting("max_ack_pending", found.max_ack_pending, wanted.max_ack_pending),
        setting("mem_storage", found.memory_storage, wanted.memory_storage),
    ]
}
