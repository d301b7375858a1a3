//! Handing mail in: to the fleet by calls, to a peer by SMTP on connections that stay open.

use crate::mail::Finished;
use anyhow::{Context, bail};
use mailfleet_tests::Line;
use proto::v1::{SendBatchRequest, mail_service_client::MailServiceClient};
use smtp::{
    TlsContext,
    client::{Attempt, ClientConfig, Connection, Envelope, TlsPolicy},
};
use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use tokio::task::JoinSet;

/// How handing in went.
#[derive(Clone, Debug)]
pub struct Handed {
    /// When it began, in microseconds since 1970.
    pub begun_us: u64,
    /// Until the last answer.
    pub took: Duration,
    /// How long each answer took.
    pub answers: Vec<Duration>,
}

/// Now, in microseconds since 1970, as the sink counts it: both are on one machine.
pub fn now_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// Makes calls to the fleet, so many at a time.
pub async fn call(
    mails: &MailServiceClient<Line>,
    load: Vec<SendBatchRequest>,
    at_a_time: usize,
) -> anyhow::Result<Handed> {
    let (begun_us, begun) = (now_us(), Instant::now());
    let (mut load, mut calls, mut answers) = (load.into_iter(), JoinSet::new(), Vec::new());
    loop {
        while calls.len() < at_a_time.max(1)
            && let Some(request) = load.next()
        {
            let mut mails = mails.clone();
            calls.spawn(async move {
                let asked = Instant::now();
                mails.send_batch(request).await.map(|answer| (answer.into_inner().refused, asked.elapsed()))
            });
        }
        let Some(done) = calls.join_next().await else { break };
        let (refused, took) = done??;
        if refused > 0 {
            bail!("{refused} recipients were refused");
        }
        answers.push(took);
    }
    Ok(Handed { begun_us, took: begun.elapsed(), answers })
}

/// Hands mails to an SMTP server on `port` of loopback, over so many connections that stay open.
pub async fn inject(port: u16, mails: Vec<Finished>, connections: usize) -> anyhow::Result<Handed> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let config =
        ClientConfig { tls: TlsPolicy::None, ..ClientConfig::new("load.bench.test".parse()?, TlsContext::new()?) };
    let load = Arc::new(Mutex::new(mails.into_iter()));
    let (begun_us, begun) = (now_us(), Instant::now());
    let (mut lines, mut answers) = (JoinSet::new(), Vec::new());
    for _ in 0..connections.max(1) {
        let (config, load) = (config.clone(), Arc::clone(&load));
        lines.spawn(async move {
            let mut connection = Connection::connect(address, "localhost", &config).await.context("cannot connect")?;
            let mut answers = Vec::new();
            let next = || load.lock().unwrap_or_else(PoisonError::into_inner).next();
            while let Some(mail) = next() {
                let envelope = Envelope { sender: &mail.sender, recipient: &mail.recipient, smtputf8: false };
                let asked = Instant::now();
                match connection.send(&envelope, &mail.mime, || Ok(())).await {
                    Attempt::Delivered(_) => answers.push(asked.elapsed()),
                    other => bail!("the peer does not take mail: {other:?}"),
                }
            }
            connection.quit().await;
            Ok(answers)
        });
    }
    while let Some(ended) = lines.join_next().await {
        answers.extend(ended??);
    }
    Ok(Handed { begun_us, took: begun.elapsed(), answers })
}
