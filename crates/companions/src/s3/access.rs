//! Who may do what with buckets and objects: secrets for `s3s`, which verifies the signatures, and the decision before every operation.
//!
//! Bucket names are global (documented). A bucket is its account's alone, for there are no bucket policies: what another account asks of it is denied,
//! not absent (documented for S3). Actions and resources are those of the service authorization reference.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use async_trait::async_trait;
use emberbox_api::routing::query_pairs;
use emberbox_api::{CallNote, ClientAddress};
use emberbox_control::access::policy::Context;
use emberbox_control::access::{Access, AccessError, CredentialError, Question};
use emberbox_wire::caller::Caller;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use s3s::access::{S3Access, S3AccessContext};
use s3s::auth::{S3Auth, SecretKey};
use s3s::dto::{CopyObjectInput, UploadPartCopyInput};
use s3s::path::S3Path;
use s3s::{S3Error, S3Request, S3Result, s3_error};

use super::operations::source;
use super::store::Store;

/// The header; the parameter of a presigned URL is written in either case, depending on the signature's version.
const TOKEN: &str = "x-amz-security-token";

#[derive(Clone)]
pub(super) struct Gate {
    access: Arc<Access>,
    store: Arc<Store>,
}

impl Gate {
    pub(super) fn new(access: Arc<Access>, store: Arc<Store>) -> Self {
        Self { access, store }
    }

    /// The caller's policies allow it, and the bucket is not another account's.
    async fn check(&self, caller: &Caller, question: Question, bucket: Option<&str>) -> S3Result<()> {
        self.access.check(caller, &question).await.map_err(refused)?;
        let owner = bucket.and_then(|bucket| self.store.owner(bucket));
        match owner {
            Some(owner) if owner != caller.account => Err(s3_error!(AccessDenied, "Access Denied")),
            Some(_) | None => Ok(()),
        }
    }

    async fn check_source(&self, caller: S3Result<Caller>, bucket: &str, key: &str) -> S3Result<()> {
        self.check(&caller?, Question::new("s3:GetObject", object_arn(bucket, key)), Some(bucket)).await
    }

    /// Those of the keys that the caller may not delete, with the reason.
    pub(super) async fn undeletable(&self, caller: &Caller, bucket: &str, keys: Vec<String>) -> S3Result<HashMap<String, String>> {
        let mut undeletable = HashMap::new();
        for key in keys {
            match self.access.check(caller, &Question::new("s3:DeleteObject", object_arn(bucket, &key))).await {
                Ok(()) => {}
                Err(AccessError::Denied(denied)) => drop(undeletable.insert(key, denied.to_string())),
                Err(error) => return Err(refused(error)),
            }
        }
        Ok(undeletable)
    }
}

/// Put there by [`Gate`] before an operation begins.
pub(super) fn caller<T>(request: &S3Request<T>) -> S3Result<Caller> {
    request.extensions.get::<Caller>().cloned().ok_or_else(|| s3_error!(AccessDenied, "Access Denied"))
}

#[async_trait]
impl S3Auth for Gate {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        self.access.secret(access_key).await.map(SecretKey::from).map_err(not_a_key)
    }
}

#[async_trait]
impl S3Access for Gate {
    async fn check(&self, cx: &mut S3AccessContext<'_>) -> S3Result<()> {
        let id = cx.credentials().map(|credentials| credentials.access_key.clone());
        let id = id.ok_or_else(|| s3_error!(AccessDenied, "Access Denied"))?;
        let token = session_token(cx);
        let key = self.access.access_key(&id, token.as_deref()).await.map_err(not_a_key)?;
        let source_ip = cx.extensions_mut().get::<ClientAddress>().map_or(IpAddr::from(Ipv4Addr::UNSPECIFIED), |address| address.0);
        let caller = Caller { source_ip, ..key.caller };
        if let Some(note) = cx.extensions_mut().get::<CallNote>().cloned() {
            note.set(&caller, cx.s3_op().name());
        }
        let bucket = match cx.s3_path() {
            S3Path::Root => None,
            S3Path::Bucket { bucket } | S3Path::Object { bucket, .. } => Some(bucket.to_string()),
        };
        let operation = cx.s3_op().name();
        // Each key of DeleteObjects is decided about for itself (documented); a bucket that exists is CreateBucket's to refuse.
        if operation == "DeleteObjects" {
            let owner = bucket.as_deref().and_then(|bucket| self.store.owner(bucket));
            if owner.is_some_and(|owner| owner != caller.account) {
                return Err(s3_error!(AccessDenied, "Access Denied"));
            }
        } else {
            let owned = bucket.as_deref().filter(|_| operation != "CreateBucket");
            self.check(&caller, question(cx), owned).await?;
        }
        cx.extensions_mut().insert(caller);
        Ok(())
    }

