//! `EndpointService`: where a tenant has events posted to.

use crate::{
    Fault,
    auth::Scope,
    clock::Clock,
    cursor::{self, List},
    mail::{caller, one_fault},
    validate::{Faults, Violation, free_text, id},
    watch::MAX_KINDS,
    wire::{span, timestamp},
};
use domain::{EndpointId, TenantId, fact};
use posting::{EndpointUrl, SigningKey};
use proto::v1::{
    CreateEndpointRequest, CreateEndpointResponse, DeleteEndpointRequest, DeleteEndpointResponse, GetEndpointRequest,
    GetEndpointResponse, ListEndpointsRequest, ListEndpointsResponse, RedeliverRequest, RedeliverResponse,
    RetryEventsRequest, RetryEventsResponse, RotateEndpointSecretRequest, RotateEndpointSecretResponse, SignatureKind,
    TestEndpointRequest, TestEndpointResponse, UpdateEndpointRequest, UpdateEndpointResponse,
    endpoint_service_server::EndpointService,
};
use service::Sealer;
use std::{sync::Arc, time::Duration};
use store::{Endpoint, EndpointChange, EndpointState, NewEndpoint, Store};
use tonic::{Request, Response, Status};

/// Most endpoints of a page.
pub const MAX_PAGE: u32 = 1_000;
/// Most endpoints of a tenant, redeliveries included.
pub const MAX_ENDPOINTS: usize = 100;
/// Longest description.
pub const MAX_DESCRIPTION: usize = 200;
/// Longest time for which an old secret signs along.
pub const MAX_GRACE: Duration = Duration::from_secs(30 * 24 * 3600);
/// How long that is when nothing is said.
const GRACE: Duration = Duration::from_secs(24 * 3600);

/// Keeps endpoints.
pub struct Endpoints {
    /// Where they are kept.
    pub store: Store,
    /// What tells the time.
    pub clock: Clock,
    /// Seals their secrets.
    pub sealer: Option<Arc<Sealer>>,
}

impl Endpoints {
    async fn find(&self, tenant: TenantId, id: EndpointId) -> Result<proto::v1::Endpoint, Fault> {
        let (_, head) = self.store.log_range().await?;
        let found = self.store.endpoints(tenant, Some(id), None, 1).await?;
        found.into_iter().next().map(|endpoint| wire(endpoint, head)).ok_or(Fault::NotFound { what: "endpoint" })
    }

    /// A fresh key: what signs, sealed for this endpoint, and what its receiver verifies with.
    fn key(&self, kind: SignatureKind, id: EndpointId, number: i32) -> Result<(Vec<u8>, String), Fault> {
        let sealer = self.sealer.as_ref().ok_or_else(|| Fault::Internal(Box::new(NoMasterKey)))?;
        let key = match kind {
            SignatureKind::Unspecified | SignatureKind::Hmac => SigningKey::generate_hmac(),
            SignatureKind::Ed25519 => SigningKey::generate_ed25519(),
        };
        let name = posting::secret_name(&id.to_string(), number);
        let sealed =
            sealer.seal(&name, key.to_secret_text().as_bytes()).map_err(|error| Fault::Internal(Box::new(error)))?;
        Ok((sealed, key.to_receiver_text()))
    }

    /// A place in the log that is still kept.
    async fn place(&self, field: &str, seq: u64) -> Result<i64, Fault> {
        let (first, last) = self.store.log_range().await?;
        let place = i64::try_from(seq).ok().filter(|seq| (first - 1..=last).contains(seq));
        place.ok_or_else(|| {
            let text = format!("is no place in the log, which goes from {} to {last}", first - 1);
            one_fault(Violation::new(field, text))
        })
    }
}

#[derive(Debug, thiserror::Error)]
#[error("no master key is configured: set secrets.master_key_file")]
struct NoMasterKey;

fn url(text: &str) -> Result<String, Violation> {
    text.parse::<EndpointUrl>().map(|_| text.to_owned()).map_err(|error| Violation::new("url", error.to_string()))
}

fn kinds(field: &str, given: &[String], faults: &mut Faults) {
    let known = fact::words();
    if given.len() > MAX_KINDS {
        faults.add(field, format!("has {} entries; give at most {MAX_KINDS}, or none for all", given.len()));
    }
    for (at, kind) in given.iter().take(MAX_KINDS).enumerate() {
        if !known.contains(&kind.as_str()) {
            faults.add(format!("{field}[{at}]"), format!("is no kind of event; give one of {}", known.join(", ")));
        }
    }
}

