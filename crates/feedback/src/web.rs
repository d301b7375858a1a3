//! What recipients' programs ask for: images, links, and the pages on which mail is no longer wanted.
//!
//! Nothing that is only asked for (GET, HEAD) changes anything but figures: programs that look for what is dangerous
//! follow every link. A link is followed whatever else is down; that mail is no longer wanted is answered for only once
//! it is durable (RFC 8058).

use crate::{
    Office,
    desk::Intake,
    hits::{Hit, What},
    hooks,
    page::{self, Language, Page},
};
use axum::{
    Router,
    body::Bytes,
    extract::{Path, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{any, get, post},
};
use domain::{MessageId, Token};
use service::Peer;
use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// One transparent pixel.
const PIXEL: &[u8] = b"GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\x00\x00\x00!\xf9\x04\x01\x00\x00\x00\x00,\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02D\x01\x00;";
/// How long a page waits to learn whom a mail went to.
const LOOK_LIMIT: Duration = Duration::from_secs(2);
/// Largest form that is read, in bytes.
const MAX_FORM: usize = 16 * 1024;
/// Longest name of a program that is looked at, in bytes.
const MAX_AGENT: usize = 1_000;

#[derive(Clone)]
struct Web {
    office: Arc<Office>,
    intake: Intake,
    /// Tells the hits of this process apart; those of others differ in their start.
    started: i64,
    count: Arc<AtomicU64>,
}

pub(crate) fn router(office: Arc<Office>, intake: Intake) -> Router {
    let started = service::clock::now().timestamp_micros();
    let web = Web { office, intake, started, count: Arc::default() };
    Router::new()
        .route("/o/{token}", any(open))
        .route("/c/{token}", any(click))
        .route("/u/{token}", any(unsubscribe))
        .route("/webhooks/{name}", post(hook))
        .route("/robots.txt", get(async || ([(header::CONTENT_TYPE, "text/plain")], "User-agent: *\nDisallow: /\n")))
        .fallback(async || StatusCode::NOT_FOUND)
        .with_state(web)
}

/// What is known of a request beside its address.
struct Caller {
    head: bool,
    prefetch: bool,
    agent: String,
    network: String,
    language: Language,
}

impl Web {
    fn caller(&self, method: &Method, headers: &HeaderMap, peer: Option<Peer>) -> Caller {
        let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("");
        let says = |name: &'static str| {
            headers
                .get(name)
                .and_then(|value| value.to_str().ok())
                .is_some_and(|value| value.contains("prefetch") || value.contains("preview"))
        };
        let forwarded = text(HeaderName::from_static("x-forwarded-for")).rsplit(',').next().unwrap_or("").trim();
        let address =
            if self.office.config.behind_proxy { forwarded.parse().ok() } else { peer.map(|Peer(at)| at.ip()) };
        let agent: String = text(header::USER_AGENT).chars().take(MAX_AGENT).collect();
        Caller {
            head: method == Method::HEAD,
            prefetch: says("purpose") || says("sec-purpose") || says("x-purpose") || says("x-moz"),
            agent,
            network: address.map(network).unwrap_or_default(),
            language: page::language(text(header::ACCEPT_LANGUAGE)),
        }
    }

    fn hit(&self, message: MessageId, what: What, caller: &Caller) -> Hit {
        Hit {
            message,
            what,
            at: service::clock::now(),
            id: format!("{}-{}", self.started, self.count.fetch_add(1, Ordering::Relaxed)),
            agent: caller.agent.clone(),
            network: caller.network.clone(),
            head: caller.head,
            prefetch: caller.prefetch,
        }
    }

    /// Hands a hit in that nobody waits for.
    fn offer(&self, hit: Hit) {
        if !self.intake.offer(hit) {
            self.office.metrics.shed.inc();
        }
    }
}

/// An address without what names a person: three octets of IPv4, 48 bits of IPv6.
pub(crate) fn network(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let [a, b, c, _] = address.octets();
            format!("{a}.{b}.{c}.0/24")
        }
        IpAddr::V6(address) => {
            let [a, b, c, ..] = address.segments();
            format!("{a:x}:{b:x}:{c:x}::/48")
        }
    }
}

