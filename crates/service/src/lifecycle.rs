//! Tasks and their end.

use std::{
    collections::BTreeMap,
    error::Error,
    fmt,
    future::Future,
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};
use tokio::{sync::Notify, task::AbortHandle, time::Instant};
use tokio_util::sync::CancellationToken;

/// How often it is said what a shutdown waits for.
const REPORT_EVERY: Duration = Duration::from_secs(2);

/// The life of one service: its tasks, the request to shut down, and whether it failed. Clones are the
/// same life. Several lives fit in one process, as in tests.
///
/// Two kinds of tasks are spawned here, and nowhere else in the fleet: [`Lifecycle::spawn`] for those that
/// run until the shutdown, whose early end is a failure of the service, and [`Lifecycle::spawn_finite`] for
/// pieces of work that end by themselves.
#[derive(Clone)]
pub struct Lifecycle {
    inner: Arc<Inner>,
}

struct Inner {
    shutdown: CancellationToken,
    failed: AtomicBool,
    next: AtomicU64,
    tasks: Mutex<BTreeMap<u64, Task>>,
    changed: Notify,
}

struct Task {
    name: &'static str,
    abort: Option<AbortHandle>,
}

/// How a task may end: with nothing to say, or with a failure.
pub trait Ending: Send + 'static {
    /// The failure and its causes, in words.
    fn failure(self) -> Option<String>;
}

impl Ending for () {
    fn failure(self) -> Option<String> {
        None
    }
}

impl<E: Error + Send + 'static> Ending for Result<(), E> {
    fn failure(self) -> Option<String> {
        self.err().map(|error| crate::Chain(&error).to_string())
    }
}

/// Names the type of a loop without end, which cannot be written in an `impl` directly.
mod never {
    pub trait Returns {
        type Value;
    }

    impl<T> Returns for fn() -> T {
        type Value = T;
    }
}

impl Ending for <fn() -> ! as never::Returns>::Value {
    fn failure(self) -> Option<String> {
        self
    }
}

impl Lifecycle {
    /// A life that begins now.
    pub fn new() -> Self {
        let inner = Inner {
            shutdown: CancellationToken::new(),
            failed: AtomicBool::new(false),
            next: AtomicU64::new(0),
            tasks: Mutex::default(),
            changed: Notify::new(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Runs a task that is to live until the shutdown. When it ends before, by itself, with an error or by a
    /// panic, the service shuts down and its exit code tells of a failure.
    pub fn spawn<F>(&self, name: &'static str, task: F)
    where
        F: Future<Output: Ending> + Send + 'static,
    {
        let life = self.clone();
        self.start(name, async move {
            match Caught::new(task).await {
                Ok(ending) => match ending.failure() {
                    Some(error) => life.fail(name, &error),
                    None if life.is_shutting_down() => {}
                    None => life.fail(name, "ended by itself"),
                },
                Err(Panicked) => life.fail(name, "panicked"),
            }
        });
    }

    /// Runs a piece of work that ends by itself. Its error is logged and harms nobody; its panic, which is a
    /// broken invariant, shuts the service down. A shutdown waits for it.
    pub fn spawn_finite<F>(&self, name: &'static str, work: F)
    where
        F: Future<Output: Ending> + Send + 'static,
    {
        let life = self.clone();
        self.start(name, async move {
            match Caught::new(work).await {
                Ok(ending) => {
                    if let Some(error) = ending.failure() {
                        tracing::warn!(task = name, error, "a piece of work failed");
                    }
                }
                Err(Panicked) => life.fail(name, "panicked"),
            }
        });
    }

    #[expect(clippy::disallowed_methods, reason = "this is the one spawn")]
    fn start(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let id = self.inner.next.fetch_add(1, Ordering::Relaxed);
        self.tasks().insert(id, Task { name, abort: None });
        let entry = Entry { life: self.clone(), id };
        let handle = tokio::spawn(async move {
            // Dropped at the end, by whatever it came: also when the task is aborted.
            let _entry = entry;
            task.await;
        });
        if let Some(task) = self.tasks().get_mut(&id) {
            task.abort = Some(handle.abort_handle());
        }
    }

    /// Ends when the shutdown has been requested.
    pub async fn shutdown_requested(&self) {
        self.inner.shutdown.cancelled().await;
    }

    /// The request to shut down, for libraries that take a token. Cancelling it is requesting a shutdown.
    pub fn token(&self) -> CancellationToken {
        self.inner.shutdown.clone()
    }

    /// Whether the shutdown has been requested.
    pub fn is_shutting_down(&self) -> bool {
        self.inner.shutdown.is_cancelled()
    }

    /// Requests the shutdown.
    pub fn trigger_shutdown(&self) {
        self.inner.shutdown.cancel();
    }

    /// Requests the shutdown because of a failure, once logged under the name of what failed.
    pub fn fail(&self, what: &'static str, error: &str) {
        self.inner.failed.store(true, Ordering::SeqCst);
        tracing::error!(task = what, error, "a task failed; the service shuts down");
        self.trigger_shutdown();
    }

    /// Whether a task failed.
    pub fn has_failed(&self) -> bool {
        self.inner.failed.load(Ordering::SeqCst)
    }

    /// Names of the tasks that run, each with how many there are.
    pub fn running(&self) -> BTreeMap<&'static str, usize> {
        let mut names = BTreeMap::new();
        for task in self.tasks().values() {
            *names.entry(task.name).or_insert(0) += 1;
        }
        names
    }

    /// Requests the shutdown and waits until every task has ended, at most for `grace`, saying from time to
    /// time what is waited for. What has not ended by then is aborted. Returns whether all ended in time.
    pub async fn drain(&self, grace: Duration) -> bool {
        self.trigger_shutdown();
        let deadline = Instant::now() + grace;
        loop {
            let changed = self.inner.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.tasks().is_empty() {
                return true;
            }
            let report = deadline.min(Instant::now() + REPORT_EVERY);
            if tokio::time::timeout_at(report, changed).await.is_ok() {
                continue;
            }
            let waiting_for = Waiting(self.running());
            if Instant::now() >= deadline {
                tracing::error!(%waiting_for, "the grace period is over; aborting what still runs");
                self.abort();
                return false;
            }
            tracing::info!(%waiting_for, "shutting down");
        }
    }

    fn abort(&self) {
        for abort in self.tasks().values().filter_map(|task| task.abort.as_ref()) {
            abort.abort();
        }
    }

    fn tasks(&self) -> MutexGuard<'_, BTreeMap<u64, Task>> {
        // Nothing panics while it is held; if it did, the map would still be whole.
        self.inner.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Lifecycle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lifecycle").field("running", &self.running()).finish_non_exhaustive()
    }
}

/// Takes its task off the list when dropped.
struct Entry {
    life: Lifecycle,
    id: u64,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.life.tasks().remove(&self.id);
        self.life.inner.changed.notify_waiters();
    }
}

struct Waiting(BTreeMap<&'static str, usize>);

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (name, count)) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{name}")?;
            if *count > 1 {
                write!(f, " x{count}")?;
            }
        }
        Ok(())
    }
}

