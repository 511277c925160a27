//! The five checksums of S3: which are to be computed, and whether they are what the client said, in headers or in trailers.

use http::HeaderMap;
use s3s::checksum::ChecksumHasher;
use s3s::dto::{Checksum, ChecksumAlgorithm, ChecksumType};
use s3s::{S3Result, s3_error};

use super::record::Checksums;

const NAMES: [&str; 5] = ["CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256"];

impl Checksums {
    fn fields(&self) -> [&Option<String>; 5] {
        [&self.crc32, &self.crc32c, &self.crc64nvme, &self.sha1, &self.sha256]
    }

    pub(super) fn get(&self, algorithm: &str) -> Option<&str> {
        let position = NAMES.iter().position(|name| *name == algorithm)?;
        self.fields()[position].as_deref()
    }

    pub(super) fn set(&mut self, algorithm: &str, value: String) {
        match algorithm {
            "CRC32" => self.crc32 = Some(value),
            "CRC32C" => self.crc32c = Some(value),
            "CRC64NVME" => self.crc64nvme = Some(value),
            "SHA1" => self.sha1 = Some(value),
            "SHA256" => self.sha256 = Some(value),
            _ => {}
        }
    }

    /// The first there is, with its name.
    pub(super) fn any(&self) -> Option<&'static str> {
        NAMES.into_iter().find(|name| self.get(name).is_some())
    }

    pub(super) fn kind(&self) -> Option<ChecksumType> {
        let kind = if self.composite { ChecksumType::COMPOSITE } else { ChecksumType::FULL_OBJECT };
        self.any().map(|_| ChecksumType::from_static(kind))
    }

    /// What trailers add to what headers said.
    pub(super) fn extend_from_trailers(&mut self, trailers: &HeaderMap) {
        for name in NAMES {
            if let Some(value) = trailers.get(format!("x-amz-checksum-{}", name.to_lowercase())).and_then(|value| value.to_str().ok()) {
                self.set(name, value.to_owned());
            }
        }
    }

    /// `self` is what was said, `computed` what is.
    pub(super) fn check(&self, computed: &Self) -> S3Result<()> {
        for name in NAMES {
            if let (Some(said), Some(is)) = (self.get(name), computed.get(name))
                && said != is
            {
                return Err(s3_error!(BadDigest, "The {name} you specified did not match the calculated checksum."));
            }
        }
        Ok(())
    }

    pub(super) fn to_dto(&self) -> Checksum {
        Checksum {
            checksum_crc32: self.crc32.clone(),
            checksum_crc32c: self.crc32c.clone(),
            checksum_crc64nvme: self.crc64nvme.clone(),
            checksum_sha1: self.sha1.clone(),
            checksum_sha256: self.sha256.clone(),
            checksum_type: self.kind(),
        }
    }

    pub(super) fn from_dto(dto: Checksum) -> Self {
        Self {
            crc32: dto.checksum_crc32,
            crc32c: dto.checksum_crc32c,
            crc64nvme: dto.checksum_crc64nvme,
            sha1: dto.checksum_sha1,
            sha256: dto.checksum_sha256,
            composite: false,
        }
    }
}

/// A hasher for the algorithms a client announced or gave a value of.
pub(super) fn hasher(said: &Checksums, announced: &[&str]) -> ChecksumHasher {
    let wanted = |name: &str| said.get(name).is_some() || announced.iter().any(|announced| announced.eq_ignore_ascii_case(name));
    ChecksumHasher {
        crc32: wanted(ChecksumAlgorithm::CRC32).then(Default::default),
        crc32c: wanted(ChecksumAlgorithm::CRC32C).then(Default::default),
        crc64nvme: wanted(ChecksumAlgorithm::CRC64NVME).then(Default::default),
        sha1: wanted(ChecksumAlgorithm::SHA1).then(Default::default),
        sha256: wanted(ChecksumAlgorithm::SHA256).then(Default::default),
    }
}

/// The algorithms that headers announce: by name, or as trailers to come.
pub(super) fn announced<'a>(algorithm: Option<&'a ChecksumAlgorithm>, headers: &'a HeaderMap) -> Vec<&'a str> {
    let trailers = headers.get_all("x-amz-trailer").iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    trailers.filter_map(|name| name.trim().strip_prefix("x-amz-checksum-")).chain(algorithm.map(ChecksumAlgorithm::as_str)).collect()
}
