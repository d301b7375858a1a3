//! The listening socket: no more connections at a time than allowed, and each counted.

use crate::metrics::Metrics;
use futures_util::{Stream, stream};
use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Sleep,
};
use tonic::transport::server::Connected;

/// How long to wait after an accept failed, most likely for want of file descriptors.
const PAUSE: Duration = Duration::from_millis(50);

/// How long what a client still sends is taken and thrown away, before a connection that we end is closed.
const LINGER: Duration = Duration::from_secs(2);

/// A connection that gives its place back when it ends.
pub struct Connection {
    stream: TcpStream,
    /// We have said all; until then, or until the client has, what it sends is read.
    linger: Option<Pin<Box<Sleep>>>,
    metrics: Arc<Metrics>,
    _place: OwnedSemaphorePermit,
}

/// The connections of a socket, at most `most` at a time.
pub fn incoming(
    listener: TcpListener,
    most: usize,
    metrics: Arc<Metrics>,
) -> impl Stream<Item = io::Result<Connection>> + Send {
    let places = Arc::new(Semaphore::new(most));
    stream::unfold((listener, places, metrics), |(listener, places, metrics)| async move {
        // Beyond the limit nobody is accepted: they wait in the kernel's queue.
        let place = places.clone().acquire_owned().await.ok()?;
        let accepted = match listener.accept().await {
            Ok((stream, _)) => {
                // Without it small answers wait for an acknowledgement; with an error they only do that.
                let _slower = stream.set_nodelay(true);
                metrics.connections.inc();
                Ok(Connection { stream, linger: None, metrics: metrics.clone(), _place: place })
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(PAUSE).await;
                Err(error)
            }
        };
        Some((accepted, (listener, places, metrics)))
    })
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.metrics.connections.dec();
    }
}

impl Connected for Connection {
    type ConnectInfo = Option<SocketAddr>;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.stream.peer_addr().ok()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, octets)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    /// Closing a socket with octets unread resets the connection, and a reset takes the last answers from the client
    /// that has not read them yet. So ours are ended first, and the client's read to their end.
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { stream, linger, .. } = &mut *self;
        if linger.is_none() {
            ready!(Pin::new(&mut *stream).poll_shutdown(context))?;
        }
        let linger = linger.get_or_insert_with(|| Box::pin(tokio::time::sleep(LINGER)));
        let mut unheard = [0; 4096];
        loop {
            let mut buffer = ReadBuf::new(&mut unheard);
            match Pin::new(&mut *stream).poll_read(context, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {}
                Poll::Ready(_) => return Poll::Ready(Ok(())),
                Poll::Pending => return linger.as_mut().poll(context).map(Ok),
            }
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
