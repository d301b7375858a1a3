//! What the launchers share: programs, ports, processes, secrets.

use crate::LaunchError;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use std::{
    fs,
    io::{self, Read},
    net::TcpListener,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

/// How often a launcher looks whether what it waits for has come.
pub(crate) const POLL: Duration = Duration::from_millis(20);
/// How much of a server's log an error shows.
const TAIL: usize = 1_500;

/// A variable of the environment, unless it is empty.
#[expect(clippy::disallowed_methods, reason = "tests and launchers have no configuration of their own")]
pub(crate) fn variable(name: &str) -> Option<std::ffi::OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// The folders of `PATH`, in order.
pub(crate) fn path_folders() -> Vec<PathBuf> {
    variable("PATH").map(|path| std::env::split_paths(&path).collect()).unwrap_or_default()
}

/// Whether `path` is a file that may be executed.
pub(crate) fn is_program(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}

/// The first number in what `program --version` prints that looks like a version: major and minor.
pub(crate) fn version(program: &Path) -> Option<(u32, u32)> {
    let output = Command::new(program).arg("--version").current_dir("/").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let number = text
        .split_whitespace()
        .map(|word| word.trim_start_matches('v'))
        .find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
    let mut parts = number.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
    Some((parts.next()?, parts.next().unwrap_or(0)))
}

/// A port of 127.0.0.1 that is free now. Somebody else may take it before it is used: callers try again.
pub(crate) fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// Whether `port` of 127.0.0.1 can be listened on.
pub(crate) fn is_free(port: u16) -> bool {
    TcpListener::bind(("127.0.0.1", port)).is_ok()
}

/// Whether the process runs; one that has ended and waits to be reaped does not.
pub(crate) fn is_alive(pid: i32) -> bool {
    let Some(target) = Pid::from_raw(pid).filter(|_| pid > 1) else { return false };
    let there = match test_kill_process(target) {
        Ok(()) | Err(rustix::io::Errno::PERM) => true,
        Err(_) => false,
    };
    there && state(pid) != Some('Z')
}

/// Whether the process can be `program`: its number may belong to another one since. Where there is no `/proc`,
/// nothing can be said against it.
pub(crate) fn may_be(pid: i32, program: &str) -> bool {
    fs::read_to_string(format!("/proc/{pid}/comm")).map_or(true, |name| name.trim() == program)
}

/// The state letter of `/proc/PID/stat`, which follows the last bracket; `None` where there is no `/proc`.
fn state(pid: i32) -> Option<char> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    text.rsplit_once(')')?.1.trim_start().chars().next()
}

/// Sends a signal; a process that has ended already is no error.
pub(crate) fn signal(pid: i32, signal: Signal) -> Result<(), LaunchError> {
    let Some(target) = Pid::from_raw(pid).filter(|_| pid > 1) else { return Ok(()) };
    match kill_process(target, signal) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(source) => Err(LaunchError::Signal { pid, source: source.into() }),
    }
}

/// The processes whose parent is `parent`; empty where there is no `/proc`.
pub(crate) fn children(parent: i32) -> Vec<i32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let after = stat.rsplit_once(')').map_or("", |(_, after)| after);
            after.split_whitespace().nth(1).and_then(|ppid| ppid.parse().ok()) == Some(parent)
        })
        .collect()
}

/// Waits until none of `pids` runs.
pub(crate) async fn gone(pids: &[i32], limit: Duration, what: &'static str) -> Result<(), LaunchError> {
    let start = tokio::time::Instant::now();
    while pids.iter().any(|pid| is_alive(*pid)) {
        if start.elapsed() > limit {
            return Err(LaunchError::StillRunning { what, pid: pids[0], limit });
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

/// 32 hexadecimal digits from the system's random source.
pub(crate) fn secret() -> io::Result<String> {
    let mut bytes = [0; 16];
    fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Writes a file that its owner alone can read.
pub(crate) fn write_private(path: &Path, text: &str) -> io::Result<()> {
    use std::io::Write;
    // Removed first: an older file would keep its mode.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?.write_all(text.as_bytes())
}

/// A log file to append to, and its length now: what comes after is this start's.
pub(crate) fn log(path: &Path) -> io::Result<(fs::File, u64)> {
    let file = fs::OpenOptions::new().create(true).append(true).open(path)?;
    let length = file.metadata()?.len();
    Ok((file, length))
}

/// The end of what a log holds from `from` on.
pub(crate) fn tail(path: &Path, from: u64) -> String {
    let bytes = fs::read(path).unwrap_or_default();
    let fresh = &bytes[usize::try_from(from).unwrap_or(0).min(bytes.len())..];
    String::from_utf8_lossy(&fresh[fresh.len().saturating_sub(TAIL)..]).trim().to_owned()
}

/// Holds `dir/lock` until it is dropped; waits while another process does. The lock ends with its holder,
/// however that ends.
pub(crate) async fn lock(dir: &Path) -> Result<fs::File, LaunchError> {
    let path = dir.join("lock");
    let failed = |source| LaunchError::Files { what: "lock", path: path.clone(), source };
    fs::create_dir_all(dir).map_err(failed)?;
    let file = fs::OpenOptions::new().create(true).append(true).open(&path).map_err(failed)?;
    tokio::task::spawn_blocking(move || file.lock().map(|()| file))
        .await
        .map_err(|error| failed(io::Error::other(error)))?
        .map_err(failed)
}
