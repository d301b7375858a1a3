//! All ways out, and which of them a letter takes.

use crate::{
    config::{PoolConfig, RelayConfig, RouteConfig, SenderConfig},
    provider::Provider,
    route::{Route, RouteError},
};
use bus::Letter;
use domain::{DomainName, Pool, PoolError, Shaping, SiteId, SiteLimits, TenantId, pool::Member};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

/// Most routes of a sender.
const MAX_ROUTES: usize = 32;
/// Longest name of a route, in characters.
const MAX_NAME: usize = 32;

/// Why the configured routes and pools cannot be used: the field, a colon, and what is wrong with it.
#[derive(Debug, thiserror::Error)]
pub enum RoutesError {
    /// Two ways to say it.
    #[error(
        "sender.route: is for a fleet with one way out; move it to sender.routes.NAME, or leave routes and pools out"
    )]
    Both,
    /// Routes that nobody uses, or nothing for some.
    #[error("sender.pools: no pool is for everybody; leave tenants and domains out of one")]
    NobodyElse,
    /// Two pools that claim the same.
    #[error("sender.pools.{pool}: {whose} is in pool {other:?} already")]
    Claimed {
        /// The later one.
        pool: String,
        /// What both claim.
        whose: String,
        /// The earlier one.
        other: String,
    },
    /// A list that is none.
    #[error("sender.pools.{pool}.routes: {source}")]
    Pool {
        /// Which.
        pool: String,
        /// Why.
        source: PoolError,
    },
    /// A name that means nothing.
    #[error("sender.pools.{pool}.routes: there is no route {route:?}; there are {known}")]
    Unknown {
        /// The pool.
        pool: String,
        /// The name.
        route: String,
        /// Those that are configured.
        known: String,
    },
    /// A route that no pool names would be one that is silently not used.
    #[error("sender.routes.{route}: no pool uses it; name it in one, or leave it out")]
    Unused {
        /// Which.
        route: String,
    },
    /// A name that is none.
    #[error("sender.routes.{route:?}: a name has 1 to {MAX_NAME} characters a-z, 0-9 and -")]
    Name {
        /// Which.
        route: String,
    },
    /// Too many.
    #[error("sender.routes: has more than {MAX_ROUTES}")]
    TooMany,
    /// One of them.
    #[error("sender.{field}: {source}")]
    Route {
        /// Where it is configured.
        field: String,
        /// What is wrong with it.
        source: RouteError,
    },
}

/// The place of a route among all of a sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct RouteId(u8);

#[cfg(test)]
impl RouteId {
    pub(crate) const fn test(place: u8) -> Self {
        Self(place)
    }
}

/// Routes that were tried for a letter.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tried(u32);

impl Tried {
    pub(crate) const fn with(self, route: RouteId) -> Self {
        Self(self.0 | 1 << route.0)
    }

    const fn has(self, route: RouteId) -> bool {
        self.0 & 1 << route.0 != 0
    }
}

/// A pool, and which routes its members are.
struct Ways {
    pool: Pool,
    routes: Vec<RouteId>,
}

/// The routes of a sender and its pools.
pub(crate) struct Routes {
    all: Vec<Arc<Route>>,
    pools: Vec<Ways>,
    /// Pools by sending domain, longest first.
    domains: Vec<(DomainName, usize)>,
    tenants: HashMap<TenantId, usize>,
    general: usize,
    /// Limits by site of routes that have none of their own.
    shaping: Shaping,
}

