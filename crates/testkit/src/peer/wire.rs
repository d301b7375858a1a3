//! Octets in and out, in clear or under TLS.

use rustls::ServerConfig;
use std::{io, sync::Arc};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

/// How much is read at once.
const SEGMENT: usize = 16 * 1024;

/// The client has gone, or never was one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gone;

impl From<io::Error> for Gone {
    fn from(_: io::Error) -> Self {
        Self
    }
}

#[derive(Debug)]
enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    /// A handshake that failed took the connection along.
    Lost,
}

/// One side of a connection.
#[derive(Debug)]
pub(super) struct Wire {
    stream: Stream,
    input: Vec<u8>,
}

impl Wire {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self { stream: Stream::Plain(stream), input: Vec::new() }
    }

    pub(super) fn is_tls(&self) -> bool {
        matches!(self.stream, Stream::Tls(_))
    }

    /// Begins TLS; what was said in clear before is forgotten.
    pub(super) async fn secure(&mut self, config: Arc<ServerConfig>) -> Result<(), Gone> {
        self.input.clear();
        let Stream::Plain(stream) = std::mem::replace(&mut self.stream, Stream::Lost) else { return Err(Gone) };
        self.stream = Stream::Tls(Box::new(TlsAcceptor::from(config).accept(stream).await?));
        Ok(())
    }

    /// Everything up to and with the next `end`.
    pub(super) async fn until(&mut self, end: &[u8]) -> Result<Vec<u8>, Gone> {
        let mut looked_at = 0;
        loop {
            let from = looked_at;
            if let Some(found) = self.input[from..].windows(end.len()).position(|window| window == end) {
                let rest = self.input.split_off(from + found + end.len());
                return Ok(std::mem::replace(&mut self.input, rest));
            }
            looked_at = (self.input.len() + 1).saturating_sub(end.len());
            self.read().await?;
        }
    }

    /// Waits until so much has come that was not taken yet.
    pub(super) async fn at_least(&mut self, octets: usize) -> Result<(), Gone> {
        while self.input.len() < octets {
            self.read().await?;
        }
        Ok(())
    }

    /// Makes these octets the next that are taken.
    pub(super) fn put_back(&mut self, octets: &[u8]) {
        self.input.splice(0..0, octets.iter().copied());
    }

    /// Forgets what has come and was not taken yet.
    pub(super) fn forget(&mut self) {
        self.input.clear();
    }

    /// Reads until the client goes.
    pub(super) async fn until_gone(&mut self) -> Gone {
        loop {
            self.input.clear();
            if self.read().await.is_err() {
                return Gone;
            }
        }
    }

    async fn read(&mut self) -> Result<(), Gone> {
        // A segment at a time, as it was sent.
        self.input.reserve(SEGMENT);
        let read = match &mut self.stream {
            Stream::Plain(stream) => stream.read_buf(&mut self.input).await?,
            Stream::Tls(stream) => stream.read_buf(&mut self.input).await?,
            Stream::Lost => 0,
        };
        if read == 0 { Err(Gone) } else { Ok(()) }
    }

    /// Says some octets; how many the system took of them.
    pub(super) async fn write(&mut self, octets: &[u8]) -> Result<usize, Gone> {
        let written = match &mut self.stream {
            Stream::Plain(stream) => stream.write(octets).await?,
            Stream::Tls(stream) => {
                let written = stream.write(octets).await?;
                stream.flush().await?;
                written
            }
            Stream::Lost => 0,
        };
        if written == 0 { Err(Gone) } else { Ok(written) }
    }

    /// Ends the connection in good order: what was said still arrives.
    pub(super) async fn close(&mut self) {
        // Who has gone already cannot be told.
        let _ = match &mut self.stream {
            Stream::Plain(stream) => stream.shutdown().await,
            Stream::Tls(stream) => stream.shutdown().await,
            Stream::Lost => Ok(()),
        };
    }

    /// Makes the end of the connection, which comes with the end of this value, a reset.
    pub(super) fn reset(&self) {
        let stream = match &self.stream {
            Stream::Plain(stream) => stream,
            Stream::Tls(stream) => stream.get_ref().0,
            Stream::Lost => return,
        };
        // On a connection that is gone already there is nothing to reset.
        let _ = stream.set_zero_linger();
    }
}
