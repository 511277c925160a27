//! What an image version may be made of: shared by CreateMicrovmImage and UpdateMicrovmImage.

use emberbox_store::{BuildRecord, ImageId, SnapshotBytes, UnixMillis, VersionRecord};
use emberbox_wire::arn::ImageArn;
use emberbox_wire::ids::{BuildId, ImageVersion};
use emberbox_wire::microvms::{Architecture, BuildState, CodeArtifact, HookState, Hooks, ImageDefinition, VersionState, VersionStatus};
use emberbox_wire::sizes::{DEFAULT_SIZE, Size};
use serde_json::json;

use crate::connectors;
use crate::image::managed;
use crate::refusal::Refusal;

/// Admission: the definition as it is kept, with the base image's version settled.
pub(crate) fn admit(region: &str, managed_images: &[ImageArn], definition: ImageDefinition) -> Result<ImageDefinition, Refusal> {
    let base = managed::resolve(managed_images, &definition.base_image_arn, definition.base_image_version.as_deref())?;
    let CodeArtifact::Uri(uri) = &definition.code_artifact;
    artifact(uri)?;
    for resources in definition.resources.iter().flatten() {
        Size::for_baseline(resources.minimum_memory_in_mib).ok_or(Refusal::MemorySize(resources.minimum_memory_in_mib))?;
    }
    for cpu in definition.cpu_configurations.iter().flatten() {
        match cpu.architecture {
            Architecture::X86_64 => {}
            Architecture::Arm64 => return Err(Refusal::Architecture),
        }
    }
    if definition.hooks.as_ref().is_some_and(|hooks| hooks.port.is_none() && any_enabled(hooks)) {
        return Err(Refusal::HookPort);
    }
    definition.environment_variables.iter().flatten().try_for_each(|(name, value)| environment(name, value))?;
    connectors::egress(region, definition.egress_network_connectors.as_deref())?;
    Ok(ImageDefinition { base_image_version: Some(base.to_string()), ..definition })
}

/// What the kernel cannot pass to a process. The value is not repeated: it may be secret.
fn environment(name: &str, value: &str) -> Result<(), Refusal> {
    let fits = !name.contains(['=', '\0']) && !value.contains('\0');
    fits.then_some(()).ok_or_else(|| Refusal::EnvironmentVariable(name.escape_debug().to_string()))
}

fn artifact(uri: &str) -> Result<(), Refusal> {
    let object = uri.strip_prefix("s3://").and_then(|object| object.split_once('/'));
    match object {
        Some((bucket, key)) if !bucket.is_empty() && !key.is_empty() => Ok(()),
        Some(_) | None => Err(Refusal::ArtifactUri),
    }
}

fn any_enabled(hooks: &Hooks) -> bool {
    let run = hooks.microvm_hooks.iter().flat_map(|hooks| [hooks.run, hooks.resume, hooks.suspend, hooks.terminate]);
    let build = hooks.microvm_image_hooks.iter().flat_map(|hooks| [hooks.ready, hooks.validate]);
    run.chain(build).any(|hook| hook == Some(HookState::Enabled))
}

/// What a MicroVM of this definition, or the capture of its image, counts for.
pub(crate) fn baseline_mib(definition: &ImageDefinition) -> u32 {
    let asked = definition.resources.iter().flatten().find_map(|resources| Size::for_baseline(resources.minimum_memory_in_mib));
    asked.unwrap_or(DEFAULT_SIZE).baseline_memory_mib
}

/// A version and its build as they are first written.
pub(crate) fn new_version(
    image: ImageId,
    version: ImageVersion,
    definition: ImageDefinition,
    now: UnixMillis,
) -> (VersionRecord, BuildRecord) {
    let record = VersionRecord {
        image,
        version,
        state: VersionState::Pending,
        // Nothing can be run of it yet; its successful build makes it ACTIVE.
        status: VersionStatus::Inactive,
        state_reason: None,
        definition,
        image_key: format!("{image}-{}", version.major),
        built: None,
        created_at: now,
        updated_at: now,
    };
    let build = BuildRecord {
        id: BuildId::random(),
        image,
        version,
        state: BuildState::Pending,
        state_reason: None,
        sizes: SnapshotBytes::default(),
        timings: json!({}),
        created_at: now,
        updated_at: now,
    };
    (record, build)
}
