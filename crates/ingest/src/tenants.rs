//! `TenantService`.

use crate::{
    Fault,
    auth::{KeyRing, Scope},
    clock::Clock,
    cursor::{self, List},
    keys::MintedKey,
    mail::{caller, one_fault},
    quota::QuotaBook,
    validate::{self, Faults, Violation, free_text, name, optional_id},
    wire::timestamp,
};
use chrono::TimeDelta;
use domain::{ApiKeyId, TenantId};
use proto::v1::{
    ApiKey, AuditEvent, CreateApiKeyRequest, CreateApiKeyResponse, CreateTenantRequest, CreateTenantResponse,
    GetTenantRequest, GetTenantResponse, KeyScope, ListApiKeysRequest, ListApiKeysResponse, ListAuditEventsRequest,
    ListAuditEventsResponse, ListTenantsRequest, ListTenantsResponse, RevokeApiKeyRequest, RevokeApiKeyResponse,
    RotateApiKeyRequest, RotateApiKeyResponse, TenantQuotas, TenantUsage, UpdateTenantRequest, UpdateTenantResponse,
    tenant_service_server::TenantService,
};
use std::sync::Arc;
use store::{MAX_PREVIOUS_SECRETS, NewApiKey, Quotas, Rotated, Store, Tenant};
use tonic::{Request, Response, Status};

/// Longest name of a key, in characters.
pub const MAX_KEY_NAME: usize = 100;
/// Most tenants or events of a page.
pub const MAX_PAGE: u32 = 1_000;
/// How long a rotated secret stays good when nothing is said.
const GRACE: TimeDelta = TimeDelta::hours(24);
/// How long it may stay good at most.
pub const MAX_GRACE: TimeDelta = TimeDelta::days(30);
/// Largest quota of the backlog: above it counting would cost more than it is worth.
const MAX_BACKLOG: u64 = 10_000_000;
/// Largest quota of recipients.
const MAX_RECIPIENTS: u64 = 1_000_000_000_000;
/// How far the backlog of a tenant without a quota on it is counted.
const MAX_COUNT: u64 = 100_000;

/// Keeps tenants and API keys.
pub struct Tenants {
    /// Where they are kept.
    pub store: Store,
    /// The time.
    pub clock: Clock,
    /// Forgets what is revoked here.
    pub keys: Arc<KeyRing>,
    /// Forgets what is changed here.
    pub quotas: Arc<QuotaBook>,
}

/// A key to make, looked at.
struct Wanted {
    tenant: Option<TenantId>,
    name: String,
    scopes: Vec<Scope>,
    expires_at: Option<chrono::DateTime<chrono::Utc>>,
}

impl Wanted {
    fn of(request: &CreateApiKeyRequest, now: chrono::DateTime<chrono::Utc>) -> Result<Self, Fault> {
        let mut faults = Faults::default();
        let tenant = faults.take(optional_id::<TenantId>("tenant_id", &request.tenant_id));
        if request.name.trim().is_empty() {
            faults.add("name", "is empty; say what the key is for");
        }
        faults.take(free_text("name", &request.name, MAX_KEY_NAME));
        let mut scopes = Vec::new();
        for (at, given) in request.scopes.iter().enumerate() {
            match KeyScope::try_from(*given).ok().and_then(Scope::from_wire) {
                Some(scope) if scopes.contains(&scope) => {}
                Some(scope) => scopes.push(scope),
                None => faults.add(format!("scopes[{at}]"), "is not known; give one of KeyScope"),
            }
        }
        if request.scopes.is_empty() {
            faults.add("scopes", "is empty; give at least one scope");
        }
        let admin = scopes.contains(&Scope::Admin);
        match tenant {
            Some(Some(_)) if admin => {
                faults.add("scopes", "has ADMIN for a key of a tenant; leave it out, or leave tenant_id out");
            }
            Some(None) if scopes != [Scope::Admin] => {
                faults.add("scopes", "must be ADMIN alone for a key without a tenant; give tenant_id otherwise");
            }
            _ => {}
        }
        let expires_at = match &request.expires_at {
            None => Some(None),
            Some(given) => faults.take(validate::timestamp("expires_at", given)).map(Some),
        };
        if expires_at.flatten().is_some_and(|end| end <= now) {
            faults.add("expires_at", "is past; give a time to come, or leave it out");
        }
        let name = request.name.trim().to_owned();
        faults.finish(tenant.zip(expires_at).map(|(tenant, expires_at)| Self { tenant, name, scopes, expires_at }))
    }
}

