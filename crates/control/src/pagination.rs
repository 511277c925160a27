//! `nextToken`: where a listing goes on, sealed so that it fits that listing alone. Survives restarts, and inserts: it names a record, not an offset.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::Sha256;

use crate::refusal::Refusal;

/// Items on a page when the caller does not say; the most the model allows.
const DEFAULT_MAX_RESULTS: u32 = 50;
const MAC_BYTES: usize = 16;
const CURSOR_BYTES: usize = 8;

/// The members every listing has.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PageRequest {
    max_results: Option<u32>,
    next_token: Option<String>,
}

/// One listing: the operation, the account and the filters, in this order.
#[derive(Debug, Clone)]
pub(crate) struct Listing<'a> {
    pub(crate) secret: &'a [u8],
    pub(crate) name: Vec<String>,
}

impl PageRequest {
    pub(crate) fn limit(&self) -> u32 {
        self.max_results.unwrap_or(DEFAULT_MAX_RESULTS)
    }
}

impl Listing<'_> {
    /// Where the request's page begins.
    pub(crate) fn cursor(&self, page: &PageRequest) -> Result<Option<i64>, Refusal> {
        let Some(token) = page.next_token.as_deref().filter(|token| !token.is_empty()) else { return Ok(None) };
        let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| Refusal::NextToken)?;
        let (cursor, seal) = bytes.split_first_chunk::<CURSOR_BYTES>().ok_or(Refusal::NextToken)?;
        if seal.len() != MAC_BYTES {
            return Err(Refusal::NextToken);
        }
        self.mac(*cursor).verify_truncated_left(seal).map_err(|_| Refusal::NextToken)?;
        Ok(Some(i64::from_be_bytes(*cursor)))
    }

    /// `{"items": [...], "nextToken": ...}`.
    pub(crate) fn answer(&self, items: Vec<Value>, next: Option<i64>) -> Value {
        match next {
            Some(cursor) => json!({"items": items, "nextToken": self.token(cursor)}),
            None => json!({"items": items}),
        }
    }

    fn token(&self, cursor: i64) -> String {
        let cursor = cursor.to_be_bytes();
        let seal = self.mac(cursor).finalize().into_bytes();
        URL_SAFE_NO_PAD.encode([&cursor[..], &seal[..MAC_BYTES]].concat())
    }

    fn mac(&self, cursor: [u8; CURSOR_BYTES]) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(self.secret).expect("HMAC takes a key of any length");
        for part in &self.name {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part.as_bytes());
        }
        mac.update(&cursor);
        mac
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn listing(name: &str) -> Listing<'static> {
        Listing { secret: b"key", name: vec![name.into()] }
    }

    fn request(token: &str) -> PageRequest {
        PageRequest { max_results: None, next_token: Some(token.into()) }
    }

    #[test]
    fn a_token_fits_its_listing_alone() {
        let token = listing("a").token(-42);
        assert_eq!(listing("a").cursor(&request(&token)).unwrap(), Some(-42));
        assert_eq!(listing("b").cursor(&request(&token)), Err(Refusal::NextToken));
        let mut other = URL_SAFE_NO_PAD.decode(&token).unwrap();
        other[7] ^= 1;
        for wrong in [URL_SAFE_NO_PAD.encode(&other), URL_SAFE_NO_PAD.encode(&other[..8]), "no token!".into(), "AAAA".into()] {
            assert_eq!(listing("a").cursor(&request(&wrong)), Err(Refusal::NextToken), "{wrong}");
        }
        assert_eq!(listing("a").cursor(&PageRequest { max_results: None, next_token: None }), Ok(None));
    }
}
