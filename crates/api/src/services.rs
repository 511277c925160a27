//! What the front needs from the rest of the daemon. `bin` implements [`Credentials`] and [`Operations`] with control and store; the companions
//! implement [`QueryService`] and [`StreamingService`].

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;

use async_trait::async_trait;
use bytes::Bytes;
use emberbox_wire::caller::{AccessKey, Caller};
use emberbox_wire::error::ApiError;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use serde_json::Value;

pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A body on its way out.
pub type ResponseBody = UnsyncBoxBody<Bytes, BoxError>;

/// Why credentials are nobody's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CredentialError {
    /// No such key, a key that was turned off, or a session token that is not the key's.
    #[error("the security token included in the request is invalid")]
    Invalid,
    #[error("the security token included in the request is expired")]
    Expired,
    /// The cause is in the daemon's log.
    #[error("the credentials could not be looked up")]
    Unavailable,
}

/// The access keys this daemon knows.
#[async_trait]
pub trait Credentials: Send + Sync + 'static {
    /// The key with this id. `session_token` is what came with it: temporary keys are good with their own token alone, others with none.
    async fn access_key(&self, id: &str, session_token: Option<&str>) -> Result<AccessKey, CredentialError>;

    /// The secret of a key, before its token is looked at; for protocols that check them apart.
    async fn secret(&self, id: &str) -> Result<String, CredentialError>;
}

/// The operations of the service model.
#[async_trait]
pub trait Operations: Send + Sync + 'static {
    /// Whether the caller's policies allow the operation and all that it passes on. Comes before every [`Operations::call`].
    async fn authorize(&self, caller: &Caller, operation: &str, input: &Value) -> Result<(), ApiError>;

    /// `input` holds every member that was given, by its model name, wherever it came from, typed and validated by the model. The answer is one
    /// object; its null members are not sent.
    async fn call(&self, caller: Caller, operation: &str, input: Value) -> Result<Value, ApiError>;
}

/// A refusal in the query protocol, whose services have names of their own for errors. `Display` is what the client reads.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct QueryError {
    pub code: Cow<'static, str>,
    pub status: u16,
    pub message: String,
}

impl QueryError {
    pub fn new(code: impl Into<Cow<'static, str>>, status: u16, message: impl Into<String>) -> Self {
        Self { code: code.into(), status, message: message.into() }
    }
}

/// A service of the AWS query protocol (STS, IAM): parameters in, the XML of a successful answer out. Decides itself what the caller may do.
#[async_trait]
pub trait QueryService: Send + Sync + 'static {
    /// Of every answer.
    fn namespace(&self) -> &'static str;

    async fn call(&self, caller: &Caller, parameters: &BTreeMap<String, String>, request_id: &str) -> Result<String, QueryError>;
}

/// The address of the client, in the extensions of requests handed to a [`StreamingService`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientAddress(pub IpAddr);

/// A service that streams bodies and therefore verifies signatures itself (S3).
#[async_trait]
pub trait StreamingService: Send + Sync + 'static {
    async fn call(&self, request: http::Request<Incoming>) -> http::Response<ResponseBody>;
}
