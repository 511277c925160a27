//! A directory for the life of one build, gone whichever way the build ends: success, failure or a dropped future.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tempfile::TempDir;

const PREFIX: &str = "image-build-";

/// Dropping it asks the work in it to stop; the directory goes when the last user does, so that nothing is written into a half-deleted tree.
pub(crate) struct Workspace {
    directory: Arc<TempDir>,
    abandoned: Arc<AtomicBool>,
}

/// A share of a workspace for a blocking thread, which a dropped future cannot stop.
pub(crate) struct Share {
    _directory: Arc<TempDir>,
    pub(crate) abandoned: Arc<AtomicBool>,
}

impl Workspace {
    pub(crate) fn create(parent: &Path) -> io::Result<Self> {
        let directory = tempfile::Builder::new().prefix(PREFIX).tempdir_in(parent)?;
        Ok(Self { directory: Arc::new(directory), abandoned: Arc::default() })
    }

    pub(crate) fn archive(&self) -> PathBuf {
        self.directory.path().join("artifact.zip")
    }

    pub(crate) fn context(&self) -> PathBuf {
        self.directory.path().join("context")
    }

    pub(crate) fn share(&self) -> Share {
        Share { _directory: Arc::clone(&self.directory), abandoned: Arc::clone(&self.abandoned) }
    }

    /// Deletes the directory without blocking the runtime.
    pub(crate) async fn remove(self) {
        if let Err(error) = tokio::task::spawn_blocking(move || drop(self)).await {
            tracing::warn!(%error, "the directory of an image build may have stayed");
        }
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        self.abandoned.store(true, Ordering::Relaxed);
    }
}

/// Makes `parent` and removes what a crashed daemon left in it.
pub(crate) fn prepare(parent: &Path) -> io::Result<()> {
    std::fs::create_dir_all(parent)?;
    for entry in std::fs::read_dir(parent)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(PREFIX) {
            std::fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}
