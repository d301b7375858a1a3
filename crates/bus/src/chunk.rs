//! What travels: chunks of jobs before rendering and of letters after it, as MessagePack with named
//! fields, so that an older reader passes over a field that a newer writer added.

use crate::{RenderSubject, SendSubject, WorkSubject};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use domain::{
    BatchId, CampaignId, ContentId, EnvelopeSender, Lane, Mailbox, MessageId, ShardCount, SiteId, Slot, TenantId,
    TraceContext,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// Most jobs in one chunk before rendering.
pub const MAX_JOBS: usize = 100;
/// Most variables and overrides in one chunk before rendering, in bytes; one job above it travels alone.
pub const MAX_JOB_BYTES: usize = 192 * 1024;
/// Most MIME in one chunk after rendering, in bytes. A mail above it stays a reference, which the sender
/// renders itself.
pub const MAX_MIME_BYTES: usize = 256 * 1024;
/// Most letters in one chunk, however small: what one claim takes.
pub const MAX_LETTERS: usize = 100;
/// The largest message of the streams: one chunk and the names of its fields. Below the server's default
/// `max_payload` of 1 MiB.
pub const MAX_CHUNK_BYTES: usize = 1000 * 1024;
/// What one job takes beside its variables, at most, when chunks are cut.
const JOB_OVERHEAD: usize = 1024;

/// One release of one message. Its `Debug` shows ids and no variables: they are a person's data.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// The message.
    pub message: MessageId,
    /// Its release number.
    pub release: u32,
    /// Attempts made before this release.
    pub attempt: u16,
    /// The broker's life under which it was released.
    pub bus_epoch: i64,
    /// The queue it was released from.
    pub queue: i64,
    /// Whose it is.
    pub tenant: TenantId,
    /// The campaign, if it belongs to one.
    pub campaign: Option<CampaignId>,
    /// The accepted call it came with.
    pub batch: BatchId,
    /// What to render.
    pub content: ContentId,
    /// The envelope recipient.
    pub recipient: Mailbox,
    /// The destination site, as far as it is known.
    pub site: SiteId,
    /// How urgent.
    pub lane: Lane,
    /// Where it travels.
    pub slot: Slot,
    /// What differs from recipient to recipient: a JSON object, or empty.
    pub variables: Bytes,
    /// What else differs: `domain::Overrides` as JSON, mostly empty.
    #[serde(default, skip_serializing_if = "Bytes::is_empty")]
    pub overrides: Bytes,
    /// When it is no longer worth sending.
    #[serde(with = "chrono::serde::ts_microseconds")]
    pub expires_at: DateTime<Utc>,
    /// Whether it was released again after a loss and therefore travels in a chunk of its own.
    #[serde(default)]
    pub alone: bool,
    /// The step of its trace that it goes on from, if somebody traces it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<TraceContext>,
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Job")
            .field("message", &self.message)
            .field("release", &self.release)
            .field("attempt", &self.attempt)
            .field("lane", &self.lane)
            .field("slot", &self.slot)
            .field("variables_bytes", &self.variables.len())
            .finish_non_exhaustive()
    }
}

/// Jobs of one lane and slot, on their way to a renderer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RenderChunk {
    /// The jobs, at most [`MAX_JOBS`].
    pub items: Vec<Job>,
}

/// One mail on its way to the owner of its shard. Its `Debug` shows no part of the mail.
#[derive(Clone, PartialEq, Serialize)]
pub struct Letter {
    /// What it was rendered from; without its variables when `mime` is there.
    pub job: Job,
    /// MAIL FROM.
    pub sender: EnvelopeSender,
    /// The finished mail; `None` when it is above [`MAX_MIME_BYTES`] and the sender renders it.
    pub mime: Option<Bytes>,
    /// Whether the transaction needs SMTPUTF8.
    pub smtputf8: bool,
    /// Whether it is only tried: it goes to nobody.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub sandbox: bool,
}

impl std::fmt::Debug for Letter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Letter")
            .field("job", &self.job)
            .field("mime_bytes", &self.mime.as_ref().map(Bytes::len))
            .finish_non_exhaustive()
    }
}

