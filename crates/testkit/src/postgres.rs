//! A private Postgres: found on the machine, its data in one folder, reachable from this machine alone.
//!
//! Started by whoever comes first and found again by the next ([`PostgresServer::start`] attaches to what
//! runs under the folder); it goes on running when its starter ends, unless told otherwise. The superuser
//! `mailfleet` has a password of its own, generated when the data is made and kept in a file that only the
//! user who made it can read.
//!
//! Postgres refuses to run as root. A root user's instance runs as the user `postgres`, or `nobody`; when
//! that user cannot reach the folder, the data goes to `/var/tmp` and the folder keeps a link to it.

use crate::{
    LaunchError,
    process::{self, POLL, children, gone, is_alive},
};
use rustix::process::{Signal, geteuid};
use std::{
    fs, io,
    os::unix::{
        fs::{MetadataExt, PermissionsExt, symlink},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

/// The superuser of a private instance.
pub const SUPERUSER: &str = "mailfleet";
/// The database that is always there.
pub const FIRST_DATABASE: &str = "postgres";
/// The oldest major version that will do.
const OLDEST: u32 = 14;
/// How long a start may take; crash recovery is part of it.
const START_LIMIT: Duration = Duration::from_secs(60);
/// How long a fast shutdown may take.
const STOP_LIMIT: Duration = Duration::from_secs(30);
/// How often a start is tried when somebody else took the port, or the memory of a killed server is still held.
const TRIES: u32 = 5;
/// Longest folder that a Unix socket's path leaves room for (108 octets, less the socket's own name).
const SOCKET_FOLDER: usize = 85;

/// How an instance runs. Options count when it is started; one that runs already stays as it is.
#[derive(Clone, Debug)]
pub struct PostgresOptions {
    /// Port of 127.0.0.1; 0: the one used last time, else a free one.
    pub port: u16,
    /// Whether commits reach the disk. Without it a power loss may lose them, a kill does not. Default true.
    pub fsync: bool,
    /// Most connections. Default 200.
    pub max_connections: u16,
    /// As in `postgresql.conf`. Default 256MB.
    pub shared_buffers: String,
    /// As in `postgresql.conf`. Default 2GB.
    pub max_wal_size: String,
    /// More settings, name and value.
    pub settings: Vec<(String, String)>,
    /// Whether the server ends when the [`PostgresServer`] that started it is dropped. Default false.
    pub stop_on_drop: bool,
}

impl Default for PostgresOptions {
    fn default() -> Self {
        Self {
            port: 0,
            fsync: true,
            max_connections: 200,
            shared_buffers: "256MB".to_owned(),
            max_wal_size: "2GB".to_owned(),
            settings: Vec::new(),
            stop_on_drop: false,
        }
    }
}

/// A private Postgres.
#[derive(Debug)]
pub struct PostgresServer {
    dir: PathBuf,
    data: PathBuf,
    programs: PathBuf,
    options: PostgresOptions,
    user: Option<User>,
    password: String,
    port: u16,
    pid: i32,
    /// Present when this process started it: it must be reaped.
    child: Option<Child>,
}

/// Whom a root user's instance runs as.
#[derive(Clone, Copy, Debug)]
struct User {
    uid: u32,
    gid: u32,
}

impl PostgresServer {
    /// Starts the instance whose data is in `dir`, or attaches to it when it runs; makes the data when there
    /// is none. Returns when it takes connections.
    ///
    /// # Errors
    /// When Postgres is not installed, the folder cannot be used, or the server does not start; the text
    /// says what to do, with the end of the server's log.
    pub async fn start(dir: &Path, options: PostgresOptions) -> Result<Self, LaunchError> {
        let dir = std::path::absolute(dir).map_err(|source| files("find", dir, source))?;
        let _lock = process::lock(&dir).await?;
        let data = locate(&dir)?;
        let mut server = Self {
            programs: programs(&data)?,
            user: user(&data)?,
            password: String::new(),
            port: options.port,
            pid: 0,
            child: None,
            dir,
            data,
            options,
        };
        if !server.data.join("PG_VERSION").exists() {
            server.init().await?;
        }
        let kept = server.password_file();
        server.password = fs::read_to_string(&kept).map_err(|_| LaunchError::NoPassword { path: kept })?;
        if !server.attach().await {
            server.launch().await?;
        }
        Ok(server)
    }

    /// Whether an instance runs in `dir`.
    pub fn is_running(dir: &Path) -> bool {
        Running::read(&dir.join("data")).is_some_and(|running| running.is_alive())
    }

    /// Ends the instance in `dir` if it runs, and removes the folder and the data, wherever that is.
    ///
    /// # Errors
    /// When the server does not end, or something cannot be removed.
    pub async fn remove(dir: &Path) -> Result<(), LaunchError> {
        let data = dir.join("data");
        if let Some(running) = Running::read(&data).filter(Running::is_alive) {
            process::signal(running.pid, Signal::INT)?;
            gone(&[running.pid], STOP_LIMIT, "postgres").await?;
        }
        let elsewhere = fs::read_link(&data).ok().and_then(|data| data.parent().map(Path::to_owned));
        for folder in elsewhere.iter().map(PathBuf::as_path).chain([dir]) {
            match fs::remove_dir_all(folder) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => return Err(files("remove", folder, source)),
                _ => {}
            }
        }
        Ok(())
    }

    /// `postgres://…` of a database on this instance.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://{SUPERUSER}:{}@127.0.0.1:{}/{database}", self.password, self.port)
    }

    /// The port of 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The server's first process.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Where the data is.
    pub fn data_dir(&self) -> &Path {
        &self.data
    }

    /// Where the server logs to.
    pub fn log_path(&self) -> PathBuf {
        self.dir.join("postgres.log")
    }

    /// Ends it: sessions are cut, what was committed is kept (a fast shutdown).
    ///
    /// # Errors
    /// When it does not end within 30 s.
    pub async fn stop(&mut self) -> Result<(), LaunchError> {
        if is_alive(self.pid) {
            process::signal(self.pid, Signal::INT)?;
        }
        self.ended(&[self.pid]).await
    }

    /// Kills every process of it at once, as a crash of the machine's memory would.
    ///
    /// # Errors
    /// When a process cannot be killed.
    pub async fn kill9(&mut self) -> Result<(), LaunchError> {
        // Stopped first: it must not begin another process while they are counted.
        process::signal(self.pid, Signal::STOP)?;
        let mut all = children(self.pid);
        all.push(self.pid);
        for pid in &all {
            process::signal(*pid, Signal::KILL)?;
        }
        self.ended(&all).await
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

    async fn ended(&mut self, pids: &[i32]) -> Result<(), LaunchError> {
        gone(pids, STOP_LIMIT, "postgres").await?;
        if let Some(mut child) = self.child.take() {
            // It has ended, so this does not wait.
            child.wait().map_err(|source| LaunchError::Signal { pid: self.pid, source })?;
        }
        Ok(())
    }

    fn password_file(&self) -> PathBuf {
        self.dir.join("password")
    }

    /// A program of Postgres, run as whom it may.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        command.current_dir("/").stdin(Stdio::null()).env("LC_ALL", "C");
        if let Some(user) = self.user {
            // Both: with a user id given, the standard library drops root's other groups as well.
            command.uid(user.uid).gid(user.gid);
        }
        command
    }

    /// Makes the data beside its place first, so that an interrupted start leaves none that is half made.
    async fn init(&self) -> Result<(), LaunchError> {
        let fresh = self.data.with_extension("new");
        if fresh.exists() {
            fs::remove_dir_all(&fresh).map_err(|source| files("remove", &fresh, source))?;
        }
        fs::create_dir_all(&fresh).map_err(|source| files("make", &fresh, source))?;
        fs::set_permissions(&fresh, fs::Permissions::from_mode(0o700))
            .map_err(|source| files("protect", &fresh, source))?;
        let password = process::secret().map_err(|source| files("read", Path::new("/dev/urandom"), source))?;
        let given = self.data.with_extension("password");
        process::write_private(&given, &password).map_err(|source| files("write", &given, source))?;
        if let Some(user) = self.user {
            for path in [&fresh, &given] {
                std::os::unix::fs::chown(path, Some(user.uid), Some(user.gid))
                    .map_err(|source| files("hand over", path, source))?;
            }
        }
        let mut command = self.command("initdb");
        command.arg("-D").arg(&fresh).arg(format!("--pwfile={}", given.display())).args([
            "-U",
            SUPERUSER,
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C",
            "--no-instructions",
        ]);
        if !self.options.fsync {
            command.arg("--no-sync");
        }
        let output = tokio::process::Command::from(command).output().await;
        let _ = fs::remove_file(&given);
        let output = output.map_err(|source| files("run", &self.programs.join("initdb"), source))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(LaunchError::Helper { program: "initdb", said });
        }
        let kept = self.password_file();
        process::write_private(&kept, &password).map_err(|source| files("write", &kept, source))?;
        fs::rename(&fresh, &self.data).map_err(|source| files("put in place", &self.data, source))
    }

    /// Takes over a server that runs on this data.
    async fn attach(&mut self) -> bool {
        let deadline = tokio::time::Instant::now() + START_LIMIT;
        while let Some(running) = Running::read(&self.data).filter(Running::is_alive) {
            if running.ready && speaks_postgres(running.port).await {
                (self.pid, self.port) = (running.pid, running.port);
                return true;
            }
            // It starts or ends just now.
            if tokio::time::Instant::now() > deadline {
                return false;
            }
            tokio::time::sleep(POLL).await;
        }
        false
    }

    async fn launch(&mut self) -> Result<(), LaunchError> {
        let wanted = self.options.port;
        let mut result = Ok(());
        for _ in 0..TRIES {
            if self.port == 0 {
                self.port = last_port(&self.dir)
                    .filter(|port| process::is_free(*port))
                    .map_or_else(process::free_port, Ok)
                    .map_err(|source| files("find a free port for", &self.dir, source))?;
            }
            result = self.launch_once().await;
            match &result {
                Err(LaunchError::Ended { said, .. }) if said.contains("in use") => {
                    // The memory of a killed server is let go within moments; a port only if we chose it.
                    if wanted == 0 && said.contains("Address already in use") && self.pid == 0 {
                        self.port = 0;
                    }
                    tokio::time::sleep(POLL * 10).await;
                }
                _ => return result,
            }
        }
        result
    }

    async fn launch_once(&mut self) -> Result<(), LaunchError> {
        // Postgres takes any process with the number in its lock file for itself; after a restart of the
        // machine or container that may be another program's.
        let stale = self.data.join("postmaster.pid");
        if Running::read(&self.data).is_some_and(|running| is_alive(running.pid) && !running.is_alive()) {
            fs::remove_file(&stale).map_err(|source| files("remove", &stale, source))?;
        }
        let log = self.log_path();
        let (file, from) = process::log(&log).map_err(|source| files("write", &log, source))?;
        let errors = file.try_clone().map_err(|source| files("write", &log, source))?;
        let mut command = self.command("postgres");
        command.arg("-D").arg(&self.data).stdout(file).stderr(errors);
        // A group of its own: Ctrl-C on a terminal is for its starter, who then stops it in order.
        command.process_group(0);
        for (name, value) in self.settings() {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        let mut child = command.spawn().map_err(|source| files("run", &self.programs.join("postgres"), source))?;
        let pid = i32::try_from(child.id()).unwrap_or(0);
        let deadline = tokio::time::Instant::now() + START_LIMIT;
        loop {
            if child.try_wait().map_err(|source| LaunchError::Signal { pid, source })?.is_some() {
                return Err(LaunchError::Ended { program: "postgres", said: process::tail(&log, from), log });
            }
            if Running::read(&self.data).is_some_and(|running| running.pid == pid && running.ready) {
                break;
            }
            if tokio::time::Instant::now() > deadline {
                process::signal(pid, Signal::QUIT)?;
                let said = process::tail(&log, from);
                return Err(LaunchError::NotReady { program: "postgres", limit: START_LIMIT, said, log });
            }
            tokio::time::sleep(POLL).await;
        }
        (self.pid, self.child) = (pid, Some(child));
        let kept = self.dir.join("port");
        fs::write(&kept, self.port.to_string()).map_err(|source| files("write", &kept, source))
    }

    fn settings(&self) -> Vec<(String, String)> {
        let on = |flag: bool| if flag { "on" } else { "off" };
        let socket =
            if self.data.as_os_str().len() <= SOCKET_FOLDER { self.data.display().to_string() } else { String::new() };
        let mut settings = vec![
            ("port", self.port.to_string()),
            ("listen_addresses", "127.0.0.1".to_owned()),
            ("unix_socket_directories", socket),
            ("fsync", on(self.options.fsync).to_owned()),
            ("full_page_writes", on(self.options.fsync).to_owned()),
            ("max_connections", self.options.max_connections.to_string()),
            ("shared_buffers", self.options.shared_buffers.clone()),
            ("max_wal_size", self.options.max_wal_size.clone()),
            ("jit", "off".to_owned()),
            ("logging_collector", "off".to_owned()),
            ("log_destination", "stderr".to_owned()),
        ];
        let more = self.options.settings.iter().map(|(name, value)| (name.as_str(), value.clone()));
        settings.extend(more);
        settings.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        if self.options.stop_on_drop
            && let Some(mut child) = self.child.take()
        {
            // Immediate: whoever wanted it kept would have called `stop`.
            if process::signal(self.pid, Signal::QUIT).is_ok() {
                let _ = child.wait();
            }
        }
    }
}

