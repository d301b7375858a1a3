//! Posts events to the endpoints of tenants, as Standard Webhooks has it.
//!
//! Whoever comes first takes an endpoint for a while and goes on in the log where it stands, some events at a time:
//! several messages at once, the events of one message in their order. An endpoint that takes nothing is left alone,
//! longer each time, and keeps its place. What it refuses while it takes others is put beside and tried by itself, and
//! behind it the later events of its message. Every post of an event bears the same `webhook-id`, since one whose answer
//! was lost is posted again.
//!
//! Nothing of this stands in the way of mail: it reads the log, which is written by then.

mod config;
mod event;
mod target;

pub use config::NotifyConfig;

use crate::{FeedbackError, metrics::Metrics};
use chrono::{DateTime, Utc};
use domain::MessageId;
use futures_util::{StreamExt, stream::FuturesUnordered};
use http::StatusCode;
use posting::outbound::Signer;
use service::Sealer;
use smtp::TlsContext;
use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::Duration,
};
use store::{LogEntry, ParkedEvent, Progress, Store, StoreError, TakenEndpoint};
use target::{Line, PostError};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

/// Entries of the log that are looked at at once.
const WINDOW: u32 = 1_000;
/// Events that are posted one after the other before the progress is written.
const DEEP: usize = 2;
/// How long the rest of a piece may take: what Postgres is asked for it.
const SLACK: Duration = Duration::from_secs(10);
/// Events that are tried by themselves at once.
const PARKED: u32 = 100;
/// How long one process stays with one endpoint before others have their turn.
const TURN: Duration = Duration::from_secs(20);
/// Longest wait that an endpoint may ask for.
const LONGEST_WAIT: Duration = Duration::from_secs(6 * 3600);

/// What posts.
pub(crate) struct Notifier {
    config: NotifyConfig,
    store: Store,
    sealer: Arc<Sealer>,
    tls: TlsContext,
    metrics: Metrics,
}

/// How one post ended.
enum Outcome {
    Taken,
    /// The endpoint says that it is no more.
    Gone,
    Refused {
        wait: Option<Duration>,
        error: String,
    },
}

/// What came of some events.
#[derive(Default)]
struct Tally {
    taken: Vec<i64>,
    failed: Vec<ParkedEvent>,
    /// Behind one of their message that failed.
    behind: Vec<ParkedEvent>,
    gone: bool,
    wait: Option<Duration>,
}

impl Notifier {
    pub(crate) fn new(
        config: NotifyConfig,
        store: Store,
        sealer: Arc<Sealer>,
        metrics: Metrics,
    ) -> Result<Self, FeedbackError> {
        let tls = match &config.ca_file {
            Some(file) => TlsContext::with_file(file)?,
            None => TlsContext::new()?,
        };
        Ok(Self { config, store, sealer, tls, metrics })
    }

    /// How long an endpoint is held at a time: longer than a piece can take.
    fn hold(&self) -> Duration {
        (self.config.connect + self.config.answer) * u32::try_from(DEEP).unwrap_or(u32::MAX) + SLACK
    }

    /// Posts until the shutdown is requested; a post under way is waited for.
    pub(crate) async fn run(self: Arc<Self>, token: CancellationToken) {
        let most = usize::try_from(self.config.endpoints_at_once.get()).unwrap_or(1);
        let mut busy = tokio::task::JoinSet::new();
        loop {
            let free = most.saturating_sub(busy.len());
            let taken = if free == 0 {
                Ok(Vec::new())
            } else {
                self.store.take_endpoints(u32::try_from(free).unwrap_or(1), self.hold()).await
            };
            let found = match taken {
                Ok(taken) => {
                    let found = !taken.is_empty();
                    for one in taken {
                        let (notifier, token) = (Arc::clone(&self), token.clone());
                        busy.spawn(async move { notifier.serve(one, &token).await });
                    }
                    found
                }
                Err(error) => {
                    tracing::debug!(error = &error as &dyn std::error::Error, "cannot look for endpoints to post to");
                    false
                }
            };
            tokio::select! {
                biased;
                () = token.cancelled() => break,
                Some(_) = busy.join_next() => {}
                () = sleep(self.config.poll), if !found || free == 0 => {}
                () = std::future::ready(()), if found && free > 0 => {}
            }
        }
        while busy.join_next().await.is_some() {}
    }

    /// Has one endpoint's turn, and gives it back.
    async fn serve(&self, taken: TakenEndpoint, token: &CancellationToken) {
        if let Err(error) = self.turn(&taken, token).await {
            let error: &dyn std::error::Error = &error;
            tracing::warn!(error, endpoint = %taken.endpoint.id, "cannot write how far an endpoint has got; it is posted to again");
        }
    }

