//! One way out: MX hosts, or a relay.

use crate::{
    api::{Api, Link, LinkError},
    config::{BreakerConfig, Deadlines, RelayConfig, RouteConfig, TlsMode, Transport},
    pace::Backoff,
    provider::{Account, Provider},
    resolve::{MxResolver, ResolveError},
    sessions::{Counted, Kept, Sessions, Turn},
};
use dns::ResolverSetupError;
use domain::{DomainName, Lane, MessageId, Shaping, SiteId, TlsNeed};
use smtp::{
    TlsContext,
    client::{ClientConfig, ConnectError, Connection, Credentials, HeloName, Stage, TlsPolicy, WireError},
};
use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio_util::bytes::Bytes;

/// Why a route cannot be used as it is configured.
#[derive(Debug, thiserror::Error)]
pub enum RouteError {
    /// The EHLO name is none.
    #[error("helo: {text:?} is not a host name; give the name that the source address resolves to")]
    Helo {
        /// What was given.
        text: String,
    },
    /// The password cannot be read.
    #[error("password_file: cannot read {}: {source}", path.display())]
    Password {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A user name without a password, or the reverse.
    #[error("username and password_file go together: give both or neither")]
    HalfCredentials,
    /// A provider without its key.
    #[error("password_file: name the file that holds the provider's key")]
    NoPassword,
    /// A field of a provider's route.
    #[error("{field}: {problem}")]
    Provider {
        /// Which.
        field: &'static str,
        /// What is wrong with it, and the fix.
        problem: String,
    },
    /// DNS cannot be set up.
    #[error("resolvers: {0}")]
    Resolver(#[from] ResolverSetupError),
    /// TLS cannot be set up.
    #[error("ca_file: {0}")]
    Tls(#[from] smtp::TlsSetupError),
}

/// Why no session came about.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoSession {
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    #[error("{host}: {source}")]
    Connect { host: String, source: ConnectError },
    #[error("{host}: {source}")]
    Api { host: String, source: LinkError },
    #[error("{host} offers no TLS, which this receiver needs")]
    Plain { host: String },
}

impl NoSession {
    /// Whether there will be none at any time, by any route: the domain takes no mail.
    pub(crate) fn is_final(&self) -> bool {
        matches!(self, Self::Resolve(error) if error.is_permanent())
    }

    /// Whether the host refused the session before anything of a message was said, and only for now.
    pub(crate) fn is_refusal_at_the_door(&self) -> bool {
        let Self::Connect { source, .. } = self else { return false };
        matches!(source, ConnectError::Refused { stage: Stage::Banner | Stage::Ehlo, reply } if reply.is_transient())
    }
}

/// Whose fault it is that no session came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The receiver's.
    Site,
    /// The route's, whatever the receiver.
    Route,
    /// The route's, and it does not pass by itself: user name and password are refused.
    Credentials,
    /// Nobody's: the account has had its share for so long.
    Busy(Duration),
}

/// A session and the host that it is with.
pub(crate) struct Session {
    pub(crate) wire: Wire,
    pub(crate) host: String,
    /// With a relay: the right to use it, and its place among its sessions.
    shared: Option<(Turn, Counted)>,
}

impl Session {
    /// Says good-bye. Nobody opens another one in its place before it is over.
    pub(crate) async fn end(self) {
        self.wire.quit().await;
    }
}

/// What a session goes over.
pub(crate) enum Wire {
    /// SMTP.
    Smtp(Box<Connection>),
    /// HTTP.
    Http {
        /// The account.
        api: Arc<Api>,
        /// The connection.
        link: Box<Link>,
    },
}

impl Wire {
    pub(crate) fn is_reusable(&self) -> bool {
        match self {
            Self::Smtp(connection) => connection.is_reusable(),
            Self::Http { link, .. } => link.is_reusable(),
        }
    }

    pub(crate) fn messages_sent(&self) -> u32 {
        match self {
            Self::Smtp(connection) => connection.messages_sent(),
            Self::Http { link, .. } => link.messages_sent(),
        }
    }

