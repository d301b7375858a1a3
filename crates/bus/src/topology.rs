//! Streams and consumers: one table, applied by one command and by the dispatcher's lease holder, read
//! back and compared. Nobody else creates any.
//!
//! | stream | subjects | holds |
//! |---|---|---|
//! | `<PREFIX>_RENDER_T`, `_RENDER_B` | `<prefix>.render.<lane>.>` | jobs, for the consumer `render` |
//! | `<PREFIX>_SEND_T`, `_SEND_B` | `<prefix>.send.<lane>.>` | letters, for one consumer `shard-<n>` a shard |
//! | `<PREFIX>_PROBE` | `<prefix>.probe` | the last probe |
//!
//! All live in memory. The job streams are work queues that refuse what does not fit. A server drops
//! settings that it does not know without a word, so everything that is asked for is compared with what
//! is answered.

mod table;

pub(crate) use table::RENDER_CONSUMER;
pub use table::{shard_consumer, stream_name};

use crate::Bus;
use async_nats::jetstream::{
    self, ErrorCode,
    consumer::{self, IntoConsumerConfig},
    context::RequestError,
    response::Response,
    stream::{Config, Info},
};
use domain::ShardCount;
use futures_util::{StreamExt, TryStreamExt, stream};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;
use std::{collections::BTreeSet, fmt};
use table::{Row, changeable, consumer_settings, differs, fixed, table};

/// Questions to the broker under way at the same time.
const CONCURRENCY: usize = 8;
/// Most consumer names that the broker lists at once; far above any number of shards.
const MAX_CONSUMERS_LISTED: usize = 1_024;

/// Why streams and consumers cannot be read, made, or are not as they must be.
#[derive(Debug, thiserror::Error)]
pub enum TopologyError {
    /// A stream is of another kind and cannot be changed in place. Delete it when it is idle, or choose
    /// another prefix.
    #[error("{object} has {field} {found}, not {wanted}, and cannot be changed; delete it or choose another prefix")]
    Drift {
        /// The stream or consumer.
        object: String,
        /// The setting.
        field: &'static str,
        /// What it is.
        found: String,
        /// What it must be.
        wanted: String,
    },
    /// The broker answered with other settings than were asked for.
    #[error("the broker made {object} with {field} {found} instead of {wanted}; is it too old?")]
    Ignored {
        /// The stream or consumer.
        object: String,
        /// The setting.
        field: &'static str,
        /// What it is.
        found: String,
        /// What was asked for.
        wanted: String,
    },
    /// The broker refused.
    #[error("the broker refused to set up {object}")]
    Refused {
        /// The stream or consumer.
        object: String,
        /// Its words.
        source: jetstream::Error,
    },
    /// No answer.
    #[error("cannot ask the broker about {object}")]
    Ask {
        /// The stream or consumer.
        object: String,
        /// What went wrong.
        source: RequestError,
    },
}

/// What [`apply`] did. Nothing, when all was in place.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Applied {
    /// Streams that were missing.
    pub created_streams: Vec<String>,
    /// Streams whose settings were brought in line.
    pub updated_streams: Vec<String>,
    /// Consumers that were missing, as `stream/consumer`.
    pub created_consumers: Vec<String>,
    /// Consumers whose settings were brought in line.
    pub updated_consumers: Vec<String>,
    /// Consumers of shards that no longer exist, removed with what they held.
    pub removed_consumers: Vec<String>,
}

impl Applied {
    /// Whether all was in place.
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

/// Which streams these are: their names and when each was created. A stream that was lost and made again
/// is another one, and with it everything it held is gone; so is this value. Compared as a whole, never by
/// time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity(String);

impl Identity {
    /// An identity that was kept as text, in Postgres for instance.
    pub fn from_stored(text: String) -> Self {
        Self(text)
    }

