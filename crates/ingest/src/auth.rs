//! Who calls, and what for.
//!
//! A key is looked up once per [`KeyRing`] term (default 5 s) and remembered, revoked and unknown ones too: so a
//! revocation holds everywhere within that term, and a flood of calls with a bad key costs the database little. The
//! answer to a key that is unknown, wrong, revoked or expired is the same.

use crate::{Fault, clock::Clock, keys::PresentedKey};
use domain::{ApiKeyId, TenantId};
use http::HeaderMap;
use proto::v1::KeyScope;
use std::{
    collections::HashMap,
    sync::{Arc, RwLock},
    time::Duration,
};
use store::{Actor, ApiKey, PreviousSecret, Store};
use tokio::{sync::Semaphore, time::Instant};

/// Names the tenant that a key which administers the fleet acts for.
pub const TENANT_HEADER: &str = "mailfleet-tenant";
/// Most keys remembered; above it the oldest looks are forgotten.
const MAX_REMEMBERED: usize = 20_000;
/// A secret that does not fit is looked at afresh when the last look is older than this: it may have been rotated.
const MISFIT_TERM: Duration = Duration::from_secs(1);
/// Look-ups of keys at the same time, so that made-up ids cannot take all connections.
const MAX_LOOKUPS: usize = 4;

/// Something that a key is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Send and cancel mail.
    Send,
    /// Look at messages and queues.
    Read,
    /// Templates.
    Templates,
    /// Sending domains.
    Domains,
    /// The suppression list.
    Suppressions,
    /// Where events are posted to.
    Endpoints,
    /// Everything, for every tenant.
    Admin,
}

impl Scope {
    /// Every scope.
    pub const ALL: [Self; 7] =
        [Self::Send, Self::Read, Self::Templates, Self::Domains, Self::Suppressions, Self::Endpoints, Self::Admin];

    /// The word in Postgres and in the metadata of errors.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Send => "SEND",
            Self::Read => "READ",
            Self::Templates => "TEMPLATES",
            Self::Domains => "DOMAINS",
            Self::Suppressions => "SUPPRESSIONS",
            Self::Endpoints => "ENDPOINTS",
            Self::Admin => "ADMIN",
        }
    }

    /// The scope behind a word of Postgres.
    pub fn from_stored(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.as_str().eq_ignore_ascii_case(word))
    }

    /// The scope of the wire; `None` for the unspecified one.
    pub const fn from_wire(scope: KeyScope) -> Option<Self> {
        match scope {
            KeyScope::Unspecified => None,
            KeyScope::Send => Some(Self::Send),
            KeyScope::Read => Some(Self::Read),
            KeyScope::Templates => Some(Self::Templates),
            KeyScope::Domains => Some(Self::Domains),
            KeyScope::Suppressions => Some(Self::Suppressions),
            KeyScope::Endpoints => Some(Self::Endpoints),
            KeyScope::Admin => Some(Self::Admin),
        }
    }

    /// The scope for the wire.
    pub const fn to_wire(self) -> KeyScope {
        match self {
            Self::Send => KeyScope::Send,
            Self::Read => KeyScope::Read,
            Self::Templates => KeyScope::Templates,
            Self::Domains => KeyScope::Domains,
            Self::Suppressions => KeyScope::Suppressions,
            Self::Endpoints => KeyScope::Endpoints,
            Self::Admin => KeyScope::Admin,
        }
    }

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// Who calls: a key that has proved itself.
#[derive(Clone, Copy)]
pub struct Caller {
    key: PresentedKey,
    tenant: Option<TenantId>,
    is_admin: bool,
    scopes: u8,
}

impl Caller {
    /// The tenant that the call acts for, if the key is good for `scope`. A key that administers the fleet is good
    /// for all, and names its tenant.
    ///
    /// # Errors
    /// When the scope is missing, or no tenant is named.
    pub fn tenant(&self, scope: Scope) -> Result<TenantId, Fault> {
        self.require(scope)?;
        self.tenant.ok_or(Fault::TenantUnnamed)
    }

