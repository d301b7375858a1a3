//! What the SMTP relay of each provider wants: where it is, who logs in, how much it takes, and the header in which a
//! message bears our id, so that the provider's webhooks repeat it.

use crate::config::{ProviderConfig, RouteConfig, TlsMode};
use domain::MessageId;

/// Port of submission with STARTTLS (RFC 6409), open at all of them.
const SUBMISSION: u16 = 587;
/// Port of submission under TLS from the first byte on (RFC 8314).
const SUBMISSIONS: u16 = 465;
/// Longest name of a stream or configuration set.
const MAX_STREAM: usize = 64;

/// One of the providers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Provider {
    Sendgrid,
    Mailgun,
    Ses,
    Postmark,
    Sparkpost,
    Resend,
}

/// An account as it is to be reached.
#[derive(Clone, Debug)]
pub(crate) struct Account {
    provider: Provider,
    stream: Option<String>,
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) username: String,
    pub(crate) tls: TlsMode,
    pub(crate) max_connections: u16,
    pub(crate) messages_per_connection: u16,
}

/// What is wrong with the configuration of a provider: the field, and the fix.
pub(crate) type Problem = (&'static str, String);

impl Provider {
    /// The provider of a route, with its configuration.
    pub(crate) fn of(route: &RouteConfig) -> Option<(Self, &ProviderConfig)> {
        Some(match route {
            RouteConfig::Direct(_) | RouteConfig::Relay(_) => return None,
            RouteConfig::Sendgrid(config) => (Self::Sendgrid, config),
            RouteConfig::Mailgun(config) => (Self::Mailgun, config),
            RouteConfig::Ses(config) => (Self::Ses, config),
            RouteConfig::Postmark(config) => (Self::Postmark, config),
            RouteConfig::Sparkpost(config) => (Self::Sparkpost, config),
            RouteConfig::Resend(config) => (Self::Resend, config),
        })
    }

    /// Its name in configuration, facts and figures.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Sendgrid => "sendgrid",
            Self::Mailgun => "mailgun",
            Self::Ses => "ses",
            Self::Postmark => "postmark",
            Self::Sparkpost => "sparkpost",
            Self::Resend => "resend",
        }
    }

    fn host(self, region: &str) -> Result<String, Problem> {
        let (host, european) = match self {
            Self::Sendgrid => ("smtp.sendgrid.net", Some("smtp.eu.sendgrid.net")),
            Self::Mailgun => ("smtp.mailgun.org", Some("smtp.eu.mailgun.org")),
            Self::Postmark => ("smtp.postmarkapp.com", None),
            Self::Sparkpost => ("smtp.sparkpostmail.com", Some("smtp.eu.sparkpostmail.com")),
            Self::Resend => ("smtp.resend.com", None),
            Self::Ses => return Ok(format!("email-smtp.{}.amazonaws.com", aws_region(region)?)),
        };
        of_region(region, host, european)
    }

    /// Who logs in where everybody uses the same word; `None` where it differs from account to account.
    const fn login(self) -> Option<&'static str> {
        match self {
            Self::Sendgrid => Some("apikey"),
            Self::Sparkpost => Some("SMTP_Injection"),
            Self::Resend => Some("resend"),
            Self::Mailgun | Self::Ses | Self::Postmark => None,
        }
    }

    /// Connections, and messages on each of them: what the provider allows, or less where it allows more than helps.
    pub(crate) const fn limits(self) -> (u16, u16) {
        match self {
            Self::Sendgrid => (100, 5_000),
            Self::Mailgun | Self::Ses => (50, 1_000),
            Self::Postmark | Self::Resend => (10, 1_000),
            Self::Sparkpost => (10, 100),
        }
    }
}

