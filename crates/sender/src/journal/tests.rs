use super::*;
use domain::{BatchId, SiteId};

struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("mailfleet-journal-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).expect("a directory can be made");
        Self(path)
    }

    fn open(&self, segment_bytes: u64) -> io::Result<(Journal, Left)> {
        Journal::open(&JournalConfig { directory: self.0.clone(), segment_bytes }, "sender one")
    }

    fn files(&self) -> usize {
        let entries = fs::read_dir(&self.0).expect("the directory is there");
        entries.filter_map(Result::ok).filter(|entry| entry.path().extension().is_some()).count()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

fn message(index: u32) -> MessageId {
    let noon = chrono::DateTime::from_timestamp(1_790_000_000, 0).expect("a time");
    static BATCH: std::sync::OnceLock<BatchId> = std::sync::OnceLock::new();
    MessageId::of_batch(*BATCH.get_or_init(|| BatchId::new(noon)), index)
}

fn outcome(index: u32, what: What) -> Outcome {
    Outcome {
        message: message(index),
        release: 3,
        epoch: 7,
        queue: 1,
        site: SiteId::of_domain("a.test"),
        what,
        detail: FactDetail { code: Some(250), ..FactDetail::default() },
    }
}

#[test]
fn the_next_process_learns_what_had_its_dot_and_what_was_answered() {
    let directory = Directory::new("learns");
    let (journal, _) = directory.open(1 << 20).expect("opens");
    journal.epoch(7).expect("writes");
    journal.dot(message(1), 3, 7).expect("writes");
    journal.dot(message(2), 3, 7).expect("writes");
    journal.reply(&outcome(2, What::Delivered));
    drop(journal);
    let (_journal, left) = directory.open(1 << 20).expect("opens again");
    assert_eq!(left.epochs, [7]);
    assert_eq!(left.lines.get(&(message(1), 3)), Some(&None));
    let reply = left.lines.get(&(message(2), 3)).cloned().flatten().expect("the reply is there");
    assert_eq!(reply.what(), What::Delivered);
    assert_eq!(reply.detail.code, Some(250));
    assert!(!left.lines.contains_key(&(message(3), 3)));
}

#[test]
fn two_processes_never_hold_one_journal() {
    let directory = Directory::new("lock");
    let (_journal, _) = directory.open(1 << 20).expect("opens");
    assert!(directory.open(1 << 20).is_err());
}

#[test]
fn a_journal_of_another_boot_proves_nothing() {
    let directory = Directory::new("boot");
    fs::write(directory.0.join("000000000001.journal"), format!("J 1 another-boot x\nE 7\nD {} 3 7\n", message(1)))
        .expect("writes");
    let (_journal, left) = directory.open(1 << 20).expect("opens");
    assert!(left.epochs.is_empty() && left.lines.is_empty());
}

#[test]
fn a_last_line_that_a_crash_cut_is_passed_over() {
    let directory = Directory::new("torn");
    let boot = boot_id().expect("there is one");
    let whole = format!("J 1 {boot} x\nE 7\nD {} 3 7\n", message(1));
    fs::write(directory.0.join("000000000004.journal"), format!("{whole}R {} 3 7 {{\"what\":\"deliv", message(1)))
        .expect("writes");
    let (_journal, left) = directory.open(1 << 20).expect("opens");
    assert_eq!(left.lines.get(&(message(1), 3)), Some(&None));
}

#[test]
fn a_file_goes_when_everything_in_it_is_recorded_and_not_before() {
    let directory = Directory::new("rotate");
    let (journal, _) = directory.open(1).expect("opens");
    journal.epoch(7).expect("writes");
    let first = journal.dot(message(1), 3, 7).expect("writes");
    let second = journal.dot(message(2), 3, 7).expect("writes");
    assert_ne!(first, second);
    let before = directory.files();
    journal.recorded(first);
    assert_eq!(directory.files(), before - 1);
    drop(journal);
    let (_journal, left) = directory.open(1).expect("opens again");
    assert_eq!(left.epochs, [7], "a live epoch is repeated in every file");
    assert!(left.lines.contains_key(&(message(2), 3)));
}

#[test]
fn after_a_line_that_could_not_be_written_no_dot_is_let_go() {
    let directory = Directory::new("full");
    let (journal, _) = directory.open(1 << 20).expect("opens");
    let whole = {
        let full = OpenOptions::new().write(true).open("/dev/full").expect("the system has one");
        std::mem::replace(&mut journal.lock().file, full)
    };
    journal.dot(message(0), 1, 7).expect_err("there is no room");
    journal.lock().file = whole;
    journal.dot(message(1), 1, 7).expect_err("the line before may be there by half");
}
