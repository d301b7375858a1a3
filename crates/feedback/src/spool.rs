//! What is kept on disk while Postgres is away.
//!
//! Files of lines, each a checksum and a hit as JSON, in the order in which they came. A line counts once it has been
//! synced; what a crash left half written has a wrong checksum and is passed over, since nobody was told that it is kept.
//! A file is removed once everything in it has been committed; what is read again then repeats known facts.

use crate::{config::SpoolConfig, hits::Hit};
use sha2::{Digest, Sha256};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufRead, BufReader, Write},
    path::{Path, PathBuf},
};

/// How the files end.
const EXTENSION: &str = "spool";
/// Longest line that is read, in bytes.
const MAX_LINE: usize = 64 * 1024;

/// The files of one process.
#[derive(Debug)]
pub struct Spool {
    config: SpoolConfig,
    /// The file that is written to, and its size.
    open: Option<(PathBuf, File, u64)>,
    /// The number of the next file.
    next: u64,
    /// Bytes in all files.
    bytes: u64,
}

/// What lies in the oldest file.
#[derive(Debug)]
pub struct Segment {
    path: PathBuf,
    bytes: u64,
    /// The hits in it, in order.
    pub hits: Vec<Hit>,
    /// Lines that cannot be read.
    pub damaged: usize,
}

impl Spool {
    /// Opens the directory and makes it when it is not there. What an earlier process left is found.
    ///
    /// # Errors
    /// When the directory cannot be used.
    pub fn open(config: SpoolConfig) -> io::Result<Self> {
        fs::create_dir_all(&config.directory)?;
        let mut spool = Self { config, open: None, next: 1, bytes: 0 };
        for path in spool.files()? {
            spool.bytes += fs::metadata(&path)?.len();
            spool.next = spool.next.max(number(&path).unwrap_or(0) + 1);
        }
        Ok(spool)
    }

    /// Whether nothing is kept.
    pub const fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Bytes in all files.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    fn files(&self) -> io::Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.config.directory)? {
            let path = entry?.path();
            if number(&path).is_some() {
                files.push(path);
            }
        }
        files.sort_by_key(|path| number(path));
        Ok(files)
    }

    /// Keeps hits: written and synced when it returns.
    ///
    /// # Errors
    /// When the disk does not take them, or there is too much; then none of them counts as kept.
    pub fn append(&mut self, hits: &[Hit]) -> io::Result<()> {
        let mut lines = Vec::new();
        for hit in hits {
            let json = serde_json::to_string(hit).map_err(io::Error::other)?;
            writeln!(lines, "{} {json}", checksum(json.as_bytes()))?;
        }
        let length = lines.len() as u64;
        if self.bytes + length > self.config.max_bytes {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "the spool is as large as it may become"));
        }
        if self.open.as_ref().is_none_or(|(_, _, size)| *size >= self.config.segment_bytes) {
            let path = self.config.directory.join(format!("{:012}.{EXTENSION}", self.next));
            let file = OpenOptions::new().create_new(true).append(true).open(&path)?;
            // The name must outlive a crash as the lines do.
            File::open(&self.config.directory)?.sync_all()?;
            self.next += 1;
            self.open = Some((path, file, 0));
        }
        let Some((_, file, size)) = &mut self.open else { return Err(io::Error::other("no file is open")) };
        let written = file.write_all(&lines).and_then(|()| file.sync_data());
        match written {
            Ok(()) => {
                *size += length;
                self.bytes += length;
                Ok(())
            }
            Err(error) => {
                // What of it is there may end in half a line: the next goes to a file of its own.
                self.open = None;
                self.bytes =
                    self.files()?.iter().filter_map(|path| fs::metadata(path).ok()).map(|meta| meta.len()).sum();
                Err(error)
            }
        }
    }

    /// The oldest file; nothing is added to it any more.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn oldest(&mut self) -> io::Result<Option<Segment>> {
        let Some(path) = self.files()?.into_iter().next() else {
            self.bytes = 0;
            return Ok(None);
        };
        if self.open.as_ref().is_some_and(|(open, ..)| *open == path) {
            self.open = None;
        }
        let mut segment = Segment { bytes: fs::metadata(&path)?.len(), path, hits: Vec::new(), damaged: 0 };
        let mut lines = BufReader::new(File::open(&segment.path)?);
        let mut line = Vec::new();
        while lines.read_until(b'\n', &mut line)? > 0 {
            match read(&line) {
                Some(hit) => segment.hits.push(hit),
                None => segment.damaged += 1,
            }
            line.clear();
        }
        Ok(Some(segment))
    }

    /// Removes a file whose hits have been committed.
    ///
    /// # Errors
    /// When it cannot be removed; then it is read again, which does no harm.
    pub fn remove(&mut self, segment: &Segment) -> io::Result<()> {
        fs::remove_file(&segment.path)?;
        self.bytes = self.bytes.saturating_sub(segment.bytes);
        File::open(&self.config.directory)?.sync_all()
    }
}