impl Account {
    /// Puts what is configured over what is known of the provider.
    pub(crate) fn new(provider: Provider, config: &ProviderConfig, password: &str) -> Result<Self, Problem> {
        for (field, is_given) in [("domain", config.domain.is_some()), ("base_url", config.base_url.is_some())] {
            if is_given {
                return Err((field, "is for transport = \"http\"; leave it out".to_owned()));
            }
        }
        let host = match &config.host {
            Some(host) => host.clone(),
            None => provider.host(&config.region)?,
        };
        let tls = config.tls.unwrap_or(TlsMode::Required);
        let username = match (&config.username, provider.login()) {
            (Some(username), _) => username.clone(),
            (None, Some(login)) => login.to_owned(),
            // The server's token is both.
            (None, None) if provider == Provider::Postmark => password.to_owned(),
            (None, None) if provider == Provider::Ses => {
                return Err(("username", "give the id of the SMTP credential's access key".to_owned()));
            }
            (None, None) => return Err(("username", "give the address of the SMTP credential".to_owned())),
        };
        check_stream(provider, config.stream.as_deref())?;
        let (max_connections, messages_per_connection) = provider.limits();
        Ok(Self {
            provider,
            stream: config.stream.clone(),
            host,
            port: config.port.unwrap_or(if tls == TlsMode::Implicit { SUBMISSIONS } else { SUBMISSION }),
            username,
            tls,
            max_connections: config.max_connections.map_or(max_connections, Into::into),
            messages_per_connection: config.messages_per_connection.map_or(messages_per_connection, Into::into),
        })
    }

    /// The header fields that go before a message's own. The provider takes them off or, as Mailgun, leaves them to be
    /// seen: so they name the message and nobody. They are not signed.
    pub(crate) fn header(&self, message: MessageId) -> String {
        let stream =
            |name: &str| self.stream.as_ref().map_or_else(String::new, |stream| format!("{name}: {stream}\r\n"));
        match self.provider {
            Provider::Sendgrid => format!("X-SMTPAPI: {{\"unique_args\":{{\"mid\":\"{message}\"}}}}\r\n"),
            Provider::Mailgun => format!("X-Mailgun-Variables: {{\"mid\":\"{message}\"}}\r\n"),
            Provider::Ses => {
                format!("X-SES-MESSAGE-TAGS: mid={message}\r\n{}", stream("X-SES-CONFIGURATION-SET"))
            }
            // Ours is the Message-ID by which a second copy is known.
            Provider::Postmark => {
                format!("X-PM-Metadata-mid: {message}\r\nX-PM-KeepID: true\r\n{}", stream("X-PM-Message-Stream"))
            }
            Provider::Sparkpost => format!("X-MSYS-API: {{\"metadata\":{{\"mid\":\"{message}\"}}}}\r\n"),
            // Repeats no value of ours; but a second copy within a day goes to nobody.
            Provider::Resend => format!("Resend-Idempotency-Key: {message}\r\n"),
        }
    }
}

/// The host of an account in a region, at a provider that has one or two of them.
pub(crate) fn of_region(region: &str, host: &str, european: Option<&str>) -> Result<String, Problem> {
    match (region, european) {
        ("" | "us", _) => Ok(host.to_owned()),
        ("eu", Some(european)) => Ok(european.to_owned()),
        (_, Some(_)) => Err(("region", format!("{region:?} is none of us and eu"))),
        (_, None) => Err(("region", "this provider has one place; leave it out".to_owned())),
    }
}

/// A region of AWS, as it stands in host names.
pub(crate) fn aws_region(region: &str) -> Result<&str, Problem> {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if region.is_empty() || !region.bytes().all(is_plain) {
        return Err(("region", "give the AWS region of the account, such as eu-central-1".to_owned()));
    }
    Ok(region)
}

