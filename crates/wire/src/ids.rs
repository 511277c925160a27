//! Identifiers as newtypes, so that no two kinds are ever mixed up.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Twelve digits.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct AccountId(pub String);

/// `microvm-<uuid>` (observed).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MicrovmId(pub Uuid);

/// The first label of a MicroVM's endpoint: another uuid than its id (observed).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct EndpointId(pub Uuid);

/// One build of one image version.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct BuildId(pub String);

/// `major.minor`: `1.0`, `2.0`, ... (observed).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ImageVersion {
    pub major: u32,
    pub minor: u32,
}

/// What was given is not an identifier of the kind asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a valid {kind}")]
pub struct ParseIdError {
    pub kind: &'static str,
}

impl MicrovmId {
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }
}

impl EndpointId {
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }
}

impl BuildId {
    pub fn random() -> Self {
        Self(format!("build-{}", Uuid::new_v4()))
    }
}

impl ImageVersion {
    pub const FIRST: Self = Self { major: 1, minor: 0 };

    /// The version an update makes.
    pub fn next(self) -> Self {
        Self { major: self.major + 1, minor: 0 }
    }
}

impl fmt::Display for AccountId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for MicrovmId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "microvm-{}", self.0)
    }
}

impl fmt::Display for EndpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for BuildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for ImageVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl FromStr for MicrovmId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.strip_prefix("microvm-")
            .filter(|uuid| uuid.len() == 36)
            .and_then(|uuid| Uuid::parse_str(uuid).ok())
            .map(Self)
            .ok_or(ParseIdError { kind: "MicroVM id" })
    }
}

impl FromStr for ImageVersion {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit()).then(|| part.parse().ok()).flatten();
        text.split_once('.')
            .and_then(|(major, minor)| Some(Self { major: digits(major)?, minor: digits(minor)? }))
            .ok_or(ParseIdError { kind: "image version" })
    }
}

/// Serialised as their text form.
macro_rules! text_serde {
    ($($name:ident),*) => {$(
        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}

text_serde!(MicrovmId, ImageVersion);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_microvm_id_is_its_text() {
        let id = MicrovmId::random();
        assert_eq!(id.to_string().parse::<MicrovmId>().unwrap(), id);
        for wrong in
            ["", "microvm-", "microvm-1", "vm-00000000-0000-0000-0000-000000000000", "microvm-{00000000-0000-0000-0000-000000000000}"]
        {
            assert!(wrong.parse::<MicrovmId>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_image_version_is_major_dot_minor() {
        assert_eq!("12.0".parse::<ImageVersion>().unwrap(), ImageVersion { major: 12, minor: 0 });
        assert_eq!(ImageVersion::FIRST.next().to_string(), "2.0");
        for wrong in ["", "1", "1.", ".0", "1.0.0", "+1.0", "1.x"] {
            assert!(wrong.parse::<ImageVersion>().is_err(), "{wrong}");
        }
    }
}
