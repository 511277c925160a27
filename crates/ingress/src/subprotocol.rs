//! The WebSocket subprotocols by which browsers, which cannot set headers, carry credential and port (observed). Must never let one of ours through
//! to the application.

use hyper::HeaderMap;
use hyper::header::{HeaderValue, SEC_WEBSOCKET_PROTOCOL};

/// Offered beside the others by every client, and told to it when the application picks none.
pub(crate) const BARE: &str = "lambda-microvms";
const AUTHENTICATION: &str = "lambda-microvms.authentication.";
const PORT: &str = "lambda-microvms.port.";

/// What a client offers, sorted by whom it is for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Subprotocols {
    /// The bare `lambda-microvms` is among them.
    pub(crate) bare: bool,
    pub(crate) tokens: Vec<String>,
    pub(crate) ports: Vec<String>,
    /// The application's own.
    passed: Vec<String>,
}

impl Subprotocols {
    pub(crate) fn offered(headers: &HeaderMap) -> Self {
        let mut offered = Self::default();
        let values = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
        for protocol in values.flat_map(|value| value.split(',')).map(str::trim).filter(|protocol| !protocol.is_empty()) {
            offered.sort_in(protocol);
        }
        offered
    }

    fn sort_in(&mut self, protocol: &str) {
        if let Some(token) = protocol.strip_prefix(AUTHENTICATION) {
            self.tokens.push(token.into());
        } else if let Some(port) = protocol.strip_prefix(PORT) {
            self.ports.push(port.into());
        } else if protocol == BARE {
            self.bare = true;
        } else if !protocol.starts_with(BARE) {
            self.passed.push(protocol.into());
        }
    }

    /// Leaves the application's own subprotocols in a request, if any.
    pub(crate) fn strip(&self, headers: &mut HeaderMap) {
        headers.remove(SEC_WEBSOCKET_PROTOCOL);
        if self.passed.is_empty() {
            return;
        }
        if let Ok(value) = HeaderValue::from_str(&self.passed.join(", ")) {
            headers.insert(SEC_WEBSOCKET_PROTOCOL, value);
        }
    }

    /// Completes the application's 101: a browser that offered subprotocols fails a handshake that names none.
    pub(crate) fn answer(&self, headers: &mut HeaderMap) {
        if self.bare && !headers.contains_key(SEC_WEBSOCKET_PROTOCOL) {
            headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(BARE));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn ours_are_sorted_out_and_others_pass_in_order() {
        let mut headers = HeaderMap::new();
        headers.append(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("chat, lambda-microvms,lambda-microvms.authentication.a.b"));
        headers.append(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("lambda-microvms.port.3000 ,, v2, lambda-microvms.future"));
        let offered = Subprotocols::offered(&headers);
        assert!(offered.bare);
        assert_eq!((offered.tokens.as_slice(), offered.ports.as_slice()), (&["a.b".to_owned()][..], &["3000".to_owned()][..]));
        offered.strip(&mut headers);
        assert_eq!(headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().collect::<Vec<_>>(), ["chat, v2"]);
    }

    #[test]
    fn nothing_is_left_when_all_were_ours() {
        let mut headers = HeaderMap::new();
        headers.append(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("lambda-microvms"));
        Subprotocols::offered(&headers).strip(&mut headers);
        assert!(headers.is_empty());
    }
}
