//! What the front needs from the rest of the daemon. `bin` implements [`Credentials`] and [`Operations`] with control and store; the companions
//! implement [`QueryService`] and [`StreamingService`].

use std::collections::BTreeMap;

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

/// The access keys this daemon knows.
#[async_trait]
pub trait Credentials: Send + Sync + 'static {
    async fn access_key(&self, id: &str) -> Option<AccessKey>;
}

/// The operations of the service model.
#[async_trait]
pub trait Operations: Send + Sync + 'static {
    /// `input` holds every member that was given, by its model name, wherever it came from, typed and validated by the model. The answer is one
    /// object; its null members are not sent.
    async fn call(&self, caller: Caller, operation: &str, input: Value) -> Result<Value, ApiError>;
}

/// A service of the AWS query protocol (STS): parameters in, the XML of a successful answer out.
#[async_trait]
pub trait QueryService: Send + Sync + 'static {
    async fn call(&self, caller: &Caller, parameters: &BTreeMap<String, String>, request_id: &str) -> Result<String, ApiError>;
}

/// A service that streams bodies and therefore verifies signatures itself (S3).
#[async_trait]
pub trait StreamingService: Send + Sync + 'static {
    async fn call(&self, request: http::Request<Incoming>) -> http::Response<ResponseBody>;
}