/// The refusal of a request that is neither a GET nor a HEAD.
fn refusal(method: &Method) -> Option<Response> {
    let is_look = method == Method::GET || method == Method::HEAD;
    (!is_look).then(|| (StatusCode::METHOD_NOT_ALLOWED, [(header::ALLOW, "GET, HEAD")]).into_response())
}

async fn open(State(web): State<Web>, Path(token): Path<String>, request: Request) -> Response {
    if let Some(refused) = refusal(request.method()) {
        return refused;
    }
    let caller = web.caller(request.method(), request.headers(), request.extensions().get::<Peer>().copied());
    // Whoever shows the mail is given the image all the same.
    match web.office.tokens.open(&token) {
        Some(Token::Open(message)) => web.offer(web.hit(message, What::Open, &caller)),
        _ => {
            web.office.metrics.refused.inc();
        }
    }
    let headers = [(header::CONTENT_TYPE, "image/gif"), (header::CACHE_CONTROL, "no-store, private")];
    (headers, PIXEL).into_response()
}

async fn click(State(web): State<Web>, Path(token): Path<String>, request: Request) -> Response {
    if let Some(refused) = refusal(request.method()) {
        return refused;
    }
    let caller = web.caller(request.method(), request.headers(), request.extensions().get::<Peer>().copied());
    let Some(Token::Click { message, place, url }) = web.office.tokens.open(&token) else {
        web.office.metrics.refused.inc();
        return answer(StatusCode::NOT_FOUND, Page::Unknown, caller.language);
    };
    // Signed or not, nothing but a page of the web is led to.
    let is_web = ["http://", "https://"]
        .iter()
        .any(|scheme| url.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme)));
    let Some(location) = location(&url).filter(|_| is_web) else {
        return answer(StatusCode::NOT_FOUND, Page::Unknown, caller.language);
    };
    web.offer(web.hit(message, What::Click { place, url }, &caller));
    let headers = [
        (header::LOCATION, location),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store, private")),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    ];
    (StatusCode::FOUND, headers).into_response()
}

/// An address as a header may hold it: what is not ASCII is encoded.
fn location(url: &str) -> Option<HeaderValue> {
    let mut text = String::with_capacity(url.len());
    for byte in url.bytes() {
        match byte {
            0x21..=0x7e => text.push(char::from(byte)),
            b' ' | 0x80.. => text.push_str(&format!("%{byte:02X}")),
            _ => return None,
        }
    }
    HeaderValue::from_str(&text).ok()
}

async fn unsubscribe(State(web): State<Web>, Path(token): Path<String>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let caller = web.caller(&parts.method, &parts.headers, parts.extensions.get::<Peer>().copied());
    let language = caller.language;
    let Some(Token::Unsubscribe(message)) = web.office.tokens.open(&token) else {
        web.office.metrics.refused.inc();
        return answer(StatusCode::NOT_FOUND, Page::Unknown, language);
    };
    if parts.method == Method::GET || parts.method == Method::HEAD {
        return ask(&web, message, language).await;
    }
    if parts.method != Method::POST {
        return (StatusCode::METHOD_NOT_ALLOWED, [(header::ALLOW, "GET, HEAD, POST")]).into_response();
    }
    let Ok(body) = axum::body::to_bytes(body, MAX_FORM).await else {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    };
    let (what, done) = match wish(&parts.headers, &body) {
        Some(Wish::OneClick) => (What::Unsubscribe { one_click: true }, Page::Done),
        Some(Wish::Unsubscribe) => (What::Unsubscribe { one_click: false }, Page::Done),
        Some(Wish::Resubscribe) => (What::Resubscribe, Page::Back),
        None => return answer(StatusCode::BAD_REQUEST, Page::Unknown, language),
    };
    if web.intake.keep(web.hit(message, what, &caller)).await {
        answer(StatusCode::OK, done, language)
    } else {
        let mut later = answer(StatusCode::SERVICE_UNAVAILABLE, Page::Later, language);
        later.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("60"));
        later
    }
}

/// Asks whether no more mail is wanted. Without an answer of Postgres it asks without a name.
async fn ask(web: &Web, message: MessageId, language: Language) -> Response {
    let looked = tokio::time::timeout(LOOK_LIMIT, web.office.store.correspondent(message)).await;
    let known = looked.ok().and_then(Result::ok).flatten();
    let address = known.as_ref().map(|known| masked(known.recipient.as_str()));
    answer(StatusCode::OK, Page::Ask { address: address.as_deref() }, language)
}

