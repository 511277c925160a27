//! Which engine runs the machines of this host, and why.

use std::path::PathBuf;
use std::sync::Arc;

use super::Engine;
use super::kvm::KvmEngine;
use super::qemu::{Accelerator, QemuEngine, has_virtualization};
use crate::EngineChoice;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Makes the engine that `choice` names. `Auto` takes KVM where the CPU's flags promise it and a guest has been seen to run: `/dev/kvm` alone proves
/// nothing, for software-only KVM cannot run a stock kernel.
pub(crate) fn choose(choice: EngineChoice, monitor: Option<PathBuf>) -> Result<Arc<dyn Engine>, Failure> {
    match choice {
        EngineChoice::Kvm => Ok(Arc::new(KvmEngine::probe(monitor)?)),
        EngineChoice::QemuTcg => qemu(Some(Accelerator::Tcg)),
        EngineChoice::QemuKvm => qemu(Some(Accelerator::kvm()?)),
        EngineChoice::Auto if !has_virtualization() => {
            tracing::info!("the CPU offers no hardware virtualization (vmx, svm): QEMU translates");
            qemu(None)
        }
        EngineChoice::Auto => match KvmEngine::probe(monitor) {
            Ok(engine) => Ok(Arc::new(engine)),
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "the KVM engine cannot be used here: QEMU takes its place");
                qemu(None)
            }
        },
    }
}

fn qemu(accelerator: Option<Accelerator>) -> Result<Arc<dyn Engine>, Failure> {
    Ok(Arc::new(QemuEngine::probe(accelerator)?))
}
