//! How many messages a second the client and the sink carry between them on this machine:
//! `cargo run --release -p mailfleet-testkit --example sink_load -- [messages] [connections] [octets]`.

#![allow(clippy::disallowed_methods, clippy::print_stdout, missing_docs)]

use bytes::Bytes;
use domain::{EnvelopeSender, Mailbox};
use mailfleet_testkit::sink::{Sink, SinkConfig, SinkStore};
use smtp::{
    TlsContext,
    client::{Attempt, ClientConfig, Connection, Envelope},
};
use std::time::Instant;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut numbers = std::env::args().skip(1).map(|text| text.parse::<usize>());
    let mut number = |default| numbers.next().unwrap_or(Ok(default));
    let (messages, connections, octets) = (number(200_000)?, number(20)?, number(10_000)?);
    let sink = Sink::start(SinkConfig { store: SinkStore::Discard, ..SinkConfig::default() }).await?;
    let config = ClientConfig::new("load.test".parse()?, TlsContext::new()?);
    let mut filler = b"a line of seventy-six characters, as most of them are when they are wrapped..\r\n".repeat(1_000);
    filler.truncate(octets.saturating_sub(100).min(79_000) / 79 * 79);
    let filler = Bytes::from(filler);

    let began = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..connections {
        let (config, filler, address) = (config.clone(), filler.clone(), sink.addr());
        tasks.spawn(async move {
            let mut connection = Connection::connect(address, "sink.test", &config).await?;
            let sender = EnvelopeSender(Some("bounces@load.test".parse::<Mailbox>()?));
            for number in 0..messages / connections {
                let recipient: Mailbox = format!("user{task}-{number}@load.test").parse()?;
                let head = format!("From: a@load.test\r\nMessage-ID: <{task}.{number}@load.test>\r\n\r\n");
                let body = Bytes::from([head.as_bytes(), &filler].concat());
                let envelope = Envelope { sender: &sender, recipient: &recipient, smtputf8: false };
                let attempt = connection.send(&envelope, &body, || Ok(())).await;
                anyhow::ensure!(matches!(attempt, Attempt::Delivered(_)), "{attempt:?}");
            }
            connection.quit().await;
            anyhow::Ok(())
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    let (stats, wall) = (sink.stats(), began.elapsed().as_secs_f64());
    println!(
        "{} messages of {octets} octets over {connections} connections: {:.0}/s",
        stats.accepted,
        stats.accepted as f64 / wall
    );
    Ok(())
}
