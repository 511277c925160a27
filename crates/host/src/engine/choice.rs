//! Which engine runs the machines of this host, and why.

use std::path::PathBuf;
use std::sync::Arc;

use emberbox_vmm::with_causes;

use super::Engine;
use super::kvm::{KvmEngine, ProbeError};
use super::qemu::{Accelerator, QemuEngine, has_virtualization};
use crate::EngineChoice;

type Failure = Box<dyn std::error::Error + Send + Sync>;

pub(crate) struct Chosen {
    pub engine: Arc<dyn Engine>,
    /// For people: why this one.
    pub why: String,
}

/// Makes the engine that `choice` names. `Auto` is the first that works here: the own monitor, then QEMU with KVM, then QEMU's translator.
pub(crate) fn choose(choice: EngineChoice, monitor: Option<PathBuf>) -> Result<Chosen, Failure> {
    let configured = |engine| Ok(Chosen { engine, why: "the configuration says so".into() });
    match choice {
        EngineChoice::Auto => automatic(monitor),
        EngineChoice::Kvm => configured(Arc::new(KvmEngine::probe(monitor)?)),
        EngineChoice::QemuTcg => configured(qemu(Accelerator::Tcg)?),
        EngineChoice::QemuKvm => configured(qemu(Accelerator::kvm()?)?),
    }
}

/// `/dev/kvm` alone proves nothing (software-only KVM runs no stock kernel), and the CPU's flags do not either: they are looked at first, then a guest is run.
fn automatic(monitor: Option<PathBuf>) -> Result<Chosen, Failure> {
    if !has_virtualization() {
        let why =
            "the CPU shows neither vmx nor svm; where the host is a virtual machine itself, its owner can turn nested virtualization on";
        return Ok(Chosen { engine: qemu(Accelerator::Tcg)?, why: why.into() });
    }
    match KvmEngine::probe(monitor) {
        Ok(engine) => Ok(Chosen { engine: Arc::new(engine), why: "the CPU has hardware virtualization, and KVM ran a test guest".into() }),
        Err(error @ ProbeError::NoMonitor(_)) => {
            Ok(Chosen { engine: qemu(Accelerator::kvm()?)?, why: format!("KVM works, but {}", with_causes(&error)) })
        }
        Err(error) => {
            Ok(Chosen { engine: qemu(Accelerator::Tcg)?, why: format!("the CPU has hardware virtualization, but {}", with_causes(&error)) })
        }
    }
}

fn qemu(accelerator: Accelerator) -> Result<Arc<dyn Engine>, Failure> {
    Ok(Arc::new(QemuEngine::probe(accelerator)?))
}
