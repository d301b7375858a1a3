//! Renders and packs the members of one chunk. Computes only.

use crate::desk::Plates;
use bus::{Job, Letter, MAX_MIME_BYTES, SendChunk, SendSubject, cut_letters};
use bytes::Bytes;
use content::{Envelope, Rendered};
use domain::{MessageId, ShardCount, fact::FactDetail};
use press::{PressError, Verdict};
use prometheus_client::metrics::histogram::Histogram;
use service::trace;
use std::{collections::BTreeMap, time::Instant};
use store::Failed;

/// One release of one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reference {
    pub(crate) message: MessageId,
    pub(crate) release: u32,
}

impl Reference {
    pub(crate) fn of(job: &Job) -> Self {
        Self { message: job.message, release: job.release }
    }

    pub(crate) fn failed(self, reason: FactDetail) -> Failed {
        Failed { message: self.message, release: self.release, reason }
    }
}

/// What a chunk was made into.
pub(crate) struct Made {
    /// Packed by lane and slot.
    pub(crate) chunks: Vec<(SendSubject, SendChunk)>,
    /// How many mails they hold.
    pub(crate) rendered: usize,
    /// How many of those are references.
    pub(crate) references: usize,
    /// What can never be rendered, by class.
    pub(crate) failed: BTreeMap<&'static str, Vec<Failed>>,
    /// What cannot be rendered now, by class.
    pub(crate) parked: BTreeMap<&'static str, Vec<Reference>>,
}

/// Renders every job; the same jobs and plates make the same chunks.
pub(crate) fn make(jobs: Vec<Job>, plates: &Plates, shards: ShardCount, seconds: &Histogram) -> Made {
    let mut letters = Vec::with_capacity(jobs.len());
    let mut references = 0;
    let mut failed: BTreeMap<_, Vec<_>> = BTreeMap::new();
    let mut parked: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for mut job in jobs {
        let mut span = trace::step("render", trace::Kind::Consumer, job.trace.map(trace::Origin::Child));
        let reference = Reference::of(&job);
        let notes = || vec![("messaging.message.id", reference.message.to_string().into())];
        span.note(notes);
        job.trace = span.place().or(job.trace);
        let begun = Instant::now();
        let mut fault = |error: &PressError| {
            span.fail(error.class(), notes);
            match error.verdict() {
                Verdict::Fail => failed.entry(error.class()).or_default().push(reference.failed(error.reason())),
                Verdict::Park | Verdict::Hold => parked.entry(error.class()).or_default().push(reference),
            }
        };
        match plates.get(&(job.tenant, job.content)).expect("every content of the chunk has been looked for") {
            Ok(plate) => {
                // Its sender renders it; that it can be rendered is seen there.
                let letter = if let Some(envelope) = plate.envelope_above(&job, MAX_MIME_BYTES) {
                    letter(job, envelope, None)
                } else {
                    match plate.render(&job) {
                        Ok(Rendered { mime, envelope, .. }) => letter(job, envelope, Some(mime)),
                        Err(error) => {
                            fault(&error);
                            continue;
                        }
                    }
                };
                seconds.observe(begun.elapsed().as_secs_f64());
                references += usize::from(letter.mime.is_none());
                letters.push(letter);
            }
            Err(error) => fault(error),
        }
    }
    let rendered = letters.len();
    Made { chunks: cut_letters(letters, shards), rendered, references, failed, parked }
}

/// What travels on: the finished mail, which needs its variables no more, or the job for its sender to render.
fn letter(mut job: Job, envelope: Envelope, mime: Option<Bytes>) -> Letter {
    let Envelope { sender, smtputf8, sandbox } = envelope;
    let mime = mime.filter(|mime| mime.len() <= MAX_MIME_BYTES);
    if mime.is_some() {
        job.variables = Bytes::new();
        job.overrides = Bytes::new();
    }
    Letter { job, sender, mime, smtputf8, sandbox }
}
