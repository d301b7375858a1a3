//! What the owner of a shard does: claim, record, park.

use crate::{HOT, Lease, PLAIN, Store, StoreError, marks, transaction};
use domain::fact::{FactDetail, FactKind};
use domain::{Closing, Lane, MessageId, SiteId};
use std::{collections::HashMap, time::Duration};
use uuid::Uuid;

/// One message to claim, under the release number of its job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Claim {
    /// The message.
    pub message: MessageId,
    /// The release that the job is of.
    pub release: u32,
}

/// What a claim found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is ours: send it.
    Go,
    /// It was closed instead.
    Closed(Closing),
    /// Its queue or site is paused; it rests again.
    Paused,
}

/// The verdicts of one claim statement; what is absent was stale and is dropped. A job that is held twice has one
/// verdict: whoever acts on it takes it out.
pub type Claimed = HashMap<Claim, Verdict>;

/// What an attempt came to.
#[derive(Clone, Debug, PartialEq)]
pub enum What {
    /// The receiver took it.
    Delivered,
    /// The receiver refused it for good.
    Bounced,
    /// It is to be tried again.
    Deferred {
        /// After how long, at the earliest.
        wait: Duration,
    },
    /// The final dot went out and no reply came.
    InDoubt,
    /// No dot went out and the receiver is not to blame: no attempt is counted.
    GivenBack {
        /// After how long to try again, at the earliest.
        wait: Duration,
    },
}

impl What {
    const fn code(&self) -> i16 {
        match self {
            Self::Delivered => 1,
            Self::Bounced => 2,
            Self::Deferred { .. } => 10,
            Self::InDoubt => 11,
            Self::GivenBack { .. } => 12,
        }
    }

    const fn wait(&self) -> Option<f64> {
        match self {
            Self::Deferred { wait } | Self::GivenBack { wait } => Some(wait.as_secs_f64()),
            Self::Delivered | Self::Bounced | Self::InDoubt => None,
        }
    }
}

/// The outcome of one claimed message.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The message.
    pub message: MessageId,
    /// The release that was claimed.
    pub release: u32,
    /// The lease epoch under which it was claimed.
    pub epoch: i64,
    /// Its queue, for the fact of a late outcome.
    pub queue: i64,
    /// Its site, likewise.
    pub site: SiteId,
    /// What it came to.
    pub what: What,
    /// What the log tells about it.
    pub detail: FactDetail,
}

/// What became of a recorded outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recorded {
    /// It ended the message.
    Closed(Closing),
    /// The message rests or is in doubt.
    Open,
    /// This very outcome had been recorded before.
    Repeated,
    /// The message had moved on: kept as a late fact; a late 250 also marks the message as known delivered.
    Late,
}

/// One released row to put back.
#[derive(Clone, Debug, PartialEq)]
pub struct Parked {
    /// The message.
    pub message: MessageId,
    /// The release that the job is of.
    pub release: u32,
    /// How long it is to rest.
    pub delay: Duration,
    /// Another queue than its own, when its site or slot was corrected.
    pub queue: Option<i64>,
    /// Its corrected site.
    pub site: Option<SiteId>,
}

/// One released row that cannot be rendered.
#[derive(Clone, Debug, PartialEq)]
pub struct Failed {
    /// The message.
    pub message: MessageId,
    /// The release that the job is of.
    pub release: u32,
    /// What its closing fact says.
    pub reason: FactDetail,
}

/// A claim that an earlier owner left behind.
#[derive(Clone, Debug, PartialEq)]
pub struct Orphan {
    /// The message.
    pub message: MessageId,
    /// The release that was claimed.
    pub release: u32,
    /// The epoch under which it was claimed.
    pub epoch: i64,
    /// Its queue.
    pub queue: i64,
    /// Its site.
    pub site: SiteId,
    /// Its lane.
    pub lane: Lane,
}

impl Store {
    /// Claims what may go under a live lease; durable before it returns. At most a few hundred a call.
    ///
    /// # Errors
    /// When the database does not answer: then nothing may be sent; what was claimed all the same ends in doubt.
    pub async fn claim(&self, lease: &Lease, claims: &[Claim]) -> Result<Claimed, StoreError> {
        let mut sorted = claims.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        let rows = transaction!(self, HOT, conn => {
            let rows = sqlx::query_file!(
                "src/sql/claim.sql",
                lease.name,
                lease.epoch,
                &sorted.iter().map(|claim| claim.message.as_uuid()).collect::<Vec<_>>(),
                &sorted.iter().map(|claim| release_no(claim.release)).collect::<Vec<_>>(),
            )
            .fetch_all(&mut *conn)
            .await?;
            failpoint::hit!("sender.claim.before", !rows.is_empty());
            rows
        })?;
        rows.into_iter()
            .map(|row| {
                let verdict = match row.verdict {
                    0 => Verdict::Go,
                    100 | 101 => Verdict::Paused,
                    code => Verdict::Closed(closing(code, row.message_id)?),
                };
                let release = u32::try_from(row.release_no).unwrap_or(0);
                Ok((Claim { message: MessageId::from_uuid(row.message_id), release }, verdict))
            })
            .collect()
    }