fn number(path: &Path) -> Option<u64> {
    if path.extension()? != EXTENSION {
        return None;
    }
    path.file_stem()?.to_str()?.parse().ok()
}

fn read(line: &[u8]) -> Option<Hit> {
    let line = line.strip_suffix(b"\n")?;
    if line.len() > MAX_LINE {
        return None;
    }
    let (sum, json) = line.split_at_checked(16)?;
    let json = json.strip_prefix(b" ")?;
    (checksum(json).as_bytes() == sum).then(|| serde_json::from_slice(json).ok())?
}

/// Eight bytes of a digest, in hexadecimal.
fn checksum(bytes: &[u8]) -> String {
    Sha256::digest(bytes)[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hits::What;

    fn hit(id: usize) -> Hit {
        let at = chrono::DateTime::from_timestamp(1_790_000_000, 0).expect("a time");
        Hit {
            message: domain::MessageId::of_batch(domain::BatchId::new(at), 0),
            what: What::Unsubscribe { one_click: true },
            at,
            id: id.to_string(),
            agent: "line\nbreak".to_owned(),
            network: String::new(),
            head: false,
            prefetch: false,
        }
    }

    fn config(name: &str) -> SpoolConfig {
        let directory = std::env::temp_dir().join(format!("mailfleet-spool-{name}-{}", std::process::id()));
        let _absent = fs::remove_dir_all(&directory);
        SpoolConfig { directory, segment_bytes: 500, ..SpoolConfig::default() }
    }

    fn drain(spool: &mut Spool) -> Vec<String> {
        let mut ids = Vec::new();
        while let Some(segment) = spool.oldest().expect("reads") {
            ids.extend(segment.hits.iter().map(|hit| hit.id.clone()));
            spool.remove(&segment).expect("removes");
        }
        ids
    }

    #[test]
    fn what_is_kept_comes_back_in_order_after_another_start() {
        let config = config("order");
        let mut spool = Spool::open(config.clone()).expect("opens");
        assert!(spool.is_empty());
        for id in 0..20 {
            spool.append(&[hit(id)]).expect("keeps");
        }
        drop(spool);
        let mut spool = Spool::open(config).expect("opens");
        assert!(!spool.is_empty() && spool.files().expect("lists").len() > 3);
        spool.append(&[hit(20)]).expect("keeps");
        assert_eq!(drain(&mut spool), (0..=20).map(|id| id.to_string()).collect::<Vec<_>>());
        assert!(spool.is_empty());
        spool.append(&[hit(21)]).expect("keeps");
        assert_eq!(drain(&mut spool), ["21"]);
    }

    #[test]
    fn what_a_crash_left_half_written_is_passed_over() {
        let config = config("torn");
        let mut spool = Spool::open(config.clone()).expect("opens");
        spool.append(&[hit(1), hit(2)]).expect("keeps");
        let path = spool.files().expect("lists").remove(0);
        drop(spool);
        let whole = fs::read(&path).expect("reads");
        let second = whole.iter().position(|byte| *byte == b'\n').expect("a line") + 1;
        for cut in second..whole.len() {
            fs::write(&path, &whole[..cut]).expect("writes");
            let mut spool = Spool::open(config.clone()).expect("opens");
            let segment = spool.oldest().expect("reads").expect("a file");
            assert_eq!(segment.hits.len(), 1, "cut at {cut}");
        }
        let mut flipped = whole.clone();
        flipped[30] ^= 1;
        fs::write(&path, flipped).expect("writes");
        let segment = Spool::open(config).expect("opens").oldest().expect("reads").expect("a file");
        assert_eq!((segment.hits.len(), segment.damaged), (1, 1));
    }

    #[test]
    fn it_never_grows_beyond_its_bound() {
        let config = SpoolConfig { max_bytes: 700, ..config("bound") };
        let mut spool = Spool::open(config).expect("opens");
        let kept = (0..20).take_while(|id| spool.append(&[hit(*id)]).is_ok()).count();
        assert!((1..5).contains(&kept), "{kept}");
        assert!(spool.bytes() <= 700);
        assert_eq!(drain(&mut spool).len(), kept);
    }
}
