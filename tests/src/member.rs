//! A service of a fleet, on a runtime of its own.

use service::Lifecycle;
use std::{future::Future, time::Duration};
use testkit::LIMIT;
use tokio::{
    runtime::{Builder, Runtime},
    task::JoinError,
};

/// Longest time for the threads of a crashed service to end.
const CRASH_LIMIT: Duration = Duration::from_secs(10);
/// Generous: without optimisation the futures of a whole service are large.
const STACK: usize = 16 << 20;

/// A service that runs.
pub(crate) struct Member {
    life: Lifecycle,
    runtime: Option<Runtime>,
}

impl Member {
    /// As [`Member::try_start`], up to `tries` times, as a supervisor starts what could not start.
    pub(crate) async fn start<T, F>(name: &str, tries: usize, build: impl Fn(Lifecycle) -> F) -> (Self, T)
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        for _ in 1..tries {
            if let Ok(started) = Self::try_start(name, &build).await {
                return started;
            }
        }
        Self::try_start(name, build).await.unwrap()
    }

    /// Starts a runtime and builds a service on it.
    async fn try_start<T, F>(name: &str, build: impl FnOnce(Lifecycle) -> F) -> Result<(Self, T), JoinError>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .thread_name(name.to_owned())
            .thread_stack_size(STACK)
            .build()
            .unwrap();
        let life = Lifecycle::new();
        let built = runtime.spawn(build(life.clone())).await;
        // Dropped with its runtime when it was not built.
        let member = Self { life, runtime: Some(runtime) };
        Ok((member, built?))
    }

    /// Whether one of its tasks failed.
    pub(crate) fn has_failed(&self) -> bool {
        self.life.has_failed()
    }

    /// Ends it as a signal does: what is under way is finished first.
    pub(crate) async fn stop(mut self) {
        let drained = self.life.drain(LIMIT).await;
        let running = self.life.running();
        self.end().await;
        assert!(drained, "still running: {running:?}");
        assert!(!self.life.has_failed(), "a task failed");
    }

    /// Ends it as a kill does: every task stops where it is.
    pub(crate) async fn crash(mut self) {
        self.end().await;
    }

    async fn end(&mut self) {
        let runtime = self.runtime.take().unwrap();
        tokio::task::spawn_blocking(move || runtime.shutdown_timeout(CRASH_LIMIT)).await.unwrap();
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
