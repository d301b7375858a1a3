//! `sink`: the built-in receiver of mail as a process. Takes everything, delivers nothing.

use crate::{
    args::SinkArgs,
    exit::{Exit, Failure},
    fleet::told_to_end,
    output::Output,
};
use serde_json::json;
use testkit::sink::{Sink, SinkConfig, SinkStore};

/// Mails kept as files for each receiver since the start; the index has every one.
const FILES_PER_DOMAIN: usize = 500;

/// Takes mail until it is told to end.
pub async fn run(args: &SinkArgs, out: Output) -> anyhow::Result<Exit> {
    let defaults = SinkConfig::default();
    let config = SinkConfig {
        listen: args.listen,
        store: SinkStore::Directory(args.mailbox.clone()),
        files_per_domain: FILES_PER_DOMAIN,
        // Whoever sends here sends to all receivers over the same connections: those at rest count for none of them.
        slow_connections: defaults.max_connections,
        ..defaults
    };
    let sink = Sink::start(config).await.map_err(|error| Failure::unavailable(service::Chain(&error).to_string()))?;
    let value = json!({"listen": sink.addr(), "mailbox": args.mailbox});
    out.answer(&value, || format!("takes mail on {}, and keeps it in {}", sink.addr(), args.mailbox.display()))?;
    told_to_end().await?;
    let stats = sink.stats();
    sink.stop().await;
    let value = json!({"accepted": stats.accepted, "duplicated": stats.duplicated, "refused": stats.refused});
    out.answer(&value, || {
        format!("took {} mails, {} of them again, and refused {}", stats.accepted, stats.duplicated, stats.refused)
    })?;
    Ok(Exit::Ok)
}
