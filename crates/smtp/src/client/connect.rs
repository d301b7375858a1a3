//! From an address to a session that can carry mail.

use super::{
    capabilities::Capabilities,
    config::{ClientConfig, Credentials, Deadlines, TlsPolicy},
    error::{ConnectError, Stage, WireError},
    stream::Stream,
    wire::{RawReply, Wire},
};
use crate::reply::Violation;
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use rustls::pki_types::ServerName;
use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};
use tokio::{
    net::{TcpSocket, TcpStream},
    time::timeout,
};
use tokio_rustls::TlsConnector;

/// A session with a peer, ready for messages. Dropping it closes it without a word, which is safe at any
/// time; [`Connection::quit`] says good-bye.
#[derive(Debug)]
pub struct Connection {
    pub(super) wire: Wire,
    pub(super) capabilities: Capabilities,
    pub(super) deadlines: Deadlines,
    pub(super) pipelining: bool,
    /// No transaction is under way and the peer has kept to the protocol.
    pub(super) usable: bool,
    /// The peer may still hold a sender or recipient of the last, refused transaction.
    pub(super) needs_reset: bool,
    pub(super) messages: u32,
    /// Commands and bodies are put together here.
    pub(super) scratch: Vec<u8>,
}

impl Connection {
    /// Connects to `address`, whose name for TLS is `host`, greets, encrypts and logs in as configured.
    ///
    /// # Errors
    /// One of [`ConnectError`]'s. The connection is closed.
    pub async fn connect(address: SocketAddr, host: &str, config: &ClientConfig) -> Result<Self, ConnectError> {
        let deadlines = &config.deadlines;
        let mut stream = Stream::Plain(open(address, config.source, deadlines.connect).await?);
        if let TlsPolicy::Implicit { name } = &config.tls {
            let name = verified_name(name.as_deref().unwrap_or(host))?;
            stream = handshake(stream, name, config).await?;
        }
        let mut greeter = Greeter { wire: Wire::new(stream, config.reply_limits), config };
        greeter.banner().await?;
        let mut capabilities = greeter.ehlo(true).await?;
        if let Some(name) = greeter.starttls(&capabilities, host, address.ip()).await? {
            // Whatever was read or offered in clear is worth nothing from here on (RFC 3207, 4.2).
            let stream = handshake(greeter.wire.stream, name, config).await?;
            greeter.wire = Wire::new(stream, config.reply_limits);
            capabilities = greeter.ehlo(false).await?;
        }
        if let Some(credentials) = &config.credentials {
            greeter.log_in(credentials, &capabilities).await?;
        }
        Ok(Self {
            wire: greeter.wire,
            capabilities,
            deadlines: deadlines.clone(),
            pipelining: config.pipelining && capabilities.pipelining,
            usable: true,
            needs_reset: false,
            messages: 0,
            scratch: Vec::new(),
        })
    }

    /// What the peer offers.
    pub fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// Whether the session is encrypted.
    pub fn is_tls(&self) -> bool {
        self.wire.stream.is_tls()
    }

    /// Transactions begun on this connection, whatever became of them.
    pub fn messages_sent(&self) -> u32 {
        self.messages
    }

    /// Whether another message may be sent. The peer may still have gone away by then, which the next
    /// `send` reports as not started.
    pub fn is_reusable(&self) -> bool {
        self.usable
    }

    /// Says good-bye, within [`Deadlines::reset`], and closes.
    pub async fn quit(mut self) {
        if self.usable {
            let within = self.deadlines.reset;
            let farewell = async {
                self.wire.send(Stage::Quit, b"QUIT\r\n", within).await?;
                self.wire.reply(Stage::Quit, within).await
            };
            // The session is over either way.
            let _ = timeout(within, farewell).await;
        }
    }
}

async fn open(address: SocketAddr, source: Option<IpAddr>, within: Duration) -> Result<TcpStream, WireError> {
    const STAGE: Stage = Stage::Connect;
    let connect = async {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        if let Some(source) = source {
            socket.bind(SocketAddr::new(source, 0))?;
        }
        let stream = socket.connect(address).await?;
        // Without it every message waits for the peer's delayed acknowledgement.
        stream.set_nodelay(true)?;
        Ok(stream)
    };
    match timeout(within, connect).await {
        Err(_) => Err(WireError::Timeout { stage: STAGE }),
        Ok(opened) => opened.map_err(|source: io::Error| WireError::Io { stage: STAGE, source }),
    }
}

/// A name for a handshake, and whether the certificate must bear it.
struct TlsName {
    name: ServerName<'static>,
    verify: bool,
}

fn verified_name(name: &str) -> Result<TlsName, ConnectError> {
    let name = ServerName::try_from(name.to_owned()).map_err(|_| ConnectError::TlsName)?;
    Ok(TlsName { name, verify: true })
}

