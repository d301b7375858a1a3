//! Traces, told over OTLP: one message is one trace, from the call that brought it to the reply of its receiver.
//!
//! A trace begins at the API (its caller's, if that sends a `traceparent`). It is sampled there, once: what is not
//! sampled costs the steps behind nothing, not even an allocation. A message that is sampled carries its context
//! ([`TraceContext`]) in its row and in the jobs of the bus, and each step is a span beneath the one before. A message
//! that waited (scheduled, put off, in a backlog) goes on in a trace of its own, which is linked to the call's: tools
//! expect a trace to be over within minutes.
//!
//! What fails is told whether it is sampled or not, up to [`TraceConfig::failures`] of a process. No span holds an
//! address, a subject or a body.

use crate::config::TraceConfig;
use domain::{Gcra, Rate, TraceContext};
pub use opentelemetry::Value;
use opentelemetry::{
    Context, InstrumentationScope, KeyValue, SpanId, TraceFlags, TraceId,
    trace::{
        Link, Span as _, SpanContext, SpanKind, Status, TraceContextExt, TraceState, Tracer as _, TracerProvider as _,
    },
};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{
        BatchConfigBuilder, BatchSpanProcessor, Sampler, SamplingDecision, SamplingResult, SdkTracer,
        SdkTracerProvider, ShouldSample, SpanData, SpanExporter as Exporter, SpanLimits,
    },
};
use std::{
    borrow::Cow,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};
use tracing::Subscriber;
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::{Layer, filter::filter_fn, registry::LookupSpan};

/// The target of the spans of `tracing` that are told; all others are for the logs alone.
const CALLS: &str = "mailfleet::call";
/// Present on what failed from its beginning (OpenTelemetry, general attributes).
const ERROR_TYPE: &str = "error.type";
/// Attributes of one span.
const MAX_ATTRIBUTES: u32 = 32;

/// The one of this process.
static TRACER: OnceLock<Live> = OnceLock::new();

struct Live {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
    messages_per_call: usize,
}

/// What a span stands for (OpenTelemetry, SpanKind).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A call that came in.
    Server,
    /// Work handed on.
    Producer,
    /// Work taken.
    Consumer,
    /// A call that went out.
    Client,
    /// A step within.
    Internal,
}

impl From<Kind> for SpanKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Server => Self::Server,
            Kind::Producer => Self::Producer,
            Kind::Consumer => Self::Consumer,
            Kind::Client => Self::Client,
            Kind::Internal => Self::Internal,
        }
    }
}

/// Begins to tell traces of this process, within a runtime. A process that does already, as in tests, keeps on.
///
/// # Errors
/// When the endpoint cannot be understood. One that does not answer is no error: mail goes on without it.
pub fn install(service: &'static str, config: &TraceConfig) -> Result<(), ExporterBuildError> {
    if config.endpoint.is_empty() || TRACER.get().is_some() {
        return Ok(());
    }
    let exporter = SpanExporter::builder()
        .with_tonic()
        .with_endpoint(config.endpoint.as_str())
        .with_timeout(config.timeout)
        .build()?;
    let batch = BatchConfigBuilder::default()
        .with_max_queue_size(config.queue.get())
        .with_max_export_batch_size(config.queue.get().min(512))
        .with_scheduled_delay(config.delay)
        .build();
    let sampler = KeepFailures::new(config.ratio, config.failures);
    let provider = SdkTracerProvider::builder()
        .with_span_processor(BatchSpanProcessor::builder(Watched::new(exporter)).with_batch_config(batch).build())
        .with_sampler(Box::new(sampler) as Box<dyn ShouldSample>)
        .with_span_limits(SpanLimits { max_attributes_per_span: MAX_ATTRIBUTES, ..SpanLimits::default() })
        .with_resource(resource(service))
        .build();
    let scope = InstrumentationScope::builder("mailfleet").with_version(env!("CARGO_PKG_VERSION")).build();
    let tracer = provider.tracer_with_scope(scope);
    // Another thread may have been first; its own is as good.
    let _first = TRACER.set(Live { provider, tracer, messages_per_call: config.messages_per_call });
    Ok(())
}