    /// As [`Self::tenant`], where a key that administers the fleet may act for all tenants.
    ///
    /// # Errors
    /// When the scope is missing.
    pub fn tenant_or_all(&self, scope: Scope) -> Result<Option<TenantId>, Fault> {
        self.require(scope)?;
        Ok(self.tenant)
    }

    /// That the key is good for `scope`.
    ///
    /// # Errors
    /// When it is not.
    pub fn require(&self, scope: Scope) -> Result<(), Fault> {
        let has = self.is_admin || (scope != Scope::Admin && self.scopes & scope.bit() != 0);
        if has { Ok(()) } else { Err(Fault::ScopeMissing { scope: scope.as_str() }) }
    }

    /// The key.
    pub fn key_id(&self) -> ApiKeyId {
        self.key.id
    }

    /// The store, whose changes are entered in the audit log as this caller's by `call`.
    pub fn acting(&self, store: &Store, call: &'static str) -> Store {
        store.acting(Actor { key: Some(self.key.id), call })
    }

    /// Whether the key administers the fleet.
    pub fn is_admin(&self) -> bool {
        self.is_admin
    }
}

/// The keys, remembered for a short while.
pub struct KeyRing {
    store: Store,
    clock: Clock,
    term: Duration,
    seen: RwLock<HashMap<ApiKeyId, Seen>>,
    lookups: Semaphore,
}

#[derive(Clone)]
struct Seen {
    at: Instant,
    key: Option<Arc<ApiKey>>,
}

impl KeyRing {
    /// A ring that forgets what it has seen after `term`.
    pub fn new(store: Store, clock: Clock, term: Duration) -> Self {
        Self { store, clock, term, seen: RwLock::default(), lookups: Semaphore::new(MAX_LOOKUPS) }
    }

    /// Who calls with these header fields.
    ///
    /// # Errors
    /// When there is no key, it is not valid, or the database cannot be asked.
    pub async fn caller(&self, headers: &HeaderMap) -> Result<Caller, Fault> {
        let presented = bearer(headers).and_then(PresentedKey::parse).ok_or(Fault::Unauthenticated)?;
        let stored = self.prove(&presented).await?;
        let is_admin = stored.tenant.is_none();
        let tenant = match (stored.tenant, headers.get(TENANT_HEADER)) {
            (Some(own), _) => Some(own),
            (None, None) => None,
            (None, Some(named)) => {
                let named = named.to_str().ok().and_then(|text| text.parse().ok());
                Some(named.ok_or_else(|| Fault::field(TENANT_HEADER, "is not an id; give the id of a tenant"))?)
            }
        };
        let scopes = stored.scopes.iter().filter_map(|word| Scope::from_stored(word));
        Ok(Caller { key: presented, tenant, is_admin, scopes: scopes.fold(0, |bits, scope| bits | scope.bit()) })
    }

    /// That the key of a call that lasts is still valid.
    ///
    /// # Errors
    /// As [`Self::caller`].
    pub async fn still(&self, caller: &Caller) -> Result<(), Fault> {
        self.prove(&caller.key).await.map(drop)
    }

    async fn prove(&self, presented: &PresentedKey) -> Result<Arc<ApiKey>, Fault> {
        let mut stored = self.look(presented.id, self.term).await?;
        if stored.as_ref().is_some_and(|key| !self.fits(presented, key)) {
            stored = self.look(presented.id, self.term.min(MISFIT_TERM)).await?;
        }
        // An unknown key is compared with nothing: ids are no secret, and the answer is the same.
        let valid = stored.filter(|key| {
            let proved = self.fits(presented, key);
            proved && key.good_at(self.clock.now())
        });
        valid.ok_or(Fault::Unauthenticated)
    }

    /// Whether it has the key's secret, or an earlier one in its time of grace.
    fn fits(&self, presented: &PresentedKey, key: &ApiKey) -> bool {
        let earlier = |secret: &PreviousSecret| presented.proves(&secret.sha256) && secret.until > self.clock.now();
        presented.proves(&key.secret_sha256) || key.previous.iter().any(earlier)
    }

