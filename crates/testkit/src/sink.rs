//! A receiver of mail for tests, the demo and the benchmark: takes everything, keeps what it is told to
//! keep, counts copies, and misbehaves on demand.
//!
//! The recipient scripts what happens. The local part begins with one of these words, alone or followed
//! by a character that is no letter (`greylist@`, `greylist7@`, `greylist.ann@`, not `greylisted@`):
//!
//! | local part | answer |
//! |---|---|
//! | `greylist` | RCPT: `450 4.7.1` the first time for this recipient, then accepted |
//! | `tempfail` | RCPT: `451 4.3.0`, always |
//! | `unknown` | RCPT: `550 5.1.1` |
//! | `full` | RCPT: `552 5.2.2` |
//! | `busy` | RCPT: `421 4.3.2`, and closes |
//! | `reject-data` | final dot: `554 5.7.1`, nothing kept |
//! | `drop-before-dot` | DATA: closes the connection instead of the 354, nothing kept |
//! | `cut-body` | 354, then resets the connection after 1,000 octets of body, nothing kept; a client that had sent its dot by then is in doubt |
//! | `drop-after-dot` | keeps the copy and closes without a reply |
//! | `hang-after-dot` | keeps the copy and says nothing for [`SinkConfig::hang`], then closes |
//! | `slow`, `slow-200ms`, `slow-2s` | final dot: `250` after [`SinkConfig::slow_delay`], or after the time named |
//! | anything else | `250` |
//!
//! With `-once` behind the word (`tempfail-once@`, `drop-after-dot-once.ann@`) it happens the first time
//! for this recipient, and then the mail is accepted.
//!
//! | domain | what it does |
//! |---|---|
//! | `slow.…` | final dot answered after [`SinkConfig::slow_delay`]; more connections at a time than [`SinkConfig::slow_connections`] get `421 4.7.0` at RCPT, for each such domain by itself |
//!
//! # Guarantees
//! A copy is in the store before its `250` (or the silence of `drop-after-dot`) goes out. A copy is known
//! by `X-Mailfleet-Id`, else by `Message-ID`, and its recipient; a second one counts as duplicated, also
//! after a restart on the same directory. Nothing is synced to disk: the sink survives a kill of its own
//! process, not of the machine.

mod distance;
mod headers;
mod index;
mod script;
mod session;
mod state;

pub use index::{IndexLine, read_index};
pub use script::{Behaviour, Script};
pub use state::{SinkStats, StoredMail};

use bytes::Bytes;
use distance::Distant;
use domain::Mailbox;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use session::SinkSession;
use smtp::server::{Ended, Extensions, ServerConfig, serve};
use state::Shared;
use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc::UnboundedSender,
    task::{JoinHandle, JoinSet},
};

/// How long the accept loop rests after an error such as too many open files.
const ACCEPT_BACK_OFF: Duration = Duration::from_millis(50);

/// Where copies go.
#[derive(Clone, Debug, Default)]
pub enum SinkStore {
    /// Kept in memory: [`Sink::mails_to`].
    #[default]
    Memory,
    /// A folder per recipient domain with `.eml` files, and a line for each copy in `index.jsonl`.
    Directory(PathBuf),
    /// Counted and thrown away.
    Discard,
}

/// Tells of the copies for one domain as they come.
#[derive(Clone, Debug)]
pub struct Watch {
    /// The recipients' domain.
    pub domain: String,
    /// Where it is told.
    pub tell: UnboundedSender<Arrival>,
}

/// One copy that came.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// `RCPT TO`.
    pub recipient: Mailbox,
    /// When it was taken, in microseconds since 1970.
    pub at_us: u64,
    /// Header and body as they were sent.
    pub body: Bytes,
}

/// STARTTLS of the sink.
#[derive(Clone, Debug, Default)]
pub enum SinkTls {
    /// Not offered.
    #[default]
    Off,
    /// Offered with a fresh certificate for these names; [`Sink::certificate`] is its root.
    SelfSigned(Vec<String>),
    /// Offered with this.
    With(Arc<rustls::ServerConfig>),
}

/// What the sink does besides its scripts.
#[derive(Clone, Debug)]
pub struct SinkConfig {
    /// Address to listen on; port 0 takes a free one. Default 127.0.0.1:0.
    pub listen: SocketAddr,
    /// Name in the greeting. Default `sink.test`.
    pub hostname: String,
    /// Where copies go. Default memory.
    pub store: SinkStore,
    /// Who is told of copies as they come. Default nobody.
    pub watch: Option<Watch>,
    /// How many `.eml` files a domain gets in [`SinkStore::Directory`]; the index has every copy. Default all.
    pub files_per_domain: usize,
    /// STARTTLS. Default off.
    pub tls: SinkTls,
    /// Extensions offered. Default all.
    pub extensions: Extensions,
    /// Octets of one message. Default 25 MiB.
    pub max_size: usize,
    /// Connections at a time; further ones are greeted with `421`. Default 1,000.
    pub max_connections: usize,
    /// Delay of `slow@` and of `slow.` domains. Default 150 ms.
    pub slow_delay: Duration,
    /// Connections at a time for one `slow.` domain. Default 5.
    pub slow_connections: usize,
    /// How far away it is: a client waits this long for the greeting and for the answer to each flight. Default 0.
    pub round_trip: Duration,
    /// Silence of `hang-after-dot`. Default 15 min, longer than the ten that RFC 5321 asks a client to wait.
    pub hang: Duration,
}

