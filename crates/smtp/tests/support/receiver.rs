//! A receiver that shares no code with ours, and reads lines as loosely as it is told to.

use std::net::{Ipv4Addr, SocketAddr};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// How a receiver reads.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reading {
    /// An LF ends a line, whatever stands before it.
    pub bare_lf: bool,
    /// A CR ends a line, whatever follows it.
    pub bare_cr: bool,
    /// It offers PIPELINING.
    pub pipelining: bool,
    /// Octets that it reads at a time.
    pub piece: usize,
}

/// Everything that one session came to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// Every line that was taken for a command.
    pub commands: Vec<String>,
    /// Every message, its lines ended by CRLF and their stuffing taken out.
    pub messages: Vec<Vec<u8>>,
}

struct Lines {
    stream: TcpStream,
    reading: Reading,
    buffer: Vec<u8>,
    at: usize,
}

impl Lines {
    async fn byte(&mut self) -> Option<u8> {
        if self.at == self.buffer.len() {
            self.buffer.resize(self.reading.piece, 0);
            let read = self.stream.read(&mut self.buffer).await.unwrap_or(0);
            self.buffer.truncate(read);
            self.at = 0;
        }
        let byte = self.buffer.get(self.at).copied();
        self.at += 1;
        byte
    }

    /// The next line without its end; `None` when the client has closed.
    async fn line(&mut self) -> Option<Vec<u8>> {
        let mut line = Vec::new();
        loop {
            match self.byte().await? {
                b'\n' if line.last() == Some(&b'\r') => {
                    line.pop();
                    return Some(line);
                }
                b'\n' if self.reading.bare_lf => return Some(line),
                byte => {
                    // Whether the CR was bare is known by what follows it.
                    if self.reading.bare_cr && line.last() == Some(&b'\r') {
                        line.pop();
                        self.at -= 1;
                        return Some(line);
                    }
                    line.push(byte);
                }
            }
        }
    }

    async fn say(&mut self, text: &str) {
        // A client that has gone hears nothing.
        let _ = self.stream.write_all(text.as_bytes()).await;
    }
}

async fn session(stream: TcpStream, reading: Reading) -> Heard {
    let mut heard = Heard::default();
    let mut lines = Lines { stream, reading, buffer: Vec::new(), at: 0 };
    lines.say("220 receiver.test\r\n").await;
    while let Some(line) = lines.line().await {
        let command = String::from_utf8_lossy(&line).into_owned();
        let verb = command.get(..4).unwrap_or_default().to_ascii_uppercase();
        heard.commands.push(command);
        match verb.as_str() {
            "EHLO" if reading.pipelining => lines.say("250-receiver.test\r\n250 PIPELINING\r\n").await,
            "EHLO" | "MAIL" | "RCPT" | "RSET" | "NOOP" => lines.say("250 ok\r\n").await,
            "DATA" => {
                lines.say("354 go\r\n").await;
                let mut message = Vec::new();
                loop {
                    let Some(line) = lines.line().await else { return heard };
                    if line == b"." {
                        break;
                    }
                    message.extend_from_slice(line.strip_prefix(b".").unwrap_or(&line));
                    message.extend_from_slice(b"\r\n");
                }
                heard.messages.push(message);
                lines.say("250 taken\r\n").await;
            }
            "QUIT" => {
                lines.say("221 bye\r\n").await;
                return heard;
            }
            _ => lines.say("500 what?\r\n").await,
        }
    }
    heard
}

/// Serves one client.
pub async fn receiver(reading: Reading) -> (SocketAddr, JoinHandle<Heard>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("loopback");
    let address = listener.local_addr().expect("bound");
    let task = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("a client");
        stream.set_nodelay(true).expect("a socket");
        session(stream, reading).await
    });
    (address, task)
}
