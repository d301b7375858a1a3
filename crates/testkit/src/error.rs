//! Why a server could not be launched, in words that tell what to do.

use std::{io, path::PathBuf, time::Duration};

/// Why a server could not be launched or stopped.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The program is not installed, or too old.
    #[error(
        "cannot find {program} {at_least} or newer; looked in {looked_in}; install it ({hint}), or point {variable} at a running server"
    )]
    NoProgram {
        /// The program.
        program: &'static str,
        /// The oldest version that will do.
        at_least: &'static str,
        /// Where it was sought.
        looked_in: String,
        /// How to install it.
        hint: &'static str,
        /// The variable that names a running server instead.
        variable: &'static str,
    },
    /// A file or folder could not be used.
    #[error("cannot {what} {}", path.display())]
    Files {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The data belongs to a version that is not installed.
    #[error("{} was made by PostgreSQL {made_by}, but only {found} is installed; install {made_by}, or remove the folder to start afresh", path.display())]
    OtherVersion {
        /// The data folder.
        path: PathBuf,
        /// The version that made it.
        made_by: String,
        /// The versions found.
        found: String,
    },
    /// Data without the password it was made with.
    #[error("{} is gone, and with it the password of the data beside it; remove the folder to start afresh", path.display())]
    NoPassword {
        /// The password file.
        path: PathBuf,
    },
    /// Root, and nobody to run Postgres as.
    #[error(
        "postgres does not run as root, and this machine has neither a user postgres nor a user nobody; create one, or run as another user"
    )]
    NoUser,
    /// The data belongs to somebody else.
    #[error("{} belongs to user id {owner}, and this process runs as {us}; run as that user, or remove the folder to start afresh", path.display())]
    OtherOwner {
        /// The data folder.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// The user that runs this process.
        us: u32,
    },
    /// A helper program failed.
    #[error("{program} failed: {said}")]
    Helper {
        /// The program.
        program: &'static str,
        /// What it said.
        said: String,
    },
    /// The server could not be started or ended at once.
    #[error("{program} ended as soon as it was started; the end of its log ({}): {said}", log.display())]
    Ended {
        /// The server.
        program: &'static str,
        /// Its log.
        log: PathBuf,
        /// The end of it.
        said: String,
    },
    /// The server does not become ready.
    #[error("{program} is not ready after {limit:?}; the end of its log ({}): {said}", log.display())]
    NotReady {
        /// The server.
        program: &'static str,
        /// How long it was waited for.
        limit: Duration,
        /// Its log.
        log: PathBuf,
        /// The end of it.
        said: String,
    },
    /// A process does not end.
    #[error("{what} (process {pid}) is still there {limit:?} after it was told to end")]
    StillRunning {
        /// The server.
        what: &'static str,
        /// Its process.
        pid: i32,
        /// How long it was waited for.
        limit: Duration,
    },
    /// A signal could not be sent.
    #[error("cannot signal process {pid}")]
    Signal {
        /// The process.
        pid: i32,
        /// Why not.
        source: io::Error,
    },
    /// The database could not be made or dropped.
    #[error("cannot {what} the test database {name}")]
    Database {
        /// What was tried.
        what: &'static str,
        /// The database.
        name: String,
        /// Why not.
        source: store::StoreError,
    },
}
