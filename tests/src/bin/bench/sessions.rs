//! How the kernel shares the cores among sessions.

use std::{fs, path::Path};

/// On Linux every session of a desktop may be a group that gets an equal share of the cores as a whole.
const SWITCH: &str = "/proc/sys/kernel/sched_autogroup_enabled";

/// The cores are shared among threads, as on a server, where services are in control groups and the kernel's automatic
/// groups by session do not apply. With them a thread that gives way does so within its own session only, and each
/// connection of Postgres is a session. As it was before when this is dropped.
pub struct SharedByThread {
    was: Option<String>,
}

impl SharedByThread {
    /// Turns the groups off; where the switch is missing or may not be turned, says so.
    pub fn turn() -> Self {
        let was = fs::read_to_string(SWITCH).ok().filter(|set| set.trim() != "0");
        let turned = was.filter(|_| match fs::write(SWITCH, "0") {
            Ok(()) => true,
            Err(error) => {
                crate::report::note(&format!("cannot turn off the kernel's groups by session: {SWITCH}: {error}"));
                false
            }
        });
        Self { was: turned }
    }

    /// Whether threads share the cores, whatever session they are of.
    pub fn holds() -> bool {
        !Path::new(SWITCH).exists() || fs::read_to_string(SWITCH).is_ok_and(|set| set.trim() == "0")
    }
}

impl Drop for SharedByThread {
    fn drop(&mut self) {
        if let Some(was) = &self.was
            && let Err(error) = fs::write(SWITCH, was)
        {
            crate::report::note(&format!("cannot turn the kernel's groups by session on again: {SWITCH}: {error}"));
        }
    }
}
