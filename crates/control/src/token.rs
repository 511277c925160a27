//! Tokens of MicroVM endpoints: compact JWE, `alg` dir, `enc` A256GCM, as AWS makes them (observed).
//!
//! Owns the key and the format. A token is five base64url parts: protected header, empty encrypted key, 96-bit IV, ciphertext, 128-bit tag; the
//! header is the additional authenticated data. Must never log a token, a key or claims, nor accept another algorithm than the one it mints: the
//! header chooses nothing, it only has to be right.

use std::time::Duration;

use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::{Aes256Gcm, Nonce};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use emberbox_wire::ids::MicrovmId;
use emberbox_wire::microvms::PortSpecification;
use rand::RngCore;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

const KID_BYTES: usize = 16;
const KEY_BYTES: usize = 32;
const IV_BYTES: usize = 12;
const TAG_BYTES: usize = 16;
/// Longest token looked at; a token with hundreds of port ranges stays far below.
const MAX_TOKEN_BYTES: usize = 32 * 1024;
/// Longest protected header looked at; ours is about 90.
const MAX_HEADER_BYTES: usize = 256;

/// What a token is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Purpose {
    /// Requests to the application's ports.
    Traffic,
    /// A terminal in the application's container.
    Shell,
}

/// What a token says, readable by nobody but us.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    pub microvm: MicrovmId,
    pub ports: Vec<PortSpecification>,
    pub purpose: Purpose,
    /// Refused from this moment on, in epoch seconds.
    pub exp: i64,
    /// Minted at, in epoch seconds.
    pub iat: i64,
    /// Names this token in audit records.
    pub jti: String,
}

impl Claims {
    pub fn new(microvm: MicrovmId, purpose: Purpose, ports: Vec<PortSpecification>, now: OffsetDateTime, lifetime: Duration) -> Self {
        let iat = now.unix_timestamp();
        let exp = iat.saturating_add(i64::try_from(lifetime.as_secs()).unwrap_or(i64::MAX));
        Self { microvm, ports, purpose, exp, iat, jti: Uuid::new_v4().to_string() }
    }

    pub fn allows(&self, port: u16) -> bool {
        self.ports.iter().any(|specification| specification.allows(port))
    }
}

/// Why a token is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not a token of this form at all.
    #[error("not an endpoint token")]
    Malformed,
    /// Of the right form, under a key that is not ours.
    #[error("the token was made with another key")]
    UnknownKey,
    /// Under our key's name, and changed or forged.
    #[error("the token has been tampered with")]
    Tampered,
    #[error("the token has expired")]
    Expired,
}

/// Not the bytes that [`TokenKeys::to_bytes`] made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a token key is {} bytes", TokenKeys::BYTES)]
pub struct TokenKeyError;

/// The key that mints and opens tokens. Deliberately neither `Debug` nor `Clone`.
pub struct TokenKeys {
    kid: Uuid,
    key: [u8; KEY_BYTES],
    cipher: Aes256Gcm,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    kid: String,
    alg: String,
    enc: String,
}

impl TokenKeys {
    /// Length of the stored form: key id, then key.
    pub const BYTES: usize = KID_BYTES + KEY_BYTES;

    pub fn generate() -> Self {
        let mut key = [0; KEY_BYTES];
        rand::rng().fill_bytes(&mut key);
        Self::new(Uuid::new_v4(), key)
    }

    pub fn from_bytes(bytes: &[u8]) -> Result<Self, TokenKeyError> {
        let (kid, key) = bytes.split_at_checked(KID_BYTES).ok_or(TokenKeyError)?;
        let kid = Uuid::from_slice(kid).map_err(|_| TokenKeyError)?;
        Ok(Self::new(kid, key.try_into().map_err(|_| TokenKeyError)?))
    }

