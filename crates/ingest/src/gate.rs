//! The gate in front of every call of the API: the caller is known, the number of calls is bounded and the
//! deadline is set before the first octet of a request's body is read.

use crate::{Fault, auth::KeyRing, metrics::Metrics, status::reason_name};
use domain::TraceContext;
use http::{HeaderMap, Request, Response};
use service::trace::{self, Kind, Origin};
use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};
use tokio::sync::Semaphore;
use tonic::{Code, Status, body::Body};
use tower::{Layer, Service};
use tracing::{Instrument, Span};

/// Paths of the API; health and reflection need no key.
const API: &str = "/mailfleet.v1.";
/// The calls that last: only their start has a deadline of the server's.
const STREAMS: [&str; 2] =
    ["/mailfleet.v1.MailService/StreamMessages", "/mailfleet.v1.SuppressionService/ImportSuppressions"];
/// How long before the caller's deadline the answer is given up, so that it is ours and names the right code.
const MARGIN: Duration = Duration::from_millis(10);

/// What the gate lets through.
pub struct Gate {
    /// Who calls.
    pub keys: Arc<KeyRing>,
    /// Calls at the same time.
    pub calls: Arc<Semaphore>,
    /// Longest time for one call.
    pub call_timeout: Duration,
    /// When a refused caller may come back.
    pub retry_after: Duration,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

/// Puts the gate in front of a service.
#[derive(Clone)]
pub struct GateLayer(pub Arc<Gate>);

impl<S> Layer<S> for GateLayer {
    type Service = Gated<S>;

    fn layer(&self, inner: S) -> Gated<S> {
        Gated { inner, gate: self.0.clone() }
    }
}

/// A service behind the gate.
#[derive(Clone)]
pub struct Gated<S> {
    inner: S,
    gate: Arc<Gate>,
}

impl<S> Service<Request<Body>> for Gated<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        // The one that is ready goes; its clone stays for the next call.
        let fresh = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, fresh);
        if !request.uri().path().starts_with(API) {
            return Box::pin(inner.call(request));
        }
        let gate = self.gate.clone();
        Box::pin(async move {
            let method = request.uri().path().trim_start_matches('/').to_owned();
            let parent = traceparent(request.headers());
            let span = trace::call(&method, parent.as_ref());
            // Of a call that nobody samples, only what its caller said goes along.
            let place = trace::context_of(&span).filter(TraceContext::is_sampled).or(parent);
            request.extensions_mut().insert(CallTrace(place));
            let begun = Instant::now();
            let answer = gate.pass(&mut inner, request).instrument(span.clone()).await;
            if let Ok(response) = &answer {
                tell(&span, &method, place, begun, response);
            }
            answer
        })
    }
}

/// The place in its trace that a call has, if somebody traces it.
#[derive(Clone, Copy, Debug, Default)]
pub struct CallTrace(pub Option<TraceContext>);

/// The caller's place in his trace; nothing, when that cannot be read (W3C Trace Context, 4.3).
fn traceparent(headers: &HeaderMap) -> Option<TraceContext> {
    let mut given = headers.get_all("traceparent").iter();
    let only = given.next().filter(|_| given.next().is_none())?;
    only.to_str().ok()?.parse().ok()
}

/// Ends the span of a call.
fn tell(span: &Span, method: &str, place: Option<TraceContext>, begun: Instant, response: &Response<Body>) {
    if !trace::is_on() {
        return;
    }
    let code = response.extensions().get::<Status>().map_or(Code::Ok, Status::code);
    let name = name_of(code);
    span.record("rpc.response.status_code", name);
    // The others are the caller's fault (OpenTelemetry, conventions for gRPC).
    let is_ours = matches!(
        code,
        Code::Unknown
            | Code::DeadlineExceeded
            | Code::Unimplemented
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss
    );
    if !is_ours {
        return;
    }
    span.record("error.type", name);
    span.record("otel.status_code", "ERROR");
    if !place.is_some_and(|place| place.is_sampled()) {
        let attributes: [(&str, trace::Value); 3] = [
            ("rpc.system.name", "grpc".into()),
            ("rpc.method", method.to_owned().into()),
            ("rpc.response.status_code", name.into()),
        ];
        trace::failure(method.to_owned(), Kind::Server, place.map(Origin::Child), begun, name, attributes);
    }
}

