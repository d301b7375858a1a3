//! Copies on disk: one thread writes for all connections, many copies at a time.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::{
    collections::HashMap,
    fs::{self, File, OpenOptions},
    io::{self, BufRead, BufReader, BufWriter, Write},
    path::{Path, PathBuf},
};
use tokio::sync::{mpsc, oneshot};

/// Copies that may wait for the writer; connections wait beyond that.
const QUEUE: usize = 1_024;
/// Copies written before the index is flushed and their connections answered.
const BATCH: usize = 256;
/// The index within the folder.
const INDEX: &str = "index.jsonl";

/// One copy, as `index.jsonl` tells of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexLine {
    /// `X-Mailfleet-Id`.
    pub fleet_id: Option<String>,
    /// `Message-ID`, angle brackets and all.
    pub message_id: Option<String>,
    /// `RCPT TO`.
    pub recipient: String,
    /// When it was taken, in milliseconds since 1970.
    pub at_ms: u64,
    /// Octets of header and body.
    pub octets: u64,
    /// Its file within the folder, if it got one.
    pub file: Option<String>,
}

impl IndexLine {
    /// The identifier by which copies are told apart.
    pub fn key(&self) -> Option<&str> {
        self.fleet_id.as_deref().or(self.message_id.as_deref())
    }
}

/// Reads the index of a folder; empty if there is none. A last line that was cut off by a kill is left out.
///
/// # Errors
/// The file cannot be read, or a line before the last is not one of ours.
pub fn read_index(folder: &Path) -> io::Result<Vec<IndexLine>> {
    let file = match File::open(folder.join(INDEX)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let (mut reader, mut text, mut lines) = (BufReader::new(file), String::new(), Vec::new());
    while reader.read_line(&mut text)? > 0 {
        if text.ends_with('\n') {
            lines.push(serde_json::from_str(&text)?);
        }
        text.clear();
    }
    Ok(lines)
}

/// A copy to write.
pub(super) struct Job {
    pub(super) line: IndexLine,
    pub(super) domain: String,
    pub(super) body: Bytes,
}

type Answered = (Job, oneshot::Sender<io::Result<()>>);

/// The way to the writing thread, which ends with the last of these.
#[derive(Debug)]
pub(super) struct Folder {
    jobs: mpsc::Sender<Answered>,
}

impl Folder {
    /// Makes the folder, reads what an earlier run left in the index, and starts the writer.
    pub(super) fn open(path: &Path, files_per_domain: usize) -> io::Result<(Self, Vec<IndexLine>)> {
        fs::create_dir_all(path)?;
        let known = read_index(path)?;
        let index = OpenOptions::new().create(true).append(true).open(path.join(INDEX))?;
        // A line that a kill cut off would spoil the next one.
        let whole = fs::read(path.join(INDEX))?.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        index.set_len(whole as u64)?;
        let (jobs, queue) = mpsc::channel(QUEUE);
        let writer = Writer {
            path: path.to_owned(),
            index: BufWriter::new(index),
            files_per_domain,
            files: HashMap::new(),
            number: known.len(),
        };
        std::thread::Builder::new().name("sink-writer".to_owned()).spawn(move || writer.run(queue))?;
        Ok((Self { jobs }, known))
    }

    /// Returns once the copy is in the folder.
    pub(super) async fn write(&self, job: Job) -> io::Result<()> {
        let gone = || io::Error::other("the writer of the sink has ended");
        let (answer, answered) = oneshot::channel();
        self.jobs.send((job, answer)).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }
}

struct Writer {
    path: PathBuf,
    index: BufWriter<File>,
    files_per_domain: usize,
    /// Files written by domain.
    files: HashMap<String, usize>,
    number: usize,
}

impl Writer {
    fn run(mut self, mut queue: mpsc::Receiver<Answered>) {
        let mut batch = Vec::with_capacity(BATCH);
        while queue.blocking_recv_many(&mut batch, BATCH) > 0 {
            let mut written = Vec::with_capacity(batch.len());
            for (job, answer) in batch.drain(..) {
                match self.write(job) {
                    Ok(()) => written.push(answer),
                    Err(error) => drop(answer.send(Err(error))),
                }
            }
            let flushed = self.index.flush();
            for answer in written {
                // A connection that is gone needs no answer; its copy is here all the same.
                drop(answer.send(flushed.as_ref().map(|&()| ()).map_err(|error| io::Error::from(error.kind()))));
            }
        }
    }

    fn write(&mut self, mut job: Job) -> io::Result<()> {
        let files = self.files.entry(job.domain.clone()).or_default();
        if *files < self.files_per_domain {
            let folder = self.path.join(&job.domain);
            if *files == 0 {
                fs::create_dir_all(&folder)?;
            }
            self.number += 1;
            let name = format!("{:08}.eml", self.number);
            fs::write(folder.join(&name), &job.body)?;
            *files += 1;
            job.line.file = Some(format!("{}/{name}", job.domain));
        }
        let mut line = serde_json::to_vec(&job.line)?;
        line.push(b'\n');
        self.index.write_all(&line)
    }
}