    /// For the store alone: these bytes open every endpoint.
    pub fn to_bytes(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..KID_BYTES].copy_from_slice(self.kid.as_bytes());
        bytes[KID_BYTES..].copy_from_slice(&self.key);
        bytes
    }

    fn new(kid: Uuid, key: [u8; KEY_BYTES]) -> Self {
        Self { kid, cipher: Aes256Gcm::new(&key.into()), key }
    }

    pub fn mint(&self, claims: &Claims) -> String {
        let header = Header { kid: self.kid.to_string(), alg: "dir".into(), enc: "A256GCM".into() };
        let header = URL_SAFE_NO_PAD.encode(json(&header));
        // A random IV is safe for 2^32 tokens under one key.
        let mut iv = [0; IV_BYTES];
        rand::rng().fill_bytes(&mut iv);
        let payload = Payload { msg: &json(claims), aad: header.as_bytes() };
        let mut sealed = self.cipher.encrypt(&Nonce::from(iv), payload).expect("claims are far shorter than 64 GiB");
        let tag = sealed.split_off(sealed.len() - TAG_BYTES);
        format!("{header}..{}.{}.{}", URL_SAFE_NO_PAD.encode(iv), URL_SAFE_NO_PAD.encode(sealed), URL_SAFE_NO_PAD.encode(tag))
    }

    /// The claims of an authentic token that has not expired at `now`.
    pub fn open(&self, token: &str, now: OffsetDateTime) -> Result<Claims, TokenError> {
        let parts = Parts::parse(token)?;
        if parts.kid != self.kid.to_string() {
            return Err(TokenError::UnknownKey);
        }
        let payload = Payload { msg: &parts.sealed, aad: parts.protected };
        let claims = self.cipher.decrypt(&Nonce::from(parts.iv), payload).map_err(|_| TokenError::Tampered)?;
        let claims: Claims = serde_json::from_slice(&claims).map_err(|_| TokenError::Malformed)?;
        if claims.exp <= now.unix_timestamp() {
            return Err(TokenError::Expired);
        }
        Ok(claims)
    }
}

/// A token taken apart, every size checked, nothing verified yet.
struct Parts<'a> {
    protected: &'a [u8],
    kid: String,
    iv: [u8; IV_BYTES],
    /// Ciphertext, then tag.
    sealed: Vec<u8>,
}

impl<'a> Parts<'a> {
    fn parse(token: &'a str) -> Result<Self, TokenError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(TokenError::Malformed);
        }
        let mut parts = token.split('.');
        let mut next = || parts.next().ok_or(TokenError::Malformed);
        let (header, key, iv, ciphertext, tag) = (next()?, next()?, next()?, next()?, next()?);
        if parts.next().is_some() || !key.is_empty() || header.len() > MAX_HEADER_BYTES || ciphertext.is_empty() {
            return Err(TokenError::Malformed);
        }
        let kid = key_id(&decode(header)?)?;
        let iv = decode(iv)?.try_into().map_err(|_| TokenError::Malformed)?;
        let tag: [u8; TAG_BYTES] = decode(tag)?.try_into().map_err(|_| TokenError::Malformed)?;
        let mut sealed = decode(ciphertext)?;
        sealed.extend_from_slice(&tag);
        Ok(Self { protected: header.as_bytes(), kid, iv, sealed })
    }
}

fn key_id(header: &[u8]) -> Result<String, TokenError> {
    let header: Header = serde_json::from_slice(header).map_err(|_| TokenError::Malformed)?;
    let ours = header.alg == "dir" && header.enc == "A256GCM";
    ours.then_some(header.kid).ok_or(TokenError::Malformed)
}

