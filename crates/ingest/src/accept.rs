//! The group commit: concurrent calls share a transaction, and none shares another's fate.
//!
//! A caller hands its call over and waits. Committers take turns at the queue: whoever is free gathers what has
//! come meanwhile and commits it in one transaction, so a group is as large as the load is, and nobody waits for a
//! group to fill. A group that fails is retried one call at a time. The queue is bounded by calls and octets; what
//! does not fit is refused at once.
//!
//! A crash before the commit leaves nothing and answers nobody. A crash after it leaves messages that the dispatcher
//! releases or repairs.

use crate::{
    Fault,
    clock::Clock,
    config::AcceptConfig,
    launch::{Launch, Launcher},
    metrics::{LaneLabels, Metrics},
    quota::Charge,
};
use bus::Job;
use bytes::Bytes;
use domain::{Lane, TenantId};
use std::{sync::Arc, time::Duration};
use store::{AcceptCall, AcceptOutcome, Idempotency, NewMessage, Store, StoreError};
use tokio::{
    sync::{Mutex, OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch},
    time::Instant,
};

/// The unit in which queued octets are counted, since a semaphore counts to 2^32 at most in one go.
const KIB: usize = 1024;
/// What one recipient takes beside its variables, roughly.
const RECIPIENT_OVERHEAD: usize = 512;

/// What became of a call.
#[derive(Debug)]
pub enum Accepted {
    /// Committed.
    Fresh,
    /// Its key had been used for the same call: this was the answer.
    Replayed(store::Replay),
}

/// Takes calls in. Cheap to clone.
#[derive(Clone)]
pub struct Acceptor {
    queue: mpsc::Sender<Queued>,
    bytes: Arc<Semaphore>,
    retry_after: Duration,
    metrics: Arc<Metrics>,
    store: Store,
    clock: Clock,
}

struct Queued {
    call: AcceptCall,
    weight: usize,
    waiter: Waiter,
}

/// Whoever waits for the answer to a call, and what goes when it is given.
struct Waiter {
    answer: oneshot::Sender<Result<Accepted, Fault>>,
    charge: Charge,
    _room: OwnedSemaphorePermit,
}

impl Waiter {
    fn is_gone(&self) -> bool {
        self.answer.is_closed()
    }

    /// Answers that it was accepted, now or by an earlier call.
    fn accept(self, accepted: Accepted) {
        let stored = matches!(accepted, Accepted::Fresh);
        self.tell(Ok(accepted), stored);
    }

    fn refuse(self, fault: Fault) {
        // Whether something was stored is not known.
        let stored = matches!(fault, Fault::Unavailable(_));
        self.tell(Err(fault), stored);
    }

    fn tell(self, answer: Result<Accepted, Fault>, stored: bool) {
        // Before the answer, so that the next call finds it.
        if stored {
            self.charge.spend();
        } else {
            drop(self.charge);
        }
        // The caller may have gone; what was accepted is accepted all the same.
        let _gone = self.answer.send(answer);
    }
}

/// The other end of an [`Acceptor`]: what the committers share.
pub struct Committers {
    queue: Mutex<mpsc::Receiver<Queued>>,
    store: Store,
    clock: Clock,
    launcher: Launcher,
    config: AcceptConfig,
    metrics: Arc<Metrics>,
}

/// Makes the queue; run [`Committers::run`] as often as the configuration says. They end when `closed` says so and
/// the queue is empty.
pub fn acceptor(
    store: Store,
    clock: Clock,
    launcher: Launcher,
    config: AcceptConfig,
    retry_after: Duration,
    metrics: Arc<Metrics>,
) -> (Acceptor, Arc<Committers>) {
    let (sender, receiver) = mpsc::channel(config.max_queued_calls.get());
    let bytes = Arc::new(Semaphore::new(config.max_queued_bytes / KIB));
    let acceptor = Acceptor {
        queue: sender,
        bytes,
        retry_after,
        metrics: metrics.clone(),
        store: store.clone(),
        clock: clock.clone(),
    };
    let queue = Mutex::new(receiver);
    (acceptor, Arc::new(Committers { queue, store, clock, launcher, config, metrics }))
}

