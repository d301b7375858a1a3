//! Asking a service for its readiness: one small request on loopback.

use serde::Deserialize;
use std::{collections::BTreeMap, io, net::SocketAddr, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// How long a service may take to answer.
const LIMIT: Duration = Duration::from_secs(2);
/// Largest answer that is read.
const MAX_ANSWER: u64 = 64 * 1024;

/// What a service says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, serde::Serialize)]
pub struct Readiness {
    /// Whether it is ready.
    pub ok: bool,
    /// Each neighbour or part, and how it stands.
    #[serde(default)]
    pub checks: BTreeMap<String, String>,
}

impl Readiness {
    /// What is not well, in words; empty when all is.
    pub fn trouble(&self) -> String {
        let troubled: Vec<String> = self
            .checks
            .iter()
            .filter(|(_, state)| *state != "ok")
            .map(|(name, state)| format!("{name}: {state}"))
            .collect();
        troubled.join("; ")
    }
}

/// Asks for the readiness; `None` when nobody answers.
pub async fn ready(address: SocketAddr) -> Option<Readiness> {
    let body = timeout(LIMIT, get(address, "/healthz/ready")).await.ok()?.ok()?;
    serde_json::from_str(&body).ok()
}

async fn get(address: SocketAddr, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.take(MAX_ANSWER).read_to_string(&mut answer).await?;
    let (_, body) = answer.split_once("\r\n\r\n").ok_or_else(|| io::Error::other("is no HTTP answer"))?;
    Ok(body.to_owned())
}
