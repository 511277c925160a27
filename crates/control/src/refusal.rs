//! Every way control says no, with the words clients read. A line without a mark is ours.

use emberbox_failpoints::Injected;
use emberbox_store::{ImageRecord, Quota, StoreError, VersionRecord};
use emberbox_wire::arn::ParseArnError;
use emberbox_wire::error::{ApiError, ErrorCode};
use emberbox_wire::ids::MicrovmId;
use serde::Serialize;

use crate::access::RoleError;
use crate::limits::{Limits, OperationGroup, SERVICE_CODE};
use crate::microvm::state::Conflict;

/// What the caller asked for and cannot have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// Observed.
    #[error(transparent)]
    MalformedArn(#[from] ParseArnError),
    /// Observed.
    #[error("Malformed network connector ARN")]
    MalformedConnectorArn,
    #[error("Network connector {0} does not exist")]
    UnknownConnector(String),
    #[error(
        "Network connector {0} is recorded, but Emberbox does not send traffic through customers' connectors yet; use the AWS-managed INTERNET_EGRESS"
    )]
    ConnectorNotBuilt(String),
    #[error("Network connector {0} is not for MicroVMs: its AssociatedComputeResourceTypes does not name MicroVm")]
    ConnectorOfOtherCompute(String),
    /// Words of `lambda-core`, for which what is wrong is InvalidParameterValueException.
    #[error("{0}")]
    InvalidParameter(String),
    /// Observed.
    #[error("Network connector not found for: {0}")]
    NoConnector(String),
    #[error("A network connector with this name already exists: {0}")]
    ConnectorExists(String),
    #[error("Network connector {arn} {why}")]
    ConnectorBusy { arn: String, why: String },
    #[error(
        "Customer-managed runtimes belong to Lambda functions, which Emberbox does not run; it serves the network connectors of Lambda Core"
    )]
    RuntimesNotBuilt,
    #[error("{}", over_quota(*quota))]
    OverQuota { quota: Quota, limit: u64 },
    #[error("There is not enough memory on this host: it holds MicroVMs and builds of {0} MiB of baseline memory together. Retry later.")]
    NoCapacity(u64),
    /// In the words of a launch that came as far.
    #[error("{0}. Retry later.")]
    HostShort(String),
    #[error("MicroVM {0} cannot be resumed now: there is not enough memory for it. Retry later.")]
    NoRoomToResume(MicrovmId),
    #[error("Rate exceeded")]
    Throttled { group: OperationGroup, retry_after_seconds: u64 },
    #[error("Network connector {0} is not an {1} connector")]
    ConnectorOfOtherKind(String, &'static str),
    /// Observed at AWS's token call; here at RunMicrovm.
    #[error("ALL_INGRESS cannot be combined with other ingress network connectors; use HTTP_INGRESS and/or SHELL_INGRESS instead")]
    AllIngressCombined,
    #[error("NO_INGRESS cannot be combined with other ingress network connectors")]
    NoIngressCombined,
    /// Observed.
    #[error("No managed MicroVM Image with arn {arn} and version {version} is available")]
    NoManagedImage { arn: String, version: String },
    #[error("No managed MicroVM Image with arn {0} is available")]
    NoManagedImageArn(String),
    #[error(
        "1 validation error detected: Value '{0}' at 'resources.1.member.minimumMemoryInMiB' failed to satisfy constraint: Member must be one of 512, 1024, 2048, 4096, 8192"
    )]
    MemorySize(i64),
    #[error("This Emberbox host runs X86_64 images only: cpuConfigurations cannot ask for ARM_64")]
    Architecture,
    #[error("hooks.port is required when a lifecycle hook is ENABLED")]
    HookPort,
    #[error("environmentVariables: {0} cannot be passed to a process: a name holds no '=', and neither name nor value a NUL character")]
    EnvironmentVariable(String),
    #[error("allowedPorts has more elements than a token can hold: use ranges")]
    TooManyPorts,
    #[error("codeArtifact.uri must name an object as s3://bucket/key")]
    ArtifactUri,
    /// Observed.
    #[error("A MicroVM image with the name '{0}' already exists in this account")]
    ImageExists(String),
    #[error("MicroVM image {0} does not exist")]
    NoImage(String),
    #[error("Version {version} of MicroVM image {arn} does not exist")]
    NoVersion { arn: String, version: String },
    #[error("Build {0} does not exist")]
    NoBuild(String),
    /// Observed.
    #[error("No active version found for MicroVM image {arn}{}", version.as_ref().map(|v| format!(" and version {v}")).unwrap_or_default())]
    NoActiveVersion { arn: String, version: Option<String> },
    /// Observed.
    #[error("MicroVM Image is already in state: {state}")]
    ImageBusy { arn: String, state: String },
    /// Observed, as a ValidationException.
    #[error("Cannot delete MicroVM image in its current state: {0}")]
    ImageNotDeletable(String),
    /// Observed, as a ValidationException.
    #[error("Cannot delete microvm image with running microvms.")]
    ImageInUse,
    #[error("Version {version} of MicroVM image {arn} has MicroVMs that are not terminated")]
    VersionInUse { arn: String, version: String },
    #[error("Version {version} is the last version of MicroVM image {arn} and cannot be deleted; delete the image instead")]
    LastVersion { arn: String, version: String },
    #[error("Version {version} of MicroVM image {arn} is {state} and cannot be changed")]
    VersionBusy { arn: String, version: String, state: String },
    #[error("MicroVM {0} does not exist")]
    NoMicrovm(String),
    #[error("{}", conflict.message(*microvm))]
    Microvm { microvm: MicrovmId, conflict: Conflict },
    #[error("MicroVM {0} has been terminated and accepts no traffic.")]
    TokenForTerminated(MicrovmId),
    /// In the words AWS has for the shell.
    #[error("HTTP access requires HTTP_INGRESS network connector to be configured on the MicroVM.")]
    NoHttpIngress,
    /// Observed.
    #[error("Shell access requires SHELL_INGRESS network connector to be configured on the MicroVM.")]
    NoShellIngress,
    #[error("Emberbox does not offer shells yet. HTTP traffic to this MicroVM works: use CreateMicrovmAuthToken.")]
    ShellNotBuilt,
    #[error("1 validation error detected: Value '{value}' at '{member}' failed to satisfy constraint: Member must {constraint}")]
    Constraint { member: &'static str, value: String, constraint: &'static str },
    /// Documented; the words are ours.
    #[error("The client token was used before with other parameters")]
    TokenReused,
    #[error("The next token is not valid for this request")]
    NextToken,
    #[error("Resource {0} does not exist")]
    NoResource(String),
    #[error("A resource can have {0} tags at most")]
    TooManyTags(usize),
    /// As AWS's services say it (documented: such keys are AWS's own).
    #[error("aws: prefixed tag key names are not allowed for external use: {0}")]
    ReservedTag(String),
    #[error("Tag emberbox:idle must be 'traffic' or 'traffic+cpu', not '{0}'")]
    IdleTag(String),
    #[error("Unknown operation {0}")]
    UnknownOperation(String),
}

