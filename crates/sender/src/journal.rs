//! The local journal: a line before each final dot, and one after each reply.
//!
//! It narrows the doubt that a crash leaves: without it everything claimed may have been delivered; with it only the
//! messages that have a first line and no second. Lines are written and not synced, so they outlive the process and
//! not the machine: the journal bears the boot's id, and after another boot, or without the exclusive lock on its
//! directory, it proves nothing and is thrown away.
//!
//! A line is text: `E epoch` for a lease under which claims may follow, `D message release epoch` before a dot,
//! `R message release epoch outcome-as-JSON` after the reply. A file is deleted when another has been begun and
//! everything in it has been recorded in Postgres.

use crate::{SenderConfig, config::JournalConfig, metrics::SenderMetrics};
use domain::{MessageId, fact::FactDetail};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs::{self, File, OpenOptions},
    io::{self, BufRead, BufReader, Write},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::Duration,
};
use store::{Outcome, Store, StoreError, What};

/// Messages of the journal that are looked for at once.
const LATE_AT_ONCE: usize = 1_000;
/// No lease has this epoch: what is recorded under it is late by intent.
const NO_EPOCH: i64 = 0;

/// The journal of a running sender.
pub(crate) struct Journal {
    inner: Mutex<Inner>,
    directory: PathBuf,
    segment_bytes: u64,
    header: String,
    /// Held as long as the process lives.
    _lock: File,
}

struct Inner {
    file: File,
    number: u64,
    written: u64,
    /// Dots not recorded yet, by file.
    open: BTreeMap<u64, usize>,
    /// Every live epoch is repeated at the head of a new file.
    epochs: Vec<i64>,
    /// A write failed: the file may end in half a line, or lack its head, and would hide what is added to it.
    broken: bool,
}

/// The file that a dot's line is in, until its outcome has been recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket(u64);

/// What an earlier process left behind.
#[derive(Debug, Default)]
pub(crate) struct Left {
    epochs: Vec<i64>,
    /// The last line of each message and release: `None` for a dot without a reply.
    lines: HashMap<(MessageId, u32), Option<Reply>>,
    files: Vec<PathBuf>,
}

/// An outcome as a line keeps it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Reply {
    what: Kind,
    wait_ms: u64,
    detail: FactDetail,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Delivered,
    Bounced,
    Deferred,
    InDoubt,
    GivenBack,
}

