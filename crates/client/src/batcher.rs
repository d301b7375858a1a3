//! Single recipients from many tasks, sent in batches.

use crate::{Client, Error};
use prost::Message;
use proto::v1::{Mail, Recipient, Refusal, SendBatchRequest, SendBatchResponse, recipient_result::Outcome};
use std::{num::NonZeroUsize, sync::Arc, time::Duration};
use tokio::{
    sync::{Semaphore, mpsc, oneshot},
    task::JoinSet,
    time::Instant,
};

/// What the server takes in one call.
const MAX_RECIPIENTS: usize = 10_000;

/// How recipients are gathered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatcherConfig {
    /// Most recipients of one call, at most 10,000. Default 500.
    pub recipients: NonZeroUsize,
    /// Octets of recipients and their variables at which a call is full. Default 1 MiB.
    pub octets: usize,
    /// How long the first recipient of a call waits for others. Default 10 ms.
    pub linger: Duration,
    /// Calls at the same time. Default 4.
    pub calls: NonZeroUsize,
    /// Recipients that wait for their call; beyond it [`Batcher::send`] waits. Default 5,000.
    pub queue: NonZeroUsize,
}

impl Default for BatcherConfig {
    fn default() -> Self {
        Self {
            recipients: const { NonZeroUsize::new(500).expect("not zero") },
            octets: 1024 * 1024,
            linger: Duration::from_millis(10),
            calls: const { NonZeroUsize::new(4).expect("not zero") },
            queue: const { NonZeroUsize::new(5_000).expect("not zero") },
        }
    }
}

/// Sends one mail, such as a template, to recipients that come one by one. Cheap to share behind an `Arc`.
///
/// Whoever drops the future of [`Batcher::send`] may have sent all the same, as with any call whose answer is not
/// waited for. Whoever drops the batcher sends what is in it; [`Batcher::close`] waits for that.
pub struct Batcher {
    queue: mpsc::Sender<Item>,
    worker: tokio::task::JoinHandle<()>,
}

struct Item {
    recipient: Recipient,
    answer: oneshot::Sender<Result<String, Error>>,
}

impl Batcher {
    /// Sends `mail`. Must be called within a runtime of tokio.
    #[expect(clippy::disallowed_methods, reason = "its callers have lifecycles of their own; close waits for it")]
    pub fn new(client: Client, mail: Mail, config: BatcherConfig) -> Self {
        let (queue, items) = mpsc::channel(config.queue.get());
        let worker = Worker { client, mail: Arc::new(mail), config, items, calls: JoinSet::new() };
        Self { queue, worker: tokio::spawn(worker.run()) }
    }

    /// Sends to one recipient; returns the id of his message once it is accepted. Waits while too many others wait.
    ///
    /// # Errors
    /// When he is refused, his call is, or the batcher has been closed.
    pub async fn send(&self, recipient: Recipient) -> Result<String, Error> {
        let (answer, answered) = oneshot::channel();
        self.queue.send(Item { recipient, answer }).await.map_err(|_| Error::Closed)?;
        answered.await.unwrap_or(Err(Error::Closed))
    }

    /// Sends what is in it, and waits for the answers.
    pub async fn close(self) {
        let Self { queue, worker } = self;
        drop(queue);
        // A panic of the worker has closed everything already.
        let _ended = worker.await;
    }
}

struct Worker {
    client: Client,
    mail: Arc<Mail>,
    config: BatcherConfig,
    items: mpsc::Receiver<Item>,
    calls: JoinSet<()>,
}

impl Worker {
    async fn run(mut self) {
        let places = Arc::new(Semaphore::new(self.config.calls.get()));
        while let Some(first) = self.items.recv().await {
            let batch = self.gather(first).await;
            // Holds back whoever sends when the service is slower than they are: the queue fills.
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { break };
            while self.calls.try_join_next().is_some() {}
            let (client, mail) = (self.client.clone(), Arc::clone(&self.mail));
            self.calls.spawn(async move {
                call(&client, &mail, batch).await;
                drop(place);
            });
        }
        while self.calls.join_next().await.is_some() {}
    }

    async fn gather(&mut self, first: Item) -> Vec<Item> {
        let most = self.config.recipients.get().min(MAX_RECIPIENTS);
        let deadline = Instant::now() + self.config.linger;
        let mut octets = first.recipient.encoded_len();
        let mut batch = vec![first];
        while batch.len() < most && octets < self.config.octets {
            match tokio::time::timeout_at(deadline, self.items.recv()).await {
                Ok(Some(item)) => {
                    octets += item.recipient.encoded_len();
                    batch.push(item);
                }
                Ok(None) | Err(_) => break,
            }
        }
        batch
    }
}

async fn call(client: &Client, mail: &Mail, batch: Vec<Item>) {
    let (recipients, answers): (Vec<_>, Vec<_>) = batch.into_iter().map(|item| (item.recipient, item.answer)).unzip();
    let request = SendBatchRequest { mail: Some(mail.clone()), recipients, idempotency_key: String::new() };
    let told = match client.send_batch(request).await {
        Ok(response) => results(response, answers.len()),
        Err(error) => alike(&error, answers.len()),
    };
    for (answer, result) in answers.into_iter().zip(told) {
        // He waits no more.
        let _gone = answer.send(result);
    }
}

fn results(response: SendBatchResponse, count: usize) -> Vec<Result<String, Error>> {
    let mut results: Vec<_> = response
        .results
        .into_iter()
        .map(|result| match result.outcome {
            Some(Outcome::MessageId(id)) => Ok(id),
            Some(Outcome::Refused(refusal)) => Err(Error::Recipient(Box::new(refusal))),
            None => Err(Error::Recipient(Box::default())),
        })
        .collect();
    results.resize_with(count, || Err(Error::Recipient(Box::default())));
    results
}

/// The error of a call, once for each of its recipients. When every one of them is at fault, each is told his own.
fn alike(error: &Error, count: usize) -> Vec<Result<String, Error>> {
    (0..count)
        .map(|at| {
            Err(match error {
                Error::Refused(refused) => {
                    let own = format!("recipients[{at}]");
                    let fault = refused.fields.iter().find(|fault| {
                        fault.field.strip_prefix(&own).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
                    });
                    match fault {
                        Some(fault) => Error::Recipient(Box::new(Refusal {
                            reason: refused.reason.into(),
                            field: fault.field.clone(),
                            description: fault.description.clone(),
                        })),
                        None => Error::Refused(Box::new(crate::Refused::new(refused.status.clone()))),
                    }
                }
                Error::GaveUp { tries, spent, idempotency_key, last } => Error::GaveUp {
                    tries: *tries,
                    spent: *spent,
                    idempotency_key: idempotency_key.clone(),
                    last: last.clone(),
                },
                Error::Recipient(refusal) => Error::Recipient(refusal.clone()),
                Error::Closed => Error::Closed,
            })
        })
        .collect()
}