/// Letters of one lane and slot, on their way to the owner of their shard.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SendChunk {
    /// The letters: up to [`MAX_LETTERS`] and [`MAX_MIME_BYTES`].
    pub items: Vec<Letter>,
}

/// A body that cannot be read as the payload its headers promise.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Not MessagePack, or not of this shape.
    #[error("the body is not a chunk of this kind")]
    Body(#[source] rmp_serde::decode::Error),
    /// Written by a newer release that changed the meaning of fields.
    #[error("the body has version {found}, this release reads up to {known}")]
    Newer {
        /// The version in the header.
        found: u16,
        /// The newest version known here.
        known: u16,
    },
    /// The kind header names something else.
    #[error("the body is of another kind")]
    Kind,
    /// The subject does not parse.
    #[error("the subject is not of this family")]
    Subject(#[from] crate::SubjectError),
    /// A chunk without members.
    #[error("the chunk is empty")]
    Empty,
}

/// What travels on one family of subjects.
pub trait Payload: Serialize + Sized + Send + Sync + 'static {
    /// The family.
    type Subject: WorkSubject;
    /// The kind header.
    const KIND: &'static str;
    /// The version header; raised when a field changes its meaning, not when one is added.
    const VERSION: u16;

    /// Reads a body of this version or an older one, sharing its memory where that saves a copy.
    ///
    /// # Errors
    /// When the body is of another shape, or has no members.
    fn decode(version: u16, body: &Bytes) -> Result<Self, DecodeError>;

    /// The jobs of the members, in order.
    fn jobs(&self) -> impl Iterator<Item = &Job>;

    /// The key by which the broker recognises a repeated publish: made from the members and their release
    /// numbers, so the same work has the same key wherever it is published.
    fn dedup_key(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(Self::KIND.as_bytes());
        for job in self.jobs() {
            hash.update(job.message.as_uuid().as_bytes());
            hash.update(job.release.to_be_bytes());
            hash.update(job.bus_epoch.to_be_bytes());
        }
        let digest = hash.finalize();
        digest[..16].iter().fold(String::with_capacity(32), |mut text, byte| {
            for nibble in [byte >> 4, byte & 15] {
                text.push(char::from_digit(nibble.into(), 16).unwrap_or('0'));
            }
            text
        })
    }

    /// The body of this payload.
    ///
    /// # Errors
    /// When a member cannot be written, which no value of these types does.
    fn encode(&self) -> Result<Bytes, rmp_serde::encode::Error> {
        // The bodies dominate; starting near the final size saves copying them while the buffer grows.
        let mut buffer = Vec::with_capacity(self.size_hint());
        rmp_serde::encode::write_named(&mut buffer, self)?;
        Ok(buffer.into())
    }

    /// About how many bytes the body will have.
    fn size_hint(&self) -> usize;
}

impl Payload for RenderChunk {
    type Subject = RenderSubject;
    const KIND: &'static str = "render";
    const VERSION: u16 = 1;

    fn decode(_version: u16, body: &Bytes) -> Result<Self, DecodeError> {
        let chunk: Self = read(body)?;
        if chunk.items.is_empty() { Err(DecodeError::Empty) } else { Ok(chunk) }
    }

    fn jobs(&self) -> impl Iterator<Item = &Job> {
        self.items.iter()
    }

    fn size_hint(&self) -> usize {
        self.items.iter().map(|job| JOB_OVERHEAD / 2 + job.weight()).sum()
    }
}

impl Payload for SendChunk {
    type Subject = SendSubject;
    const KIND: &'static str = "send";
    const VERSION: u16 = 1;

    fn decode(_version: u16, body: &Bytes) -> Result<Self, DecodeError> {
        /// A letter whose mail still lies in the body of the chunk.
        #[derive(Deserialize)]
        struct Borrowed<'a> {
            job: Job,
            sender: EnvelopeSender,
            #[serde(borrow)]
            mime: Option<&'a serde_bytes::Bytes>,
            smtputf8: bool,
            #[serde(default)]
            sandbox: bool,
        }