impl Refusal {
    pub(crate) fn image_busy(image: &ImageRecord) -> Self {
        Self::ImageBusy { arn: image.arn.to_string(), state: word(image.state) }
    }

    pub(crate) fn over_quota(limits: &Limits, quota: Quota) -> Self {
        let quotas = &limits.quotas;
        let limit = match quota {
            Quota::MemoryMib => quotas.memory_mib.unwrap_or(limits.host_memory_mib),
            Quota::Microvms => quotas.microvms.unwrap_or_default(),
            Quota::Images => quotas.images,
            Quota::ImageVersions => quotas.versions_per_image,
            Quota::Connectors => quotas.network_connectors,
            Quota::ConnectorVersions => quotas.versions_per_network_connector,
        };
        Self::OverQuota { quota, limit }
    }

    pub(crate) fn version_busy(image: &ImageRecord, version: &VersionRecord) -> Self {
        Self::VersionBusy { arn: image.arn.to_string(), version: version.version.to_string(), state: word(version.state) }
    }
}

/// A state as the API writes it.
pub(crate) fn word(state: impl Serialize) -> String {
    serde_json::to_value(state).ok().and_then(|word| word.as_str().map(str::to_owned)).unwrap_or_default()
}

fn over_quota(quota: Quota) -> &'static str {
    match quota {
        // Observed.
        Quota::MemoryMib => "The base maximum allocated memory limit has been reached for this account.",
        Quota::Microvms => "The account has reached the maximum number of MicroVMs allowed.",
        Quota::Images => "The account has reached the maximum number of MicroVM images allowed.",
        Quota::ImageVersions => "The MicroVM image has reached the maximum number of versions allowed; delete some of them.",
        Quota::Connectors => "The account has reached the maximum number of network connectors allowed.",
        Quota::ConnectorVersions => "The network connector has reached the maximum number of versions allowed; delete some of them.",
    }
}

