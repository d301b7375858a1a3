//! The receiver, the same for every system: the test kit's sink in a process of its own, so that its CPU time can be
//! told apart. It counts copies and throws them away.

use crate::{arguments::SinkArguments, mail::WATCHED, report::say, usage};
use anyhow::{Context, bail};
use serde::Deserialize;
use std::{
    collections::HashMap,
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use testkit::sink::{Sink, SinkConfig, SinkStore, Watch};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, Command},
    sync::mpsc,
    task::JoinSet,
};

/// How often is asked whether all is there.
const POLL: Duration = Duration::from_millis(10);
/// Nothing came for so long: it will not come.
const STALL: Duration = Duration::from_secs(120);
const CONNECTIONS: usize = 10_000;

/// What the sink says.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub struct Stats {
    /// Copies taken.
    pub accepted: u64,
    /// Copies that had been taken before.
    pub duplicated: u64,
    /// Recipients that were refused.
    pub refused: u64,
    /// Octets of all copies.
    pub octets: u64,
    /// Connections made so far.
    pub connections: u64,
    /// When the last copy was taken, in microseconds since 1970.
    pub last_us: u64,
}

/// A copy that was watched for.
#[derive(Clone, Copy, Debug)]
pub struct Copy {
    /// When it was taken, in microseconds since 1970.
    pub at_us: u64,
    /// How many signatures it bears.
    pub signatures: usize,
}

/// The sink's process. Ends with its value.
pub struct SinkProcess {
    /// Where it listens.
    pub port: u16,
    child: Child,
    line: tokio::sync::Mutex<(ChildStdin, mpsc::UnboundedReceiver<Stats>)>,
    copies: Arc<Mutex<HashMap<String, Copy>>>,
    _reader: JoinSet<()>,
}

impl SinkProcess {
    /// Starts it.
    pub async fn start(round_trip: Duration) -> anyhow::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["--be-the-sink", "--rtt", &round_trip.as_millis().to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("cannot start the sink")?;
        let ask = child.stdin.take().context("the sink has no input")?;
        let mut said = BufReader::new(child.stdout.take().context("the sink has no output")?).lines();
        let port = said.next_line().await?.context("the sink did not start")?.parse()?;
        let copies = Arc::new(Mutex::new(HashMap::new()));
        let (answers, answered) = mpsc::unbounded_channel();
        let mut reader = JoinSet::new();
        reader.spawn(listen(said, answers, Arc::clone(&copies)));
        Ok(Self { port, child, line: (ask, answered).into(), copies, _reader: reader })
    }

    /// What it has done so far.
    pub async fn stats(&self) -> anyhow::Result<Stats> {
        let mut line = self.line.lock().await;
        line.0.write_all(b"stats\n").await?;
        line.1.recv().await.context("the sink has ended")
    }

    /// Waits until it has taken `count` copies since it started.
    pub async fn accepted(&self, count: u64) -> anyhow::Result<Stats> {
        let mut moved = (Instant::now(), 0);
        loop {
            let stats = self.stats().await?;
            if stats.accepted >= count {
                return Ok(stats);
            }
            if stats.accepted > moved.1 {
                moved = (Instant::now(), stats.accepted);
            } else if moved.0.elapsed() > STALL {
                bail!("{} of {count} mails came, then none for {STALL:?}", stats.accepted);
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// The copies of the watched domain so far, by recipient.
    pub fn copies(&self) -> HashMap<String, Copy> {
        self.copies.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// CPU seconds so far.
    pub fn cpu(&self) -> f64 {
        self.child.id().and_then(usage::cpu_of).unwrap_or(0.0)
    }
}

async fn listen(
    mut said: Lines<BufReader<tokio::process::ChildStdout>>,
    answers: mpsc::UnboundedSender<Stats>,
    copies: Arc<Mutex<HashMap<String, Copy>>>,
) {
    while let Ok(Some(line)) = said.next_line().await {
        if let Some(copy) = line.strip_prefix("copy ") {
            let mut words = copy.split(' ');
            let (Some(recipient), Some(at), Some(signatures)) = (words.next(), words.next(), words.next()) else {
                continue;
            };
            let copy = Copy { at_us: at.parse().unwrap_or(0), signatures: signatures.parse().unwrap_or(0) };
            copies.lock().unwrap_or_else(PoisonError::into_inner).insert(recipient.to_owned(), copy);
        } else if let Ok(stats) = serde_json::from_str(&line) {
            let _ = answers.send(stats);
        }
    }
}

/// The life of the sink's process: tells its port, then of each watched copy, and answers every line it reads with
/// its counts. Ends with its input.
pub async fn serve(arguments: SinkArguments) -> anyhow::Result<()> {
    let (tell, mut told) = mpsc::unbounded_channel();
    let config = SinkConfig {
        store: SinkStore::Discard,
        watch: Some(Watch { domain: WATCHED.to_owned(), tell }),
        max_connections: CONNECTIONS,
        round_trip: arguments.round_trip,
        ..SinkConfig::default()
    };
    let sink = Sink::start(config).await?;
    let (ask, mut asked) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        let lines = std::io::stdin().lines().map_while(Result::ok);
        lines.map(|_| ask.send(())).take_while(Result::is_ok).for_each(drop);
    });
    say(&sink.addr().port().to_string())?;
    loop {
        let line = tokio::select! {
            Some(arrival) = told.recv() => {
                format!("copy {} {} {}", arrival.recipient.as_str(), arrival.at_us, signatures(&arrival.body))
            }
            line = asked.recv() => match line {
                Some(()) => serde_json::to_string(&sink.stats())?,
                None => return Ok(()),
            },
        };
        say(&line)?;
    }
}

/// `DKIM-Signature` fields in the header.
fn signatures(mail: &[u8]) -> usize {
    const FIELD: &[u8] = b"dkim-signature:";
    let lines = mail.split(|byte| *byte == b'\n').take_while(|line| !line.trim_ascii().is_empty());
    lines.filter(|line| line.get(..FIELD.len()).is_some_and(|name| name.eq_ignore_ascii_case(FIELD))).count()
}

#[cfg(test)]
mod tests {
    use super::signatures;

    #[test]
    fn signatures_are_counted_in_the_header_alone() {
        let mail = b"DKIM-Signature: v=1;\r\n b=x\r\ndkim-signature: v=1\r\nFrom: a\r\n\r\nDKIM-Signature: v=1\r\n";
        assert_eq!(signatures(mail), 2);
        assert_eq!(signatures(b"From: a\r\n\r\n"), 0);
    }
}
