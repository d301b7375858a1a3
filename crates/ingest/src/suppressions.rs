//! `SuppressionService`.

use crate::{
    Fault,
    auth::{Caller, KeyRing, Scope},
    cursor::{self, List},
    mail::{caller, one_fault},
    transfers::Transfers,
    validate::{Faults, Violation, email, reason_or, timestamp as point_in_time},
    wire::timestamp,
};
use domain::{Mailbox, TenantId};
use futures_util::stream::BoxStream;
use proto::v1::{
    AddSuppressionRequest, AddSuppressionResponse, CheckSuppressionRequest, CheckSuppressionResponse,
    ExportSuppressionsRequest, ExportSuppressionsResponse, ImportSuppressionsRequest, ImportSuppressionsResponse,
    ListSuppressionsRequest, ListSuppressionsResponse, RemoveSuppressionRequest, RemoveSuppressionResponse,
    Suppression, suppression_service_server::SuppressionService,
};
use std::sync::Arc;
use store::{NewSuppression, Store, SuppressionCause, SuppressionEntry, SuppressionFilter, SuppressionPlace};
use tonic::{Request, Response, Status, Streaming};

/// Most addresses of one call, entries of one piece of an import or export, and entries of a page.
pub const MAX_ADDRESSES: usize = 1_000;
/// The same, as pages are counted.
pub const MAX_PAGE: u32 = 1_000;

/// Keeps the addresses that a tenant's mail does not go to.
pub struct Suppressions {
    /// Where they are kept.
    pub store: Store,
    /// Looks at the keys of long calls again.
    pub keys: Arc<KeyRing>,
    /// Bounds long calls.
    pub transfers: Transfers,
}

fn one(text: &str) -> Result<Mailbox, Fault> {
    email("email", text).map_err(one_fault)
}

/// The cause of the wire; unspecified is `None`.
fn cause(field: &str, code: i32) -> Result<Option<SuppressionCause>, Violation> {
    use proto::v1::SuppressionCause as Wire;
    match Wire::try_from(code) {
        Ok(Wire::Unspecified) => Ok(None),
        Ok(Wire::HardBounce) => Ok(Some(SuppressionCause::HardBounce)),
        Ok(Wire::Complaint) => Ok(Some(SuppressionCause::Complaint)),
        Ok(Wire::Unsubscribe) => Ok(Some(SuppressionCause::Unsubscribe)),
        Ok(Wire::Manual) => Ok(Some(SuppressionCause::Manual)),
        Err(_) => Err(Violation::new(field, "is not known; give one of SuppressionCause")),
    }
}

const fn wire_cause(cause: SuppressionCause) -> proto::v1::SuppressionCause {
    use proto::v1::SuppressionCause as Wire;
    match cause {
        SuppressionCause::HardBounce => Wire::HardBounce,
        SuppressionCause::Complaint => Wire::Complaint,
        SuppressionCause::Unsubscribe => Wire::Unsubscribe,
        SuppressionCause::Manual => Wire::Manual,
    }
}

/// Whether a scope of the wire is of bulk mail alone; unspecified is `None`.
fn bulk_only(field: &str, code: i32) -> Result<Option<bool>, Violation> {
    use proto::v1::SuppressionScope as Wire;
    match Wire::try_from(code) {
        Ok(Wire::Unspecified) => Ok(None),
        Ok(Wire::All) => Ok(Some(false)),
        Ok(Wire::Bulk) => Ok(Some(true)),
        Err(_) => Err(Violation::new(field, "is not known; give one of SuppressionScope")),
    }
}

const fn wire_scope(bulk_only: bool) -> proto::v1::SuppressionScope {
    if bulk_only { proto::v1::SuppressionScope::Bulk } else { proto::v1::SuppressionScope::All }
}

/// An entry to make; its faults are told under the names of its fields.
pub fn entry(
    recipient: Mailbox,
    given_cause: i32,
    given_scope: i32,
    given_reason: &str,
) -> Result<NewSuppression, Violation> {
    let cause = cause("cause", given_cause)?.unwrap_or(SuppressionCause::Manual);
    let bulk_only = bulk_only("scope", given_scope)?.unwrap_or(false);
    let reason = reason_or("reason", given_reason, cause.as_str())?;
    Ok(NewSuppression { recipient, cause, bulk_only, reason })
}

fn all(request: &AddSuppressionRequest) -> Result<Vec<NewSuppression>, Fault> {
    let mut faults = Faults::default();
    let given = &request.emails;
    if given.is_empty() || given.len() > MAX_ADDRESSES {
        let text = format!("has {} entries; give 1 to {MAX_ADDRESSES}", given.len());
        return Err(one_fault(Violation::new("emails", text)));
    }
    let mut entries = Vec::with_capacity(given.len());
    for (at, text) in given.iter().enumerate() {
        let Some(mailbox) = faults.take(email(format!("emails[{at}]"), text)) else { continue };
        match entry(mailbox, request.cause, request.scope, &request.reason) {
            Ok(entry) => entries.push(entry),
            // It is the same for every address.
            Err(violation) => return Err(one_fault(violation)),
        }
    }
    faults.finish(Some(entries))
}

/// A filter of the wire.
fn filter(given: Option<proto::v1::SuppressionFilter>) -> Result<SuppressionFilter, Fault> {
    let Some(given) = given else { return Ok(SuppressionFilter::default()) };
    let mut faults = Faults::default();
    let cause = faults.take(cause("filter.cause", given.cause));
    let bulk_only = faults.take(bulk_only("filter.scope", given.scope));
    let since = match &given.since {
        None => Some(None),
        Some(since) => faults.take(point_in_time("filter.since", since)).map(Some),
    };
    let filter = cause.zip(bulk_only).zip(since);
    faults.finish(filter.map(|((cause, bulk_only), since)| SuppressionFilter { cause, bulk_only, since }))
}

