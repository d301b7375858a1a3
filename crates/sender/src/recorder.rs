//! Outcomes on their way to Postgres, in batches.
//!
//! An outcome is kept and written again until Postgres has it: a message that was delivered and not recorded would be
//! sent again. The statement is a compare-and-set, so writing it twice does no harm.

use crate::{Office, attempt::Done, config::RecordConfig, journal::Ticket, tenure::Tenure};
use domain::fact::FactDetail;
use service::trace;
use std::{sync::Arc, time::Duration};
use store::{Claim, Outcome, Recorded, StoreError};
use tokio::{sync::mpsc, time::Instant};

/// Outcomes that may wait for Postgres before connections wait too.
const QUEUE: usize = 20_000;
/// Longest pause between two tries to write.
const MAX_PAUSE: Duration = Duration::from_secs(2);

/// Where outcomes are handed in.
pub(crate) struct Recorder {
    sender: std::sync::Mutex<Option<mpsc::Sender<Entry>>>,
}

/// What writes them.
pub(crate) struct Recording {
    receiver: mpsc::Receiver<Entry>,
    batch: usize,
    linger: Duration,
}

struct Entry {
    outcome: Outcome,
    ticket: Option<Ticket>,
    tenure: Arc<Tenure>,
    /// Ends when it is written.
    span: trace::Span,
}

pub(crate) fn recorder(config: &RecordConfig) -> (Recorder, Recording) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    let batch = usize::try_from(config.batch.get()).unwrap_or(usize::MAX);
    (Recorder { sender: Some(sender).into() }, Recording { receiver, batch, linger: config.linger })
}

impl Recorder {
    /// Hands an outcome in; waits when Postgres is far behind.
    pub(crate) async fn submit(&self, done: Done, tenure: &Arc<Tenure>) {
        let sender = self.sender.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        match sender {
            Some(sender) if sender.send(Entry::new(done, tenure)).await.is_ok() => {}
            _ => tracing::error!("an outcome came after the recorder had closed; its message ends in doubt"),
        }
    }

    /// Nothing more will be handed in: what is there is written, then [`Recording::run`] returns.
    pub(crate) fn close(&self) {
        self.sender.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
    }
}

impl Entry {
    fn new(done: Done, tenure: &Arc<Tenure>) -> Self {
        let span = trace::step("record", trace::Kind::Internal, done.trace.map(trace::Origin::Child));
        Self { outcome: done.outcome, ticket: done.ticket, tenure: Arc::clone(tenure), span }
    }
}

impl Recording {
    /// Writes until the recorder is closed and nothing is left.
    pub(crate) async fn run(mut self, office: Arc<Office>) {
        let mut entries = Vec::with_capacity(self.batch);
        while let Some(first) = self.receiver.recv().await {
            entries.push(first);
            let deadline = Instant::now() + self.linger;
            while entries.len() < self.batch {
                match tokio::time::timeout_at(deadline, self.receiver.recv()).await {
                    Ok(Some(entry)) => entries.push(entry),
                    Ok(None) | Err(_) => break,
                }
            }
            write(&office, &mut entries).await;
        }
    }
}

async fn write(office: &Office, entries: &mut Vec<Entry>) {
    let mut outcomes = Vec::with_capacity(entries.len());
    let mut rest = Vec::with_capacity(entries.len());
    for entry in entries.drain(..) {
        outcomes.push(entry.outcome);
        rest.push((entry.ticket, entry.tenure, entry.span));
    }
    let begun = Instant::now();
    match until_written(office, &outcomes).await {
        Ok(recorded) => {
            failpoint::hit!("sender.record.after");
            office.metrics.recorded(&outcomes, &recorded);
        }
        Err(error) => {
            // Somebody's outcome cannot be written: the others must not share its fate.
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "a batch of outcomes was refused, writing one by one"
            );
            for (outcome, (_, tenure, _)) in outcomes.iter_mut().zip(&rest) {
                let mut written = until_written(office, std::slice::from_ref(outcome)).await;
                if written.is_err() {
                    // What it came to matters more than what was said about it.
                    outcome.detail = FactDetail::default();
                    written = until_written(office, std::slice::from_ref(outcome)).await;
                }
                match written {
                    Ok(recorded) => office.metrics.recorded(std::slice::from_ref(outcome), &recorded),
                    Err(error) => {
                        tracing::error!(
                            message.id = %outcome.message,
                            error = &error as &dyn std::error::Error,
                            "an outcome cannot be recorded; its message ends in doubt"
                        );
                        // Under a live lease it would stay as being sent for ever.
                        tenure.end();
                    }
                }
            }
        }
    }
    office.metrics.record_seconds.observe(begun.elapsed().as_secs_f64());
    for (outcome, (ticket, tenure, span)) in outcomes.iter().zip(rest) {
        drop(span);
        if let Some(ticket) = ticket {
            office.journal.recorded(ticket);
        }
        tenure.recorded(Claim { message: outcome.message, release: outcome.release });
    }
}

/// Tries until Postgres answers; an error that trying again cannot mend is returned.
async fn until_written(office: &Office, outcomes: &[Outcome]) -> Result<Vec<Recorded>, StoreError> {
    let mut pause = Duration::from_millis(50);
    loop {
        match office.store.record(outcomes).await {
            Err(error) if error.is_retryable() => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    outcomes = outcomes.len(),
                    "cannot record outcomes, trying again"
                );
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(MAX_PAUSE);
            }
            result => return result,
        }
    }
}
