//! What a running local fleet leaves for the other commands: `state.json` in its folder.

use crate::exit::Failure;
use anyhow::Context;
use rustix::process::{Pid, test_kill_process};
use serde::{Deserialize, Serialize};
use std::{
    fs,
    io::Write,
    net::SocketAddr,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

/// The form of the file; another one is of another release.
const VERSION: u32 = 1;

/// A running local fleet.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct State {
    /// The form of this file.
    pub version: u32,
    /// The process that watches over the others.
    pub supervisor: u32,
    /// Whether everything has been ready once.
    pub ready: bool,
    /// Where the gRPC API is.
    pub endpoint: String,
    /// The configuration file of every service.
    pub config: PathBuf,
    /// The key that administers the fleet.
    pub admin_key_file: PathBuf,
    /// Where Postgres is, without a secret.
    pub postgres: String,
    /// Where NATS is, without a secret.
    pub nats: String,
    /// Where the sink listens.
    pub sink: SocketAddr,
    /// Where the sink keeps what came.
    pub mailbox: PathBuf,
    /// Where bounces and reports come in.
    #[serde(default)]
    pub inbound: Option<SocketAddr>,
    /// The services and the sink.
    pub processes: Vec<Process>,
}

/// One process of a local fleet.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Process {
    /// Which one.
    pub name: String,
    /// Its process id now; `None` while it is being started again.
    pub pid: Option<u32>,
    /// How often it has been started again.
    pub restarts: u32,
    /// Where it tells its health and metrics; the sink has none.
    pub http: Option<SocketAddr>,
    /// Where it writes its log.
    pub log: PathBuf,
}

impl State {
    /// The form of today.
    pub const VERSION: u32 = VERSION;

    /// Where it is kept.
    pub fn path(dir: &Path) -> PathBuf {
        dir.join("state.json")
    }

    /// The fleet that runs in this folder. A file that a killed one left is passed over.
    pub fn running(dir: &Path) -> anyhow::Result<Option<Self>> {
        Ok(Self::read(dir)?.filter(|state| is_alive(state.supervisor)))
    }

    /// What the last fleet in this folder left, whether it runs or not.
    pub fn read(dir: &Path) -> anyhow::Result<Option<Self>> {
        let path = Self::path(dir);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        let state: Option<Self> = serde_json::from_str(&text).ok().filter(|state: &Self| state.version == VERSION);
        state.map(Some).ok_or_else(|| {
            Failure::config(format!("{} is not of this release; stop that fleet and remove the file", path.display()))
        })
    }

    /// Writes it, whole or not at all, for its owner alone.
    pub fn write(&self, dir: &Path) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(self)?;
        write_private(&Self::path(dir), text.as_bytes())
    }

    /// Takes it away.
    pub fn remove(dir: &Path) {
        let _gone_already = fs::remove_file(Self::path(dir));
    }
}

/// Whether there is such a process, and it has not ended. A process that nobody has asked how it ended is still in
/// the table (where there is a `/proc`, its state is `Z`).
pub fn is_alive(pid: u32) -> bool {
    let there = i32::try_from(pid).ok().and_then(Pid::from_raw).is_some_and(|pid| test_kill_process(pid).is_ok());
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(')').and_then(|(_, after)| after.trim_start().chars().next());
    there && state != Some('Z')
}

/// Writes a file that only its owner may read, whole or not at all.
pub fn write_private(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let here = || format!("cannot write {}", path.display());
    let fresh = path.with_extension("fresh");
    let _from_before = fs::remove_file(&fresh);
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh).with_context(here)?;
    file.write_all(bytes).with_context(here)?;
    fs::rename(&fresh, path).with_context(here)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_ended_is_not_alive_even_before_it_is_reaped() {
        assert!(is_alive(std::process::id()));
        let mut child = std::process::Command::new("sleep").arg("600").spawn().expect("starts");
        assert!(is_alive(child.id()));
        child.kill().expect("is ended");
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while is_alive(child.id()) && std::time::Instant::now() < deadline {
            std::thread::yield_now();
        }
        assert!(!is_alive(child.id()) || !Path::new("/proc/self/stat").exists());
        child.wait().expect("is reaped");
    }
}
