//! Bytes out and replies in, each with its deadline.

use super::{
    error::{Stage, WireError},
    stream::Stream,
};
use crate::reply::{Reply, ReplyLimits, ReplyScanner, Violation};
use bytes::BytesMut;
use std::{future::poll_fn, io, pin::Pin, task::Poll, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf},
    time::{Instant, timeout, timeout_at},
};

/// How much is read at once. Replies are short.
const READ_SIZE: usize = 2 * 1_024;

/// A whole reply as it came, read further only where its words matter.
#[derive(Debug)]
pub(crate) struct RawReply {
    pub(crate) code: u16,
    pub(crate) wire: BytesMut,
}

impl RawReply {
    pub(crate) fn class(&self) -> u16 {
        self.code / 100
    }

    pub(crate) fn into_reply(self) -> Reply {
        Reply::from_wire(self.code, &self.wire)
    }
}

/// Why the last write did not come to its end.
pub(crate) struct LastWriteError {
    /// The final octet of the dot cannot have left this host.
    pub(crate) dot_stayed: bool,
    pub(crate) error: WireError,
}

#[derive(Debug)]
pub(crate) struct Wire {
    pub(crate) stream: Stream,
    input: BytesMut,
    scanner: ReplyScanner,
    limits: ReplyLimits,
}

impl Wire {
    pub(crate) fn new(stream: Stream, limits: ReplyLimits) -> Self {
        Self { stream, input: BytesMut::with_capacity(READ_SIZE), scanner: ReplyScanner::default(), limits }
    }

    /// Whether nothing has been received beyond the replies that were taken.
    pub(crate) fn is_drained(&self) -> bool {
        self.input.is_empty()
    }

    /// The next reply, whole, within this time.
    pub(crate) async fn reply(&mut self, stage: Stage, within: Duration) -> Result<RawReply, WireError> {
        let deadline = Instant::now() + within;
        loop {
            let found = self.scanner.scan(&self.input, &self.limits);
            if let Some((code, length)) = found.map_err(|source| WireError::Protocol { stage, source })? {
                return Ok(RawReply { code, wire: self.input.split_to(length) });
            }
            self.input.reserve(READ_SIZE);
            match timeout_at(deadline, self.stream.read_buf(&mut self.input)).await {
                Err(_) => return Err(WireError::Timeout { stage }),
                Ok(Err(source)) => return Err(WireError::Io { stage, source }),
                Ok(Ok(0)) => return Err(WireError::Closed { stage }),
                Ok(Ok(_)) => {}
            }
        }
    }

    /// Sends commands, in one write. What is here before they are sent is no answer to them, and would be taken for one.
    pub(crate) async fn send(&mut self, stage: Stage, bytes: &[u8], within: Duration) -> Result<(), WireError> {
        if !self.input.is_empty() {
            return Err(self.said_unasked(stage));
        }
        let write = async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        };
        match timeout(within, write).await {
            Err(_) => Err(WireError::Timeout { stage }),
            Ok(written) => written.map_err(|source| WireError::Io { stage, source }),
        }
    }

    /// Sends a part of a body that does not contain its end, and waits until there is room for more, so
    /// that the end can then be handed over at once. The time is given anew for every piece that goes.
    pub(crate) async fn send_part(&mut self, mut bytes: &[u8], progress: Duration) -> Result<(), WireError> {
        while !bytes.is_empty() {
            let taken = self.progress(progress, async |stream: &mut Stream| stream.write(bytes).await).await?;
            bytes = &bytes[taken..];
        }
        self.progress(progress, async |stream: &mut Stream| stream.flush().await).await?;
        self.progress(progress, async |stream: &mut Stream| match stream {
            Stream::Plain(tcp) => tcp.writable().await,
            Stream::Tls(tls) => tls.get_ref().0.writable().await,
        })
        .await
    }

    /// Sends the end of a body and its final dot.
    ///
    /// In clear the system says how much it took, and an octet that it did not take was not sent. Under
    /// TLS octets may have been encrypted and sent before the error, so every error leaves a doubt.
    pub(crate) async fn send_last(&mut self, bytes: &[u8], progress: Duration) -> Result<(), LastWriteError> {
        let plain = !self.stream.is_tls();
        let mut rest = bytes;
        while !rest.is_empty() {
            match self.progress(progress, async |stream: &mut Stream| stream.write(rest).await).await {
                Ok(taken) => rest = &rest[taken..],
                Err(error) => return Err(LastWriteError { dot_stayed: plain, error }),
            }
        }
        let flushed = self.progress(progress, async |stream: &mut Stream| stream.flush().await).await;
        flushed.map_err(|error| LastWriteError { dot_stayed: false, error })
    }

    async fn progress<T>(
        &mut self,
        within: Duration,
        step: impl AsyncFnOnce(&mut Stream) -> io::Result<T>,
    ) -> Result<T, WireError> {
        const STAGE: Stage = Stage::Body;
        match timeout(within, step(&mut self.stream)).await {
            Err(_) => Err(WireError::Timeout { stage: STAGE }),
            Ok(done) => done.map_err(|source| WireError::Io { stage: STAGE, source }),
        }
    }

    /// Makes sure, without waiting, that the peer has neither said anything nor closed.
    pub(crate) async fn check_quiet(&mut self, stage: Stage) -> Result<(), WireError> {
        let mut space = [0; 512];
        let mut buffer = ReadBuf::new(&mut space);
        let read = poll_fn(|cx| Poll::Ready(Pin::new(&mut self.stream).poll_read(cx, &mut buffer))).await;
        match read {
            Poll::Pending if self.input.is_empty() => return Ok(()),
            Poll::Pending => {}
            Poll::Ready(Err(source)) => return Err(WireError::Io { stage, source }),
            Poll::Ready(Ok(())) if buffer.filled().is_empty() && self.input.is_empty() => {
                return Err(WireError::Closed { stage });
            }
            Poll::Ready(Ok(())) => self.input.extend_from_slice(buffer.filled()),
        }
        Err(self.said_unasked(stage))
    }

    /// What it means that the peer has said something that nobody had asked for: that it goes, or nothing at all.
    fn said_unasked(&mut self, stage: Stage) -> WireError {
        match self.scanner.scan(&self.input, &self.limits) {
            Ok(Some((421, length))) => WireError::GoneAway(Reply::from_wire(421, &self.input[..length])),
            Ok(_) => WireError::Protocol { stage, source: Violation::Unsolicited },
            Err(source) => WireError::Protocol { stage, source },
        }
    }
}
