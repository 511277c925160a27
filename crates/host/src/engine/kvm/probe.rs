//! Whether this host can run the KVM engine, and what its machines are.

use std::fs::File;
use std::io;
use std::path::PathBuf;

use crate::snapshot::EngineIdentity;

const KVM_DEVICE: &str = "/dev/kvm";

/// Why the engine cannot be used here.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProbeError {
    #[error("could not open {KVM_DEVICE} (is the kernel's kvm-intel or kvm-amd module loaded?)")]
    Open(#[source] io::Error),
    #[error("{KVM_DEVICE} does not run a guest")]
    Run(#[source] emberbox_vmm::ProbeError),
    #[error("there is no monitor program at {} (`engine.monitor` names another)", .0.display())]
    NoMonitor(PathBuf),
}

/// Runs a guest of a few instructions, and says which CPU guests see here.
pub(super) fn identity() -> Result<EngineIdentity, ProbeError> {
    let device = File::options().read(true).write(true).open(KVM_DEVICE).map_err(ProbeError::Open)?;
    let profile = emberbox_vmm::probe(device).map_err(ProbeError::Run)?;
    Ok(EngineIdentity {
        engine: "kvm".into(),
        version: format!("machine {}, state {}", emberbox_vmm::MACHINE, emberbox_vmm::STATE_FORMAT),
        cpu_profile: profile.name,
        tsc_khz: crate::sys::tsc::measure_khz(),
    })
}
