//! `up` and `down`: starting, watching and stopping a local fleet.

use super::{
    children::{self, Member, end_left_behind},
    config, http,
    neighbours::{self, Neighbours},
    state::{State, is_alive, write_private},
};
use crate::{
    args::{Global, Service, UpArgs},
    exit::{Exit, Failure},
    output::Output,
};
use anyhow::Context;
use rustix::process::Signal;
use serde_json::json;
use std::{
    ffi::OsString,
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};
use tokio::{
    net::TcpStream,
    signal::unix::{SignalKind, signal},
};

/// How long the services may take to become ready.
const READY_LIMIT: Duration = Duration::from_secs(60);
/// How long `down` waits for the supervisor to end.
const DOWN_LIMIT: Duration = Duration::from_secs(90);
/// How often is looked whether something has come or ended.
const POLL: Duration = Duration::from_millis(100);
/// The port of the API when it is free.
const INGEST_PORT: u16 = 7025;
/// Where recipients reach feedback, when the port is free: links in mails of an earlier start go on leading there.
const WEB_PORT: u16 = 7080;
/// Where bounces come in, when the port is free.
const INBOUND_PORT: u16 = 7125;

/// Which servers to use; `None`: a private one.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    pub postgres: Option<String>,
    pub nats: Option<String>,
}

/// A local fleet, watched over by this process.
pub struct LocalFleet {
    dir: PathBuf,
    neighbours: Neighbours,
    members: Vec<Member>,
    state: State,
    out: Output,
    /// Held as long as the fleet runs; ends with this process, however that ends.
    _lock: fs::File,
}

impl LocalFleet {
    /// Starts everything, and returns when all of it is ready. What was started is stopped when that fails.
    pub async fn start(dir: &Path, wanted: Wanted, out: Output) -> anyhow::Result<Self> {
        let dir = prepare_folder(dir)?;
        let lock = lock(&dir)?;
        clean_up(&dir).await?;
        out.note("starting postgres and nats ...");
        let mut neighbours = Neighbours::start(&dir, wanted.postgres, wanted.nats).await?;
        let made = async {
            neighbours.prepare().await?;
            make(&dir, &neighbours).await
        };
        let (members, state) = match made.await {
            Ok(made) => made,
            Err(error) => {
                neighbours.stop().await.context("and cannot stop what was started")?;
                return Err(error);
            }
        };
        let mut fleet = Self { dir, neighbours, members, state, out, _lock: lock };
        match fleet.launch().await {
            Ok(()) => Ok(fleet),
            Err(error) => {
                fleet.stop().await?;
                Err(error)
            }
        }
    }

    /// What other commands are told.
    pub fn state(&self) -> &State {
        &self.state
    }

    async fn launch(&mut self) -> anyhow::Result<()> {
        self.out.note("starting the services ...");
        for member in &mut self.members {
            member.start()?;
        }
        self.publish()?;
        self.wait_until_ready().await?;
        self.state.ready = true;
        self.publish()
    }

