//! Whether KVM runs a guest on this host: tried with one of a few instructions, in the process that asks.
#![allow(unsafe_code)]

use std::fs::File;

use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::{VcpuExit, VcpuFd};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryRegion};

use crate::arch::cpuid::CpuProfile;
use crate::arch::{vcpu_state, vm_state};
use crate::memory::GuestMemory;

const CODE: u64 = 0x1000;
const PORT: u16 = 0x3f8;
/// In real mode: `mov dx, 0x3f8; mov al, 0x2a; out dx, al; hlt`.
const PROGRAM: [u8; 7] = [0xba, 0xf8, 0x03, 0xb0, 0x2a, 0xee, 0xf4];
const SAID: [u8; 1] = [0x2a];

#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    #[error("KVM could not make a machine")]
    Kvm(#[from] kvm_ioctls::Error),
    #[error(transparent)]
    Vcpu(#[from] vcpu_state::VcpuError),
    #[error("a guest of four instructions did not do what it should: {0}")]
    Guest(String),
    #[error("no memory for a guest of one page")]
    Memory,
}

/// Runs a guest of four instructions on `device` (`/dev/kvm`), and says which CPU guests see here.
pub fn probe(device: File) -> Result<CpuProfile, ProbeError> {
    let kvm = crate::open_kvm(device.into());
    let vm = kvm.create_vm()?;
    vm_state::prepare(&vm)?;
    let profile = CpuProfile::of_host(&kvm)?;
    let mut vcpu = vm.create_vcpu(0)?;
    vcpu_state::set_profile(&vcpu, &profile, 0, 1)?;
    let memory = GuestMemory::from_ranges(&[(GuestAddress(0), 0x2000)]).map_err(|_| ProbeError::Memory)?;
    memory.write_slice(&PROGRAM, GuestAddress(CODE)).map_err(|_| ProbeError::Memory)?;
    let region = memory.iter().next().ok_or(ProbeError::Memory)?;
    let slot =
        kvm_userspace_memory_region { memory_size: region.len(), userspace_addr: region.get_mmap().as_ptr() as u64, ..Default::default() };
    // SAFETY: `memory` outlives `vcpu`, the only way to use the mapping: it is declared before, and both end with this function.
    unsafe { vm.set_user_memory_region(slot)? };
    run(&mut vcpu)?;
    drop(vcpu);
    Ok(profile)
}

fn run(vcpu: &mut VcpuFd) -> Result<(), ProbeError> {
    let mut sregs = vcpu.get_sregs()?;
    (sregs.cs.base, sregs.cs.selector) = (0, 0);
    vcpu.set_sregs(&sregs)?;
    vcpu.set_regs(&kvm_bindings::kvm_regs { rip: CODE, rflags: 2, ..Default::default() })?;
    match vcpu.run()? {
        VcpuExit::IoOut(PORT, data) if data == SAID => Ok(()),
        other => Err(ProbeError::Guest(format!("{other:?}"))),
    }
}
