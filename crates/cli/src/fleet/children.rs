//! The processes of a local fleet: started, watched, started again, stopped.

use super::state::{Process, is_alive};
use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};
use std::{
    ffi::OsString,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};
use tokio::process::{Child, Command};

/// First pause before a process that ended is started again; doubles with each time that it ends soon.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// Longest pause: a sender that is back within the dispatcher's `doubt_grace` tells from its journal what was sent,
/// and nothing of it is in doubt.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// Who ran as long as this ended for a new reason: the pause is the first one again.
const GOOD_RUN: Duration = Duration::from_secs(60);
/// How long processes may take to end in order.
const STOP_LIMIT: Duration = Duration::from_secs(20);
/// How often the end of a process is looked for.
const POLL: Duration = Duration::from_millis(50);
/// How much of a log is shown when its process ended.
const TAIL: usize = 1_500;

/// One process and how to start it.
pub struct Member {
    /// Which one.
    pub name: String,
    /// Where it tells its health and metrics.
    pub http: Option<SocketAddr>,
    /// Where it writes its log.
    pub log: PathBuf,
    arguments: Vec<OsString>,
    environment: Vec<(String, String)>,
    child: Option<Child>,
    started: Instant,
    pause: Duration,
    restarts: u32,
}

impl Member {
    /// A process of this program with these arguments; not started yet.
    pub fn new(name: &str, arguments: Vec<OsString>, http: Option<SocketAddr>, logs: &Path) -> Self {
        let environment = http.iter().map(|http| ("MAILFLEET_HTTP__LISTEN".to_owned(), http.to_string())).collect();
        Self {
            name: name.to_owned(),
            http,
            log: logs.join(format!("{name}.log")),
            arguments,
            environment,
            child: None,
            started: Instant::now(),
            pause: FIRST_PAUSE,
            restarts: 0,
        }
    }

    /// Starts it.
    pub fn start(&mut self) -> anyhow::Result<()> {
        let here = || format!("cannot start {}", self.name);
        let program = std::env::current_exe().with_context(here)?;
        let log = fs::OpenOptions::new().create(true).append(true).open(&self.log).with_context(here)?;
        let errors = log.try_clone().with_context(here)?;
        let mut command = Command::new(program);
        command.args(&self.arguments).envs(self.environment.iter().cloned());
        // A group of its own: Ctrl-C is for the supervisor, who stops the others in order.
        command.process_group(0).stdin(Stdio::null()).stdout(log).stderr(errors).kill_on_drop(true);
        self.child = Some(command.spawn().with_context(here)?);
        self.started = Instant::now();
        Ok(())
    }

    /// How it ended, once, if it did.
    pub fn ended(&mut self) -> Option<String> {
        let status = self.child.as_mut()?.try_wait().ok()??;
        self.child = None;
        if self.started.elapsed() >= GOOD_RUN {
            self.pause = FIRST_PAUSE;
        }
        Some(status.to_string())
    }

    /// Starts it again when its pause is over; whether it did.
    pub fn revive(&mut self) -> anyhow::Result<bool> {
        if self.child.is_some() || self.started.elapsed() < self.pause {
            return Ok(false);
        }
        self.start()?;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        self.restarts += 1;
        Ok(true)
    }

    /// Asks it to end.
    fn terminate(&self) {
        if let Some(pid) = self.child.as_ref().and_then(Child::id) {
            signal(pid, Signal::TERM);
        }
    }

    /// The end of its log.
    pub fn last_words(&self) -> String {
        let bytes = fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(TAIL)..]).trim().to_owned()
    }

    /// What the state file says about it.
    pub fn process(&self) -> Process {
        Process {
            name: self.name.clone(),
            pid: self.child.as_ref().and_then(Child::id),
            restarts: self.restarts,
            http: self.http,
            log: self.log.clone(),
        }
    }
}

/// Stops all of them: in order if they can within the limit, else at once.
pub async fn stop(members: &mut [Member]) {
    for member in members.iter() {
        member.terminate();
    }
    let deadline = Instant::now() + STOP_LIMIT;
    while Instant::now() < deadline
        && members.iter_mut().any(|member| member.child.is_some() && member.ended().is_none())
    {
        tokio::time::sleep(POLL).await;
    }
    for member in members {
        if let Some(mut child) = member.child.take() {
            let _ended_meanwhile = child.kill().await;
        }
    }
}

/// Ends processes that a killed supervisor left behind, if the system still knows them as ours.
pub async fn end_left_behind(processes: &[Process]) {
    let ours = |pid: &u32| is_alive(*pid) && is_this_program(*pid);
    let left = || processes.iter().filter_map(|process| process.pid).filter(ours);
    for pid in left() {
        signal(pid, Signal::TERM);
    }
    let deadline = Instant::now() + STOP_LIMIT;
    while Instant::now() < deadline && left().next().is_some() {
        tokio::time::sleep(POLL).await;
    }
    for pid in left() {
        signal(pid, Signal::KILL);
    }
}

/// Whether the process runs a program named as this one; process ids are used again.
fn is_this_program(pid: u32) -> bool {
    let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let program = command.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(program).rsplit('/').next() == Some("mailfleet")
}

/// Sends a signal; a process that has ended already is no error.
pub fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ended = kill_process(pid, signal);
    }
}
