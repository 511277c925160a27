//! Who signed a request, and from where it came.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use crate::ids::AccountId;

/// The principal behind an access key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    pub account: AccountId,
    /// `arn:aws:iam::<account>:root`, `...:user/<path><name>` or `arn:aws:sts::<account>:assumed-role/<role>/<session>`.
    pub arn: String,
    /// What STS calls `UserId`, and audit records `principalId`.
    pub user_id: String,
    pub principal: Principal,
    pub access_key_id: String,
    /// Of the connection; unspecified until a request is known.
    pub source_ip: IpAddr,
    /// Of temporary credentials.
    pub session: Option<Session>,
}

/// What kind of identity a caller is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Principal {
    /// Everything of its account is allowed to it.
    Root,
    User(Named),
    AssumedRole {
        role: Named,
        session_name: String,
    },
}

/// A user or a role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// `AIDA...` or `AROA...`: another one after the name was deleted and made anew.
    pub id: String,
    pub name: String,
    /// `arn:aws:iam::<account>:user/...` or `...:role/...`.
    pub arn: String,
}

/// What temporary credentials carry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// In epoch seconds.
    pub issued_at: i64,
    /// Narrows what the principal's own policies allow.
    pub policy: Option<Arc<str>>,
}

impl Caller {
    /// The account's root, by one of its access keys.
    pub fn root(account: AccountId, access_key_id: impl Into<String>) -> Self {
        Self {
            arn: format!("arn:aws:iam::{account}:root"),
            user_id: account.0.clone(),
            account,
            principal: Principal::Root,
            access_key_id: access_key_id.into(),
            source_ip: Ipv4Addr::UNSPECIFIED.into(),
            session: None,
        }
    }

    pub fn user(account: AccountId, user: Named, access_key_id: impl Into<String>) -> Self {
        let (arn, user_id) = (user.arn.clone(), user.id.clone());
        Self { arn, user_id, principal: Principal::User(user), ..Self::root(account, access_key_id) }
    }

    pub fn assumed_role(account: AccountId, role: Named, session_name: String, access_key_id: impl Into<String>) -> Self {
        let arn = format!("arn:aws:sts::{account}:assumed-role/{}/{session_name}", role.name);
        let user_id = format!("{}:{session_name}", role.id);
        Self { arn, user_id, principal: Principal::AssumedRole { role, session_name }, ..Self::root(account, access_key_id) }
    }

    /// The ARN of the identity policies belong to: of the role, for a session of it.
    pub fn principal_arn(&self) -> &str {
        match &self.principal {
            Principal::Root => &self.arn,
            Principal::User(named) | Principal::AssumedRole { role: named, .. } => &named.arn,
        }
    }
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
