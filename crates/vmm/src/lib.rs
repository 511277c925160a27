//! The KVM virtual machine monitor: one process, one machine, made to be restored fast and to be worth nothing to whoever breaks into it.
//!
//! ```text
//!            daemon ──control socket, descriptors──▶ control ─▶ builder ─▶ machine ─┬─▶ vm, vcpu     KVM, threads of guest instructions
//!                                                                                  ├─▶ devices      virtio, serial, with threads of their own
//!                                                                                  ├─▶ memory       the snapshot's pages, copied on write
//!                                                                                  └─▶ snapshot     the state file
//! ```
//! It owns a guest and nothing else: no path, no socket, no policy. What it works on is handed to it open, after it has confined itself ([`jail`]). The guest
//! is hostile, and so is every byte of its memory; the daemon is trusted, but its messages and a snapshot's files are parsed as if they were not.
//!
//! `arch` holds all that is of one kind of CPU.

mod arch;
mod builder;
pub mod control;
mod devices;
mod end;
#[doc(hidden)]
pub mod fuzzing;
mod jail;
mod log;
mod machine;
mod memory;
mod probe;
mod random;
mod snapshot;
mod steps;
mod vcpu;
mod vm;

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use devices::Ring;
use steps::Steps;

pub use arch::cpuid::CpuProfile;
pub use devices::DiskFormat;
pub use jail::JailError;
pub use log::with_causes;
pub use memory::working_set::{Touched, encode as encode_working_set};
pub use probe::{ProbeError, probe};
pub use snapshot::FORMAT as STATE_FORMAT;

/// The machine that guests see. Raised by every change of it that a guest can notice: a snapshot fits the machine it was made on.
pub const MACHINE: u32 = 1;

/// Why a monitor ended of its own accord.
#[derive(Debug, thiserror::Error)]
pub enum MonitorError {
    #[error(transparent)]
    Jail(#[from] JailError),
    #[error("the control socket failed")]
    Control(#[source] std::io::Error),
}

/// What a monitor is started with.
pub struct Monitor {
    /// One end of a socket pair; the daemon holds the other.
    pub control: UnixStream,
    /// `/dev/kvm`.
    pub kvm: OwnedFd,
    /// User and group to become, not root's.
    pub uid: u32,
    /// Whether a disk's reads may be under way together, by an io_uring, where the kernel has one that can be restricted.
    pub io_uring: bool,
}

impl Monitor {
    /// Confines the process and serves the daemon until the machine ends.
    pub fn run(self) -> Result<(), MonitorError> {
        end::with_a_panic();
        let mut steps = Steps::start();
        // Without one, reads come one after the other; the daemon says so once for all (`rings`).
        let ring = if self.io_uring { Ring::prepare().ok() } else { None };
        steps.mark("ring");
        jail::enter(self.uid)?;
        steps.mark("jail");
        control::serve(open_kvm(self.kvm), self.control, ring, steps).map_err(MonitorError::Control)
    }
}

/// Whether this kernel has rings for disks ([`Monitor::io_uring`]), for a process that is not confined; an error says why not.
pub fn rings() -> std::io::Result<()> {
    Ring::prepare().map(drop)
}

/// KVM through a descriptor of its device.
#[allow(unsafe_code)]
fn open_kvm(fd: OwnedFd) -> kvm_ioctls::Kvm {
    use std::os::fd::{FromRawFd, IntoRawFd};
    // SAFETY: the descriptor is open and handed over; should it be of something else, its calls fail.
    unsafe { kvm_ioctls::Kvm::from_raw_fd(fd.into_raw_fd()) }
}
