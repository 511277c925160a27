//! From an access key to the caller behind it.

use std::sync::Arc;

use emberbox_store::{IdentityId, IdentityRecord, StoreError};
use emberbox_wire::caller::{AccessKey, Caller, Named, Session};
use emberbox_wire::ids::AccountId;

use super::Access;
use super::ids::IdOf;
use super::sessions::Holder;

/// Why credentials are nobody's.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// No such key, one that was turned off, or a token that is not the key's.
    #[error("the credentials are not valid")]
    Invalid,
    #[error("the credentials have expired")]
    Expired,
    #[error("the records could not be read")]
    Store(#[from] StoreError),
}

impl Access {
    /// The key with this id, if `session_token` is what belongs with it: its own for temporary keys, none for others.
    pub async fn access_key(&self, id: &str, session_token: Option<&str>) -> Result<AccessKey, CredentialError> {
        match (id.starts_with(IdOf::TemporaryKey.prefix()), session_token) {
            (true, Some(token)) => self.temporary_key(id, token).await,
            (false, None) => self.long_term_key(id).await,
            (true, None) | (false, Some(_)) => Err(CredentialError::Invalid),
        }
    }

    /// The secret of a key, before its token is looked at.
    pub async fn secret(&self, id: &str) -> Result<String, CredentialError> {
        match id.starts_with(IdOf::TemporaryKey.prefix()) {
            true => Ok(self.sessions.secret(id)),
            false => Ok(self.long_term_key(id).await?.secret),
        }
    }

    async fn long_term_key(&self, id: &str) -> Result<AccessKey, CredentialError> {
        if let Some(key) = self.cache.key(id) {
            return Ok(key);
        }
        let generation = self.cache.generation();
        let (record, secret) = self.store.access_key(id).await?.filter(|(key, _)| key.active).ok_or(CredentialError::Invalid)?;
        let caller = match &record.user {
            None => Caller::root(record.account, id),
            Some(user) => {
                let user = self.identity(user).await?.ok_or(CredentialError::Invalid)?;
                Caller::user(record.account, named(&user), id)
            }
        };
        let key = AccessKey { id: id.to_owned(), secret, caller };
        self.cache.keep_key(generation, &key);
        Ok(key)
    }

    async fn temporary_key(&self, id: &str, token: &str) -> Result<AccessKey, CredentialError> {
        let claims = self.sessions.open(token).filter(|claims| claims.key == id).ok_or(CredentialError::Invalid)?;
        if claims.exp <= self.now_seconds() {
            return Err(CredentialError::Expired);
        }
        // The credentials of an identity that was deleted, or made anew under its name, are nobody's.
        let identity = match claims.holder.identity() {
            Some(id) => Some(self.identity(&id).await?.ok_or(CredentialError::Invalid)?),
            None => None,
        };
        let account = AccountId(claims.account);
        let caller = match (claims.holder, identity) {
            (Holder::Role { session, .. }, Some(role)) => Caller::assumed_role(account, named(&role), session, id),
            (Holder::User { .. }, Some(user)) => Caller::user(account, named(&user), id),
            (Holder::Root, _) => Caller::root(account, id),
            (Holder::Role { .. } | Holder::User { .. }, None) => return Err(CredentialError::Invalid),
        };
        let session = Session { issued_at: claims.iat, policy: claims.policy.map(Arc::from) };
        Ok(AccessKey { id: id.to_owned(), secret: self.sessions.secret(id), caller: Caller { session: Some(session), ..caller } })
    }

    pub(super) async fn identity(&self, id: &IdentityId) -> Result<Option<Arc<IdentityRecord>>, StoreError> {
        if let Some(known) = self.cache.identity(id) {
            return Ok(Some(known));
        }
        let generation = self.cache.generation();
        let found = self.store.identity_by_id(id).await?.map(Arc::new);
        if let Some(identity) = &found {
            self.cache.keep_identity(generation, identity);
        }
        Ok(found)
    }
}

pub(super) fn named(identity: &IdentityRecord) -> Named {
    Named { id: identity.id.0.clone(), name: identity.name.clone(), arn: identity.arn() }
}
