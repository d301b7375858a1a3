//! Postfix, with or without OpenDKIM, as a private instance. Its configuration is in `tests/bench/peers/`.

use crate::{
    load::{self, Handed},
    mail::{Finished, Letter, Plan},
    report::note,
    scenarios::Subject,
    usage::Group,
};
use anyhow::{Context, bail};
use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};
use testkit::{LIMIT, eventually};

const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/bench/peers");
/// Programs that are needed; the last one only where mail is signed.
const PROGRAMS: [&str; 4] = ["postfix", "postconf", "openssl", "opendkim"];
/// Where those are that `PATH` may not name.
const PLACES: [&str; 4] = ["/usr/sbin", "/usr/local/sbin", "/usr/bin", "/usr/local/bin"];
const SETTLE_LIMIT: Duration = Duration::from_secs(60);
/// Queues that a mail goes through.
const QUEUES: [&str; 5] = ["maildrop", "incoming", "active", "deferred", "hold"];

/// A Postfix that runs.
pub struct Postfix {
    folder: PathBuf,
    port: u16,
    connections: usize,
    signed: bool,
    is_stopped: bool,
}

impl Postfix {
    /// Why it cannot be measured here, if it cannot.
    pub fn missing(signed: bool) -> Option<String> {
        let wanted = &PROGRAMS[..if signed { PROGRAMS.len() } else { 2 }];
        let missing = wanted.iter().filter(|name| !PLACES.iter().any(|place| Path::new(place).join(name).is_file()));
        let missing: Vec<&str> = missing.copied().collect();
        if !missing.is_empty() {
            return Some(format!("{} not installed", missing.join(", ")));
        }
        (!is_root()).then(|| "Postfix needs root".to_owned())
    }

    /// Starts one in a folder of its own; it delivers to the sink over at most so many connections.
    pub async fn start(
        folder: &Path,
        sink_port: u16,
        signed: bool,
        connections: usize,
        concurrency: usize,
    ) -> anyhow::Result<Self> {
        fs::create_dir_all(folder)?;
        let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        let kind = if signed { "signed" } else { "plain" };
        script("start.sh", folder, &[&port.to_string(), &sink_port.to_string(), kind, &concurrency.to_string()])?;
        let postfix = Self { folder: folder.to_owned(), port, connections, signed, is_stopped: false };
        let answers = async || tokio::net::TcpStream::connect(("127.0.0.1", port)).await.ok();
        match eventually(LIMIT, answers).await {
            Some(_) => Ok(postfix),
            None => {
                postfix.stop(true)?;
                bail!("Postfix does not listen; its log is {}", folder.join("maillog").display())
            }
        }
    }

    /// Ends it and removes its data.
    pub fn stop(mut self, keep: bool) -> anyhow::Result<()> {
        self.is_stopped = true;
        script("stop.sh", &self.folder, &[])?;
        if !keep {
            fs::remove_dir_all(&self.folder)?;
        }
        Ok(())
    }

    fn pid(&self, file: &str) -> anyhow::Result<u32> {
        let path = self.folder.join(file);
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(text.trim().parse()?)
    }
}

/// A measurement that was broken off leaves no process behind.
impl Drop for Postfix {
    fn drop(&mut self) {
        if !self.is_stopped
            && let Err(error) = script("stop.sh", &self.folder, &[])
        {
            note(&format!("cannot stop Postfix in {}: {error:#}", self.folder.display()));
        }
    }
}

impl Subject for Postfix {
    type Load = Vec<Finished>;

    fn groups(&self) -> anyhow::Result<Vec<Group>> {
        let mut groups = vec![Group::tree("postfix", self.pid("queue/pid/master.pid")?)];
        if self.signed {
            groups.push(Group::tree("opendkim", self.pid("opendkim.pid")?));
        }
        Ok(groups)
    }

    async fn parts(&self) -> anyhow::Result<Vec<Group>> {
        Ok(Vec::new())
    }

    /// Renders every mail before the clock starts: Postfix takes finished ones, and the machine is its own then.
    fn prepare(&self, letter: &Letter, plan: &Plan) -> anyhow::Result<Self::Load> {
        (0..plan.count).map(|index| letter.finish(plan, index)).collect()
    }

    async fn hand_in(&self, load: Self::Load) -> anyhow::Result<Handed> {
        load::inject(self.port, load, self.connections).await
    }

    async fn settled(&self) -> anyhow::Result<()> {
        let begun = Instant::now();
        while QUEUES.iter().any(|queue| has_files(&self.folder.join("queue").join(queue))) {
            if begun.elapsed() > SETTLE_LIMIT {
                bail!("Postfix's queue is not empty after {SETTLE_LIMIT:?}");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    async fn check(&self) -> anyhow::Result<()> {
        Ok(())
    }
}

/// Whether there is a file somewhere below.
fn has_files(folder: &Path) -> bool {
    let entries = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    entries.into_iter().any(|entry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => has_files(&entry.path()),
        Ok(_) => true,
        Err(_) => false,
    })
}

fn script(name: &str, folder: &Path, words: &[&str]) -> anyhow::Result<()> {
    let path = Path::new(SCRIPTS).join(name);
    let status = Command::new(&path).arg(folder).args(words).env("PATH", path_with_places()).status();
    if status.with_context(|| format!("cannot run {}", path.display()))?.success() {
        Ok(())
    } else {
        bail!("{name} failed")
    }
}

/// Postfix is in folders that a user's `PATH` may lack.
fn path_with_places() -> String {
    format!("{}:/sbin:/bin", PLACES.join(":"))
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output();
    id.is_ok_and(|id| id.stdout.trim_ascii() == b"0")
}