impl Routes {
    pub(crate) fn new(config: &SenderConfig) -> Result<Self, RoutesError> {
        let open = |field: String, name: &str, route: &RouteConfig| {
            Route::new(name.to_owned(), route, &config.deadlines, &config.breaker)
                .map(Arc::new)
                .map_err(|source| RoutesError::Route { field, source })
        };
        if config.routes.is_empty() && config.pools.is_empty() {
            let route = config.route.clone().unwrap_or_else(|| RouteConfig::Relay(RelayConfig::default()));
            let name = kind(&route);
            let only = Member { route: name.to_owned(), weight: std::num::NonZeroU16::MIN, order: 1 };
            let pool = Pool::new(vec![only]).expect("one route is a pool");
            return Ok(Self {
                all: vec![open("route".to_owned(), name, &route)?],
                pools: vec![Ways { pool, routes: vec![RouteId(0)] }],
                domains: Vec::new(),
                tenants: HashMap::new(),
                general: 0,
                shaping: config.shaping.clone(),
            });
        }
        if config.route.is_some() {
            return Err(RoutesError::Both);
        }
        if config.routes.len() > MAX_ROUTES {
            return Err(RoutesError::TooMany);
        }
        let mut all = Vec::new();
        for (name, route) in &config.routes {
            let is_fit = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
            if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(is_fit) {
                return Err(RoutesError::Name { route: name.clone() });
            }
            all.push(open(format!("routes.{name}"), name, route)?);
        }
        let places: BTreeMap<&str, RouteId> =
            config.routes.keys().zip(0..).map(|(name, place)| (name.as_str(), RouteId(place))).collect();
        let mut pools = Vec::new();
        let mut domains: Vec<(DomainName, usize)> = Vec::new();
        let mut tenants: HashMap<TenantId, usize> = HashMap::new();
        let mut general = None;
        let names: Vec<&String> = config.pools.keys().collect();
        for (index, (name, pool)) in config.pools.iter().enumerate() {
            pools.push(ways(name, pool, &places)?);
            let claimed = |whose: String, other: usize| RoutesError::Claimed {
                pool: name.clone(),
                whose,
                other: names[other].clone(),
            };
            for domain in &pool.domains {
                if let Some((_, other)) = domains.iter().find(|(one, _)| one == domain) {
                    return Err(claimed(format!("the domain {domain}"), *other));
                }
                domains.push((domain.clone(), index));
            }
            for tenant in &pool.tenants {
                if let Some(other) = tenants.insert(*tenant, index) {
                    return Err(claimed(format!("the tenant {tenant}"), other));
                }
            }
            if pool.domains.is_empty() && pool.tenants.is_empty() {
                if let Some(other) = general {
                    return Err(claimed("everybody else".to_owned(), other));
                }
                general = Some(index);
            }
        }
        let general = general.ok_or(RoutesError::NobodyElse)?;
        let is_used = |place: RouteId| pools.iter().any(|ways| ways.routes.contains(&place));
        if let Some((name, _)) = places.iter().find(|(_, place)| !is_used(**place)) {
            return Err(RoutesError::Unused { route: (*name).to_owned() });
        }
        domains.sort_by_key(|(domain, _)| std::cmp::Reverse(domain.as_str().len()));
        Ok(Self { all, pools, domains, tenants, general, shaping: config.shaping.clone() })
    }

    pub(crate) fn get(&self, id: RouteId) -> &Arc<Route> {
        &self.all[usize::from(id.0)]
    }

    /// The route of this name.
    pub(crate) fn id_of(&self, name: &str) -> Option<RouteId> {
        let place = self.all.iter().position(|route| route.name() == name)?;
        u8::try_from(place).ok().map(RouteId)
    }

    /// Says good-bye in the sessions with relays that nobody has used for so long.
    pub(crate) async fn close_unused(&self, keep: Duration) {
        for route in &self.all {
            route.close_unused(keep).await;
        }
    }

    /// The limits of a route at a site.
    pub(crate) fn limits(&self, id: RouteId, site: &SiteId) -> SiteLimits {
        self.get(id).shaping.as_ref().unwrap_or(&self.shaping).limits_for(site)
    }

    /// The limits at a site, whatever the route.
    pub(crate) fn limits_in_general(&self, site: &SiteId) -> SiteLimits {
        self.shaping.limits_for(site)
    }

    fn ways(&self, letter: &Letter) -> &Ways {
        let by_domain = || {
            let domain = letter.sender.0.as_ref().filter(|_| !self.domains.is_empty())?.domain();
            self.domains.iter().find(|(one, _)| domain.is_within(one.as_str())).map(|(_, pool)| *pool)
        };
        let pool = by_domain().or_else(|| self.tenants.get(&letter.job.tenant).copied());
        &self.pools[pool.unwrap_or(self.general)]
    }