fn wire(endpoint: Endpoint, head: i64) -> proto::v1::Endpoint {
    let number = |seq: i64| u64::try_from(seq).unwrap_or(0);
    let end = endpoint.until.unwrap_or(head);
    proto::v1::Endpoint {
        endpoint_id: endpoint.id.to_string(),
        url: endpoint.url,
        events: endpoint.events,
        description: endpoint.description,
        state: match endpoint.state {
            EndpointState::Active => proto::v1::EndpointState::Active,
            EndpointState::Paused => proto::v1::EndpointState::Paused,
            EndpointState::Disabled => proto::v1::EndpointState::Disabled,
        }
        .into(),
        why: endpoint.why,
        seq: number(endpoint.cursor),
        behind: number(end.saturating_sub(endpoint.cursor)),
        failures: endpoint.failures,
        failing_since: endpoint.failing_since.map(timestamp),
        next_at: (endpoint.failures > 0).then(|| timestamp(endpoint.next_at)),
        succeeded_at: endpoint.succeeded_at.map(timestamp),
        last_error: endpoint.last_error,
        parked: endpoint.parked,
        given_up: endpoint.dead,
        test_result: if endpoint.test_wanted { String::new() } else { endpoint.test_result },
        tested_at: endpoint.tested_at.filter(|_| !endpoint.test_wanted).map(timestamp),
        redelivery_of: endpoint.main.map(|main| main.to_string()).unwrap_or_default(),
        until_seq: endpoint.until.map(number).unwrap_or_default(),
        created_at: Some(timestamp(endpoint.created_at)),
    }
}

#[tonic::async_trait]
impl EndpointService for Endpoints {
    async fn create_endpoint(
        &self,
        request: Request<CreateEndpointRequest>,
    ) -> Result<Response<CreateEndpointResponse>, Status> {
        let caller = caller(&request)?;
        let tenant = caller.tenant(Scope::Endpoints)?;
        let request = request.into_inner();
        let mut faults = Faults::default();
        let url = faults.take(url(&request.url));
        kinds("events", &request.events, &mut faults);
        faults.take(free_text("description", &request.description, MAX_DESCRIPTION));
        let url = faults.finish(url)?;
        let after = match request.after_seq {
            Some(seq) => Some(self.place("after_seq", seq).await?),
            None => None,
        };
        let most = u32::try_from(MAX_ENDPOINTS).unwrap_or(u32::MAX);
        let there = self.store.endpoints(tenant, None, None, most).await.map_err(Fault::from)?;
        if there.len() >= MAX_ENDPOINTS {
            let text = format!("{MAX_ENDPOINTS} endpoints and redeliveries are there already; delete one");
            return Err(one_fault(Violation::new("url", text)).into());
        }
        let id = EndpointId::new(self.clock.now());
        let signature = request.signature();
        let (secret, key) = self.key(signature, id, 1)?;
        let new = NewEndpoint { id, url, events: request.events, description: request.description, secret, after };
        let store = caller.acting(&self.store, "EndpointService.CreateEndpoint");
        store.create_endpoint(tenant, &new).await.map_err(Fault::from)?;
        let endpoint = Some(self.find(tenant, id).await?);
        Ok(Response::new(CreateEndpointResponse { endpoint, key }))
    }

    async fn list_endpoints(
        &self,
        request: Request<ListEndpointsRequest>,
    ) -> Result<Response<ListEndpointsResponse>, Status> {
        let tenant = caller(&request)?.tenant(Scope::Endpoints)?;
        let request = request.into_inner();
        let size = cursor::size(request.page_size, MAX_PAGE).map_err(one_fault)?;
        let list = List::of("endpoints", Some(tenant), &());
        let place = |parts: &[&str]| parts.first()?.parse::<EndpointId>().ok();
        let after = list.place(&request.page_token, place).map_err(one_fault)?;
        let (_, head) = self.store.log_range().await.map_err(Fault::from)?;
        let mut found = self.store.endpoints(tenant, None, after, size + 1).await.map_err(Fault::from)?;
        let next_page_token = list.cut(&mut found, size, |endpoint| vec![endpoint.id.to_string()]);
        let endpoints = found.into_iter().map(|endpoint| wire(endpoint, head)).collect();
        Ok(Response::new(ListEndpointsResponse { endpoints, next_page_token }))
    }

    async fn get_endpoint(
        &self,
        request: Request<GetEndpointRequest>,
    ) -> Result<Response<GetEndpointResponse>, Status> {
        let tenant = caller(&request)?.tenant(Scope::Endpoints)?;
        let id = id("endpoint_id", &request.get_ref().endpoint_id).map_err(one_fault)?;
        let endpoint = Some(self.find(tenant, id).await?);
        Ok(Response::new(GetEndpointResponse { endpoint }))
    }