    /// The identity as text, under 500 octets.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What [`look`] saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sight {
    /// Which streams there are; `None` while one is missing.
    pub identity: Option<Identity>,
    /// Streams that are missing, or lack a consumer. Not empty: [`apply`] is due.
    pub missing: Vec<String>,
    /// Chunks that the job streams hold now.
    pub chunks: u64,
    /// Bytes that the job streams hold now.
    pub bytes: u64,
}

/// Makes what is missing, brings in line what may be changed, and compares the rest. Safe to repeat, and
/// from several places at once.
///
/// # Errors
/// When the broker does not answer or refuses, or something of another kind has the name.
pub async fn apply(bus: &Bus, shards: ShardCount) -> Result<Applied, TopologyError> {
    let mut applied = Applied::default();
    for row in table(bus, shards) {
        let name = row.stream.name.clone();
        let info = apply_stream(bus, &row.stream, &mut applied).await?;
        let there = if info.state.consumer_count == 0 { BTreeSet::new() } else { consumer_names(bus, &name).await? };
        remove_old_shards(bus, &row, &there, &mut applied).await?;
        let applies = row.consumers.iter().map(|consumer| apply_consumer(bus, &name, consumer, &there));
        let applies: Vec<_> = applies.collect();
        let changes: Vec<_> = stream::iter(applies).buffered(CONCURRENCY).try_collect().await?;
        for (change, consumer) in changes.into_iter().zip(&row.consumers) {
            let object = format!("{name}/{}", consumer.durable_name.as_deref().unwrap_or_default());
            match change {
                Change::Created => applied.created_consumers.push(object),
                Change::Updated => applied.updated_consumers.push(object),
                Change::None => {}
            }
        }
    }
    Ok(applied)
}

/// Looks at every stream: which they are, what is missing, how full they are. Five small questions; fit to
/// be asked each second.
///
/// # Errors
/// When the broker does not answer.
pub async fn look(bus: &Bus, shards: ShardCount) -> Result<Sight, TopologyError> {
    let rows = table(bus, shards);
    let asks: Vec<_> = rows.iter().map(|row| stream_info(bus, &row.stream.name)).collect();
    let infos: Vec<_> = stream::iter(asks).buffered(CONCURRENCY).try_collect().await?;
    let mut sight = Sight { identity: None, missing: Vec::new(), chunks: 0, bytes: 0 };
    let mut created = Vec::with_capacity(rows.len());
    for (row, info) in rows.iter().zip(infos) {
        let Some(info) = info else {
            sight.missing.push(row.stream.name.clone());
            continue;
        };
        if info.state.consumer_count < row.consumers.len() {
            sight.missing.push(row.stream.name.clone());
        }
        if row.work {
            sight.chunks += info.state.messages;
            sight.bytes += info.state.bytes;
            created.push(format!("{}@{}", row.stream.name, info.created.unix_timestamp_nanos()));
        }
    }
    if created.len() == rows.iter().filter(|row| row.work).count() {
        sight.identity = Some(Identity(created.join(" ")));
    }
    Ok(sight)
}

/// Deletes every stream of this prefix; for tests and for the command that takes a local fleet down.
///
/// # Errors
/// When the broker does not answer or refuses.
pub async fn wipe(bus: &Bus) -> Result<(), TopologyError> {
    for row in table(bus, ShardCount::default()) {
        let name = &row.stream.name;
        let result: Result<serde_json::Value, _> = ask(bus, name, format!("STREAM.DELETE.{name}"), &json!({})).await;
        ignore_missing(result)?;
    }
    Ok(())
}

enum Change {
    None,
    Created,
    Updated,
}

async fn apply_stream(bus: &Bus, wanted: &Config, applied: &mut Applied) -> Result<Info, TopologyError> {
    let name = &wanted.name;
    let info: Info = match stream_info(bus, name).await? {
        None => {
            let info = ask(bus, name, format!("STREAM.CREATE.{name}"), wanted).await?;
            applied.created_streams.push(name.clone());
            info
        }
        Some(info) => {
            if let Some((field, found, wanted)) = fixed(&info.config, wanted).into_iter().find(differs) {
                return Err(TopologyError::Drift { object: name.clone(), field, found, wanted });
            }
            if !changeable(&info.config, wanted).iter().any(differs) {
                return Ok(info);
            }
            let info = ask(bus, name, format!("STREAM.UPDATE.{name}"), wanted).await?;
            applied.updated_streams.push(name.clone());
            info
        }
    };
    let mut settings = fixed(&info.config, wanted).into_iter().chain(changeable(&info.config, wanted));
    match settings.find(differs) {
        Some((field, found, wanted)) => Err(TopologyError::Ignored { object: name.clone(), field, found, wanted }),
        None => Ok(info),
    }
}

async fn apply_consumer(
    bus: &Bus,
    stream: &str,
    wanted: &consumer::pull::Config,
    there: &BTreeSet<String>,
) -> Result<Change, TopologyError> {
    let name = wanted.durable_name.as_deref().unwrap_or_default();
    let object = format!("{stream}/{name}");
    let exists = there.contains(name);
    if exists {
        let info: Result<consumer::Info, _> =
            ask(bus, &object, format!("CONSUMER.INFO.{stream}.{name}"), &json!({})).await;
        if let Some(info) = ignore_missing(info)?
            && !consumer_settings(&info.config, wanted).iter().any(differs)
        {
            return Ok(Change::None);
        }
    }
    // Creating one that exists updates it, on every server, as long as no action is named.
    let request = json!({ "stream_name": stream, "config": wanted.clone().into_consumer_config() });
    let subject = format!("CONSUMER.DURABLE.CREATE.{stream}.{name}");
    let info: consumer::Info = ask(bus, &object, subject, &request).await?;
    match consumer_settings(&info.config, wanted).into_iter().find(differs) {
        Some((field, found, wanted)) => Err(TopologyError::Ignored { object, field, found, wanted }),
        None if exists => Ok(Change::Updated),
        None => Ok(Change::Created),
    }
}

/// Removes the consumers of shards beyond the number of shards. What they held would stay in the work
/// queue with nobody to take it, so it is purged; repair releases it again under its new shard.
async fn remove_old_shards(
    bus: &Bus,
    row: &Row,
    there: &BTreeSet<String>,
    applied: &mut Applied,
) -> Result<(), TopologyError> {
    let stream = &row.stream.name;
    let wanted: BTreeSet<&str> = row.consumers.iter().filter_map(|consumer| consumer.durable_name.as_deref()).collect();
    for name in there.iter().filter(|name| !wanted.contains(name.as_str())) {
        let Some(shard) = name.strip_prefix("shard-") else {
            tracing::warn!(stream, consumer = name, "left a consumer that is not ours");
            continue;
        };
        let object = format!("{stream}/{name}");
        let gone: Result<serde_json::Value, _> =
            ask(bus, &object, format!("CONSUMER.DELETE.{stream}.{name}"), &json!({})).await;
        ignore_missing(gone)?;
        if let Some(subjects) = row.stream.subjects.first().and_then(|subjects| subjects.strip_suffix(".>")) {
            let filter = json!({ "filter": format!("{subjects}.{shard}.>") });
            let _purged: serde_json::Value = ask(bus, &object, format!("STREAM.PURGE.{stream}"), &filter).await?;
        }
        applied.removed_consumers.push(object);
    }
    Ok(())
}

async fn stream_info(bus: &Bus, name: &str) -> Result<Option<Info>, TopologyError> {
    ignore_missing(ask(bus, name, format!("STREAM.INFO.{name}"), &json!({})).await)
}

async fn consumer_names(bus: &Bus, stream: &str) -> Result<BTreeSet<String>, TopologyError> {
    #[derive(serde::Deserialize)]
    struct Page {
        consumers: Option<Vec<String>>,
        total: usize,
    }
    let page: Page = ask(bus, stream, format!("CONSUMER.NAMES.{stream}"), &json!({ "offset": 0 })).await?;
    let names: BTreeSet<_> = page.consumers.unwrap_or_default().into_iter().collect();
    if page.total > names.len() {
        tracing::warn!(stream, total = page.total, most = MAX_CONSUMERS_LISTED, "did not list every consumer");
    }
    Ok(names)
}

fn ignore_missing<T>(result: Result<T, TopologyError>) -> Result<Option<T>, TopologyError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(TopologyError::Refused { source, .. })
            if [ErrorCode::STREAM_NOT_FOUND, ErrorCode::CONSUMER_NOT_FOUND].contains(&source.error_code()) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Asks the broker's API. Used instead of the client's own calls for their requests and answers say no
/// more than is meant here, and every refusal keeps its code.
async fn ask<T: DeserializeOwned>(
    bus: &Bus,
    object: &str,
    subject: String,
    request: &impl Serialize,
) -> Result<T, TopologyError> {
    let answer = bus.inner.api.request(subject, request).await;
    match answer.map_err(|source| TopologyError::Ask { object: object.to_owned(), source })? {
        Response::Ok(value) => Ok(value),
        Response::Err { error } => Err(TopologyError::Refused { object: object.to_owned(), source: error }),
    }
}
