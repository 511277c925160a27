//! What can be done with machines: one file an operation, each an ordered list of named steps.

pub(crate) mod adopt;
mod boot;
pub(crate) mod build;
pub(crate) mod capture;
pub(crate) mod connect;
pub(crate) mod hooks;
pub(crate) mod images;
pub(crate) mod launch;
mod record;
mod restore;
pub(crate) mod resume;
pub(crate) mod stop;
pub(crate) mod suspend;

use crate::HostError;

/// Runs file work off the async threads.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
    attempted: &'static str,
) -> Result<T, HostError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(HostError::internal(attempted)(error)),
        Err(error) => Err(HostError::internal(attempted)(error)),
    }
}
