//! The sessions with a relay, shared by all that goes to it, whatever the receivers.

use domain::Lane;
use smtp::client::Connection;
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The sessions of one relay. Those that rest and those in use are together never more than there are turns: one is
/// opened only by who has a turn and finds none that rests.
pub(crate) struct Sessions {
    resting: Mutex<Vec<(Connection, Instant)>>,
    turns: Arc<Semaphore>,
    /// Bulk mail takes one of these first. They are fewer, so that it never has, or waits for, all turns.
    bulk: Arc<Semaphore>,
    most: usize,
    messages: u32,
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
            most,
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

    /// The session that has rested for the shortest time, if one can take another message.
    pub(crate) fn take(&self) -> Option<Connection> {
        self.resting().pop().map(|(connection, _)| connection)
    }

    /// Lets a session rest; one that has done its work, or is over, comes back.
    pub(crate) fn put(&self, connection: Connection) -> Option<Connection> {
        if !connection.is_reusable() || connection.messages_sent() >= self.messages {
            return Some(connection);
        }
        self.resting().push((connection, Instant::now()));
        None
    }

    /// One that has rested for longer than this, and the turn to close it in, if nobody needs that.
    pub(crate) fn stale(&self, keep: Duration) -> Option<(Connection, Turn)> {
        let turn = Turn { _turn: Arc::clone(&self.turns).try_acquire_owned().ok()?, _bulk: None };
        let mut resting = self.resting();
        // The longest at rest stand in front.
        let is_stale = resting.first().is_some_and(|(_, since)| since.elapsed() >= keep);
        is_stale.then(|| (resting.remove(0).0, turn))
    }

    /// One turned out to be dead: the others have most likely died with it.
    pub(crate) fn clear(&self) {
        self.resting().clear();
    }

    /// Whether the relay keeps other sessions than the one that it refuses to open.
    pub(crate) fn has_others(&self) -> bool {
        !self.resting().is_empty() || self.most - self.turns.available_permits() > 1
    }

    fn resting(&self) -> MutexGuard<'_, Vec<(Connection, Instant)>> {
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
