//! Mails on disk while Postgres is away: a file each.
//!
//! A file is a line with a checksum, a line that says what the envelope said (JSON), and the mail as it came. It is
//! written under another name, synced, and gets its own name last, so that a file that is there is whole; should it not
//! be, its checksum tells. It is removed once the mail has been committed; one that is brought back twice is kept once.

use super::config::InboundSpoolConfig;
use sha2::{Digest, Sha256};
use std::{
    fs::{self, File},
    io::{self, Write},
    path::PathBuf,
};
use store::InboundMail;

/// How a whole file ends.
const EXTENSION: &str = "mail";
/// How one ends that is being written.
const UNFINISHED: &str = "part";
/// How one ends that cannot be read; it is left for a person to look at.
const DAMAGED: &str = "damaged";

/// The files of one process.
#[derive(Debug)]
pub(crate) struct MailSpool {
    config: InboundSpoolConfig,
    bytes: u64,
}

impl MailSpool {
    /// Opens the directory and makes it when it is not there. What was never whole is removed: nobody was told that it
    /// is kept.
    pub(crate) fn open(config: InboundSpoolConfig) -> io::Result<Self> {
        fs::create_dir_all(&config.directory)?;
        let mut spool = Self { config, bytes: 0 };
        for (path, bytes) in spool.files(UNFINISHED)? {
            tracing::warn!(file = %path.display(), bytes, "removed a mail that was never whole");
            fs::remove_file(path)?;
        }
        spool.bytes = spool.files(EXTENSION)?.iter().map(|(_, bytes)| bytes).sum();
        Ok(spool)
    }

    /// Bytes in all files.
    pub(crate) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Keeps mails: written and synced when it returns.
    pub(crate) fn append(&mut self, mails: &[InboundMail]) -> io::Result<()> {
        for mail in mails {
            let head = serde_json::to_string(mail).map_err(io::Error::other)?;
            let length = (head.len() + mail.raw.len() + 70) as u64;
            if self.bytes + length > self.config.max_bytes {
                return Err(io::Error::new(io::ErrorKind::StorageFull, "the spool is as large as it may become"));
            }
            let path = self.config.directory.join(format!("{}.{EXTENSION}", mail.id));
            let part = path.with_extension(UNFINISHED);
            let mut file = File::create(&part)?;
            let sum = checksum(head.as_bytes(), &mail.raw);
            let written = file
                .write_all(format!("{sum}\n{head}\n").as_bytes())
                .and_then(|()| file.write_all(&mail.raw))
                .and_then(|()| file.sync_data())
                .and_then(|()| fs::rename(&part, &path));
            if let Err(error) = written {
                let _gone = fs::remove_file(&part);
                return Err(error);
            }
            self.bytes += length;
        }
        // The names must outlive a crash as what they name does.
        File::open(&self.config.directory)?.sync_all()
    }

    /// The oldest mails, up to `most` of them and about `octets` in all.
    pub(crate) fn oldest(&mut self, most: usize, octets: usize) -> io::Result<Vec<(PathBuf, InboundMail)>> {
        let files = self.files(EXTENSION)?;
        self.bytes = files.iter().map(|(_, bytes)| bytes).sum();
        let mut mails = Vec::new();
        let mut taken = 0;
        for (path, _) in files.into_iter().take(most) {
            if taken >= octets {
                break;
            }
            match read(&fs::read(&path)?) {
                Some(mail) => {
                    taken += mail.raw.len();
                    mails.push((path, mail));
                }
                None => {
                    tracing::error!(file = %path.display(), "a mail on disk is damaged; it is put aside");
                    fs::rename(&path, path.with_extension(DAMAGED))?;
                }
            }
        }
        Ok(mails)
    }

    /// Removes mails that have been committed.
    pub(crate) fn remove(&mut self, mails: &[(PathBuf, InboundMail)]) -> io::Result<()> {
        for (path, _) in mails {
            let bytes = fs::metadata(path)?.len();
            fs::remove_file(path)?;
            self.bytes = self.bytes.saturating_sub(bytes);
        }
        File::open(&self.config.directory)?.sync_all()
    }

