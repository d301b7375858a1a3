//! How the fleet under test is configured: what is waited for is shorter, and one site has a limit to keep.

use std::{net::SocketAddr, path::Path};

/// Under this domain are all recipients; no log may hold an address of it.
pub const DOMAIN: &str = "zqx.test";
/// The domain from which all mail comes.
pub const SENDING_DOMAIN: &str = "example.com";
/// The site with a limit.
pub const LIMITED: &str = "limited.zqx.test";
/// Messages a second that the site takes.
pub const LIMITED_RATE: u32 = 10;
/// Connections to it.
pub const LIMITED_CONNECTIONS: u32 = 2;
/// How far ahead of its start a message may be claimed, in seconds.
pub const AHEAD_S: f64 = 0.5;

/// Where a process finds what it needs.
pub struct Parts<'a> {
    /// Its way to the database.
    pub postgres_url: &'a str,
    /// Its way to the broker.
    pub nats_url: &'a str,
    /// Where it listens, if it is an ingest.
    pub ingest: SocketAddr,
    /// Where it tells its health.
    pub http: SocketAddr,
    /// The sink.
    pub sink: SocketAddr,
    /// The key that seals DKIM keys.
    pub master_key: &'a Path,
    /// Its journal, if it is a sender.
    pub journal: &'a Path,
    /// Its name, if it is a sender.
    pub name: &'a str,
}

/// The file's text.
pub fn text(parts: &Parts<'_>) -> String {
    let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
    format!(
        r#"[postgres]
url = {postgres}
max_connections = 6
acquire_timeout = "3s"
client_timeout = "4s"
statement_timeout = "3s"

[nats]
url = {nats}
ping_interval = "1s"
ack_wait = "3s"
pull_expires = "5s"
pull_heartbeat = "1s"
publish_timeout = "1s"
api_timeout = "2s"

[secrets]
master_key_file = {master_key}

# Other tests keep every core busy at the same time.
[renderer.press]
bulk_niceness = 0

[telemetry]
format = "json"

[runtime]
grace = "15s"

[http]
listen = {http}

[ingest]
listen = {ingest}
key_term = "1s"
require_verified_domains = false

[ingest.server]
call_timeout = "5s"
drain = "5s"

[dispatcher]
look_interval = "200ms"
repair_interval = "500ms"
repair_after = "8s"
doubt_grace = "2s"
mark_interval = "200ms"
expire_interval = "5s"
lease = {{ term = "2s", renew_every = "400ms", safety = "300ms", retry_every = "200ms" }}

[analytics]
lease = {{ term = "2s", renew_every = "400ms", safety = "300ms", retry_every = "200ms" }}
compact_interval = "5s"

[sender]
name = {name}
route = {{ kind = "relay", host = {sink_host}, port = {sink_port}, helo = "localhost", tls = "none" }}
retry = {{ steps = ["1s", "2s", "4s"] }}
lease = {{ term = "2s", renew_every = "400ms", margin = "300ms", look_every = "200ms" }}
desk = {{ hold = "2s", start_within = "2s", pause = "200ms", ahead = "500ms" }}
grace = "10s"

[sender.journal]
directory = {journal}

[sender.shaping.default]
rate = "none"
connection_rate = "none"
max_connections = 5

[sender.shaping.sites.{limited}]
rate = "{rate}/s"
burst = 1
max_connections = {connections}
"#,
        postgres = quoted(parts.postgres_url),
        nats = quoted(parts.nats_url),
        master_key = quoted(&parts.master_key.to_string_lossy()),
        http = quoted(&parts.http.to_string()),
        ingest = quoted(&parts.ingest.to_string()),
        name = quoted(parts.name),
        sink_host = quoted(&parts.sink.ip().to_string()),
        sink_port = parts.sink.port(),
        journal = quoted(&parts.journal.to_string_lossy()),
        limited = quoted(LIMITED),
        rate = LIMITED_RATE,
        connections = LIMITED_CONNECTIONS,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_toml_and_names_the_limited_site() {
        let parts = Parts {
            postgres_url: "postgres://a:b\"c@127.0.0.1:1/mailfleet",
            nats_url: "nats://127.0.0.1:2",
            ingest: ([127, 0, 0, 1], 3).into(),
            http: ([127, 0, 0, 1], 4).into(),
            sink: ([127, 0, 0, 1], 5).into(),
            master_key: Path::new("/a \"folder\"/master.key"),
            journal: Path::new("/journal"),
            name: "sender-a",
        };
        let table: toml::Table = text(&parts).parse().unwrap();
        assert_eq!(table["postgres"]["url"].as_str(), Some(parts.postgres_url));
        assert_eq!(table["sender"]["shaping"]["sites"][LIMITED]["burst"].as_integer(), Some(1));
    }
}