impl Acceptor {
    /// Accepts a call; returns after its commit. The charge is spent if the call is stored, also for a caller that is
    /// gone by then.
    ///
    /// # Errors
    /// Overloaded when the queue is full, at once; otherwise what the commit came to.
    pub async fn accept(&self, call: AcceptCall, charge: Charge) -> Result<Accepted, Fault> {
        let weight = weight_of(&call);
        let overloaded = || Fault::Overloaded { retry_after: self.retry_after };
        let units = u32::try_from(weight / KIB + 1).map_err(|_| overloaded())?;
        let room = self.bytes.clone().try_acquire_many_owned(units).map_err(|_| overloaded())?;
        let (answer, answered) = oneshot::channel();
        let waiter = Waiter { answer, charge, _room: room };
        self.queue.try_send(Queued { call, weight, waiter }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => overloaded(),
            mpsc::error::TrySendError::Closed(_) => Fault::Stopping,
        })?;
        self.metrics.queued_bytes.inc_by(i64::try_from(weight).unwrap_or(0));
        answered.await.unwrap_or(Err(Fault::Stopping))
    }
}

impl Acceptor {
    /// The answer that is kept for a key.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn replay(&self, tenant: TenantId, key: &Idempotency) -> Result<Option<AcceptOutcome>, Fault> {
        Ok(self.store.replay(tenant, key, self.clock.now()).await?)
    }
}

fn weight_of(call: &AcceptCall) -> usize {
    let contents: usize = call.contents.iter().map(|content| content.body.len()).sum();
    let own = |message: &NewMessage| message.variables.len() + message.overrides.as_ref().map_or(0, String::len);
    let recipients: usize = call.messages.iter().map(own).sum();
    contents + recipients + call.messages.len() * RECIPIENT_OVERHEAD
}

impl Committers {
    /// Commits until `closed` turns true and nothing waits.
    pub async fn run(self: Arc<Self>, mut closed: watch::Receiver<bool>) {
        while let Some(group) = self.gather(&mut closed).await {
            self.commit(group).await;
        }
    }

    /// The next call and what has come with it. Held by one committer at a time; the others commit meanwhile.
    async fn gather(&self, closed: &mut watch::Receiver<bool>) -> Option<Vec<Queued>> {
        let mut queue = self.queue.lock().await;
        let first = tokio::select! {
            biased;
            first = queue.recv() => first?,
            // An error means that nobody is left who could close it.
            _ = closed.wait_for(|closed| *closed) => {
                queue.close();
                queue.try_recv().ok()?
            }
        };
        let (mut messages, mut bytes) = (first.call.messages.len(), first.weight);
        let mut group = vec![first];
        while messages < self.config.max_group_messages && bytes < self.config.max_group_bytes {
            let Ok(next) = queue.try_recv() else { break };
            messages += next.call.messages.len();
            bytes += next.weight;
            group.push(next);
        }
        self.metrics.queued_bytes.dec_by(i64::try_from(bytes).unwrap_or(0));
        Some(group)
    }

