//! How the parts see each other: control as the API's operations and credentials, the S3 companion as the source of artifacts.

use std::io;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use emberbox_api::{CredentialError, Credentials, Operations};
use emberbox_companions::s3::{ArtifactReader, ReadObjectError};
use emberbox_control::Control;
use emberbox_control::access::{self, Access, AccessError};
use emberbox_images::{ArtifactSource, FetchError, Reader};
use emberbox_wire::caller::{AccessKey, Caller};
use emberbox_wire::error::ApiError;
use serde_json::Value;

pub(crate) struct ControlOperations(pub Arc<Control>);

#[async_trait]
impl Operations for ControlOperations {
    async fn authorize(&self, caller: &Caller, operation: &str, input: &Value) -> Result<(), ApiError> {
        self.0.authorize(caller, operation, input).await
    }

    async fn call(&self, caller: Caller, operation: &str, input: Value) -> Result<Value, ApiError> {
        self.0.call(&caller, operation, input).await
    }
}

/// The keys of users and roots, and of sessions.
pub(crate) struct Keys(pub Arc<Access>);

#[async_trait]
impl Credentials for Keys {
    async fn access_key(&self, id: &str, session_token: Option<&str>) -> Result<AccessKey, CredentialError> {
        self.0.access_key(id, session_token).await.map_err(not_a_key)
    }

    async fn secret(&self, id: &str) -> Result<String, CredentialError> {
        self.0.secret(id).await.map_err(not_a_key)
    }
}

fn not_a_key(error: access::CredentialError) -> CredentialError {
    match error {
        access::CredentialError::Invalid => CredentialError::Invalid,
        access::CredentialError::Expired => CredentialError::Expired,
        access::CredentialError::Store(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "an access key could not be read");
            CredentialError::Unavailable
        }
    }
}

/// Objects, as far as the role of a build may read them.
pub(crate) struct Artifacts {
    pub reader: ArtifactReader,
    pub access: Arc<Access>,
}

#[async_trait]
impl ArtifactSource for Artifacts {
    async fn fetch(&self, reader: Reader<'_>, bucket: &str, key: &str, to: &Path, max_bytes: u64) -> Result<u64, FetchError> {
        let object = format!("arn:aws:s3:::{bucket}/{key}");
        match self.access.build_may(reader.account, reader.role, "s3:GetObject", &object).await {
            Ok(()) => {}
            Err(AccessError::Denied(denied)) => return Err(FetchError::AccessDenied(denied.to_string())),
            Err(AccessError::Store(error)) => return Err(FetchError::Io(io::Error::other(error))),
        }
        self.reader.read_object(reader.account, bucket, key, to, max_bytes).await.map_err(|error| match error {
            ReadObjectError::NoSuchBucket => FetchError::NoSuchBucket,
            ReadObjectError::NoSuchKey => FetchError::NoSuchKey,
            ReadObjectError::OtherAccount => FetchError::AccessDenied("The bucket belongs to another account".to_owned()),
            ReadObjectError::TooLarge { .. } => FetchError::TooLarge,
            ReadObjectError::InvalidName => FetchError::InvalidName,
            ReadObjectError::Io(error) => FetchError::Io(error),
        })
    }
}
