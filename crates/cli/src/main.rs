//! The mailfleet executable: every service and the operator's commands.
//!
//! Commands answer on the standard output, as text for people or with `--json` as one JSON value a line; what goes
//! wrong is told on the standard error, and in the exit code (see `exit`). Operators' commands go through the public
//! gRPC API where it has a call for them, and otherwise through the database.

mod api;
mod args;
mod campaign;
mod classify;
mod demo;
mod doctor;
mod exit;
mod fleet;
mod inbound;
mod manage;
mod manual;
mod messages;
mod operate;
mod output;
mod queue;
mod reach;
mod run;
mod send;
mod shaping;
mod sink;
mod status;
mod template;
mod warmup;
mod watch;
mod why;

use args::{AdminKeyCommand, Cli, Command, TopologyCommand};
use clap::Parser;
use exit::Exit;
use output::{Output, complain};
use reach::Reach;
use std::{process::ExitCode, time::Duration};

fn main() -> ExitCode {
    let Cli { global, command } = Cli::parse();
    // A service makes a runtime of its own, as its configuration says.
    if let Command::Run(args) = &command {
        return run::run(args, global.config);
    }
    let out = Output::new(global.json);
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(&format!("cannot start: {error}"));
            return ExitCode::from(Exit::Internal as u8);
        }
    };
    let exit = match runtime.block_on(perform(command, global, out)) {
        Ok(exit) => exit,
        Err(error) => {
            complain(&exit::tell(&error));
            exit::of(&error)
        }
    };
    ExitCode::from(exit as u8)
}

async fn perform(command: Command, global: args::Global, out: Output) -> anyhow::Result<Exit> {
    let reach = Reach::new(&global);
    match command {
        Command::Demo(args) => demo::run(&args, &global, out).await,
        Command::Up(args) => fleet::up(&args, &global, out).await,
        Command::Down { quiet } => fleet::down(quiet, &global, out).await,
        Command::Status => status::status(&reach, out).await,
        Command::Send(args) => send::run(*args, &reach, out).await,
        Command::Template { command } => template::run(command, &reach, out).await,
        Command::Messages(args) => messages::run(&args, &reach, out).await,
        Command::Classify(args) => classify::run(args, &reach, out).await,
        Command::Doctor { command } => doctor::run(command, out).await,
        Command::Watch(args) => watch::run(args, &reach, out).await,
        Command::Why { message } => why::run(&message, &reach, out).await,
        Command::Shaping { site, lift: true, route, .. } => {
            shaping::lift(&site, route.as_deref().unwrap_or(""), &reach, out).await
        }
        Command::Shaping { site, changes, .. } => shaping::show(&site, changes, &reach, out).await,
        Command::Warmup { command } => warmup::run(command, &reach, out).await,
        Command::Inbound { command } => inbound::run(command, &reach, out).await,
        Command::Queue { once, every } => queue::run(once, Duration::from_secs(every), &reach, out).await,
        Command::Pause { what, reason } => queue::pause(&what, &reason, &reach, out).await,
        Command::Resume { what } => queue::resume(&what, &reach, out).await,
        Command::Cancel { message, batch } => why::cancel(message.as_deref(), batch.as_deref(), &reach, out).await,
        Command::Report { campaign, of_tenant } => operate::report(of_tenant, campaign, &reach, out).await,
        Command::Audit => operate::audit(&reach, out).await,
        Command::Migrate => operate::migrate(&reach, out).await,
        Command::Topology { command: TopologyCommand::Apply } => operate::apply_topology(&reach, out).await,
        Command::AdminKey { command: AdminKeyCommand::Create { name } } => {
            operate::create_admin_key(&name, &reach, out).await
        }
        Command::AdminKey { command: AdminKeyCommand::Revoke { id } } => {
            operate::revoke_admin_key(&id, &reach, out).await
        }
        Command::Manage(command) => manage::run(command, &reach, out).await,
        Command::Completion { shell } => manual::completion(shell),
        Command::Man { out } => manual::pages(out.as_deref()),
        Command::Sink(args) => sink::run(&args, out).await,
        Command::Run(_) => Ok(Exit::Usage), // taken before, by `main`
    }
}