impl Journal {
    /// Takes the directory for this process, reads what the one before left, and begins a new file.
    ///
    /// # Errors
    /// When the directory cannot be used, or another process holds it.
    pub(crate) fn open(config: &JournalConfig, name: &str) -> io::Result<(Self, Left)> {
        fs::create_dir_all(&config.directory)?;
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(config.directory.join("lock"))?;
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive)
            .map_err(|error| io::Error::new(io::Error::from(error).kind(), "another process holds the journal"))?;
        let boot = boot_id()?;
        let header = format!("J 1 {boot} {}", name.replace(char::is_whitespace, "_"));
        let (left, newest) = read(&config.directory, &boot)?;
        let number = newest + 1;
        let mut file = create(&config.directory, number)?;
        writeln!(file, "{header}")?;
        let inner = Inner { file, number, written: 0, open: BTreeMap::new(), epochs: Vec::new(), broken: false };
        let journal = Self {
            inner: Mutex::new(inner),
            directory: config.directory.clone(),
            segment_bytes: config.segment_bytes,
            header,
            _lock: lock,
        };
        Ok((journal, left))
    }

    /// Notes that claims may follow under this epoch; before the first one.
    ///
    /// # Errors
    /// When the line cannot be written: then nothing may be claimed under it.
    pub(crate) fn epoch(&self, epoch: i64) -> io::Result<()> {
        let mut inner = self.lock();
        inner.epochs.push(epoch);
        inner.line(format_args!("E {epoch}\n"))
    }

    /// Notes that an epoch is over and nothing under it is left unrecorded.
    pub(crate) fn epoch_over(&self, epoch: i64) {
        self.lock().epochs.retain(|known| *known != epoch);
    }

    /// Notes that a final dot is about to be sent.
    ///
    /// # Errors
    /// When the line cannot be written: then the dot must not be sent.
    pub(crate) fn dot(&self, message: MessageId, release: u32, epoch: i64) -> io::Result<Ticket> {
        let mut inner = self.lock();
        if inner.broken {
            return Err(io::Error::other("an earlier line could not be written"));
        }
        if inner.written > self.segment_bytes {
            self.next_file(&mut inner)?;
        }
        inner.line(format_args!("D {message} {release} {epoch}\n"))?;
        let number = inner.number;
        *inner.open.entry(number).or_default() += 1;
        Ok(Ticket(number))
    }

    /// Notes what came of a dot. Best effort: without the line the outcome is in doubt after a crash.
    pub(crate) fn reply(&self, outcome: &Outcome) {
        let (what, wait) = match &outcome.what {
            What::Delivered => (Kind::Delivered, Duration::ZERO),
            What::Bounced => (Kind::Bounced, Duration::ZERO),
            What::Deferred { wait } => (Kind::Deferred, *wait),
            What::InDoubt => (Kind::InDoubt, Duration::ZERO),
            What::GivenBack { wait } => (Kind::GivenBack, *wait),
        };
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        let reply = Reply { what, wait_ms, detail: outcome.detail.clone() };
        let Ok(json) = serde_json::to_string(&reply) else { return };
        let (message, release, epoch) = (outcome.message, outcome.release, outcome.epoch);
        if let Err(error) = self.lock().line(format_args!("R {message} {release} {epoch} {json}\n")) {
            tracing::warn!(%error, "cannot write a reply to the journal");
        }
    }

    /// Notes that an outcome has been recorded; deletes files that nothing is left in.
    pub(crate) fn recorded(&self, ticket: Ticket) {
        let mut inner = self.lock();
        let current = inner.number;
        if let Some(open) = inner.open.get_mut(&ticket.0) {
            *open -= 1;
            if *open == 0 && ticket.0 != current {
                inner.open.remove(&ticket.0);
                remove(&path(&self.directory, ticket.0));
            }
        }
    }

    fn next_file(&self, inner: &mut Inner) -> io::Result<()> {
        let number = inner.number + 1;
        inner.file = create(&self.directory, number)?;
        failpoint::hit!("sender.journal.rotate");
        inner.written = 0;
        let finished = std::mem::replace(&mut inner.number, number);
        inner.line(format_args!("{}\n", self.header))?;
        for epoch in inner.epochs.clone() {
            inner.line(format_args!("E {epoch}\n"))?;
        }
        if inner.open.get(&finished).copied().unwrap_or(0) == 0 {
            inner.open.remove(&finished);
            remove(&path(&self.directory, finished));
        }
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn line(&mut self, line: std::fmt::Arguments<'_>) -> io::Result<()> {
        let line = line.to_string();
        // One write a line: a crash leaves whole lines, but for the last.
        self.file.write_all(line.as_bytes()).inspect_err(|_| self.broken = true)?;
        self.written += line.len() as u64;
        Ok(())
    }
}

/// Records what an earlier process left: its replies, its doubts, and gives back what never had a dot. Its leases
/// are given up, since the lock proves that it is gone.
pub(crate) async fn resolve(
    store: &Store,
    left: Left,
    config: &SenderConfig,
    metrics: &SenderMetrics,
) -> Result<(), StoreError> {
    let orphans = store.orphans_of(&left.epochs).await?;
    let claimed: HashSet<(MessageId, u32)> = orphans.iter().map(|orphan| (orphan.message, orphan.release)).collect();
    let mut counts = [0_usize; 3];
    let outcomes: Vec<Outcome> = orphans
        .into_iter()
        .map(|orphan| {
            let (what, detail) = match left.lines.get(&(orphan.message, orphan.release)) {
                Some(Some(reply)) => {
                    counts[0] += 1;
                    (reply.what(), reply.detail.clone())
                }
                Some(None) => {
                    counts[1] += 1;
                    let text = "the sender stopped after the final dot and before its reply".to_owned();
                    (What::InDoubt, FactDetail { text: Some(text), ..FactDetail::default() })
                }
                None => {
                    counts[2] += 1;
                    (What::GivenBack { wait: Duration::ZERO }, FactDetail::default())
                }
            };
            Outcome {
                message: orphan.message,
                release: orphan.release,
                epoch: orphan.epoch,
                queue: orphan.queue,
                site: orphan.site,
                what,
                detail,
            }
        })
        .collect();
    for batch in outcomes.chunks(usize::try_from(config.record.batch.get()).unwrap_or(usize::MAX)) {
        store.record(batch).await?;
    }
    let late = record_late(store, &left, &claimed).await?;
    store.give_up_leases(&left.epochs).await?;
    let [replied, in_doubt, given_back] = counts;
    metrics.resolved(replied, in_doubt, given_back, late);
    if replied + in_doubt + given_back + late > 0 {
        tracing::info!(replied, in_doubt, given_back, late, "resolved what an earlier process left behind");
    }
    for file in &left.files {
        remove(file);
    }
    Ok(())
}

