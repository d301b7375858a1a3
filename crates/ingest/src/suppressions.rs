//! `SuppressionService`.

use crate::{
    Fault,
    auth::Scope,
    mail::{caller, one_fault},
    validate::{Faults, Violation, email, reason},
    wire::timestamp,
};
use domain::Mailbox;
use proto::v1::{
    AddSuppressionRequest, AddSuppressionResponse, CheckSuppressionRequest, CheckSuppressionResponse,
    RemoveSuppressionRequest, RemoveSuppressionResponse, suppression_service_server::SuppressionService,
};
use store::Store;
use tonic::{Request, Response, Status};

/// Most addresses of one call.
const MAX_ADDRESSES: usize = 1_000;

/// Keeps the addresses that a tenant's mail does not go to.
pub struct Suppressions {
    /// Where they are kept.
    pub store: Store,
}

fn one(text: &str) -> Result<Mailbox, Fault> {
    email("email", text).map_err(one_fault)
}

fn all(request: &AddSuppressionRequest) -> Result<(Vec<Mailbox>, String), Fault> {
    let mut faults = Faults::default();
    let given = &request.emails;
    if given.is_empty() || given.len() > MAX_ADDRESSES {
        let text = format!("has {} entries; give 1 to {MAX_ADDRESSES}", given.len());
        return Err(one_fault(Violation::new("emails", text)));
    }
    let indexed = given.iter().enumerate();
    let mailboxes = indexed.filter_map(|(at, text)| faults.take(email(format!("emails[{at}]"), text))).collect();
    let reason = faults.take(reason("reason", &request.reason));
    faults.finish(reason.map(|reason| (mailboxes, reason)))
}

#[tonic::async_trait]
impl SuppressionService for Suppressions {
    async fn add_suppression(
        &self,
        request: Request<AddSuppressionRequest>,
    ) -> Result<Response<AddSuppressionResponse>, Status> {
        let tenant = caller(&request)?.tenant(Scope::Suppressions)?;
        let (mailboxes, reason) = all(request.get_ref())?;
        let mut answer = AddSuppressionResponse::default();
        // One transaction each: what has been suppressed stays so when a later one fails, and a repeat is harmless.
        for mailbox in &mailboxes {
            let (added, closed) = self.store.suppress(Some(tenant), mailbox, &reason).await.map_err(Fault::from)?;
            answer.added += u32::from(added);
            answer.messages_closed += u32::try_from(closed).unwrap_or(u32::MAX);
        }
        tracing::info!(tenant.id = %tenant, added = answer.added, closed = answer.messages_closed, "suppressed");
        Ok(Response::new(answer))
    }

    async fn remove_suppression(
        &self,
        request: Request<RemoveSuppressionRequest>,
    ) -> Result<Response<RemoveSuppressionResponse>, Status> {
        let tenant = caller(&request)?.tenant(Scope::Suppressions)?;
        let mailbox = one(&request.get_ref().email)?;
        let removed = self.store.unsuppress(Some(tenant), &mailbox).await.map_err(Fault::from)?;
        Ok(Response::new(RemoveSuppressionResponse { removed }))
    }

    async fn check_suppression(
        &self,
        request: Request<CheckSuppressionRequest>,
    ) -> Result<Response<CheckSuppressionResponse>, Status> {
        let tenant = caller(&request)?.tenant(Scope::Suppressions)?;
        let mailbox = one(&request.get_ref().email)?;
        let found = self.store.suppression(tenant, mailbox.hash()).await.map_err(Fault::from)?;
        Ok(Response::new(match found {
            Some(found) => CheckSuppressionResponse {
                suppressed: true,
                reason: found.reason,
                since: Some(timestamp(found.created_at)),
                global: found.global,
            },
            None => CheckSuppressionResponse::default(),
        }))
    }
}
