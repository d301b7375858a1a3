//! A TCP proxy that misbehaves on command, to stand between a service and its Postgres, NATS or receiver.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

/// What the proxy does to every connection, those that are open included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Passes everything on.
    Nothing,
    /// Passes everything on, every piece this much later.
    Delay(Duration),
    /// Keeps connections open and takes new ones, and passes nothing on: a half-open peer, a full disk. What
    /// came meanwhile is passed on when this ends.
    Hold,
    /// Passes on what the client sends and loses what the server answers: the answer to a commit or to the
    /// final dot.
    LoseAnswers,
    /// Cuts what is open and what comes.
    Cut,
    /// Cuts a connection once its client has sent so many octets.
    CutAfter(u64),
}

/// The proxy. Ends, and cuts everything, when it is dropped.
#[derive(Debug)]
pub struct FaultProxy {
    address: SocketAddr,
    fault: watch::Sender<Fault>,
    passed: Arc<AtomicU64>,
    accepting: JoinHandle<()>,
}

impl FaultProxy {
    /// Listens on a free port of 127.0.0.1 and passes on to `upstream`, such as `127.0.0.1:5432`.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn start(upstream: impl Into<String>) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let (fault, faults) = watch::channel(Fault::Nothing);
        let passed = Arc::new(AtomicU64::new(0));
        let accepting = background(accept(listener, upstream.into(), faults, Arc::clone(&passed)));
        Ok(Self { address, fault, passed, accepting })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Begins to do this, and ends what it did before.
    pub fn set(&self, fault: Fault) {
        self.fault.send_replace(fault);
    }

    /// Octets that went from clients to the server so far.
    pub fn passed(&self) -> u64 {
        self.passed.load(Ordering::Relaxed)
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.accepting.abort();
        // The connections end as they see that nobody commands them any more.
    }
}

#[expect(clippy::disallowed_methods, reason = "a test has no life cycle; these end with the proxy")]
fn background(task: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
    tokio::spawn(task)
}

async fn accept(listener: TcpListener, upstream: String, faults: watch::Receiver<Fault>, passed: Arc<AtomicU64>) {
    while let Ok((client, _)) = listener.accept().await {
        let (upstream, faults, passed) = (upstream.clone(), faults.clone(), Arc::clone(&passed));
        background(async move {
            if *faults.borrow() == Fault::Cut {
                return;
            }
            let Ok(server) = TcpStream::connect(&upstream).await else { return };
            let _ = (client.set_nodelay(true), server.set_nodelay(true));
            let (from_client, to_client) = client.into_split();
            let (from_server, to_server) = server.into_split();
            // Whichever side ends first cuts the other: both halves are dropped.
            tokio::select! {
                () = pump(from_client, to_server, faults.clone(), Some(&passed)) => {}
                () = pump(from_server, to_client, faults, None) => {}
            }
        });
    }
}

/// Passes on until an end closes, the fault says cut, or the proxy is gone. Only octets of clients are counted.
async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut faults: watch::Receiver<Fault>,
    counted: Option<&AtomicU64>,
) {
    let mut buffer = vec![0; 16 * 1024];
    let mut sent = 0_u64;
    loop {
        let read = tokio::select! {
            changed = faults.changed() => {
                if changed.is_err() || *faults.borrow_and_update() == Fault::Cut {
                    return;
                }
                continue;
            }
            read = from.read(&mut buffer) => read,
        };
        let mut piece = match read {
            Ok(length) if length > 0 => &buffer[..length],
            _ => return,
        };
        let mut last = false;
        loop {
            let fault = *faults.borrow_and_update();
            match fault {
                Fault::Nothing => {}
                Fault::Delay(by) => tokio::time::sleep(by).await,
                Fault::Hold => {
                    if faults.changed().await.is_err() {
                        return;
                    }
                    continue;
                }
                Fault::LoseAnswers if counted.is_none() => piece = &[],
                Fault::LoseAnswers => {}
                Fault::Cut => return,
                Fault::CutAfter(limit) if counted.is_some() => {
                    let left = usize::try_from(limit.saturating_sub(sent)).unwrap_or(usize::MAX);
                    last = left <= piece.len();
                    piece = &piece[..left.min(piece.len())];
                }
                Fault::CutAfter(_) => {}
            }
            break;
        }
        sent += piece.len() as u64;
        if to.write_all(piece).await.is_err() || to.flush().await.is_err() {
            return;
        }
        if let Some(counted) = counted {
            counted.fetch_add(piece.len() as u64, Ordering::Relaxed);
        }
        if last {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that sends back what it gets.
    async fn echo() -> String {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        background(async move {
            while let Ok((stream, _)) = listener.accept().await {
                background(async move {
                    let (mut from, mut to) = stream.into_split();
                    let _ = tokio::io::copy(&mut from, &mut to).await;
                });
            }
        });
        address
    }

    async fn answer(stream: &mut TcpStream, limit: Duration) -> Option<usize> {
        let mut buffer = [0; 64];
        tokio::time::timeout(limit, stream.read(&mut buffer)).await.ok().map(|read| read.unwrap_or(0))
    }

    const SOON: Duration = Duration::from_millis(100);

    #[tokio::test]
    async fn it_passes_on_holds_and_cuts() {
        let proxy = FaultProxy::start(echo().await).await.unwrap();
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        stream.write_all(b"one").await.unwrap();
        assert_eq!(answer(&mut stream, crate::LIMIT).await, Some(3));
        assert_eq!(proxy.passed(), 3);

        proxy.set(Fault::Hold);
        stream.write_all(b"four").await.unwrap();
        assert_eq!(answer(&mut stream, SOON).await, None);
        proxy.set(Fault::Nothing);
        assert_eq!(answer(&mut stream, crate::LIMIT).await, Some(4));

        proxy.set(Fault::Cut);
        assert_eq!(answer(&mut stream, crate::LIMIT).await, Some(0));
        let mut refused = TcpStream::connect(proxy.address()).await.unwrap();
        assert_eq!(answer(&mut refused, crate::LIMIT).await, Some(0));
    }

    #[tokio::test]
    async fn it_cuts_in_the_middle_and_loses_answers() {
        let proxy = FaultProxy::start(echo().await).await.unwrap();
        proxy.set(Fault::CutAfter(5));
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        stream.write_all(b"12345678").await.unwrap();
        let mut all = Vec::new();
        let _ = tokio::time::timeout(crate::LIMIT, stream.read_to_end(&mut all)).await.unwrap();
        assert!(all.len() <= 5);

        proxy.set(Fault::LoseAnswers);
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        let before = proxy.passed();
        stream.write_all(b"heard").await.unwrap();
        assert_eq!(answer(&mut stream, SOON).await, None);
        assert_eq!(proxy.passed(), before + 5);
    }
}
