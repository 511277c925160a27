//! Network connectors of customers (`lambda-core`): identifiers and members, as the service model names them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::arn::ParseArnError;
use crate::ids::{AccountId, ParseIdError};

/// `nc-<uuid>` (observed).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConnectorId(pub Uuid);

/// `arn:aws:lambda:<region>:<account>:network-connector:<id>` (observed), with `:<version>` behind it when it names one version (model).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ConnectorArn {
    pub region: String,
    pub account: AccountId,
    pub id: ConnectorId,
    pub version: Option<u32>,
}

/// The one configuration there is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ConnectorConfiguration {
    VpcEgressConfiguration(VpcEgress),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct VpcEgress {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subnet_ids: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub security_group_ids: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_protocol: Option<NetworkProtocol>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub associated_compute_resource_types: Option<Vec<ComputeResourceType>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub elastic_ip_configuration: Option<ElasticIpConfiguration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum NetworkProtocol {
    IPv4,
    DualStack,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ComputeResourceType {
    MicroVm,
    WebFunction,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ElasticIpConfiguration {
    pub r#type: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ConnectorState {
    Pending,
    Active,
    Inactive,
    Failed,
    Deleting,
    DeleteFailed,
    /// Of a record alone: the API says that it does not exist.
    Deleted,
}

/// `LastUpdateStatus`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum UpdateStatus {
    InProgress,
    Successful,
    Failed,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct CreateNetworkConnectorRequest {
    pub name: String,
    pub configuration: ConnectorConfiguration,
    pub operator_role: Option<String>,
    pub client_token: Option<String>,
    #[serde(default)]
    pub tags: std::collections::BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct UpdateNetworkConnectorRequest {
    pub identifier: String,
    pub configuration: Option<ConnectorConfiguration>,
    pub operator_role: Option<String>,
}

impl ConnectorId {
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }
}

impl ConnectorArn {
    /// Of the connector as a whole.
    pub fn unqualified(&self) -> Self {
        Self { version: None, ..self.clone() }
    }

    pub fn of_version(&self, version: u32) -> Self {
        Self { version: Some(version), ..self.clone() }
    }
}

impl fmt::Display for ConnectorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "nc-{}", self.0)
    }
}

impl FromStr for ConnectorId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.strip_prefix("nc-")
            .filter(|uuid| uuid.len() == 36)
            .and_then(|uuid| Uuid::parse_str(uuid).ok())
            .map(Self)
            .ok_or(ParseIdError { kind: "network connector id" })
    }
}

impl fmt::Display for ConnectorArn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "arn:aws:lambda:{}:{}:network-connector:{}", self.region, self.account, self.id)?;
        self.version.map_or(Ok(()), |version| write!(f, ":{version}"))
    }
}

impl FromStr for ConnectorArn {
    type Err = ParseArnError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let rest = text.strip_prefix("arn:").ok_or(ParseArnError::NoPrefix)?;
        let other = || ParseArnError::OtherResource { expected: "network connector" };
        let (region, account, id, version) = match rest.split(':').collect::<Vec<_>>()[..] {
            [_partition, "lambda", region, account, "network-connector", id] => (region, account, id, None),
            [_partition, "lambda", region, account, "network-connector", id, version] => (region, account, id, Some(version)),
            _ => return Err(other()),
        };
        let version = version.map(|version| version.parse().map_err(|_| other())).transpose()?;
        let id = id.parse().map_err(|_| other())?;
        Ok(Self { region: region.into(), account: AccountId(account.into()), id, version })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_connector_arn_is_its_text() {
        let text = "arn:aws:lambda:us-east-1:123456789012:network-connector:nc-bc9a0eba-048d-420d-9416-fb5a65f10ae0";
        let arn: ConnectorArn = text.parse().unwrap();
        assert_eq!((arn.to_string().as_str(), arn.version), (text, None));
        let qualified: ConnectorArn = format!("{text}:7").parse().unwrap();
        assert_eq!((qualified.clone(), qualified.unqualified()), (arn.of_version(7), arn));
        for wrong in ["", "nc-1", "arn:aws:lambda:r:1:network-connector:name", &format!("{text}:x"), &format!("{text}:1:2")] {
            assert!(wrong.parse::<ConnectorArn>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_configuration_is_a_union_of_one() {
        let text = r#"{"VpcEgressConfiguration":{"SubnetIds":["subnet-1"],"NetworkProtocol":"IPv4","AssociatedComputeResourceTypes":["MicroVm"]}}"#;
        let configuration: ConnectorConfiguration = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&configuration).unwrap(), text);
    }
}