async fn handshake(stream: Stream, name: TlsName, config: &ClientConfig) -> Result<Stream, ConnectError> {
    let Stream::Plain(tcp) = stream else {
        return Err(ConnectError::Tls(io::Error::other("the session is encrypted already")));
    };
    let context = if name.verify { &config.tls_context.verified } else { &config.tls_context.opportunistic };
    let shaking = TlsConnector::from(context.clone()).connect(name.name, tcp);
    match timeout(config.deadlines.starttls, shaking).await {
        Err(_) => Err(WireError::Timeout { stage: Stage::StartTls }.into()),
        Ok(shaken) => Ok(Stream::Tls(Box::new(shaken.map_err(ConnectError::Tls)?))),
    }
}

/// A connection that is not a session yet.
struct Greeter<'a> {
    wire: Wire,
    config: &'a ClientConfig,
}

impl Greeter<'_> {
    async fn ask(&mut self, stage: Stage, command: &str, within: Duration) -> Result<RawReply, ConnectError> {
        self.wire.send(stage, command.as_bytes(), within).await?;
        Ok(self.wire.reply(stage, within).await?)
    }

    async fn banner(&mut self) -> Result<(), ConnectError> {
        let reply = self.wire.reply(Stage::Banner, self.config.deadlines.banner).await?;
        if reply.class() == 2 { Ok(()) } else { Err(refused(Stage::Banner, reply)) }
    }

    /// Greets; where `EHLO` is not known and nothing demands it, with `HELO`.
    async fn ehlo(&mut self, may_fall_back: bool) -> Result<Capabilities, ConnectError> {
        let within = self.config.deadlines.ehlo;
        let helo = self.config.helo.as_str();
        let reply = self.ask(Stage::Ehlo, &format!("EHLO {helo}\r\n"), within).await?;
        match reply.class() {
            2 => return Ok(Capabilities::from_wire(&reply.wire)),
            5 if may_fall_back => {}
            _ => return Err(refused(Stage::Ehlo, reply)),
        }
        let reply = self.ask(Stage::Ehlo, &format!("HELO {helo}\r\n"), within).await?;
        if reply.class() == 2 { Ok(Capabilities::default()) } else { Err(refused(Stage::Ehlo, reply)) }
    }

    /// Asks for TLS where the policy wants it. `None`: the session goes on as it is.
    async fn starttls(
        &mut self,
        offered: &Capabilities,
        host: &str,
        address: IpAddr,
    ) -> Result<Option<TlsName>, ConnectError> {
        const STAGE: Stage = Stage::StartTls;
        let name = match &self.config.tls {
            TlsPolicy::None | TlsPolicy::Implicit { .. } => return Ok(None),
            TlsPolicy::Opportunistic if !offered.starttls => return Ok(None),
            TlsPolicy::Required { .. } if !offered.starttls => {
                return Err(ConnectError::TlsUnavailable { reply: None });
            }
            TlsPolicy::Opportunistic => {
                let name = ServerName::try_from(host.to_owned()).unwrap_or_else(|_| address.into());
                TlsName { name, verify: false }
            }
            TlsPolicy::Required { name } => verified_name(name.as_deref().unwrap_or(host))?,
        };
        let reply = self.ask(STAGE, "STARTTLS\r\n", self.config.deadlines.starttls).await?;
        match reply.class() {
            2 if self.wire.is_drained() => Ok(Some(name)),
            2 => Err(WireError::Protocol { stage: STAGE, source: Violation::TextBeforeTls }.into()),
            4 | 5 if reply.code == 421 => Err(refused(STAGE, reply)),
            4 | 5 if name.verify => Err(ConnectError::TlsUnavailable { reply: Some(reply.into_reply()) }),
            4 | 5 => Ok(None),
            _ => Err(refused(STAGE, reply)),
        }
    }

    async fn log_in(&mut self, credentials: &Credentials, offered: &Capabilities) -> Result<(), ConnectError> {
        if !self.wire.stream.is_tls() && !credentials.allow_without_tls {
            return Err(ConnectError::AuthWithoutTls);
        }
        let Credentials { username, password, .. } = credentials;
        let mut steps = if offered.auth_plain {
            let response = BASE64.encode(format!("\0{username}\0{password}"));
            // The second step is for peers that ignore an initial response.
            vec![format!("AUTH PLAIN {response}\r\n"), format!("{response}\r\n")]
        } else if offered.auth_login {
            let encoded = |text: &str| format!("{}\r\n", BASE64.encode(text));
            vec!["AUTH LOGIN\r\n".to_owned(), encoded(username), encoded(password)]
        } else {
            return Err(ConnectError::AuthUnavailable);
        }
        .into_iter();
        loop {
            let Some(step) = steps.next() else {
                let source = Violation::UnexpectedCode;
                return Err(WireError::Protocol { stage: Stage::Auth, source }.into());
            };
            let reply = self.ask(Stage::Auth, &step, self.config.deadlines.auth).await?;
            match reply.code {
                235 => return Ok(()),
                334 => {}
                _ => return Err(refused(Stage::Auth, reply)),
            }
        }
    }
}

/// A 4yz or 5yz is the peer's refusal; any other code has no meaning here.
fn refused(stage: Stage, reply: RawReply) -> ConnectError {
    if matches!(reply.class(), 4 | 5) {
        ConnectError::Refused { stage, reply: reply.into_reply() }
    } else {
        WireError::Protocol { stage, source: Violation::UnexpectedCode }.into()
    }
}
