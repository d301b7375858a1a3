//! A disk that is small enough to be filled: a file system in memory, where this process may mount one.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// Room for the database and its log, with the load of a long run.
const SIZE: &str = "size=1500m,mode=0711";

/// A small disk. Goes away with its value.
pub struct Disk(PathBuf);

impl Disk {
    /// Mounts one at `folder`; `None` when that is not allowed here.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn mount(folder: &Path) -> std::io::Result<Option<Self>> {
        std::fs::create_dir_all(folder)?;
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", SIZE, "mailfleet-chaos"]).arg(folder).output();
        Ok(mounted.is_ok_and(|output| output.status.success()).then(|| Self(folder.to_owned())))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: whoever still has a file open there keeps it until he ends.
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}
