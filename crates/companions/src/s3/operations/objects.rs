//! Objects: put, get, head, copy, delete.

use std::collections::HashMap;
use std::fs;
use std::io::SeekFrom;
use std::sync::Arc;

use s3s::dto::*;
use s3s::{S3Request, S3Result, s3_error};
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio_util::io::ReaderStream;

use super::super::checksums::{announced, hasher};
use super::super::receive::{Said, new_data, receive};
use super::super::record::{Attributes, Checksums, Moment, ObjectRecord};
use super::super::store::{Store, StoreError};
use super::Operations;

const READ_BUFFER_BYTES: usize = 128 * 1024;

/// `If-Match` and `If-None-Match` of a write.
pub(super) fn write_allowed(
    if_match: Option<IfMatch>,
    if_none_match: Option<IfNoneMatch>,
) -> impl FnOnce(Option<&ObjectRecord>) -> bool + Send + 'static {
    let fits = |condition: &ETagCondition, record: Option<&ObjectRecord>| match (condition, record) {
        (_, None) => false,
        (ETagCondition::Any, Some(_)) => true,
        (ETagCondition::ETag(tag), Some(record)) => tag.value() == record.etag,
    };
    move |record| {
        if_match.is_none_or(|condition| fits(&condition, record)) && !if_none_match.is_some_and(|condition| fits(&condition, record))
    }
}

pub(super) async fn put(operations: &Operations, mut request: S3Request<PutObjectInput>) -> S3Result<PutObjectOutput> {
    let input = &mut request.input;
    operations.store.bucket_exists(&input.bucket)?;
    let body = input.body.take().unwrap_or_else(|| StreamingBlob::from(s3s::Body::empty()));
    let said = Checksums {
        crc32: input.checksum_crc32.take(),
        crc32c: input.checksum_crc32c.take(),
        crc64nvme: input.checksum_crc64nvme.take(),
        sha1: input.checksum_sha1.take(),
        sha256: input.checksum_sha256.take(),
        composite: false,
    };
    let hasher = hasher(&said, &announced(input.checksum_algorithm.as_ref(), &request.headers));
    let said = Said { md5_base64: input.content_md5.take(), checksums: said, trailers: request.trailing_headers.take() };
    let received = receive(&operations.store, body, said, hasher).await?;
    let PutObjectInput { bucket, key, if_match, if_none_match, .. } = request.input;
    let attributes = Attributes {
        content_type: request.input.content_type,
        content_encoding: request.input.content_encoding,
        content_disposition: request.input.content_disposition,
        content_language: request.input.content_language,
        cache_control: request.input.cache_control,
        metadata: request.input.metadata.unwrap_or_default().into_iter().collect(),
    };
    let record = ObjectRecord {
        key,
        data: new_data(),
        size: received.size,
        etag: hex::encode(received.md5),
        modified: Moment::now(),
        parts: None,
        checksums: received.checksums,
        attributes,
    };
    let allowed = write_allowed(if_match, if_none_match);
    let record = operations.blocking(move |store| Ok(store.put(&bucket, record, &received.staged, allowed)?)).await?;
    let checksum = record.checksums.to_dto();
    Ok(PutObjectOutput {
        e_tag: Some(record.e_tag()),
        checksum_crc32: checksum.checksum_crc32,
        checksum_crc32c: checksum.checksum_crc32c,
        checksum_crc64nvme: checksum.checksum_crc64nvme,
        checksum_sha1: checksum.checksum_sha1,
        checksum_sha256: checksum.checksum_sha256,
        checksum_type: checksum.checksum_type,
        ..Default::default()
    })
}

/// Conditions of a read; `If-None-Match` and `If-Modified-Since` refuse with 304.
struct Conditions<'a> {
    if_match: Option<&'a IfMatch>,
    if_none_match: Option<&'a IfNoneMatch>,
    if_modified_since: Option<&'a Timestamp>,
    if_unmodified_since: Option<&'a Timestamp>,
}