    async fn turn(&self, taken: &TakenEndpoint, token: &CancellationToken) -> Result<(), StoreError> {
        let begun = Instant::now();
        let endpoint = &taken.endpoint;
        let desk = match self.desk(taken) {
            Ok(desk) => desk,
            Err(error) => {
                let wait = self.config.wait(endpoint.failures);
                self.store.progress(taken, &Progress::Down { wait, error }, None).await?;
                return Ok(());
            }
        };
        if endpoint.test_wanted {
            let result = self.test(&desk, taken).await;
            if !self.store.progress(taken, &Progress::Tested { result }, Some(self.hold())).await? {
                return Ok(());
            }
        }
        if endpoint.state != store::EndpointState::Active || endpoint.next_at > self.store.now().await? {
            self.store.progress(taken, &Progress::Parked { taken: vec![], again: vec![] }, None).await?;
            return Ok(());
        }
        // While it takes nothing, what it refused before must not be given up for that.
        let is_failing = endpoint.failures > 0 && endpoint.cursor < taken.head;
        if !is_failing && !self.parked(&desk, taken).await? {
            return Ok(());
        }
        let mut cursor = endpoint.cursor;
        let end = endpoint.until.unwrap_or(i64::MAX);
        while begun.elapsed() < TURN && !token.is_cancelled() && cursor < end {
            let window = u32::try_from(end.saturating_sub(cursor)).map_or(WINDOW, |left| left.min(WINDOW));
            let page = self.store.log_after(&[endpoint.tenant], cursor, window).await?;
            if page.upto <= cursor {
                break;
            }
            let wanted: Vec<LogEntry> =
                page.entries.into_iter().filter(|entry| passes(&endpoint.events, entry)).collect();
            if wanted.is_empty() {
                cursor = page.upto;
                if !self.done(taken, cursor, Vec::new(), false).await? {
                    return Ok(());
                }
                continue;
            }
            let size = DEEP * usize::try_from(self.config.posts_at_once.get()).unwrap_or(1);
            let count = wanted.len().div_ceil(size);
            for (number, piece) in wanted.chunks(size).enumerate() {
                let upto = if number + 1 == count { page.upto } else { piece[piece.len() - 1].seq };
                if !self.piece(&desk, taken, piece, upto).await? {
                    return Ok(());
                }
                cursor = upto;
                if begun.elapsed() >= TURN || token.is_cancelled() {
                    break;
                }
            }
        }
        if cursor >= end {
            self.done(taken, cursor, Vec::new(), false).await?;
        }
        self.store.progress(taken, &Progress::Parked { taken: vec![], again: vec![] }, None).await?;
        Ok(())
    }

    async fn done(
        &self,
        taken: &TakenEndpoint,
        cursor: i64,
        parked: Vec<ParkedEvent>,
        took: bool,
    ) -> Result<bool, StoreError> {
        self.store.progress(taken, &Progress::Done { cursor, parked, took }, Some(self.hold())).await
    }

    /// Posts some events of the log and writes how far that went; `false` when the turn is over.
    async fn piece(
        &self,
        desk: &Desk,
        taken: &TakenEndpoint,
        piece: &[LogEntry],
        upto: i64,
    ) -> Result<bool, StoreError> {
        let endpoint = &taken.endpoint;
        let messages: HashSet<MessageId> = piece.iter().map(|entry| entry.message).collect();
        let messages: Vec<MessageId> = messages.into_iter().collect();
        let blocked: HashSet<MessageId> =
            self.store.parked_messages(endpoint.id, &messages).await?.into_iter().collect();
        let (behind, free): (Vec<&LogEntry>, Vec<&LogEntry>) =
            piece.iter().partition(|entry| blocked.contains(&entry.message));
        let mut tally = self.post_all(desk, free).await;
        tally.behind.extend(
            behind.into_iter().map(|entry| self.waiting(entry, 0, "an earlier event of its message is tried first")),
        );
        self.metrics.posted.inc_by(tally.taken.len() as u64);
        self.metrics.post_failures.inc_by(tally.failed.len() as u64);
        if tally.gone {
            return self.disable(taken, "the endpoint answered 410 Gone").await;
        }
        // It takes nothing: it is down, and nothing of that is the events' fault.
        if tally.taken.is_empty() && !tally.failed.is_empty() {
            let error = tally.failed.remove(0).error;
            return self.down(taken, tally.wait, error).await;
        }
        let took = !tally.taken.is_empty();
        let parked: Vec<ParkedEvent> = tally.failed.into_iter().chain(tally.behind).collect();
        if !self.done(taken, upto, parked, took).await? {
            return Ok(false);
        }
        if let Some(wait) = tally.wait {
            let error = "asked to be left alone for a while".to_owned();
            self.store.progress(taken, &Progress::Down { wait, error }, None).await?;
            return Ok(false);
        }
        Ok(true)
    }

