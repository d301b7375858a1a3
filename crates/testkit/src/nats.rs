//! A private NATS server with JetStream: found on the machine, its data in one folder, reachable from this
//! machine alone and without a password, since nothing is trusted to it.
//!
//! Started by whoever comes first and found again by the next; it goes on running when its starter ends,
//! unless told otherwise.

use crate::{
    LaunchError,
    process::{self, POLL, gone, is_alive},
};
use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use std::{
    fs, io,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

/// The oldest version that will do.
const OLDEST: (u32, u32) = (2, 9);
const START_LIMIT: Duration = Duration::from_secs(30);
/// How long it may take to end. A server whose disk is full ignores the request; it is then killed.
const STOP_LIMIT: Duration = Duration::from_secs(10);
/// How often a start is tried when somebody else took a port.
const TRIES: u32 = 5;
/// The longest greeting that is read.
const MAX_INFO: usize = 64 * 1024;

/// How a server runs. Options count when it is started; one that runs already stays as it is.
#[derive(Clone, Debug)]
pub struct NatsOptions {
    /// Port of 127.0.0.1; 0: the one used last time, else a free one.
    pub port: u16,
    /// Memory for streams, in octets. Default 512 MiB.
    pub max_mem: u64,
    /// Disk for streams, in octets. Default 1 GiB.
    pub max_file: u64,
    /// Largest message, in octets. Default 8 MiB.
    pub max_payload: u64,
    /// Whether the server ends when the [`NatsServer`] that started it is dropped. Default false.
    pub stop_on_drop: bool,
}

impl Default for NatsOptions {
    fn default() -> Self {
        Self { port: 0, max_mem: 512 << 20, max_file: 1 << 30, max_payload: 8 << 20, stop_on_drop: false }
    }
}

/// A private NATS server.
#[derive(Debug)]
pub struct NatsServer {
    dir: PathBuf,
    program: PathBuf,
    options: NatsOptions,
    instance: Instance,
    /// Present when this process started it: it must be reaped.
    child: Option<Child>,
}

/// What the next process needs to find it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Instance {
    name: String,
    pid: i32,
    port: u16,
    monitor_port: u16,
}

/// What the server greets with, as far as it matters here.
#[derive(Deserialize)]
struct Info {
    server_name: String,
    #[serde(default)]
    jetstream: bool,
}

impl NatsServer {
    /// Starts the server whose data is in `dir`, or attaches to it when it runs. Returns when JetStream is there.
    ///
    /// # Errors
    /// When nats-server is not installed, the folder cannot be used, or the server does not start; the text
    /// says what to do, with the end of the server's log.
    pub async fn start(dir: &Path, options: NatsOptions) -> Result<Self, LaunchError> {
        let dir = std::path::absolute(dir).map_err(|source| files("find", dir, source))?;
        let _lock = process::lock(&dir).await?;
        let instance = Instance::read(&dir).unwrap_or_default();
        let mut server = Self { program: program()?, dir, options, instance, child: None };
        if !server.attach().await {
            server.launch().await?;
        }
        Ok(server)
    }

    /// Whether a server runs in `dir`.
    pub fn is_running(dir: &Path) -> bool {
        Instance::read(dir)
            .is_some_and(|instance| is_alive(instance.pid) && process::may_be(instance.pid, "nats-server"))
    }

