//! Records as the API shows them: members by the service model's names, absent ones left out, times in epoch seconds.

use std::collections::BTreeMap;

use emberbox_store::{BuildRecord, ImageRecord, MicrovmRecord, SnapshotBytes, VersionRecord};
use emberbox_wire::arn::ImageArn;
use emberbox_wire::ids::ImageVersion;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::config::EndpointSettings;
use crate::endpoint;

/// The one chip generation a host builds for. `INTEL` is the model's only word for x86.
pub(crate) const ARCHITECTURE: &str = "X86_64";
pub(crate) const CHIPSET: &str = "INTEL";
pub(crate) const CHIPSET_GENERATION: &str = "generic";
/// The model's limit of `stateReason`.
const STATE_REASON_CHARACTERS: usize = 2048;

/// Members whose value may be absent.
struct Members(Map<String, Value>);

impl Members {
    fn of(value: Value) -> Self {
        match value {
            Value::Object(map) => Self(map),
            other => Self(Map::from_iter([("value".to_owned(), other)])),
        }
    }

    fn maybe<T: Serialize>(mut self, name: &str, value: Option<T>) -> Self {
        if let Some(value) = value.and_then(|value| serde_json::to_value(value).ok()) {
            self.0.insert(name.to_owned(), value);
        }
        self
    }

    fn all(mut self, other: Value) -> Self {
        self.0.extend(Self::of(other).0);
        self
    }

    fn done(self) -> Value {
        Value::Object(self.0)
    }
}

/// `latestActiveImageVersion` and `latestFailedImageVersion` of an image.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct LatestVersions {
    pub(crate) active: Option<ImageVersion>,
    pub(crate) failed: Option<ImageVersion>,
}

pub(crate) fn image_summary(image: &ImageRecord, latest: LatestVersions) -> Value {
    let members = json!({
        "imageArn": image.arn.to_string(),
        "name": image.arn.name,
        "state": image.state,
        "createdAt": image.created_at.epoch_seconds(),
    });
    Members::of(members).maybe("latestActiveImageVersion", latest.active).maybe("latestFailedImageVersion", latest.failed).done()
}

pub(crate) fn image(image: &ImageRecord, latest: LatestVersions, tags: &BTreeMap<String, String>) -> Value {
    Members::of(image_summary(image, latest))
        .maybe("updatedAt", Some(image.updated_at.epoch_seconds()))
        .maybe("tags", (!tags.is_empty()).then_some(tags))
        .done()
}

/// What CreateMicrovmImage and UpdateMicrovmImage answer: the image and the version they begin.
pub(crate) fn image_with_version(
    record: &ImageRecord,
    latest: LatestVersions,
    version: &VersionRecord,
    tags: &BTreeMap<String, String>,
) -> Result<Value, serde_json::Error> {
    Ok(Members::of(serde_json::to_value(&version.definition)?)
        .all(image(record, latest, tags))
        .maybe("imageVersion", Some(version.version))
        .done())
}

pub(crate) fn version(arn: &ImageArn, version: &VersionRecord) -> Result<Value, serde_json::Error> {
    let members = json!({
        "imageArn": arn.to_string(),
        "imageVersion": version.version,
        "state": version.state,
        "status": version.status,
        "createdAt": version.created_at.epoch_seconds(),
        "updatedAt": version.updated_at.epoch_seconds(),
    });
    Ok(Members::of(serde_json::to_value(&version.definition)?).all(members).maybe("stateReason", version.state_reason.as_deref()).done())
}

pub(crate) fn build_summary(arn: &ImageArn, build: &BuildRecord) -> Value {
    let members = json!({
        "imageArn": arn.to_string(),
        "imageVersion": build.version,
        "buildId": build.id,
        "buildState": build.state,
        "architecture": ARCHITECTURE,
        "chipset": CHIPSET,
        "chipsetGeneration": CHIPSET_GENERATION,
        "createdAt": build.created_at.epoch_seconds(),
    });
    Members::of(members).maybe("stateReason", build.state_reason.as_deref()).done()
}

pub(crate) fn build(arn: &ImageArn, build: &BuildRecord) -> Value {
    Members::of(build_summary(arn, build)).maybe("snapshotBuild", snapshot_build(build.sizes)).done()
}

fn snapshot_build(sizes: SnapshotBytes) -> Option<Value> {
    let members = Members::of(json!({}))
        .maybe("codeInstallSizeInBytes", sizes.code_install)
        .maybe("memorySnapshotSizeInBytes", sizes.memory)
        .maybe("diskSnapshotSizeInBytes", sizes.disk);
    (!members.0.is_empty()).then(|| members.done())
}

pub(crate) fn microvm_summary(microvm: &MicrovmRecord) -> Value {
    json!({
        "microvmId": microvm.id,
        "state": microvm.phase.state(),
        "imageArn": microvm.image_arn.to_string(),
        "imageVersion": microvm.version,
        "startedAt": microvm.started_at.epoch_seconds(),
    })
}

/// What RunMicrovm and GetMicrovm answer. Never holds the payload (observed).
pub(crate) fn microvm(settings: &EndpointSettings, microvm: &MicrovmRecord) -> Value {
    let reason = microvm.state_reason.as_ref().map(|reason| reason.chars().take(STATE_REASON_CHARACTERS).collect::<String>());
    let members = json!({
        "endpoint": endpoint::host_name(settings, microvm),
        "maximumDurationInSeconds": microvm.settings.maximum_duration_in_seconds,
        "ingressNetworkConnectors": microvm.settings.ingress_network_connectors,
        "egressNetworkConnectors": microvm.settings.egress_network_connectors,
    });
    Members::of(microvm_summary(microvm))
        .all(members)
        .maybe("executionRoleArn", microvm.settings.execution_role_arn.as_deref())
        .maybe("idlePolicy", microvm.settings.idle_policy)
        .maybe("terminatedAt", microvm.terminated_at.map(|at| at.epoch_seconds()))
        .maybe("stateReason", reason)
        .done()
}
