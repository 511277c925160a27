//! Accounts, and keys made at first start and kept in the store: the access key of the default account's root, and the key of endpoint tokens.

use std::sync::Arc;

use emberbox_store::{AccessKeyRecord, Store, StoreError, UnixMillis};
use emberbox_wire::caller::{AccessKey, Caller};
use emberbox_wire::ids::AccountId;

use crate::access::ids::{IdOf, random_secret};
use crate::token::{TokenKeyError, TokenKeys};

const TOKEN_KEY: &str = "endpoint-token-key";

/// Why a key is not to be had.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("the key could not be read or kept")]
    Store(#[from] StoreError),
    #[error("the stored token key is not one")]
    Token(#[from] TokenKeyError),
}

/// Why an account could not be added.
#[derive(Debug, thiserror::Error)]
pub enum AddAccountError {
    #[error("an account is twelve digits")]
    NotAnAccount,
    #[error("the account exists already")]
    Exists,
    #[error("the account could not be written")]
    Store(#[from] StoreError),
}

/// Adds an account and answers its root's access key.
pub async fn add(store: &Store, account: &AccountId, now: UnixMillis) -> Result<AccessKey, AddAccountError> {
    if account.0.len() != 12 || !account.0.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(AddAccountError::NotAnAccount);
    }
    if !store.insert_account(account, now).await? {
        return Err(AddAccountError::Exists);
    }
    Ok(ensure_root_key(store, account, now).await?)
}

/// The first access key of the account's root; account and key are made when they are not there.
pub async fn ensure_root_key(store: &Store, account: &AccountId, now: UnixMillis) -> Result<AccessKey, StoreError> {
    let key = |id: String, secret| AccessKey { caller: Caller::root(account.clone(), id.clone()), id, secret };
    if let Some((record, secret)) = store.root_access_key(account).await? {
        return Ok(key(record.id, secret));
    }
    store.insert_account(account, now).await?;
    let record = AccessKeyRecord { id: IdOf::AccessKey.random(), account: account.clone(), user: None, active: true, created_at: now };
    let secret = random_secret();
    store.insert_access_key(&record, &secret, u32::MAX).await?;
    Ok(key(record.id, secret))
}

/// The key that mints and opens endpoint tokens.
pub async fn token_keys(store: &Store) -> Result<Arc<TokenKeys>, KeyError> {
    let bytes = store.setting_or_insert(TOKEN_KEY, || TokenKeys::generate().to_bytes().to_vec()).await?;
    Ok(Arc::new(TokenKeys::from_bytes(&bytes)?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn keys_are_made_once() {
        let store = Store::in_memory().await.unwrap();
        let account = AccountId("123456789012".into());
        let key = ensure_root_key(&store, &account, UnixMillis(1)).await.unwrap();
        assert_eq!((key.id.len(), &key.id[..4], key.secret.len()), (20, "AKIA", 40));
        assert_eq!(ensure_root_key(&store, &account, UnixMillis(2)).await.unwrap(), key);
        assert!(matches!(add(&store, &account, UnixMillis(2)).await, Err(AddAccountError::Exists)));
        assert!(matches!(add(&store, &AccountId("12345678901x".into()), UnixMillis(2)).await, Err(AddAccountError::NotAnAccount)));
        let other = add(&store, &AccountId("210987654321".into()), UnixMillis(2)).await.unwrap();
        assert_ne!(other.id, key.id);
        assert_eq!(store.accounts().await.unwrap().len(), 2);
        let first = token_keys(&store).await.unwrap();
        assert_eq!(first.to_bytes(), token_keys(&store).await.unwrap().to_bytes());
    }
}
