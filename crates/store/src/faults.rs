//! Calls that go wrong on purpose, in a store that was told so by [`Store::with_faults`].

use crate::{Store, StoreError};
use failpoint::Fault;
use std::io;

/// The modules whose calls may go wrong: what moves messages, and what those who move them look at. What a person
/// administers is left alone: he would not know that his call was done, and its repeat is another one.
const ROAD: [&str; 11] = [
    "accept",
    "bus_state",
    "contents",
    "dispatch",
    "leases",
    "log",
    "marks",
    "moving",
    "queues",
    "sites",
    "suppressions",
];

/// What becomes of the next call of a module.
#[inline]
pub(crate) fn next(store: &Store, module: &'static str) -> Option<Fault> {
    let faults = store.faults.as_ref()?;
    let name = module.rsplit("::").next().unwrap_or(module);
    let fault = ROAD.contains(&name).then(|| faults.next())??;
    tracing::debug!(module = name, ?fault, "a call goes wrong on purpose");
    Some(fault)
}

/// The call failed before it had done anything.
pub(crate) fn failed() -> StoreError {
    StoreError::Statement { source: sqlx::Error::Io(io::Error::other("a fault that a test asked for")) }
}

/// Makes a call that may go wrong. One branch where there are no faults.
macro_rules! perhaps {
    ($store:expr, $call:block) => {{
        let fault = $crate::faults::next($store, module_path!());
        if fault == Some(failpoint::Fault::Before) {
            Err($crate::faults::failed())
        } else {
            let mut first = None;
            loop {
                let outcome: Result<_, $crate::StoreError> = $call;
                match (first.take(), fault, outcome) {
                    // The second time: the caller gets the first answer.
                    (Some(first), _, _) => break Ok(first),
                    (None, Some(failpoint::Fault::Twice), Ok(value)) => first = Some(value),
                    (None, Some(failpoint::Fault::After), Ok(_)) => break Err($crate::StoreError::Timeout),
                    (None, _, outcome) => break outcome,
                }
            }
        }
    }};
}
pub(crate) use perhaps;
