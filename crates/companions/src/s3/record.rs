//! What is kept of a bucket, an object and an upload: JSON files beside the bytes. Fields may be added; those here keep their meaning.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use emberbox_wire::ids::AccountId;
use s3s::dto::{ETag, Timestamp};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct BucketRecord {
    pub created: Moment,
    /// Absent in records from before there were accounts.
    #[serde(default)]
    pub owner: Option<AccountId>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectRecord {
    pub key: String,
    /// Name of the file with the bytes, below `data/`. Never reused, so a reader of the old bytes is not disturbed by new ones.
    pub data: Uuid,
    pub size: u64,
    /// Without quotes: MD5 in hex, and `-<parts>` after a multipart upload.
    pub etag: String,
    pub modified: Moment,
    #[serde(default)]
    pub parts: Option<u32>,
    #[serde(default)]
    pub checksums: Checksums,
    #[serde(default)]
    pub attributes: Attributes,
}

/// Base64, as on the wire.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checksums {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crc32: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crc32c: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crc64nvme: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha1: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// Of the parts' checksums rather than of the bytes.
    #[serde(default)]
    pub composite: bool,
}

/// What a client says about an object and gets back.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attributes {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_encoding: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_disposition: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_language: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_control: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct UploadRecord {
    pub bucket: String,
    pub key: String,
    pub initiated: Moment,
    /// `CRC64NVME`, ... when the client announced one.
    pub algorithm: Option<String>,
    /// The object's checksum is of its bytes, not of its parts' checksums.
    pub full_object: bool,
    pub attributes: Attributes,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PartRecord {
    pub number: i32,
    pub data: Uuid,
    pub size: u64,
    /// MD5 in hex.
    pub etag: String,
    pub modified: Moment,
    pub checksums: Checksums,
}

/// Milliseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Moment(u64);

impl Moment {
    pub fn now() -> Self {
        Self(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX)))
    }

    pub fn timestamp(self) -> Timestamp {
        Timestamp::from(UNIX_EPOCH + Duration::from_millis(self.0))
    }

    /// Times in HTTP headers have whole seconds.
    pub fn whole_seconds(self) -> Timestamp {
        Timestamp::from(UNIX_EPOCH + Duration::from_secs(self.0 / 1000))
    }
}

impl ObjectRecord {
    pub fn e_tag(&self) -> ETag {
        ETag::Strong(self.etag.clone())
    }
}