    /// The files with this ending and their sizes, in the order of their names, which is that of their coming.
    fn files(&self, extension: &str) -> io::Result<Vec<(PathBuf, u64)>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.config.directory)? {
            let entry = entry?;
            let path = entry.path();
            if path.extension().is_some_and(|known| known == extension) {
                files.push((path, entry.metadata()?.len()));
            }
        }
        files.sort();
        Ok(files)
    }
}

fn read(bytes: &[u8]) -> Option<InboundMail> {
    let mut parts = bytes.splitn(3, |byte| *byte == b'\n');
    let (sum, head, raw) = (parts.next()?, parts.next()?, parts.next()?);
    if checksum(head, raw).as_bytes() != sum {
        return None;
    }
    let mail: InboundMail = serde_json::from_slice(head).ok()?;
    Some(InboundMail { raw: raw.to_vec(), ..mail })
}

fn checksum(head: &[u8], raw: &[u8]) -> String {
    let digest = Sha256::new().chain_update(head).chain_update(raw).finalize();
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::InboundId;
    use store::Door;

    fn mail(number: i64) -> InboundMail {
        let at = chrono::DateTime::from_timestamp(1_790_000_000 + number, 0).unwrap();
        InboundMail {
            id: InboundId::new(at),
            received_at: at,
            door: Door::Reports,
            about: None,
            sender: String::new(),
            recipient: "dmarc@bounces.example.com".to_owned(),
            remote: "192.0.2.1".to_owned(),
            helo: "mx.example.net".to_owned(),
            tls: false,
            raw: format!("Subject: {number}\r\n\r\n\n\r\nbody\r\n").into_bytes(),
        }
    }

    fn config(name: &str) -> InboundSpoolConfig {
        let directory = std::env::temp_dir().join(format!("mailfleet-mails-{name}-{}", std::process::id()));
        let _absent = fs::remove_dir_all(&directory);
        InboundSpoolConfig { directory, ..InboundSpoolConfig::default() }
    }

    #[test]
    fn what_is_kept_comes_back_as_it_was_and_in_order_after_another_start() {
        let config = config("order");
        let mails: Vec<_> = (0..5).map(mail).collect();
        MailSpool::open(config.clone()).unwrap().append(&mails).unwrap();
        let mut spool = MailSpool::open(config).unwrap();
        assert!(spool.bytes() > 0);
        let first = spool.oldest(3, usize::MAX).unwrap();
        assert_eq!(first.iter().map(|(_, mail)| mail.clone()).collect::<Vec<_>>(), mails[..3]);
        spool.remove(&first).unwrap();
        let rest = spool.oldest(100, usize::MAX).unwrap();
        assert_eq!(rest.iter().map(|(_, mail)| mail.clone()).collect::<Vec<_>>(), mails[3..]);
        spool.remove(&rest).unwrap();
        assert!(spool.oldest(100, usize::MAX).unwrap().is_empty() && spool.bytes() == 0);
    }

    #[test]
    fn a_damaged_file_is_put_aside_and_stops_nothing() {
        let config = config("damage");
        let mails: Vec<_> = (0..2).map(mail).collect();
        let mut spool = MailSpool::open(config.clone()).unwrap();
        spool.append(&mails).unwrap();
        let path = config.directory.join(format!("{}.mail", mails[0].id));
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        let found = spool.oldest(100, usize::MAX).unwrap();
        assert_eq!(found.iter().map(|(_, mail)| mail.clone()).collect::<Vec<_>>(), mails[1..]);
        assert!(path.with_extension("damaged").exists());
    }

    #[test]
    fn it_never_grows_beyond_its_bound_nor_takes_more_at_once_than_asked_for() {
        let mut spool = MailSpool::open(InboundSpoolConfig { max_bytes: 1_200, ..config("bound") }).unwrap();
        let kept = (0..20).take_while(|number| spool.append(&[mail(*number)]).is_ok()).count();
        assert!((1..6).contains(&kept), "{kept}");
        assert_eq!(spool.oldest(100, 1).unwrap().len(), 1);
    }
}