fn wire(key: store::ApiKey) -> ApiKey {
    let scopes = key.scopes.iter().filter_map(|word| Scope::from_stored(word));
    ApiKey {
        api_key_id: key.id.to_string(),
        name: key.name,
        scopes: scopes.map(|scope| scope.to_wire().into()).collect(),
        created_at: Some(timestamp(key.created_at)),
        expires_at: key.expires_at.map(timestamp),
        revoked_at: key.revoked_at.map(timestamp),
        rotated_at: key.rotated_at.map(timestamp),
        previous_secret_until: key.previous.iter().map(|previous| previous.until).max().map(timestamp),
    }
}

fn wire_tenant((tenant, quotas): (Tenant, Quotas)) -> proto::v1::Tenant {
    proto::v1::Tenant {
        tenant_id: tenant.id.to_string(),
        name: tenant.name,
        created_at: Some(timestamp(tenant.created_at)),
        quotas: Some(TenantQuotas {
            recipients_per_hour: quotas.per_hour,
            recipients_per_day: quotas.per_day,
            backlog: quotas.backlog,
        }),
    }
}

fn wire_event(event: store::AuditEvent) -> AuditEvent {
    AuditEvent {
        at: Some(timestamp(event.at)),
        api_key_id: event.key.map_or_else(String::new, |id| id.to_string()),
        call: event.call,
        tenant_id: event.tenant.map_or_else(String::new, |id| id.to_string()),
        resource: event.resource,
    }
}

/// What is to be changed of a tenant.
fn change(request: &UpdateTenantRequest) -> Result<(TenantId, Option<String>, Quotas), Fault> {
    let mut faults = Faults::default();
    let id = faults.take(validate::id::<TenantId>("tenant_id", &request.tenant_id));
    let new_name = match request.name.as_str() {
        "" => Some(None),
        text => faults.take(name("name", text)).map(Some),
    };
    let given = request.quotas.unwrap_or_default();
    let mut limit = |field: &str, limit: Option<u64>, most: u64| {
        if limit.is_some_and(|limit| limit > most) {
            faults.add(field, format!("is too large; give at most {most}, or 0 for no limit"));
        }
        limit
    };
    let quotas = Quotas {
        per_hour: limit("quotas.recipients_per_hour", given.recipients_per_hour, MAX_RECIPIENTS),
        per_day: limit("quotas.recipients_per_day", given.recipients_per_day, MAX_RECIPIENTS),
        backlog: limit("quotas.backlog", given.backlog, MAX_BACKLOG),
    };
    if request.name.is_empty() && quotas == Quotas::default() {
        faults.add("quotas", "changes nothing; give a quota, or a name");
    }
    faults.finish(id.zip(new_name).map(|(id, name)| (id, name, quotas)))
}

fn grace(given: Option<&prost_types::Duration>) -> Result<TimeDelta, Violation> {
    let Some(given) = given else { return Ok(GRACE) };
    let grace = u32::try_from(given.nanos).ok().and_then(|nanos| TimeDelta::new(given.seconds, nanos));
    grace
        .filter(|grace| (TimeDelta::zero()..=MAX_GRACE).contains(grace))
        .ok_or_else(|| Violation::new("grace", format!("is out of range; give 0 to {} days", MAX_GRACE.num_days())))
}

#[tonic::async_trait]
impl TenantService for Tenants {
    async fn create_tenant(
        &self,
        request: Request<CreateTenantRequest>,
    ) -> Result<Response<CreateTenantResponse>, Status> {
        let caller = caller(&request)?;
        caller.require(Scope::Admin)?;
        let name = name("name", &request.get_ref().name).map_err(one_fault)?;
        let now = self.clock.machine_now();
        let tenant = Tenant { id: TenantId::new(now), name, created_at: now };
        let store = caller.acting(&self.store, "TenantService.CreateTenant");
        store.create_tenant(&tenant).await.map_err(Fault::from)?;
        tracing::info!(tenant.id = %tenant.id, "created a tenant");
        Ok(Response::new(CreateTenantResponse { tenant_id: tenant.id.to_string() }))
    }

