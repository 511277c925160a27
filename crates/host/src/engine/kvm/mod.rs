//! The KVM engine: one `emberbox-vmm` process per machine (`crates/vmm`).
//!
//! A monitor is started empty: as root, in a pid namespace of its own, with a socket to this daemon and `/dev/kvm`. It confines itself, and can then be
//! told to make all of a virtual machine that does not depend on a snapshot. That much is done for every cell that waits for a machine, so that a launch
//! finds its monitor standing ready. The machine itself comes with one message that carries every descriptor the monitor will ever have.

mod client;
mod monitor;
mod probe;
mod vm;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;

use super::process::VmProcess;
use super::{Boot, Engine, EngineError, GUEST_ARGUMENTS, Restore, Vm, VmSpec};
use crate::MonitorOptions;
use crate::cgroup::Group;
use crate::snapshot::EngineIdentity;
use crate::sys::pidfd::ProcessIdentity;
use monitor::{Monitor, MonitorProgram};
pub(crate) use probe::ProbeError;
use vm::KvmVm;

/// vCPUs of the first machines that are prepared for; then as many as the last launch had.
const LIKELY_VCPUS: u8 = 1;

pub(crate) struct KvmEngine {
    identity: EngineIdentity,
    monitors: Arc<Monitors>,
    /// Or why there are none.
    rings: Result<(), String>,
}

/// Monitors that stand ready, by the user that each has become. There are as many as there are cells in the pool.
struct Monitors {
    program: MonitorProgram,
    ready: Mutex<HashMap<u32, Place>>,
    vcpus: AtomicU8,
}

/// One user's. It is taken away with the cell: a monitor that is ready only then finds its place gone, and goes too.
enum Place {
    Preparing,
    Ready { vcpus: u8, monitor: Monitor },
}

impl KvmEngine {
    /// Tries KVM out, and finds the monitor.
    pub(crate) fn probe(monitor: &MonitorOptions) -> Result<Self, ProbeError> {
        let identity = probe::identity()?;
        // After KVM: that the program alone is missing means that KVM works.
        let rings = if monitor.io_uring {
            emberbox_vmm::rings().map_err(|error| error.to_string())
        } else {
            Err("`engine.io_uring` is off".into())
        };
        let program = MonitorProgram::find(monitor.program.clone(), rings.is_ok())?;
        let monitors = Monitors { program, ready: Mutex::new(HashMap::new()), vcpus: AtomicU8::new(LIKELY_VCPUS) };
        Ok(Self { identity, monitors: Arc::new(monitors), rings })
    }

    /// For people.
    pub(crate) fn how_disks_are_read(&self) -> String {
        match &self.rings {
            Ok(()) => "a disk's reads are under way together (io_uring)".into(),
            Err(why) => format!("a disk's reads come one after the other (no io_uring: {why})"),
        }
    }

    fn kernel_arguments(&self) -> String {
        format!("{GUEST_ARGUMENTS} tsc_early_khz={}", self.identity.tsc_khz)
    }
}

impl Monitors {
    /// The monitor that was prepared for this user and as many vCPUs, or a new one.
    fn take(&self, uid: u32, wanted: u8) -> Result<Monitor, EngineError> {
        // Starting a process is not done with the others locked out.
        let place = self.ready().remove(&uid);
        match place {
            Some(Place::Ready { vcpus, monitor }) if vcpus == wanted && !monitor.has_ended() => Ok(monitor),
            other => {
                if let Some(Place::Ready { monitor, .. }) = other {
                    monitor.process.leave_group();
                    monitor.end();
                }
                self.program.start(uid).map_err(EngineError::Start)
            }
        }
    }

    async fn prepare(&self, uid: u32, group: Option<Group>) -> Result<(), EngineError> {
        let vcpus = self.vcpus.load(Ordering::Relaxed);
        let monitor = self.program.start(uid).map_err(EngineError::Start)?;
        monitor.process.enter_group(group).map_err(EngineError::Start)?;
        monitor.prepare(vcpus).await?;
        match self.ready().get_mut(&uid) {
            Some(place @ Place::Preparing) => *place = Place::Ready { vcpus, monitor },
            _ => monitor.end(),
        }
        Ok(())
    }

    fn ready(&self) -> std::sync::MutexGuard<'_, HashMap<u32, Place>> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Engine for KvmEngine {
    fn identity(&self) -> &EngineIdentity {
        &self.identity
    }

    async fn boot(&self, spec: VmSpec, boot: Boot) -> Result<Arc<dyn Vm>, EngineError> {
        let vm = KvmVm::empty(self.monitors.take(spec.uid, vm::vcpus(&spec))?, spec.directory.clone());
        match vm.boot(spec, boot, self.kernel_arguments()).await {
            Ok(()) => Ok(Arc::new(vm)),
            Err(error) => {
                vm.stop().await;
                Err(error)
            }
        }
    }

    async fn restore(&self, spec: VmSpec, restore: Restore) -> Result<Arc<dyn Vm>, EngineError> {
        let vcpus = vm::vcpus(&spec);
        self.monitors.vcpus.store(vcpus, Ordering::Relaxed);
        let vm = KvmVm::empty(self.monitors.take(spec.uid, vcpus)?, spec.directory.clone());
        vm.set_aside(spec, restore)?;
        Ok(Arc::new(vm))
    }

    fn uses_working_sets(&self) -> bool {
        true
    }

    fn runs_cpus_in_parallel(&self) -> bool {
        true
    }

    /// Starts and prepares a monitor in the background. It ends when this daemon does, unless it has got a machine.
    fn cell_is_ready(&self, uid: u32, group: &dyn Fn() -> Option<Group>) {
        let (monitors, group) = (self.monitors.clone(), group());
        monitors.ready().insert(uid, Place::Preparing);
        tokio::spawn(async move {
            if let Err(error) = monitors.prepare(uid, group).await {
                monitors.ready().remove(&uid);
                tracing::warn!(error = &error as &dyn std::error::Error, "a monitor could not be prepared; launches will try themselves");
            }
        });
    }

    async fn adopt(&self, process: ProcessIdentity, directory: PathBuf) -> Result<Arc<dyn Vm>, EngineError> {
        let process = VmProcess::adopt(process).map_err(EngineError::Control)?;
        Ok(Arc::new(KvmVm::adopted(process, directory)))
    }
}
