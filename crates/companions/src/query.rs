//! What services of the query protocol share: reading parameters and writing XML.

mod parameters;
mod xml;

pub(crate) use parameters::{Parameters, Text};
pub(crate) use xml::{Xml, iso8601, respond, respond_empty};

use emberbox_api::QueryError;
use emberbox_control::access::AccessError;

/// Refusals that every such service has.
pub(crate) fn refused(error: AccessError) -> QueryError {
    match error {
        AccessError::Denied(denied) => QueryError::new("AccessDenied", 403, denied.to_string()),
        AccessError::Store(error) => internal(&error),
    }
}

pub(crate) fn internal(error: &(dyn std::error::Error + 'static)) -> QueryError {
    tracing::error!(error, "a request could not be answered");
    QueryError::new("ServiceFailure", 500, "Internal server error. The daemon's log has the cause under this request id.")
}

pub(crate) fn invalid(message: impl Into<String>) -> QueryError {
    QueryError::new("ValidationError", 400, message)
}

/// `supported` names what there is.
pub(crate) fn unknown_action(action: &str, version: &str, supported: &str) -> QueryError {
    let message = format!("Could not find operation {action} for version {version}. {supported}");
    QueryError::new("InvalidAction", 400, message)
}