    /// `nats://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.instance.port)
    }

    /// The port of 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.instance.port
    }

    /// Where it tells about itself: `http://127.0.0.1:PORT`.
    pub fn monitor_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.instance.monitor_port)
    }

    /// The server's process.
    pub fn pid(&self) -> i32 {
        self.instance.pid
    }

    /// Where the server logs to.
    pub fn log_path(&self) -> PathBuf {
        self.dir.join("nats.log")
    }

    /// Ends it in order; kills it when it does not end within 10 s.
    ///
    /// # Errors
    /// When it is still there after that.
    pub async fn stop(&mut self) -> Result<(), LaunchError> {
        if !is_alive(self.pid()) {
            return self.ended().await;
        }
        process::signal(self.pid(), Signal::TERM)?;
        match self.ended().await {
            Err(LaunchError::StillRunning { .. }) => self.kill9().await,
            other => other,
        }
    }

    /// Kills it.
    ///
    /// # Errors
    /// When it cannot be killed.
    pub async fn kill9(&mut self) -> Result<(), LaunchError> {
        process::signal(self.pid(), Signal::KILL)?;
        self.ended().await
    }

    /// Starts it again on the same port, after a stop, a kill, or while it runs.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn restart(&mut self) -> Result<(), LaunchError> {
        let _lock = process::lock(&self.dir).await?;
        self.stop().await?;
        self.launch().await
    }

    /// Kills it, removes everything it stored, and starts it again on the same port.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn wipe(&mut self) -> Result<(), LaunchError> {
        let _lock = process::lock(&self.dir).await?;
        self.kill9().await?;
        let stored = self.store_dir();
        match fs::remove_dir_all(&stored) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => return Err(files("remove", &stored, source)),
            _ => {}
        }
        self.launch().await
    }

    fn store_dir(&self) -> PathBuf {
        self.dir.join("data")
    }

    async fn ended(&mut self) -> Result<(), LaunchError> {
        gone(&[self.pid()], STOP_LIMIT, "nats-server").await?;
        if let Some(mut child) = self.child.take() {
            // It has ended, so this does not wait.
            child.wait().map_err(|source| LaunchError::Signal { pid: self.pid(), source })?;
        }
        Ok(())
    }

    async fn attach(&self) -> bool {
        let deadline = tokio::time::Instant::now() + START_LIMIT;
        while is_alive(self.pid()) && process::may_be(self.pid(), "nats-server") {
            match greeting(self.port()).await {
                Some(info) => return info.server_name == self.instance.name && info.jetstream,
                None if tokio::time::Instant::now() > deadline => return false,
                None => tokio::time::sleep(POLL).await,
            }
        }
        false
    }

    async fn launch(&mut self) -> Result<(), LaunchError> {
        let dir = self.dir.clone();
        let failed = |source| files("find a free port for", &dir, source);
        let mut result = Ok(());
        for turn in 0..TRIES {
            // The ports of last time if nobody took them, so that who is connected finds the server again.
            let again = |port: u16| {
                if turn == 0 && port != 0 && process::is_free(port) { Ok(port) } else { process::free_port() }
            };
            let port =
                if self.options.port == 0 { again(self.instance.port).map_err(failed)? } else { self.options.port };
            let monitor_port = again(self.instance.monitor_port).map_err(failed)?;
            let name = format!("mailfleet-{}", process::secret().map_err(failed)?);
            let instance = Instance { name, pid: 0, port, monitor_port };
            result = match self.launch_once(instance).await {
                Err(LaunchError::Ended { said, log, program }) if said.contains("address already in use") => {
                    Err(LaunchError::Ended { said, log, program })
                }
                other => return other,
            };
        }
        result
    }

    async fn launch_once(&mut self, mut instance: Instance) -> Result<(), LaunchError> {
        let config = self.dir.join("nats.conf");
        process::write_private(&config, &self.config(&instance)).map_err(|source| files("write", &config, source))?;
        let log = self.log_path();
        let (file, from) = process::log(&log).map_err(|source| files("write", &log, source))?;
        let errors = file.try_clone().map_err(|source| files("write", &log, source))?;
        let mut command = Command::new(&self.program);
        command.arg("--config").arg(&config).current_dir("/").stdin(Stdio::null()).stdout(file).stderr(errors);
        // A group of its own: Ctrl-C on a terminal is for its starter, who then stops it in order.
        command.process_group(0);
        let mut child = command.spawn().map_err(|source| files("run", &self.program, source))?;
        instance.pid = i32::try_from(child.id()).unwrap_or(0);
        let deadline = tokio::time::Instant::now() + START_LIMIT;
        loop {
            if child.try_wait().map_err(|source| LaunchError::Signal { pid: instance.pid, source })?.is_some() {
                return Err(LaunchError::Ended { program: "nats-server", said: process::tail(&log, from), log });
            }
            if greeting(instance.port).await.is_some_and(|info| info.server_name == instance.name && info.jetstream) {
                break;
            }
            if tokio::time::Instant::now() > deadline {
                process::signal(instance.pid, Signal::KILL)?;
                let said = process::tail(&log, from);
                return Err(LaunchError::NotReady { program: "nats-server", limit: START_LIMIT, said, log });
            }
            tokio::time::sleep(POLL).await;
        }
        instance.write(&self.dir)?;
        (self.instance, self.child) = (instance, Some(child));
        Ok(())
    }

    fn config(&self, instance: &Instance) -> String {
        let NatsOptions { max_mem, max_file, max_payload, .. } = self.options;
        let Instance { name, port, monitor_port, .. } = instance;
        // A string of this format is written as one of JSON.
        let stored = serde_json::Value::from(self.store_dir().to_string_lossy().into_owned());
        format!(
            "# Written at every start.\n\
             server_name: \"{name}\"\n\
             listen: \"127.0.0.1:{port}\"\n\
             http: \"127.0.0.1:{monitor_port}\"\n\
             max_payload: {max_payload}\n\
             max_pending: 67108864\n\
             write_deadline: \"10s\"\n\
             jetstream {{ store_dir: {stored}, max_mem: {max_mem}, max_file: {max_file} }}\n"
        )
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        if self.options.stop_on_drop
            && let Some(mut child) = self.child.take()
        {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Instance {
    fn read(dir: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(dir.join("instance.json")).ok()?).ok()
    }

    fn write(&self, dir: &Path) -> Result<(), LaunchError> {
        let path = dir.join("instance.json");
        let text = serde_json::to_string(self).expect("four plain fields can be written as JSON");
        process::write_private(&path, &text).map_err(|source| files("write", &path, source))
    }
}

fn files(what: &'static str, path: &Path, source: io::Error) -> LaunchError {
    LaunchError::Files { what, path: path.to_owned(), source }
}

/// What the server on this port says first: `INFO {…}`.
async fn greeting(port: u16) -> Option<Info> {
    use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
    let read = async {
        let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.ok()?;
        let mut line = String::new();
        BufReader::new(stream.take(MAX_INFO as u64)).read_line(&mut line).await.ok()?;
        serde_json::from_str(line.strip_prefix("INFO ")?).ok()
    };
    tokio::time::timeout(Duration::from_secs(2), read).await.ok().flatten()
}

/// `nats-server`: the first in `PATH`, else where systems and Homebrew put it.
fn program() -> Result<PathBuf, LaunchError> {
    const ELSEWHERE: &[&str] =
        &["/usr/sbin", "/usr/local/sbin", "/usr/local/bin", "/opt/homebrew/bin", "/home/linuxbrew/.linuxbrew/bin"];
    process::path_folders()
        .into_iter()
        .chain(ELSEWHERE.iter().map(PathBuf::from))
        .map(|folder| folder.join("nats-server"))
        .find(|path| process::is_program(path) && process::version(path).is_some_and(|version| version >= OLDEST))
        .ok_or_else(|| LaunchError::NoProgram {
            program: "nats-server",
            at_least: "2.9",
            looked_in: format!("PATH, {}", ELSEWHERE.join(", ")),
            hint: "Debian: apt-get install nats-server, macOS: brew install nats-server, elsewhere: https://github.com/nats-io/nats-server/releases",
            variable: "NATS_URL",
        })
}
