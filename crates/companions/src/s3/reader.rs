//! Objects for image builds, without HTTP: the daemon reads its own store.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use emberbox_wire::ids::AccountId;
use s3s::path::{check_bucket_name, check_key};

use super::store::{Store, StoreError};

#[derive(Debug, thiserror::Error)]
pub enum ReadObjectError {
    #[error("the bucket does not exist")]
    NoSuchBucket,
    #[error("the key does not exist")]
    NoSuchKey,
    #[error("the bucket is another account's")]
    OtherAccount,
    #[error("the object has {size} bytes, more than the {limit} allowed")]
    TooLarge { size: u64, limit: u64 },
    #[error("that is not the name of a bucket and a key")]
    InvalidName,
    #[error("the object could not be read or written")]
    Io(#[source] io::Error),
}

#[derive(Clone)]
pub struct ArtifactReader(Arc<Store>);

impl ArtifactReader {
    pub fn new(store: Arc<Store>) -> Self {
        Self(store)
    }

    /// Copies an object of the account's to the file `to` (created or truncated) and returns its size in bytes. On an error `to` may hold a part of it.
    pub async fn read_object(
        &self,
        account: &AccountId,
        bucket: &str,
        key: &str,
        to: &Path,
        max_bytes: u64,
    ) -> Result<u64, ReadObjectError> {
        if self.0.owner(bucket).is_some_and(|owner| owner != *account) {
            return Err(ReadObjectError::OtherAccount);
        }
        let (store, bucket, key, to) = (self.0.clone(), bucket.to_owned(), key.to_owned(), to.to_owned());
        let copy = tokio::task::spawn_blocking(move || read(&store, &bucket, &key, &to, max_bytes));
        copy.await.unwrap_or_else(|panic| Err(ReadObjectError::Io(io::Error::other(panic))))
    }
}

fn read(store: &Store, bucket: &str, key: &str, to: &Path, max_bytes: u64) -> Result<u64, ReadObjectError> {
    if !check_bucket_name(bucket) || key.is_empty() || !check_key(key) {
        return Err(ReadObjectError::InvalidName);
    }
    let (record, bytes) = store.open_object(bucket, key)?;
    if record.size > max_bytes {
        return Err(ReadObjectError::TooLarge { size: record.size, limit: max_bytes });
    }
    let copied =
        io::copy(&mut bytes.take(record.size), &mut File::create(to).map_err(ReadObjectError::Io)?).map_err(ReadObjectError::Io)?;
    match copied == record.size {
        true => Ok(copied),
        false => {
            Err(ReadObjectError::Io(io::Error::new(io::ErrorKind::UnexpectedEof, "the stored object is shorter than its record says")))
        }
    }
}

impl From<StoreError> for ReadObjectError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NoSuchBucket => Self::NoSuchBucket,
            StoreError::NoSuchKey => Self::NoSuchKey,
            StoreError::Io(error) => Self::Io(error),
            other => Self::Io(io::Error::other(other)),
        }
    }
}
