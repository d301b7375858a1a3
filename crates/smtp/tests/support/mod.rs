//! A peer that follows a script, and a server that keeps what it takes.

#![allow(dead_code, missing_docs, unused_macros, clippy::disallowed_methods)]

/// Fails with the value that did not match.
macro_rules! assert_matches {
    ($value:expr, $pattern:pat $(if $guard:expr)? $(, $($context:tt)+)?) => {
        match $value {
            $pattern $(if $guard)? => {}
            other => panic!("{other:?} {:?}", ($($($context)+)?)),
        }
    };
}

pub mod receiver;

use bytes::Bytes;
use domain::{EnvelopeSender, Mailbox};
use proptest::prelude::ProptestConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use smtp::{
    TlsContext,
    client::{ClientConfig, Connection, Deadlines, Envelope, TlsPolicy},
    server::{Answer, Ended, Handler, Mail, Message, ServerConfig, serve},
};
use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// One in so many of the usual cases, for a property that costs more than the usual one.
pub fn one_in(share: u32) -> ProptestConfig {
    let usual = ProptestConfig::default();
    ProptestConfig { cases: usual.cases.div_ceil(share), ..usual }
}

/// The other side of one connection, by hand.
pub struct Peer {
    pub stream: TcpStream,
    seen: Vec<u8>,
}

impl Peer {
    pub async fn say(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.expect("the client listens");
    }

    /// Says something to a client that may be gone already.
    pub async fn try_say(&mut self, text: &[u8]) -> bool {
        self.stream.write_all(text).await.is_ok()
    }

    /// Reads up to and including `end`; everything, if the client closes before.
    pub async fn until(&mut self, end: &str) -> String {
        loop {
            if let Some(at) = find(&self.seen, end.as_bytes()) {
                let rest = self.seen.split_off(at + end.len());
                return String::from_utf8_lossy(&std::mem::replace(&mut self.seen, rest)).into_owned();
            }
            let mut chunk = [0; 4_096];
            let read = self.stream.read(&mut chunk).await.unwrap_or(0);
            if read == 0 {
                return String::from_utf8_lossy(&std::mem::take(&mut self.seen)).into_owned();
            }
            self.seen.extend_from_slice(&chunk[..read]);
        }
    }

    pub async fn line(&mut self) -> String {
        self.until("\r\n").await
    }

    /// Everything until the client closes.
    pub async fn rest(&mut self) -> String {
        self.until("\u{0}\u{0}never\u{0}").await
    }

    /// Banner and EHLO with these keywords.
    pub async fn greet(&mut self, keywords: &[&str]) {
        self.say("220 peer.test\r\n").await;
        assert!(self.line().await.starts_with("EHLO "));
        let mut lines = vec!["peer.test"];
        lines.extend(keywords);
        let last = lines.pop().expect("there is a name");
        let mut text: String = lines.iter().map(|line| format!("250-{line}\r\n")).collect();
        text.push_str(&format!("250 {last}\r\n"));
        self.say(&text).await;
    }

    /// A pipelined flight up to DATA, all granted.
    pub async fn grant(&mut self) {
        self.until("DATA\r\n").await;
        self.say("250 ok\r\n250 ok\r\n354 go\r\n").await;
    }

    pub fn reset(self) {
        self.stream.set_zero_linger().expect("a socket");
    }
}

fn find(within: &[u8], what: &[u8]) -> Option<usize> {
    within.windows(what.len()).position(|window| window == what)
}

/// Listens, and plays the script to the first client.
pub async fn peer<T, F>(script: impl FnOnce(Peer) -> F + Send + 'static) -> (SocketAddr, JoinHandle<T>)
where
    T: Send + 'static,
    F: Future<Output = T> + Send,
{
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("loopback");
    let address = listener.local_addr().expect("bound");
    let task = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("a client");
        stream.set_nodelay(true).expect("a socket");
        script(Peer { stream, seen: Vec::new() }).await
    });
    (address, task)
}