    /// The route that a letter takes, of those that can be used now: neither tried for it, nor left alone, nor what
    /// `is_usable` knows against it.
    pub(crate) fn pick(
        &self,
        letter: &Letter,
        tried: Tried,
        now: Instant,
        is_usable: impl Fn(RouteId) -> bool,
    ) -> Option<RouteId> {
        let ways = self.ways(letter);
        let is_usable = |place: usize| {
            let id = ways.routes[place];
            !tried.has(id) && self.get(id).paused(now).is_none() && is_usable(id)
        };
        ways.pool.pick(letter.job.message, is_usable).map(|place| ways.routes[place])
    }

    /// The route that a letter waits for when none can be used.
    pub(crate) fn first(&self, letter: &Letter) -> RouteId {
        let ways = self.ways(letter);
        match ways.routes[..] {
            [only] => only,
            _ => ways.routes[ways.pool.pick(letter.job.message, |_| true).unwrap_or(0)],
        }
    }

    /// Whether a letter may go by more than one route.
    pub(crate) fn has_choice(&self, letter: &Letter) -> bool {
        self.ways(letter).routes.len() > 1
    }

    /// The site behind the domain of a letter's recipient, and how long that may be believed: as the first of its routes
    /// that talks to MX hosts sees it.
    pub(crate) async fn site(&self, letter: &Letter) -> Option<(SiteId, Duration)> {
        let mut routes = self.ways(letter).routes.iter().map(|id| self.get(*id));
        routes.find(|route| !route.is_shared())?.site(&letter.job.recipient.domain()).await
    }
}

fn ways(name: &str, config: &PoolConfig, places: &BTreeMap<&str, RouteId>) -> Result<Ways, RoutesError> {
    let members =
        config.routes.iter().map(|one| Member { route: one.route.clone(), weight: one.weight, order: one.order });
    let pool = Pool::new(members.collect()).map_err(|source| RoutesError::Pool { pool: name.to_owned(), source })?;
    let place = |member: &Member| {
        places.get(member.route.as_str()).copied().ok_or_else(|| RoutesError::Unknown {
            pool: name.to_owned(),
            route: member.route.clone(),
            known: if places.is_empty() {
                "none".to_owned()
            } else {
                places.keys().copied().collect::<Vec<_>>().join(", ")
            },
        })
    };
    let routes = pool.members().iter().map(place).collect::<Result<_, _>>()?;
    Ok(Ways { pool, routes })
}