impl Conditions<'_> {
    fn check(&self, record: &ObjectRecord) -> S3Result<()> {
        let fits = |condition: &ETagCondition| match condition {
            ETagCondition::Any => true,
            ETagCondition::ETag(tag) => tag.value() == record.etag,
        };
        let modified = record.modified.whole_seconds();
        match (self.if_match, self.if_unmodified_since) {
            (Some(condition), _) if !fits(condition) => return Err(StoreError::Precondition.into()),
            (None, Some(since)) if modified > *since => return Err(StoreError::Precondition.into()),
            _ => {}
        }
        match (self.if_none_match, self.if_modified_since) {
            (Some(condition), _) if fits(condition) => Err(s3_error!(NotModified)),
            (None, Some(since)) if modified <= *since => Err(s3_error!(NotModified)),
            _ => Ok(()),
        }
    }
}

pub(super) async fn get(operations: &Operations, input: GetObjectInput) -> S3Result<GetObjectOutput> {
    let GetObjectInput { bucket, key, .. } = &input;
    let (bucket, key) = (bucket.clone(), key.clone());
    let (record, file) = operations.blocking(move |store| Ok(store.open_object(&bucket, &key)?)).await?;
    Conditions {
        if_match: input.if_match.as_ref(),
        if_none_match: input.if_none_match.as_ref(),
        if_modified_since: input.if_modified_since.as_ref(),
        if_unmodified_since: input.if_unmodified_since.as_ref(),
    }
    .check(&record)?;
    let range = input.range.map(|range| range.check(record.size)).transpose()?;
    let (start, length) = range.as_ref().map_or((0, record.size), |range| (range.start, range.end - range.start));
    let mut file = tokio::fs::File::from_std(file);
    file.seek(SeekFrom::Start(start)).await.map_err(StoreError::from)?;
    let body = StreamingBlob::wrap(ReaderStream::with_capacity(file.take(length), READ_BUFFER_BYTES));
    let described = described(&record, input.checksum_mode.is_some() && range.is_none());
    Ok(GetObjectOutput {
        body: Some(body),
        content_length: i64::try_from(length).ok(),
        content_range: range.map(|range| format!("bytes {}-{}/{}", range.start, range.end - 1, record.size)),
        content_type: input.response_content_type.or(described.content_type),
        content_disposition: input.response_content_disposition.or(described.content_disposition),
        content_encoding: input.response_content_encoding.or(described.content_encoding),
        content_language: input.response_content_language.or(described.content_language),
        cache_control: input.response_cache_control.or(described.cache_control),
        accept_ranges: described.accept_ranges,
        e_tag: described.e_tag,
        last_modified: described.last_modified,
        metadata: described.metadata,
        checksum_crc32: described.checksum_crc32,
        checksum_crc32c: described.checksum_crc32c,
        checksum_crc64nvme: described.checksum_crc64nvme,
        checksum_sha1: described.checksum_sha1,
        checksum_sha256: described.checksum_sha256,
        checksum_type: described.checksum_type,
        ..Default::default()
    })
}

pub(super) fn head(store: &Store, input: HeadObjectInput) -> S3Result<HeadObjectOutput> {
    let record = store.object(&input.bucket, &input.key)?;
    Conditions {
        if_match: input.if_match.as_ref(),
        if_none_match: input.if_none_match.as_ref(),
        if_modified_since: input.if_modified_since.as_ref(),
        if_unmodified_since: input.if_unmodified_since.as_ref(),
    }
    .check(&record)?;
    Ok(described(&record, input.checksum_mode.is_some()))
}

/// What the headers of an object say of it.
fn described(record: &ObjectRecord, with_checksums: bool) -> HeadObjectOutput {
    let checksum = if with_checksums { record.checksums.to_dto() } else { Checksum::default() };
    let attributes = record.attributes.clone();
    HeadObjectOutput {
        accept_ranges: Some("bytes".to_owned()),
        content_length: i64::try_from(record.size).ok(),
        content_type: Some(attributes.content_type.unwrap_or_else(|| "binary/octet-stream".to_owned())),
        content_encoding: attributes.content_encoding,
        content_disposition: attributes.content_disposition,
        content_language: attributes.content_language,
        cache_control: attributes.cache_control,
        e_tag: Some(record.e_tag()),
        last_modified: Some(record.modified.timestamp()),
        metadata: Some(attributes.metadata.into_iter().collect()),
        checksum_crc32: checksum.checksum_crc32,
        checksum_crc32c: checksum.checksum_crc32c,
        checksum_crc64nvme: checksum.checksum_crc64nvme,
        checksum_sha1: checksum.checksum_sha1,
        checksum_sha256: checksum.checksum_sha256,
        checksum_type: checksum.checksum_type,
        ..Default::default()
    }
}

