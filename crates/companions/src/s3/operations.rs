//! The operations of S3 as `s3s` hands them over, decoded and authenticated: one short function each, the work is in the store.

mod answers;
mod objects;
mod uploads;

use std::sync::Arc;

use s3s::dto::*;
use s3s::{S3, S3Error, S3Request, S3Response, S3Result, s3_error};

use super::access::{Gate, caller};
use super::store::{Store, StoreError};
pub(super) use objects::source;

pub(super) struct Operations {
    store: Arc<Store>,
    gate: Gate,
    region: String,
}

impl Operations {
    pub(super) fn new(store: Arc<Store>, gate: Gate, region: &str) -> Self {
        Self { store, gate, region: region.to_owned() }
    }

    /// Runs what blocks where it may.
    async fn blocking<T: Send + 'static>(&self, work: impl FnOnce(&Store) -> S3Result<T> + Send + 'static) -> S3Result<T> {
        let store = self.store.clone();
        tokio::task::spawn_blocking(move || work(&store)).await.unwrap_or_else(|panic| Err(s3_error!(panic, InternalError)))
    }
}

impl From<StoreError> for S3Error {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NoSuchBucket => s3_error!(NoSuchBucket, "The specified bucket does not exist"),
            StoreError::InvalidBucketName => s3_error!(InvalidBucketName, "The specified bucket is not valid."),
            StoreError::BucketExists => {
                s3_error!(BucketAlreadyOwnedByYou, "Your previous request to create the named bucket succeeded and you already own it.")
            }
            StoreError::BucketNameTaken => s3_error!(
                BucketAlreadyExists,
                "The requested bucket name is not available. The bucket namespace is shared by all users of the system. Please select a different \
                 name and try again."
            ),
            StoreError::BucketNotEmpty => s3_error!(BucketNotEmpty, "The bucket you tried to delete is not empty"),
            StoreError::NoSuchKey => s3_error!(NoSuchKey, "The specified key does not exist."),
            StoreError::NoSuchUpload => s3_error!(
                NoSuchUpload,
                "The specified upload does not exist. The upload ID may be invalid, or the upload may have been aborted or completed."
            ),
            StoreError::Precondition => s3_error!(PreconditionFailed, "At least one of the pre-conditions you specified did not hold"),
            StoreError::Io(error) if error.kind() == std::io::ErrorKind::StorageFull => {
                s3_error!(error, ServiceUnavailable, "The daemon's disk is full.")
            }
            StoreError::Io(error) => {
                tracing::error!(%error, "the S3 store failed");
                s3_error!(error, InternalError, "We encountered an internal error. Please try again.")
            }
        }
    }
}

#[async_trait::async_trait]
impl S3 for Operations {
    async fn create_bucket(&self, request: S3Request<CreateBucketInput>) -> S3Result<S3Response<CreateBucketOutput>> {
        let owner = caller(&request)?.account;
        let CreateBucketInput { bucket, create_bucket_configuration, .. } = request.input;
        let constraint = create_bucket_configuration.and_then(|configuration| configuration.location_constraint);
        if let Some(constraint) = constraint.filter(|constraint| constraint.as_str() != self.region) {
            let (asked, region) = (constraint.as_str(), &self.region);
            return Err(s3_error!(
                IllegalLocationConstraintException,
                "The {asked} location constraint is incompatible for the region specific endpoint this request was sent to, which is {region}."
            ));
        }
        let location = format!("/{bucket}");
        self.blocking(move |store| Ok(store.create_bucket(&bucket, &owner)?)).await?;
        Ok(S3Response::new(CreateBucketOutput { location: Some(location) }))
    }

    async fn delete_bucket(&self, request: S3Request<DeleteBucketInput>) -> S3Result<S3Response<DeleteBucketOutput>> {
        self.blocking(move |store| Ok(store.delete_bucket(&request.input.bucket)?)).await?;
        Ok(S3Response::new(DeleteBucketOutput {}))
    }

    async fn head_bucket(&self, request: S3Request<HeadBucketInput>) -> S3Result<S3Response<HeadBucketOutput>> {
        self.store.bucket_exists(&request.input.bucket)?;
        Ok(S3Response::new(HeadBucketOutput { bucket_region: Some(self.region.clone()), ..Default::default() }))
    }