/// As the gRPC specification writes codes.
const fn name_of(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

impl Gate {
    async fn pass<S>(&self, inner: &mut S, mut request: Request<Body>) -> Result<Response<Body>, S::Error>
    where
        S: Service<Request<Body>, Response = Response<Body>>,
    {
        let limit = deadline(request.headers(), self.call_timeout);
        let Ok(_permit) = self.calls.clone().try_acquire_owned() else {
            return Ok(self.refuse(Fault::Overloaded { retry_after: self.retry_after }));
        };
        let caller = match tokio::time::timeout(limit, self.keys.caller(request.headers())).await {
            Ok(Ok(caller)) => caller,
            Ok(Err(fault)) => return Ok(self.refuse(fault)),
            Err(_) => return Ok(self.refuse(Fault::DeadlineExceeded)),
        };
        request.extensions_mut().insert(caller);
        if STREAMS.contains(&request.uri().path()) {
            return inner.call(request).await;
        }
        match tokio::time::timeout(limit, inner.call(request)).await {
            Ok(answer) => {
                if let Ok(response) = &answer {
                    self.count(response);
                }
                answer
            }
            Err(_) => Ok(self.refuse(Fault::DeadlineExceeded)),
        }
    }

    fn refuse(&self, fault: Fault) -> Response<Body> {
        let response = Status::from(fault).into_http();
        self.count(&response);
        response
    }

    /// Every refusal is counted here, whichever handler made it.
    fn count(&self, response: &Response<Body>) {
        let Some(status) = response.extensions().get::<Status>() else { return };
        use tonic_types::StatusExt;
        let reason = status.get_details_error_info().map_or_else(String::new, |info| info.reason);
        let known = proto::v1::ErrorReason::from_str_name(&format!("ERROR_REASON_{reason}"));
        let reason = known.map_or("OTHER", reason_name);
        self.metrics.count_refusal(reason);
    }
}

/// The caller's `grpc-timeout`, less a margin, but never more than the server's own limit.
fn deadline(headers: &HeaderMap, most: Duration) -> Duration {
    let asked = headers.get("grpc-timeout").and_then(|value| value.to_str().ok()).and_then(grpc_timeout);
    let Some(asked) = asked else { return most };
    asked.saturating_sub(MARGIN.min(asked / 10)).min(most)
}

/// Up to 8 digits and a unit, as the gRPC protocol writes a time-out.
fn grpc_timeout(text: &str) -> Option<Duration> {
    let unit = text.chars().last().filter(char::is_ascii)?;
    let digits = &text[..text.len() - 1];
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    match unit {
        'H' => Some(Duration::from_secs(count * 3600)),
        'M' => Some(Duration::from_secs(count * 60)),
        'S' => Some(Duration::from_secs(count)),
        'm' => Some(Duration::from_millis(count)),
        'u' => Some(Duration::from_micros(count)),
        'n' => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_the_callers_but_never_above_the_servers() {
        let with = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-timeout", http::HeaderValue::from_static(value));
            deadline(&headers, Duration::from_secs(30))
        };
        assert_eq!(with("99999999H"), Duration::from_secs(30));
        assert_eq!(with("1S"), Duration::from_millis(990));
        assert_eq!(with("50m"), Duration::from_millis(45));
        assert_eq!(with("0n"), Duration::ZERO);
        for bad in ["", "S", "-1S", "123456789S", "1x", "1.5S"] {
            assert_eq!(with(bad), Duration::from_secs(30), "{bad}");
        }
    }
}
