//! Members of the operations, as the service model names them. Validation against the model has happened before these are read, so a member that
//! the model requires is never absent here.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Where the zip of an image lies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum CodeArtifact {
    /// `s3://bucket/key`.
    Uri(String),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Logging {
    Disabled {},
    CloudWatch(CloudWatchLogging),
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CloudWatchLogging {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_group: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_stream: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Architecture {
    #[serde(rename = "ARM_64")]
    Arm64,
    #[serde(rename = "X86_64")]
    X86_64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CpuConfiguration {
    pub architecture: Architecture,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    #[serde(rename = "minimumMemoryInMiB")]
    pub minimum_memory_in_mib: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Capability {
    #[serde(rename = "ALL")]
    All,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum HookState {
    Disabled,
    Enabled,
}

/// Lifecycle hooks of an image; absent members mean disabled, absent timeouts the documented defaults.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hooks {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub microvm_hooks: Option<MicrovmHooks>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub microvm_image_hooks: Option<MicrovmImageHooks>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MicrovmHooks {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<HookState>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_timeout_in_seconds: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resume: Option<HookState>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resume_timeout_in_seconds: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suspend: Option<HookState>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suspend_timeout_in_seconds: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub terminate: Option<HookState>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub terminate_timeout_in_seconds: Option<u32>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MicrovmImageHooks {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready: Option<HookState>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready_timeout_in_seconds: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub validate: Option<HookState>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub validate_timeout_in_seconds: Option<u32>,
}

/// What CreateMicrovmImage and UpdateMicrovmImage have in common: the making of one version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageDefinition {
    pub base_image_arn: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base_image_version: Option<String>,
    pub build_role_arn: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    pub code_artifact: CodeArtifact,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logging: Option<Logging>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub egress_network_connectors: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_configurations: Option<Vec<CpuConfiguration>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<Vec<Resources>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub additional_os_capabilities: Option<Vec<Capability>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hooks: Option<Hooks>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub environment_variables: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CreateMicrovmImageRequest {
    pub name: String,
    #[serde(flatten)]
    pub definition: ImageDefinition,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tags: Option<BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_token: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IdlePolicy {
    pub max_idle_duration_seconds: u32,
    /// 0 terminates at once instead of suspending.
    pub suspended_duration_seconds: u32,
    pub auto_resume_enabled: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RunMicrovmRequest {
    pub image_identifier: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ingress_network_connectors: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub egress_network_connectors: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub execution_role_arn: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_policy: Option<IdlePolicy>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logging: Option<Logging>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_hook_payload: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub maximum_duration_in_seconds: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_token: Option<String>,
}

/// One element of `allowedPorts`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PortSpecification {
    Port(u16),
    #[serde(rename_all = "camelCase")]
    Range {
        start_port: u16,
        end_port: u16,
    },
    AllPorts {},
}

impl PortSpecification {
    pub fn allows(self, port: u16) -> bool {
        match self {
            Self::Port(allowed) => allowed == port,
            Self::Range { start_port, end_port } => (start_port..=end_port).contains(&port),
            Self::AllPorts {} => true,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CreateMicrovmAuthTokenRequest {
    pub microvm_identifier: String,
    pub expiration_in_minutes: u32,
    pub allowed_ports: Vec<PortSpecification>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum MicrovmState {
    Pending,
    Running,
    Suspending,
    Suspended,
    Terminating,
    Terminated,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ImageState {
    Creating,
    Created,
    CreateFailed,
    Updating,
    Updated,
    UpdateFailed,
    Deleting,
    DeleteFailed,
    Deleted,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum VersionState {
    Pending,
    InProgress,
    Successful,
    Failed,
    Deleting,
    Deleted,
    DeleteFailed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum VersionStatus {
    Active,
    Inactive,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum BuildState {
    Pending,
    InProgress,
    Successful,
    Failed,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn unions_are_one_member_objects() {
        let ports: Vec<PortSpecification> =
            serde_json::from_str(r#"[{"port":80},{"range":{"startPort":1,"endPort":9}},{"allPorts":{}}]"#).unwrap();
        assert!(ports[0].allows(80) && !ports[0].allows(81));
        assert!(ports[1].allows(9) && !ports[1].allows(10));
        assert!(ports[2].allows(1));
        let logging: Logging = serde_json::from_str(r#"{"disabled":{}}"#).unwrap();
        assert_eq!(serde_json::to_string(&logging).unwrap(), r#"{"disabled":{}}"#);
    }

    #[test]
    fn a_create_request_is_its_definition_and_a_name() {
        let text = r#"{"name":"n","baseImageArn":"b","buildRoleArn":"r","codeArtifact":{"uri":"s3://b/k"},"resources":[{"minimumMemoryInMiB":512}]}"#;
        let request: CreateMicrovmImageRequest = serde_json::from_str(text).unwrap();
        assert_eq!(request.definition.code_artifact, CodeArtifact::Uri("s3://b/k".into()));
        assert_eq!(serde_json::to_value(&request).unwrap(), serde_json::from_str::<serde_json::Value>(text).unwrap());
    }
}
