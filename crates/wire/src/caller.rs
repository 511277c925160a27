//! Who signed a request.

use serde::{Deserialize, Serialize};

use crate::ids::AccountId;

/// The principal behind an access key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Caller {
    pub account: AccountId,
    /// `arn:aws:iam::<account>:root` or `...:user/<name>`.
    pub arn: String,
    /// What STS calls `UserId`.
    pub user_id: String,
}

/// An access key with the secret that signs. `Debug` hides the secret.
#[derive(Clone, PartialEq, Eq)]
pub struct AccessKey {
    pub id: String,
    pub secret: String,
    pub caller: Caller,
}

impl std::fmt::Debug for AccessKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AccessKey").field("id", &self.id).field("caller", &self.caller).finish_non_exhaustive()
    }
}
