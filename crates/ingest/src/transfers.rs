//! Imports and exports of suppression lists: calls that last, in bounded pieces.
//!
//! A piece of an import is one transaction, so a stream that breaks off has suppressed what it had committed. A piece
//! of an export is one short look at the list, so no snapshot is held while a slow reader reads. Between pieces the key
//! is looked at again, and a service that stops ends the call.

use crate::{
    Fault,
    auth::{Caller, KeyRing},
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
use store::{Store, SuppressionFilter, SuppressionPlace};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::{Status, Streaming};

/// Imports and exports at the same time.
const MAX_TRANSFERS: usize = 4;
/// Most entries of one import.
const MAX_ENTRIES: u64 = 10_000_000;
/// Refused entries of an import that are told one by one.
const MAX_REFUSALS: usize = 1_000;
/// Longest wait for the next piece of an import.
const IDLE: Duration = Duration::from_secs(60);

/// Bounds calls that last.
pub struct Transfers {
    places: Arc<Semaphore>,
    retry_after: Duration,
    life: Lifecycle,
}

impl Transfers {
    /// Ends with this lifecycle; a caller that finds no place may come back after `retry_after`.
    pub fn new(life: Lifecycle, retry_after: Duration) -> Self {
        Self { places: Arc::new(Semaphore::new(MAX_TRANSFERS)), retry_after, life }
    }

    fn place(&self) -> Result<OwnedSemaphorePermit, Fault> {
        let overloaded = |_| Fault::Overloaded { retry_after: self.retry_after };
        self.places.clone().try_acquire_owned().map_err(overloaded)
    }

    /// Runs an import to its end, or to that of the service.
    ///
    /// # Errors
    /// Those of the import, or that there is no place.
    pub async fn run<T>(&self, work: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
        let _place = self.place()?;
        tokio::select! {
            done = work => done,
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
        let export = Export { store, keys, caller, tenant, filter, _place: self.place()?, life: self.life.clone() };
        Ok(stream::try_unfold(Some((export, None)), |at| async move {
            let Some((export, after)) = at else { return Ok(None) };
            let (piece, last) = export.piece(after).await?;
            let next = last.map(|last| (export, Some(last)));
            Ok::<_, Status>((!piece.suppressions.is_empty()).then_some((piece, next)))
        })
        .boxed())
    }
}

struct Export {
    store: Store,
    keys: Arc<KeyRing>,
    caller: Caller,
    tenant: TenantId,
    filter: SuppressionFilter,
    _place: OwnedSemaphorePermit,
    life: Lifecycle,
}

impl Export {
    /// The entries after a place, and the place of the next piece, if there may be one.
    async fn piece(
        &self,
        after: Option<SuppressionPlace>,
    ) -> Result<(ExportSuppressionsResponse, Option<SuppressionPlace>), Fault> {
        if self.life.is_shutting_down() {
            return Err(Fault::Stopping);
        }
        self.keys.still(&self.caller).await?;
        let found = self.store.suppressions(self.tenant, &self.filter, after, MAX_PAGE).await?;
        let last = found.last().filter(|_| found.len() == MAX_ADDRESSES).map(|entry| entry.place);
        Ok((ExportSuppressionsResponse { suppressions: found.into_iter().map(wire).collect() }, last))
    }
}

/// Takes an import in.
///
/// # Errors
/// When a piece is too large, the key ends, the caller falls silent or breaks off, or the database does not answer.
pub async fn import(
    store: Store,
    keys: &KeyRing,
    caller: Caller,
    tenant: TenantId,
    mut pieces: Streaming<ImportSuppressionsRequest>,
) -> Result<ImportSuppressionsResponse, Status> {
    let mut answer = ImportSuppressionsResponse::default();
    loop {
        let piece = tokio::time::timeout(IDLE, pieces.message()).await.map_err(|_| Fault::DeadlineExceeded)??;
        let Some(piece) = piece else { return Ok(answer) };
        keys.still(&caller).await?;
        let number = piece.entries.len();
        if number == 0 || number > MAX_ADDRESSES {
            let text = format!("has {number} entries in one message; give 1 to {MAX_ADDRESSES}");
            return Err(Fault::field("entries", text).into());
        }
        if answer.read + u64::try_from(number).unwrap_or(u64::MAX) > MAX_ENTRIES {
            let text = format!("has more than {MAX_ENTRIES} entries; cut the import, what was read is committed");
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
