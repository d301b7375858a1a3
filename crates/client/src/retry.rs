//! Calls that are made again.

use crate::{Error, Refused};
use rand::Rng;
use std::time::Duration;
use tokio::time::Instant;
use tonic::{Code, Status};
use tonic_types::StatusExt;

/// How long a call is made again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Longest time for a call with all its repeats. Default 2 min.
    pub budget: Duration,
    /// The first pause, which doubles each time; a random half of it is left out. Default 100 ms.
    pub min_pause: Duration,
    /// The longest pause, also of one that a server asks for. Default 30 s.
    pub max_pause: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            budget: Duration::from_secs(120),
            min_pause: Duration::from_millis(100),
            max_pause: Duration::from_secs(30),
        }
    }
}

impl Retry {
    /// No call is made twice.
    pub const NEVER: Self = Self { budget: Duration::ZERO, min_pause: Duration::ZERO, max_pause: Duration::ZERO };

    /// Makes a call until it is answered, refused, or the budget is used up. `call` must do no harm when it is made
    /// again.
    ///
    /// # Errors
    /// What it came to at last.
    pub(crate) async fn run<T, F: Future<Output = Result<T, Status>>>(
        &self,
        idempotency_key: &str,
        mut call: impl FnMut() -> F,
    ) -> Result<T, Error> {
        let begun = Instant::now();
        let mut tries = 0;
        loop {
            let status = match call().await {
                Ok(answer) => return Ok(answer),
                Err(status) => status,
            };
            tries += 1;
            let Some(pause) = self.pause(&status, tries) else {
                return Err(Error::Refused(Box::new(Refused::new(status))));
            };
            let spent = begun.elapsed();
            if spent + pause > self.budget {
                let idempotency_key = idempotency_key.to_owned();
                return Err(Error::GaveUp { tries, spent, idempotency_key, last: Box::new(status) });
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// The pause before a repeat; `None` when that cannot help.
    fn pause(&self, status: &Status, tries: u32) -> Option<Duration> {
        if !is_worth(status) {
            return None;
        }
        let whole = self.min_pause.saturating_mul(1 << tries.saturating_sub(1).min(16)).min(self.max_pause);
        let own = whole.mul_f64(rand::rng().random_range(0.5..=1.0));
        // Never before the server asks for it.
        Some(asked(status).map_or(own, |asked| asked.max(own)).min(self.max_pause))
    }
}

/// How long to wait before the same call is made again; `None` when that cannot help. For calls that are repeated by
/// hand, such as streams.
pub fn retry_delay(status: &Status, tries: u32) -> Option<Duration> {
    Retry::default().pause(status, tries)
}

fn asked(status: &Status) -> Option<Duration> {
    status.get_details_retry_info().and_then(|info| info.retry_delay)
}

/// Whether the same call may be answered otherwise the next time. A quota that the call alone is above, as any other
/// exhaustion without a time, is not.
fn is_worth(status: &Status) -> bool {
    match status.code() {
        Code::Unavailable | Code::DeadlineExceeded | Code::Aborted => true,
        Code::ResourceExhausted => asked(status).is_some(),
        // A connection that broke is told by this side, with its cause and without details.
        Code::Unknown | Code::Internal | Code::Cancelled => {
            status.details().is_empty() && std::error::Error::source(status).is_some()
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic_types::ErrorDetails;

    fn exhausted(asked: Option<Duration>) -> Status {
        let mut details = ErrorDetails::new();
        if let Some(asked) = asked {
            details.set_retry_info(Some(asked));
        }
        Status::with_error_details(Code::ResourceExhausted, "no", details)
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_is_made_again_until_it_is_answered() {
        let mut calls = 0;
        let answer = Retry::default()
            .run("k", || {
                calls += 1;
                let answer = if calls < 4 { Err(Status::unavailable("not now")) } else { Ok(calls) };
                async { answer }
            })
            .await;
        assert_eq!(answer.unwrap(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_is_not_asked_again_before_it_says_so() {
        let begun = Instant::now();
        let mut calls = 0;
        let asked = Duration::from_secs(7);
        let retry = Retry::default();
        let again = retry.run("k", || {
            calls += 1;
            let answer = if calls == 1 { Err(exhausted(Some(asked))) } else { Ok(begun.elapsed()) };
            async { answer }
        });
        assert!(again.await.unwrap() >= asked);
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_repeat_cannot_help_is_told_at_once_and_the_rest_when_the_budget_is_used_up() {
        for status in [Status::not_found("no"), exhausted(None), Status::internal("ours")] {
            let code = status.code();
            let told = Retry::default().run("k", || async { Err::<(), _>(status.clone()) }).await.unwrap_err();
            assert!(matches!(&told, Error::Refused(refused) if refused.code() == code), "{told:?}");
        }
        let retry = Retry { budget: Duration::from_secs(10), ..Retry::default() };
        let begun = Instant::now();
        let told = retry.run("my key", || async { Err::<(), _>(Status::unavailable("away")) }).await.unwrap_err();
        let Error::GaveUp { tries, idempotency_key, .. } = &told else { panic!("{told:?}") };
        assert!(*tries > 5 && idempotency_key == "my key" && begun.elapsed() <= retry.budget, "{told}");
    }
}
