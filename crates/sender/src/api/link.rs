//! One connection with a provider's HTTP API, kept from request to request.

use super::Api;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    HeaderMap, Request, StatusCode,
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use smtp::client::Abort;
use std::{
    io,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::TlsConnector;
use tokio_util::bytes::Bytes;

/// Longest body read of an answer; what is longer is not looked at.
const MAX_ANSWER: usize = 64 * 1024;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkError {
    #[error("cannot connect")]
    Connect(#[source] io::Error),
    #[error("no connection in time")]
    Timeout,
    #[error("host name is none that a certificate can bear")]
    Name,
    #[error("cannot speak HTTP")]
    Http(#[source] hyper::Error),
}

/// A connection.
pub(crate) struct Link {
    requests: SendRequest<Full<Bytes>>,
    sent: u32,
    is_over: bool,
    is_tls: bool,
    answer: Duration,
    /// Moves the octets; ends with the link.
    _driver: JoinSet<()>,
}

/// What came of a request.
pub(super) enum Sent {
    /// Nothing of it was written.
    Never(String),
    /// It was held back by ourselves.
    HeldBack,
    /// An answer.
    Answered { status: StatusCode, headers: HeaderMap, body: Bytes },
    /// Some of it may have been written, and no answer came.
    Unanswered(String),
}

impl Link {
    pub(crate) async fn open(api: &Api) -> Result<Self, LinkError> {
        let opening = async {
            let stream = TcpStream::connect((api.host.as_str(), api.port)).await.map_err(LinkError::Connect)?;
            // Requests are written whole; waiting for more would only delay them.
            stream.set_nodelay(true).map_err(LinkError::Connect)?;
            if !api.is_tls {
                return Self::start(stream, api).await;
            }
            let name = ServerName::try_from(api.host.clone()).map_err(|_| LinkError::Name)?;
            let connector = TlsConnector::from(api.tls.verified());
            Self::start(connector.connect(name, stream).await.map_err(LinkError::Connect)?, api).await
        };
        timeout(api.connect, opening).await.map_err(|_| LinkError::Timeout)?
    }

    async fn start(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, api: &Api) -> Result<Self, LinkError> {
        let (requests, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(LinkError::Http)?;
        let mut driver = JoinSet::new();
        driver.spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection with a provider's API broke");
            }
        });
        Ok(Self { requests, sent: 0, is_over: false, is_tls: api.is_tls, answer: api.answer, _driver: driver })
    }

    pub(crate) fn is_reusable(&self) -> bool {
        !self.is_over && !self.requests.is_closed()
    }

    pub(crate) const fn messages_sent(&self) -> u32 {
        self.sent
    }

    pub(crate) const fn is_tls(&self) -> bool {
        self.is_tls
    }

    /// Sends a request, unless `before` holds it back, and waits for its answer.
    pub(super) async fn send(
        &mut self,
        request: Request<Full<Bytes>>,
        before: impl FnOnce() -> Result<(), Abort>,
    ) -> Sent {
        let end = Instant::now() + self.answer;
        // Over, until it is known to be of use again.
        self.is_over = true;
        match timeout(self.answer, self.requests.ready()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Sent::Never(error.to_string()),
            Err(_) => return Sent::Never("the connection is not free in time".to_owned()),
        }
        if before().is_err() {
            self.is_over = false;
            return Sent::HeldBack;
        }
        self.sent += 1;
        let response = match timeout(self.answer, self.requests.try_send_request(request)).await {
            Err(_) => return Sent::Unanswered("no answer in time".to_owned()),
            Ok(Err(mut error)) => {
                let is_back = error.take_message().is_some();
                let text = service::Chain(error.error()).to_string();
                return if is_back { Sent::Never(text) } else { Sent::Unanswered(text) };
            }
            Ok(Ok(response)) => response,
        };
        let (head, body) = response.into_parts();
        let left = end.saturating_duration_since(Instant::now());
        // The status says what became of the mail, whatever becomes of the rest.
        let body = match timeout(left, Limited::new(body, MAX_ANSWER).collect()).await {
            Ok(Ok(body)) => {
                self.is_over = false;
                body.to_bytes()
            }
            Ok(Err(_)) | Err(_) => Bytes::new(),
        };
        Sent::Answered { status: head.status, headers: head.headers, body }
    }
}
