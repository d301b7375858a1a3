//! Packages of other languages that tests talk to, kept between runs.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

/// Whose packages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// By `requirements.txt`, in the virtual environment `.venv`.
    Python,
    /// By `package.json`.
    JavaScript,
}

impl Language {
    /// What installs them.
    const fn commands(self) -> &'static [&'static [&'static str]] {
        match self {
            Self::Python => &[
                &["python3", "-m", "venv", ".venv"],
                &[
                    ".venv/bin/python",
                    "-m",
                    "pip",
                    "install",
                    "--quiet",
                    "--disable-pip-version-check",
                    "--retries",
                    "1",
                    "--timeout",
                    "15",
                    "--requirement",
                    "requirements.txt",
                ],
            ],
            Self::JavaScript => &[&[
                "npm",
                "install",
                "--no-audit",
                "--no-fund",
                "--no-package-lock",
                "--loglevel=error",
                "--fetch-retries=1",
            ]],
        }
    }
}

/// Copies `files` of `from` to `folder` and installs what they ask for. `None` when that cannot be had: `make test` tells
/// it at the end, since what was not run has not passed; `what` names it.
///
/// # Errors
/// When the folder cannot be written.
pub fn install(folder: &Path, from: &Path, files: &[&str], language: Language, what: &str) -> io::Result<Option<()>> {
    fs::create_dir_all(folder)?;
    for file in files {
        fs::copy(from.join(file), folder.join(file))?;
    }
    for command in language.commands() {
        if let Err(why) = run(folder, command) {
            let told = format!("{what}, since they cannot be had: {}\n", why.trim());
            fs::write(skipped(folder), told)?;
            return Ok(None);
        }
    }
    Ok(Some(()))
}

/// Where it is told that they cannot be had.
fn skipped(folder: &Path) -> PathBuf {
    folder.with_extension("skipped")
}

/// Runs a command in a folder and returns what it said.
///
/// # Errors
/// What it said, when it cannot be run or fails.
pub fn run(folder: &Path, command: &[&str]) -> Result<String, String> {
    let output = Command::new(command[0]).args(&command[1..]).current_dir(folder).output();
    let output = output.map_err(|error| format!("{}: {error}", command[0]))?;
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() { Ok(told) } else { Err(told + &String::from_utf8_lossy(&output.stderr)) }
}