fn files(what: &'static str, path: &Path, source: io::Error) -> LaunchError {
    LaunchError::Files { what, path: path.to_owned(), source }
}

/// What `postmaster.pid` says: process, port (fourth line) and status (eighth).
struct Running {
    pid: i32,
    port: u16,
    ready: bool,
}

impl Running {
    fn read(data: &Path) -> Option<Self> {
        let text = fs::read_to_string(data.join("postmaster.pid")).ok()?;
        let lines: Vec<_> = text.lines().map(str::trim).collect();
        let ready = lines.get(7).is_some_and(|status| *status == "ready");
        Some(Self { pid: lines.first()?.parse().ok()?, port: lines.get(3)?.parse().ok()?, ready })
    }
}

impl Running {
    fn is_alive(&self) -> bool {
        is_alive(self.pid) && process::may_be(self.pid, "postgres")
    }
}

/// Whether a server on this port answers an SSLRequest as Postgres does, with one letter.
async fn speaks_postgres(port: u16) -> bool {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let asked = async {
        let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await?;
        stream.write_all(&[0, 0, 0, 8, 4, 210, 22, 47]).await?;
        stream.read_u8().await
    };
    matches!(tokio::time::timeout(Duration::from_secs(2), asked).await, Ok(Ok(b'N' | b'S')))
}