/// The member of the configuration that sets a quota: the code that AWS's Service Quotas would have (ours; AWS leaves it null, observed).
fn quota_code(quota: Quota) -> &'static str {
    match quota {
        Quota::MemoryMib => "quotas.memory_mib",
        Quota::Microvms => "quotas.microvms",
        Quota::Images => "quotas.images",
        Quota::ImageVersions => "quotas.versions_per_image",
        Quota::Connectors => "quotas.network_connectors",
        Quota::ConnectorVersions => "quotas.versions_per_network_connector",
    }
}

fn quota_exceeded(message: String, quota: Quota, limit: u64) -> ApiError {
    let (code, resource_type) = match quota {
        Quota::MemoryMib | Quota::Microvms => (ErrorCode::ServiceQuotaExceeded, MICROVM),
        Quota::Images => (ErrorCode::ServiceQuotaExceeded, IMAGE),
        Quota::ImageVersions => (ErrorCode::ServiceQuotaExceeded, "MicrovmImageVersion"),
        Quota::Connectors | Quota::ConnectorVersions => (ErrorCode::NetworkConnectorLimitExceeded, "NetworkConnector"),
    };
    let mut error = ApiError::new(code, message);
    error.members.insert("resourceType".into(), resource_type.into());
    error.members.insert("resourceId".into(), limit.to_string().into());
    error.members.insert("serviceCode".into(), SERVICE_CODE.into());
    error.members.insert("quotaCode".into(), quota_code(quota).into());
    error
}

/// ThrottlingException, or what an operation calls it.
fn throttled(message: String, quota_code: String, retry_after_seconds: u64) -> ApiError {
    let mut error = ApiError::new(ErrorCode::Throttling, message);
    error.members.insert("retryAfterSeconds".into(), retry_after_seconds.into());
    error.members.insert("serviceCode".into(), SERVICE_CODE.into());
    error.members.insert("quotaCode".into(), quota_code.into());
    error.members.insert("Reason".into(), "CallerRateLimitExceeded".into());
    error
}

/// When to come again for memory: MicroVMs come and go in seconds.
const MEMORY_RETRY_SECONDS: u64 = 5;

