//! A receiver that follows a script: a real server on a real socket, as rude as its script says, that writes down
//! what it saw.
//!
//! Where no rule of the [`Script`] applies it is a receiver like any other. It is the other end of the zoo in
//! `tests/zoo`, whose data files hold the scripts; the [`Sink`](crate::sink::Sink) is for load and for people.
//!
//! # What its notes are worth
//! A [`Copy`] is noted before the reply to its dot goes out. [`Conversation::told`] counts what the system took to be
//! sent, which is at most two small socket buffers more than the client has read.

mod script;
mod session;
mod tls;
mod wire;

pub use script::{Certificate, Per, Rule, Script, Stage, Step};

use rustls::ServerConfig;
use script::Turns;
use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpSocket},
    sync::mpsc,
    task::JoinSet,
};

/// Of each socket, in both directions: little of what is said is on its way, and little waits unread.
const BUFFER: u32 = 16 * 1024;
const BACKLOG: u32 = 1_024;

/// A peer cannot start.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// The address is taken, or not ours.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// No certificate as the script wants it.
    #[error("cannot make a certificate")]
    Certificate(#[source] rcgen::Error),
    /// TLS cannot be set up.
    #[error("cannot set up TLS")]
    Tls(#[source] rustls::Error),
}

/// Who ended a conversation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum End {
    /// It goes on.
    #[default]
    Open,
    /// The client, with or without a farewell.
    Client,
    /// The peer, as its script says.
    Peer,
}

/// One connection, from the peer's side.
#[derive(Clone, Debug, Default)]
pub struct Conversation {
    /// The command lines as they came, without the bodies.
    pub heard: Vec<String>,
    /// Octets that were said and that the system took.
    pub told: u64,
    /// Whether it came to TLS.
    pub tls: bool,
    /// `MAIL` commands that came in clear.
    pub clear_mails: u32,
    /// Whether `QUIT` was said.
    pub farewell: bool,
    /// Who ended it.
    pub end: End,
}

/// One message that came with its final dot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copy {
    /// `X-Mailfleet-Id`.
    pub fleet_id: Option<String>,
    /// The envelope's sender.
    pub sender: String,
    /// The envelope's recipient.
    pub recipient: String,
    /// Octets of header and body as they came, dots and all.
    pub octets: usize,
    /// Whether it came under TLS.
    pub tls: bool,
    /// Whether the peer keeps it, whatever it says.
    pub kept: bool,
    /// Whether the peer said that it has it, whether or not it keeps it.
    pub acknowledged: bool,
    /// The conversation that it came in, from 0.
    pub conversation: usize,
}

#[derive(Debug, Default)]
struct Notes {
    conversations: Vec<Conversation>,
    copies: Vec<Copy>,
    turns: Turns,
}

/// What the sessions of one peer share.
#[derive(Debug)]
struct Shared {
    hostname: String,
    script: Script,
    tls: Option<Arc<ServerConfig>>,
    notes: Mutex<Notes>,
    /// Tells the listener to be dead for so long.
    deaths: mpsc::UnboundedSender<Duration>,
}

impl Shared {
    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A peer that runs. Dropping it ends it and every conversation.
#[derive(Debug)]
pub struct Peer {
    address: SocketAddr,
    shared: Arc<Shared>,
    _accepting: JoinSet<()>,
}

impl Peer {
    /// Listens, and follows this script from now on. `hostname` is what it calls itself and what its certificate
    /// bears, unless the script wants another name there.
    ///
    /// # Errors
    /// One of [`PeerError`]'s.
    pub async fn start(address: SocketAddr, hostname: &str, script: Script) -> Result<Self, PeerError> {
        let tls = script.certificate.map(|kind| tls::server(kind, hostname)).transpose()?;
        let listener = listen(address).map_err(|source| PeerError::Listen { address, source })?;
        let address = listener.local_addr().map_err(|source| PeerError::Listen { address, source })?;
        let (deaths, dying) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared { hostname: hostname.to_owned(), script, tls, notes: Mutex::default(), deaths });
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(listener, address, Arc::clone(&shared), dying));
        Ok(Self { address, shared, _accepting: accepting })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Every connection so far, in the order in which they came.
    pub fn conversations(&self) -> Vec<Conversation> {
        self.shared.notes().conversations.clone()
    }

