//! The sessions with a relay, shared by all that goes to it, whatever the receivers.

use crate::route::Wire;
use domain::Lane;
use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The sessions of one relay. Those that rest and those in use are together never more than there are turns: one is
/// opened only by who has a turn and finds none that rests.
pub(crate) struct Sessions {
    resting: Mutex<Vec<(Kept, Instant)>>,
    /// Sessions that there are, at rest or in use.
    open: Arc<AtomicUsize>,
    turns: Arc<Semaphore>,
    /// Bulk mail takes one of these first. They are fewer, so that it never has, or waits for, all turns.
    bulk: Arc<Semaphore>,
    messages: u32,
}

/// A session with the relay.
pub(crate) struct Kept {
    pub(crate) wire: Wire,
    pub(crate) counted: Counted,
}

/// A session as one of those that there are.
pub(crate) struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The right to use one session.
pub(crate) struct Turn {
    _turn: OwnedSemaphorePermit,
    _bulk: Option<OwnedSemaphorePermit>,
}

impl Sessions {
    pub(crate) fn new(most: u16, messages: u16) -> Self {
        let most = usize::from(most).max(1);
        Self {
            resting: Mutex::default(),
            turns: Arc::new(Semaphore::new(most)),
            bulk: Arc::new(Semaphore::new((most - 1).max(1))),
            open: Arc::default(),
            messages: messages.into(),
        }
    }

    /// Waits for a turn.
    pub(crate) async fn turn(&self, lane: Lane) -> Turn {
        let bulk = match lane {
            Lane::Bulk => acquire(&self.bulk).await,
            Lane::Transactional => None,
        };
        // Neither is ever closed.
        let Some(turn) = acquire(&self.turns).await else { std::future::pending().await };
        Turn { _turn: turn, _bulk: bulk }
    }

    /// Counts a session that was opened.
    pub(crate) fn opened(&self, wire: Wire) -> Kept {
        self.open.fetch_add(1, Ordering::Relaxed);
        Kept { wire, counted: Counted(Arc::clone(&self.open)) }
    }

    /// The session that has rested for the shortest time.
    pub(crate) fn take(&self) -> Option<Kept> {
        self.resting().pop().map(|(session, _)| session)
    }

    /// Lets a session rest; one that has done its work, or is over, comes back.
    pub(crate) fn put(&self, session: Kept) -> Option<Kept> {
        let wire = &session.wire;
        if !wire.is_reusable() || wire.messages_sent() >= self.messages {
            return Some(session);
        }
        self.resting().push((session, Instant::now()));
        None
    }

    /// One that has rested for longer than this, and the turn to close it in, if nobody needs that.
    pub(crate) fn stale(&self, keep: Duration) -> Option<(Kept, Turn)> {
        let turn = Turn { _turn: Arc::clone(&self.turns).try_acquire_owned().ok()?, _bulk: None };
        let mut resting = self.resting();
        // The longest at rest stand in front.
        let is_stale = resting.first().is_some_and(|(_, since)| since.elapsed() >= keep);
        is_stale.then(|| (resting.remove(0).0, turn))
    }

    /// One turned out to be dead: the others have most likely died with it.
    pub(crate) fn clear(&self) {
        // Closed without the lock.
        drop(std::mem::take(&mut *self.resting()));
    }

    /// Whether the relay keeps more sessions than these.
    pub(crate) fn has_more_than(&self, these: usize) -> bool {
        self.open.load(Ordering::Relaxed) > these
    }

    fn resting(&self) -> MutexGuard<'_, Vec<(Kept, Instant)>> {
        self.resting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn acquire(semaphore: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
    Arc::clone(semaphore).acquire_owned().await.ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[test]
    fn bulk_mail_never_has_all_turns() {
        let sessions = Sessions::new(3, 100);
        let turn = |lane| sessions.turn(lane).now_or_never();
        let held: Vec<Turn> = [Lane::Bulk, Lane::Bulk].into_iter().map(|lane| turn(lane).unwrap()).collect();
        assert!(turn(Lane::Bulk).is_none());
        let urgent = turn(Lane::Transactional).unwrap();
        assert!(turn(Lane::Transactional).is_none(), "no more than three at once");
        drop(held);
        assert!(turn(Lane::Bulk).is_some());
        drop(urgent);
    }
}
