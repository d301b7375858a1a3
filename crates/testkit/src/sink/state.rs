//! What all connections of a sink share: counts, copies, first times.

use super::{
    Arrival, SinkConfig, SinkError, SinkStore,
    headers::Identity,
    index::{Folder, IndexLine, Job},
    script::Behaviour,
};
use bytes::Bytes;
use domain::Mailbox;
use smtp::server::Message;
use std::{
    collections::{HashMap, HashSet},
    hash::{DefaultHasher, Hash, Hasher},
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};
use tokio::sync::watch;

/// What a sink has done since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct SinkStats {
    /// Connections opened.
    pub connections: u64,
    /// Connections open now.
    pub open: u64,
    /// Most connections that were open at a time.
    pub peak: u64,
    /// Copies taken: one for each recipient of each message.
    pub accepted: u64,
    /// Copies that had been taken before, among `accepted`.
    pub duplicated: u64,
    /// Recipients and messages that were refused by script.
    pub refused: u64,
    /// Connections that were cut by script, before or after the dot.
    pub dropped: u64,
    /// Octets of the copies taken.
    pub octets: u64,
    /// When the last copy was taken, in microseconds since 1970.
    pub last_us: u64,
}

/// One copy.
#[derive(Clone, PartialEq, Eq)]
pub struct StoredMail {
    /// `MAIL FROM`; empty for the null sender.
    pub sender: String,
    /// `RCPT TO`.
    pub recipient: String,
    /// `X-Mailfleet-Id`.
    pub fleet_id: Option<String>,
    /// `Message-ID`, angle brackets and all.
    pub message_id: Option<String>,
    /// Header and body as they were sent.
    pub body: Bytes,
    /// Whether it came under TLS.
    pub tls: bool,
    /// Which connection it came on, counted from 1.
    pub connection: u64,
}

impl std::fmt::Debug for StoredMail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoredMail").field("octets", &self.body.len()).finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct State {
    stats: SinkStats,
    /// Hashes, since a benchmark takes millions: (id of the message, recipient).
    seen: HashSet<u64>,
    /// Copies by hash of the recipient.
    copies: HashMap<u64, u32>,
    /// (recipient, behaviour) that have happened.
    first_times: HashSet<u64>,
    /// Connections in a slow domain.
    places: HashMap<String, usize>,
    mails: Vec<Arc<StoredMail>>,
    by_recipient: HashMap<String, Vec<Arc<StoredMail>>>,
}

impl State {
    /// Counts a copy.
    fn count(&mut self, id: Option<&str>, recipient: &str, octets: u64, at_us: u64) {
        self.stats.accepted += 1;
        self.stats.last_us = at_us;
        self.stats.octets += octets;
        *self.copies.entry(hash(recipient)).or_default() += 1;
        if id.is_some_and(|id| !self.seen.insert(hash((id, recipient)))) {
            self.stats.duplicated += 1;
        }
    }
}

#[derive(Debug)]
pub(super) struct Shared {
    config: SinkConfig,
    state: Mutex<State>,
    changed: watch::Sender<()>,
    folder: Option<Folder>,
}

impl Shared {
    pub(super) fn open(config: SinkConfig) -> Result<Self, SinkError> {
        let mut state = State::default();
        let folder = if let SinkStore::Directory(path) = &config.store {
            let failed = |source| SinkError::Folder { path: path.clone(), source };
            let (folder, known) = Folder::open(path, config.files_per_domain).map_err(failed)?;
            for line in known {
                state.count(line.key(), &line.recipient.to_lowercase(), 0, 0);
            }
            // What an earlier run took makes duplicates known; it is not what this one took.
            state.stats = SinkStats::default();
            Some(folder)
        } else {
            None
        };
        Ok(Self { config, state: Mutex::new(state), changed: watch::Sender::new(()), folder })
    }

    pub(super) fn config(&self) -> &SinkConfig {
        &self.config
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing is done under the lock that could leave it half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.changed.send_replace(());
    }

    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    pub(super) fn stats(&self) -> SinkStats {
        self.state().stats
    }