    async fn quit(self) {
        match self {
            Self::Smtp(connection) => connection.quit().await,
            // Nothing is said: it closes.
            Self::Http { .. } => {}
        }
    }
}

pub(crate) struct Route {
    name: String,
    way: Way,
    client: ClientConfig,
    /// Limits by site of this route alone.
    pub(crate) shaping: Option<Shaping>,
    health: Mutex<Backoff>,
    credentials_pause: Duration,
}

enum Way {
    Relay(Box<Relay>),
    Direct { resolver: Box<MxResolver>, port: u16, hosts: usize, addresses: usize, site_ttl: Duration },
}

struct Relay {
    host: String,
    port: u16,
    account: Option<Account>,
    /// Its HTTP API, where that is used instead of SMTP.
    api: Option<Arc<Api>>,
    sessions: Sessions,
}

impl Route {
    pub(crate) fn new(
        name: String,
        config: &RouteConfig,
        deadlines: &Deadlines,
        breaker: &BreakerConfig,
    ) -> Result<Self, RouteError> {
        let provider = Provider::of(config);
        let helo = match config {
            RouteConfig::Direct(direct) => &direct.helo,
            RouteConfig::Relay(relay) => &relay.helo,
            _ => provider.and_then(|(_, config)| config.helo.as_deref()).unwrap_or("localhost"),
        };
        let helo: HeloName = helo.parse().map_err(|_| RouteError::Helo { text: helo.to_owned() })?;
        let ca_file = match config {
            RouteConfig::Relay(relay) => relay.ca_file.as_deref(),
            _ => provider.and_then(|(_, config)| config.ca_file.as_deref()),
        };
        let tls = ca_file.map_or_else(TlsContext::new, TlsContext::with_file)?;
        let mut client = ClientConfig::new(helo, tls.clone());
        client.deadlines = smtp::client::Deadlines {
            connect: deadlines.connect,
            banner: deadlines.greeting,
            ehlo: deadlines.greeting,
            starttls: deadlines.starttls,
            mail: deadlines.envelope,
            rcpt: deadlines.envelope,
            data: deadlines.data,
            body_progress: deadlines.body,
            dot: deadlines.dot,
            ..smtp::client::Deadlines::default()
        };
        let (way, shaping) = match (config, provider) {
            (RouteConfig::Direct(direct), _) => {
                client.source = direct.source;
                let way = Way::Direct {
                    resolver: Box::new(MxResolver::new(direct)?),
                    port: direct.port.get(),
                    hosts: direct.hosts_per_attempt.get().into(),
                    addresses: direct.addresses_per_host.get().into(),
                    site_ttl: direct.site_ttl,
                };
                (way, &direct.shaping)
            }
            (_, Some((provider, config))) => {
                let path = config.password_file.as_deref().ok_or(RouteError::NoPassword)?;
                let password = password(path)?;
                if config.transport == Transport::Http {
                    let api = Api::new(provider, config, &password, deadlines, tls.clone())
                        .map_err(|(field, problem)| RouteError::Provider { field, problem })?;
                    let (connections, messages) = provider.limits();
                    let relay = Relay {
                        host: api.host.clone(),
                        port: api.port,
                        account: None,
                        api: Some(Arc::new(api)),
                        sessions: Sessions::new(
                            config.max_connections.map_or(connections, Into::into),
                            config.messages_per_connection.map_or(messages, Into::into),
                        ),
                    };
                    return Ok(Self {
                        name,
                        way: Way::Relay(Box::new(relay)),
                        client,
                        shaping: config.shaping.clone(),
                        health: Mutex::new(Backoff::new(breaker.pause)),
                        credentials_pause: breaker.credentials,
                    });
                }
                let account = Account::new(provider, config, &password)
                    .map_err(|(field, problem)| RouteError::Provider { field, problem })?;
                client.tls = policy(account.tls);
                client.credentials = Some(Credentials {
                    username: account.username.clone(),
                    password,
                    allow_without_tls: config.allow_password_without_tls,
                });
                let relay = Relay {
                    host: account.host.clone(),
                    port: account.port,
                    sessions: Sessions::new(account.max_connections, account.messages_per_connection),
                    account: Some(account),
                    api: None,
                };
                (Way::Relay(Box::new(relay)), &config.shaping)
            }
            (RouteConfig::Relay(relay), None) => {
                client.tls = policy(relay.tls);
                client.credentials = credentials(relay)?;
                let way = Way::Relay(Box::new(Relay {
                    host: relay.host.clone(),
                    port: relay.port,
                    sessions: Sessions::new(relay.max_connections.get(), relay.messages_per_connection.get()),
                    account: None,
                    api: None,
                }));
                (way, &relay.shaping)
            }
            (_, None) => unreachable!("every other kind is a provider's"),
        };
        Ok(Self {
            name,
            way,
            client,
            shaping: shaping.clone(),
            health: Mutex::new(Backoff::new(breaker.pause)),
            credentials_pause: breaker.credentials,
        })
    }

