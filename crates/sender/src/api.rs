//! The HTTP APIs of providers that take a finished mail: where they are, what is asked of them, and what their answers
//! mean.
//!
//! A request that may have been written and has no answer is in doubt, as a final dot without a reply is: the lane's
//! policy decides, never another route.

mod delivery;
mod link;

pub(crate) use delivery::over;
pub(crate) use link::{Link, LinkError};

use crate::{
    config::{Deadlines, ProviderConfig},
    provider::{Problem, Provider},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use domain::{BounceClass, MessageId, text::sanitise};
use http_body_util::Full;
use hyper::{
    HeaderMap, Request, StatusCode, Uri,
    header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue, RETRY_AFTER, USER_AGENT},
    http::uri::Scheme,
};
use serde_json::{Value, json};
use smtp::TlsContext;
use std::{net::IpAddr, time::Duration};
use tokio_util::bytes::Bytes;

/// Longest mail that Mailgun takes.
const MAILGUN_MOST: usize = 25 * 1024 * 1024;
/// Longest content that SparkPost takes.
const SPARKPOST_MOST: usize = 20 * 1024 * 1024;
/// Wait after an answer that says "too fast" and not until when.
const UNSTATED_WAIT: Duration = Duration::from_secs(60);
/// Longest wait that an answer may impose.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);
/// Longest text kept of an answer, in characters.
const MAX_TEXT: usize = 300;

/// An account at a provider's HTTP API.
pub(crate) struct Api {
    kind: Kind,
    pub(crate) host: String,
    pub(crate) port: u16,
    is_tls: bool,
    authority: HeaderValue,
    path: String,
    authorization: HeaderValue,
    tls: TlsContext,
    connect: Duration,
    answer: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Mailgun,
    Sparkpost,
}

/// What an answer means.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The provider has the mail, under this name of its own.
    Taken { id: Option<String> },
    /// It will never take this one.
    Refused { class: BounceClass, text: String },
    /// It did not take it, for now.
    Later { text: String },
    /// Nothing is taken from this account for so long.
    Busy { wait: Duration, text: String },
    /// Nothing is taken from this account until somebody mends it.
    Closed { text: String },
    /// Nobody can tell whether it has the mail.
    Doubt { text: String },
}

impl Api {
    pub(crate) fn new(
        provider: Provider,
        config: &ProviderConfig,
        key: &str,
        deadlines: &Deadlines,
        tls: TlsContext,
    ) -> Result<Self, Problem> {
        let kind = match provider {
            Provider::Mailgun => Kind::Mailgun,
            Provider::Sparkpost => Kind::Sparkpost,
            Provider::Sendgrid | Provider::Ses | Provider::Postmark | Provider::Resend => {
                let problem = "http is for mailgun and sparkpost; leave it out to use this provider's SMTP relay";
                return Err(("transport", problem.to_owned()));
            }
        };
        for (field, is_given) in [
            ("username", config.username.is_some()),
            ("stream", config.stream.is_some()),
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
        let host = match (kind, config.region.as_str()) {
            (Kind::Mailgun, "" | "us") => "api.mailgun.net",
            (Kind::Mailgun, "eu") => "api.eu.mailgun.net",
            (Kind::Sparkpost, "" | "us") => "api.sparkpost.com",
            (Kind::Sparkpost, "eu") => "api.eu.sparkpost.com",
            (_, region) => return Err(("region", format!("{region:?} is none of us and eu"))),
        };
        let base = config.base_url.clone().unwrap_or_else(|| format!("https://{host}"));
        let (is_tls, host, port, authority) = place(&base).map_err(|problem| ("base_url", problem))?;
        let path = match (kind, &config.domain) {
            (Kind::Mailgun, Some(domain)) => format!("/v3/{domain}/messages.mime"),
            (Kind::Mailgun, None) => return Err(("domain", "give the sending domain of the account".to_owned())),
            (Kind::Sparkpost, None) => "/api/v1/transmissions".to_owned(),
            (Kind::Sparkpost, Some(_)) => return Err(("domain", "this provider needs none; leave it out".to_owned())),
        };
        let wrong = ("password_file", "holds no key: one line of visible ASCII is wanted".to_owned());
        if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(wrong);
        }
        let authorization = match kind {
            Kind::Mailgun => format!("Basic {}", STANDARD.encode(format!("api:{key}"))),
            Kind::Sparkpost => key.to_owned(),
        };
        let mut authorization = HeaderValue::try_from(authorization).map_err(|_| wrong)?;
        authorization.set_sensitive(true);
        Ok(Self {
            kind,
            host,
            port,
            is_tls,
            authority,
            path,
            authorization,
            tls,
            connect: deadlines.connect,
            answer: deadlines.dot,
        })
    }

