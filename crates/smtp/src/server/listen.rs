//! A port on which sessions are served.

use super::{
    config::ServerConfig,
    session::{Ended, Handler, serve},
};
use std::{
    collections::HashMap,
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    num::NonZeroUsize,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
    time::timeout,
};

/// The pause after an accept that failed, as when descriptors run out, so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long whoever is turned away may take to read why.
const TURN_AWAY: Duration = Duration::from_secs(1);

/// How many may be served at once.
#[derive(Clone, Copy, Debug)]
pub struct Crowd {
    /// Sessions in all; further ones wait in the system's backlog.
    pub sessions: NonZeroUsize,
    /// Sessions of one address; a further one is told 421. A site behind one address counts as one.
    pub per_address: NonZeroUsize,
    /// How long sessions may go on once the listener is told to stop. A message that has its answer by then is
    /// answered for; any other comes again.
    pub grace: Duration,
}

/// A bound port.
#[derive(Debug)]
pub struct Listener {
    listener: TcpListener,
    address: SocketAddr,
    config: Arc<ServerConfig>,
    crowd: Crowd,
}

impl Listener {
    /// Binds `address`; port 0 takes a free one.
    ///
    /// # Errors
    /// When it cannot be bound.
    pub async fn bind(address: SocketAddr, config: ServerConfig, crowd: Crowd) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address, config: Arc::new(config), crowd })
    }

    /// What it bound.
    pub const fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves a session with a handler of its own to everybody who comes, until `stop`.
    pub async fn run<H: Handler + 'static>(
        self,
        mut handler: impl FnMut(SocketAddr) -> H + Send,
        stop: impl Future<Output = ()> + Send,
    ) {
        let places = Arc::new(Semaphore::new(self.crowd.sessions.get()));
        let guests = Guests::default();
        let mut sessions = JoinSet::new();
        tokio::pin!(stop);
        loop {
            let next = async {
                let place = Arc::clone(&places).acquire_owned().await;
                (place, self.listener.accept().await)
            };
            let (place, accepted) = tokio::select! {
                biased;
                () = &mut stop => break,
                next = next => next,
                Some(_) = sessions.join_next() => continue,
            };
            match accepted {
                Ok((stream, peer)) => {
                    let guest = guests.enter(peer.ip(), self.crowd.per_address.get());
                    let config = Arc::clone(&self.config);
                    let handler = handler(peer);
                    sessions.spawn(async move {
                        let (_place, _guest) = match guest {
                            Some(guest) => (place, guest),
                            None => return turn_away(stream).await,
                        };
                        session(stream, handler, &config).await;
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, address = %self.address, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        // Whoever comes now is refused by the system, and tries another host or comes again.
        drop(self.listener);
        let _late = timeout(self.crowd.grace, async { while sessions.join_next().await.is_some() {} }).await;
    }
}

async fn session<H: Handler>(stream: TcpStream, mut handler: H, config: &ServerConfig) {
    // Without it the answers of two flights in a row wait for an acknowledgement.
    let _slower = stream.set_nodelay(true);
    let (ended, stream) = serve(stream, &mut handler, config).await;
    if let (Ended::Reset, Some(stream)) = (ended, stream) {
        let _open = stream.set_zero_linger();
    }
}

async fn turn_away(mut stream: TcpStream) {
    let telling = async {
        stream.write_all(b"421 4.7.0 too many connections from your address\r\n").await?;
        stream.shutdown().await
    };
    let _gone = timeout(TURN_AWAY, telling).await;
}

/// Who is there, by address.
#[derive(Clone, Debug, Default)]
struct Guests(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// One of them; gone when dropped.
#[derive(Debug)]
struct Guest {
    guests: Guests,
    address: IpAddr,
}

impl Guests {
    /// Lets one more in, unless there are `most` of his address.
    fn enter(&self, address: IpAddr, most: usize) -> Option<Guest> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(address).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(Guest { guests: self.clone(), address })
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut counts = self.guests.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_its_share_and_leaves_no_trace() {
        let guests = Guests::default();
        let [one, two]: [IpAddr; 2] = [[127, 0, 0, 1].into(), [127, 0, 0, 2].into()];
        let first = guests.enter(one, 2);
        let second = guests.enter(one, 2);
        assert!(first.is_some() && second.is_some() && guests.enter(one, 2).is_none());
        assert!(guests.enter(two, 2).is_some(), "another address has its own");
        drop(first);
        assert!(guests.enter(one, 2).is_some());
        drop(second);
        assert!(guests.0.lock().unwrap().is_empty());
    }
}