    /// Leaves an endpoint alone, or for good when it has failed for too long.
    async fn down(&self, taken: &TakenEndpoint, wait: Option<Duration>, error: String) -> Result<bool, StoreError> {
        let endpoint = &taken.endpoint;
        let failing = match endpoint.failing_since {
            Some(since) => (self.store.now().await? - since).to_std().unwrap_or_default(),
            None => Duration::ZERO,
        };
        if failing >= self.config.disable_after {
            let days = failing.as_secs() / 86_400;
            return self.disable(taken, &format!("it took nothing for {days} days; the last time: {error}")).await;
        }
        let wait = wait.unwrap_or(Duration::ZERO).max(self.config.wait(endpoint.failures));
        tracing::info!(endpoint = %endpoint.id, wait_s = wait.as_secs(), %error, "an endpoint takes nothing");
        self.store.progress(taken, &Progress::Down { wait, error }, None).await?;
        Ok(false)
    }

    async fn disable(&self, taken: &TakenEndpoint, why: &str) -> Result<bool, StoreError> {
        let endpoint = &taken.endpoint;
        tracing::error!(endpoint = %endpoint.id, tenant.id = %endpoint.tenant, why, "an endpoint is posted to no more");
        self.metrics.disabled.inc();
        self.store.progress(taken, &Progress::Disabled { why: why.to_owned() }, None).await?;
        Ok(false)
    }

    /// Tries what is tried by itself and due; `false` when the turn is over.
    async fn parked(&self, desk: &Desk, taken: &TakenEndpoint) -> Result<bool, StoreError> {
        let endpoint = &taken.endpoint;
        let due = self.store.parked_events(endpoint.id, false, true, PARKED).await?;
        if due.is_empty() {
            return Ok(true);
        }
        let tries: BTreeMap<i64, u32> = due.iter().map(|event| (event.seq, event.tries)).collect();
        let seqs: Vec<i64> = tries.keys().copied().collect();
        let entries = self.store.log_at(endpoint.tenant, &seqs).await?;
        let mut over: Vec<i64> =
            seqs.iter().copied().filter(|seq| entries.iter().all(|entry| entry.seq != *seq)).collect();
        let mut tally = self.post_all(desk, entries.iter().collect()).await;
        self.metrics.posted.inc_by(tally.taken.len() as u64);
        self.metrics.post_failures.inc_by(tally.failed.len() as u64);
        if tally.gone {
            return self.disable(taken, "the endpoint answered 410 Gone").await;
        }
        for event in &mut tally.failed {
            event.tries = tries.get(&event.seq).copied().unwrap_or(0).saturating_add(1);
            event.dead = event.tries >= self.config.tries.get();
            event.next_in = self.config.wait(event.tries);
        }
        for event in &mut tally.behind {
            event.tries = tries.get(&event.seq).copied().unwrap_or(0);
        }
        over.extend(&tally.taken);
        let again = tally.failed.into_iter().chain(tally.behind).collect();
        self.store.progress(taken, &Progress::Parked { taken: over, again }, Some(self.hold())).await
    }

    /// Posts events: several messages at once, those of one in their order up to the first that fails.
    async fn post_all(&self, desk: &Desk, entries: Vec<&LogEntry>) -> Tally {
        let mut messages: BTreeMap<MessageId, Vec<&LogEntry>> = BTreeMap::new();
        for entry in entries {
            messages.entry(entry.message).or_default().push(entry);
        }
        let lanes = usize::try_from(self.config.posts_at_once.get()).unwrap_or(1);
        // A connection for each lane, and every lane's share of the messages.
        let mut shares: Vec<Vec<Vec<&LogEntry>>> = (0..lanes.min(messages.len())).map(|_| Vec::new()).collect();
        let count = shares.len().max(1);
        for (number, events) in messages.into_values().enumerate() {
            shares[number % count].push(events);
        }
        // What is not begun by then is put beside, so that the endpoint is still held when this is written down.
        let until = Instant::now() + self.hold() - SLACK - self.config.connect - self.config.answer;
        let mut lanes = FuturesUnordered::new();
        for share in shares {
            lanes.push(self.post_share(desk, share, until));
        }
        let mut all = Tally::default();
        while let Some(one) = lanes.next().await {
            all.taken.extend(one.taken);
            all.failed.extend(one.failed);
            all.behind.extend(one.behind);
            all.gone |= one.gone;
            all.wait = all.wait.max(one.wait);
        }
        all
    }