/// Takes everything, and keeps it.
#[derive(Clone, Default)]
pub struct Keeper {
    pub kept: Arc<Mutex<Vec<Message>>>,
    pub ended: Arc<Mutex<Vec<Ended>>>,
}

impl Keeper {
    pub fn bodies(&self) -> Vec<Bytes> {
        self.kept.lock().expect("no panic").iter().map(|message| message.body.clone()).collect()
    }
}

impl Handler for Keeper {
    async fn rcpt(&mut self, _mail: &Mail, recipient: &Mailbox) -> Answer {
        match recipient.local() {
            "unknown" => Answer::new(550, "5.1.1 no such user"),
            _ => Answer::new(250, "2.1.5 ok"),
        }
    }

    async fn message(&mut self, message: Message) -> Answer {
        self.kept.lock().expect("no panic").push(message);
        Answer::new(250, "2.0.0 taken")
    }
}

/// Serves every connection with one keeper.
pub async fn server(config: ServerConfig) -> (SocketAddr, Keeper) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("loopback");
    let address = listener.local_addr().expect("bound");
    let keeper = Keeper::default();
    let template = keeper.clone();
    tokio::spawn(async move {
        let config = Arc::new(config);
        while let Ok((stream, _)) = listener.accept().await {
            let (mut handler, config) = (template.clone(), config.clone());
            tokio::spawn(async move {
                let (ended, _) = serve(stream, &mut handler, &config).await;
                handler.ended.lock().expect("no panic").push(ended);
            });
        }
    });
    (address, keeper)
}

/// A certificate for these names: the server's half, and the root that trusts it.
pub fn certificate(names: &[&str]) -> (Arc<rustls::ServerConfig>, CertificateDer<'static>) {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let made = rcgen::generate_simple_self_signed(names).expect("valid names");
    let der = made.cert.der().clone();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![der.clone()], PrivateKeyDer::from(made.signing_key))
        .expect("a valid pair");
    (Arc::new(config), der)
}

/// Short deadlines where a test lets them pass; generous ones elsewhere.
pub fn client() -> ClientConfig {
    let context = TlsContext::new().expect("built-in roots");
    let mut config = ClientConfig::new("client.test".parse().expect("a name"), context);
    let generous = Duration::from_secs(20);
    config.deadlines = Deadlines {
        connect: generous,
        banner: generous,
        ehlo: generous,
        starttls: generous,
        auth: generous,
        mail: generous,
        rcpt: generous,
        data: generous,
        body_progress: generous,
        dot: generous,
        reset: generous,
    };
    config
}

pub async fn connect(address: SocketAddr) -> Connection {
    Connection::connect(address, "127.0.0.1", &client()).await.expect("a session")
}

pub fn required() -> TlsPolicy {
    TlsPolicy::Required { name: Some("mx.peer.test".into()) }
}

pub struct Addresses {
    pub sender: EnvelopeSender,
    pub recipient: Mailbox,
}

impl Addresses {
    pub fn to(recipient: &str) -> Self {
        let sender = EnvelopeSender(Some("bounces@client.test".parse().expect("an address")));
        Self { sender, recipient: recipient.parse().expect("an address") }
    }

    pub fn envelope(&self) -> Envelope<'_> {
        Envelope { sender: &self.sender, recipient: &self.recipient, smtputf8: false }
    }
}

pub fn body() -> Bytes {
    Bytes::from_static(b"From: a@client.test\r\nMessage-ID: <1@client.test>\r\n\r\n.hello\r\n")
}

/// Says all this at once, stops saying, and hears everything until the server closes.
pub async fn converse(address: SocketAddr, text: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.expect("a listener");
    stream.write_all(text).await.expect("a server");
    stream.shutdown().await.expect("a server");
    let mut heard = Vec::new();
    // A reset after the last answer is an end as well.
    let _ = stream.read_to_end(&mut heard).await;
    String::from_utf8_lossy(&heard).into_owned()
}
