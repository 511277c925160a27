//! Engines start virtual machines. All satisfy [`Engine`] and [`Vm`], pass one suite and show the guest the same machine.
//!
//! An engine gets everything open: descriptors of disks, memory, state, tap. It knows no path of an image and no policy.

mod channel;
mod choice;
mod kvm;
mod output;
mod process;
mod qemu;

pub(crate) use choice::{Chosen, choose};

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;

use crate::cgroup::Group;
use crate::snapshot::EngineIdentity;
use crate::sys::namespace::NetworkNamespace;
use crate::sys::pidfd::ProcessIdentity;
use crate::{MachineShape, ProcessEnd, StepTimings};

/// What every guest's kernel is told: where its log goes, that it ends with its kernel, and what a stock kernel looks for or tests at boot that these
/// machines do not have or need: a second less without hardware virtualization.
const GUEST_ARGUMENTS: &str = "console=ttyS0 quiet reboot=t panic=-1 edd=off 8250.nr_uarts=1 cryptomgr.notests rcupdate.rcu_expedited=1 \
                               random.trust_cpu=off";

/// A virtual machine to be started.
pub(crate) struct VmSpec {
    pub shape: MachineShape,
    /// The user the process runs as, alone.
    pub uid: u32,
    pub namespace: NetworkNamespace,
    pub tap: OwnedFd,
    pub disks: Vec<VmDisk>,
    /// Where the control socket is made.
    pub directory: PathBuf,
    /// The process lives in it, and whoever watches the process removes it.
    pub group: Option<Group>,
}

/// A disk as the guest sees it: the first layer is what the guest writes to, the others back it.
pub(crate) struct VmDisk {
    pub serial: &'static str,
    pub read_only: bool,
    pub layers: Vec<DiskLayer>,
}

pub(crate) struct DiskLayer {
    pub format: DiskFormat,
    pub file: File,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DiskFormat {
    Raw,
    Qcow2,
}

/// Where a fresh machine starts.
pub(crate) struct Boot {
    pub kernel: File,
    pub initramfs: File,
    /// Guest RAM lives in this file, shared, so that a snapshot needs no copy.
    pub memory: File,
}

/// Where a restored machine goes on.
pub(crate) struct Restore {
    /// The image's guest RAM, open for reading: mapped copy on write.
    pub base: File,
    /// A suspended machine's own pages and the list of where they are.
    pub layer: Option<(File, File)>,
    pub state: File,
    pub working_set: WorkingSet,
}

/// Which pages copies of an image touch when they come up: what an engine has in place, they need not wait for.
pub(crate) enum WorkingSet {
    Unknown,
    /// To be found out from this machine.
    Recorded,
    /// The list.
    Known(File),
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum EngineError {
    #[error("could not start the virtual machine process")]
    Start(#[source] io::Error),
    #[error("the virtual machine's control socket does not answer")]
    Control(#[source] io::Error),
    #[error("the virtual machine refused `{command}`: {message}")]
    Refused { command: String, message: String },
    #[error("the virtual machine did not {attempted} in time")]
    TimedOut { attempted: &'static str },
    #[error("{0}")]
    Ended(ProcessEnd),
}

#[async_trait]
pub(crate) trait Engine: Send + Sync {
    fn identity(&self) -> &EngineIdentity;
    /// Starts a fresh machine; it runs when this returns.
    async fn boot(&self, spec: VmSpec, boot: Boot) -> Result<Arc<dyn Vm>, EngineError>;
    /// Starts the process of a machine that [`Vm::run_restored`] will bring back.
    async fn restore(&self, spec: VmSpec, restore: Restore) -> Result<Arc<dyn Vm>, EngineError>;
    /// Whether it has any use for a [`WorkingSet`].
    fn uses_working_sets(&self) -> bool;
    /// Whether the CPUs of one machine run at the same moment.
    fn runs_cpus_in_parallel(&self) -> bool;
    /// A cell has been made whose machine will run as `uid`: whatever of its process can be prepared may be, in the group that `group` makes.
    fn cell_is_ready(&self, uid: u32, group: &dyn Fn() -> Option<Group>);
    /// Takes over a living process after a restart of the daemon.
    async fn adopt(&self, process: ProcessIdentity, directory: PathBuf) -> Result<Arc<dyn Vm>, EngineError>;
}

#[async_trait]
pub(crate) trait Vm: Send + Sync {
    fn process(&self) -> ProcessIdentity;
    /// The namespace of its cell.
    fn namespace(&self) -> io::Result<NetworkNamespace>;
    /// Loads the state that the machine was started with and lets it run. Separate from the start, so that the process is on record before it touches
    /// the machine's disk. What must not run yet was frozen by the agent before the snapshot. Says what it did of which it knows how long it took.
    async fn run_restored(&self) -> Result<StepTimings, EngineError>;
    /// Stops the vCPUs; disks are flushed.
    async fn pause(&self) -> Result<(), EngineError>;
    async fn resume(&self) -> Result<(), EngineError>;
    /// Writes the state of devices and vCPUs of the paused machine, guest RAM apart.
    async fn save_state(&self, to: File) -> Result<(), EngineError>;
    /// Ends the process without waiting.
    fn kill(&self);
    /// Ends the process and waits for its end.
    async fn stop(&self);
    /// Resolves when the process has ended.
    async fn ended(&self) -> ProcessEnd;
}
