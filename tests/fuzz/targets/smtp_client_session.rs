//! Any bytes of a peer against the real client, over loopback: the session ends, and what an attempt says of the final
//! dot is what the peer saw.
//!
//! The input is what the peer says, a 0x1e between turns; before each turn it hears the client.
#![no_main]

use bytes::Bytes;
use domain::{EnvelopeSender, Mailbox};
use libfuzzer_sys::fuzz_target;
use smtp::{
    ReplyLimits, TlsContext,
    client::{Attempt, ClientConfig, Connection, Deadlines, Envelope, Stage},
};
use std::{net::Ipv4Addr, sync::LazyLock, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    runtime::{Builder, Runtime},
    time::timeout,
};

const MARK: &[u8] = b"marked body";
const END: &[u8] = b"\r\n.\r\n";
/// How long a peer waits for a client that waits for it.
const TURN: Duration = Duration::from_millis(2);
const MESSAGES: usize = 2;

static CONFIG: LazyLock<ClientConfig> = LazyLock::new(|| {
    let name = "client.test".parse().expect("a name");
    let mut config = ClientConfig::new(name, TlsContext::new().expect("built-in roots"));
    let short = Duration::from_secs(2);
    config.deadlines = Deadlines {
        connect: short,
        banner: short,
        ehlo: short,
        starttls: short,
        auth: short,
        mail: short,
        rcpt: short,
        data: short,
        body_progress: short,
        dot: short,
        reset: short,
    };
    config.reply_limits = ReplyLimits { line: 200, lines: 10, total: 1_000 };
    config
});

struct Net {
    runtime: Runtime,
    listener: TcpListener,
}

static NET: LazyLock<Net> = LazyLock::new(|| {
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).expect("loopback");
    Net { runtime, listener }
});

/// Plays the peer's turns; everything the client said.
async fn peer(mut stream: TcpStream, turns: &[u8]) -> Vec<u8> {
    let mut heard = Vec::new();
    for (number, turn) in turns.split(|byte| *byte == 0x1e).enumerate() {
        if number > 0 && matches!(timeout(TURN, stream.read_buf(&mut heard)).await, Ok(Ok(0) | Err(_))) {
            break;
        }
        if stream.write_all(turn).await.is_err() {
            break;
        }
    }
    let _ = stream.shutdown().await;
    // A client that resets has said all it had to say.
    while stream.read_buf(&mut heard).await.is_ok_and(|read| read > 0) {}
    heard
}

/// The attempts, and how often each was asked before its dot.
async fn client(body: &Bytes) -> Vec<(Attempt, usize)> {
    let address = NET.listener.local_addr().expect("bound");
    let Ok(mut connection) = Connection::connect(address, "127.0.0.1", &CONFIG).await else { return Vec::new() };
    let sender = EnvelopeSender(Some("bounces@client.test".parse().expect("an address")));
    let recipient: Mailbox = "user@peer.test".parse().expect("an address");
    let mut attempts = Vec::new();
    for _ in 0..MESSAGES {
        let envelope = Envelope { sender: &sender, recipient: &recipient, smtputf8: false };
        let mut asked = 0;
        let attempt = connection
            .send(&envelope, body, || {
                asked += 1;
                Ok(())
            })
            .await;
        attempts.push((attempt, asked));
    }
    if connection.is_reusable() {
        connection.quit().await;
    }
    attempts
}

fn count(within: &[u8], what: &[u8]) -> usize {
    memchr::memmem::find_iter(within, what).count()
}

fuzz_target!(|turns: &[u8]| {
    let body = Bytes::from([b"Subject: x\r\n\r\n.leading dot\r\n\n.\r\n", MARK].concat());
    let (attempts, heard) = NET.runtime.block_on(async {
        let accepted = async {
            let (stream, _) = NET.listener.accept().await.expect("a client");
            stream.set_nodelay(true).expect("a socket");
            peer(stream, turns).await
        };
        let session = async { tokio::join!(client(&body), accepted) };
        timeout(Duration::from_secs(60), session).await.expect("no peer holds a client longer than its deadlines")
    });
    let ended = count(&heard, &[MARK, END].concat());
    let mut may_have_ended = 0;
    let mut delivered = 0;
    for (attempt, asked) in &attempts {
        let dot = match attempt {
            Attempt::Delivered(reply) => {
                assert!(reply.is_positive());
                delivered += 1;
                true
            }
            Attempt::Refused { stage, reply } => {
                assert!(reply.is_transient() || reply.is_permanent());
                *stage == Stage::Dot
            }
            Attempt::NoReplyAfterDot(_) => true,
            // What was asked was answered, and the system did not take the dot.
            Attempt::CutBeforeDot(_) => {
                assert!(*asked <= 1);
                continue;
            }
            Attempt::NotStarted(_) | Attempt::Unsendable(_) => false,
        };
        assert_eq!(*asked, usize::from(dot), "{attempt:?}");
        may_have_ended += usize::from(dot);
    }
    assert!(delivered <= ended && ended <= may_have_ended, "{ended} messages ended: {attempts:?}");
    // One body is one message: no line of it can have been taken for an end or a command.
    let text = heard.split(|byte| *byte == b'\n').collect::<Vec<_>>();
    assert!(text.iter().all(|line| line.is_empty() || line.ends_with(b"\r")) || count(&heard, b"STARTTLS") > 0);
});