fn last_port(dir: &Path) -> Option<u16> {
    fs::read_to_string(dir.join("port")).ok()?.trim().parse().ok()
}

/// Where the data is: `dir/data`, or where that links to.
fn locate(dir: &Path) -> Result<PathBuf, LaunchError> {
    let data = dir.join("data");
    if let Ok(elsewhere) = fs::read_link(&data) {
        if elsewhere.exists() {
            return Ok(elsewhere);
        }
        fs::remove_file(&data).map_err(|source| files("remove", &data, source))?;
    }
    if data.exists() || !geteuid().is_root() {
        return Ok(data);
    }
    let user = unprivileged()?;
    if reaches(dir, user) {
        return Ok(data);
    }
    // The name tells the same folder the same place, and two folders never one.
    let elsewhere = PathBuf::from(format!(
        "/var/tmp/mailfleet-{}",
        process::secret().map_err(|source| files("name", dir, source))?
    ));
    tracing::info!(folder = %elsewhere.display(), "the database user cannot reach the data folder, data goes elsewhere");
    fs::create_dir(&elsewhere).map_err(|source| files("make", &elsewhere, source))?;
    fs::set_permissions(&elsewhere, fs::Permissions::from_mode(0o711))
        .map_err(|source| files("open", &elsewhere, source))?;
    let there = elsewhere.join("data");
    symlink(&there, &data).map_err(|source| files("link", &data, source))?;
    Ok(there)
}

