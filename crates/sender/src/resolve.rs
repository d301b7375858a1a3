//! From a recipient domain to the hosts that take its mail (RFC 5321, 5.1; RFC 7505).

use crate::config::{AddressPolicy, DirectConfig};
use dns::ResolverSetupError;
use domain::{BounceClass, DomainName, SiteId};
use hickory_resolver::{TokioResolver, proto::rr::RData};
use std::{
    collections::hash_map::RandomState,
    hash::BuildHasher,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

/// Most MX records looked at; a domain with more is served by the best of them.
const MAX_MX_RECORDS: usize = 20;
/// Most answers remembered while they hold.
const MAX_REMEMBERED: u64 = 10_000;

/// Why no host can be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ResolveError {
    /// The domain does not exist.
    #[error("the domain does not exist")]
    NoSuchDomain,
    /// The domain says that it takes no mail (RFC 7505).
    #[error("the domain takes no mail: null MX")]
    NullMx,
    /// Every host's addresses are private, loopback or otherwise not to be connected to.
    #[error("every MX host of the domain has an address that mail must not go to")]
    Forbidden,
    /// The best host is this one: its mail would come back for ever (RFC 5321, 5.1).
    #[error("the domain's mail is to be brought to the host that sends it")]
    Own,
    /// No host has an address at the moment.
    #[error("no MX host of the domain has an address")]
    NoAddress,
    /// DNS does not answer, or answers with a failure.
    #[error("cannot look up the MX hosts: {0}")]
    Failed(String),
}

impl ResolveError {
    /// Whether waiting cannot help.
    pub(crate) fn is_permanent(&self) -> bool {
        match self {
            Self::NoSuchDomain | Self::NullMx | Self::Forbidden | Self::Own => true,
            Self::NoAddress | Self::Failed(_) => false,
        }
    }

    /// What it says.
    pub(crate) fn class(&self) -> BounceClass {
        match self {
            Self::NoSuchDomain | Self::NullMx | Self::Forbidden => BounceClass::BadDomain,
            Self::Own => BounceClass::RoutingErrors,
            Self::NoAddress | Self::Failed(_) => BounceClass::DnsFailure,
        }
    }
}

pub(crate) struct MxResolver {
    resolver: TokioResolver,
    addresses: AddressPolicy,
    timeout: Duration,
    order: RandomState,
    /// The name that this host gives with EHLO, unless it is an address.
    own: Option<DomainName>,
}

impl MxResolver {
    pub(crate) fn new(config: &DirectConfig) -> Result<Self, ResolverSetupError> {
        let resolver = dns::resolver(&config.resolvers, config.dns_timeout, MAX_REMEMBERED)?;
        Ok(Self {
            resolver,
            addresses: config.addresses,
            timeout: config.dns_timeout,
            order: RandomState::new(),
            own: config.helo.parse().ok(),
        })
    }

    /// The hosts of a domain, best first, in random order within a preference (RFC 5321, 5.1).
    pub(crate) async fn hosts(&self, domain: &DomainName) -> Result<Vec<DomainName>, ResolveError> {
        let found = match self.in_time(self.resolver.mx_lookup(format!("{domain}."))).await? {
            Ok(found) => found,
            Err(error) if error.is_nx_domain() => return Err(ResolveError::NoSuchDomain),
            // No MX record: the domain itself is the host (the implicit MX).
            Err(error) if error.is_no_records_found() && self.is_own(domain.as_str()) => return Err(ResolveError::Own),
            Err(error) if error.is_no_records_found() => return Ok(vec![domain.clone()]),
            Err(error) => return Err(ResolveError::Failed(error.to_string())),
        };
        let mut records: Vec<(u16, u64, String)> = found
            .answers()
            .iter()
            .filter_map(|record| match &record.data {
                RData::MX(mx) => {
                    let host = mx.exchange.to_ascii();
                    Some((mx.preference, self.order.hash_one(&host), host))
                }
                _ => None,
            })
            .collect();
        if records.len() == 1 && records[0].2 == "." {
            return Err(ResolveError::NullMx);
        }
        records.sort_unstable();
        // From this host on the way leads back to it, never on (RFC 5321, 5.1).
        if let Some(own) = records.iter().find(|(_, _, host)| self.is_own(host)).map(|(preference, ..)| *preference) {
            records.retain(|(preference, ..)| *preference < own);
            if records.is_empty() {
                return Err(ResolveError::Own);
            }
        }
        let hosts: Vec<DomainName> = records
            .into_iter()
            .take(MAX_MX_RECORDS)
            .filter_map(|(_, _, host)| host.trim_end_matches('.').parse().ok())
            .collect();
        if hosts.is_empty() { Err(ResolveError::NoAddress) } else { Ok(hosts) }
    }

    fn is_own(&self, host: &str) -> bool {
        self.own.as_ref().is_some_and(|own| own.as_str().eq_ignore_ascii_case(host.trim_end_matches('.')))
    }

    /// The site behind a domain, when its hosts can be had now.
    pub(crate) async fn site(&self, domain: &DomainName) -> Option<SiteId> {
        SiteId::of_mx_hosts(&self.hosts(domain).await.ok()?)
    }

    /// The addresses of a host that may be connected to, at most `most`.
    pub(crate) async fn addresses(
        &self,
        host: &DomainName,
        port: u16,
        most: usize,
    ) -> Result<Vec<SocketAddr>, ResolveError> {
        let found = match self.in_time(self.resolver.lookup_ip(format!("{host}."))).await? {
            Ok(found) => found,
            Err(error) if error.is_no_records_found() => return Err(ResolveError::NoAddress),
            Err(error) => return Err(ResolveError::Failed(error.to_string())),
        };
        let all: Vec<IpAddr> = found.iter().collect();
        let allowed: Vec<SocketAddr> = all
            .iter()
            .filter(|address| self.addresses == AddressPolicy::Any || domain::is_public(**address))
            .take(most)
            .map(|address| SocketAddr::new(*address, port))
            .collect();
        if allowed.is_empty() && !all.is_empty() { Err(ResolveError::Forbidden) } else { Ok(allowed) }
    }

    async fn in_time<T>(&self, answer: impl Future<Output = T>) -> Result<T, ResolveError> {
        tokio::time::timeout(self.timeout, answer)
            .await
            .map_err(|_| ResolveError::Failed("no answer in time".to_owned()))
    }
}
