//! The ways out, and who takes which.

use domain::{DomainName, Shaping, TenantId};
use serde::{Deserialize, Serialize};
use std::{net::IpAddr, num::NonZeroU16, path::PathBuf, time::Duration};

/// Where mail goes.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum RouteConfig {
    /// Talk to the MX hosts of each recipient domain.
    Direct(DirectConfig),
    /// Hand everything to one relay.
    Relay(RelayConfig),
    /// Twilio SendGrid.
    Sendgrid(ProviderConfig),
    /// Sinch Mailgun.
    Mailgun(ProviderConfig),
    /// Amazon SES.
    Ses(ProviderConfig),
    /// Postmark.
    Postmark(ProviderConfig),
    /// Bird SparkPost.
    Sparkpost(ProviderConfig),
    /// Resend.
    Resend(ProviderConfig),
}

impl RouteConfig {
    /// Limits by site of this route alone.
    pub const fn shaping(&self) -> Option<&Shaping> {
        match self {
            Self::Direct(direct) => direct.shaping.as_ref(),
            Self::Relay(relay) => relay.shaping.as_ref(),
            Self::Sendgrid(provider)
            | Self::Mailgun(provider)
            | Self::Ses(provider)
            | Self::Postmark(provider)
            | Self::Sparkpost(provider)
            | Self::Resend(provider) => provider.shaping.as_ref(),
        }
    }
}

impl Default for RouteConfig {
    /// A relay on this host: nothing leaves the machine until somebody says so.
    fn default() -> Self {
        Self::Relay(RelayConfig::default())
    }
}

/// Talk to MX hosts.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DirectConfig {
    /// The name given with EHLO; must resolve to the source address (RFC 5321, 4.1.1.1).
    pub helo: String,
    /// The address that connections come from. Default: the system's choice.
    pub source: Option<IpAddr>,
    /// DNS servers, as `address` or `address:port`. Default: those of the system.
    pub resolvers: Vec<String>,
    /// Longest wait for one DNS answer, tries included. Default 10 s.
    #[serde(with = "humantime_serde")]
    pub dns_timeout: Duration,
    /// The port of MX hosts. Default 25.
    pub port: NonZeroU16,
    /// Which addresses may be connected to.
    pub addresses: AddressPolicy,
    /// Most MX hosts tried in one attempt. Default 2.
    pub hosts_per_attempt: NonZeroU16,
    /// Most addresses of one host tried in one attempt. Default 2.
    pub addresses_per_host: NonZeroU16,
    /// How long a learned site of a domain is believed. Default 1 day.
    #[serde(with = "humantime_serde")]
    pub site_ttl: Duration,
    /// Limits by destination site on this route, instead of the sender's.
    pub shaping: Option<Shaping>,
}

impl Default for DirectConfig {
    fn default() -> Self {
        Self {
            helo: "localhost".to_owned(),
            source: None,
            resolvers: Vec::new(),
            dns_timeout: Duration::from_secs(10),
            port: const { NonZeroU16::new(25).expect("not zero") },
            addresses: AddressPolicy::Public,
            hosts_per_attempt: const { NonZeroU16::new(2).expect("not zero") },
            addresses_per_host: const { NonZeroU16::new(2).expect("not zero") },
            site_ttl: Duration::from_secs(24 * 3600),
            shaping: None,
        }
    }
}

/// Which addresses may be connected to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AddressPolicy {
    /// Public ones only: an MX record must not make the fleet talk to its own network.
    #[default]
    Public,
    /// Any. For closed networks and tests.
    Any,
}

/// Hand everything to one relay.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RelayConfig {
    /// Host name or address. Default `127.0.0.1`.
    pub host: String,
    /// Port. Default 2525.
    pub port: u16,
    /// The name given with EHLO. Default `localhost`.
    pub helo: String,
    /// Encryption. Default opportunistic.
    pub tls: TlsMode,
    /// File of certificates (PEM) that the relay's is verified by. Default: Mozilla's roots.
    pub ca_file: Option<PathBuf>,
    /// User name, when the relay wants one.
    pub username: Option<String>,
    /// File that holds the password.
    pub password_file: Option<PathBuf>,
    /// Send the password without TLS; only for a relay on this host. Default false.
    pub allow_password_without_tls: bool,
    /// Connections that one sender has open to it at once, whatever the receivers; one of several is kept for
    /// transactional mail. Default 100.
    pub max_connections: NonZeroU16,
    /// Messages after which a connection is closed. Default 1,000.
    pub messages_per_connection: NonZeroU16,
    /// Limits by destination site on this route, instead of the sender's.
    pub shaping: Option<Shaping>,
}

