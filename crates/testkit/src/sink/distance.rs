//! A client that is far away: everything it says arrives a round trip later.

use bytes::{Buf, Bytes};
use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep},
};

/// How much is taken in at once.
const PIECE: usize = 16 * 1_024;
/// How much may be on its way; beyond that the client's own socket holds it back.
const WINDOW: usize = 4 * 1_024 * 1_024;

/// A stream whose reading side lags. A flight of pipelined commands lags once, as it does on a real line.
#[derive(Debug)]
pub(super) struct Distant<S> {
    stream: S,
    round_trip: Duration,
    /// What has been sent and not arrived, oldest first; an empty piece is the end.
    on_its_way: VecDeque<(Instant, Bytes)>,
    octets: usize,
    ended: bool,
    alarm: Pin<Box<Sleep>>,
}

impl<S> Distant<S> {
    pub(super) fn new(stream: S, round_trip: Duration) -> Self {
        let alarm = Box::pin(tokio::time::sleep(Duration::ZERO));
        Self { stream, round_trip, on_its_way: VecDeque::new(), octets: 0, ended: false, alarm }
    }

    pub(super) fn get_ref(&self) -> &S {
        &self.stream
    }
}

impl<S: AsyncRead + Unpin> Distant<S> {
    /// Notes when everything arrives that the client has sent by now.
    fn take_in(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        let mut room = [0; PIECE];
        while !self.ended && self.octets < WINDOW {
            let mut piece = ReadBuf::new(&mut room);
            match Pin::new(&mut self.stream).poll_read(context, &mut piece) {
                Poll::Pending => break,
                Poll::Ready(read) => read?,
            }
            self.ended = piece.filled().is_empty();
            self.octets += piece.filled().len();
            self.on_its_way.push_back((Instant::now() + self.round_trip, Bytes::copy_from_slice(piece.filled())));
        }
        Ok(())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Distant<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.round_trip.is_zero() {
            return Pin::new(&mut self.stream).poll_read(context, into);
        }
        self.take_in(context)?;
        let Some(due) = self.on_its_way.front().map(|(due, _)| *due) else { return Poll::Pending };
        if self.alarm.deadline() != due {
            self.alarm.as_mut().reset(due);
        }
        ready!(self.alarm.as_mut().poll(context));
        if let Some((_, piece)) = self.on_its_way.front_mut() {
            let taken = piece.len().min(into.remaining());
            into.put_slice(&piece[..taken]);
            piece.advance(taken);
            // The end stays, to be read again.
            let arrived = piece.is_empty() && taken > 0;
            self.octets -= taken;
            if arrived {
                self.on_its_way.pop_front();
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Distant<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, from)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
