//! Amazon resource names of the things the service has.

use std::fmt;
use std::str::FromStr;

use crate::ids::AccountId;

/// `arn:aws:lambda:<region>:<account>:microvm-image:<name>` (observed). `account` is `aws` for a managed image.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ImageArn {
    pub region: String,
    pub account: AccountId,
    pub name: String,
}

/// `arn:aws:lambda:<region>:aws:network-connector:aws-network-connector:<name>`: connectors every account has (documented).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ManagedConnector {
    AllIngress,
    HttpIngress,
    ShellIngress,
    NoIngress,
    InternetEgress,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseArnError {
    /// AWS's words (observed).
    #[error("Malformed ARN - doesn't start with 'arn:'")]
    NoPrefix,
    #[error("Malformed ARN - not the ARN of a {expected}")]
    OtherResource { expected: &'static str },
}

impl ImageArn {
    pub fn is_managed(&self) -> bool {
        self.account.0 == "aws"
    }
}

impl fmt::Display for ImageArn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "arn:aws:lambda:{}:{}:microvm-image:{}", self.region, self.account, self.name)
    }
}

impl FromStr for ImageArn {
    type Err = ParseArnError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let rest = text.strip_prefix("arn:").ok_or(ParseArnError::NoPrefix)?;
        let other = ParseArnError::OtherResource { expected: "MicroVM image" };
        match rest.splitn(6, ':').collect::<Vec<_>>()[..] {
            [_partition, "lambda", region, account, "microvm-image", name]
                if !region.is_empty() && !account.is_empty() && !name.is_empty() && !name.contains(':') =>
            {
                Ok(Self { region: region.into(), account: AccountId(account.into()), name: name.into() })
            }
            _ => Err(other),
        }
    }
}

impl ManagedConnector {
    pub const ALL: [Self; 5] = [Self::AllIngress, Self::HttpIngress, Self::ShellIngress, Self::NoIngress, Self::InternetEgress];

    pub fn name(self) -> &'static str {
        match self {
            Self::AllIngress => "ALL_INGRESS",
            Self::HttpIngress => "HTTP_INGRESS",
            Self::ShellIngress => "SHELL_INGRESS",
            Self::NoIngress => "NO_INGRESS",
            Self::InternetEgress => "INTERNET_EGRESS",
        }
    }

    pub fn arn(self, region: &str) -> String {
        format!("arn:aws:lambda:{region}:aws:network-connector:aws-network-connector:{}", self.name())
    }

    /// The managed connector an ARN of `region` names.
    pub fn from_arn(arn: &str, region: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|connector| connector.arn(region) == arn)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_image_arn_is_its_text() {
        let text = "arn:aws:lambda:us-east-1:123456789012:microvm-image:sandbox";
        assert_eq!(text.parse::<ImageArn>().unwrap().to_string(), text);
        assert_eq!("sandbox".parse::<ImageArn>(), Err(ParseArnError::NoPrefix));
        for wrong in ["arn:", "arn:aws:lambda:r:1:function:x", "arn:aws:lambda:r:1:microvm-image:", "arn:aws:lambda:r:1:microvm-image:x:y"]
        {
            assert!(wrong.parse::<ImageArn>().is_err(), "{wrong}");
        }
    }
}