/// Records the deliveries of messages that others took over meanwhile, as after a long absence: nothing of what is
/// known to be delivered is to be sent again. Returns how many there were.
async fn record_late(store: &Store, left: &Left, claimed: &HashSet<(MessageId, u32)>) -> Result<usize, StoreError> {
    let delivered: HashMap<MessageId, (u32, &Reply)> = left
        .lines
        .iter()
        .filter(|(line, _)| !claimed.contains(line))
        .filter_map(|((message, release), reply)| Some((*message, (*release, reply.as_ref()?))))
        .filter(|(_, (_, reply))| reply.what == Kind::Delivered)
        .collect();
    let messages: Vec<MessageId> = delivered.keys().copied().collect();
    let mut late = 0;
    for some in messages.chunks(LATE_AT_ONCE) {
        let outcomes: Vec<Outcome> = store
            .open_among(some)
            .await?
            .into_iter()
            .filter_map(|(message, queue, site)| {
                let (release, reply) = delivered.get(&message)?;
                let (what, detail) = (reply.what(), reply.detail.clone());
                Some(Outcome { message, release: *release, epoch: NO_EPOCH, queue, site, what, detail })
            })
            .collect();
        if !outcomes.is_empty() {
            late += outcomes.len();
            store.record(&outcomes).await?;
        }
    }
    Ok(late)
}

impl Reply {
    fn what(&self) -> What {
        let wait = Duration::from_millis(self.wait_ms);
        match self.what {
            Kind::Delivered => What::Delivered,
            Kind::Bounced => What::Bounced,
            Kind::Deferred => What::Deferred { wait },
            Kind::InDoubt => What::InDoubt,
            Kind::GivenBack => What::GivenBack { wait },
        }
    }
}

fn boot_id() -> io::Result<String> {
    // Where the kernel tells no boot id every start counts as another boot: the journal then proves nothing.
    match fs::read_to_string("/proc/sys/kernel/random/boot_id") {
        Ok(text) => Ok(text.trim().to_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(format!("unknown-{}", std::process::id())),
        Err(error) => Err(error),
    }
}

fn path(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("{number:012}.journal"))
}

fn create(directory: &Path, number: u64) -> io::Result<File> {
    OpenOptions::new().create_new(true).append(true).open(path(directory, number))
}

fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(%error, "cannot delete a journal file");
    }
}

/// Reads every file of this boot; those of another boot are deleted unread. Returns the newest file's number too.
fn read(directory: &Path, boot: &str) -> io::Result<(Left, u64)> {
    let mut numbers: Vec<u64> = fs::read_dir(directory)?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.strip_suffix(".journal")?.parse().ok())
        .collect();
    numbers.sort_unstable();
    let mut left = Left::default();
    for number in &numbers {
        let file = path(directory, *number);
        let mut lines = BufReader::new(File::open(&file)?).split(b'\n');
        let header = lines.next().transpose()?.unwrap_or_default();
        if String::from_utf8_lossy(&header).split(' ').nth(2) != Some(boot) {
            remove(&file);
            continue;
        }
        for line in lines {
            let line = line?;
            // A last line that the crash cut in two does not parse, and then proves nothing.
            if let Ok(line) = std::str::from_utf8(&line) {
                left.learn(line);
            }
        }
        left.files.push(file);
    }
    Ok((left, numbers.last().copied().unwrap_or(0)))
}

impl Left {
    fn learn(&mut self, line: &str) -> Option<()> {
        let mut words = line.splitn(5, ' ');
        let kind = words.next()?;
        if kind == "E" {
            self.epochs.push(words.next()?.parse().ok()?);
            return Some(());
        }
        let message = words.next()?.parse().ok()?;
        let release = words.next()?.parse().ok()?;
        let _epoch: i64 = words.next()?.parse().ok()?;
        let reply = match kind {
            "D" => None,
            "R" => Some(serde_json::from_str(words.next()?).ok()?),
            _ => return None,
        };
        self.lines.insert((message, release), reply);
        Some(())
    }
}

#[cfg(test)]
mod tests;