    async fn update_endpoint(
        &self,
        request: Request<UpdateEndpointRequest>,
    ) -> Result<Response<UpdateEndpointResponse>, Status> {
        let caller = caller(&request)?;
        let tenant = caller.tenant(Scope::Endpoints)?;
        let request = request.into_inner();
        let mut faults = Faults::default();
        let id = faults.take(id("endpoint_id", &request.endpoint_id));
        if let Some(text) = &request.url {
            faults.take(url(text));
        }
        if let Some(events) = &request.events {
            kinds("events.events", &events.events, &mut faults);
        }
        faults.take(free_text("description", request.description.as_deref().unwrap_or_default(), MAX_DESCRIPTION));
        let id = faults.finish(id)?;
        let change = EndpointChange {
            url: request.url,
            events: request.events.map(|events| events.events),
            description: request.description,
            active: request.active,
        };
        let store = caller.acting(&self.store, "EndpointService.UpdateEndpoint");
        store.change_endpoint(tenant, id, &change).await.map_err(Fault::from)?;
        let endpoint = Some(self.find(tenant, id).await?);
        Ok(Response::new(UpdateEndpointResponse { endpoint }))
    }

    async fn rotate_endpoint_secret(
        &self,
        request: Request<RotateEndpointSecretRequest>,
    ) -> Result<Response<RotateEndpointSecretResponse>, Status> {
        let caller = caller(&request)?;
        let tenant = caller.tenant(Scope::Endpoints)?;
        let request = request.into_inner();
        let mut faults = Faults::default();
        let id = faults.take(id("endpoint_id", &request.endpoint_id));
        let grace = match request.grace {
            None => Some(GRACE),
            Some(grace) => span(grace).filter(|grace| *grace <= MAX_GRACE),
        };
        if grace.is_none() {
            faults.add("grace", "is not from nothing to 30 days");
        }
        let (id, grace) = faults.finish(id.zip(grace))?;
        let number = self.store.next_endpoint_secret(tenant, id).await.map_err(Fault::from)?;
        let number = number.ok_or(Fault::NotFound { what: "endpoint" })?;
        let (sealed, key) = self.key(request.signature(), id, number)?;
        let store = caller.acting(&self.store, "EndpointService.RotateEndpointSecret");
        let is_done = store.rotate_endpoint_secret(tenant, id, number, &sealed, grace).await.map_err(Fault::from)?;
        if !is_done {
            return Err(Fault::NameTaken { what: "a newer secret of this endpoint" }.into());
        }
        Ok(Response::new(RotateEndpointSecretResponse { key }))
    }

    async fn delete_endpoint(
        &self,
        request: Request<DeleteEndpointRequest>,
    ) -> Result<Response<DeleteEndpointResponse>, Status> {
        let caller = caller(&request)?;
        let tenant = caller.tenant(Scope::Endpoints)?;
        let id = id("endpoint_id", &request.get_ref().endpoint_id).map_err(one_fault)?;
        let store = caller.acting(&self.store, "EndpointService.DeleteEndpoint");
        if !store.delete_endpoint(tenant, id).await.map_err(Fault::from)? {
            return Err(Fault::NotFound { what: "endpoint" }.into());
        }
        Ok(Response::new(DeleteEndpointResponse {}))
    }

    async fn test_endpoint(
        &self,
        request: Request<TestEndpointRequest>,
    ) -> Result<Response<TestEndpointResponse>, Status> {
        let tenant = caller(&request)?.tenant(Scope::Endpoints)?;
        let id = id("endpoint_id", &request.get_ref().endpoint_id).map_err(one_fault)?;
        if !self.store.want_test(tenant, id).await.map_err(Fault::from)? {
            return Err(Fault::NotFound { what: "endpoint" }.into());
        }
        Ok(Response::new(TestEndpointResponse {}))
    }

    async fn redeliver(&self, request: Request<RedeliverRequest>) -> Result<Response<RedeliverResponse>, Status> {
        let caller = caller(&request)?;
        let tenant = caller.tenant(Scope::Endpoints)?;
        let request = request.into_inner();
        let id = id("endpoint_id", &request.endpoint_id).map_err(one_fault)?;
        self.find(tenant, id).await?;
        let after = self.place("after_seq", request.after_seq).await?;
        let until = match request.until_seq {
            0 => self.store.log_range().await.map_err(Fault::from)?.1,
            until => self.place("until_seq", until).await?,
        };
        if until <= after {
            return Err(one_fault(Violation::new("until_seq", "does not lie behind after_seq")).into());
        }
        let run = EndpointId::new(self.clock.now());
        let store = caller.acting(&self.store, "EndpointService.Redeliver");
        if !store.redeliver(tenant, id, run, after, until).await.map_err(Fault::from)? {
            return Err(Fault::NotFound { what: "endpoint" }.into());
        }
        Ok(Response::new(RedeliverResponse { endpoint_id: run.to_string() }))
    }

    async fn retry_events(
        &self,
        request: Request<RetryEventsRequest>,
    ) -> Result<Response<RetryEventsResponse>, Status> {
        let tenant = caller(&request)?.tenant(Scope::Endpoints)?;
        let id = id("endpoint_id", &request.get_ref().endpoint_id).map_err(one_fault)?;
        self.find(tenant, id).await?;
        let retried = self.store.retry_parked(tenant, id).await.map_err(Fault::from)?;
        Ok(Response::new(RetryEventsResponse { retried }))
    }
}
