//! One message is one trace, at a collector that speaks OTLP.

use domain::{Lane, TraceContext};
use hyper_util::rt::TokioExecutor;
use mailfleet_tests::{Fleet, Kind, Post, mail, reason};
use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::any_value::Value,
    trace::v1::{Span, status::StatusCode},
};
use proto::v1::{MessageState, mail_service_client::MailServiceClient};
use service::{TraceConfig, trace};
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};
use testkit::{Fault, LIMIT, eventually};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Code, Request, Response, Status};
use tracing_subscriber::{layer::SubscriberExt, util::SubscriberInitExt};

const MINUTE: Duration = Duration::from_secs(60);

/// What it was told.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<Span>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let resources = request.into_inner().resource_spans;
        let spans = resources.into_iter().flat_map(|one| one.scope_spans).flat_map(|one| one.spans);
        self.0.lock().unwrap().extend(spans);
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    /// A fleet whose traces come here; what nobody samples is not told, but for what fails.
    async fn with_fleet() -> (Self, Fleet) {
        let collector = Self::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let server = tonic::transport::Server::builder().add_service(TraceServiceServer::new(collector.clone()));
        serve(server.serve_with_incoming(TcpListenerStream::new(listener)));
        tell(endpoint);
        (collector, Fleet::start().await)
    }

    fn of(&self, trace: &str) -> Vec<Span> {
        let spans = self.0.lock().unwrap();
        spans.iter().filter(|span| hex(&span.trace_id) == trace).cloned().collect()
    }

    /// Waits until it knows enough of a trace.
    async fn wait(&self, trace: &str, enough: impl Fn(&[Span]) -> bool) -> Vec<Span> {
        let found = eventually(LIMIT, async || Some(self.of(trace)).filter(|spans| enough(spans))).await;
        found.unwrap_or_else(|| panic!("the collector was told {:#?}", names(&self.0.lock().unwrap())))
    }

    /// Nothing that names a person is in what it was told.
    fn assert_discreet(&self, secrets: &[&str]) {
        let told = format!("{:?}", self.0.lock().unwrap());
        for secret in secrets {
            assert!(!told.contains(secret), "a span holds {secret}");
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "it ends with the test's runtime")]
fn serve(server: impl Future<Output = Result<(), tonic::transport::Error>> + Send + 'static) {
    tokio::spawn(server);
}

fn tell(endpoint: String) {
    let config = TraceConfig { endpoint, ratio: 0.0, delay: Duration::from_millis(100), ..TraceConfig::default() };
    trace::install("fleet", &config).unwrap();
    // Another test of this process may have been first.
    let _first = tracing_subscriber::registry().with(trace::layer()).try_init();
}

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

fn names(spans: &[Span]) -> Vec<&str> {
    let mut names: Vec<&str> = spans.iter().map(|span| span.name.as_str()).collect();
    names.sort_unstable();
    names
}

fn named<'a>(spans: &'a [Span], name: &str) -> &'a Span {
    spans.iter().find(|span| span.name == name).unwrap_or_else(|| panic!("no {name} in {:?}", names(spans)))
}

fn attribute(span: &Span, key: &str) -> Option<String> {
    let value = span.attributes.iter().find(|one| one.key == key)?.value.clone()?.value?;
    match value {
        Value::StringValue(text) => Some(text),
        Value::IntValue(number) => Some(number.to_string()),
        _ => None,
    }
}

fn place(trace: u8, sampled: bool) -> TraceContext {
    TraceContext::new([trace; 16], [9; 8], sampled).unwrap()
}

/// Sends under this place of a caller's trace.
async fn submit(fleet: &Fleet, post: Post, place: TraceContext) -> domain::MessageId {
    let mut request = Request::new(post.message());
    request.metadata_mut().insert("traceparent", place.to_string().parse().unwrap());
    let sent = fleet.mails().send_message(request).await.unwrap().into_inner();
    fleet.know(&sent.message_ids)[0]
}

#[tokio::test]
async fn a_message_is_one_trace_from_the_call_to_the_receivers_reply() {
    let (collector, fleet) = Collector::with_fleet().await;
    for (trace, lane, steps) in [
        (1, Lane::Transactional, vec!["accept", "render", "smtp", "record"]),
        (2, Lane::Bulk, vec!["accept", "release", "render", "smtp", "record"]),
    ] {
        let caller = place(trace, true);
        let post = mail().lane(lane).to("ada.lovelace@receiver.test");
        let id = submit(&fleet, post, caller).await;
        let seen = fleet.ended(id).await;
        assert_eq!((seen.state(), seen.trace_id.as_str()), (MessageState::Delivered, caller.trace_id().as_str()));
        let spans = collector.wait(&caller.trace_id(), |spans| spans.len() > steps.len()).await;
        let call = named(&spans, "mailfleet.v1.MailService/SendMessage");
        assert_eq!(hex(&call.parent_span_id), hex(&caller.span()));
        assert_eq!(attribute(call, "rpc.response.status_code").as_deref(), Some("OK"));
        let mut parent = call;
        for step in &steps {
            let span = named(&spans, step);
            assert_eq!(hex(&span.parent_span_id), hex(&parent.span_id), "{step} goes on from {}", parent.name);
            assert!(span.start_time_unix_nano >= parent.start_time_unix_nano);
            parent = span;
        }
        let attempt = named(&spans, "smtp");
        assert_eq!(attribute(attempt, "smtp.reply_code").as_deref(), Some("250"));
        assert_eq!(attribute(attempt, "messaging.message.id"), Some(id.to_string()));
        assert_eq!(spans.len(), steps.len() + 1, "{:?}", names(&spans));
    }
    collector.assert_discreet(&["lovelace", "Hello"]);
}