    /// Every message that came with its dot, in the order in which they came.
    pub fn copies(&self) -> Vec<Copy> {
        self.shared.notes().copies.clone()
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.set_send_buffer_size(BUFFER)?;
    socket.set_recv_buffer_size(BUFFER)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

async fn accept(
    listener: TcpListener,
    address: SocketAddr,
    shared: Arc<Shared>,
    mut dying: mpsc::UnboundedReceiver<Duration>,
) {
    let mut listener = Some(listener);
    loop {
        // Ends with every session that it holds.
        let mut sessions = JoinSet::new();
        let dead_for = match listener.take() {
            Some(listener) => loop {
                tokio::select! {
                    biased;
                    Some(dead_for) = dying.recv() => break dead_for,
                    Ok((stream, _)) = listener.accept() => {
                        let number = {
                            let mut notes = shared.notes();
                            notes.conversations.push(Conversation::default());
                            notes.conversations.len() - 1
                        };
                        sessions.spawn(session::hold(stream, number, Arc::clone(&shared)));
                    }
                    Some(_) = sessions.join_next() => {}
                }
            },
            // The address was not free yet.
            None => Duration::from_millis(50),
        };
        drop(sessions);
        for conversation in &mut shared.notes().conversations {
            if conversation.end == End::Open {
                conversation.end = End::Peer;
            }
        }
        tokio::time::sleep(dead_for).await;
        listener = listen(address).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wait::until;
    use std::net::Ipv4Addr;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
    };

    async fn peer(rules: &str) -> Peer {
        let script = serde_json::from_str(&format!(r#"{{"on": {rules}}}"#)).unwrap();
        Peer::start((Ipv4Addr::LOCALHOST, 0).into(), "mx.peer.test", script).await.unwrap()
    }

    /// Says all this, and hears everything until the peer has gone.
    async fn converse(peer: &Peer, text: &str) -> String {
        let mut stream = TcpStream::connect(peer.address()).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut heard = Vec::new();
        // A reset is an end as well.
        let _ = stream.read_to_end(&mut heard).await;
        String::from_utf8_lossy(&heard).into_owned()
    }

    const MAIL: &str = "EHLO a\r\nMAIL FROM:<a@client.test>\r\nRCPT TO:<ann@peer.test>\r\nDATA\r\n";
    const BODY: &str = "X-Mailfleet-Id: 7\r\n\r\nhello\r\n.\r\n";

    #[tokio::test]
    async fn without_rules_it_is_a_receiver_like_any_other() {
        let peer = peer("[]").await;
        let heard =
            converse(&peer, &format!("{MAIL}{BODY}NOOP\r\nDATA\r\n.\r\nRCPT TO:<bob@peer.test>\r\nQUIT\r\n")).await;
        let codes: Vec<&str> = heard.lines().filter(|line| line.as_bytes()[3] == b' ').map(|line| &line[..3]).collect();
        assert_eq!(codes, ["220", "250", "250", "250", "354", "250", "500", "503", "500", "503", "221"]);
        let copies = peer.copies();
        assert_eq!(copies.len(), 1);
        assert_eq!((copies[0].fleet_id.as_deref(), copies[0].recipient.as_str()), (Some("7"), "ann@peer.test"));
        assert!(copies[0].kept && copies[0].acknowledged && !copies[0].tls);
        let conversation = &peer.conversations()[0];
        assert_eq!((conversation.end, conversation.clear_mails, conversation.farewell), (End::Client, 1, true));
        assert_eq!(conversation.told, heard.len() as u64);
    }

    #[tokio::test]
    async fn it_lies_and_dies_as_its_script_says_and_notes_the_truth() {
        let peer = peer(
            r#"[{"at": "dot", "times": 1, "do": [{"say": "250 taken"}, "close"]},
                {"at": "dot", "times": 1, "do": ["keep", {"die": "50ms"}]}]"#,
        )
        .await;
        for _ in 0..2 {
            converse(&peer, &format!("{MAIL}{BODY}")).await;
        }
        until("it is there again", async || TcpStream::connect(peer.address()).await.is_ok()).await;
        let over = async || peer.conversations()[..2].iter().all(|one| one.end == End::Peer);
        until("the peer has ended both", over).await;
        let notes: Vec<(bool, bool)> = peer.copies().iter().map(|copy| (copy.kept, copy.acknowledged)).collect();
        assert_eq!(notes, [(false, true), (true, false)]);
    }
}
