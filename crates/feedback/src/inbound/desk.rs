//! Mails on their way to Postgres, several in a commit; to the spool while it does not answer.

use super::{Inbound, spool::MailSpool};
use std::{sync::Arc, time::Duration};
use store::{InboundMail, StoreError};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, MissedTickBehavior, timeout, timeout_at},
};

/// Mails of one commit.
const MOST: usize = 64;
/// Octets of one commit, about.
const OCTETS: usize = 8 * 1024 * 1024;
/// How long a mail waits for others.
const LINGER: Duration = Duration::from_millis(5);
/// How long a failed commit sends what follows to the spool at once, before Postgres is tried again.
const DOWN: Duration = Duration::from_secs(1);

/// Where mails are handed in.
#[derive(Clone, Debug)]
pub(crate) struct Intake(mpsc::Sender<Entry>);

#[derive(Debug)]
struct Entry {
    mails: Vec<InboundMail>,
    kept: oneshot::Sender<()>,
}

/// What commits them.
pub(crate) struct Desk {
    entries: mpsc::Receiver<Entry>,
    spool: MailSpool,
    /// Until then Postgres is taken for gone.
    down_until: Option<Instant>,
}

pub(crate) fn desk(spool: MailSpool) -> (Intake, Desk) {
    let (sender, entries) = mpsc::channel(MOST);
    (Intake(sender), Desk { entries, spool, down_until: None })
}

impl Intake {
    /// Hands in what one mail is for each of its recipients, and waits until it is committed, or synced in the spool;
    /// `false` when it is neither.
    pub(crate) async fn keep(&self, mails: Vec<InboundMail>) -> bool {
        let (kept, answer) = oneshot::channel();
        self.0.send(Entry { mails, kept }).await.is_ok() && answer.await.is_ok()
    }
}

impl Desk {
    /// Works until every [`Intake`] is gone and nothing is left but what lies in the spool.
    pub(crate) async fn run(mut self, inbound: Arc<Inbound>) {
        let mut turns = tokio::time::interval(inbound.config.spool.replay_every);
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                first = self.entries.recv() => {
                    let Some(first) = first else { return };
                    let (mails, kept) = self.gather(first).await;
                    self.commit(&mails, kept, &inbound).await;
                }
                _ = turns.tick(), if self.spool.bytes() > 0 => self.replay(&inbound).await,
            }
            inbound.office.metrics.mails_spooled.set(i64::try_from(self.spool.bytes()).unwrap_or(i64::MAX));
        }
    }

    async fn gather(&mut self, first: Entry) -> (Vec<InboundMail>, Vec<oneshot::Sender<()>>) {
        let until = Instant::now() + LINGER;
        let octets = |mails: &[InboundMail]| mails.iter().map(|mail| mail.raw.len()).sum::<usize>();
        let (mut mails, mut kept) = (first.mails, vec![first.kept]);
        while mails.len() < MOST && octets(&mails) < OCTETS {
            let Ok(Some(next)) = timeout_at(until, self.entries.recv()).await else { break };
            mails.extend(next.mails);
            kept.push(next.kept);
        }
        (mails, kept)
    }

    async fn commit(&mut self, mails: &[InboundMail], kept: Vec<oneshot::Sender<()>>, inbound: &Inbound) {
        let is_down = self.down_until.is_some_and(|until| Instant::now() < until);
        if !is_down {
            match take_in(mails, inbound).await {
                Ok(()) => {
                    self.down_until = None;
                    inbound.bell.notify_one();
                    return tell(kept, inbound);
                }
                Err(error) => {
                    self.down_until = Some(Instant::now() + DOWN);
                    let error: &dyn std::error::Error = &error;
                    tracing::warn!(error, mails = mails.len(), "cannot keep mails in Postgres; they are spooled");
                }
            }
        }
        match self.spool.append(mails) {
            Ok(()) => tell(kept, inbound),
            Err(error) => {
                inbound.keeping.fail(format!("the spool of mails: {error}"));
                tracing::error!(%error, mails = mails.len(), "cannot spool mails; they are told to come again");
            }
        }
    }

    /// Brings the oldest mails of the spool to Postgres.
    async fn replay(&mut self, inbound: &Inbound) {
        loop {
            let mails = match self.spool.oldest(MOST, OCTETS) {
                Ok(mails) => mails,
                Err(error) => {
                    tracing::error!(%error, "cannot read the spool of mails");
                    return;
                }
            };
            if mails.is_empty() {
                return;
            }
            let (paths, mails): (Vec<_>, Vec<_>) = mails.into_iter().unzip();
            if let Err(error) = take_in(&mails, inbound).await {
                tracing::debug!(%error, "cannot bring mails back from the spool yet");
                self.down_until = Some(Instant::now() + DOWN);
                return;
            }
            self.down_until = None;
            inbound.bell.notify_one();
            tracing::info!(mails = mails.len(), "brought mails back from the spool");
            let mails: Vec<_> = paths.into_iter().zip(mails).collect();
            if let Err(error) = self.spool.remove(&mails) {
                tracing::error!(%error, "cannot remove a mail from the spool; it is brought back again");
                return;
            }
            // Whoever waits for his answer comes first.
            if !self.entries.is_empty() {
                return;
            }
        }
    }
}

async fn take_in(mails: &[InboundMail], inbound: &Inbound) -> Result<(), StoreError> {
    let taking = inbound.office.store.take_in(mails);
    timeout(inbound.office.config.commit_within, taking).await.unwrap_or(Err(StoreError::Timeout))
}

fn tell(kept: Vec<oneshot::Sender<()>>, inbound: &Inbound) {
    inbound.keeping.pass();
    for waiting in kept {
        // Who waited may have gone.
        let _ = waiting.send(());
    }
}
