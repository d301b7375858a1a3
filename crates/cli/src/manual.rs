//! What the command tells a shell and `man` about itself.

use crate::{args::Cli, exit::Exit};
use anyhow::Context;
use clap::CommandFactory;
use clap_complete::Shell;
use std::{
    fs,
    io::{self, Write},
    path::Path,
};

const NAME: &str = "mailfleet";

/// Prints the completions for a shell.
pub fn completion(shell: Shell) -> anyhow::Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), NAME, &mut script);
    print(&script)
}

/// Prints the command's page, or writes one for each command into a folder.
pub fn pages(folder: Option<&Path>) -> anyhow::Result<Exit> {
    let Some(folder) = folder else {
        let mut page = Vec::new();
        clap_mangen::Man::new(Cli::command()).render(&mut page)?;
        return print(&page);
    };
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    clap_mangen::generate_to(Cli::command(), folder)
        .with_context(|| format!("cannot write to {}", folder.display()))?;
    Ok(Exit::Ok)
}

fn print(text: &[u8]) -> anyhow::Result<Exit> {
    match io::stdout().lock().write_all(text) {
        // Whoever reads has seen enough.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error).context("cannot write"),
        _ => Ok(Exit::Ok),
    }
}
