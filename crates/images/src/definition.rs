//! What an image's definition asks of the host, with the documented defaults filled in.

use std::collections::BTreeMap;
use std::time::Duration;

use emberbox_host::{HookCall, MachineShape};
use emberbox_wire::microvms::{Capability, HookState, Hooks, ImageDefinition};
use emberbox_wire::sizes::{DEFAULT_SIZE, Size};

/// `/ready` and `/validate` without a timeout of their own (documented).
const IMAGE_HOOK_DEFAULT_SECONDS: u32 = 30;
const IMAGE_HOOK_SECONDS: std::ops::RangeInclusive<u32> = 1..=3600;
const MICROVM_HOOK_SECONDS: std::ops::RangeInclusive<u32> = 1..=60;

/// A definition in the host's terms.
#[derive(Debug, Clone)]
pub(crate) struct Requirements {
    pub(crate) shape: MachineShape,
    pub(crate) environment: BTreeMap<String, String>,
    pub(crate) all_capabilities: bool,
    pub(crate) ready: Option<HookCall>,
    pub(crate) validate: Option<HookCall>,
}

impl Requirements {
    pub(crate) fn of(definition: &ImageDefinition) -> Result<Self, String> {
        let environment = definition.environment_variables.clone().unwrap_or_default();
        check_environment(&environment)?;
        let hooks = definition.hooks.clone().unwrap_or_default();
        check_microvm_hooks(&hooks)?;
        let image_hooks = hooks.microvm_image_hooks.clone().unwrap_or_default();
        Ok(Self {
            shape: shape(definition)?,
            environment,
            all_capabilities: definition.additional_os_capabilities.as_ref().is_some_and(|asked| asked.contains(&Capability::All)),
            ready: image_hook("ready", hooks.port, image_hooks.ready, image_hooks.ready_timeout_in_seconds)?,
            validate: image_hook("validate", hooks.port, image_hooks.validate, image_hooks.validate_timeout_in_seconds)?,
        })
    }
}

fn shape(definition: &ImageDefinition) -> Result<MachineShape, String> {
    let size = match definition.resources.as_deref() {
        None | Some([]) => DEFAULT_SIZE,
        Some([asked]) => Size::for_baseline(asked.minimum_memory_in_mib).ok_or_else(|| {
            let sizes: Vec<String> = emberbox_wire::sizes::SIZES.iter().map(|size| size.baseline_memory_mib.to_string()).collect();
            format!("minimumMemoryInMiB {} is not one of the sizes {}", asked.minimum_memory_in_mib, sizes.join(", "))
        })?,
        Some(_) => return Err("resources holds more than one element".to_owned()),
    };
    Ok(MachineShape { vcpus: size.peak_vcpus, memory_mib: size.peak_memory_mib, disk_gib: size.disk_gib })
}

fn image_hook(name: &str, port: Option<u16>, state: Option<HookState>, seconds: Option<u32>) -> Result<Option<HookCall>, String> {
    let seconds = seconds.unwrap_or(IMAGE_HOOK_DEFAULT_SECONDS);
    if !IMAGE_HOOK_SECONDS.contains(&seconds) {
        return Err(format!("the timeout of the {name} hook must be 1 to 3600 seconds, not {seconds}"));
    }
    if state != Some(HookState::Enabled) {
        return Ok(None);
    }
    Ok(Some(HookCall { port: hook_port(name, port)?, timeout: Duration::from_secs(seconds.into()) }))
}

fn hook_port(name: &str, port: Option<u16>) -> Result<u16, String> {
    match port {
        None => Err(format!("the {name} hook is enabled and hooks.port is missing")),
        Some(0) => Err("hooks.port must be 1 to 65535, not 0".to_owned()),
        Some(port) => Ok(port),
    }
}

/// The hooks of running MicroVMs are called much later by others; what is wrong with them is said now.
fn check_microvm_hooks(hooks: &Hooks) -> Result<(), String> {
    let microvm = hooks.microvm_hooks.clone().unwrap_or_default();
    for (name, state, seconds) in [
        ("run", microvm.run, microvm.run_timeout_in_seconds),
        ("resume", microvm.resume, microvm.resume_timeout_in_seconds),
        ("suspend", microvm.suspend, microvm.suspend_timeout_in_seconds),
        ("terminate", microvm.terminate, microvm.terminate_timeout_in_seconds),
    ] {
        if let Some(seconds) = seconds.filter(|seconds| !MICROVM_HOOK_SECONDS.contains(seconds)) {
            return Err(format!("the timeout of the {name} hook must be 1 to 60 seconds, not {seconds}"));
        }
        if state == Some(HookState::Enabled) {
            hook_port(name, hooks.port)?;
        }
    }
    Ok(())
}

