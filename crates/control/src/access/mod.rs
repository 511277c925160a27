//! Who may do what: access keys and sessions, roles, and the decision before every operation.
//!
//! Owns [`Access`], which every service of the daemon asks, and what it keeps in memory: keys and compiled policies, forgotten whenever IAM's records
//! change. [`policy`] decides, [`operations`] says what each operation of Lambda needs. Must never log a secret or a token, nor let anything pass because
//! a record could not be read.
//!
//! ```text
//! key id, token ─▶ credentials (cache ─▶ store, sessions) ─▶ Caller
//! Caller, question ─▶ check: root? ─ else grants (cache ─▶ store, AWS's own policies) ─▶ policy::decide ─▶ Ok | Denied
//! role ARN ─▶ roles: is there, trusts lambda.amazonaws.com ─▶ may be passed
//! ```

mod builtin;
mod cache;
mod check;
mod credentials;
mod denied;
pub mod ids;
pub(crate) mod operations;
pub mod policy;
mod roles;
mod sessions;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use emberbox_store::{Store, StoreError};

pub use builtin::{AwsManagedPolicy, aws_managed_policies, aws_managed_policy};
pub use check::{AccessError, Question, iso8601};
pub use credentials::CredentialError;
pub use denied::{Denied, Why};
pub use roles::{AssumeRole, AssumeRoleError, Assumed, RoleError};
pub use sessions::{Issued, SessionKeyError};

use crate::clock::Clock;

/// Why access could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenAccessError {
    #[error("the records could not be read or written")]
    Store(#[from] StoreError),
    #[error("the stored key of session tokens is not one")]
    Key(#[from] SessionKeyError),
}

/// Identities and their permissions. One for the daemon: what one service changes, all forget.
pub struct Access {
    store: Store,
    region: String,
    clock: Arc<dyn Clock>,
    sessions: sessions::Sessions,
    cache: cache::Cache,
}

impl Access {
    pub async fn open(store: Store, region: impl Into<String>, clock: Arc<dyn Clock>) -> Result<Arc<Self>, OpenAccessError> {
        let key = store.setting_or_insert(sessions::KEY, sessions::new_key).await?;
        let sessions = sessions::Sessions::new(&key)?;
        Ok(Arc::new(Self { store, region: region.into(), clock, sessions, cache: cache::Cache::default() }))
    }

    pub fn store(&self) -> &Store {
        &self.store
    }

    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// To be called after every change of IAM's records: nothing that was read before is used again.
    pub fn changed(&self) {
        self.cache.forget();
    }

    fn now_seconds(&self) -> i64 {
        self.clock.now().0 / 1000
    }
}