    /// The request that hands over one mail to one recipient; or why the provider would not take it.
    fn request(&self, message: MessageId, recipient: &str, mime: &Bytes) -> Result<Request<Full<Bytes>>, Answer> {
        let most = match self.kind {
            Kind::Mailgun => MAILGUN_MOST,
            Kind::Sparkpost => SPARKPOST_MOST,
        };
        if mime.len() > most {
            let text = format!("the mail has {} octets, the provider takes {most}", mime.len());
            return Err(Answer::Refused { class: BounceClass::QuotaIssues, text });
        }
        let (kind, body) = match self.kind {
            Kind::Mailgun => {
                // A message's id is made after its content is known, and most of it is random: no content holds it.
                let boundary = format!("mailfleet-{message}");
                (format!("multipart/form-data; boundary={boundary}"), form(&boundary, message, recipient, mime))
            }
            Kind::Sparkpost => {
                let Ok(text) = std::str::from_utf8(mime) else {
                    let text = "the mail holds octets that are not UTF-8, which JSON cannot carry".to_owned();
                    return Err(Answer::Refused { class: BounceClass::ContentRelated, text });
                };
                let body = json!({
                    "recipients": [{ "address": { "email": recipient }, "metadata": { "mid": message.to_string() } }],
                    "content": { "email_rfc822": text },
                    // The mail is finished and signed: braces in it are no variables.
                    "options": { "perform_substitutions": false },
                });
                ("application/json".to_owned(), body.to_string().into_bytes())
            }
        };
        let request = Request::post(&self.path)
            .header(HOST, &self.authority)
            .header(USER_AGENT, "mailfleet")
            .header(AUTHORIZATION, &self.authorization)
            .header(CONTENT_TYPE, kind)
            .body(Full::new(Bytes::from(body)))
            .expect("a path and values that were checked");
        Ok(request)
    }

    /// What an answer means; `now` in seconds since 1970.
    fn judge(&self, status: StatusCode, headers: &HeaderMap, body: &[u8], now: f64) -> Answer {
        let json: Option<Value> = serde_json::from_slice(body).ok();
        let text = || {
            let said = match (self.kind, &json) {
                (Kind::Mailgun, Some(json)) => json["message"].as_str().map(str::to_owned),
                (Kind::Sparkpost, Some(json)) => json["errors"][0]["message"].as_str().map(str::to_owned),
                (_, None) => None,
            };
            let said = said.unwrap_or_else(|| String::from_utf8_lossy(body).into_owned());
            sanitise(&format!("HTTP {}: {}", status.as_u16(), said.trim()), MAX_TEXT)
        };
        match status.as_u16() {
            // SparkPost says yes to the request and no to its one recipient.
            200..=299 if json.as_ref().is_some_and(|json| json["results"]["total_rejected_recipients"] == 1) => {
                Answer::Refused { class: BounceClass::Uncategorized, text: text() }
            }
            200..=299 => {
                let id = json.as_ref().and_then(|json| match self.kind {
                    Kind::Mailgun => json["id"].as_str(),
                    Kind::Sparkpost => json["results"]["id"].as_str(),
                });
                Answer::Taken { id: id.map(|id| sanitise(id, MAX_TEXT)) }
            }
            401 | 402 | 403 | 404 | 405 | 415 => Answer::Closed { text: text() },
            // A redirect would carry the key to a place that nobody configured.
            300..=399 => Answer::Closed { text: text() },
            413 => Answer::Refused { class: BounceClass::QuotaIssues, text: text() },
            // SparkPost: the account's sending limit.
            420 | 429 => Answer::Busy { wait: stated(headers, now).unwrap_or(UNSTATED_WAIT), text: text() },
            408 | 425 => Answer::Later { text: text() },
            400..=499 => Answer::Refused { class: BounceClass::Uncategorized, text: text() },
            500 | 503 if self.kind == Kind::Mailgun => Answer::Later { text: text() },
            // A gateway that speaks for a server which may have done its work; at SparkPost any of them.
            _ => Answer::Doubt { text: text() },
        }
    }
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

/// A form with the mail as a file (RFC 7578).
fn form(boundary: &str, message: MessageId, recipient: &str, mime: &[u8]) -> Vec<u8> {
    let field = |name: &str, value: &str| {
        format!("--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
    };
    let file = format!(
        "--{boundary}\r\nContent-Disposition: form-data; name=\"message\"; filename=\"message.eml\"\r\n\
         Content-Type: message/rfc822\r\n\r\n"
    );
    let (to, mid) = (field("to", recipient), field("v:mid", &message.to_string()));
    let end = format!("\r\n--{boundary}--\r\n");
    [to.as_bytes(), mid.as_bytes(), file.as_bytes(), mime, end.as_bytes()].concat()
}

/// The wait that an answer states: in seconds, or as the second since 1970 in which it is over.
fn stated(headers: &HeaderMap, now: f64) -> Option<Duration> {
    let number = |name: &str| headers.get(name)?.to_str().ok()?.trim().parse::<f64>().ok();
    let seconds = number(RETRY_AFTER.as_str()).or_else(|| number("x-ratelimit-reset").map(|until| until - now))?;
    seconds.is_finite().then(|| Duration::from_secs_f64(seconds.clamp(1.0, LONGEST_WAIT.as_secs_f64())))
}

#[cfg(test)]
mod tests;
