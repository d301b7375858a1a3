//! The way out: MX hosts, or one relay.

use crate::{
    config::{Deadlines, RelayConfig, RouteConfig, TlsMode},
    resolve::{MxResolver, ResolveError, ResolverSetupError},
};
use domain::{DomainName, SiteId, TlsNeed};
use smtp::{
    TlsContext,
    client::{ClientConfig, ConnectError, Connection, Credentials, HeloName, Stage, TlsPolicy},
};
use std::{net::SocketAddr, path::PathBuf, time::Duration};

/// Why a route cannot be used as it is configured.
#[derive(Debug, thiserror::Error)]
pub enum RouteError {
    /// The EHLO name is none.
    #[error("route.helo: {text:?} is not a host name; give the name that the source address resolves to")]
    Helo {
        /// What was given.
        text: String,
    },
    /// The password cannot be read.
    #[error("route.password_file: cannot read {}", path.display())]
    Password {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A user name without a password, or the reverse.
    #[error("route.username and route.password_file go together: give both or neither")]
    HalfCredentials,
    /// DNS cannot be set up.
    #[error("route: {0}")]
    Resolver(#[from] ResolverSetupError),
    /// TLS cannot be set up.
    #[error("route: cannot set up TLS")]
    Tls(#[from] smtp::TlsSetupError),
}

/// Why no session came about.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoSession {
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    #[error("{host}: {source}")]
    Connect { host: String, source: ConnectError },
    #[error("{host} offers no TLS, which this receiver needs")]
    Plain { host: String },
}

impl NoSession {
    /// Whether the host refused the session before anything of a message was said, and only for now.
    pub(crate) fn is_refusal_at_the_door(&self) -> bool {
        let Self::Connect { source, .. } = self else { return false };
        matches!(source, ConnectError::Refused { stage: Stage::Banner | Stage::Ehlo, reply } if reply.is_transient())
    }
}

/// A session and the host that it is with.
pub(crate) struct Session {
    pub(crate) connection: Connection,
    pub(crate) host: String,
}

pub(crate) struct Route {
    name: &'static str,
    way: Way,
    client: ClientConfig,
}

enum Way {
    Relay { host: String, port: u16 },
    Direct { resolver: Box<MxResolver>, port: u16, hosts: usize, addresses: usize, site_ttl: Duration },
}

impl Route {
    pub(crate) fn new(config: &RouteConfig, deadlines: &Deadlines) -> Result<Self, RouteError> {
        let helo = match config {
            RouteConfig::Direct(direct) => &direct.helo,
            RouteConfig::Relay(relay) => &relay.helo,
        };
        let helo: HeloName = helo.parse().map_err(|_| RouteError::Helo { text: helo.clone() })?;
        let mut client = ClientConfig::new(helo, TlsContext::new()?);
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
        let (name, way) = match config {
            RouteConfig::Direct(direct) => {
                client.source = direct.source;
                let way = Way::Direct {
                    resolver: Box::new(MxResolver::new(direct)?),
                    port: direct.port.get(),
                    hosts: direct.hosts_per_attempt.get().into(),
                    addresses: direct.addresses_per_host.get().into(),
                    site_ttl: direct.site_ttl,
                };
                ("direct", way)
            }
            RouteConfig::Relay(relay) => {
                client.tls = match relay.tls {
                    TlsMode::None => TlsPolicy::None,
                    TlsMode::Opportunistic => TlsPolicy::Opportunistic,
                    TlsMode::Required => TlsPolicy::Required { name: None },
                    TlsMode::Implicit => TlsPolicy::Implicit { name: None },
                };
                client.credentials = credentials(relay)?;
                ("relay", Way::Relay { host: relay.host.clone(), port: relay.port })
            }
        };
        Ok(Self { name, way, client })
    }

    /// The route's name in facts and figures.
    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// The site behind a domain by its MX hosts, and how long that may be believed; `None` where the route does not
    /// depend on it, or it cannot be told now.
    pub(crate) async fn site(&self, domain: &DomainName) -> Option<(SiteId, Duration)> {
        match &self.way {
            Way::Relay { .. } => None,
            Way::Direct { resolver, site_ttl, .. } => Some((resolver.site(domain).await?, *site_ttl)),
        }
    }

    /// Opens a session with one of the hosts that take mail for `domain`.
    pub(crate) async fn session(&self, domain: &DomainName, need: TlsNeed) -> Result<Session, NoSession> {
        match &self.way {
            Way::Relay { host, port } => {
                let address = self.relay_address(host, *port).await?;
                self.connect(host, address, None).await
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
                            Ok(session) => return Ok(session),
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
            Ok(connection) => Ok(Session { connection, host }),
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

fn credentials(relay: &RelayConfig) -> Result<Option<Credentials>, RouteError> {
    match (&relay.username, &relay.password_file) {
        (None, None) => Ok(None),
        (Some(username), Some(path)) => {
            let password =
                std::fs::read_to_string(path).map_err(|source| RouteError::Password { path: path.clone(), source })?;
            Ok(Some(Credentials {
                username: username.clone(),
                password: password.trim_end_matches(['\r', '\n']).to_owned(),
                allow_without_tls: relay.allow_password_without_tls,
            }))
        }
        _ => Err(RouteError::HalfCredentials),
    }
}