    async fn copy_object(&self, request: &mut S3Request<CopyObjectInput>) -> S3Result<()> {
        let (bucket, key) = source(request.input.copy_source.clone())?;
        self.check_source(caller(request), &bucket, &key).await
    }

    async fn upload_part_copy(&self, request: &mut S3Request<UploadPartCopyInput>) -> S3Result<()> {
        let (bucket, key) = source(request.input.copy_source.clone())?;
        self.check_source(caller(request), &bucket, &key).await
    }
}

/// Whether a request is signed by version 2 in its header: such a signature has no date that is checked, so it could be replayed for ever. Presigned URLs
/// of version 2, which boto3 makes by default, expire.
pub(super) fn is_replayable(headers: &HeaderMap) -> bool {
    headers.get(AUTHORIZATION).is_some_and(|value| value.as_bytes().trim_ascii_start().starts_with(b"AWS "))
}

fn session_token(cx: &S3AccessContext<'_>) -> Option<String> {
    let header = cx.headers().get(TOKEN).and_then(|value| value.to_str().ok()).map(str::to_owned);
    header.or_else(|| {
        let parameters = query_pairs(cx.uri().query().unwrap_or_default());
        parameters.into_iter().find(|(name, _)| name.eq_ignore_ascii_case(TOKEN)).map(|(_, value)| value)
    })
}

fn question(cx: &S3AccessContext<'_>) -> Question {
    let operation = cx.s3_op().name();
    let action = match operation {
        "ListBuckets" => "ListAllMyBuckets",
        "HeadBucket" | "ListObjects" | "ListObjectsV2" => "ListBucket",
        "ListMultipartUploads" => "ListBucketMultipartUploads",
        "HeadObject" => "GetObject",
        "CopyObject" | "CreateMultipartUpload" | "UploadPart" | "UploadPartCopy" | "CompleteMultipartUpload" | "PostObject" => "PutObject",
        "ListParts" => "ListMultipartUploadParts",
        other => other,
    };
    let resource = match cx.s3_path() {
        S3Path::Root => "arn:aws:s3:::*".to_owned(),
        S3Path::Bucket { bucket } => format!("arn:aws:s3:::{bucket}"),
        S3Path::Object { bucket, key } => object_arn(bucket, key),
    };
    Question { context: listing(cx), ..Question::new(format!("s3:{action}"), resource) }
}

/// What a listing asks for, which policies of home folders look at (documented).
fn listing(cx: &S3AccessContext<'_>) -> Context {
    let mut context = Context::default();
    if matches!(cx.s3_op().name(), "ListObjects" | "ListObjectsV2") {
        for (name, value) in query_pairs(cx.uri().query().unwrap_or_default()) {
            match name.as_str() {
                "prefix" => context.set("s3:prefix", value),
                "delimiter" => context.set("s3:delimiter", value),
                "max-keys" => context.set("s3:max-keys", value),
                _ => {}
            }
        }
    }
    context
}

fn object_arn(bucket: &str, key: &str) -> String {
    format!("arn:aws:s3:::{bucket}/{key}")
}

fn not_a_key(error: CredentialError) -> S3Error {
    match error {
        CredentialError::Invalid => s3_error!(InvalidAccessKeyId, "The AWS Access Key Id you provided does not exist in our records."),
        CredentialError::Expired => s3_error!(ExpiredToken, "The provided token has expired."),
        CredentialError::Store(error) => internal(error),
    }
}

/// S3 quotes the resource (observed).
fn refused(error: AccessError) -> S3Error {
    match error {
        AccessError::Denied(mut denied) => {
            denied.resource = format!("\"{}\"", denied.resource);
            S3Error::with_message(s3s::S3ErrorCode::AccessDenied, denied.to_string())
        }
        AccessError::Store(error) => internal(error),
    }
}

fn internal(error: emberbox_store::StoreError) -> S3Error {
    tracing::error!(error = &error as &dyn std::error::Error, "permissions could not be looked up");
    s3_error!(InternalError, "We encountered an internal error. Please try again.")
}
