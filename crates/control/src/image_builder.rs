//! What control asks of `emberbox-images`: make one image version.

use async_trait::async_trait;
use emberbox_host::{ContainerConfig, ImageKey, OutputSink, StepTimings};
use emberbox_wire::ids::AccountId;
use emberbox_wire::microvms::ImageDefinition;
use serde::{Deserialize, Serialize};

/// One version to make.
#[derive(Debug, Clone)]
pub struct BuildImage {
    pub account: AccountId,
    pub key: ImageKey,
    pub definition: ImageDefinition,
}

/// A version that launches can use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuiltImage {
    pub config: ContainerConfig,
    pub sizes: SnapshotSizes,
    pub steps: StepTimings,
}

/// `snapshotBuild` of the API: absent members are absent there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotSizes {
    pub code_install_bytes: Option<u64>,
    pub memory_bytes: Option<u64>,
    pub disk_bytes: Option<u64>,
}

/// Why there is no version. `reason` is what the user reads: a documented reason code first (`S3_NO_SUCH_KEY: ...`, `CONTAINER_BUILD_FAILED: ...`), then what happened,
/// the failing step and its last lines.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct BuildFailure {
    pub reason: String,
    /// What had been made by then (observed: absent when the container build failed, code size alone when a hook failed).
    pub sizes: SnapshotSizes,
}

#[async_trait]
pub trait ImageBuilder: Send + Sync + 'static {
    /// Runs to the end or fails leaving nothing of `key` behind. May be called again for the same key after a crash.
    async fn build(&self, request: BuildImage, output: OutputSink) -> Result<BuiltImage, BuildFailure>;
}
