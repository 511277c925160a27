//! How the parts see each other: control as the API's operations and credentials, the S3 companion as the source of artifacts.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use emberbox_api::{Credentials, Operations};
use emberbox_companions::s3::{ArtifactReader, ReadObjectError};
use emberbox_control::Control;
use emberbox_images::{ArtifactSource, FetchError};
use emberbox_store::Store;
use emberbox_wire::caller::{AccessKey, Caller};
use emberbox_wire::error::ApiError;
use emberbox_wire::ids::AccountId;
use serde_json::Value;

pub(crate) struct ControlOperations(pub Arc<Control>);

#[async_trait]
impl Operations for ControlOperations {
    async fn call(&self, caller: Caller, operation: &str, input: Value) -> Result<Value, ApiError> {
        self.0.call(&caller, operation, input).await
    }
}

pub(crate) struct StoredKeys(pub Store);

#[async_trait]
impl Credentials for StoredKeys {
    async fn access_key(&self, id: &str) -> Option<AccessKey> {
        match self.0.access_key(id).await {
            Ok(key) => key,
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "an access key could not be read");
                None
            }
        }
    }
}

pub(crate) struct Artifacts(pub ArtifactReader);

#[async_trait]
impl ArtifactSource for Artifacts {
    async fn fetch(&self, _account: &AccountId, bucket: &str, key: &str, to: &Path, max_bytes: u64) -> Result<u64, FetchError> {
        self.0.read_object(bucket, key, to, max_bytes).await.map_err(|error| match error {
            ReadObjectError::NoSuchBucket => FetchError::NoSuchBucket,
            ReadObjectError::NoSuchKey => FetchError::NoSuchKey,
            ReadObjectError::TooLarge { .. } => FetchError::TooLarge,
            ReadObjectError::InvalidName => FetchError::InvalidName,
            ReadObjectError::Io(error) => FetchError::Io(error),
        })
    }
}