    /// Waits until every process answers, and every service says that it is ready.
    async fn wait_until_ready(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + READY_LIMIT;
        loop {
            if let Some(member) = self.members.iter_mut().find_map(|member| member.ended().map(|_| &*member)) {
                return Err(Failure::unavailable(format!(
                    "{} ended as soon as it was started; the end of its log ({}):\n{}",
                    member.name,
                    member.log.display(),
                    member.last_words()
                )));
            }
            let mut missing = Vec::new();
            for member in &self.members {
                let trouble = match member.http {
                    Some(address) => match http::ready(address).await {
                        None => Some("does not answer yet".to_owned()),
                        Some(answer) => (!answer.ok).then(|| answer.trouble()),
                    },
                    None => TcpStream::connect(self.state.sink).await.err().map(|error| error.to_string()),
                };
                missing.extend(trouble.map(|trouble| format!("{}: {trouble}", member.name)));
            }
            if missing.is_empty() {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(Failure::unavailable(format!(
                    "not ready after {READY_LIMIT:?}: {}; logs are in {}",
                    missing.join("; "),
                    self.dir.join("logs").display()
                )));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Watches over the processes: says which one ended, and starts it again. Never returns by itself, but for a
    /// process that cannot be started at all.
    pub async fn watch(&mut self) -> anyhow::Result<()> {
        loop {
            tokio::time::sleep(POLL).await;
            let mut changed = false;
            for member in &mut self.members {
                if let Some(how) = member.ended() {
                    crate::output::complain(&format!(
                        "{} ended ({how}) and is started again; its log is {}",
                        member.name,
                        member.log.display()
                    ));
                    changed = true;
                }
                changed |= member.revive()?;
            }
            if changed {
                self.publish()?;
            }
        }
    }

    /// Stops everything, in the order of the mails' road, Postgres last.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        children::stop(&mut self.members).await;
        let stopped = self.neighbours.stop().await;
        State::remove(&self.dir);
        Ok(stopped?)
    }

    fn publish(&mut self) -> anyhow::Result<()> {
        self.state.processes = self.members.iter().map(Member::process).collect();
        self.state.write(&self.dir)
    }
}

/// The folder as an absolute path, made when it is missing.
fn prepare_folder(dir: &Path) -> anyhow::Result<PathBuf> {
    let here = || format!("cannot use {}", dir.display());
    fs::create_dir_all(dir.join("logs")).with_context(here)?;
    dir.canonicalize().with_context(here)
}

/// One supervisor a folder.
fn lock(dir: &Path) -> anyhow::Result<fs::File> {
    let path = dir.join("supervisor.lock");
    let here = || format!("cannot lock {}", path.display());
    let file = fs::OpenOptions::new().create(true).append(true).open(&path).with_context(here)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => {
            Err(Failure::finding(format!("a local fleet runs in {} already; see `mailfleet status`", dir.display())))
        }
        Err(fs::TryLockError::Error(error)) => Err(error).with_context(here),
    }
}

/// Ends what a killed supervisor left.
async fn clean_up(dir: &Path) -> anyhow::Result<()> {
    if let Ok(Some(left)) = State::read(dir) {
        end_left_behind(&left.processes).await;
    }
    State::remove(dir);
    Ok(())
}

/// Keys, configuration and processes, nothing started yet.
async fn make(dir: &Path, neighbours: &Neighbours) -> anyhow::Result<(Vec<Member>, State)> {
    let admin_key_file = neighbours.admin_key(dir).await?;
    let master_key = neighbours::master_key(dir)?;
    let (journal, mailbox, logs) = (dir.join("journal"), dir.join("mailbox"), dir.join("logs"));
    for folder in [&journal, &mailbox] {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let mut ports = Ports::default();
    let (ingest, sink, web) = (ports.preferably(INGEST_PORT)?, ports.any()?, ports.preferably(WEB_PORT)?);
    let inbound = ports.preferably(INBOUND_PORT)?;
    let spool = dir.join("feedback-spool");
    let config = dir.join("mailfleet.toml");
    let parts = config::Parts {
        postgres_url: &neighbours.postgres_url,
        nats_url: &neighbours.nats_url,
        ingest,
        sink,
        web,
        inbound,
        spool: &spool,
        master_key: &master_key,
        journal: &journal,
    };
    write_private(&config, config::text(&parts).as_bytes())?;
    let mut arguments: Vec<OsString> = vec!["sink".into(), "--listen".into(), sink.to_string().into()];
    arguments.extend(["--mailbox".into(), mailbox.clone().into_os_string()]);
    let mut members = vec![Member::new("sink", arguments, None, &logs)];
    for service in Service::ALL {
        let arguments = vec!["run".into(), service.name().into(), "--config".into(), config.clone().into_os_string()];
        members.push(Member::new(service.name(), arguments, Some(ports.any()?), &logs));
    }
    let state = State {
        version: State::VERSION,
        supervisor: std::process::id(),
        ready: false,
        endpoint: format!("http://{ingest}"),
        config,
        admin_key_file,
        postgres: service::SecretUrl::new(&neighbours.postgres_url).to_string(),
        nats: service::SecretUrl::new(&neighbours.nats_url).to_string(),
        sink,
        mailbox,
        inbound: Some(inbound),
        processes: Vec::new(),
    };
    Ok((members, state))
}

/// Free ports of loopback. All are held until the last is found, so that none is given twice.
#[derive(Default)]
struct Ports {
    held: Vec<TcpListener>,
}

impl Ports {
    fn any(&mut self) -> anyhow::Result<SocketAddr> {
        self.take(0).context("cannot find a free port")
    }

    fn preferably(&mut self, port: u16) -> anyhow::Result<SocketAddr> {
        if is_ours(port)
            && let Ok(address) = self.take(port)
        {
            return Ok(address);
        }
        self.any()
    }

    fn take(&mut self, port: u16) -> std::io::Result<SocketAddr> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
        let address = listener.local_addr()?;
        self.held.push(listener);
        Ok(address)
    }
}

/// Whether no other fleet that starts now wants this port: both would find it free, and one could not listen. As long as
/// this process lives.
fn is_ours(port: u16) -> bool {
    let path = std::env::temp_dir().join(format!("mailfleet-port-{port}.lock"));
    // Where there can be no lock the port is tried all the same.
    let Ok(file) = fs::OpenOptions::new().create(true).append(true).open(path) else { return true };
    let is_ours = file.try_lock().is_ok();
    std::mem::forget(file);
    is_ours
}

/// Waits for the signal that ends the command.
pub async fn told_to_end() -> anyhow::Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

/// Starts a fleet. Who is told to end meanwhile leaves nothing behind.
pub async fn start_unless_told_to_end(dir: &Path, wanted: Wanted, out: Output) -> anyhow::Result<LocalFleet> {
    let told = tokio::select! {
        fleet = LocalFleet::start(dir, wanted, out) => return fleet,
        told = told_to_end() => told,
    };
    // The children ended with what was dropped; the private servers go on until they are stopped.
    clean_up(dir).await?;
    Neighbours::stop_left_behind(dir).await?;
    told?;
    Err(Failure::finding("was told to end before everything was ready"))
}

/// Starts a local fleet: stays with it, or leaves it to a process in the background.
pub async fn up(args: &UpArgs, global: &Global, out: Output) -> anyhow::Result<Exit> {
    if let Some(state) = State::running(&global.dir)? {
        out.answer(&state, || format!("a local fleet runs already\n{}", where_it_is(&state)))?;
        return Ok(Exit::Ok);
    }
    if args.detach {
        return detach(args, global, out).await;
    }
    let wanted = Wanted { postgres: args.postgres.clone(), nats: args.nats.clone() };
    if wanted.postgres.is_some() || wanted.nats.is_some() {
        out.note("using servers that were named: mail that waits there is sent too, to the sink of this machine");
    }
    let mut fleet = start_unless_told_to_end(&global.dir, wanted, out).await?;
    out.answer(fleet.state(), || format!("{}\nCtrl-C stops it", where_it_is(fleet.state())))?;
    let watched = tokio::select! {
        watched = fleet.watch() => watched,
        told = told_to_end() => told,
    };
    out.note("stopping ...");
    fleet.stop().await?;
    watched?;
    Ok(Exit::Ok)
}

/// Where everything is, for people.
pub fn where_it_is(state: &State) -> String {
    format!(
        "the fleet is ready\n  API       {} (gRPC)\n  key       {}\n  sink      {}, mails in {}\n  postgres  {}\n  nats      {}\n  logs      {}",
        state.endpoint,
        state.admin_key_file.display(),
        state.sink,
        state.mailbox.display(),
        state.postgres,
        state.nats,
        state.processes.first().and_then(|process| process.log.parent()).unwrap_or(Path::new("")).display(),
    )
}

async fn detach(args: &UpArgs, global: &Global, out: Output) -> anyhow::Result<Exit> {
    use std::os::unix::process::CommandExt;
    let dir = prepare_folder(&global.dir)?;
    let log = dir.join("logs").join("up.log");
    let file = fs::File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
    let mut command = std::process::Command::new(std::env::current_exe()?);
    command.arg("up").arg("--dir").arg(&dir).stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
    // A secret in a URL is handed on where nobody reads it.
    command.envs(args.postgres.iter().map(|url| ("DATABASE_URL", url)));
    command.envs(args.nats.iter().map(|url| ("NATS_URL", url)));
    let mut supervisor = command.process_group(0).spawn().context("cannot start the supervisor")?;
    let deadline = Instant::now() + READY_LIMIT * 3;
    loop {
        if let Some(status) = supervisor.try_wait()? {
            let said = fs::read_to_string(&log).unwrap_or_default();
            return Err(Failure::unavailable(format!("the fleet did not come up ({status}):\n{}", said.trim())));
        }
        if let Some(state) = State::running(&dir)?.filter(|state| state.ready) {
            out.answer(&state, || format!("{}\n`mailfleet down` stops it", where_it_is(&state)))?;
            return Ok(Exit::Ok);
        }
        if Instant::now() > deadline {
            return Err(Failure::unavailable(format!("the fleet is not ready yet; see {}", log.display())));
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Stops the local fleet, or what a killed one left.
pub async fn down(quiet: bool, global: &Global, out: Output) -> anyhow::Result<Exit> {
    let dir = &global.dir;
    if !dir.exists() {
        return nothing_runs(quiet, dir, out);
    }
    let ran = State::read(dir)?.is_some();
    if let Some(state) = State::running(dir)? {
        children::signal(state.supervisor, Signal::TERM);
        let deadline = Instant::now() + DOWN_LIMIT;
        while is_alive(state.supervisor) {
            if Instant::now() > deadline {
                return Err(Failure::unavailable(format!("process {} does not end", state.supervisor)));
            }
            tokio::time::sleep(POLL).await;
        }
    }
    // Nothing, unless the supervisor was killed.
    clean_up(dir).await?;
    Neighbours::stop_left_behind(dir).await?;
    if ran { stopped(out) } else { nothing_runs(quiet, dir, out) }
}

fn stopped(out: Output) -> anyhow::Result<Exit> {
    out.answer(&json!({"stopped": true}), || "stopped; the data stay, `make clean-local` removes them".to_owned())?;
    Ok(Exit::Ok)
}

fn nothing_runs(quiet: bool, dir: &Path, out: Output) -> anyhow::Result<Exit> {
    if !quiet {
        out.answer(&json!({"stopped": false}), || format!("no local fleet runs in {}", dir.display()))?;
    }
    Ok(if quiet { Exit::Ok } else { Exit::Finding })
}
