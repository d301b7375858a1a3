//! The disk, on which every durable commit waits.

use std::{
    fs,
    os::unix::fs::FileExt,
    path::Path,
    time::{Duration, Instant},
};

const WRITES: usize = 200;

/// Median time of an 8 KB write with its fdatasync, in the folder where databases and queues are.
pub fn fsync_time(folder: &Path) -> anyhow::Result<Duration> {
    let path = folder.join("fsync");
    let file = fs::File::create(&path)?;
    let page = [7; 8_192];
    let mut times = Vec::with_capacity(WRITES);
    for _ in 0..WRITES {
        let begun = Instant::now();
        file.write_all_at(&page, 0)?;
        file.sync_data()?;
        times.push(begun.elapsed());
    }
    fs::remove_file(path)?;
    times.sort();
    Ok(times[WRITES / 2])
}
