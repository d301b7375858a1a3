//! Released rows become chunks for the renderers; what the broker does not take goes back to rest.

use crate::{metrics, tenure::Tenure};
use bus::{Job, PublishError, RenderChunk, RenderSubject, cut_jobs};
use chrono::TimeDelta;
use domain::{ContentId, Lane, Slot, TraceContext, fact::FactDetail};
use service::{
    Chain,
    trace::{self, Origin},
};
use std::collections::{BTreeMap, HashMap, HashSet};
use store::{Parked, Released};

/// How many sizes of contents are remembered.
const SIZES_LIMIT: usize = 20_000;
/// Octets that headers and the like add to a mail.
const MAIL_OVERHEAD: u64 = 1_024;

/// A message that is older than this goes on in a trace of its own.
const LONG_WAIT: TimeDelta = TimeDelta::minutes(1);

pub(crate) struct Publisher<'a> {
    tenure: &'a Tenure<'a>,
    sizes: HashMap<ContentId, u64>,
}

/// The released rows of one statement, as chunks.
pub(crate) struct Batch {
    /// Of the messages that somebody traces; each ends when all are published.
    spans: Vec<trace::Span>,
    chunks: Vec<(RenderSubject, RenderChunk)>,
    places: Vec<Place>,
}

/// What a batch holds for one slot.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    pub(crate) lane: Lane,
    pub(crate) slot: Slot,
    pub(crate) count: u32,
    /// About how large the finished mails are together.
    pub(crate) octets: u64,
}

/// What became of a chunk that was not plainly taken.
pub(crate) struct Fate {
    pub(crate) lane: Lane,
    pub(crate) slot: Slot,
    /// Rows of it that rest again.
    pub(crate) given_back: u32,
    /// Whether the broker had no room.
    pub(crate) is_full: bool,
    /// Whether the broker seems not to be there.
    pub(crate) bus_is_suspect: bool,
}

impl Batch {
    pub(crate) fn places(&self) -> impl Iterator<Item = &Place> {
        self.places.iter()
    }
}

impl<'a> Publisher<'a> {
    pub(crate) fn new(tenure: &'a Tenure<'a>) -> Self {
        Self { tenure, sizes: HashMap::new() }
    }

    /// Cuts rows into chunks. A row that was lost before travels alone, so that it harms no other.
    pub(crate) async fn prepare(&mut self, rows: Vec<Released>) -> Batch {
        self.learn_sizes(&rows).await;
        let mut places: BTreeMap<(Lane, Slot), Place> = BTreeMap::new();
        let mut jobs = Vec::with_capacity(rows.len());
        let mut spans = Vec::new();
        for row in rows {
            let content = self.sizes.get(&row.content).copied().unwrap_or(self.tenure.config.assumed_mail_size);
            let place = places.entry((row.lane, row.slot)).or_insert(Place {
                lane: row.lane,
                slot: row.slot,
                count: 0,
                octets: 0,
            });
            place.count += 1;
            place.octets += content + row.variables.len() as u64 + MAIL_OVERHEAD;
            // So many large ones would have to be in the renderer's memory at once.
            let is_heavy = content > bus::MAX_MIME_BYTES as u64;
            let mut job = job(row, is_heavy);
            if let Some(place) = job.trace {
                let span = release_span(&job, place);
                job.trace = span.place().or(job.trace);
                spans.push(span);
            }
            jobs.push(job);
        }
        Batch { spans, chunks: cut_jobs(jobs, self.tenure.shards), places: places.into_values().collect() }
    }

    /// Contents are immutable, so each is asked for once. Without an answer the assumed size does.
    async fn learn_sizes(&mut self, rows: &[Released]) {
        let unknown: HashSet<ContentId> =
            rows.iter().map(|row| row.content).filter(|content| !self.sizes.contains_key(content)).collect();
        if unknown.is_empty() {
            return;
        }
        if self.sizes.len() > SIZES_LIMIT {
            self.sizes.clear();
        }
        let unknown: Vec<ContentId> = unknown.into_iter().collect();
        match self.tenure.store.content_sizes(&unknown).await {
            Ok(sizes) => self.sizes.extend(sizes),
            Err(error) => tracing::debug!(%error, "cannot learn the sizes of contents"),
        }
    }

