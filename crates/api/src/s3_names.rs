//! What a request for S3 asks, told from its method and URL alone: for the audit log, when the request never got to an operation.

use emberbox_wire::audit::AuditResource;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Body;
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use crate::routing::query_pairs;
use crate::services::{BoxError, ResponseBody};

/// Longest error that is read; S3's are a few hundred bytes.
const MAX_ERROR_BYTES: u64 = 64 * 1024;

/// A request as it looks from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) operation: &'static str,
    bucket: String,
    key: String,
}

impl Asked {
    pub(crate) fn of<B>(request: &Request<B>) -> Self {
        let path = request.uri().path().trim_start_matches('/');
        let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
        let pairs = query_pairs(request.uri().query().unwrap_or_default());
        let has = |name: &str| pairs.iter().any(|(given, _)| given == name);
        let operation = match (request.method(), bucket.is_empty(), key.is_empty()) {
            (&Method::GET, true, _) => "ListBuckets",
            (&Method::GET, false, true) if has("uploads") => "ListMultipartUploads",
            (&Method::GET, false, true) if has("location") => "GetBucketLocation",
            (&Method::GET, false, true) => "ListObjects",
            (&Method::HEAD, false, true) => "HeadBucket",
            (&Method::PUT, false, true) => "CreateBucket",
            (&Method::DELETE, false, true) => "DeleteBucket",
            (&Method::POST, false, true) if has("delete") => "DeleteObjects",
            (&Method::GET, false, false) if has("uploadId") => "ListParts",
            (&Method::GET, false, false) => "GetObject",
            (&Method::HEAD, false, false) => "HeadObject",
            (&Method::PUT, false, false) if has("uploadId") => "UploadPart",
            (&Method::PUT, false, false) if request.headers().contains_key("x-amz-copy-source") => "CopyObject",
            (&Method::PUT, false, false) => "PutObject",
            (&Method::DELETE, false, false) if has("uploadId") => "AbortMultipartUpload",
            (&Method::DELETE, false, false) => "DeleteObject",
            (&Method::POST, false, false) if has("uploads") => "CreateMultipartUpload",
            (&Method::POST, false, false) => "CompleteMultipartUpload",
            _ => "Unknown",
        };
        let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().chars().take(1024).collect();
        Self { operation, bucket: decoded(bucket), key: decoded(key) }
    }

    pub(crate) fn read_only(&self) -> bool {
        read_only(self.operation)
    }

    pub(crate) fn parameters(&self) -> Value {
        match (self.bucket.is_empty(), self.key.is_empty()) {
            (true, _) => json!({}),
            (false, true) => json!({"bucketName": self.bucket}),
            (false, false) => json!({"bucketName": self.bucket, "key": self.key}),
        }
    }

    pub(crate) fn resource(&self) -> Option<AuditResource> {
        match (self.bucket.is_empty(), self.key.is_empty()) {
            (true, _) => None,
            (false, true) => Some(AuditResource { arn: format!("arn:aws:s3:::{}", self.bucket), kind: "AWS::S3::Bucket" }),
            (false, false) => Some(AuditResource { arn: format!("arn:aws:s3:::{}/{}", self.bucket, self.key), kind: "AWS::S3::Object" }),
        }
    }
}

pub(crate) fn read_only(operation: &str) -> bool {
    ["Get", "List", "Head"].iter().any(|verb| operation.starts_with(verb))
}

/// The code and message of an answer that is an error, and the answer again.
pub(crate) async fn error_of(response: Response<ResponseBody>) -> (Response<ResponseBody>, String, String) {
    let (parts, body) = response.into_parts();
    let status = parts.status.as_u16().to_string();
    // What is streamed, or longer than any error, is handed on unread.
    if body.size_hint().upper().is_none_or(|bytes| bytes > MAX_ERROR_BYTES) {
        return (Response::from_parts(parts, body), status, String::new());
    }
    let Ok(collected) = body.collect().await else {
        return (Response::from_parts(parts, ResponseBody::default()), status, String::new());
    };
    let bytes = collected.to_bytes();
    let text = String::from_utf8_lossy(&bytes);
    // The answer to a HEAD has no body to say more.
    let code = element(&text, "Code").unwrap_or(status);
    let message = element(&text, "Message").unwrap_or_default();
    drop(text);
    let body = Full::new(bytes).map_err(|never| -> BoxError { match never {} }).boxed_unsync();
    (Response::from_parts(parts, body), code, message)
}

fn element(xml: &str, name: &str) -> Option<String> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    let (value, _) = rest.split_once(&format!("</{name}>"))?;
    Some(value.to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn requests_are_told_by_method_and_url() {
        for (method, uri, operation, arn) in [
            ("GET", "/", "ListBuckets", None),
            ("PUT", "/b", "CreateBucket", Some("arn:aws:s3:::b")),
            ("GET", "/b?list-type=2", "ListObjects", Some("arn:aws:s3:::b")),
            ("PUT", "/b/a%20b/c", "PutObject", Some("arn:aws:s3:::b/a b/c")),
            ("PUT", "/b/k?partNumber=1&uploadId=u", "UploadPart", Some("arn:aws:s3:::b/k")),
            ("POST", "/b/k?uploads", "CreateMultipartUpload", Some("arn:aws:s3:::b/k")),
            ("POST", "/b?delete", "DeleteObjects", Some("arn:aws:s3:::b")),
        ] {
            let asked = Asked::of(&Request::builder().method(method).uri(uri).body(()).unwrap());
            assert_eq!(asked.operation, operation, "{method} {uri}");
            assert_eq!(asked.resource().map(|resource| resource.arn).as_deref(), arn);
        }
    }

    #[tokio::test]
    async fn an_error_is_read_and_handed_on() {
        let xml = "<Error><Code>NoSuchKey</Code><Message>gone</Message></Error>";
        let body = Full::new(bytes::Bytes::from_static(xml.as_bytes())).map_err(|never| -> BoxError { match never {} }).boxed_unsync();
        let (response, code, message) = error_of(Response::new(body)).await;
        assert_eq!((code.as_str(), message.as_str()), ("NoSuchKey", "gone"));
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), xml.as_bytes());
    }
}
