//! The HTTP server on real sockets.

use axum::{Router, body::Bytes, extract::Request, routing::post};
use mailfleet_service::{Boot, HttpConfig, HttpServer};
use std::{net::SocketAddr, num::NonZeroUsize, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const PATIENCE: Duration = Duration::from_secs(20);

async fn connect(address: SocketAddr) -> TcpStream {
    TcpStream::connect(address).await.expect("connects")
}

/// Sends a request and reads until the server closes.
async fn exchange(address: SocketAddr, request: &str) -> String {
    let mut stream = connect(address).await;
    stream.write_all(request.as_bytes()).await.expect("writes");
    read(&mut stream).await
}

async fn read(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    // A reset after the answer is as good an end as a close.
    let _end = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("in time");
    String::from_utf8_lossy(&answer).into_owned()
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
}

async fn echo(boot: &Boot, config: &HttpConfig) -> SocketAddr {
    let server = HttpServer::bind(config).await.expect("binds");
    let address = server.local_addr();
    server.spawn("http.test", Router::new().route("/", post(|body: Bytes| async move { body })), &boot.lifecycle());
    address
}

#[tokio::test]
async fn health_and_metrics_tell_how_the_service_is() {
    let boot = Boot::for_tests("test");
    let check = boot.health().check("postgres");
    let address = boot.serve_ops(&HttpConfig::default()).await.expect("binds");
    assert!(exchange(address, &get("/healthz/live")).await.starts_with("HTTP/1.1 200"));
    let starting = exchange(address, &get("/healthz/ready")).await;
    assert!(starting.starts_with("HTTP/1.1 503") && starting.contains("starting"), "{starting}");
    check.pass();
    assert!(exchange(address, &get("/healthz/ready")).await.starts_with("HTTP/1.1 200"));
    let metrics = exchange(address, &get("/metrics")).await;
    assert!(metrics.contains("mailfleet_process_cpu_seconds_total") && metrics.contains("# EOF"), "{metrics}");
    assert!(boot.lifecycle().drain(PATIENCE).await);
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn a_client_that_dribbles_its_head_is_cut_off() {
    let boot = Boot::for_tests("test");
    let config = HttpConfig { header_timeout: Duration::from_millis(200), ..HttpConfig::default() };
    let address = echo(&boot, &config).await;
    let mut slow = connect(address).await;
    slow.write_all(b"GET / HTTP/1.1\r\nHo").await.expect("writes");
    assert!(!read(&mut slow).await.contains("200 OK"));
}

#[tokio::test]
async fn bodies_and_requests_have_their_limits() {
    let boot = Boot::for_tests("test");
    let config = HttpConfig { max_body: 10, request_timeout: Duration::from_millis(300), ..HttpConfig::default() };
    let address = echo(&boot, &config).await;
    let post = |framing: &str, body: &str| {
        format!("POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{framing}\r\n\r\n{body}")
    };
    let fits = exchange(address, &post("Content-Length: 4", "four")).await;
    assert!(fits.starts_with("HTTP/1.1 200") && fits.ends_with("four"), "{fits}");
    assert!(exchange(address, &post("Content-Length: 11", "eleven chars")).await.starts_with("HTTP/1.1 413"));
    let chunked = post("Transfer-Encoding: chunked", "b\r\neleven char\r\n0\r\n\r\n");
    assert!(exchange(address, &chunked).await.starts_with("HTTP/1.1 413"));
    let stalled = exchange(address, &post("Content-Length: 4", "fo")).await;
    assert!(stalled.starts_with("HTTP/1.1 503"), "{stalled}");
}

#[tokio::test]
async fn connections_beyond_the_cap_wait_and_are_served_later() {
    let boot = Boot::for_tests("test");
    let config = HttpConfig {
        max_connections: NonZeroUsize::MIN,
        header_timeout: Duration::from_millis(200),
        ..HttpConfig::default()
    };
    let address = echo(&boot, &config).await;
    let _idle = connect(address).await;
    let request = "POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi";
    assert!(exchange(address, request).await.ends_with("hi"));
}

#[tokio::test]
async fn a_shutdown_lets_the_request_under_way_end() {
    let boot = Boot::for_tests("test");
    let life = boot.lifecycle();
    let server = HttpServer::bind(&HttpConfig::default()).await.expect("binds");
    let address = server.local_addr();
    let requested = life.clone();
    let handler = move |request: Request| async move {
        // Under way from here on: the service is told to stop, and only then the client sends the rest.
        requested.trigger_shutdown();
        axum::body::to_bytes(request.into_body(), 100).await.expect("reads")
    };
    server.spawn("http.test", Router::new().route("/", post(handler)), &life);
    let mut stream = connect(address).await;
    stream.write_all(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhe").await.expect("writes");
    life.shutdown_requested().await;
    let rest = async {
        stream.write_all(b"llo").await.expect("writes");
        read(&mut stream).await
    };
    let (in_time, answer) = tokio::join!(life.drain(PATIENCE), rest);
    assert!(in_time && answer.ends_with("hello"), "{answer}");
}
