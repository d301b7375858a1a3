//! What tests make go wrong, and nobody else: failpoints and faults.
//!
//! # Failpoints
//! A failpoint is a named place at a durable step. A process that is started with `MAILFLEET_FAILPOINTS=DIRECTORY`
//! looks at each of them whether the file `DIRECTORY/NAME` is there. Whoever takes it away does what it says, so it
//! happens once, whatever the number of processes and however often they are started again; and a point is armed in a
//! running fleet by putting a file there, under another name first. What a file may say stands at [`Action`].
//!
//! Without the variable a failpoint costs one relaxed load. `before` stands between a statement and its commit, or
//! right before a write; `after` right behind it. [`NAMES`] lists them all; a name that is not listed does not
//! compile.
//!
//! # Faults
//! [`Faults`] decide for single calls of the store and of the bus whether they fail, fail after they have succeeded,
//! or happen twice: in how many, `MAILFLEET_FAULTS=RATE` or `RATE,SEED` says. See there.

mod action;
mod faults;
mod names;

pub use action::{Action, ActionError};
pub use faults::{Fault, Faults, FaultsError};
pub use names::NAMES;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

static ARMED: AtomicBool = AtomicBool::new(false);
static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();
static TAKEN: AtomicU64 = AtomicU64::new(0);

/// A place that `NAMES` lists. With a second argument, only when that holds; it is looked at in an armed process alone.
#[macro_export]
macro_rules! hit {
    ($name:literal) => {
        $crate::hit!($name, true)
    };
    ($name:literal, $when:expr) => {{
        const { $crate::assert_listed($name) };
        if $crate::is_armed() && $when {
            $crate::act($name);
        }
    }};
}

/// From now on failpoints of this process look for files in `directory`. The first call counts.
pub fn arm(directory: &Path) {
    DIRECTORY.get_or_init(|| directory.to_owned());
    ARMED.store(true, Ordering::Relaxed);
}

/// Whether this process looks at its failpoints.
#[inline]
pub fn is_armed() -> bool {
    ARMED.load(Ordering::Relaxed)
}

/// Does what the point's file says, if there is one. For [`hit!`].
#[cold]
pub fn act(name: &'static str) {
    let Some(directory) = DIRECTORY.get() else { return };
    let Some(text) = take(directory, name) else { return };
    match text.parse::<Action>() {
        Ok(Action::Skip { times, then }) => {
            let rest = if times > 1 { format!("skip {} {then}", times - 1) } else { then };
            put(directory, name, &rest);
        }
        Ok(action) => {
            tracing::warn!(failpoint = name, %action, "a failpoint acts");
            action.perform(name);
        }
        Err(error) => tracing::error!(failpoint = name, %error, "a failpoint's file cannot be read"),
    }
}

/// Takes the file away and returns what it said; `None` when there is none, or somebody else was faster.
fn take(directory: &Path, name: &str) -> Option<String> {
    let number = TAKEN.fetch_add(1, Ordering::Relaxed);
    let mine = directory.join(format!(".{name}.{}.{number}", std::process::id()));
    fs::rename(directory.join(name), &mine).ok()?;
    let text = fs::read_to_string(&mine).ok();
    let _left_behind = fs::remove_file(&mine);
    text
}

/// Puts a point's file there, whole or not at all: what a test does, and what a skipped hit does.
///
/// # Panics
/// When the directory cannot be written to.
pub fn put(directory: &Path, name: &str, action: &str) {
    let number = TAKEN.fetch_add(1, Ordering::Relaxed);
    let hidden = directory.join(format!(".{name}.{}.{number}.new", std::process::id()));
    let put = fs::write(&hidden, action).and_then(|()| fs::rename(&hidden, directory.join(name)));
    put.unwrap_or_else(|error| panic!("cannot arm {name} in {}: {error}", directory.display()));
}

/// Fails to compile for a name that is not listed. For [`hit!`].
pub const fn assert_listed(name: &str) {
    let mut at = 0;
    while at < NAMES.len() {
        if same(NAMES[at].as_bytes(), name.as_bytes()) {
            return;
        }
        at += 1;
    }
    panic!("the failpoint is not listed in NAMES");
}

const fn same(left: &[u8], right: &[u8]) -> bool {
    if left.len() != right.len() {
        return false;
    }
    let mut at = 0;
    while at < left.len() {
        if left[at] != right[at] {
            return false;
        }
        at += 1;
    }
    true
}

#[cfg(test)]
mod tests;
