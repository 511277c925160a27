//! What of a message's head belongs to one hop. Must never let a credential, or a header that frames the message, cross to the other side.

use hyper::HeaderMap;
use hyper::header::{
    CONNECTION, HOST, HeaderName, HeaderValue, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};

/// Ours alone (observed).
const PROXY_PREFIX: &str = "x-aws-proxy-";
/// Upgrading to HTTP/2 inside a connection would carry requests past authentication.
const HTTP2_CLEARTEXT: &str = "h2c";

/// The protocol that a message would switch to.
pub(crate) fn upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    let protocol = headers.get(UPGRADE)?;
    let named = list(headers, &CONNECTION).any(|option| option.eq_ignore_ascii_case("upgrade"));
    let http2 = list(headers, &UPGRADE).any(|name| name.eq_ignore_ascii_case(HTTP2_CLEARTEXT));
    (named && !http2).then(|| protocol.clone())
}

pub(crate) fn is_websocket(headers: &HeaderMap) -> bool {
    upgrade(headers).is_some_and(|protocol| protocol.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

/// Makes a client's head the guest's: what the application sees is what it would see from a client on its own loopback.
pub(crate) fn to_guest(headers: &mut HeaderMap, port: u16, chunked: bool) {
    let trailers = list(headers, &TE).any(|coding| coding.eq_ignore_ascii_case("trailers"));
    let upgrade = upgrade(headers);
    strip_hop_by_hop(headers);
    let ours: Vec<HeaderName> = headers.keys().filter(|name| name.as_str().starts_with(PROXY_PREFIX)).cloned().collect();
    for name in ours {
        headers.remove(name);
    }
    if let Ok(host) = HeaderValue::from_str(&format!("localhost:{port}")) {
        headers.insert(HOST, host);
    }
    if chunked {
        headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    match upgrade {
        Some(protocol) => switch(headers, protocol),
        None if trailers => {
            headers.insert(TE, HeaderValue::from_static("trailers"));
            headers.insert(CONNECTION, HeaderValue::from_static("te"));
        }
        None => {}
    }
}

/// Makes a guest's head the client's.
pub(crate) fn to_client(headers: &mut HeaderMap) {
    strip_hop_by_hop(headers);
}

pub(crate) fn switch(headers: &mut HeaderMap, protocol: HeaderValue) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, protocol);
}

/// RFC 9110, 7.6.1. `Trailer` stays: it announces what crosses with the body.
fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = list(headers, &CONNECTION).filter_map(|option| option.parse().ok()).collect();
    for name in named.iter().filter(|name| *name != TRAILER) {
        headers.remove(name);
    }
    for name in [CONNECTION, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING, UPGRADE] {
        headers.remove(name);
    }
    headers.remove("keep-alive");
    headers.remove("proxy-connection");
}

/// The elements of a comma-separated header.
fn list<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|element| !element.is_empty())
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    pub(crate) fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn one_hop_ends_here() {
        let mut head = headers(&[
            ("host", "a.vm.example"),
            ("connection", "keep-alive, X-Secret"),
            ("x-secret", "1"),
            ("keep-alive", "5"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("proxy-authorization", "Basic x"),
            ("x-aws-proxy-auth", "token"),
            ("x-aws-proxy-anything", "1"),
            ("cookie", "c=1"),
        ]);
        to_guest(&mut head, 3000, false);
        let expected = headers(&[("host", "localhost:3000"), ("cookie", "c=1"), ("te", "trailers"), ("connection", "te")]);
        assert_eq!(head, expected);
    }

    #[test]
    fn an_upgrade_passes_unless_it_is_http2() {
        let websocket = headers(&[("connection", "keep-alive, Upgrade"), ("upgrade", "WebSocket")]);
        assert!(is_websocket(&websocket));
        let mut head = websocket.clone();
        to_guest(&mut head, 8080, false);
        assert_eq!(head, headers(&[("host", "localhost:8080"), ("connection", "upgrade"), ("upgrade", "WebSocket")]));
        assert!(upgrade(&headers(&[("connection", "Upgrade, HTTP2-Settings"), ("upgrade", "h2c")])).is_none());
        assert!(upgrade(&headers(&[("upgrade", "websocket")])).is_none());
    }
}
