//! Where posts go.

use http::Uri;

/// Longest address, in octets.
const LONGEST: usize = 2_048;

/// The address of an endpoint: http or https, a host, and nothing hidden in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointUrl {
    /// A name or an address, without brackets.
    pub host: String,
    /// The port, 443 or 80 where none is given.
    pub port: u16,
    /// Whether it is https.
    pub is_tls: bool,
    /// Host and port as they are given.
    pub authority: String,
    /// Path and query.
    pub path: String,
}

/// Why a text is no address of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is no address such as https://example.com/hooks, without user and fragment and within 2,048 octets")]
pub struct EndpointUrlError;

impl std::str::FromStr for EndpointUrl {
    type Err = EndpointUrlError;

    fn from_str(text: &str) -> Result<Self, EndpointUrlError> {
        if text.len() > LONGEST || text.contains('#') {
            return Err(EndpointUrlError);
        }
        let uri: Uri = text.parse().map_err(|_| EndpointUrlError)?;
        let is_tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(EndpointUrlError),
        };
        let authority =
            uri.authority().filter(|authority| !authority.as_str().contains('@')).ok_or(EndpointUrlError)?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() {
            return Err(EndpointUrlError);
        }
        Ok(Self {
            host,
            port: authority.port_u16().unwrap_or(if is_tls { 443 } else { 80 }),
            is_tls,
            authority: authority.as_str().to_owned(),
            path: uri.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_http_with_a_host_and_nothing_hidden() {
        for good in
            ["https://example.com", "https://example.com:8443/a?b=c", "http://127.0.0.1:80/x", "https://[2001:db8::1]/"]
        {
            assert!(good.parse::<EndpointUrl>().is_ok(), "{good}");
        }
        for bad in [
            "",
            "example.com",
            "ftp://example.com",
            "https://",
            "https://user:pw@example.com/",
            "https://a.test/#x",
            "/x",
            "https://a.test/\r\nX: y",
        ] {
            assert_eq!(bad.parse::<EndpointUrl>(), Err(EndpointUrlError), "{bad}");
        }
        let url: EndpointUrl = "https://[2001:db8::1]".parse().unwrap();
        assert_eq!((url.host.as_str(), url.port, url.path.as_str()), ("2001:db8::1", 443, "/"));
    }
}
