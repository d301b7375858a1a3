//! Pulling chunks: a loop that outlives consumers, streams, connections and brokers.

use crate::{Bus, DecodeError, Payload, RenderChunk, SendChunk, Stage, WorkSubject, publish, topology};
use async_nats::jetstream::{
    self, AckKind,
    consumer::{PullConsumer, pull},
    message::Acker,
};
use domain::{Lane, Shard};
use failpoint::{Fault, Faults};
use futures_util::StreamExt;
use std::{marker::PhantomData, time::Duration};
use tokio::time::Instant;

/// Deliveries after which a chunk is thrown away instead. A work queue without a limit would hand a chunk that kills
/// whoever takes it to one after the other, long after its messages have been repaired or closed. High enough to
/// outlast the time after which its members are repaired anyway.
const MOST_DELIVERIES: u64 = 20;

/// Chunks of one consumer, one after the other, for as long as it is asked.
///
/// [`Puller::next`] returns chunks only. When the stream or its consumer is gone, as after a restart of the
/// broker, it tries again with growing pauses until the topology is back. It may be cancelled at any time
/// without losing a chunk; what lies in this process when a `Puller` is dropped comes again after `ack_wait`.
pub struct Puller<P> {
    bus: Bus,
    stream: String,
    consumer: String,
    pull: Option<pull::Stream>,
    /// When it was built.
    built: Instant,
    /// Tries since the last sign of life.
    attempt: usize,
    /// When the next try may begin.
    not_before: Option<Instant>,
    /// What a fault brings a second time.
    again: Option<jetstream::Message>,
    payload: PhantomData<fn() -> P>,
}

/// A chunk, and the means to tell the broker what became of it.
#[derive(Debug)]
pub struct Delivery<P: Payload> {
    /// What it holds.
    pub payload: P,
    /// Where it came along.
    pub subject: P::Subject,
    /// How many times the broker has delivered it, this time included.
    pub delivered: u64,
    /// When it reached this process.
    pub received: Instant,
    /// For the answer. Dropped without one, the chunk comes again after `ack_wait`.
    pub handle: AckHandle,
}

/// For the answer to one delivery.
pub struct AckHandle {
    acker: Acker,
    faults: Option<Faults>,
}

/// The answer could not be handed over: the client has been closed.
#[derive(Debug, thiserror::Error)]
#[error("cannot answer a delivery")]
pub struct AckError(#[source] Box<dyn std::error::Error + Send + Sync>);

impl AckHandle {
    /// Every member has been claimed, parked or refused. Handed over, not confirmed: a lost acknowledgement
    /// brings the chunk again, and the claim drops it.
    ///
    /// # Errors
    /// When the client has been closed.
    pub async fn ack(self) -> Result<(), AckError> {
        self.answer(AckKind::Ack).await
    }

    /// Not here, not now: again after `delay`, perhaps to somebody else. For seconds, never for retries of
    /// mail, whose times are kept in Postgres.
    ///
    /// # Errors
    /// When the client has been closed.
    pub async fn nak(self, delay: Duration) -> Result<(), AckError> {
        self.answer(AckKind::Nak(Some(delay))).await
    }

    /// Never again, for a reason that is logged. What its members are waiting for is repair.
    ///
    /// # Errors
    /// When the client has been closed.
    pub async fn term(self, reason: &'static str) -> Result<(), AckError> {
        tracing::warn!(reason, "threw away a chunk");
        self.answer(AckKind::Term).await
    }

    async fn answer(&self, kind: AckKind) -> Result<(), AckError> {
        let fault = self.faults.as_ref().and_then(Faults::next);
        if fault == Some(Fault::Before) {
            return Err(AckError(Injected.into()));
        }
        self.acker.ack_with(kind).await.map_err(AckError)?;
        match fault {
            Some(Fault::After) => Err(AckError(Injected.into())),
            Some(Fault::Twice) => self.acker.ack_with(kind).await.map_err(AckError),
            Some(Fault::Before) | None => Ok(()),
        }
    }
}

impl std::fmt::Debug for AckHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AckHandle").finish_non_exhaustive()
    }
}

impl<P> std::fmt::Debug for Puller<P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { stream, consumer, attempt, .. } = self;
        f.debug_struct("Puller")
            .field("stream", stream)
            .field("consumer", consumer)
            .field("attempt", attempt)
            .finish_non_exhaustive()
    }
}

impl<P: Payload> Delivery<P> {
    /// See [`AckHandle::ack`].
    ///
    /// # Errors
    /// When the client has been closed.
    pub async fn ack(self) -> Result<(), AckError> {
        self.handle.ack().await
    }

    /// See [`AckHandle::nak`].
    ///
    /// # Errors
    /// When the client has been closed.
    pub async fn nak(self, delay: Duration) -> Result<(), AckError> {
        self.handle.nak(delay).await
    }

    /// See [`AckHandle::term`].
    ///
    /// # Errors
    /// When the client has been closed.
    pub async fn term(self, reason: &'static str) -> Result<(), AckError> {
        self.handle.term(reason).await
    }
}

impl Bus {
    /// The chunks of a lane for renderers; all renderers share them.
    pub fn render_jobs(&self, lane: Lane) -> Puller<RenderChunk> {
        let stream = topology::stream_name(self.prefix(), Stage::Render, lane);
        Puller::new(self.clone(), stream, topology::RENDER_CONSUMER.to_owned())
    }

    /// The chunks of a lane and shard, for the sender that owns the shard.
    pub fn send_jobs(&self, lane: Lane, shard: Shard) -> Puller<SendChunk> {
        let stream = topology::stream_name(self.prefix(), Stage::Send, lane);
        Puller::new(self.clone(), stream, topology::shard_consumer(shard))
    }
}

