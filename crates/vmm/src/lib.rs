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
mod jail;
mod log;
mod machine;
mod memory;
mod random;
pub mod snapshot;
mod steps;
mod vcpu;
mod vm;

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

pub use arch::cpuid::CpuProfile;
pub use devices::DiskFormat;
pub use jail::JailError;

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
}

impl Monitor {
    /// Confines the process and serves the daemon until the machine ends.
    pub fn run(self) -> Result<(), MonitorError> {
        jail::enter(self.uid)?;
        control::serve(open_kvm(self.kvm), self.control).map_err(MonitorError::Control)
    }
}

/// KVM through a descriptor of its device.
#[allow(unsafe_code)]
fn open_kvm(fd: OwnedFd) -> kvm_ioctls::Kvm {
    use std::os::fd::{FromRawFd, IntoRawFd};
    // SAFETY: the descriptor is open and handed over; should it be of something else, its calls fail.
    unsafe { kvm_ioctls::Kvm::from_raw_fd(fd.into_raw_fd()) }
}

/// Whether KVM can make a machine here, and for which CPU profile.
pub fn probe(device: File) -> Result<CpuProfile, vm::VmError> {
    let kvm = open_kvm(device.into());
    let vm = vm::EmptyVm::create(&kvm, 1, &mut steps::Steps::start())?;
    Ok(vm.profile)
}

pub use vm::VmError;