/// Spans that the collector has taken, and those that it has not and that are lost.
static SPANS: (AtomicU64, AtomicU64) = (AtomicU64::new(0), AtomicU64::new(0));

/// How many spans of this process the collector has taken, and how many it has not; `None` when traces are off.
pub(crate) fn spans() -> Option<(u64, u64)> {
    is_on().then(|| (SPANS.0.load(Ordering::Relaxed), SPANS.1.load(Ordering::Relaxed)))
}

/// An exporter that says when the collector ceases to take spans, and when it takes them again.
#[derive(Debug)]
struct Watched<E> {
    inner: E,
    is_failing: AtomicBool,
}

impl<E> Watched<E> {
    fn new(inner: E) -> Self {
        Self { inner, is_failing: AtomicBool::new(false) }
    }
}

impl<E: Exporter> Exporter for Watched<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = u64::try_from(batch.len()).unwrap_or(u64::MAX);
        let result = self.inner.export(batch).await;
        match &result {
            Ok(()) => {
                SPANS.0.fetch_add(spans, Ordering::Relaxed);
                if self.is_failing.swap(false, Ordering::Relaxed) {
                    tracing::info!("the collector of traces takes spans again");
                }
            }
            Err(error) => {
                SPANS.1.fetch_add(spans, Ordering::Relaxed);
                if !self.is_failing.swap(true, Ordering::Relaxed) {
                    tracing::warn!(%error, "the collector of traces takes no spans; they are lost until it does");
                }
            }
        }
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

/// Who tells. `OTEL_RESOURCE_ATTRIBUTES` adds to it.
fn resource(service: &'static str) -> Resource {
    let instance = format!("{}-{}", crate::env::var("HOSTNAME").unwrap_or_default(), std::process::id());
    Resource::builder()
        .with_service_name(format!("mailfleet-{service}"))
        .with_attributes([
            KeyValue::new("service.namespace", "mailfleet"),
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("service.instance.id", instance),
        ])
        .build()
}

/// Sends what is left, and stops; within `limit`. Blocks.
pub fn finish(limit: Duration) {
    if let Some(live) = TRACER.get()
        && let Err(error) = live.provider.shutdown_with_timeout(limit)
    {
        tracing::warn!(%error, "cannot send the last spans");
    }
}

/// Sends what there is; for tests. Blocks.
pub fn flush() {
    if let Some(live) = TRACER.get() {
        // What cannot be sent now is tried again, or missed by the test.
        let _unsent = live.provider.force_flush();
    }
}

/// Whether traces are told at all.
pub fn is_on() -> bool {
    TRACER.get().is_some()
}

/// Of how many of a call's messages each step is told; see [`TraceConfig::messages_per_call`].
pub fn messages_per_call() -> usize {
    TRACER.get().map_or(0, |live| live.messages_per_call)
}

/// Tells the spans of `tracing` that stand for calls.
pub fn layer<S: Subscriber + for<'a> LookupSpan<'a>>() -> Option<impl Layer<S>> {
    let live = TRACER.get()?;
    let layer = tracing_opentelemetry::layer()
        .with_tracer(live.tracer.clone())
        .with_location(false)
        .with_threads(false)
        .with_target(false)
        .with_level(false)
        .with_tracked_inactivity(false);
    Some(layer.with_filter(filter_fn(|metadata| metadata.is_span() && metadata.target() == CALLS)))
}

/// The span of a call of the API under its caller's context; its logs carry its trace. Nothing, when traces are off.
pub fn call(method: &str, parent: Option<&TraceContext>) -> tracing::Span {
    if !is_on() {
        return tracing::Span::none();
    }
    let span = tracing::info_span!(
        target: CALLS,
        "call",
        otel.name = method,
        otel.kind = "server",
        rpc.system.name = "grpc",
        rpc.method = method,
        rpc.response.status_code = tracing::field::Empty,
        error.type = tracing::field::Empty,
        otel.status_code = tracing::field::Empty,
        trace_id = tracing::field::Empty,
    );
    if let Some(parent) = parent
        && let Err(error) = span.set_parent(remote(parent))
    {
        tracing::debug!(%error, "a call cannot be told beneath its caller");
    }
    if let Some(context) = context_of(&span) {
        span.record("trace_id", context.trace_id());
    }
    span
}