/// Whether `user` may enter `dir` and every folder above it.
fn reaches(dir: &Path, user: User) -> bool {
    dir.ancestors().all(|folder| {
        let Ok(found) = fs::metadata(folder) else { return false };
        let needed = if found.uid() == user.uid {
            0o100
        } else if found.gid() == user.gid {
            0o010
        } else {
            0o001
        };
        found.mode() & needed != 0
    })
}

/// Whom to run as: ourselves (`None`), or for root the owner of the data, else an unprivileged user.
fn user(data: &Path) -> Result<Option<User>, LaunchError> {
    let us = geteuid();
    let owner = fs::metadata(data).ok();
    if !us.is_root() {
        return match owner {
            Some(owner) if owner.uid() != us.as_raw() => {
                Err(LaunchError::OtherOwner { path: data.to_owned(), owner: owner.uid(), us: us.as_raw() })
            }
            _ => Ok(None),
        };
    }
    match owner {
        Some(owner) if owner.uid() != 0 => Ok(Some(User { uid: owner.uid(), gid: owner.gid() })),
        _ => unprivileged().map(Some),
    }
}

fn unprivileged() -> Result<User, LaunchError> {
    let id = |flag: &str, name: &str| -> Option<u32> {
        let output = Command::new("id").args([flag, name]).output().ok()?;
        String::from_utf8(output.stdout).ok()?.trim().parse().ok()
    };
    let found = |name| Some(User { uid: id("-u", name).filter(|uid| *uid != 0)?, gid: id("-g", name)? });
    found("postgres").or_else(|| found("nobody")).ok_or(LaunchError::NoUser)
}

