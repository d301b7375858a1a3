//! The resolver that everything here asks with.

use hickory_resolver::{
    TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolverConfig, ResolverOpts},
    net::{NetError, runtime::TokioRuntimeProvider},
};
use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

/// A resolver that cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum ResolverSetupError {
    /// A configured server is no address.
    #[error("{text:?} is not an address or address:port")]
    Server {
        /// What was given.
        text: String,
    },
    /// The system's configuration cannot be used.
    #[error("cannot set up the resolver")]
    Setup(#[source] Box<NetError>),
}

/// A resolver that asks these servers, `address` or `address:port`, or those of the system when none are given, and is
/// done within the time; it remembers so many answers.
///
/// # Errors
/// When a server is no address, or the system's configuration cannot be used.
pub fn resolver(servers: &[String], within: Duration, cache: u64) -> Result<TokioResolver, ResolverSetupError> {
    let setup = |error| ResolverSetupError::Setup(Box::new(error));
    let mut options = ResolverOpts::default();
    // Names are absolute: a search list must never turn one domain into another.
    options.ndots = 0;
    options.attempts = 2;
    options.timeout = within / 2;
    options.cache_size = cache;
    let builder = if servers.is_empty() {
        TokioResolver::builder_tokio().map_err(setup)?
    } else {
        let servers = servers.iter().map(|text| server(text)).collect::<Result<_, _>>()?;
        let servers = ResolverConfig::from_parts(None, Vec::new(), servers);
        TokioResolver::builder_with_config(servers, TokioRuntimeProvider::default())
    };
    builder.with_options(options).build().map_err(setup)
}

fn server(text: &str) -> Result<NameServerConfig, ResolverSetupError> {
    let wrong = || ResolverSetupError::Server { text: text.to_owned() };
    let (ip, port) = match text.parse::<SocketAddr>() {
        Ok(address) => (address.ip(), address.port()),
        Err(_) => (text.parse::<IpAddr>().map_err(|_| wrong())?, 53),
    };
    let with_port = |mut connection: ConnectionConfig| {
        connection.port = port;
        connection
    };
    let connections = vec![with_port(ConnectionConfig::udp()), with_port(ConnectionConfig::tcp())];
    Ok(NameServerConfig::new(ip, true, connections))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resolver_that_is_no_address_is_named() {
        assert!(server("127.0.0.1:5353").is_ok());
        assert!(server("::1").is_ok());
        assert!(matches!(server("dns.example"), Err(ResolverSetupError::Server { text }) if text == "dns.example"));
    }
}
