//! Any bytes of a client, in any pieces: the session ends, its answers do not depend on the pieces, and a message is
//! handed on only when it is one.
#![no_main]

use domain::Mailbox;
use libfuzzer_sys::fuzz_target;
use smtp::server::{Answer, Ended, Handler, Mail, Message, ServerConfig, serve};
use std::{cell::RefCell, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, duplex, split},
    runtime::{Builder, Runtime},
};

#[derive(Default)]
struct Keeper(Vec<(Vec<Mailbox>, bytes::Bytes)>);

impl Handler for Keeper {
    async fn rcpt(&mut self, _mail: &Mail, recipient: &Mailbox) -> Answer {
        match recipient.local() {
            "unknown" => Answer::new(550, "5.1.1 no such user"),
            _ => Answer::new(250, "2.1.5 ok"),
        }
    }

    async fn message(&mut self, message: Message) -> Answer {
        assert!(!message.recipients.is_empty());
        let text = &message.body;
        for (at, byte) in text.iter().enumerate() {
            assert!(*byte != b'\n' || at > 0 && text[at - 1] == b'\r', "a bare LF");
            assert!(*byte != b'\r' || text.get(at + 1) == Some(&b'\n'), "a bare CR");
        }
        self.0.push((message.recipients, message.body));
        Answer::new(250, "2.0.0 taken")
    }
}

thread_local! {
    static RUNTIME: RefCell<Runtime> =
        RefCell::new(Builder::new_current_thread().enable_all().build().expect("a runtime"));
}

/// What the client heard, what was taken, and how it ended.
async fn session(said: &[u8], piece: usize, config: &ServerConfig) -> (Vec<u8>, Keeper, Ended) {
    let (ours, theirs) = duplex(piece);
    let (mut hears, mut says) = split(theirs);
    let (mut keeper, mut heard) = (Keeper::default(), Vec::new());
    let server = serve(ours, &mut keeper, config);
    let client = async {
        let speak = async {
            // A server that has closed hears no more.
            let _ = says.write_all(said).await;
            let _ = says.shutdown().await;
        };
        let _ = tokio::join!(speak, hears.read_to_end(&mut heard));
    };
    let serving = async { server.await.0 };
    let (ended, ()) = tokio::join!(serving, client);
    (heard, keeper, ended)
}

fn config(max_size: usize) -> ServerConfig {
    ServerConfig {
        max_line: 200,
        max_recipients: 3,
        max_size,
        idle: Duration::from_secs(5),
        ..ServerConfig::new("mx.test")
    }
}

fuzz_target!(|data: &[u8]| {
    let [piece, said @ ..] = data else { return };
    RUNTIME.with_borrow(|runtime| {
        runtime.block_on(async {
            let roomy = config(1 << 20);
            let whole = session(said, 1 << 20, &roomy).await;
            let pieces = session(said, 1 + usize::from(*piece), &roomy).await;
            assert_eq!(String::from_utf8_lossy(&whole.0), String::from_utf8_lossy(&pieces.0));
            assert_eq!((whole.1.0, whole.2), (pieces.1.0, pieces.2));
            let (_, kept, _) = session(said, 1 + usize::from(*piece), &config(64)).await;
            assert!(kept.0.iter().all(|(_, body)| body.len() <= 64));
        });
    });
});
