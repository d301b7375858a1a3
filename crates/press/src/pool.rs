//! Threads for work that only computes.

use domain::Lane;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Bounds how many pieces of work compute at the same time, for each lane by itself: urgent mail never
/// waits for a turn behind bulk. Threads are the runtime's blocking ones, so the reactor stays free.
#[derive(Clone, Debug)]
pub struct Pool {
    transactional: Arc<Semaphore>,
    bulk: Arc<Semaphore>,
}

/// The runtime is shutting down, or the work panicked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the threads that render are gone")]
pub struct PoolClosed;

impl Pool {
    /// Room for this many pieces of bulk work, and beside it for this many of urgent work.
    pub fn new(bulk: usize, transactional: usize) -> Self {
        Self {
            transactional: Arc::new(Semaphore::new(transactional.max(1))),
            bulk: Arc::new(Semaphore::new(bulk.max(1))),
        }
    }

    /// Runs `work` on a thread of its own when the lane has room. A caller that goes away does not stop
    /// work that has begun.
    ///
    /// # Errors
    /// When the runtime shuts down meanwhile, or `work` panics.
    pub async fn run<T: Send + 'static>(
        &self,
        lane: Lane,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, PoolClosed> {
        let room = match lane {
            Lane::Transactional => &self.transactional,
            Lane::Bulk => &self.bulk,
        };
        let permit = Arc::clone(room).acquire_owned().await.map_err(|_| PoolClosed)?;
        let run = move || {
            let done = work();
            drop(permit);
            done
        };
        tokio::task::spawn_blocking(run).await.map_err(|_| PoolClosed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[tokio::test]
    async fn urgent_work_does_not_wait_for_bulk_that_fills_every_place() {
        let pool = Pool::new(1, 1);
        let (release, held) = mpsc::channel::<()>();
        let bulk = pool.run(Lane::Bulk, move || held.recv());
        let urgent = async {
            let done = pool.run(Lane::Transactional, || 7).await;
            release.send(()).unwrap();
            done
        };
        assert_eq!(tokio::join!(bulk, urgent), (Ok(Ok(())), Ok(7)));
    }

    #[tokio::test]
    async fn work_that_panics_gives_its_place_back() {
        let pool = Pool::new(1, 1);
        assert_eq!(pool.run(Lane::Bulk, || assert_eq!(1, 2)).await, Err(PoolClosed));
        assert_eq!(pool.run(Lane::Bulk, || 7).await, Ok(7));
    }
}
