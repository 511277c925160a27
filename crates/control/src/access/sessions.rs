//! Temporary credentials. Nothing of them is stored: the secret is derived from the key id, and the session token is a sealed record of who holds it
//! until when.
//!
//! A key that was never issued has a secret, too, which nobody knows; and no token, without which it is refused.

use aes_gcm::aead::{Aead, KeyInit};
use aes_gcm::{Aes256Gcm, Nonce};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use emberbox_store::IdentityId;
use emberbox_wire::ids::AccountId;
use hmac::{Hmac, Mac};
use rand::RngCore;
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use super::ids::IdOf;

/// The stored setting.
pub(super) const KEY: &str = "session-key";
const SEAL_BYTES: usize = 32;
const DERIVE_BYTES: usize = 32;
const IV_BYTES: usize = 12;
/// A secret has forty characters of base64.
const SECRET_BYTES: usize = 30;
/// Longest token looked at; a session policy of 2048 characters stays below half of it.
const MAX_TOKEN_CHARACTERS: usize = 16 * 1024;

/// Not the bytes that [`new_key`] made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the key of session tokens is {} bytes", SEAL_BYTES + DERIVE_BYTES)]
pub struct SessionKeyError;

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Claims {
    /// The access key the token belongs to.
    pub(super) key: String,
    pub(super) account: String,
    pub(super) holder: Holder,
    /// In epoch seconds.
    pub(super) iat: i64,
    pub(super) exp: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) policy: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Holder {
    Root,
    User { id: String },
    Role { id: String, session: String },
}

impl Holder {
    pub(super) fn identity(&self) -> Option<IdentityId> {
        match self {
            Self::Root => None,
            Self::User { id } | Self::Role { id, .. } => Some(IdentityId(id.clone())),
        }
    }
}

/// Temporary credentials as a client gets them. Not `Debug`: they are secrets.
pub struct Issued {
    pub access_key_id: String,
    pub secret: String,
    pub session_token: String,
    /// In epoch seconds.
    pub expires_at: i64,
}

/// The key behind all temporary credentials. Deliberately neither `Debug` nor `Clone`.
pub(super) struct Sessions {
    cipher: Aes256Gcm,
    derive: [u8; DERIVE_BYTES],
}

pub(super) fn new_key() -> Vec<u8> {
    let mut key = vec![0; SEAL_BYTES + DERIVE_BYTES];
    rand::rng().fill_bytes(&mut key);
    key
}

impl Sessions {
    pub(super) fn new(key: &[u8]) -> Result<Self, SessionKeyError> {
        let (seal, derive) = key.split_at_checked(SEAL_BYTES).ok_or(SessionKeyError)?;
        let seal: [u8; SEAL_BYTES] = seal.try_into().map_err(|_| SessionKeyError)?;
        Ok(Self { cipher: Aes256Gcm::new(&seal.into()), derive: derive.try_into().map_err(|_| SessionKeyError)? })
    }

    pub(super) fn issue(&self, account: &AccountId, holder: Holder, now: i64, lifetime_seconds: u32, policy: Option<String>) -> Issued {
        let access_key_id = IdOf::TemporaryKey.random();
        let expires_at = now.saturating_add(lifetime_seconds.into());
        let claims = Claims { key: access_key_id.clone(), account: account.0.clone(), holder, iat: now, exp: expires_at, policy };
        Issued { secret: self.secret(&access_key_id), session_token: self.seal(&claims), access_key_id, expires_at }
    }

    pub(super) fn secret(&self, access_key_id: &str) -> String {
        let mut mac = <Hmac<Sha256> as Mac>::new_from_slice(&self.derive).expect("HMAC takes keys of any length");
        mac.update(access_key_id.as_bytes());
        STANDARD.encode(&mac.finalize().into_bytes()[..SECRET_BYTES])
    }

    fn seal(&self, claims: &Claims) -> String {
        // A random IV is safe for 2^32 tokens under one key.
        let mut iv = [0; IV_BYTES];
        rand::rng().fill_bytes(&mut iv);
        let plain = serde_json::to_vec(claims).expect("plain strings and numbers serialise");
        let sealed = self.cipher.encrypt(&Nonce::from(iv), plain.as_slice()).expect("claims are far shorter than 64 GiB");
        STANDARD.encode([&iv[..], &sealed].concat())
    }

    /// The claims of an authentic token, whether its time is over or not.
    pub(super) fn open(&self, token: &str) -> Option<Claims> {
        if token.len() > MAX_TOKEN_CHARACTERS {
            return None;
        }
        let bytes = STANDARD.decode(token).ok()?;
        let (iv, sealed) = bytes.split_first_chunk::<IV_BYTES>()?;
        let plain = self.cipher.decrypt(&Nonce::from(*iv), sealed).ok()?;
        serde_json::from_slice(&plain).ok()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_token_is_its_keys_alone() {
        let sessions = Sessions::new(&new_key()).unwrap();
        let holder = Holder::Role { id: "AROAX".into(), session: "s".into() };
        let issued = sessions.issue(&AccountId("123456789012".into()), holder.clone(), 100, 900, Some("{}".into()));
        assert_eq!((issued.access_key_id.len(), issued.secret.len(), issued.expires_at), (20, 40, 1000));
        assert_eq!(sessions.secret(&issued.access_key_id), issued.secret);
        let claims = sessions.open(&issued.session_token).unwrap();
        assert_eq!((&claims.key, &claims.holder, claims.iat, claims.exp), (&issued.access_key_id, &holder, 100, 1000));
        let other = Sessions::new(&new_key()).unwrap();
        assert!(other.open(&issued.session_token).is_none());
        assert_ne!(other.secret(&issued.access_key_id), issued.secret);
        assert!(Sessions::new(&[0; 63]).is_err() && Sessions::new(&[0; 65]).is_err());
    }

    proptest! {
        #[test]
        fn a_changed_token_is_none(at in any::<prop::sample::Index>(), bit in 0u8..8, junk in ".{0,80}") {
            let sessions = Sessions::new(&new_key()).unwrap();
            let issued = sessions.issue(&AccountId("1".into()), Holder::Root, 0, 1, None);
            let mut bytes = STANDARD.decode(&issued.session_token).unwrap();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert!(sessions.open(&STANDARD.encode(&bytes)).is_none());
            prop_assert!(sessions.open(&junk).is_none());
        }
    }
}