struct Panicked;

/// A future whose panic is a value.
struct Caught<F>(Pin<Box<F>>);

impl<F: Future> Caught<F> {
    fn new(future: F) -> Self {
        Self(Box::pin(future))
    }
}

impl<F: Future> Future for Caught<F> {
    type Output = Result<F::Output, Panicked>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        // A future that panicked is dropped and never polled again, so nobody sees what it left half done.
        match std::panic::catch_unwind(AssertUnwindSafe(|| self.0.as_mut().poll(context))) {
            Ok(poll) => poll.map(Ok),
            Err(_) => Poll::Ready(Err(Panicked)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    #[tokio::test]
    async fn a_task_that_ends_by_itself_shuts_the_service_down() {
        let life = Lifecycle::new();
        life.spawn("worker", async {});
        life.shutdown_requested().await;
        assert!(life.has_failed());
        assert!(life.drain(LONG).await);
    }

    #[tokio::test]
    async fn a_task_that_panics_or_errs_shuts_the_service_down() {
        let life = Lifecycle::new();
        life.spawn("worker", async { panic!("on purpose") });
        life.shutdown_requested().await;
        assert!(life.has_failed());
        let life = Lifecycle::new();
        life.spawn("worker", async { Err(fmt::Error) });
        life.shutdown_requested().await;
        assert!(life.has_failed());
    }

    #[tokio::test]
    async fn tasks_that_end_after_the_request_are_no_failure() {
        let life = Lifecycle::new();
        for _ in 0..3 {
            let token = life.token();
            life.spawn("worker", async move { token.cancelled().await });
        }
        assert_eq!(life.running(), BTreeMap::from([("worker", 3)]));
        assert!(life.drain(LONG).await);
        assert!(!life.has_failed());
        assert!(life.running().is_empty());
    }

    #[tokio::test]
    async fn a_piece_of_work_may_end_and_fail_but_not_panic() {
        let life = Lifecycle::new();
        life.spawn_finite("piece", async {});
        life.spawn_finite("piece", async { Err(fmt::Error) });
        tokio::task::yield_now().await;
        assert!(!life.is_shutting_down());
        life.spawn_finite("piece", async { panic!("on purpose") });
        life.shutdown_requested().await;
        assert!(life.has_failed());
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_end_in_time_is_aborted() {
        let life = Lifecycle::new();
        life.spawn("stuck", std::future::pending::<()>());
        assert!(!life.drain(Duration::from_secs(5)).await);
        assert!(life.drain(LONG).await);
    }
}
