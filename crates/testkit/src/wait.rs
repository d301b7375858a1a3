//! Waiting for a condition: the one place in tests that sleeps.

use std::time::Duration;

/// How long a test waits for anything: generous, since it costs nothing when the condition comes.
pub const LIMIT: Duration = Duration::from_secs(60);

const SHORTEST: Duration = Duration::from_millis(10);
const LONGEST: Duration = Duration::from_millis(100);

/// Asks `condition` again and again, every 10 to 100 ms, until it gives a value; `None` when `limit` is over
/// first. It is asked at least once, and once more when the limit is over.
pub async fn eventually<T>(limit: Duration, mut condition: impl AsyncFnMut() -> Option<T>) -> Option<T> {
    let deadline = tokio::time::Instant::now() + limit;
    let mut pause = SHORTEST;
    loop {
        if let Some(value) = condition().await {
            return Some(value);
        }
        let now = tokio::time::Instant::now();
        if now >= deadline {
            return None;
        }
        tokio::time::sleep_until((now + pause).min(deadline)).await;
        pause = (pause * 3 / 2).min(LONGEST);
    }
}

/// Waits at most [`LIMIT`] until `condition` holds.
///
/// # Panics
/// When it does not, naming `what` was waited for.
pub async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let came = eventually(LIMIT, async || condition().await.then_some(()));
    assert!(came.await.is_some(), "{what}: not within {LIMIT:?}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_condition_is_asked_until_it_holds_or_time_is_over() {
        let mut asked = 0;
        let came = eventually(LIMIT, || {
            asked += 1;
            let value = (asked == 3).then_some("here");
            async move { value }
        });
        assert_eq!(came.await, Some("here"));
        assert_eq!(eventually(Duration::ZERO, || async { None::<()> }).await, None);
    }
}
