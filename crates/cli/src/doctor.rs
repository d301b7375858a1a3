//! `doctor`: looks at what mail depends on, step by step, and says what each finding means and what to do.

mod domain;
mod smtp;

use crate::{
    exit::Exit,
    output::{Output, safe},
};
use clap::Subcommand;
use serde::Serialize;
use std::time::Duration;

#[derive(Debug, Subcommand)]
pub enum DoctorCommand {
    /// Whether an SMTP server can be reached and used from here, as the sender would use it
    ///
    /// Name, TCP, greeting, what it offers, TLS and its certificate, and the login, each in a connection of its own. With
    /// --from and --to it asks for the recipient as well. No mail is ever sent.
    Smtp(smtp::SmtpArgs),
    /// What DNS says of a domain that mail comes from, and what receivers of bulk mail make of it
    ///
    /// MX, SPF of the return path with its look-ups counted, DKIM keys with their lengths, DMARC and alignment, reverse
    /// names of the addresses that mail leaves from, MTA-STS and TLS-RPT.
    Domain(domain::DomainArgs),
}

/// Looks, and ends with 1 when something is wrong.
pub async fn run(command: DoctorCommand, out: Output) -> anyhow::Result<Exit> {
    match command {
        DoctorCommand::Smtp(args) => smtp::run(args, out).await,
        DoctorCommand::Domain(args) => domain::run(args, out).await,
    }
}

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Grade {
    Ok,
    /// Works, but not as well as it could, or not for everything.
    Warn,
    Fail,
}

/// A grade, what was found, and the advice.
type Finding = (Grade, String, &'static str);

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Check {
    check: &'static str,
    result: Grade,
    /// What was found.
    found: String,
    /// What it means and what to do; empty when there is nothing to do.
    advice: String,
    took_ms: u64,
}

/// Tells checks as they come, and remembers the worst.
struct Findings {
    out: Output,
    has_failed: bool,
}

impl Findings {
    const fn new(out: Output) -> Self {
        Self { out, has_failed: false }
    }

    fn tell(&mut self, check: &'static str, result: Grade, took: Duration, found: String, advice: &str) {
        self.has_failed |= result == Grade::Fail;
        let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        let check = Check { check, result, found, advice: advice.to_owned(), took_ms };
        if self.out.json {
            self.out.line(&serde_json::to_string(&check).unwrap_or_default());
            return;
        }
        let mark = match result {
            Grade::Ok => "ok  ",
            Grade::Warn => "warn",
            Grade::Fail => "FAIL",
        };
        self.out.line(&format!("{mark}  {:<9}  {}  ({took_ms} ms)", check.check, safe(&check.found)));
        if !check.advice.is_empty() {
            self.out.line(&format!("                 → {}", safe(&check.advice)));
        }
    }

    const fn exit(&self) -> Exit {
        if self.has_failed { Exit::Finding } else { Exit::Ok }
    }
}
