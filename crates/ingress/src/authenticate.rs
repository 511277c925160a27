//! Who may send a request where. Owns the rules of credential and target port; decides before anything of the guest is asked or woken. Must never log
//! what it reads.

use emberbox_control::token::{Claims, Purpose, TokenError, TokenKeys};
use emberbox_wire::ids::MicrovmId;
use hyper::HeaderMap;
use time::OffsetDateTime;

use crate::error::Refusal;
use crate::subprotocol::Subprotocols;

pub(crate) const CREDENTIAL: &str = "x-aws-proxy-auth";
pub(crate) const TARGET_PORT: &str = "x-aws-proxy-port";
/// Where requests go that name no port (documented).
const DEFAULT_PORT: u16 = 8080;

/// The token a request carries: by header, else by subprotocol together with the bare one (documented, observed).
pub(crate) fn credential<'a>(headers: &'a HeaderMap, offered: Option<&'a Subprotocols>) -> Result<&'a str, Refusal> {
    let mut values = headers.get_all(CREDENTIAL).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().map_err(|_| Refusal::MissingAuthentication),
        (Some(_), Some(_)) => Err(Refusal::MissingAuthentication),
        (None, _) => match offered {
            Some(Subprotocols { bare: true, tokens, .. }) if tokens.len() == 1 => Ok(&tokens[0]),
            _ => Err(Refusal::MissingAuthentication),
        },
    }
}

/// What a token says, when it is ours and has not expired.
pub(crate) fn open(keys: &TokenKeys, token: &str, now: OffsetDateTime) -> Result<Claims, Refusal> {
    keys.open(token, now).map_err(|error| match error {
        TokenError::Malformed => Refusal::MissingAuthentication,
        TokenError::UnknownKey | TokenError::Tampered | TokenError::Expired => Refusal::AuthenticationFailed,
    })
}

/// That the claims are for this MicroVM and for traffic. A shell token opens a terminal only, and that is a WebSocket.
pub(crate) fn authorize(claims: &Claims, located: Option<MicrovmId>, websocket: bool) -> Result<MicrovmId, Refusal> {
    let microvm = located.filter(|microvm| *microvm == claims.microvm).ok_or(Refusal::AuthenticationFailed)?;
    match claims.purpose {
        Purpose::Traffic => Ok(microvm),
        Purpose::Shell if websocket => Err(Refusal::Shell),
        Purpose::Shell => Err(Refusal::AuthenticationFailed),
    }
}

/// The application's port: by header, else by subprotocol, else the default (documented).
pub(crate) fn target_port(headers: &HeaderMap, offered: Option<&Subprotocols>) -> Result<u16, Refusal> {
    let mut values: Vec<&[u8]> = headers.get_all(TARGET_PORT).iter().map(|value| value.as_bytes()).collect();
    if values.is_empty() {
        values.extend(offered.iter().flat_map(|offered| &offered.ports).map(String::as_bytes));
    }
    match values.as_slice() {
        [] => Ok(DEFAULT_PORT),
        [value] => parse_port(value).ok_or(Refusal::InvalidPort),
        _ => Err(Refusal::InvalidPort),
    }
}

fn parse_port(value: &[u8]) -> Option<u16> {
    let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    let port = std::str::from_utf8(value).ok().filter(|_| digits)?.parse().ok()?;
    (port != 0).then_some(port)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;
    use crate::headers::tests::headers;

    #[test]
    fn a_credential_comes_by_header_else_by_subprotocol() {
        let protocols = |text| Subprotocols::offered(&headers(&[("sec-websocket-protocol", text)]));
        let good = protocols("lambda-microvms, lambda-microvms.authentication.sub");
        assert_eq!(credential(&headers(&[(CREDENTIAL, "head")]), Some(&good)), Ok("head"));
        assert_eq!(credential(&headers(&[]), Some(&good)), Ok("sub"));
        let missing = Err(Refusal::MissingAuthentication);
        assert_eq!(credential(&headers(&[]), None), missing);
        assert_eq!(credential(&headers(&[]), Some(&protocols("lambda-microvms.authentication.sub"))), missing);
        assert_eq!(credential(&headers(&[]), Some(&protocols("lambda-microvms"))), missing);
        assert_eq!(credential(&headers(&[(CREDENTIAL, "a"), (CREDENTIAL, "b")]), None), missing);
    }

    #[test]
    fn a_port_comes_by_header_else_by_subprotocol_else_8080() {
        let offered = Subprotocols::offered(&headers(&[("sec-websocket-protocol", "lambda-microvms.port.3000")]));
        assert_eq!(target_port(&headers(&[]), None), Ok(8080));
        assert_eq!(target_port(&headers(&[]), Some(&offered)), Ok(3000));
        assert_eq!(target_port(&headers(&[(TARGET_PORT, "65535")]), Some(&offered)), Ok(65535));
        for wrong in ["", "0", "65536", "+80", "80 80", "http", "-1", "0x50", "99999999999999999999"] {
            assert_eq!(target_port(&headers(&[(TARGET_PORT, wrong)]), None), Err(Refusal::InvalidPort), "{wrong}");
        }
        assert_eq!(target_port(&headers(&[(TARGET_PORT, "80"), (TARGET_PORT, "80")]), None), Err(Refusal::InvalidPort));
    }

    proptest! {
        #[test]
        fn arbitrary_tokens_are_refused(token in "\\PC{0,200}") {
            let refused = open(&TokenKeys::generate(), &token, OffsetDateTime::now_utc());
            prop_assert_eq!(refused, Err(Refusal::MissingAuthentication));
        }
    }
}