impl Default for SinkConfig {
    fn default() -> Self {
        Self {
            listen: (Ipv4Addr::LOCALHOST, 0).into(),
            hostname: "sink.test".to_owned(),
            store: SinkStore::default(),
            watch: None,
            files_per_domain: usize::MAX,
            tls: SinkTls::default(),
            extensions: Extensions::default(),
            max_size: 25 * 1_024 * 1_024,
            max_connections: 1_000,
            slow_delay: Duration::from_millis(150),
            slow_connections: 5,
            round_trip: Duration::ZERO,
            hang: Duration::from_secs(15 * 60),
        }
    }
}

/// The sink cannot start.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// The address is taken, or not ours.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The folder cannot be made, or its index not read.
    #[error("cannot use the folder {}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No certificate for the names.
    #[error("cannot make a certificate")]
    Certificate(#[source] rcgen::Error),
    /// TLS cannot be set up.
    #[error("cannot set up TLS")]
    Tls(#[source] rustls::Error),
}

/// A running sink. Dropping it ends it and every connection.
#[derive(Debug)]
pub struct Sink {
    shared: Arc<Shared>,
    address: SocketAddr,
    certificate: Option<CertificateDer<'static>>,
    accepting: JoinHandle<()>,
}

impl Sink {
    /// Listens and takes mail from now on.
    ///
    /// # Errors
    /// One of [`SinkError`]'s.
    pub async fn start(config: SinkConfig) -> Result<Self, SinkError> {
        let (tls, certificate) = match &config.tls {
            SinkTls::Off => (None, None),
            SinkTls::With(tls) => (Some(tls.clone()), None),
            SinkTls::SelfSigned(names) => {
                let (tls, root) = self_signed(names)?;
                (Some(tls), Some(root))
            }
        };
        let listen_error = |source| SinkError::Listen { address: config.listen, source };
        let listener = TcpListener::bind(config.listen).await.map_err(listen_error)?;
        let address = listener.local_addr().map_err(listen_error)?;
        let server = Arc::new(ServerConfig {
            max_size: config.max_size,
            tls,
            extensions: config.extensions,
            max_commands: u32::MAX,
            session: Duration::from_secs(24 * 60 * 60),
            ..ServerConfig::new(config.hostname.clone())
        });
        let shared = Arc::new(Shared::open(config)?);
        #[expect(
            clippy::disallowed_methods,
            reason = "a test tool with a handle of its own, in no service's lifecycle"
        )]
        let accepting = tokio::spawn(accept(listener, shared.clone(), server));
        Ok(Self { shared, address, certificate, accepting })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// The root that verifies [`SinkTls::SelfSigned`].
    pub fn certificate(&self) -> Option<&CertificateDer<'static>> {
        self.certificate.as_ref()
    }

    /// What it has done so far.
    pub fn stats(&self) -> SinkStats {
        self.shared.stats()
    }

    /// Copies taken for this recipient, in every kind of store. Case of the local part does not matter.
    pub fn copies_of(&self, recipient: &str) -> u32 {
        self.shared.copies_of(recipient)
    }

    /// Every copy in the order of arrival. Empty unless the store is memory.
    pub fn mails(&self) -> Vec<Arc<StoredMail>> {
        self.shared.mails()
    }

    /// The copies for this recipient in the order of arrival. Empty unless the store is memory.
    pub fn mails_to(&self, recipient: &str) -> Vec<Arc<StoredMail>> {
        self.shared.mails_to(recipient)
    }

    /// Waits until `condition` holds, looking each time something happened; whether it came to hold.
    pub async fn wait_for(&self, mut condition: impl FnMut(&Self) -> bool, limit: Duration) -> bool {
        let mut changes = self.shared.changes();
        let wait = async {
            // The sender lives as long as `self`.
            while !condition(self) && changes.changed().await.is_ok() {}
        };
        let _ = tokio::time::timeout(limit, wait).await;
        condition(self)
    }

    /// Forgets the first times that scripts have counted, so that everything happens once more.
    pub fn forget_first_times(&self) {
        self.shared.forget_first_times();
    }

    /// Closes the listener and every connection, and waits until nothing of it runs.
    pub async fn stop(mut self) {
        self.accepting.abort();
        // The error says that it was aborted, which is what was asked for.
        let _ = (&mut self.accepting).await;
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, server: Arc<ServerConfig>) {
    let mut sessions = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => drop(sessions.spawn(session(stream, shared.clone(), server.clone()))),
                Err(error) => {
                    tracing::warn!(error = %error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_BACK_OFF).await;
                }
            },
            Some(_) = sessions.join_next() => {}
        }
    }
}

async fn session(stream: TcpStream, shared: Arc<Shared>, server: Arc<ServerConfig>) {
    // Without it the answers of two flights in a row wait for an acknowledgement.
    let _ = stream.set_nodelay(true);
    let stream = Distant::new(stream, shared.config().round_trip);
    let mut handler = SinkSession::new(shared);
    let (ended, stream) = serve(stream, &mut handler, &server).await;
    if let (Ended::Reset, Some(stream)) = (ended, stream) {
        let _ = stream.get_ref().set_zero_linger();
    }
}

fn self_signed(names: &[String]) -> Result<(Arc<rustls::ServerConfig>, CertificateDer<'static>), SinkError> {
    let made = rcgen::generate_simple_self_signed(names).map_err(SinkError::Certificate)?;
    let root = made.cert.der().clone();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| {
            let key = PrivateKeyDer::from(made.signing_key);
            builder.with_no_client_auth().with_single_cert(vec![root.clone()], key)
        })
        .map_err(SinkError::Tls)?;
    Ok((Arc::new(config), root))
}
