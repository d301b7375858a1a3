//! The HTTP APIs of providers: where they are, what is asked of them, and what their answers mean.
//!
//! A request that may have been written and has no answer is in doubt, as a final dot without a reply is: the lane's
//! policy decides, never another route.

mod delivery;
mod link;
mod mailgun;
mod parts;
mod postmark;
mod resend;
mod sendgrid;
mod ses;
mod sparkpost;

pub(crate) use delivery::over;
pub(crate) use link::{Link, LinkError};

use crate::{
    config::{Deadlines, ProviderConfig},
    provider::{self, Problem, Provider},
};
use chrono::{DateTime, Utc};
use domain::{BounceClass, MessageId, text::sanitise};
use http_body_util::Full;
use hyper::{
    HeaderMap, Request, StatusCode, Uri,
    header::{CONTENT_TYPE, HOST, HeaderValue, RETRY_AFTER, USER_AGENT},
    http::uri::Scheme,
};
use serde_json::Value;
use smtp::TlsContext;
use std::{borrow::Cow, net::IpAddr, time::Duration};
use tokio_util::bytes::Bytes;

/// Wait after an answer that says "too fast" and not until when.
const UNSTATED_WAIT: Duration = Duration::from_secs(60);
/// Longest wait that an answer may impose, and the wait after one that speaks of a day or a month.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);
/// Longest text kept of an answer, in characters.
const MAX_TEXT: usize = 300;

/// An account at a provider's HTTP API.
pub(crate) struct Api {
    driver: Box<dyn Driver>,
    pub(crate) host: String,
    pub(crate) port: u16,
    is_tls: bool,
    authority: HeaderValue,
    tls: TlsContext,
    connect: Duration,
    answer: Duration,
}

/// What differs from provider to provider.
trait Driver: Send + Sync {
    /// Longest mail, in octets.
    fn most(&self) -> usize;

    /// Where mail is handed over.
    fn path(&self) -> &str;

    /// The body that hands over a mail, and its type; or why the provider would not take it.
    fn body(&self, parcel: &Parcel<'_>) -> Result<(Cow<'static, str>, Vec<u8>), Answer>;

    /// The header fields that show who asks, and what else the provider wants. Values are of visible ASCII.
    fn sign(&self, ask: &Ask<'_>) -> Vec<(&'static str, String)>;

    /// The provider's own name for a mail that it took.
    fn id<'a>(&self, reply: &'a Reply<'_>) -> Option<&'a str>;

    /// The words in which it says why not.
    fn words<'a>(&self, json: &'a Value) -> Option<&'a str>;

    /// What an answer means that does not mean what its status usually does.
    fn judge(&self, reply: &Reply<'_>) -> Option<Meaning>;
}

/// A mail that is to be handed over to one recipient.
struct Parcel<'a> {
    message: MessageId,
    recipient: &'a str,
    mime: &'a [u8],
}

/// A request as far as it stands before it is signed.
struct Ask<'a> {
    authority: &'a str,
    message: MessageId,
    content_type: &'a str,
    body: &'a [u8],
    now: DateTime<Utc>,
}

/// What came back.
struct Reply<'a> {
    status: u16,
    headers: &'a HeaderMap,
    json: Option<Value>,
    body: &'a [u8],
}

impl Reply<'_> {
    /// A value of the JSON, by its path; null where there is none.
    fn at(&self, path: &str) -> &Value {
        self.json.as_ref().and_then(|json| json.pointer(path)).unwrap_or(&Value::Null)
    }
}

/// What an answer means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// The provider has the mail.
    Taken,
    /// It will never take this one.
    Refused(BounceClass),
    /// It did not take it, for now.
    Later,
    /// It takes nothing from this sender, or in this stream, until somebody sets that up with it.
    Unready,
    /// Nothing is taken from this account for so long.
    Busy(Duration),
    /// Nothing is taken from this account until somebody mends it.
    Closed,
    /// Nobody can tell whether it has the mail.
    Doubt,
}

/// An answer: the provider's, or ours when it would be no use to ask it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    meaning: Meaning,
    text: String,
}

