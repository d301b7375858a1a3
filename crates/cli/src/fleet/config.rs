//! The configuration file of a local fleet: one for all services, written anew at every start.

use std::{net::SocketAddr, path::Path};

/// The mailbox of reports about a local fleet's mails.
pub const REPORTS: &str = "reports@bounces.mailfleet.test";

/// What differs from start to start.
pub struct Parts<'a> {
    /// Where Postgres is.
    pub postgres_url: &'a str,
    /// Where NATS is.
    pub nats_url: &'a str,
    /// Where ingest listens.
    pub ingest: SocketAddr,
    /// Where the sink listens.
    pub sink: SocketAddr,
    /// Where recipients reach feedback.
    pub web: SocketAddr,
    /// Where mail comes in.
    pub inbound: SocketAddr,
    /// Where feedback keeps what Postgres does not take.
    pub spool: &'a Path,
    /// The key that seals DKIM keys at rest.
    pub master_key: &'a Path,
    /// Where the sender keeps its journal.
    pub journal: &'a Path,
}

/// The file's text.
pub fn text(parts: &Parts<'_>) -> String {
    let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
    let path = |path: &Path| quoted(&path.to_string_lossy());
    format!(
        "# The local fleet. Written anew at every start: to change a value, set MAILFLEET_SECTION__KEY before it,\n\
         # as in MAILFLEET_SENDER__RETRY__STEPS='[\"5s\"]' mailfleet up\n\
         \n\
         [postgres]\n\
         url = {postgres}\n\
         \n\
         [nats]\n\
         url = {nats}\n\
         \n\
         [secrets]\n\
         master_key_file = {master_key}\n\
         \n\
         [telemetry]\n\
         format = \"json\"\n\
         \n\
         [runtime]\n\
         grace = \"15s\"\n\
         \n\
         [ingest]\n\
         listen = {ingest}\n\
         # Nothing leaves this machine, so no name of it is in DNS.\n\
         require_verified_domains = false\n\
         \n\
         # What links in mails lead to.\n\
         [fleet.tracking]\n\
         base_url = {base_url}\n\
         \n\
         [feedback]\n\
         web = {{ listen = {web} }}\n\
         spool = {{ directory = {spool} }}\n\
         \n\
         # Bounces and answers to this fleet's mails: swaks --server {inbound_addr} --to <a return path>\n\
         [feedback.inbound]\n\
         listen = {inbound}\n\
         report_mailboxes = [{reports}]\n\
         spool = {{ directory = {mails} }}\n\
         \n\
         # Everything goes to the sink on this machine, and nowhere else.\n\
         [sender]\n\
         name = \"local\"\n\
         route = {{ kind = \"relay\", host = {sink_host}, port = {sink_port}, helo = \"localhost\", tls = \"none\" }}\n\
         # Short, so that what is put off is delivered while one watches.\n\
         retry = {{ steps = [\"2s\", \"5s\", \"15s\"] }}\n\
         grace = \"10s\"\n\
         \n\
         [sender.journal]\n\
         directory = {journal}\n\
         \n\
         # The sink takes more than a receiver would.\n\
         [sender.shaping.default]\n\
         rate = \"500/s\"\n\
         burst = 50\n\
         connection_rate = \"none\"\n\
         \n\
         # The demo's slow receiver takes five at a time.\n\
         [sender.shaping.sites.\"slow.parcel.test\"]\n\
         max_connections = 4\n",
        postgres = quoted(parts.postgres_url),
        nats = quoted(parts.nats_url),
        master_key = path(parts.master_key),
        ingest = quoted(&parts.ingest.to_string()),
        base_url = quoted(&format!("http://{}", parts.web)),
        web = quoted(&parts.web.to_string()),
        spool = path(parts.spool),
        inbound_addr = parts.inbound,
        reports = quoted(REPORTS),
        inbound = quoted(&parts.inbound.to_string()),
        mails = path(&parts.spool.join("mails")),
        sink_host = quoted(&parts.sink.ip().to_string()),
        sink_port = parts.sink.port(),
        journal = path(parts.journal),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_toml_whatever_the_paths_hold() {
        let parts = Parts {
            postgres_url: "postgres://mailfleet:a\"b\\c@127.0.0.1:1/mailfleet",
            nats_url: "nats://127.0.0.1:2",
            ingest: "127.0.0.1:3".parse().expect("is an address"),
            sink: "127.0.0.1:4".parse().expect("is an address"),
            web: "127.0.0.1:5".parse().expect("is an address"),
            inbound: "127.0.0.1:6".parse().expect("is an address"),
            spool: Path::new("/spool"),
            master_key: Path::new("/a \"quoted\" folder/master.key"),
            journal: Path::new("/journal"),
        };
        let table: toml::Table = text(&parts).parse().expect("is TOML");
        assert_eq!(table["postgres"]["url"].as_str(), Some(parts.postgres_url));
        assert_eq!(table["secrets"]["master_key_file"].as_str(), Some("/a \"quoted\" folder/master.key"));
        assert_eq!(table["sender"]["route"]["port"].as_integer(), Some(4));
    }
}
