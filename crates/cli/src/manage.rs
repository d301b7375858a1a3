//! `domain`, `suppressions`, `tenants`, `keys`, `endpoints`, `metrics`, `dead-letters` and `audit-log`: what a tenant has and does,
//! through the public API alone.

pub mod args;
mod dead_letters;
mod domains;
mod endpoints;
mod keys;
mod metrics;
mod suppressions;
mod tenants;

use crate::{
    api,
    exit::Exit,
    output::Output,
    reach::Reach,
    send::{moment, span},
};
use args::ManageCommand;
use chrono::{DateTime, Utc};

/// Entries of one page.
const PAGE: u32 = 500;

/// Does what the command says.
pub async fn run(command: ManageCommand, reach: &Reach, out: Output) -> anyhow::Result<Exit> {
    match command {
        ManageCommand::Domain { command } => domains::run(command, reach, out).await,
        ManageCommand::Suppressions { command } => suppressions::run(command, reach, out).await,
        ManageCommand::Tenants { command } => tenants::run(command, reach, out).await,
        ManageCommand::Keys { command } => keys::run(command, reach, out).await,
        ManageCommand::Endpoints { command } => endpoints::run(command, reach, out).await,
        ManageCommand::Metrics(args) => metrics::run(&args, reach, out).await,
        ManageCommand::DeadLetters { command } => dead_letters::run(command, reach, out).await,
        ManageCommand::AuditLog { key, limit } => tenants::audit_log(key, limit, reach, out).await,
    }
}

/// The size of the next page when this many entries are still wanted.
fn page(wanted: usize) -> u32 {
    u32::try_from(wanted).unwrap_or(PAGE).clamp(1, PAGE)
}

/// A time as a table shows it; empty when there is none.
fn when(stamp: Option<&prost_types::Timestamp>) -> String {
    stamp.map_or_else(String::new, |stamp| api::time(stamp).format("%Y-%m-%d %H:%M:%S").to_string())
}

/// A time, or a span back from now.
fn back(text: &str, now: DateTime<Utc>) -> anyhow::Result<DateTime<Utc>> {
    // What a span leads to from now on lies as far behind.
    let given = moment(text, now)?;
    Ok(if DateTime::parse_from_rfc3339(text).is_ok() { given } else { now - (given - now) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_looks_back() {
        let now = DateTime::from_timestamp(7_200, 0).expect("is a time");
        assert_eq!(back("2h", now).expect("is a span"), DateTime::UNIX_EPOCH);
        assert_eq!(back("1970-01-01T01:00:00+01:00", now).expect("is a time"), DateTime::UNIX_EPOCH);
        assert!(back("soon", now).is_err());
    }

    #[test]
    fn a_page_is_never_larger_than_what_is_wanted() {
        assert_eq!((page(0), page(7), page(100_000)), (1, 7, PAGE));
    }
}