impl Answer {
    fn new(meaning: Meaning, text: impl Into<String>) -> Self {
        Self { meaning, text: text.into() }
    }

    /// This API cannot carry a mail of such a form.
    fn unfit(text: impl Into<String>) -> Self {
        Self::new(Meaning::Refused(BounceClass::ContentRelated), text)
    }

    /// The mail is longer than the provider takes.
    fn too_long(text: impl Into<String>) -> Self {
        Self::new(Meaning::Refused(BounceClass::QuotaIssues), text)
    }
}

impl Api {
    pub(crate) fn new(
        provider: Provider,
        config: &ProviderConfig,
        key: &str,
        deadlines: &Deadlines,
        tls: TlsContext,
    ) -> Result<Self, Problem> {
        let is_ses = provider == Provider::Ses;
        for (field, is_given) in [
            ("username", config.username.is_some() && !is_ses),
            ("helo", config.helo.is_some()),
            ("host", config.host.is_some()),
            ("port", config.port.is_some()),
            ("tls", config.tls.is_some()),
            ("allow_password_without_tls", config.allow_password_without_tls),
        ] {
            if is_given {
                return Err((field, "is for the SMTP relay; leave it out beside transport = \"http\"".to_owned()));
            }
        }
        if config.domain.is_some() && provider != Provider::Mailgun {
            return Err(("domain", "this provider needs none; leave it out".to_owned()));
        }
        if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(("password_file", "holds no key: one line of visible ASCII is wanted".to_owned()));
        }
        provider::check_stream(provider, config.stream.as_deref())?;
        let stream = config.stream.clone();
        let host = host(provider, &config.region)?;
        let driver: Box<dyn Driver> = match provider {
            Provider::Mailgun => match &config.domain {
                Some(domain) => Box::new(mailgun::Mailgun::new(domain.as_str(), key)),
                None => return Err(("domain", "give the sending domain of the account".to_owned())),
            },
            Provider::Sparkpost => Box::new(sparkpost::Sparkpost::new(key)),
            Provider::Ses => match &config.username {
                Some(id) if !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_alphanumeric()) => {
                    Box::new(ses::Ses::new(&config.region, id, key, stream))
                }
                _ => return Err(("username", "give the id of the access key whose secret is the password".to_owned())),
            },
            Provider::Sendgrid => Box::new(sendgrid::Sendgrid::new(key)),
            Provider::Postmark => Box::new(postmark::Postmark::new(key, stream)),
            Provider::Resend => Box::new(resend::Resend::new(key)),
        };
        let base = config.base_url.clone().unwrap_or_else(|| format!("https://{host}"));
        let (is_tls, host, port, authority) = place(&base).map_err(|problem| ("base_url", problem))?;
        Ok(Self { driver, host, port, is_tls, authority, tls, connect: deadlines.connect, answer: deadlines.dot })
    }

    /// The request that hands over one mail to one recipient; or why the provider would not take it.
    fn request(
        &self,
        message: MessageId,
        recipient: &str,
        mime: &[u8],
        now: DateTime<Utc>,
    ) -> Result<Request<Full<Bytes>>, Answer> {
        let most = self.driver.most();
        if mime.len() > most {
            return Err(Answer::too_long(format!("the mail has {} octets, the provider takes {most}", mime.len())));
        }
        let (content_type, body) = self.driver.body(&Parcel { message, recipient, mime })?;
        let authority = self.authority.to_str().unwrap_or_default();
        let fields = self.driver.sign(&Ask { authority, message, content_type: &content_type, body: &body, now });
        let mut request = Request::post(self.driver.path())
            .header(HOST, &self.authority)
            .header(USER_AGENT, "mailfleet")
            .header(CONTENT_TYPE, content_type.as_ref());
        for (name, value) in fields {
            let mut value = HeaderValue::try_from(value).expect("a key that was checked");
            value.set_sensitive(true);
            request = request.header(name, value);
        }
        Ok(request.body(Full::new(Bytes::from(body))).expect("a path and values that were checked"))
    }

    /// What an answer means; `now` in seconds since 1970.
    fn judge(&self, status: StatusCode, headers: &HeaderMap, body: &[u8], now: f64) -> Answer {
        let reply = Reply { status: status.as_u16(), headers, json: serde_json::from_slice(body).ok(), body };
        let meaning = match self.driver.judge(&reply).unwrap_or_else(|| usual(&reply)) {
            Meaning::Taken => {
                let id = self.driver.id(&reply).map(|id| format!("taken as {}", sanitise(id, MAX_TEXT)));
                return Answer::new(Meaning::Taken, id.unwrap_or_else(|| "taken".to_owned()));
            }
            Meaning::Busy(wait) => Meaning::Busy(stated(headers, now).unwrap_or(wait)),
            other => other,
        };
        let said = reply.json.as_ref().and_then(|json| self.driver.words(json)).map(Cow::Borrowed);
        let said = said.unwrap_or_else(|| String::from_utf8_lossy(reply.body));
        Answer::new(meaning, sanitise(&format!("HTTP {}: {}", reply.status, said.trim()), MAX_TEXT))
    }
}