/// Bucket and key a copy reads from.
pub(in crate::s3) fn source(source: CopySource) -> S3Result<(String, String)> {
    match source {
        CopySource::Bucket { bucket, key, version_id: None } => Ok((bucket.into(), key.into())),
        _ => Err(s3_error!(NotImplemented, "Copies are made from a bucket and key without a version.")),
    }
}

pub(super) async fn copy(operations: &Operations, input: CopyObjectInput) -> S3Result<CopyObjectOutput> {
    let (source_bucket, source_key) = source(input.copy_source)?;
    let replace = input.metadata_directive.is_some_and(|directive| directive.as_str() == MetadataDirective::REPLACE);
    if !replace && source_bucket == input.bucket && source_key == input.key {
        return Err(s3_error!(
            InvalidRequest,
            "This copy request is illegal because it is trying to copy an object to itself without changing the object's metadata."
        ));
    }
    let attributes = replace.then(|| Attributes {
        content_type: input.content_type,
        content_encoding: input.content_encoding,
        content_disposition: input.content_disposition,
        content_language: input.content_language,
        cache_control: input.cache_control,
        metadata: input.metadata.unwrap_or_default().into_iter().collect(),
    });
    let (if_match, if_none_match) = (input.copy_source_if_match, input.copy_source_if_none_match);
    let (bucket, key) = (input.bucket, input.key);
    let work = move |store: &Store| -> S3Result<Arc<ObjectRecord>> {
        let (from, mut bytes) = store.open_object(&source_bucket, &source_key)?;
        if !write_allowed(if_match, if_none_match)(Some(&from)) {
            return Err(StoreError::Precondition.into());
        }
        let staged = store.stage();
        let mut to = fs::File::create(staged.path()).map_err(StoreError::from)?;
        std::io::copy(&mut bytes, &mut to).and_then(|_| to.sync_all()).map_err(StoreError::from)?;
        let attributes = attributes.unwrap_or_else(|| from.attributes.clone());
        let record = ObjectRecord { key, data: new_data(), modified: Moment::now(), attributes, ..ObjectRecord::clone(&from) };
        Ok(store.put(&bucket, record, &staged, |_| true)?)
    };
    let record = operations.blocking(work).await?;
    let result = CopyObjectResult { e_tag: Some(record.e_tag()), last_modified: Some(record.modified.timestamp()), ..Default::default() };
    Ok(CopyObjectOutput { copy_object_result: Some(result), ..Default::default() })
}

/// `undeletable`: keys the caller may not delete, with the reason.
pub(super) fn delete_many(store: &Store, input: DeleteObjectsInput, undeletable: &HashMap<String, String>) -> DeleteObjectsOutput {
    let (mut deleted, mut errors) = (Vec::new(), Vec::new());
    for object in input.delete.objects {
        if let Some(message) = undeletable.get(&object.key) {
            let (code, message) = (Some("AccessDenied".to_owned()), Some(message.clone()));
            errors.push(Error { key: Some(object.key), code, message, ..Default::default() });
            continue;
        }
        match store.delete(&input.bucket, &object.key) {
            Ok(()) => deleted.push(DeletedObject { key: Some(object.key), ..Default::default() }),
            Err(error) => {
                tracing::error!(%error, "an object could not be deleted");
                errors.push(Error { key: Some(object.key), code: Some("InternalError".to_owned()), ..Default::default() });
            }
        }
    }
    let quiet = input.delete.quiet.unwrap_or_default();
    DeleteObjectsOutput { deleted: (!quiet).then_some(deleted), errors: (!errors.is_empty()).then_some(errors), ..Default::default() }
}
