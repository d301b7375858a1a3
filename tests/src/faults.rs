//! How tests live with faults: `MAILFLEET_FAULTS` makes calls of the services' stores and buses go wrong, and the
//! harness does then what real clients and supervisors do.

use axum::body::to_bytes;
use failpoint::Faults;
use std::{
    sync::atomic::{AtomicU64, Ordering},
    task::{Context, Poll},
    time::Duration,
};
use tonic::{
    Code,
    body::Body,
    codegen::{BoxFuture, Service, http},
    transport::{Channel, Error},
};

/// The variable that the services read as well.
const VARIABLE: &str = "MAILFLEET_FAULTS";
/// Times that a call is made before its last answer counts.
const TRIES: u32 = 40;
/// Pause before a call is made again.
const PAUSE: Duration = Duration::from_millis(50);
/// The call whose request does not end before its answer begins.
const STREAM: &str = "/mailfleet.v1.MailService/StreamMessages";

static KEYS: AtomicU64 = AtomicU64::new(0);

/// What the environment asks for.
pub(crate) fn of_environment() -> Option<Faults> {
    service::env::var(VARIABLE).map(|text| text.parse().unwrap())
}

/// A call that is made again needs a key: its own, or one that no other call has.
pub(crate) fn key_for(key: String) -> String {
    if !key.is_empty() || of_environment().is_none() {
        return key;
    }
    format!("call-{}-{}", std::process::id(), KEYS.fetch_add(1, Ordering::Relaxed))
}

/// A connection that makes a call again, octet for octet, when the answer was that asking again helps.
#[derive(Clone)]
pub struct Patient {
    channel: Channel,
    tries: u32,
}

impl Patient {
    pub(crate) fn new(channel: Channel, patient: bool) -> Self {
        Self { channel, tries: if patient { TRIES } else { 1 } }
    }
}

impl Service<http::Request<Body>> for Patient {
    type Response = http::Response<Body>;
    type Error = Error;
    type Future = BoxFuture<Self::Response, Error>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.channel.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let ready = self.channel.clone();
        let mut channel = std::mem::replace(&mut self.channel, ready);
        if self.tries == 1 || request.uri().path() == STREAM {
            return Box::pin(channel.call(request));
        }
        let tries = self.tries;
        Box::pin(async move {
            let (head, body) = request.into_parts();
            // What a test sends is in memory already.
            let body = to_bytes(axum::body::Body::new(body), usize::MAX).await.unwrap();
            let again = || http::Request::from_parts(head.clone(), Body::new(axum::body::Body::from(body.clone())));
            for _ in 1..tries {
                let answer = channel.call(again()).await?;
                // The status of a call without an answer stands in its headers.
                if answer.headers().get("grpc-status").is_none_or(|code| *code != *UNAVAILABLE) {
                    return Ok(answer);
                }
                tokio::time::sleep(PAUSE).await;
                std::future::poll_fn(|context| channel.poll_ready(context)).await?;
            }
            channel.call(again()).await
        })
    }
}

/// [`Code::Unavailable`] as a header has it.
const UNAVAILABLE: &str = "14";
const _: () = assert!(Code::Unavailable as i32 == 14);