    pub(super) fn copies_of(&self, recipient: &str) -> u32 {
        self.state().copies.get(&hash(&*recipient.to_lowercase())).copied().unwrap_or_default()
    }

    pub(super) fn mails(&self) -> Vec<Arc<StoredMail>> {
        self.state().mails.clone()
    }

    pub(super) fn mails_to(&self, recipient: &str) -> Vec<Arc<StoredMail>> {
        self.state().by_recipient.get(&recipient.to_lowercase()).cloned().unwrap_or_default()
    }

    /// Counts a connection; its number.
    pub(super) fn connected(&self) -> u64 {
        let mut number = 0;
        self.change(|state| {
            state.stats.connections += 1;
            state.stats.open += 1;
            state.stats.peak = state.stats.peak.max(state.stats.open);
            number = state.stats.connections;
        });
        number
    }

    pub(super) fn disconnected(&self, slow_domains: &[String]) {
        self.change(|state| {
            state.stats.open -= 1;
            for domain in slow_domains {
                if let Some(taken) = state.places.get_mut(domain) {
                    *taken -= 1;
                }
            }
        });
    }

    pub(super) fn is_crowded(&self) -> bool {
        self.state().stats.open > self.config.max_connections as u64
    }

    /// Takes a place in a slow domain, if there is one.
    pub(super) fn take_place(&self, domain: &str) -> bool {
        let mut state = self.state();
        let taken = state.places.entry(domain.to_owned()).or_default();
        let free = *taken < self.config.slow_connections;
        *taken += usize::from(free);
        free
    }

    pub(super) fn is_first_time(&self, recipient: &Mailbox, behaviour: Behaviour) -> bool {
        self.state().first_times.insert(hash((recipient.as_str().to_lowercase(), behaviour)))
    }

    pub(super) fn forget_first_times(&self) {
        self.state().first_times.clear();
    }

    pub(super) fn refused(&self) {
        self.change(|state| state.stats.refused += 1);
    }

    pub(super) fn dropped(&self) {
        self.change(|state| state.stats.dropped += 1);
    }

    fn tell(&self, message: &Message, at_us: u64) {
        let Some(watch) = &self.config.watch else { return };
        for recipient in message.recipients.iter().filter(|recipient| recipient.domain_str() == watch.domain) {
            let arrival = Arrival { recipient: recipient.clone(), at_us, body: message.body.clone() };
            // Whoever watched may have stopped.
            let _ = watch.tell.send(arrival);
        }
    }

    /// Keeps and counts a copy for each recipient.
    pub(super) async fn keep(&self, message: &Message, connection: u64) -> io::Result<()> {
        let identity = Identity::of(&message.body);
        if let Some(folder) = &self.folder {
            for recipient in &message.recipients {
                let line = IndexLine {
                    fleet_id: identity.fleet_id.clone(),
                    message_id: identity.message_id.clone(),
                    recipient: recipient.as_str().to_owned(),
                    at_ms: unix_us() / 1_000,
                    octets: message.body.len() as u64,
                    file: None,
                };
                let domain = recipient.domain_str().to_owned();
                folder.write(Job { line, domain, body: message.body.clone() }).await?;
            }
        }
        let memory = matches!(self.config.store, SinkStore::Memory);
        // A copy of its own size, since the received one keeps a whole read buffer alive.
        let body = if memory { Bytes::copy_from_slice(&message.body) } else { Bytes::new() };
        let at_us = unix_us();
        self.tell(message, at_us);
        self.change(|state| {
            for recipient in &message.recipients {
                let known_as = recipient.as_str().to_lowercase();
                state.count(identity.key(), &known_as, message.body.len() as u64, at_us);
                if memory {
                    let mail = Arc::new(StoredMail {
                        sender: message.mail.sender.as_str().to_owned(),
                        recipient: recipient.as_str().to_owned(),
                        fleet_id: identity.fleet_id.clone(),
                        message_id: identity.message_id.clone(),
                        body: body.clone(),
                        tls: message.tls,
                        connection,
                    });
                    state.mails.push(mail.clone());
                    state.by_recipient.entry(known_as).or_default().push(mail);
                }
            }
        });
        Ok(())
    }
}

fn hash(value: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

fn unix_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}
