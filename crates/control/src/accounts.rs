//! Keys made at first start and kept in the store: the access key of the default account, and the key of endpoint tokens.

use std::sync::Arc;

use emberbox_store::{Store, StoreError};
use emberbox_wire::caller::{AccessKey, Caller};
use emberbox_wire::ids::AccountId;
use rand::Rng;

use crate::token::{TokenKeyError, TokenKeys};

const KEY_ID_ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
const SECRET_ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const TOKEN_KEY: &str = "endpoint-token-key";

/// Why a key is not to be had.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("the key could not be read or kept")]
    Store(#[from] StoreError),
    #[error("the stored token key is not one")]
    Token(#[from] TokenKeyError),
}

/// The first access key of `account`, made when there is none: `AKIA` and 16 characters, a secret of 40.
pub async fn ensure_access_key(store: &Store, account: &AccountId) -> Result<AccessKey, StoreError> {
    if let Some(key) = store.first_access_key(account).await? {
        return Ok(key);
    }
    let caller = Caller { account: account.clone(), arn: format!("arn:aws:iam::{account}:root"), user_id: account.0.clone() };
    let key = AccessKey { id: format!("AKIA{}", random_text(KEY_ID_ALPHABET, 16)), secret: random_text(SECRET_ALPHABET, 40), caller };
    store.insert_access_key(&key).await?;
    Ok(key)
}

/// The key that mints and opens endpoint tokens.
pub async fn token_keys(store: &Store) -> Result<Arc<TokenKeys>, KeyError> {
    let bytes = store.setting_or_insert(TOKEN_KEY, || TokenKeys::generate().to_bytes().to_vec()).await?;
    Ok(Arc::new(TokenKeys::from_bytes(&bytes)?))
}

fn random_text(alphabet: &[u8], length: usize) -> String {
    let mut random = rand::rng();
    (0..length).map(|_| char::from(alphabet[random.random_range(0..alphabet.len())])).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn keys_are_made_once() {
        let store = Store::in_memory().await.unwrap();
        let account = AccountId("123456789012".into());
        let key = ensure_access_key(&store, &account).await.unwrap();
        assert_eq!((key.id.len(), &key.id[..4], key.secret.len()), (20, "AKIA", 40));
        assert_eq!(ensure_access_key(&store, &account).await.unwrap(), key);
        let first = token_keys(&store).await.unwrap();
        assert_eq!(first.to_bytes(), token_keys(&store).await.unwrap().to_bytes());
    }
}