pub fn wire(entry: SuppressionEntry) -> Suppression {
    Suppression {
        email: entry.address,
        cause: wire_cause(entry.cause).into(),
        scope: wire_scope(entry.bulk_only).into(),
        reason: entry.reason,
        created_at: Some(timestamp(entry.place.created_at)),
    }
}

fn place(parts: &[&str]) -> Option<SuppressionPlace> {
    let [micros, hash] = parts else { return None };
    let created_at = chrono::DateTime::from_timestamp_micros(micros.parse().ok()?)?;
    // The form of an id, whatever it is one of.
    let hash: TenantId = hash.parse().ok()?;
    Some(SuppressionPlace { created_at, hash: hash.as_uuid() })
}

fn parts(entry: &SuppressionEntry) -> Vec<String> {
    vec![entry.place.created_at.timestamp_micros().to_string(), entry.place.hash.to_string()]
}

fn owner<T>(request: &Request<T>) -> Result<(Caller, TenantId), Fault> {
    let caller = caller(request)?;
    let tenant = caller.tenant(Scope::Suppressions)?;
    Ok((caller, tenant))
}

#[tonic::async_trait]
impl SuppressionService for Suppressions {
    type ExportSuppressionsStream = BoxStream<'static, Result<ExportSuppressionsResponse, Status>>;

    async fn add_suppression(
        &self,
        request: Request<AddSuppressionRequest>,
    ) -> Result<Response<AddSuppressionResponse>, Status> {
        let (caller, tenant) = owner(&request)?;
        let entries = all(request.get_ref())?;
        let store = caller.acting(&self.store, "SuppressionService.AddSuppression");
        let done = store.suppress(Some(tenant), &entries).await.map_err(Fault::from)?;
        tracing::info!(tenant.id = %tenant, added = done.added, closed = done.closed, "suppressed");
        Ok(Response::new(AddSuppressionResponse {
            added: u32::try_from(done.added).unwrap_or(u32::MAX),
            messages_closed: u32::try_from(done.closed).unwrap_or(u32::MAX),
        }))
    }

    async fn remove_suppression(
        &self,
        request: Request<RemoveSuppressionRequest>,
    ) -> Result<Response<RemoveSuppressionResponse>, Status> {
        let (caller, tenant) = owner(&request)?;
        let mailbox = one(&request.get_ref().email)?;
        let store = caller.acting(&self.store, "SuppressionService.RemoveSuppression");
        let removed = store.unsuppress(Some(tenant), &mailbox).await.map_err(Fault::from)?;
        Ok(Response::new(RemoveSuppressionResponse { removed }))
    }

    async fn check_suppression(
        &self,
        request: Request<CheckSuppressionRequest>,
    ) -> Result<Response<CheckSuppressionResponse>, Status> {
        let (_, tenant) = owner(&request)?;
        let mailbox = one(&request.get_ref().email)?;
        let found = self.store.suppression(tenant, mailbox.hash()).await.map_err(Fault::from)?;
        Ok(Response::new(match found {
            Some(found) => CheckSuppressionResponse {
                suppressed: true,
                reason: found.reason,
                since: Some(timestamp(found.created_at)),
                global: found.global,
                cause: wire_cause(found.cause).into(),
                scope: wire_scope(found.bulk_only).into(),
            },
            None => CheckSuppressionResponse::default(),
        }))
    }

    async fn list_suppressions(
        &self,
        request: Request<ListSuppressionsRequest>,
    ) -> Result<Response<ListSuppressionsResponse>, Status> {
        let (_, tenant) = owner(&request)?;
        let request = request.into_inner();
        let list = List::of("suppressions", Some(tenant), &request.filter.unwrap_or_default());
        let filter = filter(request.filter)?;
        let size = cursor::size(request.page_size, MAX_PAGE).map_err(one_fault)?;
        let after = list.place(&request.page_token, place).map_err(one_fault)?;
        let mut found = self.store.suppressions(tenant, &filter, after, size + 1).await.map_err(Fault::from)?;
        let next_page_token = list.cut(&mut found, size, parts);
        let suppressions = found.into_iter().map(wire).collect();
        Ok(Response::new(ListSuppressionsResponse { suppressions, next_page_token }))
    }

    async fn import_suppressions(
        &self,
        request: Request<Streaming<ImportSuppressionsRequest>>,
    ) -> Result<Response<ImportSuppressionsResponse>, Status> {
        let (caller, tenant) = owner(&request)?;
        let store = caller.acting(&self.store, "SuppressionService.ImportSuppressions");
        let answer = self.transfers.import(store, &self.keys, caller, tenant, request.into_inner()).await?;
        tracing::info!(tenant.id = %tenant, added = answer.added, refused = answer.refused, "imported suppressions");
        Ok(Response::new(answer))
    }

    async fn export_suppressions(
        &self,
        request: Request<ExportSuppressionsRequest>,
    ) -> Result<Response<Self::ExportSuppressionsStream>, Status> {
        let (caller, tenant) = owner(&request)?;
        let filter = filter(request.into_inner().filter)?;
        let stream = self.transfers.export(self.store.clone(), self.keys.clone(), caller, tenant, filter)?;
        tracing::info!(tenant.id = %tenant, api_key.id = %caller.key_id(), "exports suppressions");
        Ok(Response::new(stream))
    }
}
