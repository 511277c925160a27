//! What can be done with machines: one file an operation, each an ordered list of named steps.

pub(crate) mod adopt;
mod boot;
pub(crate) mod build;
pub(crate) mod capture;
pub(crate) mod connect;
pub(crate) mod hooks;
pub(crate) mod images;
pub(crate) mod launch;
pub(crate) mod record;
mod rehearsal;
mod restore;
pub(crate) mod resume;
pub(crate) mod stop;
pub(crate) mod suspend;

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::path::Path;

use futures::FutureExt;

use crate::HostError;
use crate::local::remove_directory;

/// A step that panics is a step that failed, so that what was begun is undone as after any other failure.
pub(crate) async fn caught<T>(work: impl Future<Output = Result<T, HostError>>) -> Result<T, HostError> {
    AssertUnwindSafe(work).catch_unwind().await.unwrap_or_else(|_| Err(HostError::internal("take a step")("it panicked")))
}

/// Removes a directory, present or not. A disk may take seconds for large files.
pub(crate) async fn remove(path: &Path, attempted: &'static str) -> Result<(), HostError> {
    let path = path.to_path_buf();
    blocking(move || remove_directory(&path), attempted).await
}

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