    /// The route's name in facts and figures.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    fn health(&self) -> MutexGuard<'_, Backoff> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long the route is still to be left alone, whatever the receiver.
    pub(crate) fn paused(&self, now: Instant) -> Option<Duration> {
        self.health().paused(now)
    }

    /// It gave a session.
    pub(crate) fn answered(&self, now: Instant) {
        self.health().answered(now);
    }

    /// It gave none, by its own fault.
    pub(crate) fn failed(&self, fault: Fault, now: Instant) {
        match fault {
            Fault::Site => {}
            Fault::Route => self.health().failed(now),
            Fault::Credentials => self.health().stop(self.credentials_pause, now),
            Fault::Busy(wait) => self.health().stop(wait, now),
        }
    }

    /// Whose fault it is that there is no session.
    pub(crate) fn fault(&self, reason: &NoSession) -> Fault {
        match (&self.way, reason) {
            // The address that it is to come from is not one of this host.
            (Way::Direct { .. }, NoSession::Connect { source, .. }) if is_about_us(source) => Fault::Route,
            (Way::Direct { .. }, _) => Fault::Site,
            (Way::Relay(_), NoSession::Connect { source, .. }) => match source {
                ConnectError::Refused { stage: Stage::Auth, reply } if !reply.is_transient() => Fault::Credentials,
                ConnectError::AuthWithoutTls | ConnectError::AuthUnavailable => Fault::Credentials,
                _ => Fault::Route,
            },
            (Way::Relay(_), _) => Fault::Route,
        }
    }

    /// Whether the relay keeps other sessions, so that to be refused one more is no failure.
    pub(crate) fn has_more_sessions_than(&self, these: usize) -> bool {
        matches!(&self.way, Way::Relay(relay) if relay.sessions.has_more_than(these))
    }

    /// Whether its sessions serve all receivers.
    pub(crate) fn is_shared(&self) -> bool {
        matches!(self.way, Way::Relay(_))
    }

    /// Gives back a session that others may use; it comes back when it is to be closed.
    pub(crate) fn put(&self, session: Session) -> Option<Session> {
        match (&self.way, session) {
            (Way::Relay(relay), Session { wire, host, shared: Some((turn, counted)) }) => {
                let Kept { wire, counted } = relay.sessions.put(Kept { wire, counted })?;
                Some(Session { wire, host, shared: Some((turn, counted)) })
            }
            (_, session) => Some(session),
        }
    }

    /// Says good-bye in the sessions that nobody has used for so long.
    pub(crate) async fn close_unused(&self, keep: Duration) {
        let Way::Relay(relay) = &self.way else { return };
        while let Some((Kept { wire, counted }, turn)) = relay.sessions.stale(keep) {
            wire.quit().await;
            drop((counted, turn));
        }
    }

    /// A session turned out to be dead: others that rested have most likely died with it.
    pub(crate) fn found_dead(&self) {
        if let Way::Relay(relay) = &self.way {
            relay.sessions.clear();
        }
    }

    /// The mail as this route wants it.
    pub(crate) fn dressed(&self, message: MessageId, mime: &Bytes) -> Bytes {
        let Way::Relay(relay) = &self.way else { return mime.clone() };
        let Some(account) = &relay.account else { return mime.clone() };
        let header = account.header(message);
        [header.as_bytes(), mime].concat().into()
    }

    /// The site behind a domain by its MX hosts, and how long that may be believed; `None` where the route does not
    /// depend on it, or it cannot be told now.
    pub(crate) async fn site(&self, domain: &DomainName) -> Option<(SiteId, Duration)> {
        match &self.way {
            Way::Relay(_) => None,
            Way::Direct { resolver, site_ttl, .. } => Some((resolver.site(domain).await?, *site_ttl)),
        }
    }

    /// Waits for the right to use a session, where those of all receivers are counted together.
    pub(crate) async fn turn(&self, lane: Lane) -> Option<Turn> {
        match &self.way {
            Way::Relay(relay) => Some(relay.sessions.turn(lane).await),
            Way::Direct { .. } => None,
        }
    }

