//! Imports and exports of suppression lists: calls that last, in bounded pieces.
//!
//! A piece of an import is one transaction, so a stream that breaks off has suppressed what it had committed. A piece
//! of an export is one short look at the list, so no snapshot is held while a slow reader reads. Between pieces the key
//! is looked at again, and a service that stops, or a caller that falls silent, ends the call.

use crate::{
    Fault,
    auth::{Caller, KeyRing},
    config::TransferConfig,
    metrics::Metrics,
    seats::{Seat, Seats},
    suppressions::{MAX_ADDRESSES, MAX_PAGE, entry, wire},
    validate::email,
};
use domain::TenantId;
use futures_util::{
    StreamExt,
    stream::{self, BoxStream},
};
use proto::v1::{
    ExportSuppressionsResponse, ImportSuppressionsRequest, ImportSuppressionsResponse, ImportedSuppression,
    RefusedSuppression,
};
use service::Lifecycle;
use std::{sync::Arc, time::Duration};
use store::{Store, SuppressionFilter};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

/// Refused entries of an import that are told one by one.
pub const MAX_REFUSALS: usize = 1_000;

/// Bounds calls that last.
pub struct Transfers {
    seats: Arc<Seats>,
    config: TransferConfig,
    retry_after: Duration,
    life: Lifecycle,
}

impl Transfers {
    /// Ends with this lifecycle; a caller that finds no place may come back after `retry_after`.
    pub fn new(config: TransferConfig, retry_after: Duration, metrics: &Metrics, life: Lifecycle) -> Self {
        let seats = Seats::new(config.max_transfers, config.max_per_tenant, metrics.transfers.clone());
        Self { seats: Arc::new(seats), config, retry_after, life }
    }

    fn seat(&self, tenant: TenantId) -> Result<Seat, Fault> {
        self.seats.take(tenant).map_err(|_| Fault::Overloaded { retry_after: self.retry_after })
    }

    /// Takes an import in, to its end or that of the service.
    ///
    /// # Errors
    /// When there is no place, a piece is too large, the key ends, the caller falls silent or breaks off, or the
    /// database does not answer.
    pub async fn import(
        &self,
        store: Store,
        keys: &KeyRing,
        caller: Caller,
        tenant: TenantId,
        pieces: Streaming<ImportSuppressionsRequest>,
    ) -> Result<ImportSuppressionsResponse, Status> {
        let _seat = self.seat(tenant)?;
        tokio::select! {
            done = import(&self.config, store, keys, caller, tenant, pieces) => done,
            () = self.life.shutdown_requested() => Err(Fault::Stopping.into()),
        }
    }

    /// A tenant's list as it is now, in pieces.
    ///
    /// # Errors
    /// When there is no place.
    pub fn export(
        &self,
        store: Store,
        keys: Arc<KeyRing>,
        caller: Caller,
        tenant: TenantId,
        filter: SuppressionFilter,
    ) -> Result<BoxStream<'static, Result<ExportSuppressionsResponse, Status>>, Fault> {
        let seat = self.seat(tenant)?;
        let export = Export { store, keys, caller, tenant, filter };
        let (sender, receiver) = mpsc::channel(1);
        let (told, end) = oneshot::channel();
        let (idle, life) = (self.config.idle, self.life.clone());
        // A task of its own: a caller that reads no more would hold its place for ever.
        self.life.spawn_finite("export", async move {
            let done = tokio::select! {
                done = export.run(sender, idle) => done,
                () = life.shutdown_requested() => Err(Fault::Stopping),
            };
            drop(seat);
            // The caller may be gone.
            let _gone = told.send(done);
        });
        let end = stream::once(end).filter_map(|end| async move { end.unwrap_or(Err(Fault::Stopping)).err() });
        Ok(ReceiverStream::new(receiver).map(Ok).chain(end.map(|fault| Err(fault.into()))).boxed())
    }
}

struct Export {
    store: Store,
    keys: Arc<KeyRing>,
    caller: Caller,
    tenant: TenantId,
    filter: SuppressionFilter,
}

impl Export {
    async fn run(self, pieces: mpsc::Sender<ExportSuppressionsResponse>, idle: Duration) -> Result<(), Fault> {
        let mut after = None;
        loop {
            self.keys.still(&self.caller).await?;
            let found = self.store.suppressions(self.tenant, &self.filter, after, MAX_PAGE).await?;
            let last = found.last().filter(|_| found.len() == MAX_ADDRESSES).map(|entry| entry.place);
            if !found.is_empty() {
                let piece = ExportSuppressionsResponse { suppressions: found.into_iter().map(wire).collect() };
                match pieces.send_timeout(piece, idle).await {
                    Ok(()) => {}
                    Err(mpsc::error::SendTimeoutError::Timeout(_)) => return Err(Fault::DeadlineExceeded),
                    Err(mpsc::error::SendTimeoutError::Closed(_)) => return Ok(()),
                }
            }
            match last {
                Some(last) => after = Some(last),
                None => return Ok(()),
            }
        }
    }
}

async fn import(
    config: &TransferConfig,
    store: Store,
    keys: &KeyRing,
    caller: Caller,
    tenant: TenantId,
    mut pieces: Streaming<ImportSuppressionsRequest>,
) -> Result<ImportSuppressionsResponse, Status> {
    let mut answer = ImportSuppressionsResponse::default();
    loop {
        let piece =
            tokio::time::timeout(config.idle, pieces.message()).await.map_err(|_| Fault::DeadlineExceeded)??;
        let Some(piece) = piece else { return Ok(answer) };
        keys.still(&caller).await?;
        let number = piece.entries.len();
        if number == 0 || number > MAX_ADDRESSES {
            let text = format!("has {number} entries in one message; give 1 to {MAX_ADDRESSES}");
            return Err(Fault::field("entries", text).into());
        }
        if answer.read + u64::try_from(number).unwrap_or(u64::MAX) > config.max_entries {
            let most = config.max_entries;
            let text = format!("has more than {most} entries; cut the import, what was read is committed");
            return Err(Fault::field("entries", text).into());
        }
        let mut entries = Vec::with_capacity(number);
        for given in piece.entries {
            match looked_at(&given) {
                Ok(entry) => entries.push(entry),
                Err(violation) => {
                    answer.refused += 1;
                    if answer.refusals.len() < MAX_REFUSALS {
                        answer.refusals.push(RefusedSuppression {
                            position: answer.read,
                            field: violation.field,
                            description: violation.description,
                        });
                    }
                }
            }
            answer.read += 1;
        }
        let done = store.suppress(Some(tenant), &entries).await.map_err(Fault::from)?;
        answer.added += u64::try_from(done.added).unwrap_or(0);
        answer.messages_closed += u64::try_from(done.closed).unwrap_or(0);
    }
}

fn looked_at(given: &ImportedSuppression) -> Result<store::NewSuppression, crate::Violation> {
    entry(email("email", &given.email)?, given.cause, given.scope, &given.reason)
}
