//! One process of the fleet, with its own ways to the database and to the broker: started, and started again
//! whenever it has ended, as a supervisor in production does.

use super::told;
use crate::Kind;
use rustix::process::{Pid, Signal, kill_process};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicI32, Ordering},
    },
    time::Duration,
};
use testkit::{Fault, FaultProxy};
use tokio::process::Command;

/// How soon a process that ended is started again.
const PAUSE: Duration = Duration::from_millis(250);
/// How often a process is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// How a process ended.
#[derive(Clone, Debug)]
pub struct Exit {
    /// With what status.
    pub status: String,
    /// Whether somebody had a hand in it.
    pub told: bool,
}

/// One process.
pub struct Member {
    /// `sender-b`.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// Its way to the database.
    pub postgres: FaultProxy,
    /// Its way to the broker.
    pub nats: FaultProxy,
    /// Its log.
    pub log: PathBuf,
    program: PathBuf,
    config: PathBuf,
    pid: AtomicI32,
    told: AtomicBool,
    /// Not before this is it started again; held while a fault wants it to be away.
    held: AtomicBool,
    exits: Mutex<Vec<Exit>>,
}

impl Member {
    /// A process that is not started yet.
    pub fn new(kind: Kind, name: &str, program: &Path, folder: &Path, postgres: FaultProxy, nats: FaultProxy) -> Self {
        Self {
            name: name.to_owned(),
            kind,
            postgres,
            nats,
            log: folder.join(format!("{name}.log")),
            program: program.to_owned(),
            config: folder.join(format!("{name}.toml")),
            pid: AtomicI32::new(0),
            told: AtomicBool::new(false),
            held: AtomicBool::new(false),
            exits: Mutex::default(),
        }
    }

    /// Where its configuration is.
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// The process that runs now.
    pub fn pid(&self) -> Option<i32> {
        Some(self.pid.load(Ordering::Acquire)).filter(|pid| *pid > 0)
    }

    /// How it ended, each time.
    pub fn exits(&self) -> Vec<Exit> {
        self.exits.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Runs it, and runs it again whenever it has ended, until `stop`; then ends it, in order if it can within its
    /// grace.
    pub async fn supervise(&self, stop: &tokio::sync::watch::Receiver<bool>) -> anyhow::Result<()> {
        let mut stopped = stop.clone();
        loop {
            while self.held.load(Ordering::Acquire) && !*stop.borrow() {
                tokio::time::sleep(LOOK).await;
            }
            if *stop.borrow() {
                return Ok(());
            }
            let log = fs::OpenOptions::new().create(true).append(true).open(&self.log)?;
            let mut command = Command::new(&self.program);
            command.args(["run", self.kind.name(), "--config"]).arg(&self.config);
            for foreign in ["DATABASE_URL", "NATS_URL"] {
                command.env_remove(foreign);
            }
            command.process_group(0).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).kill_on_drop(true);
            let mut child = command.spawn()?;
            self.told.store(false, Ordering::Release);
            self.pid.store(child.id().and_then(|pid| i32::try_from(pid).ok()).unwrap_or(0), Ordering::Release);
            let status = tokio::select! {
                status = child.wait() => status?,
                () = told(&mut stopped) => {
                    self.terminate();
                    match tokio::time::timeout(super::fleet::STOP_LIMIT, child.wait()).await {
                        Ok(status) => status?,
                        Err(_) => {
                            child.kill().await?;
                            child.wait().await?
                        }
                    }
                }
            };
            self.pid.store(0, Ordering::Release);
            self.note(status);
            let _ = tokio::time::timeout(PAUSE, told(&mut stopped)).await;
        }
    }

    fn note(&self, status: ExitStatus) {
        let exit = Exit { status: status.to_string(), told: self.told.load(Ordering::Acquire) };
        self.exits.lock().unwrap_or_else(PoisonError::into_inner).push(exit);
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = self.pid().and_then(Pid::from_raw) {
            // It may have ended meanwhile.
            let _ = kill_process(pid, signal);
        }
    }

    /// Kills it, and keeps it from being started again until [`Self::release`].
    pub fn kill9(&self) {
        self.held.store(true, Ordering::Release);
        self.told.store(true, Ordering::Release);
        self.signal(Signal::KILL);
    }

    /// Tells it to end. It is started again when it has.
    pub fn terminate(&self) {
        self.told.store(true, Ordering::Release);
        self.signal(Signal::TERM);
    }

    /// Lets it be started again.
    pub fn release(&self) {
        self.held.store(false, Ordering::Release);
    }

    /// Stops it where it stands.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// Waits until this process has ended; whether it did in time.
    pub async fn gone(&self, pid: i32, limit: Duration) -> bool {
        let gone = async {
            while self.pid() == Some(pid) {
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::time::timeout(limit, gone).await.is_ok()
    }

    /// Gives it no more address space than it has now; the process that was limited.
    pub fn limit_memory(&self) -> std::io::Result<Option<i32>> {
        let Some(pid) = self.pid() else { return Ok(None) };
        let Some(size) = super::processes::read(pid).map(|found| found.address_space) else { return Ok(None) };
        // It may die of it.
        self.told.store(true, Ordering::Release);
        limit_address_space(pid, Some(size))?;
        Ok(Some(pid))
    }

    /// Takes the limit away, from the process that has it.
    pub fn free_memory(&self, pid: i32) {
        if self.pid() == Some(pid) && limit_address_space(pid, None).is_ok() {
            self.told.store(false, Ordering::Release);
        }
    }

    /// Undoes whatever was done to it and can be undone.
    pub fn heal(&self) {
        self.postgres.set(Fault::Nothing);
        self.nats.set(Fault::Nothing);
        self.thaw();
        self.release();
    }
}

/// The soft limit alone: it can be raised again. `None`: as much as this process may have.
#[cfg(target_os = "linux")]
fn limit_address_space(pid: i32, size: Option<u64>) -> std::io::Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, prlimit};
    let own = getrlimit(Resource::As);
    let limit = Rlimit { current: size.or(own.current), maximum: own.maximum };
    prlimit(Pid::from_raw(pid), Resource::As, limit)?;
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn limit_address_space(_pid: i32, _size: Option<u64>) -> std::io::Result<()> {
    Err(std::io::ErrorKind::Unsupported.into())
}