const IMAGE: &str = "MicrovmImage";
const MICROVM: &str = "Microvm";

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        let message = refusal.to_string();
        match &refusal {
            Refusal::NoImage(arn) | Refusal::NoVersion { arn, .. } | Refusal::NoActiveVersion { arn, .. } => {
                Self::not_found(message, IMAGE, arn)
            }
            Refusal::NoBuild(id) => Self::not_found(message, "MicrovmImageBuild", id),
            Refusal::NoMicrovm(id) => Self::not_found(message, MICROVM, id),
            Refusal::UnknownConnector(arn) | Refusal::NoConnector(arn) => Self::not_found(message, "NetworkConnector", arn),
            Refusal::ConnectorBusy { arn, .. } => Self::conflict(message, "NetworkConnector", arn),
            Refusal::ConnectorExists(name) => Self::conflict(message, "NetworkConnector", name),
            Refusal::InvalidParameter(_) => Self::new(ErrorCode::InvalidParameterValue, message),
            Refusal::ConnectorNotBuilt(_) | Refusal::RuntimesNotBuilt => Self::new(ErrorCode::NotImplemented, message),
            Refusal::OverQuota { quota, limit } => quota_exceeded(message, *quota, *limit),
            Refusal::NoCapacity(_) | Refusal::HostShort(_) => Self::new(ErrorCode::InsufficientCapacity, message),
            Refusal::NoRoomToResume(_) => throttled(message, quota_code(Quota::MemoryMib).into(), MEMORY_RETRY_SECONDS),
            Refusal::Throttled { group, retry_after_seconds } => {
                throttled(message, format!("rates.{}", group.name()), *retry_after_seconds)
            }
            Refusal::NoResource(arn) => Self::not_found(message, "Resource", arn),
            Refusal::ImageBusy { arn, .. }
            | Refusal::VersionInUse { arn, .. }
            | Refusal::LastVersion { arn, .. }
            | Refusal::VersionBusy { arn, .. } => Self::conflict(message, IMAGE, arn),
            Refusal::Microvm { microvm, .. } | Refusal::TokenForTerminated(microvm) => {
                Self::conflict(message, MICROVM, &microvm.to_string())
            }
            Refusal::TokenReused => Self::new(ErrorCode::Conflict, message),
            Refusal::ShellNotBuilt => Self::new(ErrorCode::NotImplemented, message),
            Refusal::UnknownOperation(_) => Self::new(ErrorCode::UnknownOperation, message),
            Refusal::MalformedArn(_)
            | Refusal::MalformedConnectorArn
            | Refusal::ConnectorOfOtherKind(..)
            | Refusal::AllIngressCombined
            | Refusal::NoIngressCombined
            | Refusal::NoManagedImage { .. }
            | Refusal::NoManagedImageArn(_)
            | Refusal::MemorySize(_)
            | Refusal::Architecture
            | Refusal::HookPort
            | Refusal::ArtifactUri
            | Refusal::TooManyPorts
            | Refusal::EnvironmentVariable(_)
            | Refusal::ImageExists(_)
            | Refusal::NoHttpIngress
            | Refusal::NoShellIngress
            | Refusal::Constraint { .. }
            | Refusal::NextToken
            | Refusal::ConnectorOfOtherCompute(_)
            | Refusal::ImageNotDeletable(_)
            | Refusal::ImageInUse
            | Refusal::ReservedTag(_)
            | Refusal::TooManyTags(_)
            | Refusal::IdleTag(_) => Self::validation(message),
        }
    }
}

/// Ours: what AWS's disks do when they are full is not known.
const DISK_FULL: &str = "DISK_STORAGE_FULL: the disk of this host is full and nothing can be written down. MicroVMs that run go on. Retry later, when its operator has freed some space.";

/// Why an operation gave no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("the records could not be read or written")]
    Store(#[from] StoreError),
    /// Validation let through what the operation cannot read, or an answer cannot be written.
    #[error("members are not of their shape")]
    Shape(#[from] serde_json::Error),
    #[error(transparent)]
    Role(RoleError),
    /// Of a record, said already by whoever could not write it.
    #[error("the disk is full and nothing can be written down: free some of its space")]
    DiskFull,
    #[error("the daemon is stopping")]
    Stopping,
    #[error("records kept changing while the request was answered")]
    Contended,
    /// Of a MicroVM's change: its task has said why, or waits for a disk that takes longer than a caller is let wait.
    #[error("the change was not written down, or not in time")]
    NotRecorded,
    #[error("the operation was made to fail")]
    Injected(#[from] Injected),
}

impl From<RoleError> for Failure {
    fn from(error: RoleError) -> Self {
        match error {
            RoleError::Store(error) => Self::Store(error),
            RoleError::OtherAccount | RoleError::Absent(_) | RoleError::Untrusting(_) => Self::Role(error),
        }
    }
}

impl From<Failure> for ApiError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Role(RoleError::OtherAccount) => Self::new(ErrorCode::AccessDenied, RoleError::OtherAccount.to_string()),
            Failure::Role(error) => Self::validation(error.to_string()),
            Failure::Refused(refusal) => refusal.into(),
            Failure::Shape(source) => Self::validation(format!("1 validation error detected: {source}")),
            Failure::Store(StoreError::Full(_)) | Failure::DiskFull => {
                tracing::error!(error = &failure as &dyn std::error::Error, "{}", emberbox_store::FREE_SPACE);
                Self::new(ErrorCode::InternalServer, DISK_FULL)
            }
            Failure::Store(_) | Failure::Stopping | Failure::Contended | Failure::NotRecorded | Failure::Injected(_) => {
                tracing::error!(error = &failure as &dyn std::error::Error, "an operation failed");
                Self::internal()
            }
        }
    }
}