/// The name of a route that has none of its own.
pub(crate) fn kind(route: &RouteConfig) -> &'static str {
    match (route, Provider::of(route)) {
        (RouteConfig::Direct(_), _) => "direct",
        (_, Some((provider, _))) => provider.name(),
        (_, None) => "relay",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::{Lane, MessageId, Slot};

    fn config(text: &str) -> SenderConfig {
        toml::from_str(text).unwrap()
    }

    fn problem(text: &str) -> String {
        Routes::new(&config(text)).err().map(|error| error.to_string()).unwrap_or_default()
    }

    const TWO: &str = "routes.own = { kind = 'direct' }\nroutes.relay = { kind = 'relay' }\n";

    #[tokio::test]
    async fn what_cannot_be_meant_is_refused_with_its_field() {
        let all = |routes: &str| format!("{TWO}pools.all.routes = {routes}");
        for (text, part) in [
            (format!("{TWO}route = {{ kind = 'relay' }}"), "sender.route: is for a fleet with one way out"),
            (TWO.to_owned(), "sender.pools: no pool is for everybody"),
            (all("[]"), "sender.pools.all.routes: has no route"),
            (all("[{ route = 'own' }]"), "sender.routes.relay: no pool uses it"),
            (all("[{ route = 'other' }]"), "there is no route \"other\"; there are own, relay"),
            (all("[{ route = 'own' }, { route = 'own' }]"), "names the route \"own\" twice"),
            (
                all("[{ route = 'own' }, { route = 'relay' }]\npools.more.routes = [{ route = 'own' }]"),
                "sender.pools.more: everybody else is in pool \"all\" already",
            ),
            (
                all("[{ route = 'own' }, { route = 'relay' }]\n\
                     pools.one = { domains = ['a.test'], routes = [{ route = 'own' }] }\n\
                     pools.two = { domains = ['a.test'], routes = [{ route = 'own' }] }"),
                "sender.pools.two: the domain a.test is in pool \"one\" already",
            ),
            ("routes.Own = { kind = 'direct' }".to_owned(), "sender.routes.\"Own\": a name has"),
            ("route = { kind = 'direct', helo = 'a b' }".to_owned(), "sender.route: helo: \"a b\""),
            ("route = { kind = 'ses' }".to_owned(), "sender.route: password_file: name the file"),
            (
                "routes.a = { kind = 'mailgun', password_file = '/dev/null' }".to_owned(),
                "sender.routes.a: username: give the address",
            ),
            (
                "route = { kind = 'relay', username = 'x' }".to_owned(),
                "sender.route: username and password_file go together",
            ),
        ] {
            assert!(problem(&text).contains(part), "{text}: {}", problem(&text));
        }
        let unknown = toml::from_str::<SenderConfig>("route = { kind = 'pigeon' }").unwrap_err().to_string();
        assert!(unknown.contains("sparkpost"), "{unknown}");
    }

    fn letter(tenant: TenantId, sender: &str, id: u128) -> Letter {
        let message = MessageId::from_uuid(uuid::Uuid::from_u128(id));
        Letter {
            job: bus::Job {
                message,
                release: 1,
                attempt: 0,
                bus_epoch: 1,
                queue: 1,
                tenant,
                campaign: None,
                batch: domain::BatchId::new(message.created_at()),
                content: domain::ContentId::of(tenant, &[b"x"]),
                recipient: "ann@receiver.test".parse().unwrap(),
                site: SiteId::of_domain("receiver.test"),
                lane: Lane::Bulk,
                slot: Slot::from_code(0).unwrap(),
                variables: Default::default(),
                overrides: Default::default(),
                expires_at: message.created_at(),
                alone: false,
                trace: None,
            },
            sender: domain::EnvelopeSender(Some(sender.parse().unwrap())),
            mime: None,
            smtputf8: false,
            sandbox: false,
        }
    }

    #[tokio::test]
    async fn a_letter_goes_by_the_pool_of_its_domain_else_of_its_tenant_else_of_everybody() {
        let tenant = TenantId::from_uuid(uuid::Uuid::from_u128(7));
        let other = TenantId::from_uuid(uuid::Uuid::from_u128(8));
        let relays: String = (0..4).map(|index| format!("routes.r{index} = {{ kind = 'relay' }}\n")).collect();
        let routes = Routes::new(&config(&format!(
            "{relays}pools.all.routes = [{{ route = 'r0' }}]\n\
             pools.tenant = {{ tenants = ['{tenant}'], routes = [{{ route = 'r1' }}] }}\n\
             pools.domain = {{ domains = ['example.com'], routes = [{{ route = 'r2' }}] }}\n\
             pools.below = {{ domains = ['news.example.com'], routes = [{{ route = 'r3' }}] }}\n"
        )))
        .unwrap();
        let name = |tenant, sender: &str| routes.get(routes.first(&letter(tenant, sender, 1))).name().to_owned();
        assert_eq!(name(other, "bounce+1@elsewhere.test"), "r0");
        assert_eq!(name(tenant, "bounce+1@elsewhere.test"), "r1");
        assert_eq!(name(tenant, "bounce+1@bounces.example.com"), "r2");
        assert_eq!(name(other, "bounce+1@news.example.com"), "r3");
        assert_eq!(name(other, "bounce+1@notexample.com"), "r0");
    }

    #[tokio::test]
    async fn a_route_that_was_tried_or_is_left_alone_is_not_taken() {
        let tenant = TenantId::from_uuid(uuid::Uuid::from_u128(7));
        let routes = Routes::new(&config(&format!(
            "{TWO}pools.all.routes = [{{ route = 'own' }}, {{ route = 'relay', order = 2 }}]"
        )))
        .unwrap();
        let letter = letter(tenant, "bounce+1@example.com", 1);
        let now = Instant::now();
        let pick = |tried| routes.pick(&letter, tried, now, |_| true);
        let own = pick(Tried::default()).unwrap();
        let relay = pick(Tried::default().with(own)).unwrap();
        assert_eq!((routes.get(own).name(), routes.get(relay).name()), ("own", "relay"));
        assert_eq!(pick(Tried::default().with(own).with(relay)), None);
        routes.get(own).failed(crate::route::Fault::Route, now);
        assert_eq!(pick(Tried::default()), Some(relay));
        assert_eq!(routes.first(&letter), own, "it waits for the one that comes first");
    }
}
