//! `s3://bucket/key`.

use std::fmt;
use std::str::FromStr;

const BUCKET_LENGTH: std::ops::RangeInclusive<usize> = 3..=63;
const KEY_MAX_BYTES: usize = 1024;

/// An object of S3.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Location {
    pub bucket: String,
    pub key: String,
}

/// What is wrong with a text that should be an [`S3Location`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidLocation {
    #[error("it does not begin with s3://")]
    Scheme,
    #[error("it names no bucket")]
    NoBucket,
    #[error("its bucket name is not valid: 3 to 63 lower-case letters, digits, dots and hyphens, with a letter or digit at both ends")]
    Bucket,
    #[error("it names no key: s3://bucket/key")]
    NoKey,
    #[error("its key is longer than 1024 bytes")]
    KeyTooLong,
    #[error("its key holds a control character")]
    KeyCharacter,
}

impl FromStr for S3Location {
    type Err = InvalidLocation;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let rest = text.strip_prefix("s3://").ok_or(InvalidLocation::Scheme)?;
        let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.is_empty() {
            return Err(InvalidLocation::NoBucket);
        }
        if !is_bucket_name(bucket) {
            return Err(InvalidLocation::Bucket);
        }
        match key {
            "" => Err(InvalidLocation::NoKey),
            key if key.len() > KEY_MAX_BYTES => Err(InvalidLocation::KeyTooLong),
            key if key.contains(char::is_control) => Err(InvalidLocation::KeyCharacter),
            key => Ok(Self { bucket: bucket.to_owned(), key: key.to_owned() }),
        }
    }
}

fn is_bucket_name(name: &str) -> bool {
    let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let ends = [name.bytes().next(), name.bytes().next_back()];
    BUCKET_LENGTH.contains(&name.len())
        && name.bytes().all(|byte| alphanumeric(byte) || byte == b'-' || byte == b'.')
        && ends.into_iter().flatten().all(alphanumeric)
        && !name.contains("..")
}

impl fmt::Display for S3Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}/{}", self.bucket, self.key)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_location_is_bucket_and_key() {
        let location: S3Location = "s3://my.bucket-1/a/b c?.zip".parse().unwrap();
        assert_eq!((location.bucket.as_str(), location.key.as_str()), ("my.bucket-1", "a/b c?.zip"));
        assert_eq!(location.to_string(), "s3://my.bucket-1/a/b c?.zip");
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, wrong) in [
            ("", InvalidLocation::Scheme),
            ("https://b/k", InvalidLocation::Scheme),
            ("S3://bucket/k", InvalidLocation::Scheme),
            ("s3://", InvalidLocation::NoBucket),
            ("s3:///key", InvalidLocation::NoBucket),
            ("s3://ab/key", InvalidLocation::Bucket),
            ("s3://Bucket/key", InvalidLocation::Bucket),
            ("s3://../key", InvalidLocation::Bucket),
            ("s3://a..b/key", InvalidLocation::Bucket),
            ("s3://bucket", InvalidLocation::NoKey),
            ("s3://bucket/", InvalidLocation::NoKey),
            ("s3://bucket/a\0b", InvalidLocation::KeyCharacter),
        ] {
            assert_eq!(text.parse::<S3Location>(), Err(wrong), "{text:?}");
        }
        assert_eq!(format!("s3://bucket/{}", "k".repeat(1025)).parse::<S3Location>(), Err(InvalidLocation::KeyTooLong));
    }
}