    async fn get_bucket_location(&self, request: S3Request<GetBucketLocationInput>) -> S3Result<S3Response<GetBucketLocationOutput>> {
        self.store.bucket_exists(&request.input.bucket)?;
        // us-east-1 has no name here (documented).
        let location = (self.region != "us-east-1").then(|| BucketLocationConstraint::from(self.region.clone()));
        Ok(S3Response::new(GetBucketLocationOutput { location_constraint: location }))
    }

    async fn list_buckets(&self, request: S3Request<ListBucketsInput>) -> S3Result<S3Response<ListBucketsOutput>> {
        let account = caller(&request)?.account;
        let prefix = request.input.prefix;
        let wanted = prefix.as_deref().unwrap_or_default();
        let index = self.store.index();
        let own = index.iter().filter(|(name, bucket)| name.starts_with(wanted) && *self.store.owner_of(bucket) == account);
        let buckets = own.map(|(name, bucket)| answers::bucket(name, bucket)).collect();
        let output = ListBucketsOutput { buckets: Some(buckets), prefix: prefix.clone(), ..Default::default() };
        Ok(S3Response::new(output))
    }

    async fn list_objects(&self, request: S3Request<ListObjectsInput>) -> S3Result<S3Response<ListObjectsOutput>> {
        answers::list_v1(&self.store, request.input).map(S3Response::new)
    }

    async fn list_objects_v2(&self, request: S3Request<ListObjectsV2Input>) -> S3Result<S3Response<ListObjectsV2Output>> {
        answers::list_v2(&self.store, request.input).map(S3Response::new)
    }

    async fn put_object(&self, request: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        objects::put(self, request).await.map(S3Response::new)
    }

    async fn get_object(&self, request: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        objects::get(self, request.input).await.map(S3Response::new)
    }

    async fn head_object(&self, request: S3Request<HeadObjectInput>) -> S3Result<S3Response<HeadObjectOutput>> {
        objects::head(&self.store, request.input).map(S3Response::new)
    }

    async fn copy_object(&self, request: S3Request<CopyObjectInput>) -> S3Result<S3Response<CopyObjectOutput>> {
        objects::copy(self, request.input).await.map(S3Response::new)
    }

    async fn delete_object(&self, request: S3Request<DeleteObjectInput>) -> S3Result<S3Response<DeleteObjectOutput>> {
        let DeleteObjectInput { bucket, key, .. } = request.input;
        self.blocking(move |store| Ok(store.delete(&bucket, &key)?)).await?;
        Ok(S3Response::new(DeleteObjectOutput::default()))
    }

    async fn delete_objects(&self, request: S3Request<DeleteObjectsInput>) -> S3Result<S3Response<DeleteObjectsOutput>> {
        self.store.bucket_exists(&request.input.bucket)?;
        let keys = request.input.delete.objects.iter().map(|object| object.key.clone()).collect();
        let undeletable = self.gate.undeletable(&caller(&request)?, &request.input.bucket, keys).await?;
        self.blocking(move |store| Ok(objects::delete_many(store, request.input, &undeletable))).await.map(S3Response::new)
    }

    async fn create_multipart_upload(
        &self,
        request: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        uploads::create(self, request.input).await.map(S3Response::new)
    }

    async fn upload_part(&self, request: S3Request<UploadPartInput>) -> S3Result<S3Response<UploadPartOutput>> {
        uploads::part(self, request).await.map(S3Response::new)
    }

    async fn upload_part_copy(&self, request: S3Request<UploadPartCopyInput>) -> S3Result<S3Response<UploadPartCopyOutput>> {
        uploads::part_copy(self, request.input).await.map(S3Response::new)
    }

    async fn complete_multipart_upload(
        &self,
        request: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        uploads::complete(self, request.input).await.map(S3Response::new)
    }

    async fn abort_multipart_upload(
        &self,
        request: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        let AbortMultipartUploadInput { bucket, key, upload_id, .. } = request.input;
        let abort = move |store: &Store| Ok(store.end_upload(store.upload(&upload_id, &bucket, &key)?.0)?);
        self.blocking(abort).await?;
        Ok(S3Response::new(AbortMultipartUploadOutput::default()))
    }

    async fn list_parts(&self, request: S3Request<ListPartsInput>) -> S3Result<S3Response<ListPartsOutput>> {
        self.blocking(move |store| uploads::list_parts(store, request.input)).await.map(S3Response::new)
    }

    async fn list_multipart_uploads(
        &self,
        request: S3Request<ListMultipartUploadsInput>,
    ) -> S3Result<S3Response<ListMultipartUploadsOutput>> {
        self.blocking(move |store| uploads::list_uploads(store, request.input)).await.map(S3Response::new)
    }
}
