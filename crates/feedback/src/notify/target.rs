//! Where an endpoint is, and a connection with it.
//!
//! An endpoint's address is whatever a tenant says. So the name is looked up here, every address that it has must be one
//! that may be reached, and the connection goes to an address that was looked at and to no other. Redirects are not
//! followed, and of an answer only the head counts.

use super::config::NotifyConfig;
use bytes::Bytes;
use domain::{Network, is_public};
use http::{HeaderMap, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use posting::EndpointUrl;
use rustls::pki_types::ServerName;
use smtp::TlsContext;
use std::{
    io,
    net::{IpAddr, SocketAddr},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, lookup_host},
    task::JoinSet,
    time::{Instant, timeout_at},
};
use tokio_rustls::TlsConnector;

/// Most of an answer's body that is read to use its connection again, in octets.
const MAX_BODY: usize = 64 * 1024;
/// Most addresses of a name that are looked at.
const MAX_ADDRESSES: usize = 32;

/// Why something could not be posted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PostError {
    #[error("cannot make a request of it")]
    Form,
    #[error("it is not https; http is taken at addresses that feedback.notify.allow_networks names")]
    Insecure,
    #[error("the name has no address")]
    Unknown,
    #[error("cannot look the name up")]
    Lookup(#[source] io::Error),
    #[error("{0} may not be reached; feedback.notify.allow_networks names what may")]
    Forbidden(IpAddr),
    #[error("cannot connect")]
    Connect(#[source] io::Error),
    #[error("cannot speak HTTP")]
    Http(#[source] hyper::Error),
    #[error("no answer in time")]
    Timeout,
}

/// What an endpoint answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    /// How long it asks to be left alone.
    pub(crate) retry_after: Option<std::time::Duration>,
}

/// The addresses that may be connected to: all that the endpoint's name has, or none.
async fn addresses(url: &EndpointUrl, allowed: &[Network]) -> Result<Vec<SocketAddr>, PostError> {
    let found: Vec<SocketAddr> = match url.host.parse::<IpAddr>() {
        Ok(ip) => vec![SocketAddr::new(ip, url.port)],
        Err(_) => {
            let found = lookup_host((url.host.as_str(), url.port)).await.map_err(PostError::Lookup)?;
            found.take(MAX_ADDRESSES).collect()
        }
    };
    for address in &found {
        let ip = address.ip();
        let is_allowed = allowed.iter().any(|network| network.contains(ip));
        if !(is_allowed || is_public(ip)) {
            return Err(PostError::Forbidden(ip));
        }
        if !(url.is_tls || is_allowed) {
            return Err(PostError::Insecure);
        }
    }
    if found.is_empty() { Err(PostError::Unknown) } else { Ok(found) }
}

/// A connection with an endpoint.
pub(crate) struct Line {
    requests: SendRequest<Full<Bytes>>,
    /// Moves the octets; ends with the line.
    _driver: JoinSet<()>,
}

impl Line {
    pub(crate) async fn open(target: &EndpointUrl, config: &NotifyConfig, tls: &TlsContext) -> Result<Self, PostError> {
        let end = Instant::now() + config.connect;
        let opening = async {
            let addresses = addresses(target, &config.allow_networks).await?;
            let stream = TcpStream::connect(addresses.as_slice()).await.map_err(PostError::Connect)?;
            stream.set_nodelay(true).map_err(PostError::Connect)?;
            if !target.is_tls {
                return Self::start(stream).await;
            }
            let name = ServerName::try_from(target.host.clone()).map_err(|_| PostError::Form)?;
            let connector = TlsConnector::from(tls.verified());
            Self::start(connector.connect(name, stream).await.map_err(PostError::Connect)?).await
        };
        timeout_at(end, opening).await.map_err(|_| PostError::Timeout)?
    }

    async fn start(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Result<Self, PostError> {
        let (requests, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(PostError::Http)?;
        let mut driver = JoinSet::new();
        driver.spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection with an endpoint broke");
            }
        });
        Ok(Self { requests, _driver: driver })
    }

    pub(crate) fn is_open(&self) -> bool {
        !self.requests.is_closed()
    }

    /// Posts once.
    pub(crate) async fn post(
        &mut self,
        target: &EndpointUrl,
        fields: &[(&'static str, &str)],
        body: Bytes,
        config: &NotifyConfig,
    ) -> Result<Answer, PostError> {
        let end = Instant::now() + config.answer;
        let mut request = Request::post(&target.path)
            .header(header::HOST, &target.authority)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::USER_AGENT, concat!("mailfleet/", env!("CARGO_PKG_VERSION")));
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body)).map_err(|_| PostError::Form)?;
        let asking = async {
            self.requests.ready().await.map_err(PostError::Http)?;
            self.requests.send_request(request).await.map_err(PostError::Http)
        };
        let (head, body) = timeout_at(end, asking).await.map_err(|_| PostError::Timeout)??.into_parts();
        let answer = Answer { status: head.status, retry_after: retry_after(&head.headers) };
        // What it says besides is of no interest, but has to be out of the way before the next post.
        let rest = timeout_at(end, Limited::new(body, MAX_BODY).collect()).await;
        if !matches!(rest, Ok(Ok(_))) {
            self._driver.abort_all();
        }
        Ok(answer)
    }
}

fn retry_after(headers: &HeaderMap) -> Option<std::time::Duration> {
    let seconds: u64 = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(std::time::Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn no_address_within_is_reached_in_any_spelling_unless_it_is_allowed() {
        for url in [
            "https://127.0.0.1/",
            "https://[::1]/",
            "https://10.0.0.1/",
            "https://169.254.169.254/latest",
            "https://[fd00::1]/",
            "https://[::ffff:127.0.0.1]/",
            "https://0.0.0.0/",
            "https://[64:ff9b::7f00:1]/",
            "https://localhost/",
        ] {
            let target: EndpointUrl = url.parse().unwrap();
            assert!(matches!(addresses(&target, &[]).await, Err(PostError::Forbidden(_))), "{url}");
        }
        let allowed: Vec<Network> = ["127.0.0.0/8", "::1"].map(|text| text.parse().unwrap()).into();
        for url in ["http://127.0.0.1/", "https://[::1]/", "http://localhost/"] {
            assert!(addresses(&url.parse().unwrap(), &allowed).await.is_ok(), "{url}");
        }
        let open: EndpointUrl = "http://93.184.215.14/".parse().unwrap();
        assert!(matches!(addresses(&open, &allowed).await, Err(PostError::Insecure)));
    }
}
