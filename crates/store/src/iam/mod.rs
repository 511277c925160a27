//! Accounts, users, roles, access keys and policies. Names are looked up within an account; what a document says is nobody's business here.

mod access_keys;
mod accounts;
mod identities;
mod inline_policies;
mod managed_policies;
mod records;
#[cfg(test)]
mod tests;

pub use records::{
    AccessKeyRecord, AccountRecord, IdentityId, IdentityKind, IdentityRecord, IdentitySettings, ManagedPolicyRecord, PolicyVersionRecord,
    RoleSettings,
};

/// How a write under a condition ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    Done,
    /// The name is taken.
    Exists,
    /// What it is about is not there (any more).
    Absent,
    /// Something still depends on it.
    InUse,
}

pub(crate) fn done_or_absent(rows: u64) -> Written {
    if rows > 0 { Written::Done } else { Written::Absent }
}
