//! Which engine runs the machines of this host, and why.

use std::path::PathBuf;
use std::sync::Arc;

use super::Engine;
use super::kvm::KvmEngine;
use super::qemu::{Accelerator, QemuEngine};
use crate::EngineChoice;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Makes the engine that `choice` names. `Auto` is QEMU, with KVM where the CPU's flags promise it: the KVM engine is taken by name until the lifecycle suite
/// has been seen to pass on it.
pub(crate) fn choose(choice: EngineChoice, monitor: Option<PathBuf>) -> Result<Arc<dyn Engine>, Failure> {
    match choice {
        EngineChoice::Auto => qemu(None),
        EngineChoice::Kvm => Ok(Arc::new(KvmEngine::probe(monitor)?)),
        EngineChoice::QemuTcg => qemu(Some(Accelerator::Tcg)),
        EngineChoice::QemuKvm => qemu(Some(Accelerator::kvm()?)),
    }
}

fn qemu(accelerator: Option<Accelerator>) -> Result<Arc<dyn Engine>, Failure> {
    Ok(Arc::new(QemuEngine::probe(accelerator)?))
}
