//! Refusals in AWS's words (documented: "Troubleshoot access denied error messages").

use emberbox_wire::error::{ApiError, ErrorCode};

/// Who may not do what, and which kind of policy is the reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("User: {user} is not authorized to perform: {action} on resource: {resource}{}", why.words(action))]
pub struct Denied {
    pub user: String,
    pub action: String,
    pub resource: String,
    pub why: Why,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    NoIdentityPolicy,
    NoSessionPolicy,
    NoTrustPolicy,
    DeniedByIdentityPolicy,
    DeniedBySessionPolicy,
    DeniedByTrustPolicy,
}

impl Why {
    fn words(self, action: &str) -> String {
        let (explicit, kind) = match self {
            Self::NoIdentityPolicy => (false, "identity-based"),
            Self::NoSessionPolicy => (false, "session"),
            Self::NoTrustPolicy => (false, "resource-based"),
            Self::DeniedByIdentityPolicy => (true, "an identity-based"),
            Self::DeniedBySessionPolicy => (true, "a session"),
            Self::DeniedByTrustPolicy => (true, "a resource-based"),
        };
        match explicit {
            false => format!(" because no {kind} policy allows the {action} action"),
            true => format!(" with an explicit deny in {kind} policy"),
        }
    }
}

impl From<Denied> for ApiError {
    fn from(denied: Denied) -> Self {
        Self::new(ErrorCode::AccessDenied, denied.to_string())
    }
}
