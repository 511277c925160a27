//! Fills the tables by which the CPU finds guest memory, so that the guest does not leave for KVM at its first access to each page (Linux 6.11 and later).
#![allow(unsafe_code)]

use std::io;
use std::os::fd::AsRawFd;

use kvm_bindings::kvm_pre_fault_memory;
use kvm_ioctls::VcpuFd;
use nix::errno::Errno;
use nix::request_code_readwrite;
use vm_memory::GuestAddress;

/// KVM_PRE_FAULT_MEMORY (kernel: Documentation/virt/kvm/api.rst).
pub(crate) const REQUEST: u64 = request_code_readwrite!(0xae, 0xd5, size_of::<kvm_pre_fault_memory>());

/// Maps what the host has in place at these guest addresses, writable where it is the process's own. For a vCPU that does not run.
pub(crate) fn map(vcpu: &VcpuFd, start: GuestAddress, length: u64) -> io::Result<()> {
    let mut range = kvm_pre_fault_memory { gpa: start.0, size: length, ..Default::default() };
    while range.size > 0 {
        // SAFETY: the call reads and writes `range` alone; what it maps is the memory that the VM was given, as an access by the guest would.
        match Errno::result(unsafe { libc::ioctl(vcpu.as_raw_fd(), REQUEST, &mut range) }) {
            // The kernel has moved the range's start: a signal or a resched came in between.
            Ok(_) | Err(Errno::EINTR | Errno::EAGAIN) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}