    async fn commit(&self, group: Vec<Queued>) {
        // Whoever has gone does not wait for an answer; nothing of his call is stored yet.
        let (calls, waiters): (Vec<AcceptCall>, Vec<_>) =
            group.into_iter().filter(|one| !one.waiter.is_gone()).map(|one| (one.call, one.waiter)).unzip();
        if calls.is_empty() {
            return;
        }
        match self.try_commit(&calls).await {
            Ok(outcomes) => {
                failpoint::hit!("ingest.accept.after");
                for ((call, outcome), waiter) in calls.into_iter().zip(outcomes).zip(waiters) {
                    self.settle(call, outcome, waiter);
                }
            }
            // Nobody is at fault and everybody would wait in vain for the next time-out.
            Err(error @ (StoreError::Timeout | StoreError::Connect { .. })) => {
                let error = Arc::new(error);
                for waiter in waiters {
                    waiter.refuse(Fault::Unavailable(error.clone()));
                }
            }
            Err(error) if calls.len() == 1 => {
                if let Some(waiter) = waiters.into_iter().next() {
                    waiter.refuse(Fault::from(error));
                }
            }
            Err(error) => {
                self.metrics.group_failures.inc();
                tracing::warn!(
                    error = %service::Chain(&error),
                    calls = calls.len(),
                    "a group commit failed; committing its calls one by one"
                );
                for (call, waiter) in calls.into_iter().zip(waiters) {
                    match self.try_commit(std::slice::from_ref(&call)).await.map(|mut outcomes| outcomes.pop()) {
                        Ok(Some(outcome)) => self.settle(call, outcome, waiter),
                        Ok(None) => waiter.refuse(Fault::Stopping),
                        Err(error) => waiter.refuse(Fault::from(error)),
                    }
                }
            }
        }
    }

    async fn try_commit(&self, calls: &[AcceptCall]) -> Result<Vec<AcceptOutcome>, StoreError> {
        let begun = Instant::now();
        let outcomes = self.store.accept(calls, self.clock.now()).await?;
        let messages: usize = calls.iter().map(|call| call.messages.len()).sum();
        self.metrics.commit_seconds.observe(begun.elapsed().as_secs_f64());
        self.metrics.group_calls.observe(count(calls.len()));
        self.metrics.group_messages.observe(count(messages));
        Ok(outcomes)
    }

    /// Answers, and puts on its way what is to go at once.
    fn settle(&self, call: AcceptCall, outcome: AcceptOutcome, waiter: Waiter) {
        match outcome {
            AcceptOutcome::Replayed(replay) => waiter.accept(Accepted::Replayed(replay)),
            AcceptOutcome::KeyReused => waiter.refuse(Fault::KeyReused),
            AcceptOutcome::Accepted { bus_epoch, queues } => {
                let lane = call.messages.first().map_or(Lane::Bulk, |message| message.lane);
                let number = u64::try_from(call.messages.len()).unwrap_or(0);
                self.metrics.accepted.get_or_create(&LaneLabels { lane: lane.as_str() }).inc_by(number);
                tracing::debug!(
                    tenant.id = %call.tenant,
                    batch.id = %call.batch,
                    messages = call.messages.len(),
                    refused = usize::try_from(call.size).unwrap_or(0).saturating_sub(call.messages.len()),
                    lane = lane.as_str(),
                    "accepted"
                );
                self.launch(call, bus_epoch, &queues);
                waiter.accept(Accepted::Fresh);
            }
        }
    }

    fn launch(&self, call: AcceptCall, bus_epoch: i64, queues: &[i64]) {
        let now = self.clock.now();
        let AcceptCall { tenant, campaign, batch, messages, .. } = call;
        let mut jobs = Vec::new();
        let mut due = Vec::new();
        for (message, queue) in messages.into_iter().zip(queues.iter().copied()) {
            match message.due {
                Some(at) if at > now => {}
                Some(_) => {
                    if due.last() != Some(&queue) {
                        due.push(queue);
                    }
                }
                None => jobs.push(Job {
                    message: message.id,
                    release: 1,
                    attempt: 0,
                    bus_epoch,
                    queue,
                    tenant,
                    campaign,
                    batch,
                    content: message.content,
                    recipient: message.recipient,
                    slot: message.site.slot(),
                    site: message.site,
                    lane: message.lane,
                    variables: Bytes::from(message.variables),
                    overrides: message.overrides.map(Bytes::from).unwrap_or_default(),
                    expires_at: message.expires_at,
                    alone: false,
                    trace: message.trace,
                }),
            }
        }
        if !jobs.is_empty() {
            self.launcher.launch(Launch::Jobs(jobs));
        }
        if !due.is_empty() {
            due.sort_unstable();
            due.dedup();
            self.launcher.launch(Launch::Ring(due));
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "sizes of groups are far below 2^52")]
fn count(number: usize) -> f64 {
    number as f64
}
