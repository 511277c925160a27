//! Listings in S3's shapes.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use s3s::dto::*;
use s3s::{S3Result, s3_error};

use super::super::list::{MAX_KEYS, Page, Query, beyond, page};
use super::super::record::ObjectRecord;
use super::super::store::{self, Store, StoreError};

/// `encoding-type=url` (observed: slashes stay).
const URL: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

pub(super) fn bucket(name: &str, bucket: &store::Bucket) -> Bucket {
    Bucket { name: Some(name.to_owned()), creation_date: Some(bucket.record.created.timestamp()), bucket_region: None }
}

/// Keys as the client asked for them: as they are, or percent-encoded.
struct Encoding(Option<EncodingType>);

impl Encoding {
    fn apply(&self, text: &str) -> String {
        match &self.0 {
            Some(kind) if kind.as_str() == EncodingType::URL => utf8_percent_encode(text, URL).to_string(),
            _ => text.to_owned(),
        }
    }

    fn objects(&self, page: &Page) -> Option<ObjectList> {
        Some(page.objects.iter().map(|record| self.object(record)).collect())
    }

    fn object(&self, record: &ObjectRecord) -> Object {
        Object {
            key: Some(self.apply(&record.key)),
            size: i64::try_from(record.size).ok(),
            e_tag: Some(record.e_tag()),
            last_modified: Some(record.modified.timestamp()),
            storage_class: Some(ObjectStorageClass::from_static(ObjectStorageClass::STANDARD)),
            checksum_algorithm: record.checksums.any().map(|name| vec![ChecksumAlgorithm::from_static(name)]),
            checksum_type: record.checksums.kind(),
            ..Default::default()
        }
    }

    fn prefixes(&self, page: &Page) -> Option<CommonPrefixList> {
        Some(page.prefixes.iter().map(|prefix| CommonPrefix { prefix: Some(self.apply(prefix)) }).collect())
    }
}

fn limit(max_keys: Option<i32>) -> S3Result<usize> {
    let asked = max_keys.unwrap_or(i32::MAX);
    usize::try_from(asked).map(|asked| asked.min(MAX_KEYS)).map_err(|_| s3_error!(InvalidArgument, "max-keys must not be negative"))
}

fn run(store: &Store, bucket: &str, query: &Query<'_>) -> S3Result<Page> {
    Ok(store.index().get(bucket).map(|bucket| page(&bucket.objects, query)).ok_or(StoreError::NoSuchBucket)?)
}

pub(super) fn list_v2(store: &Store, input: ListObjectsV2Input) -> S3Result<ListObjectsV2Output> {
    // A token is ours: where the last page ended, in hex.
    let resume = match &input.continuation_token {
        Some(token) => hex::decode(token).ok().and_then(|bytes| String::from_utf8(bytes).ok()),
        None => Some(input.start_after.clone().unwrap_or_default()),
    };
    let resume = resume.ok_or_else(|| s3_error!(InvalidArgument, "The continuation token provided is incorrect"))?;
    let limit = limit(input.max_keys)?;
    let delimiter = input.delimiter.clone().unwrap_or_default();
    let prefix = input.prefix.clone().unwrap_or_default();
    let page = run(store, &input.bucket, &Query { prefix: &prefix, delimiter: &delimiter, after: &resume, limit })?;
    let encoding = Encoding(input.encoding_type);
    Ok(ListObjectsV2Output {
        key_count: i32::try_from(page.objects.len() + page.prefixes.len()).ok(),
        contents: encoding.objects(&page),
        common_prefixes: encoding.prefixes(&page),
        is_truncated: Some(page.next.is_some()),
        next_continuation_token: page.next.map(hex::encode),
        continuation_token: input.continuation_token,
        name: Some(input.bucket),
        prefix: Some(encoding.apply(&prefix)),
        delimiter: input.delimiter.map(|delimiter| encoding.apply(&delimiter)),
        start_after: input.start_after.map(|after| encoding.apply(&after)),
        max_keys: i32::try_from(limit).ok(),
        encoding_type: encoding.0,
        ..Default::default()
    })
}

pub(super) fn list_v1(store: &Store, input: ListObjectsInput) -> S3Result<ListObjectsOutput> {
    let limit = limit(input.max_keys)?;
    let delimiter = input.delimiter.clone().unwrap_or_default();
    let prefix = input.prefix.clone().unwrap_or_default();
    let marker = input.marker.clone().unwrap_or_default();
    // A marker that is a rolled-up prefix stands for all below it.
    let rolled_up = !delimiter.is_empty() && marker.ends_with(&delimiter) && marker.len() > prefix.len();
    let after = if rolled_up { beyond(&marker) } else { marker };
    let page = run(store, &input.bucket, &Query { prefix: &prefix, delimiter: &delimiter, after: &after, limit })?;
    let encoding = Encoding(input.encoding_type);
    let next_marker = page.next.as_ref().map(|next| next.trim_end_matches(char::MAX)).map(|next| encoding.apply(next));
    Ok(ListObjectsOutput {
        contents: encoding.objects(&page),
        common_prefixes: encoding.prefixes(&page),
        is_truncated: Some(page.next.is_some()),
        next_marker,
        name: Some(input.bucket),
        prefix: Some(encoding.apply(&prefix)),
        marker: input.marker.map(|marker| encoding.apply(&marker)),
        delimiter: input.delimiter.map(|delimiter| encoding.apply(&delimiter)),
        max_keys: i32::try_from(limit).ok(),
        encoding_type: encoding.0,
        ..Default::default()
    })
}
