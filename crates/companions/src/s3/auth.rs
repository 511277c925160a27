//! The daemon's access keys for `s3s`, which verifies the signatures.

use std::sync::Arc;

use async_trait::async_trait;
use emberbox_api::Credentials;
use s3s::auth::{S3Auth, SecretKey};
use s3s::{S3Result, s3_error};

pub(super) struct Keys(pub(super) Arc<dyn Credentials>);

#[async_trait]
impl S3Auth for Keys {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        match self.0.access_key(access_key).await {
            Some(key) => Ok(SecretKey::from(key.secret)),
            None => Err(s3_error!(InvalidAccessKeyId, "The AWS Access Key Id you provided does not exist in our records.")),
        }
    }
}