impl Default for RelayConfig {
    fn default() -> Self {
        Self {
            host: "127.0.0.1".to_owned(),
            port: 2525,
            helo: "localhost".to_owned(),
            tls: TlsMode::Opportunistic,
            ca_file: None,
            username: None,
            password_file: None,
            allow_password_without_tls: false,
            max_connections: const { NonZeroU16::new(100).expect("not zero") },
            messages_per_connection: const { NonZeroU16::new(1_000).expect("not zero") },
            shaping: None,
        }
    }
}

/// Encryption towards a relay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TlsMode {
    /// Never.
    None,
    /// When it is offered, to whoever answers.
    #[default]
    Opportunistic,
    /// STARTTLS, verified, or nothing.
    Required,
    /// TLS from the first byte on, verified (port 465).
    Implicit,
}

/// How a provider is reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Transport {
    /// Its SMTP relay.
    #[default]
    Smtp,
    /// Its HTTP API. Mailgun, SES and SparkPost take the mail as it was signed; SendGrid, Postmark and Resend take its
    /// parts and sign what they make of them.
    Http,
}

/// Hand everything to an account at a provider, over its SMTP relay or its HTTP API. Host, port, user name and limits are the
/// provider's where nothing else is said; our message id travels in the header from which its webhooks repeat it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProviderConfig {
    /// How it is reached. Default `smtp`. With `http` the key is in `password_file`, `deadlines.connect` bounds the
    /// connection with its handshake and `deadlines.dot` the answer to a request.
    pub transport: Transport,
    /// With `http` at Mailgun: the sending domain of the account.
    pub domain: Option<DomainName>,
    /// With `http`: scheme, host and port instead of the provider's, as `https://HOST:PORT`; plain `http` only to a
    /// loopback address.
    pub base_url: Option<String>,
    /// Where the account lives: the AWS region of SES, `eu` for such an account at SendGrid, Mailgun or SparkPost.
    pub region: String,
    /// User name: at Mailgun the credential's address, at SES the access key's id (with `http` too), at Postmark the
    /// access key of a stream, or nothing for the server's token; elsewhere it is a fixed word.
    pub username: Option<String>,
    /// File that holds the API key, the server's token, the SMTP password, or at SES with `http` the access key's
    /// secret.
    pub password_file: Option<PathBuf>,
    /// The message stream at Postmark, the configuration set at SES.
    pub stream: Option<String>,
    /// The name given with EHLO. Default `localhost`.
    pub helo: Option<String>,
    /// Host, instead of the provider's. Its certificate must bear this name.
    pub host: Option<String>,
    /// Port, instead of 587.
    pub port: Option<u16>,
    /// Encryption, instead of STARTTLS with a verified certificate.
    pub tls: Option<TlsMode>,
    /// File of certificates (PEM) that the host's is verified by. Default: Mozilla's roots.
    pub ca_file: Option<PathBuf>,
    /// Send the password without TLS; only for a stand-in on this host. Default false.
    pub allow_password_without_tls: bool,
    /// Connections that one sender has open at once, instead of what the provider allows or advises.
    pub max_connections: Option<NonZeroU16>,
    /// Messages after which a connection is closed, instead of the provider's number.
    pub messages_per_connection: Option<NonZeroU16>,
    /// Limits by destination site on this route, instead of the sender's.
    pub shaping: Option<Shaping>,
}

/// Routes that share the mail of some tenants and domains.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PoolConfig {
    /// Whose mail. Nothing here and in `domains`: that of all whom no other pool names.
    pub tenants: Vec<TenantId>,
    /// Sending domains: mail whose return path lies at or below one of them. Comes before `tenants`; of several domains
    /// the longest counts.
    pub domains: Vec<DomainName>,
    /// The routes.
    pub routes: Vec<PoolRouteConfig>,
}

/// A route in a pool.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PoolRouteConfig {
    /// Its name.
    pub route: String,
    /// Its share beside the others of the same order. Default 1.
    #[serde(default = "one")]
    pub weight: NonZeroU16,
    /// Lower ones first; the next are for when none of these can be used. Default 1.
    #[serde(default = "first")]
    pub order: u16,
}

const fn one() -> NonZeroU16 {
    NonZeroU16::MIN
}

const fn first() -> u16 {
    1
}

/// When a route that fails, whatever the receiver, is left alone.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BreakerConfig {
    /// First pause; doubles up to 64 times as long while it goes on. Default 1 s.
    #[serde(with = "humantime_serde")]
    pub pause: Duration,
    /// Pause after a relay refused user name and password, which does not pass by itself. Default 5 min.
    #[serde(with = "humantime_serde")]
    pub credentials: Duration,
}

impl Default for BreakerConfig {
    fn default() -> Self {
        Self { pause: Duration::from_secs(1), credentials: Duration::from_secs(300) }
    }
}