#[tokio::test]
async fn what_waited_goes_on_in_a_trace_that_is_linked() {
    let (collector, fleet) = Collector::with_fleet().await;
    let caller = place(3, true);
    let id = submit(&fleet, mail().to("greylist-once@receiver.test"), caller).await;
    let spans = collector.wait(&caller.trace_id(), |spans| spans.iter().any(|span| span.name == "record")).await;
    let first = named(&spans, "smtp");
    assert_eq!(attribute(first, "mailfleet.outcome").as_deref(), Some("deferred"));
    assert_eq!(first.status.as_ref().unwrap().code(), StatusCode::Error);
    fleet.clock.advance(MINUTE).await;
    assert_eq!(fleet.ended(id).await.state(), MessageState::Delivered);
    let accept = named(&spans, "accept").span_id.clone();
    // The jump of the clock may make a release look lost: then there are two.
    let again = eventually(LIMIT, async || {
        let all = collector.0.lock().unwrap().clone();
        let after = all.iter().filter(|span| span.links.iter().any(|link| link.span_id == accept));
        let mut traces = after.map(|span| collector.of(&hex(&span.trace_id)));
        traces.find(|spans| spans.iter().any(|span| span.name == "record"))
    });
    let spans = again.await.expect("a trace that is linked to where the message came from");
    let release = named(&spans, "release");
    assert_eq!(hex(&release.links[0].trace_id), caller.trace_id());
    assert_ne!(hex(&release.trace_id), caller.trace_id());
    assert_eq!(names(&spans), ["record", "release", "render", "smtp"]);
    assert_eq!(attribute(named(&spans, "smtp"), "mailfleet.attempt").as_deref(), Some("2"));
}

#[tokio::test]
async fn failures_are_told_although_nobody_samples_them_and_nothing_else_is() {
    let (collector, fleet) = Collector::with_fleet().await;
    let quiet = place(4, false);
    let good = submit(&fleet, mail().to("ada@receiver.test"), quiet).await;
    let bad = submit(&fleet, mail().to("unknown.zebedee@receiver.test"), quiet).await;
    // Of a call without a trace as well.
    let other = fleet.submit(mail().to("unknown.quentin@receiver.test")).await;
    for id in [good, bad, other] {
        fleet.ended(id).await;
    }
    let spans = collector.wait(&quiet.trace_id(), |spans| !spans.is_empty()).await;
    let told = |span: &Span| attribute(span, "messaging.message.id");
    assert_eq!(told(named(&spans, "smtp")), Some(bad.to_string()));
    assert_eq!(attribute(&spans[0], "error.type").as_deref(), Some("invalid_recipient"));
    let all = eventually(LIMIT, async || Some(collector.0.lock().unwrap().clone()).filter(|all| all.len() > 1)).await;
    let mut messages: Vec<_> = all.unwrap().iter().map(|span| (span.name.clone(), told(span))).collect();
    let mut expected = [bad, other].map(|id| ("smtp".to_owned(), Some(id.to_string())));
    messages.sort();
    expected.sort();
    assert_eq!(messages, expected);
    assert_eq!(fleet.get(good).await.trace_id, quiet.trace_id());
    assert_eq!(fleet.get(other).await.trace_id, "");
    collector.assert_discreet(&["zebedee", "quentin"]);
}

#[tokio::test]
async fn a_call_that_fails_here_is_told() {
    let (collector, mut fleet) = Collector::with_fleet().await;
    let postgres = fleet.before_postgres().await;
    fleet.crash("ingest").await;
    // The one fault is that of the proxy.
    fleet.settings.faults = None;
    fleet.launch_through(Kind::Ingest, "ingest", &postgres).await;
    fleet.submit(mail().to("ada@receiver.test")).await;
    postgres.set(Fault::Hold);
    let quiet = place(5, false);
    let mut request = Request::new(mail().to("bob@receiver.test").message());
    request.metadata_mut().insert("traceparent", quiet.to_string().parse().unwrap());
    request.metadata_mut().insert("authorization", format!("Bearer {}", fleet.key).parse().unwrap());
    request.set_timeout(Duration::from_secs(1));
    // The channel of tonic ends the call by a clock of its own, as CANCELLED, when this machine is busy.
    let patient = hyper_util::client::legacy::Client::builder(TokioExecutor::new()).http2_only(true).build_http();
    let mut mails = MailServiceClient::with_origin(patient, fleet.endpoint.parse().unwrap());
    let late = mails.send_message(request).await.unwrap_err();
    assert_eq!((late.code(), reason(&late).as_str()), (Code::DeadlineExceeded, "DEADLINE_EXCEEDED"));
    postgres.set(Fault::Nothing);
    let spans = collector.wait(&quiet.trace_id(), |spans| !spans.is_empty()).await;
    let call = named(&spans, "mailfleet.v1.MailService/SendMessage");
    assert_eq!(attribute(call, "error.type").as_deref(), Some("DEADLINE_EXCEEDED"));
}

#[tokio::test]
async fn mail_goes_on_without_the_collector_which_is_told() {
    // Nobody listens there.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    tell(format!("http://{}", listener.local_addr().unwrap()));
    drop(listener);
    let fleet = Fleet::start().await;
    for index in 0..50 {
        let id = submit(&fleet, mail().to(&format!("ada.{index}@receiver.test")), place(6, true)).await;
        assert_eq!(fleet.ended(id).await.state(), MessageState::Delivered);
    }
    let metrics = service::Metrics::new("fleet");
    let lost = eventually(LIMIT, async || {
        let text = metrics.encode();
        let line = text.lines().find_map(|line| line.strip_prefix("mailfleet_trace_spans_lost_total "))?;
        line.parse::<u64>().ok().filter(|lost| *lost > 0)
    });
    assert!(lost.await.is_some(), "that the collector is away is told nowhere");
}
