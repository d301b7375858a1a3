//! What a failpoint does.

use rustix::process::{Signal, getpid, kill_process};
use std::{fmt, str::FromStr, time::Duration};

/// What a failpoint's file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// `kill`: the process is gone at once, as by `kill -9`.
    Kill,
    /// `stop`: the process stands still, as by `kill -STOP`, until somebody lets it go on.
    Stop,
    /// `panic`: the task ends.
    Panic,
    /// `sleep 500ms`: the thread waits, and whatever else it runs.
    Sleep(Duration),
    /// `skip 2 kill`: twice nothing, then the rest. Hits at the very same moment may count as one.
    Skip {
        /// How many hits are left to pass over.
        times: u32,
        /// What is done then.
        then: String,
    },
}

/// A failpoint's file says something else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActionError(String);

impl fmt::Display for ActionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is none of `kill`, `stop`, `panic`, `sleep DURATION`, `skip N ACTION`", self.0)
    }
}

impl std::error::Error for ActionError {}

impl FromStr for Action {
    type Err = ActionError;

    fn from_str(text: &str) -> Result<Self, ActionError> {
        let wrong = || ActionError(text.to_owned());
        let text = text.trim();
        let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
        match (word, rest) {
            ("kill", "") => Ok(Self::Kill),
            ("stop", "") => Ok(Self::Stop),
            ("panic", "") => Ok(Self::Panic),
            ("sleep", span) => humantime::parse_duration(span).map(Self::Sleep).map_err(|_| wrong()),
            ("skip", rest) => {
                let (times, then) = rest.split_once(' ').ok_or_else(wrong)?;
                let times = times.parse().map_err(|_| wrong())?;
                then.parse::<Self>().map_err(|_| wrong())?;
                Ok(Self::Skip { times, then: then.to_owned() })
            }
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kill => f.write_str("kill"),
            Self::Stop => f.write_str("stop"),
            Self::Panic => f.write_str("panic"),
            Self::Sleep(span) => write!(f, "sleep {}", humantime::format_duration(*span)),
            Self::Skip { times, then } => write!(f, "skip {times} {then}"),
        }
    }
}

impl Action {
    pub(crate) fn perform(&self, name: &str) {
        match self {
            Self::Kill => signal(Signal::KILL),
            Self::Stop => signal(Signal::STOP),
            Self::Panic => panic!("the failpoint {name} says so"),
            Self::Sleep(span) => std::thread::sleep(*span),
            Self::Skip { .. } => {}
        }
    }
}

fn signal(signal: Signal) {
    kill_process(getpid(), signal).expect("a process may send itself a signal");
    if signal == Signal::KILL {
        // The signal may reach another thread first: nothing more is done by this one.
        loop {
            std::thread::park();
        }
    }
}