    async fn post_share(&self, desk: &Desk, share: Vec<Vec<&LogEntry>>, until: Instant) -> Tally {
        let mut tally = Tally::default();
        let mut line = None;
        for events in share {
            let mut broken = false;
            for entry in events {
                if broken || Instant::now() > until {
                    broken = true;
                    tally.behind.push(self.waiting(entry, 0, "an earlier event of its message is tried first"));
                    continue;
                }
                let id = format!("{}_{}", desk.name, entry.seq);
                match self.post(desk, &mut line, &id, event::body(entry)).await {
                    Outcome::Taken => tally.taken.push(entry.seq),
                    Outcome::Gone => {
                        tally.gone = true;
                        return tally;
                    }
                    Outcome::Refused { wait, error } => {
                        tally.wait = tally.wait.max(wait);
                        tally.failed.push(self.waiting(entry, 1, &error));
                        broken = true;
                    }
                }
            }
        }
        tally
    }

    fn waiting(&self, entry: &LogEntry, tries: u32, error: &str) -> ParkedEvent {
        ParkedEvent {
            seq: entry.seq,
            message: entry.message,
            tries,
            next_in: self.config.wait(tries.saturating_sub(1)),
            error: error.to_owned(),
            dead: false,
        }
    }

    /// Posts once. A connection that was kept and turns out to be closed is opened anew, once.
    async fn post(&self, desk: &Desk, line: &mut Option<Line>, id: &str, body: Vec<u8>) -> Outcome {
        let body = bytes::Bytes::from(body);
        let now: DateTime<Utc> = service::clock::now();
        let signed = match desk.signer.sign(id, now, &body) {
            Ok(signed) => signed,
            Err(error) => return Outcome::Refused { wait: None, error: error.to_string() },
        };
        loop {
            let is_kept = line.as_ref().is_some_and(Line::is_open);
            let answered = match line.take().filter(Line::is_open) {
                Some(open) => self.ask(desk, open, &signed, body.clone(), line).await,
                None => match Line::open(&desk.target, &self.config, &self.tls).await {
                    Ok(open) => self.ask(desk, open, &signed, body.clone(), line).await,
                    Err(error) => Err(error),
                },
            };
            return match answered {
                Ok(answer) if answer.status.is_success() => Outcome::Taken,
                Ok(answer) if answer.status == StatusCode::GONE => Outcome::Gone,
                Ok(answer) => Outcome::Refused {
                    wait: answer.retry_after.map(|wait| wait.min(LONGEST_WAIT)),
                    error: format!("it answered {}", answer.status),
                },
                Err(PostError::Http(_)) if is_kept => continue,
                Err(error) => Outcome::Refused { wait: None, error: service::Chain(&error).to_string() },
            };
        }
    }

    async fn ask(
        &self,
        desk: &Desk,
        mut open: Line,
        signed: &posting::outbound::SignedHeaders,
        body: bytes::Bytes,
        keep: &mut Option<Line>,
    ) -> Result<target::Answer, PostError> {
        let answer = open.post(&desk.target, &signed.fields(), body, &self.config).await?;
        *keep = Some(open);
        Ok(answer)
    }

    async fn test(&self, desk: &Desk, taken: &TakenEndpoint) -> String {
        let now = service::clock::now();
        let id = format!("{}_test_{}", desk.name, now.timestamp_millis());
        let begun = Instant::now();
        let outcome = self.post(desk, &mut None, &id, event::test(&taken.endpoint.id.to_string(), now)).await;
        let took = begun.elapsed().as_millis();
        match outcome {
            Outcome::Taken => format!("taken after {took} ms"),
            Outcome::Gone => "it answered 410 Gone".to_owned(),
            Outcome::Refused { error, .. } => format!("refused after {took} ms: {error}"),
        }
    }

    /// What is needed to post to an endpoint.
    fn desk(&self, taken: &TakenEndpoint) -> Result<Desk, String> {
        let owner = taken.endpoint.main.unwrap_or(taken.endpoint.id).to_string();
        let target: posting::EndpointUrl =
            taken.endpoint.url.parse().map_err(|error: posting::EndpointUrlError| format!("the address {error}"))?;
        let mut keys = Vec::new();
        for (number, sealed) in taken.secrets.iter().take(posting::outbound::MAX_KEYS) {
            let opened =
                self.sealer.open(&posting::secret_name(&owner, *number), sealed).map_err(|error| error.to_string())?;
            let text = String::from_utf8(opened).map_err(|_| "a secret is none".to_owned())?;
            keys.push(text.parse().map_err(|error: posting::KeyError| format!("a secret {error}"))?);
        }
        let signer = Signer::new(keys).map_err(|error| error.to_string())?;
        Ok(Desk { name: owner, target, signer })
    }
}

/// What is needed to post to an endpoint.
struct Desk {
    name: String,
    target: posting::EndpointUrl,
    signer: Signer,
}

/// Whether an endpoint wants an event.
fn passes(kinds: &[String], entry: &LogEntry) -> bool {
    kinds.is_empty() || kinds.iter().any(|kind| kind == event::kind(entry))
}
