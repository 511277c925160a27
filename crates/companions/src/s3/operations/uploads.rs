//! Multipart uploads.

use s3s::dto::*;
use s3s::{S3Request, S3Result, s3_error};
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio_util::io::ReaderStream;

use super::super::checksums::{announced, hasher};
use super::super::multipart::check_part_number;
use super::super::receive::{MAX_OBJECT_BYTES, Received, Said, new_data, receive};
use super::super::record::{Attributes, Checksums, Moment, PartRecord, UploadRecord};
use super::super::store::{Store, StoreError};
use super::Operations;
use super::objects::{source, write_allowed};

pub(super) async fn create(operations: &Operations, input: CreateMultipartUploadInput) -> S3Result<CreateMultipartUploadOutput> {
    let record = UploadRecord {
        bucket: input.bucket,
        key: input.key,
        initiated: Moment::now(),
        algorithm: input.checksum_algorithm.as_ref().map(|algorithm| algorithm.as_str().to_owned()),
        full_object: input.checksum_type.as_ref().is_some_and(|kind| kind.as_str() == ChecksumType::FULL_OBJECT),
        attributes: Attributes {
            content_type: input.content_type,
            content_encoding: input.content_encoding,
            content_disposition: input.content_disposition,
            content_language: input.content_language,
            cache_control: input.cache_control,
            metadata: input.metadata.unwrap_or_default().into_iter().collect(),
        },
    };
    let (bucket, key) = (record.bucket.clone(), record.key.clone());
    let id = operations.blocking(move |store| Ok(store.begin_upload(&record)?)).await?;
    Ok(CreateMultipartUploadOutput {
        bucket: Some(bucket),
        key: Some(key),
        upload_id: Some(id.to_string()),
        checksum_algorithm: input.checksum_algorithm,
        checksum_type: input.checksum_type,
        ..Default::default()
    })
}

pub(super) async fn part(operations: &Operations, mut request: S3Request<UploadPartInput>) -> S3Result<UploadPartOutput> {
    let input = &mut request.input;
    check_part_number(input.part_number)?;
    let upload = find(operations, &input.upload_id, &input.bucket, &input.key).await?;
    let body = input.body.take().unwrap_or_else(|| StreamingBlob::from(s3s::Body::empty()));
    let said = Checksums {
        crc32: input.checksum_crc32.take(),
        crc32c: input.checksum_crc32c.take(),
        crc64nvme: input.checksum_crc64nvme.take(),
        sha1: input.checksum_sha1.take(),
        sha256: input.checksum_sha256.take(),
        composite: false,
    };
    let mut algorithms = announced(input.checksum_algorithm.as_ref(), &request.headers);
    algorithms.extend(upload.1.algorithm.as_deref());
    let hasher = hasher(&said, &algorithms);
    let said = Said { md5_base64: input.content_md5.take(), checksums: said, trailers: request.trailing_headers.take() };
    let received = receive(&operations.store, body, said, hasher).await?;
    let record = keep(operations, upload.0, request.input.part_number, received).await?;
    let checksum = record.checksums.to_dto();
    Ok(UploadPartOutput {
        e_tag: Some(ETag::Strong(record.etag)),
        checksum_crc32: checksum.checksum_crc32,
        checksum_crc32c: checksum.checksum_crc32c,
        checksum_crc64nvme: checksum.checksum_crc64nvme,
        checksum_sha1: checksum.checksum_sha1,
        checksum_sha256: checksum.checksum_sha256,
        ..Default::default()
    })
}

pub(super) async fn part_copy(operations: &Operations, input: UploadPartCopyInput) -> S3Result<UploadPartCopyOutput> {
    check_part_number(input.part_number)?;
    let upload = find(operations, &input.upload_id, &input.bucket, &input.key).await?;
    let (bucket, key) = source(input.copy_source)?;
    let (from, file) = operations.blocking(move |store| Ok(store.open_object(&bucket, &key)?)).await?;
    let range = input.copy_source_range.as_deref().map(Range::parse).transpose();
    let range = range.map_err(|_| s3_error!(InvalidArgument, "The x-amz-copy-source-range value must be of the form bytes=first-last."))?;
    let range = range.map(|range| range.check(from.size)).transpose()?.unwrap_or(0..from.size);
    let mut file = tokio::fs::File::from_std(file);
    file.seek(std::io::SeekFrom::Start(range.start)).await.map_err(StoreError::from)?;
    let body = StreamingBlob::wrap(ReaderStream::new(file.take(range.end - range.start)));
    let said = Said { md5_base64: None, checksums: Checksums::default(), trailers: None };
    let hasher = hasher(&said.checksums, upload.1.algorithm.as_deref().as_slice());
    let received = receive(&operations.store, body, said, hasher).await?;
    let record = keep(operations, upload.0, input.part_number, received).await?;
    let result =
        CopyPartResult { e_tag: Some(ETag::Strong(record.etag)), last_modified: Some(record.modified.timestamp()), ..Default::default() };
    Ok(UploadPartCopyOutput { copy_part_result: Some(result), ..Default::default() })
}