/// An address of which its owner alone knows the rest: `a…@example.com`.
fn masked(address: &str) -> String {
    match address.rsplit_once('@') {
        Some((local, domain)) => format!("{}…@{domain}", local.chars().next().unwrap_or('…')),
        None => "…".to_owned(),
    }
}

/// A provider's post: taken in once it is committed.
async fn hook(State(web): State<Web>, Path(name): Path<String>, headers: HeaderMap, body: Bytes) -> Response {
    hooks::take(&web.office, &name, &headers, &body).await
}

enum Wish {
    OneClick,
    Unsubscribe,
    Resubscribe,
}

/// What a form asks for: as mail programs post it (RFC 8058: `List-Unsubscribe=One-Click`, as a form or in parts), or as the
/// page does.
fn wish(headers: &HeaderMap, body: &Bytes) -> Option<Wish> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    let text = std::str::from_utf8(body).ok()?;
    if kind.to_ascii_lowercase().starts_with("multipart/form-data") {
        let parts = text.split("\r\n\r\n").zip(text.split("\r\n\r\n").skip(1));
        let one_click = |(head, value): (&str, &str)| {
            let named = head.rsplit("--").next().unwrap_or(head).contains("name=\"List-Unsubscribe\"");
            named && value.lines().next().is_some_and(|line| line.trim() == "One-Click")
        };
        return parts.into_iter().any(one_click).then_some(Wish::OneClick);
    }
    text.trim().split('&').find_map(|pair| match pair {
        "List-Unsubscribe=One-Click" => Some(Wish::OneClick),
        "action=unsubscribe" => Some(Wish::Unsubscribe),
        "action=resubscribe" => Some(Wish::Resubscribe),
        _ => None,
    })
}

fn answer(status: StatusCode, page: Page<'_>, language: Language) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CACHE_CONTROL, "no-store, private"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::CONTENT_SECURITY_POLICY, page::content_security_policy()),
        (HeaderName::from_static("x-robots-tag"), "noindex"),
    ];
    (status, headers, page::render(page, language)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(kind: &str, body: &str) -> Option<&'static str> {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, kind.parse().expect("a header"));
        wish(&headers, &Bytes::copy_from_slice(body.as_bytes())).map(|wish| match wish {
            Wish::OneClick => "one click",
            Wish::Unsubscribe => "unsubscribe",
            Wish::Resubscribe => "resubscribe",
        })
    }

    #[test]
    fn mail_programs_are_understood_in_both_forms_and_nothing_else_is() {
        let form = "application/x-www-form-urlencoded";
        assert_eq!(asked(form, "List-Unsubscribe=One-Click"), Some("one click"));
        assert_eq!(asked(form, "List-Unsubscribe=One-Click\r\n"), Some("one click"));
        assert_eq!(asked(form, "action=resubscribe"), Some("resubscribe"));
        assert_eq!(asked(form, "action=unsubscribe&x=1"), Some("unsubscribe"));
        assert_eq!(asked(form, ""), None);
        assert_eq!(asked(form, "List-Unsubscribe=One-Clicks"), None);
        let parts = "multipart/form-data; boundary=b";
        let body = "--b\r\nContent-Disposition: form-data; name=\"List-Unsubscribe\"\r\n\r\nOne-Click\r\n--b--\r\n";
        assert_eq!(asked(parts, body), Some("one click"));
        assert_eq!(
            asked(parts, "--b\r\nContent-Disposition: form-data; name=\"x\"\r\n\r\nOne-Click\r\n--b--\r\n"),
            None
        );
    }

    #[test]
    fn a_link_leads_where_its_author_said_and_to_no_second_header() {
        assert_eq!(location("https://example.com/a?b=ä c").expect("a header"), "https://example.com/a?b=%C3%A4%20c");
        assert!(location("https://example.com/\r\nX: y").is_none());
    }

    #[test]
    fn neither_addresses_nor_networks_name_a_person() {
        assert_eq!(masked("ann@example.com"), "a…@example.com");
        assert_eq!(network("192.0.2.77".parse().expect("an address")), "192.0.2.0/24");
        assert_eq!(network("2001:db8:1:2::3".parse().expect("an address")), "2001:db8:1::/48");
        assert_eq!(network("::ffff:192.0.2.77".parse().expect("an address")), "192.0.2.0/24");
    }
}
