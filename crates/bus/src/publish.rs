//! Publishing: awaited, and with an answer to the one question that matters afterwards: is it there, is
//! it not, or is that unknown?

use crate::{Bus, MAX_CHUNK_BYTES, Payload, RenderChunk, RenderSubject, SendChunk, SendSubject, WorkSubject, subject};
use async_nats::{
    HeaderMap,
    header::NATS_MESSAGE_ID,
    jetstream::{
        self, ErrorCode,
        context::{self, PublishErrorKind},
    },
};
use bytes::Bytes;
use failpoint::{Fault, Faults};
use futures_util::{StreamExt, stream};
use std::error::Error;

/// Names the kind of payload.
pub(crate) const KIND: &str = "Mailfleet-Kind";
/// The version of the payload's shape.
pub(crate) const VERSION: &str = "Mailfleet-Version";
const CONTENT_TYPE: &str = "Content-Type";
const MESSAGEPACK: &str = "application/msgpack";

/// Why a chunk was not, or perhaps not, published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The stream, or the server's memory, is full. The rows go back and try again in a second.
    #[error("the broker has no room for the chunk")]
    Refused(#[source] jetstream::Error),
    /// No stream takes the subject: the broker has restarted and the topology is not yet back.
    #[error("no stream takes the chunk")]
    NoStream,
    /// There is no connection; nothing was sent.
    #[error("the broker cannot be reached")]
    Unreachable,
    /// No answer in time, or the connection broke meanwhile: the chunk may be there.
    #[error("the broker did not answer in time")]
    Timeout,
    /// The chunk is above the limit of a message.
    #[error("the chunk of {bytes} bytes is above the limit of a message")]
    TooLarge {
        /// The size of its body.
        bytes: usize,
    },
    /// The broker refused for another reason, or answered in a way that is not understood.
    #[error("the broker refused the chunk")]
    Failed(#[source] context::PublishError),
    /// The chunk cannot be written.
    #[error("cannot encode the chunk")]
    Encode(#[source] rmp_serde::encode::Error),
}

impl PublishError {
    /// Whether the chunk may have been published all the same. Its rows are then left to repair, which
    /// costs a rendering at most; all others are given back at once.
    pub fn is_unknown(&self) -> bool {
        match self {
            Self::Timeout => true,
            Self::Failed(error) => error.kind() == PublishErrorKind::BrokenPipe,
            Self::Refused(_) | Self::NoStream | Self::Unreachable | Self::TooLarge { .. } | Self::Encode(_) => false,
        }
    }

    /// Whether the same chunk can never be published.
    pub fn is_permanent(&self) -> bool {
        matches!(self, Self::TooLarge { .. } | Self::Encode(_))
    }

    fn of(error: context::PublishError, bytes: usize) -> Self {
        match error.kind() {
            PublishErrorKind::StreamNotFound => Self::NoStream,
            PublishErrorKind::TimedOut => Self::Timeout,
            PublishErrorKind::MaxPayloadExceeded => Self::TooLarge { bytes },
            PublishErrorKind::BrokenPipe
            | PublishErrorKind::MaxAckPending
            | PublishErrorKind::WrongLastMessageId
            | PublishErrorKind::WrongLastSequence => Self::Failed(error),
            PublishErrorKind::Other => match error.source().and_then(|source| source.downcast_ref()) {
                Some(answer) => Self::of_answer(answer, bytes).unwrap_or(Self::Failed(error)),
                None => Self::Failed(error),
            },
        }
    }

    fn of_answer(answer: &jetstream::Error, bytes: usize) -> Option<Self> {
        match answer.error_code() {
            // 10077 covers every limit of a stream that discards new messages.
            ErrorCode::STREAM_STORE_FAILED
            | ErrorCode::INSUFFICIENT_RESOURCES
            | ErrorCode::ACCOUNT_RESOURCES_EXCEEDED
            | ErrorCode::MEMORY_RESOURCES_EXCEEDED
            | ErrorCode::STORAGE_RESOURCES_EXCEEDED => Some(Self::Refused(answer.clone())),
            ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM => Some(Self::TooLarge { bytes }),
            ErrorCode::CLUSTER_NOT_AVAILABLE => Some(Self::Unreachable),
            // Too many publishes wait at the server (429, from 2.11).
            _ if answer.code() == 429 => Some(Self::Refused(answer.clone())),
            _ => None,
        }
    }
}

impl Bus {
    /// Publishes a chunk for the renderers and waits for the answer.
    ///
    /// # Errors
    /// See [`PublishError`]; ask [`PublishError::is_unknown`] what to do.
    pub async fn publish_render(&self, subject: &RenderSubject, chunk: &RenderChunk) -> Result<(), PublishError> {
        self.publish(subject, chunk).await
    }

    /// Publishes a chunk for the owner of its shard and waits for the answer.
    ///
    /// # Errors
    /// See [`PublishError`]; ask [`PublishError::is_unknown`] what to do.
    pub async fn publish_send(&self, subject: &SendSubject, chunk: &SendChunk) -> Result<(), PublishError> {
        self.publish(subject, chunk).await
    }

    /// Publishes many chunks, `in_flight` at a time; the results stand in the order of the chunks.
    pub async fn publish_all<P: Payload>(
        &self,
        chunks: &[(P::Subject, P)],
        in_flight: usize,
    ) -> Vec<Result<(), PublishError>> {
        // Built before the stream: a closure over references inside `map` is not general enough to be sent.
        let publishes: Vec<_> = chunks.iter().map(|(subject, chunk)| self.publish(subject, chunk)).collect();
        stream::iter(publishes).buffered(in_flight.max(1)).collect().await
    }

    /// Publishes a chunk of either kind and waits for the answer.
    ///
    /// # Errors
    /// See [`PublishError`]; ask [`PublishError::is_unknown`] what to do.
    pub async fn publish<P: Payload>(&self, subject: &P::Subject, chunk: &P) -> Result<(), PublishError> {
        let body = chunk.encode().map_err(PublishError::Encode)?;
        let mut headers = HeaderMap::new();
        headers.insert(NATS_MESSAGE_ID, chunk.dedup_key());
        headers.insert(CONTENT_TYPE, MESSAGEPACK);
        headers.insert(KIND, P::KIND);
        headers.insert(VERSION, P::VERSION.to_string());
        let result = self.publish_perhaps(subject.subject(self.prefix()), headers, body).await;
        let stats = self.stats();
        match &result {
            Ok(()) => stats.published.inc(),
            Err(error) if error.is_unknown() => stats.unknown.inc(),
            Err(_) => stats.refused.inc(),
        };
        result
    }

    pub(crate) async fn publish_probe(&self) -> Result<(), PublishError> {
        self.publish_raw(subject::probe(self.prefix()), HeaderMap::new(), Bytes::new()).await
    }

    /// As [`Bus::publish_raw`], but for the faults that a test asked for.
    async fn publish_perhaps(&self, subject: String, headers: HeaderMap, body: Bytes) -> Result<(), PublishError> {
        match self.inner.config.faults.as_ref().and_then(Faults::next) {
            None => self.publish_raw(subject, headers, body).await,
            Some(Fault::Before) => Err(PublishError::Unreachable),
            Some(Fault::After) => {
                self.publish_raw(subject, headers, body).await?;
                Err(PublishError::Timeout)
            }
            Some(Fault::Twice) => {
                let first = self.publish_raw(subject.clone(), headers.clone(), body.clone()).await;
                let _second = self.publish_raw(subject, headers, body).await;
                first
            }
        }
    }

    async fn publish_raw(&self, subject: String, headers: HeaderMap, body: Bytes) -> Result<(), PublishError> {
        let bytes = body.len();
        if bytes > MAX_CHUNK_BYTES {
            return Err(PublishError::TooLarge { bytes });
        }
        // What is handed over now would wait in this process and go out after the answer is given up.
        if !self.is_connected() {
            return Err(PublishError::Unreachable);
        }
        let publish = self.inner.publisher.publish_with_headers(subject, headers, body);
        let answer = publish.await.map_err(|error| PublishError::of(error, bytes))?;
        answer.await.map(|_| ()).map_err(|error| PublishError::of(error, bytes))
    }
}