async fn find(operations: &Operations, id: &str, bucket: &str, key: &str) -> S3Result<(uuid::Uuid, UploadRecord)> {
    let (id, bucket, key) = (id.to_owned(), bucket.to_owned(), key.to_owned());
    operations.blocking(move |store| Ok(store.upload(&id, &bucket, &key)?)).await
}

async fn keep(operations: &Operations, upload: uuid::Uuid, number: i32, received: Received) -> S3Result<PartRecord> {
    let record = PartRecord {
        number,
        data: new_data(),
        size: received.size,
        etag: hex::encode(received.md5),
        modified: Moment::now(),
        checksums: received.checksums,
    };
    let kept = record.clone();
    operations.blocking(move |store| Ok(store.put_part(upload, &record, &received.staged)?)).await?;
    Ok(kept)
}

pub(super) async fn complete(operations: &Operations, input: CompleteMultipartUploadInput) -> S3Result<CompleteMultipartUploadOutput> {
    let said = Checksums {
        crc32: input.checksum_crc32,
        crc32c: input.checksum_crc32c,
        crc64nvme: input.checksum_crc64nvme,
        sha1: input.checksum_sha1,
        sha256: input.checksum_sha256,
        composite: false,
    };
    let named = input.multipart_upload.and_then(|upload| upload.parts).unwrap_or_default();
    let allowed = write_allowed(input.if_match, input.if_none_match);
    let (bucket, key, size) = (input.bucket.clone(), input.key.clone(), input.mpu_object_size);
    let work = move |store: &Store| {
        let (id, upload) = store.upload(&input.upload_id, &bucket, &key)?;
        let parts = store.chosen_parts(id, &named)?;
        let total: u64 = parts.iter().map(|part| part.size).sum();
        if total > 1024 * MAX_OBJECT_BYTES || size.is_some_and(|size| u64::try_from(size) != Ok(total)) {
            return Err(s3_error!(
                InvalidRequest,
                "The parts are {total} bytes together, which is not what was announced or more than 5 TiB."
            ));
        }
        let (staged, record) = store.join(&upload, &parts, &said)?;
        let record = store.put(&bucket, record, &staged, allowed)?;
        store.end_upload(id)?;
        Ok(record)
    };
    let record = operations.blocking(work).await?;
    let checksum = record.checksums.to_dto();
    Ok(CompleteMultipartUploadOutput {
        location: Some(format!("/{}/{}", input.bucket, input.key)),
        bucket: Some(input.bucket),
        key: Some(input.key),
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

pub(super) fn list_parts(store: &Store, input: ListPartsInput) -> S3Result<ListPartsOutput> {
    let (id, _) = store.upload(&input.upload_id, &input.bucket, &input.key)?;
    let after = input.part_number_marker.unwrap_or_default();
    let limit = usize::try_from(input.max_parts.unwrap_or(1000)).unwrap_or_default().min(1000);
    let mut parts: Vec<PartRecord> = store.parts(id)?.into_iter().filter(|part| part.number > after).collect();
    let truncated = parts.len() > limit;
    parts.truncate(limit);
    let part = |part: PartRecord| {
        let checksum = part.checksums.to_dto();
        Part {
            part_number: Some(part.number),
            size: i64::try_from(part.size).ok(),
            e_tag: Some(ETag::Strong(part.etag)),
            last_modified: Some(part.modified.timestamp()),
            checksum_crc32: checksum.checksum_crc32,
            checksum_crc32c: checksum.checksum_crc32c,
            checksum_crc64nvme: checksum.checksum_crc64nvme,
            checksum_sha1: checksum.checksum_sha1,
            checksum_sha256: checksum.checksum_sha256,
        }
    };
    Ok(ListPartsOutput {
        next_part_number_marker: parts.last().filter(|_| truncated).map(|part| part.number),
        parts: Some(parts.into_iter().map(part).collect()),
        is_truncated: Some(truncated),
        max_parts: i32::try_from(limit).ok(),
        part_number_marker: input.part_number_marker,
        bucket: Some(input.bucket),
        key: Some(input.key),
        upload_id: Some(input.upload_id),
        ..Default::default()
    })
}

/// All of them at once: uploads under way are few (ours).
pub(super) fn list_uploads(store: &Store, input: ListMultipartUploadsInput) -> S3Result<ListMultipartUploadsOutput> {
    store.bucket_exists(&input.bucket)?;
    let prefix = input.prefix.clone().unwrap_or_default();
    let uploads = store.uploads_of(&input.bucket)?.into_iter().filter(|(_, upload)| upload.key.starts_with(&prefix));
    let uploads = uploads.map(|(id, upload)| MultipartUpload {
        upload_id: Some(id.to_string()),
        key: Some(upload.key),
        initiated: Some(upload.initiated.timestamp()),
        ..Default::default()
    });
    Ok(ListMultipartUploadsOutput {
        uploads: Some(uploads.collect()),
        is_truncated: Some(false),
        bucket: Some(input.bucket),
        prefix: input.prefix,
        ..Default::default()
    })
}