    /// The key as it was at most `term` ago.
    async fn look(&self, id: ApiKeyId, term: Duration) -> Result<Option<Arc<ApiKey>>, Fault> {
        if let Some(seen) = self.remembered(id, term) {
            return Ok(seen);
        }
        let _permit = self.lookups.acquire().await.map_err(|_| Fault::Stopping)?;
        // Somebody else may have looked while this call waited its turn.
        if let Some(seen) = self.remembered(id, term) {
            return Ok(seen);
        }
        // Taken before the look: a revocation after it is seen when the term ends, never later.
        let at = Instant::now();
        let key = self.store.api_key(id).await?.map(Arc::new);
        let mut seen = self.seen.write().expect("no holder of this lock panics");
        if seen.len() >= MAX_REMEMBERED {
            seen.retain(|_, seen| seen.at.elapsed() < self.term);
            if seen.len() >= MAX_REMEMBERED {
                seen.clear();
            }
        }
        seen.insert(id, Seen { at, key: key.clone() });
        Ok(key)
    }

    fn remembered(&self, id: ApiKeyId, term: Duration) -> Option<Option<Arc<ApiKey>>> {
        let seen = self.seen.read().expect("no holder of this lock panics");
        seen.get(&id).filter(|seen| seen.at.elapsed() < term).map(|seen| seen.key.clone())
    }

    /// Forgets a key, so that its revocation here is seen at once.
    pub fn forget(&self, id: ApiKeyId) {
        self.seen.write().expect("no holder of this lock panics").remove(&id);
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(http::header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::MintedKey;

    fn caller(scopes: &[Scope], tenant: Option<TenantId>, is_admin: bool) -> Caller {
        let id = ApiKeyId::new(chrono::DateTime::UNIX_EPOCH);
        let token = MintedKey::new(id).expect("the system has randomness").token;
        let key = PresentedKey::parse(&token).expect("its form is right");
        Caller { key, tenant, is_admin, scopes: scopes.iter().fold(0, |bits, scope| bits | scope.bit()) }
    }

    #[test]
    fn a_key_is_good_for_its_scopes_only() {
        let tenant = TenantId::new(chrono::DateTime::UNIX_EPOCH);
        let sends = caller(&[Scope::Send], Some(tenant), false);
        assert!(matches!(sends.tenant(Scope::Send), Ok(own) if own == tenant));
        for other in Scope::ALL.into_iter().filter(|scope| *scope != Scope::Send) {
            assert!(matches!(sends.require(other), Err(Fault::ScopeMissing { .. })), "{other:?}");
        }
        // A tenant's key never administers, whatever is stored beside it.
        assert!(caller(&[Scope::Admin], Some(tenant), false).require(Scope::Admin).is_err());
    }

    #[test]
    fn a_key_of_the_fleet_names_its_tenant() {
        let admin = caller(&[Scope::Admin], None, true);
        assert!(matches!(admin.tenant(Scope::Send), Err(Fault::TenantUnnamed)));
        assert!(matches!(admin.tenant_or_all(Scope::Read), Ok(None)));
    }

    #[test]
    fn the_token_stands_after_bearer() {
        let with = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(http::header::AUTHORIZATION, http::HeaderValue::from_static(value));
            headers
        };
        assert_eq!(bearer(&with("Bearer abc")), Some("abc"));
        assert_eq!(bearer(&with("bearer abc")), Some("abc"));
        assert_eq!(bearer(&with("Basic abc")), None);
        assert_eq!(bearer(&with("abc")), None);
        assert_eq!(bearer(&HeaderMap::new()), None);
    }

    #[test]
    fn scopes_round_trip_through_postgres_and_the_wire() {
        for scope in Scope::ALL {
            assert_eq!(Scope::from_stored(scope.as_str()), Some(scope));
            assert_eq!(Scope::from_wire(scope.to_wire()), Some(scope));
        }
    }
}