/// What a status means at every provider that says nothing else by it.
fn usual(reply: &Reply<'_>) -> Meaning {
    match reply.status {
        200..=299 => Meaning::Taken,
        // A redirect would carry the key to a place that nobody configured.
        300..=399 | 401..=405 | 415 => Meaning::Closed,
        413 => Meaning::Refused(BounceClass::QuotaIssues),
        429 => Meaning::Busy(UNSTATED_WAIT),
        408 | 425 => Meaning::Later,
        400..=499 => Meaning::Refused(BounceClass::Uncategorized),
        // A gateway that speaks for a server which may have done its work.
        _ => Meaning::Doubt,
    }
}

/// Where an account lives.
fn host(provider: Provider, region: &str) -> Result<String, Problem> {
    let (host, european) = match provider {
        Provider::Ses => return Ok(format!("email.{}.amazonaws.com", provider::aws_region(region)?)),
        Provider::Sendgrid => ("api.sendgrid.com", Some("api.eu.sendgrid.com")),
        Provider::Mailgun => ("api.mailgun.net", Some("api.eu.mailgun.net")),
        Provider::Sparkpost => ("api.sparkpost.com", Some("api.eu.sparkpost.com")),
        Provider::Postmark => ("api.postmarkapp.com", None),
        Provider::Resend => ("api.resend.com", None),
    };
    provider::of_region(region, host, european)
}

/// Where a base URL leads: with TLS or without, host, port, and the Host header.
fn place(url: &str) -> Result<(bool, String, u16, HeaderValue), String> {
    let fix = "give https://HOST or https://HOST:PORT; http only to a loopback address";
    let uri: Uri = url.parse().map_err(|_| format!("{url:?} is no URL; {fix}"))?;
    let (Some(scheme), Some(authority)) = (uri.scheme(), uri.authority()) else {
        return Err(format!("{url:?} has no scheme or host; {fix}"));
    };
    if !uri.path().trim_matches('/').is_empty() || uri.query().is_some() || authority.as_str().contains('@') {
        return Err(format!("{url:?} has more than scheme, host and port; {fix}"));
    }
    let host = authority.host().trim_matches(['[', ']']).to_owned();
    let is_tls = *scheme == Scheme::HTTPS;
    let is_loopback = host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    let is_private = is_tls || (*scheme == Scheme::HTTP && is_loopback);
    if !is_private {
        return Err(format!("{url:?} would show the key to the network; {fix}"));
    }
    let port = authority.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
    let header = HeaderValue::from_str(authority.as_str()).map_err(|_| format!("{url:?} is no URL; {fix}"))?;
    Ok((is_tls, host, port, header))
}

/// The wait that an answer states: in seconds, or as the second since 1970 in which it is over.
fn stated(headers: &HeaderMap, now: f64) -> Option<Duration> {
    let number = |name: &str| headers.get(name)?.to_str().ok()?.trim().parse::<f64>().ok();
    let seconds = number(RETRY_AFTER.as_str()).or_else(|| number("x-ratelimit-reset").map(|until| until - now))?;
    seconds.is_finite().then(|| Duration::from_secs_f64(seconds.clamp(1.0, LONGEST_WAIT.as_secs_f64())))
}

#[cfg(test)]
mod tests;