/// What the kernel cannot pass to a process. Values are not repeated: they may be secret.
fn check_environment(environment: &BTreeMap<String, String>) -> Result<(), String> {
    for (name, value) in environment {
        if name.is_empty() || name.contains(['=', '\0']) {
            return Err(format!("{name:?} cannot be the name of an environment variable"));
        }
        if value.contains('\0') {
            return Err(format!("the value of the environment variable {name:?} holds a NUL character"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use emberbox_wire::microvms::{CodeArtifact, MicrovmHooks, MicrovmImageHooks, Resources};

    fn definition(hooks: Hooks) -> ImageDefinition {
        ImageDefinition {
            base_image_arn: String::new(),
            base_image_version: None,
            build_role_arn: String::new(),
            description: None,
            code_artifact: CodeArtifact::Uri("s3://bucket/key".to_owned()),
            logging: None,
            egress_network_connectors: None,
            cpu_configurations: None,
            resources: None,
            additional_os_capabilities: None,
            hooks: Some(hooks),
            environment_variables: None,
        }
    }

    fn ready(port: Option<u16>, seconds: Option<u32>) -> ImageDefinition {
        let image = MicrovmImageHooks { ready: Some(HookState::Enabled), ready_timeout_in_seconds: seconds, ..Default::default() };
        definition(Hooks { port, microvm_image_hooks: Some(image), ..Default::default() })
    }

    #[test]
    fn defaults_are_filled_in() {
        let asked = Requirements::of(&ready(Some(9000), None)).unwrap();
        assert_eq!(asked.ready, Some(HookCall { port: 9000, timeout: Duration::from_secs(30) }));
        assert_eq!(asked.validate, None);
        assert_eq!(asked.shape, MachineShape { vcpus: 4, memory_mib: 8192, disk_gib: 8 });
        assert!(!asked.all_capabilities);
    }

    #[test]
    fn sizes_capabilities_and_environment_are_taken_over() {
        let mut definition = definition(Hooks::default());
        definition.resources = Some(vec![Resources { minimum_memory_in_mib: 512 }]);
        definition.additional_os_capabilities = Some(vec![Capability::All]);
        definition.environment_variables = Some(BTreeMap::from([("A".to_owned(), "b".to_owned())]));
        let asked = Requirements::of(&definition).unwrap();
        assert_eq!(asked.shape, MachineShape { vcpus: 1, memory_mib: 2048, disk_gib: 8 });
        assert!(asked.all_capabilities);
        assert_eq!(asked.environment["A"], "b");
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let missing = "the ready hook is enabled and hooks.port is missing";
        assert_eq!(Requirements::of(&ready(None, None)).unwrap_err(), missing);
        assert!(Requirements::of(&ready(Some(0), None)).is_err());
        assert!(Requirements::of(&ready(Some(1), Some(3601))).is_err());
        assert!(Requirements::of(&ready(Some(1), Some(0))).is_err());
        let run = MicrovmHooks { run: Some(HookState::Enabled), ..Default::default() };
        let run = definition(Hooks { microvm_hooks: Some(run), ..Default::default() });
        assert_eq!(Requirements::of(&run).unwrap_err(), "the run hook is enabled and hooks.port is missing");
        let mut odd = definition(Hooks::default());
        odd.resources = Some(vec![Resources { minimum_memory_in_mib: 700 }]);
        assert!(Requirements::of(&odd).unwrap_err().contains("512, 1024"));
        for name in ["", "A=B", "A\0"] {
            let mut odd = definition(Hooks::default());
            odd.environment_variables = Some(BTreeMap::from([(name.to_owned(), String::new())]));
            assert!(Requirements::of(&odd).is_err());
        }
    }

    #[test]
    fn a_disabled_hook_needs_no_port() {
        let image = MicrovmImageHooks { ready: Some(HookState::Disabled), ..Default::default() };
        assert!(Requirements::of(&definition(Hooks { microvm_image_hooks: Some(image), ..Default::default() })).is_ok());
    }
}
