//! `nextToken`: where a listing goes on, sealed so that it fits that listing alone and tells nothing. Survives restarts, and inserts: it names a
//! record, not an offset.

use aes_gcm::aead::{Aead, Payload};
use aes_gcm::{Aes256Gcm, KeyInit, Nonce};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use rand::RngCore;
use serde::Deserialize;
use serde_json::{Map, Value};
use sha2::Sha256;

use crate::refusal::Refusal;

/// Items on a page when the caller does not say; the most the model allows.
const DEFAULT_MAX_RESULTS: u32 = 50;
const NONCE_BYTES: usize = 12;
/// Sets the key of tokens apart from other uses of control's secret.
const PURPOSE: &[u8] = b"page tokens";

/// The members every listing of `lambda-microvms` has.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PageRequest {
    max_results: Option<u32>,
    next_token: Option<String>,
}

/// Those of `lambda-core`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct MarkerRequest {
    max_items: Option<u32>,
    marker: Option<String>,
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

impl MarkerRequest {
    /// `most` is what the answer's shape allows.
    pub(crate) fn limit(&self, most: u32) -> u32 {
        self.max_items.unwrap_or(DEFAULT_MAX_RESULTS).min(most)
    }
}

impl Listing<'_> {
    /// Where the request's page begins.
    pub(crate) fn cursor(&self, page: &PageRequest) -> Result<Option<i64>, Refusal> {
        let Some(token) = page.next_token.as_deref().filter(|token| !token.is_empty()) else { return Ok(None) };
        self.open(token).map(Some).ok_or(Refusal::NextToken)
    }

    /// As [`Listing::cursor`], for `lambda-core`.
    pub(crate) fn marker(&self, page: &MarkerRequest) -> Result<Option<i64>, Refusal> {
        let Some(token) = page.marker.as_deref().filter(|token| !token.is_empty()) else { return Ok(None) };
        self.open(token).map(Some).ok_or_else(|| Refusal::InvalidParameter("The Marker is not valid for this request".into()))
    }

    /// `{"items": [...], "nextToken": ...}`.
    pub(crate) fn answer(&self, items: Vec<Value>, next: Option<i64>) -> Value {
        self.answer_as("items", "nextToken", items, next)
    }

    pub(crate) fn answer_as(&self, items_name: &str, token_name: &str, items: Vec<Value>, next: Option<i64>) -> Value {
        let mut answer = Map::from_iter([(items_name.to_owned(), Value::Array(items))]);
        if let Some(cursor) = next {
            answer.insert(token_name.to_owned(), self.token(cursor).into());
        }
        Value::Object(answer)
    }

    fn token(&self, cursor: i64) -> String {
        let mut nonce = [0; NONCE_BYTES];
        rand::rng().fill_bytes(&mut nonce);
        let payload = Payload { msg: &cursor.to_be_bytes(), aad: &self.associated() };
        let sealed = self.cipher().encrypt(Nonce::from_slice(&nonce), payload).expect("eight bytes can be sealed");
        URL_SAFE_NO_PAD.encode([&nonce[..], &sealed].concat())
    }

    fn open(&self, token: &str) -> Option<i64> {
        let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
        let (nonce, sealed) = bytes.split_first_chunk::<NONCE_BYTES>()?;
        let cursor = self.cipher().decrypt(Nonce::from_slice(nonce), Payload { msg: sealed, aad: &self.associated() }).ok()?;
        cursor.try_into().ok().map(i64::from_be_bytes)
    }

    fn cipher(&self) -> Aes256Gcm {
        let mut mac = <Hmac<Sha256> as Mac>::new_from_slice(self.secret).expect("HMAC takes a key of any length");
        mac.update(PURPOSE);
        Aes256Gcm::new(&mac.finalize().into_bytes())
    }

    /// The name with its parts kept apart.
    fn associated(&self) -> Vec<u8> {
        self.name.iter().flat_map(|part| (part.len() as u64).to_be_bytes().into_iter().chain(part.bytes())).collect()
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
        assert_ne!(listing("a").token(-42), token, "a token tells nothing, not even that it is the same");
        let whole = URL_SAFE_NO_PAD.decode(&token).unwrap();
        let flipped = (0..whole.len()).map(|at| {
            let mut other = whole.clone();
            other[at] ^= 1;
            URL_SAFE_NO_PAD.encode(&other)
        });
        let cut = [URL_SAFE_NO_PAD.encode(&whole[..8]), URL_SAFE_NO_PAD.encode(&whole[..20]), "no token!".into(), "AAAA".into()];
        for wrong in flipped.chain(cut) {
            assert_eq!(listing("a").cursor(&request(&wrong)), Err(Refusal::NextToken), "{wrong}");
        }
        assert_eq!(listing("a").cursor(&PageRequest { max_results: None, next_token: None }), Ok(None));
    }
}