        #[derive(Deserialize)]
        struct Chunk<'a> {
            #[serde(borrow)]
            items: Vec<Borrowed<'a>>,
        }

        let chunk: Chunk<'_> = rmp_serde::from_slice(body).map_err(DecodeError::Body)?;
        if chunk.items.is_empty() {
            return Err(DecodeError::Empty);
        }
        let own = |Borrowed { job, sender, mime, smtputf8, sandbox }: Borrowed<'_>| Letter {
            job,
            sender,
            mime: mime.map(|mime| body.slice_ref(mime)),
            smtputf8,
            sandbox,
        };
        Ok(Self { items: chunk.items.into_iter().map(own).collect() })
    }

    fn jobs(&self) -> impl Iterator<Item = &Job> {
        self.items.iter().map(|letter| &letter.job)
    }

    fn size_hint(&self) -> usize {
        let size = |letter: &Letter| JOB_OVERHEAD / 2 + letter.weight();
        self.items.iter().map(size).sum()
    }
}

impl Job {
    /// What differs from recipient to recipient, in bytes.
    fn weight(&self) -> usize {
        self.variables.len() + self.overrides.len()
    }
}

impl Letter {
    /// What it adds to a chunk, in bytes, beside the names of its fields.
    fn weight(&self) -> usize {
        self.mime.as_ref().map_or(0, Bytes::len) + self.job.weight()
    }
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, DecodeError> {
    rmp_serde::from_slice(body).map_err(DecodeError::Body)
}

/// Cuts jobs into chunks: by lane and slot, at most [`MAX_JOBS`] and about [`MAX_JOB_BYTES`] of variables
/// and overrides each, and those that travel alone apart. The order within a slot is kept; the urgent lane comes first.
pub fn cut_jobs(jobs: Vec<Job>, shards: ShardCount) -> Vec<(RenderSubject, RenderChunk)> {
    let jobs = by_slot(jobs, |job| (job.lane, job.slot));
    cut(jobs, MAX_JOBS, MAX_JOB_BYTES, Job::weight, |job| job.alone)
        .map(|((lane, slot), items)| (RenderSubject { lane, shard: slot.shard(shards), slot }, RenderChunk { items }))
        .collect()
}

/// Cuts letters into chunks: by lane and slot, at most [`MAX_LETTERS`] and [`MAX_MIME_BYTES`] each, and
/// those that travel alone apart. The same letters are always cut in the same way, so a repeated
/// rendering repeats the keys of its publishes.
pub fn cut_letters(letters: Vec<Letter>, shards: ShardCount) -> Vec<(SendSubject, SendChunk)> {
    let letters = by_slot(letters, |letter| (letter.job.lane, letter.job.slot));
    cut(letters, MAX_LETTERS, MAX_MIME_BYTES, Letter::weight, |letter| letter.job.alone)
        .map(|((lane, slot), items)| (SendSubject { lane, shard: slot.shard(shards), slot }, SendChunk { items }))
        .collect()
}

type Slots<T> = BTreeMap<(Lane, Slot), Vec<T>>;

fn by_slot<T>(items: Vec<T>, place: impl Fn(&T) -> (Lane, Slot)) -> Slots<T> {
    let mut slots = Slots::new();
    for item in items {
        slots.entry(place(&item)).or_insert_with(Vec::new).push(item);
    }
    slots
}

fn cut<T>(
    slots: Slots<T>,
    most: usize,
    most_bytes: usize,
    weight: impl Fn(&T) -> usize,
    alone: impl Fn(&T) -> bool,
) -> impl Iterator<Item = ((Lane, Slot), Vec<T>)> {
    slots.into_iter().flat_map(move |(place, items)| {
        let mut chunks: Vec<Vec<T>> = Vec::new();
        // The chunk that still takes members, and its weight.
        let mut open: Option<(usize, usize)> = None;
        for item in items {
            let bytes = weight(&item);
            match open {
                _ if alone(&item) => chunks.push(vec![item]),
                Some((at, sum)) if chunks[at].len() < most && sum + bytes <= most_bytes => {
                    chunks[at].push(item);
                    open = Some((at, sum + bytes));
                }
                _ => {
                    chunks.push(vec![item]);
                    open = Some((chunks.len() - 1, bytes));
                }
            }
        }
        chunks.into_iter().map(move |items| (place, items))
    })
}

#[cfg(test)]
#[path = "chunk_tests.rs"]
mod tests;