    async fn create_api_key(
        &self,
        request: Request<CreateApiKeyRequest>,
    ) -> Result<Response<CreateApiKeyResponse>, Status> {
        let caller = caller(&request)?;
        caller.require(Scope::Admin)?;
        let wanted = Wanted::of(request.get_ref(), self.clock.now())?;
        if let Some(tenant) = wanted.tenant
            && !self.store.tenant_exists(tenant).await.map_err(Fault::from)?
        {
            return Err(Fault::NotFound { what: "tenant" }.into());
        }
        let now = self.clock.machine_now();
        let id = ApiKeyId::new(now);
        let minted = MintedKey::new(id).map_err(|error| Fault::Internal(Box::new(error)))?;
        let key = NewApiKey {
            id,
            tenant: wanted.tenant,
            name: wanted.name,
            secret_sha256: minted.secret_sha256,
            scopes: wanted.scopes.iter().map(|scope| scope.as_str().to_owned()).collect(),
            expires_at: wanted.expires_at,
        };
        let store = caller.acting(&self.store, "TenantService.CreateApiKey");
        store.create_api_key(&key, now).await.map_err(Fault::from)?;
        self.keys.forget(id);
        tracing::info!(api_key.id = %id, "created an api key");
        Ok(Response::new(CreateApiKeyResponse { api_key: minted.token, api_key_id: id.to_string() }))
    }

    async fn revoke_api_key(
        &self,
        request: Request<RevokeApiKeyRequest>,
    ) -> Result<Response<RevokeApiKeyResponse>, Status> {
        let caller = caller(&request)?;
        caller.require(Scope::Admin)?;
        let id: ApiKeyId = validate::id("api_key_id", &request.get_ref().api_key_id).map_err(one_fault)?;
        let store = caller.acting(&self.store, "TenantService.RevokeApiKey");
        let revoked = store.revoke_api_key(None, id, self.clock.now()).await.map_err(Fault::from)?;
        if !revoked {
            return Err(Fault::NotFound { what: "API key" }.into());
        }
        self.keys.forget(id);
        tracing::info!(api_key.id = %id, "revoked an api key");
        Ok(Response::new(RevokeApiKeyResponse {}))
    }

    async fn list_api_keys(
        &self,
        request: Request<ListApiKeysRequest>,
    ) -> Result<Response<ListApiKeysResponse>, Status> {
        caller(&request)?.require(Scope::Admin)?;
        let tenant = optional_id("tenant_id", &request.get_ref().tenant_id).map_err(one_fault)?;
        let keys = self.store.api_keys(tenant).await.map_err(Fault::from)?;
        Ok(Response::new(ListApiKeysResponse { api_keys: keys.into_iter().map(wire).collect() }))
    }

    async fn list_tenants(
        &self,
        request: Request<ListTenantsRequest>,
    ) -> Result<Response<ListTenantsResponse>, Status> {
        caller(&request)?.require(Scope::Admin)?;
        let request = request.get_ref();
        let size = cursor::size(request.page_size, MAX_PAGE).map_err(one_fault)?;
        let list = List::of("tenants", None, &());
        let name = |parts: &[&str]| parts.first().map(|name| (*name).to_owned());
        let after = list.place(&request.page_token, name).map_err(one_fault)?.unwrap_or_default();
        let mut found = self.store.list_tenants(&after, size + 1).await.map_err(Fault::from)?;
        let next_page_token = list.cut(&mut found, size, |(tenant, _)| vec![tenant.name.clone()]);
        let tenants = found.into_iter().map(wire_tenant).collect();
        Ok(Response::new(ListTenantsResponse { tenants, next_page_token }))
    }

    async fn get_tenant(&self, request: Request<GetTenantRequest>) -> Result<Response<GetTenantResponse>, Status> {
        caller(&request)?.require(Scope::Admin)?;
        let named = &request.get_ref().tenant;
        let found = match validate::id::<TenantId>("tenant", named) {
            Ok(id) => self.store.tenant(id).await,
            Err(_) => self.store.tenant_named(&name("tenant", named).map_err(one_fault)?).await,
        };
        let (tenant, quotas) = found.map_err(Fault::from)?.ok_or(Fault::NotFound { what: "tenant" })?;
        let lent = self.store.lent_quota(tenant.id).await.map_err(Fault::from)?;
        let most = quotas.backlog.unwrap_or(MAX_COUNT);
        let backlog = self.store.backlog(tenant.id, most).await.map_err(Fault::from)?;
        let usage = TenantUsage { recipients_this_hour: lent.hour, recipients_today: lent.day, backlog };
        Ok(Response::new(GetTenantResponse { tenant: Some(wire_tenant((tenant, quotas))), usage: Some(usage) }))
    }

