//! Which engine runs the machines of this host, and why.

use std::sync::Arc;

use emberbox_vmm::with_causes;

use super::Engine;
use super::kvm::{KvmEngine, ProbeError};
use super::qemu::{Accelerator, QemuEngine, has_virtualization};
use crate::{EngineChoice, MonitorOptions};

type Failure = Box<dyn std::error::Error + Send + Sync>;

pub(crate) struct Chosen {
    pub engine: Arc<dyn Engine>,
    /// For people: why this one.
    pub why: String,
}

/// Makes the engine that `choice` names. `Auto` is the first that works here: the own monitor, then QEMU with KVM, then QEMU's translator.
pub(crate) fn choose(choice: EngineChoice, monitor: &MonitorOptions) -> Result<Chosen, Failure> {
    let configured = || "the configuration says so".to_owned();
    match choice {
        EngineChoice::Auto => automatic(monitor),
        EngineChoice::Kvm => Ok(own(KvmEngine::probe(monitor)?, &configured())),
        EngineChoice::QemuTcg => qemu(Accelerator::Tcg, configured()),
        EngineChoice::QemuKvm => qemu(Accelerator::kvm()?, configured()),
    }
}

/// `/dev/kvm` alone proves nothing (software-only KVM runs no stock kernel), and the CPU's flags do not either: they are looked at first, then a guest is run.
fn automatic(monitor: &MonitorOptions) -> Result<Chosen, Failure> {
    if !has_virtualization() {
        let why =
            "the CPU shows neither vmx nor svm; where the host is a virtual machine itself, its owner can turn nested virtualization on";
        return qemu(Accelerator::Tcg, why.into());
    }
    match KvmEngine::probe(monitor) {
        Ok(engine) => Ok(own(engine, "the CPU has hardware virtualization, and KVM ran a test guest")),
        Err(error @ ProbeError::NoMonitor(_)) => qemu(Accelerator::kvm()?, format!("KVM works, but {}", with_causes(&error))),
        Err(error) => qemu(Accelerator::Tcg, format!("the CPU has hardware virtualization, but {}", with_causes(&error))),
    }
}

fn own(engine: KvmEngine, why: &str) -> Chosen {
    let why = format!("{why}; {}", engine.how_disks_are_read());
    Chosen { engine: Arc::new(engine), why }
}

fn qemu(accelerator: Accelerator, mut why: String) -> Result<Chosen, Failure> {
    let engine = QemuEngine::probe(accelerator)?;
    if !engine.runs_cpus_in_parallel() {
        why.push_str("; the CPUs of a guest take turns on one of the host's");
    }
    Ok(Chosen { engine: Arc::new(engine), why })
}
