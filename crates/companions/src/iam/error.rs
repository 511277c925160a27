//! IAM's errors by their names, in AWS's words (observed).

use emberbox_api::QueryError;
use emberbox_control::access::policy::MalformedPolicy;
use emberbox_store::{IdentityKind, StoreError};

use crate::query::{internal, invalid};

pub(super) fn store(error: StoreError) -> QueryError {
    match &error {
        StoreError::Full(_) => {
            tracing::error!(error = &error as &dyn std::error::Error, "{}", emberbox_store::FREE_SPACE);
            QueryError::new("ServiceFailure", 500, "The disk of this host is full and nothing can be written down. Retry later.")
        }
        _ => internal(&error),
    }
}

pub(super) fn absent(message: impl Into<String>) -> QueryError {
    QueryError::new("NoSuchEntity", 404, message)
}

pub(super) fn no_identity(kind: IdentityKind, name: &str) -> QueryError {
    absent(format!("The {} with name {name} cannot be found.", super::word(kind)))
}

pub(super) fn exists(message: impl Into<String>) -> QueryError {
    QueryError::new("EntityAlreadyExists", 409, message)
}

pub(super) fn in_use(message: impl Into<String>) -> QueryError {
    QueryError::new("DeleteConflict", 409, message)
}

pub(super) fn limit(message: impl Into<String>) -> QueryError {
    QueryError::new("LimitExceeded", 409, message)
}

pub(super) fn malformed(error: MalformedPolicy) -> QueryError {
    QueryError::new("MalformedPolicyDocument", 400, error.to_string())
}

pub(super) fn invalid_input(message: impl Into<String>) -> QueryError {
    QueryError::new("InvalidInput", 400, message)
}

pub(super) fn invalid_marker() -> QueryError {
    invalid("The specified marker is not valid.")
}
