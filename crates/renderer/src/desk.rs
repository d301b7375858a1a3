//! Takes chunks of one lane and sees each of them through.

use crate::{Office, chunk};
use bus::{Delivery, Job, PublishError, RenderChunk, SendChunk, SendSubject};
use chunk::Made;
use domain::{ContentId, Lane, TenantId, fact::FactDetail};
use futures_util::{
    StreamExt,
    stream::{self, FuturesUnordered},
};
use press::{Plate, PressError, Verdict};
use service::Chain;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use store::{Failed, Parked, StoreError};
use tokio_util::sync::CancellationToken;

/// The plates of one chunk, or why there are none.
pub(crate) type Plates = BTreeMap<(TenantId, ContentId), Result<Plate, PressError>>;

/// What becomes of a chunk: it is done, or it comes again for a reason.
enum Ending {
    Done,
    Again { class: &'static str },
}

/// Takes chunks until `stop`, then finishes those that were taken. What the client had fetched besides comes
/// again, here or elsewhere.
pub(crate) async fn work(office: Arc<Office>, lane: Lane, stop: CancellationToken) {
    let mut puller = office.bus.render_jobs(lane);
    let mut under_way = FuturesUnordered::new();
    let most = office.config.chunks_under_way.get();
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(()) = under_way.next() => {}
            delivery = puller.next(), if under_way.len() < most => under_way.push(office.see_through(lane, delivery)),
        }
    }
    drop(puller);
    while under_way.next().await.is_some() {}
}

impl Office {
    async fn see_through(&self, lane: Lane, delivery: Delivery<RenderChunk>) {
        let Delivery { payload, delivered, received, handle, .. } = delivery;
        self.metrics.arrived(lane, payload.items.len());
        let answer = match self.chunk(lane, payload.items).await {
            Ending::Done => {
                self.metrics.finished(lane, received.elapsed().as_secs_f64());
                failpoint::hit!("renderer.ack.before");
                let answer = handle.ack().await;
                failpoint::hit!("renderer.ack.after");
                answer
            }
            Ending::Again { class } => {
                self.metrics.held(class);
                let delay_ms = self.config.hold_delay.as_millis();
                tracing::info!(%lane, class, delivered, delay_ms, "left a chunk with the broker for later");
                handle.nak(self.config.hold_delay).await
            }
        };
        if let Err(error) = answer {
            tracing::warn!(%lane, error = %Chain(&error), "cannot answer a delivery; it comes again");
        }
    }

    async fn chunk(&self, lane: Lane, jobs: Vec<Job>) -> Ending {
        let plates = self.plates(&jobs).await;
        for error in plates.values().filter_map(|plate| plate.as_ref().err()) {
            match error.verdict() {
                // Told by the closing fact of each mail.
                Verdict::Fail => {}
                Verdict::Park => tracing::error!(%lane, error = %Chain(error), "mails cannot be rendered for now"),
                Verdict::Hold => {
                    tracing::warn!(%lane, error = %Chain(error), "cannot load what a chunk is made from");
                    return Ending::Again { class: error.class() };
                }
            }
        }
        let (shards, seconds) = (self.shards, self.metrics.render_seconds(lane));
        let make = move || chunk::make(jobs, &plates, shards, &seconds);
        let Ok(Made { chunks, rendered, references, mut failed, mut parked }) = self.press.pool().run(lane, make).await
        else {
            return Ending::Again { class: "stopped" };
        };
        self.metrics.rendered(lane, rendered, references);

        failpoint::hit!("renderer.publish.before");
        let results = self.bus.publish_all(&chunks, self.config.publishes_in_flight.get()).await;
        failpoint::hit!("renderer.publish.after");
        let mut unknown = false;
        for ((subject, chunk), result) in chunks.into_iter().zip(results) {
            match result {
                Ok(()) => {
                    self.metrics.published(lane, chunk.items.iter().filter_map(|l| Some(l.mime.as_ref()?.len())).sum())
                }
                Err(error) => unknown |= refused(subject, chunk, &error, &mut failed, &mut parked),
            }
        }
        if let Err(error) = self.settle(lane, failed, parked).await {
            tracing::warn!(%lane, error = %Chain(&error), "cannot close or park what was not rendered");
            return Ending::Again { class: "outage" };
        }
        if unknown { Ending::Again { class: "publish" } } else { Ending::Done }
    }

    /// Loads what the jobs are made from, each content once.
    async fn plates(&self, jobs: &[Job]) -> Plates {
        let contents: BTreeSet<_> = jobs.iter().map(|job| (job.tenant, job.content)).collect();
        let loads: Vec<_> = contents
            .into_iter()
            .map(async |(tenant, content)| ((tenant, content), self.press.plate(tenant, content).await))
            .collect();
        stream::iter(loads).buffer_unordered(self.config.loads_in_flight.get()).collect().await
    }

    /// Closes and parks, one statement each.
    async fn settle(
        &self,
        lane: Lane,
        failed: BTreeMap<&'static str, Vec<Failed>>,
        parked: BTreeMap<&'static str, Vec<chunk::Reference>>,
    ) -> Result<(), StoreError> {
        let mut rows = Vec::new();
        for (class, failed) in failed {
            tracing::warn!(%lane, class, mails = failed.len(), first = %failed[0].message, "mails failed to render");
            self.metrics.failed(class, failed.len());
            rows.extend(failed);
        }
        self.store.fail_all(&rows).await?;
        let mut rows = Vec::new();
        for (class, parked) in parked {
            tracing::warn!(%lane, class, mails = parked.len(), first = %parked[0].message, "mails are put back to rest");
            self.metrics.parked(class, parked.len());
            let delay = self.delay(class);
            rows.extend(parked.into_iter().map(|chunk::Reference { message, release }| Parked {
                message,
                release,
                delay,
                queue: None,
                site: None,
            }));
        }
        self.store.park(&rows).await?;
        Ok(())
    }

    /// How long mail of this class rests.
    fn delay(&self, class: &'static str) -> Duration {
        if class == BUS { self.config.refused_delay } else { self.config.fault_delay }
    }
}

/// The class of mail that the broker did not take.
const BUS: &str = "bus";
/// The class of mail that no chunk can hold.
const TOO_LARGE: &str = "chunk_too_large";

/// Sorts the members of a chunk that was not published; `true` when it may have been all the same. Then it is
/// published again under the same key, which the broker knows if it is there.
fn refused(
    subject: SendSubject,
    chunk: SendChunk,
    error: &PublishError,
    failed: &mut BTreeMap<&'static str, Vec<Failed>>,
    parked: &mut BTreeMap<&'static str, Vec<chunk::Reference>>,
) -> bool {
    let SendSubject { lane, shard, slot } = subject;
    // While the broker is full there are many; what is parked is told once for each chunk that arrived.
    tracing::debug!(%lane, %shard, %slot, error = %Chain(error), "a chunk was not published");
    if error.is_unknown() {
        return true;
    }
    let references = chunk.items.iter().map(|letter| chunk::Reference::of(&letter.job));
    if error.is_permanent() {
        let reason = FactDetail {
            class: Some(TOO_LARGE.to_owned()),
            text: Some("the mail and its variables are too large for the bus".to_owned()),
            ..FactDetail::default()
        };
        failed.entry(TOO_LARGE).or_default().extend(references.map(|reference| reference.failed(reason.clone())));
    } else {
        parked.entry(BUS).or_default().extend(references);
    }
    false
}