    /// Opens a session with one of the hosts that take mail for `domain`, or takes one that rests.
    pub(crate) async fn session(
        &self,
        domain: &DomainName,
        need: TlsNeed,
        turn: Option<Turn>,
    ) -> Result<Session, NoSession> {
        match &self.way {
            Way::Relay(relay) => {
                let Kept { wire, counted } = match relay.sessions.take() {
                    Some(kept) => kept,
                    None => {
                        let opened = match &relay.api {
                            Some(api) => {
                                let link = Link::open(api).await;
                                let host = || relay.host.clone();
                                let link = link.map_err(|source| NoSession::Api { host: host(), source })?;
                                Wire::Http { api: Arc::clone(api), link: Box::new(link) }
                            }
                            None => {
                                let address = self.relay_address(&relay.host, relay.port).await?;
                                self.connect(&relay.host, address, None).await?.wire
                            }
                        };
                        self.answered(Instant::now());
                        relay.sessions.opened(opened)
                    }
                };
                Ok(Session { wire, host: relay.host.clone(), shared: turn.map(|turn| (turn, counted)) })
            }
            Way::Direct { resolver, port, hosts, addresses, .. } => {
                let mut last = NoSession::Resolve(ResolveError::NoAddress);
                let mut forbidden = 0;
                let found = resolver.hosts(domain).await?;
                let all = found.len();
                for host in found.iter().take(*hosts) {
                    let candidates = match resolver.addresses(host, *port, *addresses).await {
                        Ok(candidates) => candidates,
                        Err(error) => {
                            forbidden += usize::from(error == ResolveError::Forbidden);
                            last = error.into();
                            continue;
                        }
                    };
                    for address in candidates {
                        match self.connect(host.as_str(), address, Some(need)).await {
                            Ok(session) => {
                                self.answered(Instant::now());
                                return Ok(session);
                            }
                            Err(error) => last = error,
                        }
                    }
                }
                // One forbidden host among others is a mistake of the domain; the others may come back.
                if matches!(last, NoSession::Resolve(ResolveError::Forbidden)) && forbidden < all {
                    last = ResolveError::NoAddress.into();
                }
                Err(last)
            }
        }
    }

    async fn connect(&self, host: &str, address: SocketAddr, need: Option<TlsNeed>) -> Result<Session, NoSession> {
        let host = host.to_owned();
        let opened = match Connection::connect(address, &host, &self.client).await {
            // Broken TLS is not worse than none, where none would do.
            Err(error) if error.may_retry_in_clear(&self.client.tls) && need != Some(TlsNeed::Required) => {
                let clear = ClientConfig { tls: TlsPolicy::None, ..self.client.clone() };
                Connection::connect(address, &host, &clear).await
            }
            opened => opened,
        };
        match opened {
            Ok(connection) if need == Some(TlsNeed::Required) && !connection.is_tls() => {
                connection.quit().await;
                Err(NoSession::Plain { host })
            }
            Ok(connection) => Ok(Session { wire: Wire::Smtp(Box::new(connection)), host, shared: None }),
            Err(source) => Err(NoSession::Connect { host, source }),
        }
    }

    async fn relay_address(&self, host: &str, port: u16) -> Result<SocketAddr, NoSession> {
        let looked_up =
            tokio::time::timeout(self.client.deadlines.connect, tokio::net::lookup_host((host, port))).await;
        match looked_up {
            Ok(Ok(mut found)) => found.next().ok_or_else(|| ResolveError::NoAddress.into()),
            Ok(Err(error)) => Err(ResolveError::Failed(error.to_string()).into()),
            Err(_) => Err(ResolveError::Failed("no answer in time".to_owned()).into()),
        }
    }
}

fn is_about_us(error: &ConnectError) -> bool {
    matches!(
        error,
        ConnectError::Wire(WireError::Io { stage: Stage::Connect, source })
            if source.kind() == io::ErrorKind::AddrNotAvailable
    )
}

fn policy(mode: TlsMode) -> TlsPolicy {
    match mode {
        TlsMode::None => TlsPolicy::None,
        TlsMode::Opportunistic => TlsPolicy::Opportunistic,
        TlsMode::Required => TlsPolicy::Required { name: None },
        TlsMode::Implicit => TlsPolicy::Implicit { name: None },
    }
}

fn credentials(relay: &RelayConfig) -> Result<Option<Credentials>, RouteError> {
    match (&relay.username, &relay.password_file) {
        (None, None) => Ok(None),
        (Some(username), Some(path)) => Ok(Some(Credentials {
            username: username.clone(),
            password: password(path)?,
            allow_without_tls: relay.allow_password_without_tls,
        })),
        _ => Err(RouteError::HalfCredentials),
    }
}

fn password(path: &Path) -> Result<String, RouteError> {
    let read = std::fs::read_to_string(path);
    let text = read.map_err(|source| RouteError::Password { path: path.to_owned(), source })?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}