/// The folder with `postgres` and `initdb`: the first in `PATH`, else the newest; of the version that made the
/// data, if there is data.
fn programs(data: &Path) -> Result<PathBuf, LaunchError> {
    let is_there = |folder: &PathBuf| ["postgres", "initdb"].iter().all(|name| process::is_program(&folder.join(name)));
    let major = |folder: &PathBuf| Some(process::version(&folder.join("postgres"))?.0);
    let mut elsewhere: Vec<_> =
        PLACES.iter().flat_map(|(parent, prefix, below)| expand(parent, prefix, below)).collect();
    elsewhere.retain(is_there);
    elsewhere.sort_by_key(|folder| std::cmp::Reverse(major(folder)));
    let found: Vec<(u32, PathBuf)> = process::path_folders()
        .into_iter()
        .filter(is_there)
        .chain(elsewhere)
        .filter_map(|folder| Some((major(&folder)?, folder)))
        .filter(|(major, _)| *major >= OLDEST)
        .collect();
    let Some((_, first)) = found.first() else {
        return Err(LaunchError::NoProgram {
            program: "postgres",
            at_least: "14",
            looked_in: "PATH, /usr/lib/postgresql, /usr/pgsql-*, /usr/libexec/postgresql* and Homebrew".to_owned(),
            hint: "Debian: apt-get install postgresql, Fedora: dnf install postgresql-server, Alpine: apk add postgresql, macOS: brew install postgresql",
            variable: "DATABASE_URL",
        });
    };
    let Ok(made_by) = fs::read_to_string(data.join("PG_VERSION")) else { return Ok(first.clone()) };
    let made_by = made_by.trim().to_owned();
    let same = found.iter().find(|(major, _)| major.to_string() == made_by);
    same.map(|(_, folder)| folder.clone()).ok_or_else(|| LaunchError::OtherVersion {
        path: data.to_owned(),
        made_by,
        found: found.iter().map(|(major, _)| major.to_string()).collect::<Vec<_>>().join(", "),
    })
}

/// Where systems put the server: every folder in the first whose name begins with the second, and below it the third.
const PLACES: &[(&str, &str, &str)] = &[
    ("/usr/lib/postgresql", "", "bin"),
    ("/usr", "pgsql-", "bin"),
    ("/usr/libexec", "postgresql", ""),
    ("/usr/local", "pgsql", "bin"),
    ("/opt/homebrew/opt", "postgresql", "bin"),
    ("/usr/local/opt", "postgresql", "bin"),
    ("/home/linuxbrew/.linuxbrew/opt", "postgresql", "bin"),
];

fn expand(parent: &str, prefix: &str, below: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(parent) else { return Vec::new() };
    let named = entries.filter_map(Result::ok).filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix));
    named.map(|entry| entry.path().join(below)).collect()
}