    /// Publishes a batch; the rows of chunks that were not taken rest again. Returns what became of those.
    pub(crate) async fn publish(&self, batch: Batch) -> Vec<Fate> {
        let tenure = self.tenure;
        failpoint::hit!("dispatcher.publish.before");
        let results = tenure.bus.publish_all::<RenderChunk>(&batch.chunks, tenure.config.publishes_in_flight).await;
        failpoint::hit!("dispatcher.publish.after");
        drop(batch.spans);
        let mut fates = Vec::new();
        for ((subject, chunk), result) in batch.chunks.iter().zip(results) {
            if let Err(error) = result {
                fates.push(self.settle(*subject, chunk, &error).await);
            }
        }
        fates
    }

    /// Does what is to be done about a chunk that was not plainly taken.
    async fn settle(&self, subject: RenderSubject, chunk: &RenderChunk, error: &PublishError) -> Fate {
        let RenderSubject { lane, slot, .. } = subject;
        let count = chunk.items.len();
        let metrics = self.tenure.metrics;
        let mut fate = Fate { lane, slot, given_back: 0, is_full: false, bus_is_suspect: false };
        match error {
            PublishError::Refused(_) => fate.is_full = true,
            PublishError::NoStream | PublishError::Unreachable | PublishError::Timeout => fate.bus_is_suspect = true,
            PublishError::Failed(_) | PublishError::TooLarge { .. } | PublishError::Encode(_) => {}
        }
        tracing::debug!(%lane, %slot, messages = count, error = %Chain(error), "a chunk was not taken");
        if error.is_unknown() {
            metrics.unknown_publish.get_or_create(&metrics::lane(lane)).inc_by(count as u64);
        } else if error.is_permanent() {
            self.give_up(chunk, error).await;
        } else {
            failpoint::hit!("dispatcher.park.before");
            match self.tenure.store.park(&self.parked(chunk)).await {
                Ok(parked) => {
                    failpoint::hit!("dispatcher.park.after");
                    fate.given_back = u32::try_from(parked).unwrap_or(u32::MAX);
                    metrics.given_back.get_or_create(&metrics::lane(lane)).inc_by(parked as u64);
                }
                Err(error) => tracing::warn!(messages = count, %error, "cannot give messages back; they are repaired"),
            }
        }
        fate
    }

    fn parked(&self, chunk: &RenderChunk) -> Vec<Parked> {
        let delay = self.tenure.config.refused_delay;
        let parked = |job: &Job| Parked { message: job.message, release: job.release, delay, queue: None, site: None };
        chunk.items.iter().map(parked).collect()
    }

    /// A job that can never travel ends as failed. One of several is not known to be the cause: they are repaired,
    /// and travel alone the next time.
    async fn give_up(&self, chunk: &RenderChunk, error: &PublishError) {
        tracing::error!(messages = chunk.items.len(), error = %Chain(error), "a chunk can never travel");
        if let [job] = chunk.items.as_slice() {
            let detail =
                FactDetail { text: Some("too large for the way to the renderer".to_owned()), ..FactDetail::default() };
            match self.tenure.store.fail(job.message, job.release, &detail).await {
                Ok(_) => {
                    self.tenure.metrics.poisoned.inc();
                }
                Err(error) => tracing::warn!(%error, "cannot close a message; it is repaired"),
            }
        }
    }
}

/// What has waited goes on in a trace of its own.
fn release_span(job: &Job, place: TraceContext) -> trace::Span {
    let age = service::clock::now() - job.message.created_at();
    let has_waited = job.release > 1 || age > LONG_WAIT;
    let origin = if has_waited { Origin::After(place) } else { Origin::Child(place) };
    let mut span = trace::step("release", trace::Kind::Producer, Some(origin));
    span.note(|| {
        vec![
            ("messaging.system", "nats".into()),
            ("messaging.message.id", job.message.to_string().into()),
            ("mailfleet.release", i64::from(job.release).into()),
        ]
    });
    span
}

fn job(row: Released, is_heavy: bool) -> Job {
    Job {
        message: row.message,
        release: row.release,
        attempt: row.attempt,
        bus_epoch: row.bus_epoch,
        queue: row.queue,
        tenant: row.tenant,
        campaign: row.campaign,
        batch: row.batch,
        content: row.content,
        recipient: row.recipient,
        site: row.site,
        lane: row.lane,
        slot: row.slot,
        variables: row.variables.into(),
        overrides: row.overrides.map(Into::into).unwrap_or_default(),
        expires_at: row.expires_at,
        alone: row.losses > 0 || is_heavy,
        trace: row.trace,
    }
}
