//! Letters in the hands of a shard's owner, and the chunks they came in.

use crate::routes::{RouteId, Tried};
use bus::{AckHandle, Letter};
use domain::Lane;
use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use store::Parked;
use tokio::sync::OwnedSemaphorePermit;

/// A chunk whose members are not all settled yet. It is acknowledged when each has been claimed, parked or refused.
pub(crate) struct Chunk {
    open: AtomicUsize,
    handle: Mutex<Option<AckHandle>>,
}

impl Chunk {
    pub(crate) fn new(members: usize, handle: AckHandle) -> Arc<Self> {
        Arc::new(Self { open: AtomicUsize::new(members), handle: Mutex::new(Some(handle)) })
    }

    /// One member is settled; returns the handle to acknowledge with the last.
    #[must_use = "the last member's handle is to be acknowledged"]
    pub(crate) fn settle(&self) -> Option<AckHandle> {
        if self.open.fetch_sub(1, Ordering::AcqRel) == 1 { self.take() } else { None }
    }

    /// The handle, to give the chunk back as a whole.
    pub(crate) fn take(&self) -> Option<AckHandle> {
        self.handle.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// The memory that a letter takes which was rendered here; `None` for one that came over the bus. Given back with it.
pub(crate) type Room = Option<OwnedSemaphorePermit>;

/// A letter that is held, not claimed yet.
pub(crate) struct Held {
    pub(crate) letter: Letter,
    /// The route that it is to take, as things stand.
    pub(crate) route: RouteId,
    pub(crate) chunk: Arc<Chunk>,
    pub(crate) since: Instant,
    pub(crate) room: Room,
}

/// A letter that is claimed: its outcome must be recorded, whatever it is.
pub(crate) struct Claimed {
    pub(crate) letter: Letter,
    pub(crate) route: RouteId,
    /// Routes that gave no session for it under this claim.
    pub(crate) tried: Tried,
    /// When the throttle lets it start.
    pub(crate) not_before: Instant,
    pub(crate) since: Instant,
    pub(crate) _room: Room,
}

impl Held {
    pub(crate) fn waited(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.since)
    }
}

/// A letter that rests for a while, in its own queue.
pub(crate) fn rest(letter: &Letter, delay: Duration) -> Parked {
    Parked { message: letter.job.message, release: letter.job.release, delay, queue: None, site: None }
}

/// Gives the chunk of a letter back, once for all its letters.
pub(crate) async fn give_back(held: &Held) {
    if let Some(handle) = held.chunk.take()
        && let Err(error) = handle.nak(Duration::ZERO).await
    {
        tracing::debug!(%error, "cannot give a chunk back; it comes again by itself");
    }
}

/// Tells the broker that chunks are settled.
pub(crate) async fn acknowledge(handles: Vec<AckHandle>) {
    for handle in handles {
        failpoint::hit!("sender.ack.before");
        let answer = handle.ack().await;
        failpoint::hit!("sender.ack.after");
        if let Err(error) = answer {
            tracing::debug!(%error, "cannot acknowledge a chunk; it comes again and finds nothing");
        }
    }
}

/// The place of a lane in what there is of each.
pub(crate) const fn index(lane: Lane) -> usize {
    match lane {
        Lane::Transactional => 0,
        Lane::Bulk => 1,
    }
}
