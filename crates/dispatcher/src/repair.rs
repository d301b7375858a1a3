//! Repair, doubt and marks: what brings messages that went astray back to rest, or to their end.
//!
//! Each statement changes and records in one transaction; a crash between two of them leaves rows that the next
//! round finds again.

use crate::{metrics::result, tenure::Tenure};
use domain::{Closing, MessageId};
use std::sync::PoisonError;
use store::{StoreError, UnsettledMark};

/// Most rows of one statement about doubts.
const DOUBT_BATCH: u32 = 1_000;
/// Most marks of one look.
const MARK_BATCH: u32 = 500;

/// Puts back what went missing between release and claim.
pub(crate) async fn repair(tenure: &Tenure<'_>) {
    let mut pace = tenure.pace("repair", tenure.config.repair_interval, Some(&tenure.repair_now));
    while pace.turn().await {
        pace.after(repair_all(tenure).await);
    }
}

async fn repair_all(tenure: &Tenure<'_>) -> Result<(), StoreError> {
    let config = tenure.config;
    while !tenure.is_stopping() {
        let done = tenure.store.repair(config.repair_after, config.repair_batch, config.poison_losses).await?;
        let found = done.rested + done.poison;
        failpoint::hit!("dispatcher.repair.after", found > 0);
        tenure.overrun.lock().unwrap_or_else(PoisonError::into_inner).extend(&done.unexplained);
        if found > 0 {
            tracing::info!(rested = done.rested, poison = done.poison, "repaired what was lost on the way");
            tenure.metrics.repaired.inc_by(done.rested as u64);
            tenure.metrics.poisoned.inc_by(done.poison as u64);
            tenure.look_now.notify_one();
        }
        if found < config.repair_batch as usize {
            break;
        }
    }
    Ok(())
}

/// Opens the doubt about claims whose owner is gone, and ends doubts by the lanes' policies.
pub(crate) async fn doubt(tenure: &Tenure<'_>) {
    let mut pace = tenure.pace("the doubt rule", tenure.config.repair_interval, None);
    while pace.turn().await {
        let opened = open_doubts(tenure).await;
        let outcome = match opened {
            Ok(()) => close_doubts(tenure).await,
            failed => failed,
        };
        pace.after(outcome);
    }
}

async fn open_doubts(tenure: &Tenure<'_>) -> Result<(), StoreError> {
    while !tenure.is_stopping() {
        let opened = tenure.store.open_doubts(tenure.config.doubt_grace, DOUBT_BATCH).await?;
        if opened > 0 {
            failpoint::hit!("dispatcher.doubt_open.after");
            tracing::warn!(messages = opened, "senders went away during attempts");
            tenure.metrics.doubts_opened.inc_by(opened as u64);
        }
        if opened < DOUBT_BATCH as usize {
            break;
        }
    }
    Ok(())
}

async fn close_doubts(tenure: &Tenure<'_>) -> Result<(), StoreError> {
    while !tenure.is_stopping() {
        let closed = tenure.store.close_doubts(tenure.config.doubt_policy(), DOUBT_BATCH).await?;
        failpoint::hit!("dispatcher.doubt_close.after", !closed.is_empty());
        for (_, closing) in &closed {
            let word = closing.map_or("sent_again", Closing::as_str);
            tenure.metrics.doubts_closed.get_or_create(&result(word)).inc();
        }
        if !closed.is_empty() {
            tracing::info!(messages = closed.len(), "ended doubts");
            tenure.look_now.notify_one();
        }
        if closed.len() < DOUBT_BATCH as usize {
            break;
        }
    }
    Ok(())
}

/// Closes what rests or travels under a mark. The marks stay: what moves at this moment meets them later.
pub(crate) async fn marks(tenure: &Tenure<'_>) {
    let mut pace = tenure.pace("the settling of marks", tenure.config.mark_interval, None);
    while pace.turn().await {
        pace.after(settle_all(tenure).await);
    }
}

async fn settle_all(tenure: &Tenure<'_>) -> Result<(), StoreError> {
    while !tenure.is_stopping() {
        let marks = tenure.store.unsettled_marks(MARK_BATCH).await?;
        let (mut delivered, mut cancelled) = (Vec::new(), Vec::new());
        for mark in &marks {
            match mark {
                UnsettledMark::Delivered(id) => delivered.push(*id),
                UnsettledMark::CancelMessage(id) => cancelled.push(*id),
                UnsettledMark::CancelBatch { .. } => {}
            }
        }
        // What is known to be delivered ends as that, cancelled or not.
        refuse(tenure, delivered.into_iter(), Closing::Delivered).await?;
        refuse(tenure, cancelled.into_iter(), Closing::Cancelled).await?;
        let mut settled = 0;
        for mark in &marks {
            if let UnsettledMark::CancelBatch { batch, size } = *mark {
                refuse(tenure, (0..size).map(move |at| MessageId::of_batch(batch, at)), Closing::Cancelled).await?;
            }
            settled += usize::from(tenure.store.settle_mark(mark).await?);
        }
        // What changed tables meanwhile is looked for again at the next turn.
        if settled < MARK_BATCH as usize {
            break;
        }
    }
    Ok(())
}

/// Closes these in pieces, so that no statement holds many rows for long.
async fn refuse(tenure: &Tenure<'_>, ids: impl Iterator<Item = MessageId>, closing: Closing) -> Result<(), StoreError> {
    let mut ids = ids.peekable();
    let mut closed = 0_usize;
    while ids.peek().is_some() {
        let piece: Vec<MessageId> = ids.by_ref().take(tenure.config.refuse_batch as usize).collect();
        closed += tenure.store.refuse(&piece, closing).await?;
    }
    if closed > 0 {
        tracing::info!(messages = closed, closing = closing.as_str(), "closed messages under marks");
        tenure.metrics.marked.get_or_create(&result(closing.as_str())).inc_by(closed as u64);
    }
    Ok(())
}
