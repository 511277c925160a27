//! Where artifacts come from.

use std::io;
use std::path::Path;

use async_trait::async_trait;
use emberbox_wire::ids::AccountId;

/// Why an object could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error("the bucket does not exist")]
    NoSuchBucket,
    #[error("the key does not exist")]
    NoSuchKey,
    /// With the words the store has for it.
    #[error("access is denied: {0}")]
    AccessDenied(String),
    /// The object is larger than `max_bytes`, whether it says so beforehand or not.
    #[error("the object is too large")]
    TooLarge,
    /// The store has no bucket or key of such a name.
    #[error("the name is not valid")]
    InvalidName,
    #[error("the object could not be copied")]
    Io(#[from] io::Error),
}

/// With whose permissions an object is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reader<'a> {
    pub account: &'a AccountId,
    /// ARN of the build role.
    pub role: &'a str,
}

/// An object store, seen by the role of a build.
#[async_trait]
pub trait ArtifactSource: Send + Sync + 'static {
    /// Copies an object to the file `to`, which does not exist yet, and answers its size. Never writes more than `max_bytes`.
    async fn fetch(&self, reader: Reader<'_>, bucket: &str, key: &str, to: &Path, max_bytes: u64) -> Result<u64, FetchError>;
}
