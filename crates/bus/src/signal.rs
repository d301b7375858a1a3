//! The doorbell of the dispatcher and the live feed: core NATS, best effort. Nothing depends on one of
//! them arriving.

use crate::{Bus, EventSubject, Prefix, subject};
use async_nats::Subscriber;
use bytes::Bytes;
use futures_util::StreamExt;
use std::time::Duration;

/// How long a best-effort publish may wait for a place in the queue to the socket.
const HAND_OVER: Duration = Duration::from_millis(50);
/// Most queues that one ring names; who has more to say rings again.
const MAX_QUEUES: usize = 1_000;

/// Rings that have been heard, one after the other.
#[derive(Debug)]
pub struct Doorbells {
    subscriber: Subscriber,
}

impl Doorbells {
    /// The queues that the next ring says are due; `None` when the connection has been given up. Keeps no
    /// state beyond the subscription, so it may be cancelled at any time.
    pub async fn next(&mut self) -> Option<Vec<i64>> {
        loop {
            let message = self.subscriber.next().await?;
            match rmp_serde::from_slice::<Vec<i64>>(&message.payload) {
                Ok(queues) => return Some(queues),
                Err(_) => tracing::warn!("threw away a doorbell that could not be read"),
            }
        }
    }
}

/// Something that happened.
#[derive(Clone, Debug)]
pub struct Event {
    /// What kind of thing.
    pub subject: EventSubject,
    /// What its publisher wrote.
    pub body: Bytes,
}

/// Events that have been heard.
#[derive(Debug)]
pub struct Events {
    subscriber: Subscriber,
    prefix: Prefix,
}

impl Events {
    /// The next event; `None` when the connection has been given up.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            let message = self.subscriber.next().await?;
            if let Ok(subject) = EventSubject::parse(&self.prefix, &message.subject) {
                return Some(Event { subject, body: message.payload });
            }
        }
    }
}

/// A subscription that could not be made: the client has been closed.
#[derive(Debug, thiserror::Error)]
#[error("cannot subscribe")]
pub struct SubscribeError(#[from] async_nats::SubscribeError);

impl Bus {
    /// Tells the dispatcher that these queues have something due. Never waits for the broker; a ring that
    /// is lost costs a second.
    pub async fn ring(&self, queues: &[i64]) {
        for queues in queues.chunks(MAX_QUEUES) {
            if let Ok(body) = rmp_serde::to_vec(queues) {
                self.tell(subject::doorbell(self.prefix()), body.into()).await;
            }
        }
    }

    /// Tells whoever listens that something happened.
    pub async fn announce(&self, event: &EventSubject, body: Bytes) {
        self.tell(event.subject(self.prefix()), body).await;
    }

    async fn tell(&self, subject: String, body: Bytes) {
        if self.is_connected() {
            // The only failures are a closed client and a full queue; both mean nobody will hear.
            let _unheard = tokio::time::timeout(HAND_OVER, self.inner.client.publish(subject, body)).await;
        }
    }

    /// Listens for rings, across reconnects.
    ///
    /// # Errors
    /// When the client has been closed.
    pub async fn doorbells(&self) -> Result<Doorbells, SubscribeError> {
        let subscriber = self.inner.client.subscribe(subject::doorbell(self.prefix())).await?;
        Ok(Doorbells { subscriber })
    }

    /// Listens for events of every kind, across reconnects.
    ///
    /// # Errors
    /// When the client has been closed.
    pub async fn events(&self) -> Result<Events, SubscribeError> {
        let subscriber = self.inner.client.subscribe(subject::all_events(self.prefix())).await?;
        Ok(Events { subscriber, prefix: self.prefix().clone() })
    }
}
