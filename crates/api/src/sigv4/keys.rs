//! Signing keys: derived from a secret for one day, region and service, and kept for the next request.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use emberbox_wire::caller::AccessKey;
use hmac::{Hmac, Mac};
use sha2::Sha256;

use super::parse::Scope;

/// Keys in use at once on one day; when there are more, all are derived anew.
const CAPACITY: usize = 4096;

type SigningKey = [u8; 32];

/// Ids of access keys are never given twice, so what was derived for one stays right for as long as its scope.
#[derive(Default)]
pub struct SigningKeys(RwLock<HashMap<(String, Scope), SigningKey>>);

impl SigningKeys {
    pub(super) fn of(&self, key: &AccessKey, scope: &Scope) -> SigningKey {
        let name = (key.id.clone(), scope.clone());
        if let Some(known) = self.0.read().unwrap_or_else(PoisonError::into_inner).get(&name) {
            return *known;
        }
        let derived = derive(&key.secret, scope);
        let mut keys = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if keys.len() >= CAPACITY {
            keys.clear();
        }
        keys.insert(name, derived);
        derived
    }
}

fn derive(secret: &str, scope: &Scope) -> SigningKey {
    let date = hmac(format!("AWS4{secret}").as_bytes(), &scope.date);
    let region = hmac(&date, &scope.region);
    let service = hmac(&region, &scope.service);
    hmac(&service, "aws4_request")
}

pub(super) fn hmac(key: &[u8], text: &str) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().into()
}
