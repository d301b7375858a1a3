//! Threads for work that only computes.

use crate::PressConfig;
use domain::Lane;
use std::{sync::Arc, time::Duration};
use tokio::{
    runtime::{self, Runtime},
    sync::Semaphore,
};

/// How long a thread of bulk work is kept without work.
const KEPT: Duration = Duration::from_secs(60);

/// Bounds how many pieces of work compute at the same time, for each lane by itself: urgent mail never
/// waits for a turn behind bulk. Threads are none of the reactor's, and those of bulk work give way to every other
/// thread of the machine: a signature takes long beside all that an urgent mail needs.
#[derive(Clone, Debug)]
pub struct Pool {
    transactional: Arc<Semaphore>,
    bulk: Arc<Semaphore>,
    bulk_threads: Arc<Threads>,
}

/// The runtime is shutting down, or the work panicked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the threads that render are gone")]
pub struct PoolClosed;

impl Pool {
    /// Room for as much work of each lane as is configured.
    pub fn new(config: &PressConfig) -> Self {
        Self {
            transactional: Arc::new(Semaphore::new(config.reserved_workers.get())),
            bulk: Arc::new(Semaphore::new(config.workers.get())),
            bulk_threads: Arc::new(Threads::new(config.workers.get(), config.bulk_niceness.into())),
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
        let task = match lane {
            Lane::Transactional => tokio::task::spawn_blocking(run),
            Lane::Bulk => self.bulk_threads.0.as_ref().ok_or(PoolClosed)?.spawn_blocking(run),
        };
        task.await.map_err(|_| PoolClosed)
    }
}

/// Threads of low priority: a runtime of their own, since a thread that has lowered its priority cannot raise it
/// again. Present until it is dropped.
#[derive(Debug)]
struct Threads(Option<Runtime>);

impl Threads {
    fn new(count: usize, niceness: i32) -> Self {
        let runtime = runtime::Builder::new_current_thread()
            .thread_name("bulk-press")
            .max_blocking_threads(count)
            .thread_keep_alive(KEPT)
            .on_thread_start(move || give_way(niceness))
            .build()
            .expect("a runtime without drivers asks nothing of the system");
        Self(Some(runtime))
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        // Does not wait for work that nobody waits for any more.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// Lowers the priority of this thread; elsewhere than on Linux it would be that of the process.
#[cfg(target_os = "linux")]
fn give_way(niceness: i32) {
    if let Err(error) = rustix::process::nice(niceness) {
        tracing::warn!(%error, "bulk mail is rendered at the priority of urgent mail");
    }
}

#[cfg(not(target_os = "linux"))]
const fn give_way(_niceness: i32) {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{num::NonZeroUsize, sync::mpsc};

    fn of_one_each() -> Pool {
        let one = NonZeroUsize::MIN;
        Pool::new(&PressConfig { workers: one, reserved_workers: one, ..PressConfig::default() })
    }

    #[tokio::test]
    async fn urgent_work_does_not_wait_for_bulk_that_fills_every_place() {
        let pool = of_one_each();
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
        let pool = of_one_each();
        assert_eq!(pool.run(Lane::Bulk, || assert_eq!(1, 2)).await, Err(PoolClosed));
        assert_eq!(pool.run(Lane::Bulk, || 7).await, Ok(7));
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn bulk_work_gives_way_to_urgent_work() {
        let pool = of_one_each();
        let niceness = || rustix::process::getpriority_process(None).unwrap();
        let before = niceness();
        assert_eq!(pool.run(Lane::Transactional, niceness).await, Ok(before));
        assert_eq!(pool.run(Lane::Bulk, niceness).await, Ok((before + 10).min(19)));
    }
}
