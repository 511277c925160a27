//! A KVM machine without a guest: VM, interrupt controllers, vCPUs with their profile and parked threads. All that does not depend on a snapshot, so that it
//! can be made before one is asked for: creating a VM is the most expensive step of a restore.

use std::io;

use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::{IoEventAddress, Kvm, VmFd};
use vmm_sys_util::eventfd::EventFd;

use crate::arch::cpuid::CpuProfile;
use crate::arch::vcpu_state::{self, VcpuError};
use crate::arch::{layout, vm_state};
use crate::devices::virtio::Transport;
use crate::devices::{DEVICES_WORKER, DISK_WORKER, Workers};
use crate::memory::GuestRam;
use crate::steps::Steps;
use crate::vcpu::Vcpus;

/// What a MicroVM has: a disk, and all else.
const LIKELY_WORKERS: [&str; 2] = [DISK_WORKER, DEVICES_WORKER];

#[derive(Debug, thiserror::Error)]
pub(crate) enum VmError {
    #[error("KVM could not {attempted}")]
    Kvm {
        attempted: &'static str,
        #[source]
        source: kvm_ioctls::Error,
    },
    #[error(transparent)]
    Vcpu(#[from] VcpuError),
    #[error("could not start the threads of vCPUs and devices")]
    Threads(#[source] io::Error),
}

/// What went wrong with KVM, by what was attempted.
fn kvm(attempted: &'static str) -> impl Fn(kvm_ioctls::Error) -> VmError {
    move |source| VmError::Kvm { attempted, source }
}

pub(crate) struct EmptyVm {
    pub vm: VmFd,
    pub vcpus: Vcpus,
    pub workers: Workers,
    pub profile: CpuProfile,
    /// The registers that KVM wants saved.
    pub msrs: Vec<u32>,
}

impl EmptyVm {
    pub(crate) fn create(device: &Kvm, vcpus: u8, steps: &mut Steps) -> Result<Self, VmError> {
        let vm = device.create_vm().map_err(kvm("create a virtual machine"))?;
        steps.mark("kvm_vm");
        vm_state::prepare(&vm).map_err(kvm("create the interrupt controllers"))?;
        let profile = CpuProfile::of_host(device).map_err(kvm("tell what CPU it offers"))?;
        let msrs = device.get_msr_index_list().map_err(kvm("list the registers to save"))?.as_slice().to_vec();
        let create = |id| {
            let vcpu = vm.create_vcpu(id).map_err(kvm("create a vCPU"))?;
            vcpu_state::set_profile(&vcpu, &profile, id as u8, vcpus)?;
            Ok(vcpu)
        };
        let fds = (0..u64::from(vcpus)).map(create).collect::<Result<Vec<_>, VmError>>()?;
        let vcpus = Vcpus::start(fds).map_err(VmError::Threads)?;
        steps.mark("vcpus");
        let workers = Workers::prepare(&LIKELY_WORKERS).map_err(VmError::Threads)?;
        steps.mark("worker_threads");
        Ok(Self { vm, vcpus, workers, profile, msrs })
    }

    /// Shows the guest its RAM.
    #[allow(unsafe_code)]
    pub(crate) fn set_memory(&self, ram: &GuestRam) -> Result<(), VmError> {
        for (slot, (guest_phys_addr, memory_size, userspace_addr)) in (0u32..).zip(ram.slots()) {
            let region = kvm_userspace_memory_region { slot, flags: 0, guest_phys_addr, memory_size, userspace_addr };
            // SAFETY: the region is guest RAM, mapped for as long as the process lives, and no Rust reference points into it.
            unsafe { self.vm.set_user_memory_region(region) }.map_err(kvm("map guest memory"))?;
        }
        Ok(())
    }

    /// Lets KVM raise the device's interrupt and ring its bells without a vCPU or a thread of ours in between.
    pub(crate) fn connect(&self, slot: usize, device: &Transport) -> Result<(), VmError> {
        self.connect_line(device.line(), layout::device_line(slot))?;
        let address = IoEventAddress::Mmio(layout::device_address(slot) + crate::devices::virtio::QUEUE_NOTIFY);
        for (queue, bell) in (0u32..).zip(device.bells()) {
            self.vm.register_ioevent(bell, &address, queue).map_err(kvm("watch a device's bell"))?;
        }
        Ok(())
    }

    pub(crate) fn connect_line(&self, line: &EventFd, number: u32) -> Result<(), VmError> {
        self.vm.register_irqfd(line, number).map_err(kvm("connect an interrupt line"))
    }
}
