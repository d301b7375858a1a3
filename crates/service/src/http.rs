//! HTTP/1 as every service serves it: an accept loop with timers on heads and requests, a cap on
//! connections and one on bodies. (`axum::serve` sets no timers.)

use crate::{Health, HttpConfig, Lifecycle, Metrics, Report};
use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, Request},
    http::{StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use std::{io, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tower::ServiceExt;

/// The pause after an accept that failed, as when descriptors run out, so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Largest head of a request that is buffered, in bytes.
const MAX_HEAD: usize = 32 * 1024;
/// What Prometheus is told the metrics are.
const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Who is at the other end of the connection that a request came over; in its extensions.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub SocketAddr);

/// An address cannot be bound.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}")]
pub struct HttpError {
    address: SocketAddr,
    source: io::Error,
}

/// A bound listener with its limits.
#[derive(Debug)]
pub struct HttpServer {
    listener: TcpListener,
    address: SocketAddr,
    config: HttpConfig,
}

impl HttpServer {
    /// Binds `config.listen`; port 0 takes a free one.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn bind(config: &HttpConfig) -> Result<Self, HttpError> {
        let here = |source| HttpError { address: config.listen, source };
        let listener = TcpListener::bind(config.listen).await.map_err(here)?;
        let address = listener.local_addr().map_err(here)?;
        Ok(Self { listener, address, config: *config })
    }

    /// What it bound.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves until the shutdown is requested, then lets the requests under way end.
    pub fn spawn(self, name: &'static str, router: Router, life: &Lifecycle) {
        let Self { listener, config, .. } = self;
        let router = limited(router, &config);
        life.spawn(name, accept(listener, router, config, name, life.clone()));
    }
}

fn limited(router: Router, config: &HttpConfig) -> Router {
    let (limit, max_body) = (config.request_timeout, config.max_body);
    let in_time = move |request: Request, next: Next| async move {
        match tokio::time::timeout(limit, next.run(request)).await {
            Ok(response) => response,
            Err(_) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
        }
    };
    let small_enough = move |request: Request, next: Next| async move {
        let length = request.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        // A body that does not tell its length is counted while it is read, by the layer below.
        if length.is_some_and(|length: usize| length > max_body) {
            return StatusCode::PAYLOAD_TOO_LARGE.into_response();
        }
        next.run(request).await
    };
    router
        .layer(DefaultBodyLimit::max(max_body))
        .layer(middleware::from_fn(small_enough))
        .layer(middleware::from_fn(in_time))
}

async fn accept(listener: TcpListener, router: Router, config: HttpConfig, name: &'static str, life: Lifecycle) {
    let places = Arc::new(Semaphore::new(config.max_connections.get()));
    let token = life.token();
    loop {
        let next = async {
            let place = places.clone().acquire_owned().await.expect("the semaphore is never closed");
            (listener.accept().await, place)
        };
        let (accepted, place) = tokio::select! {
            biased;
            () = token.cancelled() => return,
            next = next => next,
        };
        match accepted {
            Ok((stream, peer)) => {
                let serving = connection(stream, Peer(peer), place, router.clone(), config, life.clone());
                life.spawn_finite(name, serving);
            }
            Err(error) => {
                tracing::warn!(server = name, %error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(
    stream: TcpStream,
    peer: Peer,
    place: OwnedSemaphorePermit,
    router: Router,
    config: HttpConfig,
    life: Lifecycle,
) {
    let _place = place;
    // Small answers must not wait for the acknowledgement of what went before; without it they only do.
    let _slower = stream.set_nodelay(true);
    let router = router.map_request(move |mut request: hyper::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(peer);
        request
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(config.header_timeout)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = life.shutdown_requested() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        // The client's fault or the network's; both are common.
        tracing::debug!(%error, "an http connection broke");
    }
}

/// `/healthz/live`, `/healthz/ready` and `/metrics`.
pub fn ops_router(health: Health, metrics: Metrics) -> Router {
    let live = health.clone();
    Router::new()
        .route("/healthz/live", get(move || async move { answer(live.liveness()) }))
        .route("/healthz/ready", get(move || async move { answer(health.readiness()) }))
        .route("/metrics", get(move || async move { ([(header::CONTENT_TYPE, METRICS_TYPE)], metrics.encode()) }))
}

fn answer(report: Report) -> Response {
    let status = if report.ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(report)).into_response()
}