    /// Records outcomes, in their order. May be repeated after a lost answer.
    ///
    /// # Errors
    /// When the database does not answer: repeat the call.
    pub async fn record(&self, outcomes: &[Outcome]) -> Result<Vec<Recorded>, StoreError> {
        let mut sorted: Vec<&Outcome> = outcomes.iter().collect();
        sorted.sort_by_key(|outcome| (outcome.message, outcome.release));
        sorted.dedup_by_key(|outcome| (outcome.message, outcome.release));
        let rows = transaction!(self, HOT, conn => {
            let rows = sqlx::query_file!(
                "src/sql/record.sql",
                &sorted.iter().map(|o| o.message.as_uuid()).collect::<Vec<_>>(),
                &sorted.iter().map(|o| release_no(o.release)).collect::<Vec<_>>(),
                &sorted.iter().map(|o| o.epoch).collect::<Vec<_>>(),
                &sorted.iter().map(|o| o.what.code()).collect::<Vec<_>>(),
                &sorted.iter().map(|o| o.what.wait()).collect::<Vec<_>>() as &[Option<f64>],
                &sorted.iter().map(|o| detail_text(&o.detail)).collect::<Vec<_>>(),
            )
            .fetch_all(&mut *conn)
            .await?;
            failpoint::hit!("sender.record.before", !rows.is_empty());
            rows
        })?;
        let mut done: HashMap<(Uuid, i32), Recorded> = HashMap::with_capacity(rows.len());
        for row in rows {
            let recorded = match row.closing {
                Some(code) => Recorded::Closed(closing(code, row.message_id)?),
                None => Recorded::Open,
            };
            done.insert((row.message_id, row.release_no), recorded);
        }
        let mut unmatched = sorted;
        unmatched.retain(|outcome| !done.contains_key(&key(outcome)));
        done.extend(self.record_late(&unmatched).await?);
        Ok(outcomes.iter().map(|outcome| done.get(&key(outcome)).copied().unwrap_or(Recorded::Repeated)).collect())
    }

    /// Outcomes that matched nothing: which of them are late. The others are repeats of what is in the log, or say
    /// nothing that matters by now.
    async fn record_late(&self, outcomes: &[&Outcome]) -> Result<Vec<((Uuid, i32), Recorded)>, StoreError> {
        let mut told = Vec::with_capacity(outcomes.len());
        for outcome in outcomes {
            let (kind, closing) = match outcome.what {
                What::Delivered => (FactKind::Final, Some(Closing::Delivered)),
                What::Bounced => (FactKind::Final, Some(Closing::Bounced)),
                What::Deferred { .. } => (FactKind::Deferred, None),
                What::InDoubt => (FactKind::Doubt, None),
                What::GivenBack { .. } => continue,
            };
            told.push((*outcome, kind.code(), closing.map(Closing::code)));
        }
        if told.is_empty() {
            return Ok(Vec::new());
        }
        let rows = transaction!(self, HOT, conn => {
            let rows = sqlx::query_file!(
                "src/sql/record_late.sql",
                &told.iter().map(|(o, ..)| o.message.as_uuid()).collect::<Vec<_>>(),
                &told.iter().map(|(o, ..)| release_no(o.release)).collect::<Vec<_>>(),
                &told.iter().map(|(_, kind, _)| *kind).collect::<Vec<_>>(),
                &told.iter().map(|(.., closing)| *closing).collect::<Vec<_>>() as &[Option<i16>],
                &told.iter().map(|(o, ..)| o.queue).collect::<Vec<_>>(),
                &told.iter().map(|(o, ..)| o.site.to_string()).collect::<Vec<_>>(),
                &told.iter().map(|(o, ..)| detail_text(&o.detail)).collect::<Vec<_>>(),
            )
            .fetch_all(&mut *conn)
            .await?;
            let delivered: Vec<Uuid> = told
                .iter()
                .filter(|(outcome, ..)| matches!(outcome.what, What::Delivered))
                .map(|(outcome, ..)| outcome.message.as_uuid())
                .filter(|id| rows.iter().any(|row| row.message_id == *id))
                .collect();
            if !delivered.is_empty() {
                // What they were sent again as since would be a second copy.
                marks::cancel(conn, &[], &delivered).await?;
            }
            rows
        })?;
        Ok(rows.into_iter().map(|row| ((row.message_id, row.release_no), Recorded::Late)).collect())
    }