impl<P: Payload> Puller<P> {
    fn new(bus: Bus, stream: String, consumer: String) -> Self {
        Self {
            bus,
            stream,
            consumer,
            pull: None,
            built: Instant::now(),
            attempt: 0,
            not_before: None,
            again: None,
            payload: PhantomData,
        }
    }

    /// The next chunk, however long it takes.
    pub async fn next(&mut self) -> Delivery<P> {
        loop {
            let message = self.message().await;
            let stats = self.bus.stats();
            match self.read(&message) {
                Ok((payload, subject)) => {
                    let delivered = message.info().map_or(1, |info| u64::try_from(info.delivered).unwrap_or(1));
                    if delivered > MOST_DELIVERIES {
                        tracing::warn!(
                            stream = self.stream,
                            delivered,
                            "threw away a chunk that came too often; it is repaired"
                        );
                        let _lost = message.ack_with(AckKind::Term).await;
                        continue;
                    }
                    stats.delivered.inc();
                    if delivered > 1 {
                        stats.redelivered.inc();
                    }
                    let (_, acker) = message.split();
                    let handle = AckHandle { acker, faults: self.bus.inner.config.faults.clone() };
                    return Delivery { payload, subject, delivered, received: Instant::now(), handle };
                }
                Err(error) => {
                    stats.undecodable.inc();
                    throw_away(&self.stream, &error);
                    // Lost with the client, or not at all; then it comes again and ends here again.
                    let _lost = message.ack_with(AckKind::Term).await;
                }
            }
        }
    }

    fn read(&self, message: &jetstream::Message) -> Result<(P, P::Subject), DecodeError> {
        let header = |name: &str| message.headers.as_ref().and_then(|headers| headers.get(name));
        if header(publish::KIND).is_none_or(|kind| kind.as_str() != P::KIND) {
            return Err(DecodeError::Kind);
        }
        let version = header(publish::VERSION).and_then(|version| version.as_str().parse().ok());
        let found = version.ok_or(DecodeError::Kind)?;
        if found > P::VERSION {
            return Err(DecodeError::Newer { found, known: P::VERSION });
        }
        let subject = P::Subject::parse(self.bus.prefix(), &message.subject)?;
        Ok((P::decode(found, &message.payload)?, subject))
    }

    /// The next message of the pull, which is built anew as often as it breaks.
    async fn message(&mut self) -> jetstream::Message {
        loop {
            if let Some(message) = self.again.take() {
                return message;
            }
            if let Some(until) = self.not_before {
                tokio::time::sleep_until(until).await;
                self.not_before = None;
            }
            let Some(pull) = &mut self.pull else {
                match self.build().await {
                    Ok(pull) => {
                        if self.attempt > 0 {
                            tracing::info!(stream = self.stream, consumer = self.consumer, "pulls again");
                        }
                        self.pull = Some(pull);
                        self.built = Instant::now();
                    }
                    Err(error) => self.lost(&error),
                }
                continue;
            };
            match pull.next().await {
                Some(Ok(message)) => {
                    self.attempt = 0;
                    match self.bus.inner.config.faults.as_ref().and_then(Faults::next) {
                        None => return message,
                        Some(Fault::Before) => self.lost(&Injected),
                        // Lost between the socket and the caller: it comes again after `ack_wait`.
                        Some(Fault::After) => {}
                        Some(Fault::Twice) => {
                            self.again = Some(message.clone());
                            return message;
                        }
                    }
                }
                Some(Err(error)) => self.lost(&error),
                None => self.lost(&Ended),
            }
        }
    }

    /// Counts a loss and sets the pause before the next try. Errors of a pull are not told apart: whatever
    /// it was, a pull that is built from the consumer's own state is right again.
    fn lost(&mut self, error: &(dyn std::error::Error + 'static)) {
        // A pull that stood for a while was sound: what broke it is a new loss.
        if self.pull.take().is_some() && self.built.elapsed() > 2 * self.bus.config().backoff_max {
            self.attempt = 0;
        }
        let pause = self.bus.config().backoff(self.attempt);
        // Once when it happens, not at every try while the broker is away.
        if self.attempt == 0 {
            let pause_ms = pause.as_millis();
            tracing::warn!(stream = self.stream, consumer = self.consumer, error, pause_ms, "lost a pull");
        }
        self.bus.stats().rebuilt.inc();
        self.attempt += 1;
        self.not_before = Some(Instant::now() + pause);
    }

    async fn build(&self) -> Result<pull::Stream, BuildError> {
        let config = self.bus.config();
        let consumer: PullConsumer = self.bus.inner.api.get_consumer_from_stream(&self.consumer, &self.stream).await?;
        let stream = consumer
            .stream()
            .max_messages_per_batch(config.pull_batch.max(1))
            .expires(config.pull_expires)
            .heartbeat(config.pull_heartbeat)
            .messages()
            .await?;
        Ok(stream)
    }
}

/// Without its source: a decoder's error may quote what it could not read, and that is somebody's mail.
fn throw_away(stream: &str, error: &DecodeError) {
    tracing::warn!(stream, %error, "threw away a chunk that could not be read");
}

#[derive(Debug, thiserror::Error)]
#[error("the pull ended")]
struct Ended;

#[derive(Debug, thiserror::Error)]
#[error("a fault that a test asked for")]
struct Injected;

#[derive(Debug, thiserror::Error)]
enum BuildError {
    #[error(transparent)]
    Consumer(#[from] async_nats::jetstream::stream::ConsumerError),
    #[error(transparent)]
    Stream(#[from] async_nats::jetstream::consumer::StreamError),
}
