//! What is asked of SNS itself: the certificates with which it signs, and the confirmation of a subscription.
//!
//! No address that a post gives is followed: a certificate is fetched from the one host of SNS in its topic's region, a
//! subscription is confirmed there, both over verified TLS and without redirects.

use crate::{
    FeedbackError,
    config::SnsConfig,
    webhook::{Certificate, CertificateUrl, Certificates, Confirmation},
};
use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use smtp::TlsContext;
use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    net::TcpStream,
    task::JoinSet,
    time::{Instant, timeout},
};
use tokio_rustls::TlsConnector;

/// How long one request may take.
const LIMIT: Duration = Duration::from_secs(5);
/// How long after a fetch the next one waits: whoever knows a topic can name any file of its host.
const PAUSE: Duration = Duration::from_secs(1);
/// Largest answer that is read, in octets.
const MAX_ANSWER: usize = 64 * 1024;
/// Most certificates that are kept; SNS has a few a region.
const MAX_KEPT: usize = 64;
/// HTTPS.
const PORT: u16 = 443;

/// Why SNS was asked in vain.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
    #[error("cannot connect")]
    Connect(#[source] std::io::Error),
    #[error("cannot speak HTTP")]
    Http(#[source] hyper::Error),
    #[error("cannot make a request")]
    Form,
    #[error("no answer in time")]
    Timeout,
    #[error("it answered {0}")]
    Status(StatusCode),
    #[error("the answer is too long, or broke off")]
    Body,
    #[error("the certificate {0}")]
    Certificate(#[from] crate::webhook::CertificateError),
    #[error("too many certificates were asked for a moment ago")]
    TooOften,
}

/// SNS, as it is reached from here.
pub(crate) struct Sns {
    tls: TlsContext,
    /// Where all of its hosts are, if not where DNS says.
    connect_to: Option<SocketAddr>,
    kept: Mutex<HashMap<String, Arc<Certificate>>>,
    fetched: tokio::sync::Mutex<Option<Instant>>,
}

impl Sns {
    pub(crate) fn new(config: &SnsConfig) -> Result<Self, FeedbackError> {
        let tls = match &config.ca_file {
            Some(file) => TlsContext::with_file(file)?,
            None => TlsContext::new()?,
        };
        Ok(Self { tls, connect_to: config.connect_to, kept: Mutex::default(), fetched: tokio::sync::Mutex::default() })
    }

    fn kept(&self) -> MutexGuard<'_, HashMap<String, Arc<Certificate>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fetches a certificate and keeps it.
    pub(crate) async fn fetch(&self, url: &CertificateUrl) -> Result<(), AskError> {
        let mut last = self.fetched.lock().await;
        if self.kept().contains_key(url.as_str()) {
            return Ok(());
        }
        if last.is_some_and(|last| last.elapsed() < PAUSE) {
            return Err(AskError::TooOften);
        }
        *last = Some(Instant::now());
        let (host, path) = url.as_str().trim_start_matches("https://").split_once('/').ok_or(AskError::Form)?;
        let pem = self.get(host, &format!("/{path}")).await?;
        let certificate = Arc::new(Certificate::from_pem(&pem)?);
        let mut kept = self.kept();
        if kept.len() >= MAX_KEPT {
            kept.clear();
        }
        kept.insert(url.as_str().to_owned(), certificate);
        Ok(())
    }

    /// Forgets a certificate that is not valid any more.
    pub(crate) fn forget(&self, url: &CertificateUrl) {
        self.kept().remove(url.as_str());
    }

    /// Tells SNS that the topic may post here.
    pub(crate) async fn confirm(&self, confirmation: &Confirmation) -> Result<(), AskError> {
        let topic = encoded(confirmation.topic.as_str());
        let path = format!("/?Action=ConfirmSubscription&TopicArn={topic}&Token={}", encoded(&confirmation.token));
        self.get(&confirmation.topic.host(), &path).await.map(|_| ())
    }

    async fn get(&self, host: &str, path: &str) -> Result<Bytes, AskError> {
        let asking = async {
            let stream = match self.connect_to {
                Some(address) => TcpStream::connect(address).await,
                None => TcpStream::connect((host, PORT)).await,
            };
            let name = ServerName::try_from(host.to_owned()).map_err(|_| AskError::Form)?;
            let connector = TlsConnector::from(self.tls.verified());
            let stream =
                connector.connect(name, stream.map_err(AskError::Connect)?).await.map_err(AskError::Connect)?;
            let (mut requests, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(AskError::Http)?;
            let mut driver = JoinSet::new();
            driver.spawn(connection);
            let request = Request::get(path).header(header::HOST, host).body(Empty::<Bytes>::new());
            let answer = requests.send_request(request.map_err(|_| AskError::Form)?).await.map_err(AskError::Http)?;
            if answer.status() != StatusCode::OK {
                return Err(AskError::Status(answer.status()));
            }
            let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await.map_err(|_| AskError::Body)?;
            Ok(body.to_bytes())
        };
        timeout(LIMIT, asking).await.map_err(|_| AskError::Timeout)?
    }
}

impl Certificates for Sns {
    fn get(&self, url: &CertificateUrl) -> Option<Arc<Certificate>> {
        self.kept().get(url.as_str()).cloned()
    }
}

/// A value of a query (RFC 3986, 2.1).
fn encoded(value: &str) -> String {
    value.bytes().fold(String::with_capacity(value.len()), |mut text, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_of_a_query_holds_nothing_that_means_something_there() {
        assert_eq!(encoded("arn:aws:sns:eu:1:a_b"), "arn%3Aaws%3Asns%3Aeu%3A1%3Aa_b");
        assert_eq!(encoded("a&b=c d+é"), "a%26b%3Dc%20d%2B%C3%A9");
    }
}