    /// Puts released rows back to rest; returns how many there were. The others were stale.
    ///
    /// # Errors
    /// When the database does not answer; what stays released is repaired.
    pub async fn park(&self, parked: &[Parked]) -> Result<usize, StoreError> {
        if parked.is_empty() {
            return Ok(0);
        }
        let mut sorted: Vec<&Parked> = parked.iter().collect();
        sorted.sort_by_key(|row| (row.message, row.release));
        sorted.dedup_by_key(|row| (row.message, row.release));
        let rows = transaction!(self, HOT, conn => {
            sqlx::query_file_scalar!(
                "src/sql/park.sql",
                &sorted.iter().map(|row| row.message.as_uuid()).collect::<Vec<_>>(),
                &sorted.iter().map(|row| release_no(row.release)).collect::<Vec<_>>(),
                &sorted.iter().map(|row| row.delay.as_secs_f64()).collect::<Vec<_>>(),
                &sorted.iter().map(|row| row.queue).collect::<Vec<_>>() as &[Option<i64>],
                &sorted.iter().map(|row| row.site.as_ref().map(ToString::to_string)).collect::<Vec<_>>()
                    as &[Option<String>],
            )
            .fetch_all(&mut *conn)
            .await?
        })?;
        Ok(rows.len())
    }

    /// Closes released rows that cannot be rendered as failed; returns how many there were. The others were
    /// stale, or are known to be delivered and left to the dispatcher.
    ///
    /// # Errors
    /// When the database does not answer; what stays released is repaired and fails again.
    pub async fn fail_all(&self, failed: &[Failed]) -> Result<usize, StoreError> {
        if failed.is_empty() {
            return Ok(0);
        }
        let mut sorted: Vec<&Failed> = failed.iter().collect();
        sorted.sort_by_key(|row| (row.message, row.release));
        sorted.dedup_by_key(|row| (row.message, row.release));
        let rows = transaction!(self, HOT, conn => {
            sqlx::query_file_scalar!(
                "src/sql/fail.sql",
                &sorted.iter().map(|row| row.message.as_uuid()).collect::<Vec<_>>(),
                &sorted.iter().map(|row| release_no(row.release)).collect::<Vec<_>>(),
                &sorted.iter().map(|row| detail_text(&row.reason)).collect::<Vec<_>>(),
            )
            .fetch_all(&mut *conn)
            .await?
        })?;
        Ok(rows.len())
    }

    /// As [`Store::fail_all`], for one row; `false` when it was stale or is known to be delivered.
    ///
    /// # Errors
    /// When the database does not answer; the row is repaired and fails again.
    pub async fn fail(&self, message: MessageId, release: u32, reason: &FactDetail) -> Result<bool, StoreError> {
        Ok(self.fail_all(&[Failed { message, release, reason: reason.clone() }]).await? == 1)
    }

    /// The claims under these epochs that were never recorded: what the next owner of a journal resolves.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn orphans_of(&self, epochs: &[i64]) -> Result<Vec<Orphan>, StoreError> {
        let rows = transaction!(self, PLAIN, conn => {
            sqlx::query!(
                r#"select message_id, release_no, epoch as "epoch!", queue_id, site, lane from mailfleet.moving
                   where state = 2 and epoch = any ($1)"#,
                epochs
            )
            .fetch_all(&mut *conn)
            .await?
        })?;
        Ok(rows
            .into_iter()
            .map(|row| Orphan {
                message: MessageId::from_uuid(row.message_id),
                release: u32::try_from(row.release_no).unwrap_or(0),
                epoch: row.epoch,
                queue: row.queue_id,
                site: SiteId::from_stored(row.site),
                lane: Lane::from_code(row.lane).unwrap_or(Lane::Bulk),
            })
            .collect())
    }

    /// Those of `messages` that have not ended, with queue and site. One that changes its table at this very moment
    /// may be missed. At most a few thousand a call.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn open_among(&self, messages: &[MessageId]) -> Result<Vec<(MessageId, i64, SiteId)>, StoreError> {
        let ids: Vec<Uuid> = messages.iter().map(MessageId::as_uuid).collect();
        let rows = transaction!(self, HOT, conn => {
            sqlx::query!(
                r#"select message_id as "message_id!", queue_id as "queue_id!", site as "site!"
                   from mailfleet.moving where message_id = any ($1)
                   union all
                   select message_id, queue_id, site from mailfleet.waiting where message_id = any ($1)"#,
                &ids
            )
            .fetch_all(&mut *conn)
            .await?
        })?;
        Ok(rows
            .into_iter()
            .map(|row| (MessageId::from_uuid(row.message_id), row.queue_id, SiteId::from_stored(row.site)))
            .collect())
    }
}

/// What an outcome is found by in the answer of a statement.
fn key(outcome: &Outcome) -> (Uuid, i32) {
    (outcome.message.as_uuid(), release_no(outcome.release))
}

fn release_no(release: u32) -> i32 {
    i32::try_from(release).unwrap_or(i32::MAX)
}

fn closing(code: i16, id: Uuid) -> Result<Closing, StoreError> {
    Closing::from_code(code).ok_or_else(|| StoreError::Corrupt {
        table: "moving",
        column: "closing",
        id: id.to_string(),
    })
}

fn detail_text(detail: &FactDetail) -> String {
    serde_json::to_string(detail).unwrap_or_else(|_| "{}".to_owned())
}