/// That a stream is given only where there are streams, and in their letters.
pub(crate) fn check_stream(provider: Provider, stream: Option<&str>) -> Result<(), Problem> {
    let Some(stream) = stream else { return Ok(()) };
    if !matches!(provider, Provider::Postmark | Provider::Ses) {
        return Err(("stream", "this provider has none; leave it out".to_owned()));
    }
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if stream.is_empty() || stream.len() > MAX_STREAM || !stream.bytes().all(is_plain) {
        return Err(("stream", format!("has not 1 to {MAX_STREAM} letters, digits, hyphens, underscores")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(provider: Provider, config: &ProviderConfig) -> Result<Account, Problem> {
        Account::new(provider, config, "secret")
    }

    #[test]
    fn each_provider_is_where_its_documents_say() {
        let login = |username: &str| ProviderConfig { username: Some(username.to_owned()), ..Default::default() };
        let european = || ProviderConfig { region: "eu".to_owned(), ..login("x") };
        let ses = ProviderConfig { region: "eu-central-1".to_owned(), ..login("AKIAEXAMPLE") };
        for (provider, config, host, username) in [
            (Provider::Sendgrid, ProviderConfig::default(), "smtp.sendgrid.net", "apikey"),
            (Provider::Sendgrid, european(), "smtp.eu.sendgrid.net", "x"),
            (Provider::Mailgun, login("postmaster@mg.example.com"), "smtp.mailgun.org", "postmaster@mg.example.com"),
            (Provider::Mailgun, european(), "smtp.eu.mailgun.org", "x"),
            (Provider::Ses, ses, "email-smtp.eu-central-1.amazonaws.com", "AKIAEXAMPLE"),
            (Provider::Postmark, ProviderConfig::default(), "smtp.postmarkapp.com", "secret"),
            (Provider::Sparkpost, ProviderConfig::default(), "smtp.sparkpostmail.com", "SMTP_Injection"),
            (Provider::Sparkpost, european(), "smtp.eu.sparkpostmail.com", "x"),
            (Provider::Resend, ProviderConfig::default(), "smtp.resend.com", "resend"),
        ] {
            let account = account(provider, &config).unwrap();
            assert_eq!((account.host.as_str(), account.username.as_str()), (host, username));
            assert_eq!((account.port, account.tls), (587, TlsMode::Required));
        }
        let implicit = ProviderConfig { tls: Some(TlsMode::Implicit), ..Default::default() };
        assert_eq!(account(Provider::Resend, &implicit).unwrap().port, 465);
    }

    #[test]
    fn what_a_provider_lacks_or_cannot_have_is_named() {
        let field = |provider, config: ProviderConfig| account(provider, &config).unwrap_err().0;
        let region = |region: &str| ProviderConfig { region: region.to_owned(), ..Default::default() };
        let stream = |stream: &str| ProviderConfig { stream: Some(stream.to_owned()), ..Default::default() };
        assert_eq!(field(Provider::Ses, ProviderConfig::default()), "region");
        assert_eq!(field(Provider::Ses, region("evil.example/")), "region");
        assert_eq!(field(Provider::Ses, region("eu-west-1")), "username");
        assert_eq!(field(Provider::Mailgun, ProviderConfig::default()), "username");
        assert_eq!(field(Provider::Mailgun, region("mars")), "region");
        assert_eq!(field(Provider::Postmark, region("eu")), "region");
        assert_eq!(field(Provider::Sendgrid, stream("news")), "stream");
        assert_eq!(field(Provider::Postmark, stream("a\r\nBcc: eve@evil.test")), "stream");
    }

    #[test]
    fn our_id_stands_where_the_provider_repeats_it() {
        let message: MessageId = "01a2089f-f02b-717a-b2a9-35479c6be73a".parse().unwrap();
        let header = |provider, stream: Option<&str>| {
            let config = ProviderConfig {
                region: if provider == Provider::Ses { "eu-west-1" } else { "" }.to_owned(),
                username: Some("x".to_owned()),
                stream: stream.map(str::to_owned),
                ..Default::default()
            };
            account(provider, &config).unwrap().header(message)
        };
        assert_eq!(
            header(Provider::Sendgrid, None),
            "X-SMTPAPI: {\"unique_args\":{\"mid\":\"01a2089f-f02b-717a-b2a9-35479c6be73a\"}}\r\n"
        );
        assert_eq!(
            header(Provider::Mailgun, None),
            "X-Mailgun-Variables: {\"mid\":\"01a2089f-f02b-717a-b2a9-35479c6be73a\"}\r\n"
        );
        assert_eq!(
            header(Provider::Ses, Some("events")),
            "X-SES-MESSAGE-TAGS: mid=01a2089f-f02b-717a-b2a9-35479c6be73a\r\nX-SES-CONFIGURATION-SET: events\r\n"
        );
        assert_eq!(
            header(Provider::Postmark, Some("news")),
            "X-PM-Metadata-mid: 01a2089f-f02b-717a-b2a9-35479c6be73a\r\nX-PM-KeepID: true\r\nX-PM-Message-Stream: news\r\n"
        );
        assert_eq!(
            header(Provider::Sparkpost, None),
            "X-MSYS-API: {\"metadata\":{\"mid\":\"01a2089f-f02b-717a-b2a9-35479c6be73a\"}}\r\n"
        );
        assert_eq!(header(Provider::Resend, None), "Resend-Idempotency-Key: 01a2089f-f02b-717a-b2a9-35479c6be73a\r\n");
    }
}