fn decode(part: &str) -> Result<Vec<u8>, TokenError> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenError::Malformed)
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("plain strings and numbers serialise")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    fn now() -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap()
    }

    fn claims() -> Claims {
        let ports = vec![PortSpecification::Port(8080), PortSpecification::Range { start_port: 3000, end_port: 3010 }];
        Claims::new(MicrovmId::random(), Purpose::Traffic, ports, now(), Duration::from_secs(60))
    }

    /// A token with this header text, sealed properly under it.
    fn with_header(keys: &TokenKeys, header: &str) -> String {
        let header = URL_SAFE_NO_PAD.encode(header);
        let payload = Payload { msg: &json(&claims()), aad: header.as_bytes() };
        let mut sealed = keys.cipher.encrypt(&Nonce::from([0; IV_BYTES]), payload).unwrap();
        let tag = sealed.split_off(sealed.len() - TAG_BYTES);
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        format!("{header}..{}.{}.{}", encode(&[0; IV_BYTES]), encode(&sealed), encode(&tag))
    }

    #[test]
    fn a_minted_token_opens_to_its_claims() {
        let keys = TokenKeys::generate();
        let claims = claims();
        let token = keys.mint(&claims);
        assert_eq!(keys.open(&token, now()), Ok(claims.clone()));
        assert!(claims.allows(8080) && claims.allows(3010) && !claims.allows(22));
        assert_ne!(keys.mint(&claims), token, "the IV is fresh");
        let header = decode(token.split('.').next().unwrap()).unwrap();
        let expected = format!(r#"{{"kid":"{}","alg":"dir","enc":"A256GCM"}}"#, keys.kid);
        assert_eq!(String::from_utf8(header).unwrap(), expected);
    }

    #[test]
    fn a_token_ends_at_its_expiry() {
        let keys = TokenKeys::generate();
        let token = keys.mint(&claims());
        assert!(keys.open(&token, now() + Duration::from_secs(59)).is_ok());
        assert_eq!(keys.open(&token, now() + Duration::from_secs(60)), Err(TokenError::Expired));
    }

    #[test]
    fn stored_keys_open_what_they_minted() {
        let keys = TokenKeys::generate();
        let token = keys.mint(&claims());
        let restored = TokenKeys::from_bytes(&keys.to_bytes()).ok().unwrap();
        assert!(restored.open(&token, now()).is_ok());
        for length in (0..TokenKeys::BYTES).chain([TokenKeys::BYTES + 1]) {
            assert!(TokenKeys::from_bytes(&vec![7; length]).is_err());
        }
    }

    #[test]
    fn another_key_is_refused_by_name_and_by_content() {
        let keys = TokenKeys::generate();
        let token = keys.mint(&claims());
        assert_eq!(TokenKeys::generate().open(&token, now()), Err(TokenError::UnknownKey));
        let impostor = TokenKeys::new(keys.kid, [1; KEY_BYTES]);
        assert_eq!(impostor.open(&token, now()), Err(TokenError::Tampered));
    }

    #[test]
    fn every_flipped_bit_is_refused() {
        let keys = TokenKeys::generate();
        let token = keys.mint(&claims()).into_bytes();
        for position in 0..token.len() * 8 {
            let mut flipped = token.clone();
            flipped[position / 8] ^= 1 << (position % 8);
            let refused = String::from_utf8(flipped).map_or(true, |text| keys.open(&text, now()).is_err());
            assert!(refused, "bit {position}");
        }
    }

    #[test]
    fn every_truncation_is_refused() {
        let keys = TokenKeys::generate();
        let token = keys.mint(&claims());
        assert!((0..token.len()).all(|end| keys.open(&token[..end], now()).is_err()));
        assert_eq!(keys.open(&format!("{token}."), now()), Err(TokenError::Malformed));
        assert_eq!(keys.open(&format!("{token}="), now()), Err(TokenError::Malformed));
    }

    #[test]
    fn only_the_one_header_is_accepted() {
        let keys = TokenKeys::generate();
        let kid = keys.kid;
        assert!(keys.open(&with_header(&keys, &format!(r#"{{"kid":"{kid}","alg":"dir","enc":"A256GCM"}}"#)), now()).is_ok());
        for wrong in [
            format!(r#"{{"kid":"{kid}","alg":"none","enc":"A256GCM"}}"#),
            format!(r#"{{"kid":"{kid}","alg":"dir","enc":"A128GCM"}}"#),
            format!(r#"{{"kid":"{kid}","alg":"dir","enc":"A256GCM","zip":"DEF"}}"#),
            format!(r#"{{"kid":"{kid}","kid":"{kid}","alg":"dir","enc":"A256GCM"}}"#),
            format!(r#"{{"alg":"dir","enc":"A256GCM","x":"{kid}"}}"#),
            "[]".into(),
            " ".repeat(1000),
        ] {
            assert_eq!(keys.open(&with_header(&keys, &wrong), now()), Err(TokenError::Malformed), "{wrong}");
        }
    }

    #[test]
    fn sizes_are_bounded_and_exact() {
        let keys = TokenKeys::generate();
        let token = keys.mint(&claims());
        let parts: Vec<&str> = token.split('.').collect();
        let replaced = |index: usize, part: &str| {
            let mut parts = parts.clone();
            parts[index] = part;
            parts.join(".")
        };
        let short = URL_SAFE_NO_PAD.encode([0; 11]);
        let long = URL_SAFE_NO_PAD.encode([0; 17]);
        let huge = "A".repeat(MAX_TOKEN_BYTES);
        for wrong in [replaced(1, "AA"), replaced(2, &short), replaced(2, &long), replaced(4, &short), replaced(4, &long), replaced(3, "")]
        {
            assert_eq!(keys.open(&wrong, now()), Err(TokenError::Malformed));
        }
        assert_eq!(keys.open(&replaced(3, &huge), now()), Err(TokenError::Malformed));
    }

    #[test]
    fn arbitrary_strings_never_panic_and_never_open() {
        let keys = TokenKeys::generate();
        let token: Vec<char> = keys.mint(&claims()).chars().collect();
        let alphabet: Vec<char> = "AZaz09-_.=+/ {}\"é\u{0}".chars().collect();
        let mut random = StdRng::seed_from_u64(7);
        for _ in 0..5_000 {
            let noise: String = (0..random.random_range(0..200)).map(|_| alphabet[random.random_range(0..alphabet.len())]).collect();
            assert!(keys.open(&noise, now()).is_err());
            let mut mutated = token.clone();
            let at = random.random_range(0..mutated.len());
            let end = random.random_range(at..=mutated.len());
            mutated.splice(at..end, noise.chars().take(3));
            assert!(mutated == token || keys.open(&mutated.iter().collect::<String>(), now()).is_err());
        }
    }
}