/// The place of a call in its trace; `None` when traces are off.
pub fn context_of(span: &tracing::Span) -> Option<TraceContext> {
    if !is_on() {
        return None;
    }
    let context = span.context();
    place(context.span().span_context())
}

fn place(context: &SpanContext) -> Option<TraceContext> {
    TraceContext::new(context.trace_id().to_bytes(), context.span_id().to_bytes(), context.is_sampled())
}

fn other(place: &TraceContext) -> SpanContext {
    let flags = if place.is_sampled() { TraceFlags::SAMPLED } else { TraceFlags::NOT_SAMPLED };
    let (trace, span) = (TraceId::from_bytes(place.trace()), SpanId::from_bytes(place.span()));
    SpanContext::new(trace, span, flags, true, TraceState::NONE)
}

fn remote(place: &TraceContext) -> Context {
    Context::new().with_remote_span_context(other(place))
}

/// A step of a message; ends when it is dropped.
#[derive(Debug)]
pub struct Span(State);

#[derive(Debug)]
enum State {
    /// Nobody is told anything.
    Off,
    /// It is sampled.
    Told(Box<opentelemetry_sdk::trace::Span>),
    /// It is told only if it fails.
    Quiet { name: &'static str, kind: Kind, origin: Option<Origin>, begun: Instant },
}

/// What it is beneath, or after.
#[derive(Clone, Copy, Debug)]
pub enum Origin {
    /// It goes on from there at once.
    Child(TraceContext),
    /// It goes on after a wait, in a trace of its own that is linked to that one.
    After(TraceContext),
}

impl Origin {
    const fn place(&self) -> &TraceContext {
        match self {
            Self::Child(place) | Self::After(place) => place,
        }
    }
}

/// Begins a span. Unless what it goes on from is sampled, it is told only if it fails.
pub fn step(name: &'static str, kind: Kind, origin: Option<Origin>) -> Span {
    Span(match TRACER.get() {
        None => State::Off,
        Some(live) if origin.is_some_and(|origin| origin.place().is_sampled()) => {
            State::Told(Box::new(build(live, name.into(), kind, origin, None, Vec::new())))
        }
        Some(_) => State::Quiet { name, kind, origin, begun: Instant::now() },
    })
}

/// Tells of a step that failed although nobody sampled it, at its end.
pub fn failure(
    name: impl Into<Cow<'static, str>>,
    kind: Kind,
    origin: Option<Origin>,
    begun: Instant,
    error_type: &str,
    attributes: impl IntoIterator<Item = (&'static str, Value)>,
) {
    let Some(live) = TRACER.get() else { return };
    let attributes = attributes.into_iter().map(|(key, value)| KeyValue::new(key, value));
    let error_type = KeyValue::new(ERROR_TYPE, error_type.to_owned());
    let begun = SystemTime::now().checked_sub(begun.elapsed());
    let mut span =
        build(live, name.into(), kind, origin, begun, std::iter::once(error_type).chain(attributes).collect());
    span.set_status(Status::error(""));
}

fn build(
    live: &Live,
    name: Cow<'static, str>,
    kind: Kind,
    origin: Option<Origin>,
    begun: Option<SystemTime>,
    attributes: Vec<KeyValue>,
) -> opentelemetry_sdk::trace::Span {
    let mut builder = live.tracer.span_builder(name).with_kind(kind.into()).with_attributes(attributes);
    builder.start_time = begun;
    let parent = match origin {
        Some(Origin::Child(place)) => remote(&place),
        Some(Origin::After(place)) => {
            builder = builder.with_links(vec![Link::with_context(other(&place))]);
            Context::new()
        }
        None => Context::new(),
    };
    live.tracer.build_with_context(builder, &parent)
}

/// What a span notes.
pub type Notes = Vec<(&'static str, Value)>;

impl Span {
    /// Where the next step goes on from; `None` when this one is not told.
    pub fn place(&self) -> Option<TraceContext> {
        match &self.0 {
            State::Told(span) => place(span.span_context()),
            State::Off | State::Quiet { .. } => None,
        }
    }

    /// Notes something; `notes` is not asked when nobody is told.
    pub fn note(&mut self, notes: impl FnOnce() -> Notes) {
        if let State::Told(span) = &mut self.0 {
            span.set_attributes(notes().into_iter().map(|(key, value)| KeyValue::new(key, value)));
        }
    }

    /// Notes that it failed, which is told also when nobody samples it.
    pub fn fail(&mut self, error_type: &str, notes: impl FnOnce() -> Notes) {
        match std::mem::replace(&mut self.0, State::Off) {
            State::Off => {}
            State::Told(mut span) => {
                span.set_attribute(KeyValue::new(ERROR_TYPE, error_type.to_owned()));
                span.set_status(Status::error(""));
                self.0 = State::Told(span);
                self.note(notes);
            }
            State::Quiet { name, kind, origin, begun } => failure(name, kind, origin, begun, error_type, notes()),
        }
    }
}

/// Samples a share of the traces that begin here, whatever its parent or link sampled, and what has failed.
#[derive(Clone, Debug)]
struct KeepFailures {
    share: Sampler,
    failures: Arc<Mutex<Gcra>>,
    begun: Instant,
}

impl KeepFailures {
    fn new(ratio: f64, failures: Rate) -> Self {
        let burst = failures.per_second().ceil() as u32;
        let failures = Arc::new(Mutex::new(Gcra::new(failures, burst.max(1))));
        Self { share: Sampler::TraceIdRatioBased(ratio), failures, begun: Instant::now() }
    }
}

impl ShouldSample for KeepFailures {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace: TraceId,
        name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        let parent =
            parent.filter(|context| context.has_active_span()).map(|context| context.span().span_context().clone());
        let decided = parent.as_ref().is_some_and(SpanContext::is_sampled)
            || links.iter().any(|link| link.span_context.is_sampled());
        let failed = || attributes.iter().any(|attribute| attribute.key.as_str() == ERROR_TYPE);
        let decision = if decided {
            SamplingDecision::RecordAndSample
        } else if failed() {
            let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
            if failures.take(self.begun.elapsed()) { SamplingDecision::RecordAndSample } else { SamplingDecision::Drop }
        } else if parent.is_some() {
            SamplingDecision::Drop
        } else {
            return self.share.should_sample(None, trace, name, kind, attributes, links);
        };
        let trace_state = parent.map(|parent| parent.trace_state().clone()).unwrap_or_default();
        SamplingResult { decision, attributes: Vec::new(), trace_state }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn decide(sampler: &KeepFailures, parent: Option<bool>, failed: bool) -> bool {
        let parent = parent.map(|sampled| remote(&TraceContext::new([1; 16], [1; 8], sampled).unwrap()));
        let attributes: Vec<KeyValue> = failed.then(|| KeyValue::new(ERROR_TYPE, "550")).into_iter().collect();
        let (trace, kind) = (TraceId::from_bytes([1; 16]), SpanKind::Internal);
        let result = sampler.should_sample(parent.as_ref(), trace, "smtp", &kind, &attributes, &[]);
        result.decision == SamplingDecision::RecordAndSample
    }

    #[test]
    fn a_parents_decision_holds_and_failures_are_told_all_the_same_up_to_a_rate() {
        let none = KeepFailures::new(0.0, "2/day".parse().unwrap());
        assert!(decide(&none, Some(true), false));
        assert!(!decide(&none, Some(false), false) && !decide(&none, None, false));
        assert!(decide(&none, None, true));
        assert!(!decide(&none, Some(false), true), "the burst is used up");
        assert!(decide(&none, Some(true), true), "what is sampled is not counted");
        let all = KeepFailures::new(1.0, "2/day".parse().unwrap());
        assert!(decide(&all, None, false) && !decide(&all, Some(false), false));
    }

    #[test]
    fn what_nobody_samples_is_no_span() {
        let quiet = TraceContext::new([1; 16], [1; 8], false).unwrap();
        let mut span = step("smtp", Kind::Client, Some(Origin::Child(quiet)));
        span.note(|| panic!("is not asked for"));
        assert_eq!(span.place(), None);
    }
}
