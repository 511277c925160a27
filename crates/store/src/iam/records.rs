//! What is kept of identities.

use emberbox_wire::ids::AccountId;

use crate::UnixMillis;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountRecord {
    pub id: AccountId,
    pub created_at: UnixMillis,
}

/// `AIDA...` of a user, `AROA...` of a role. Another one after the identity was deleted and made anew under its name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct IdentityId(pub String);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum IdentityKind {
    User,
    Role,
}

impl IdentityKind {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Role => "role",
        }
    }
}

/// A user or a role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityRecord {
    pub id: IdentityId,
    pub account: AccountId,
    pub name: String,
    /// Begins and ends with `/`.
    pub path: String,
    pub created_at: UnixMillis,
    pub settings: IdentitySettings,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IdentitySettings {
    User,
    Role(RoleSettings),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleSettings {
    /// The trust policy, as it was given.
    pub trust: String,
    pub description: Option<String>,
    pub max_session_seconds: u32,
}

impl IdentityRecord {
    pub fn kind(&self) -> IdentityKind {
        match self.settings {
            IdentitySettings::User => IdentityKind::User,
            IdentitySettings::Role(_) => IdentityKind::Role,
        }
    }

    /// `arn:aws:iam::<account>:role/<path><name>`.
    pub fn arn(&self) -> String {
        format!("arn:aws:iam::{}:{}{}{}", self.account, self.kind().word(), self.path, self.name)
    }
}

/// A key without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessKeyRecord {
    pub id: String,
    pub account: AccountId,
    /// `None` of a root's key.
    pub user: Option<IdentityId>,
    pub active: bool,
    pub created_at: UnixMillis,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManagedPolicyRecord {
    /// `ANPA...`.
    pub id: String,
    pub account: AccountId,
    pub name: String,
    pub path: String,
    pub description: Option<String>,
    pub default_version: u32,
    pub newest_version: u32,
    pub created_at: UnixMillis,
    pub updated_at: UnixMillis,
}

impl ManagedPolicyRecord {
    pub fn arn(&self) -> String {
        format!("arn:aws:iam::{}:policy{}{}", self.account, self.path, self.name)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyVersionRecord {
    pub version: u32,
    pub document: String,
    pub created_at: UnixMillis,
}