    async fn update_tenant(
        &self,
        request: Request<UpdateTenantRequest>,
    ) -> Result<Response<UpdateTenantResponse>, Status> {
        let caller = caller(&request)?;
        caller.require(Scope::Admin)?;
        let (id, name, quotas) = change(request.get_ref())?;
        let store = caller.acting(&self.store, "TenantService.UpdateTenant");
        let changed = store.update_tenant(id, name.as_deref(), &quotas).await.map_err(Fault::from)?;
        let changed = changed.ok_or(Fault::NotFound { what: "tenant" })?;
        self.quotas.forget(id);
        tracing::info!(tenant.id = %id, quotas = ?changed.1, "changed a tenant");
        Ok(Response::new(UpdateTenantResponse { tenant: Some(wire_tenant(changed)) }))
    }

    async fn rotate_api_key(
        &self,
        request: Request<RotateApiKeyRequest>,
    ) -> Result<Response<RotateApiKeyResponse>, Status> {
        let caller = caller(&request)?;
        caller.require(Scope::Admin)?;
        let request = request.get_ref();
        let mut faults = Faults::default();
        let id = faults.take(validate::id::<ApiKeyId>("api_key_id", &request.api_key_id));
        let grace = faults.take(grace(request.grace.as_ref()));
        let (id, grace) = faults.finish(id.zip(grace))?;
        let minted = MintedKey::new(id).map_err(|error| Fault::Internal(Box::new(error)))?;
        let now = self.clock.now();
        let until = now + grace;
        let store = caller.acting(&self.store, "TenantService.RotateApiKey");
        match store.rotate_api_key(id, &minted.secret_sha256, until, now).await.map_err(Fault::from)? {
            Rotated::Done => {}
            Rotated::Full => return Err(Fault::SecretsExhausted { most: MAX_PREVIOUS_SECRETS }.into()),
            Rotated::Ended => return Err(Fault::NotFound { what: "valid API key" }.into()),
        }
        self.keys.forget(id);
        tracing::info!(api_key.id = %id, "rotated an api key");
        Ok(Response::new(RotateApiKeyResponse { api_key: minted.token, previous_secret_until: Some(timestamp(until)) }))
    }

    async fn list_audit_events(
        &self,
        request: Request<ListAuditEventsRequest>,
    ) -> Result<Response<ListAuditEventsResponse>, Status> {
        caller(&request)?.require(Scope::Admin)?;
        let request = request.get_ref();
        let mut faults = Faults::default();
        let tenant = faults.take(optional_id::<TenantId>("tenant_id", &request.tenant_id));
        let key = faults.take(optional_id::<ApiKeyId>("api_key_id", &request.api_key_id));
        let size = faults.take(cursor::size(request.page_size, MAX_PAGE));
        let filters = ListAuditEventsRequest { page_size: 0, page_token: String::new(), ..request.clone() };
        let list = List::of("audit events", None, &filters);
        let number = |parts: &[&str]| parts.first()?.parse::<i64>().ok();
        let before = faults.take(list.place(&request.page_token, number));
        let asked = faults.finish(tenant.zip(key).zip(size.zip(before)))?;
        let ((tenant, key), (size, before)) = asked;
        let before = before.unwrap_or(i64::MAX);
        let mut found = self.store.audit_events(tenant, key, before, size + 1).await.map_err(Fault::from)?;
        let next_page_token = list.cut(&mut found, size, |event| vec![event.id.to_string()]);
        let events = found.into_iter().map(wire_event).collect();
        Ok(Response::new(ListAuditEventsResponse { events, next_page_token }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenants_key_cannot_administer_and_a_fleets_key_does_nothing_else() {
        let now = chrono::DateTime::UNIX_EPOCH;
        let tenant = TenantId::new(now).to_string();
        let wanted = |tenant_id: &str, scopes: &[KeyScope]| {
            let request = CreateApiKeyRequest {
                tenant_id: tenant_id.to_owned(),
                name: "a key".to_owned(),
                scopes: scopes.iter().map(|scope| i32::from(*scope)).collect(),
                expires_at: None,
            };
            Wanted::of(&request, now).is_ok()
        };
        assert!(wanted(&tenant, &[KeyScope::Send, KeyScope::Read]));
        assert!(wanted("", &[KeyScope::Admin]));
        assert!(!wanted(&tenant, &[KeyScope::Admin]));
        assert!(!wanted("", &[KeyScope::Send]));
        assert!(!wanted("", &[KeyScope::Admin, KeyScope::Send]));
        assert!(!wanted(&tenant, &[]));
        assert!(!wanted(&tenant, &[KeyScope::Unspecified]));
    }
}
