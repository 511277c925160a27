//! S3 over the file system: buckets, objects, multipart uploads, listings; enough for `aws s3 ...`, the SDKs' transfer managers and image builds.
//!
//! `s3s` speaks the protocol (routing, XML, signatures with their chunked forms); the rest is here. Its sample back end `s3s-fs` is not used: it takes
//! keys for paths (so `a` and `a/b` exclude each other, and `a/../../b` reaches another bucket), replaces an object before it has compared the digest,
//! lists no ETags, deletes buckets that are not empty, and leaves an object's metadata behind when the object goes.
//!
//! No client's string ever becomes a path, but for bucket names that [`store::Store::create_bucket`] has let through. ACLs, versions, tags, lifecycle
//! and encryption are not there and say so (`NotImplemented`). [`access`] decides who may do what.

mod access;
mod checksums;
mod list;
mod multipart;
mod operations;
mod reader;
mod receive;
mod record;
pub mod store;

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use emberbox_api::{ResponseBody, StreamingService};
use emberbox_control::access::Access;
use emberbox_wire::ids::AccountId;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use s3s::service::{S3Service, S3ServiceBuilder};

pub use reader::{ArtifactReader, ReadObjectError};
pub use store::{Store, StoreError};

/// Opens the store below `root` (made if need be) and serves it. Blocks for as long as reading the records takes, so call it at start. Buckets that were
/// made before there were accounts are `default_account`'s.
pub fn service(
    root: PathBuf,
    region: &str,
    default_account: AccountId,
    access: Arc<Access>,
) -> Result<(Service, ArtifactReader), StoreError> {
    let store = Arc::new(Store::open(root, default_account)?);
    Ok((Service::new(store.clone(), region, access), ArtifactReader::new(store)))
}

/// Plugs into `emberbox_api::Server::with_s3`.
#[derive(Clone)]
pub struct Service(S3Service);

impl Service {
    pub fn new(store: Arc<Store>, region: &str, access: Arc<Access>) -> Self {
        let gate = access::Gate::new(access, store.clone());
        let mut builder = S3ServiceBuilder::new(operations::Operations::new(store, gate.clone(), region));
        builder.set_auth(gate.clone());
        builder.set_access(gate);
        Self(builder.build())
    }
}

#[async_trait]
impl StreamingService for Service {
    async fn call(&self, request: http::Request<Incoming>) -> http::Response<ResponseBody> {
        if access::is_replayable(request.headers()) {
            return refused();
        }
        match self.0.call(request.map(s3s::Body::from)).await {
            Ok(response) => response.map(BodyExt::boxed_unsync),
            Err(error) => {
                // Only for what s3s cannot answer in S3's own words.
                tracing::error!(?error, "s3 could not answer");
                let mut response = http::Response::new(ResponseBody::default());
                *response.status_mut() = http::StatusCode::INTERNAL_SERVER_ERROR;
                response
            }
        }
    }
}

/// AWS's words, of the regions that never had version 2 (observed).
fn refused() -> http::Response<ResponseBody> {
    const BODY: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>InvalidRequest</Code><Message>The authorization mechanism you have provided is not \
                        supported. Please use AWS4-HMAC-SHA256.</Message></Error>";
    let body = Full::new(Bytes::from_static(BODY.as_bytes())).map_err(|never| match never {}).boxed_unsync();
    let mut response = http::Response::new(body);
    *response.status_mut() = http::StatusCode::BAD_REQUEST;
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/xml"));
    response
}

#[cfg(test)]
mod tests;
