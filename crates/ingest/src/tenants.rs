//! `TenantService`.

use crate::{
    Fault,
    auth::{KeyRing, Scope},
    clock::Clock,
    keys::MintedKey,
    mail::{caller, one_fault},
    validate::{self, Faults, free_text, name, optional_id},
    wire::timestamp,
};
use domain::{ApiKeyId, TenantId};
use proto::v1::{
    ApiKey, CreateApiKeyRequest, CreateApiKeyResponse, CreateTenantRequest, CreateTenantResponse, KeyScope,
    ListApiKeysRequest, ListApiKeysResponse, RevokeApiKeyRequest, RevokeApiKeyResponse,
    tenant_service_server::TenantService,
};
use std::sync::Arc;
use store::{NewApiKey, Store, Tenant};
use tonic::{Request, Response, Status};

/// Longest name of a key, in characters.
const MAX_KEY_NAME: usize = 100;

/// Keeps tenants and API keys.
pub struct Tenants {
    /// Where they are kept.
    pub store: Store,
    /// The time.
    pub clock: Clock,
    /// Forgets what is revoked here.
    pub keys: Arc<KeyRing>,
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
    }
}

#[tonic::async_trait]
impl TenantService for Tenants {
    async fn create_tenant(
        &self,
        request: Request<CreateTenantRequest>,
    ) -> Result<Response<CreateTenantResponse>, Status> {
        caller(&request)?.require(Scope::Admin)?;
        let name = name("name", &request.get_ref().name).map_err(one_fault)?;
        let now = self.clock.machine_now();
        let tenant = Tenant { id: TenantId::new(now), name, created_at: now };
        self.store.create_tenant(&tenant).await.map_err(Fault::from)?;
        tracing::info!(tenant.id = %tenant.id, "created a tenant");
        Ok(Response::new(CreateTenantResponse { tenant_id: tenant.id.to_string() }))
    }

    async fn create_api_key(
        &self,
        request: Request<CreateApiKeyRequest>,
    ) -> Result<Response<CreateApiKeyResponse>, Status> {
        caller(&request)?.require(Scope::Admin)?;
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
        self.store.create_api_key(&key, now).await.map_err(Fault::from)?;
        self.keys.forget(id);
        tracing::info!(api_key.id = %id, "created an api key");
        Ok(Response::new(CreateApiKeyResponse { api_key: minted.token, api_key_id: id.to_string() }))
    }

    async fn revoke_api_key(
        &self,
        request: Request<RevokeApiKeyRequest>,
    ) -> Result<Response<RevokeApiKeyResponse>, Status> {
        caller(&request)?.require(Scope::Admin)?;
        let id: ApiKeyId = validate::id("api_key_id", &request.get_ref().api_key_id).map_err(one_fault)?;
        let revoked = self.store.revoke_api_key(None, id, self.clock.now()).await.map_err(Fault::from)?;
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
