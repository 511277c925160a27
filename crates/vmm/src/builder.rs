//! Recipes: how a fresh machine is made, and how one is restored. Side by side, because what differs between them is the point.

use std::fs::File;
use std::sync::Arc;

use kvm_ioctls::Kvm;

use crate::arch::{boot, vcpu_state};
use crate::control::{BootFiles, Common, RestoreFiles, WorkingSetFile};
use crate::devices::virtio::{Transport, VirtioDevice};
use crate::devices::{Balloon, Block, DEVICES_WORKER, DISK_WORKER, Disk, Entropy, Net};
use crate::machine::{Machine, MachineError};
use crate::memory::GuestRam;
use crate::memory::working_set::Touched;
use crate::snapshot;
use crate::steps::Steps;
use crate::vm::EmptyVm;

/// A machine at the first instruction of its kernel, paused.
pub(crate) fn boot(vm: EmptyVm, common: Common, files: BootFiles, command_line: &str, steps: &mut Steps) -> Result<Machine, MachineError> {
    let ram = Arc::new(GuestRam::shared(files.memory, common.memory_mib)?);
    steps.mark("memory");
    let (vcpus, memory_mib) = (vm.vcpus.count(), common.memory_mib);
    let groups = devices(common, &ram)?;
    let count = groups.iter().map(|(_, devices)| devices.len()).sum();
    steps.mark("devices");
    let machine = Machine::assemble(vm, ram, memory_mib, groups, steps)?;
    let (mut image, mut initramfs) = (files.kernel, files.initramfs);
    let kernel = boot::Kernel { image: &mut image, initramfs: &mut initramfs, command_line };
    let entry = boot::load(machine.ram().memory(), kernel, vcpus, count)?;
    for (id, vcpu) in machine.vm().vcpus.each() {
        vcpu_state::set_boot_state(&vcpu, &machine.vm().profile, id, machine.ram().memory(), entry)?;
    }
    steps.mark("kernel");
    Ok(machine)
}

/// A machine where its snapshot left it, paused, and what of its memory is to be put in place once it runs.
pub(crate) fn restore(
    vm: EmptyVm,
    common: Common,
    files: RestoreFiles,
    steps: &mut Steps,
) -> Result<(Machine, Vec<Touched>), MachineError> {
    let record = snapshot::read(&files.state)?;
    steps.mark("read_state");
    let layer = files.layer.as_ref().map(|(pages, runs)| (pages, runs));
    let ram = Arc::new(GuestRam::private(&files.base, layer, common.memory_mib)?);
    let working_set = match files.working_set {
        WorkingSetFile::Unknown => Vec::new(),
        WorkingSetFile::Recorded => ram.read_single_pages().map(|()| Vec::new())?,
        WorkingSetFile::Known(list) => ram.working_set(&list)?,
    };
    steps.mark("memory");
    let memory_mib = common.memory_mib;
    let groups = devices(common, &ram)?;
    steps.mark("devices");
    let machine = Machine::assemble(vm, ram, memory_mib, groups, steps)?;
    machine.load(&record)?;
    steps.mark("load_state");
    let (later, first): (Vec<_>, Vec<_>) = working_set.into_iter().partition(|touched| touched.later);
    machine.put_in_place(&first);
    steps.mark("working_set");
    Ok((machine, later))
}

/// The VM that was prepared, or a new one. One of another size is of no use, and its threads would stay.
pub(crate) fn empty_vm(kvm: &Kvm, prepared: Option<EmptyVm>, vcpus: u8, steps: &mut Steps) -> Result<EmptyVm, MachineError> {
    match prepared {
        Some(vm) if vm.vcpus.count() == vcpus => Ok(vm),
        Some(vm) => Err(MachineError::Prepared(vm.vcpus.count())),
        None => Ok(EmptyVm::create(kvm, vcpus, steps)?),
    }
}

/// The devices in the order of their slots: disks, each with a thread, then all others. The order is part of every snapshot.
fn devices(mut common: Common, ram: &Arc<GuestRam>) -> Result<Vec<(&'static str, Vec<Transport>)>, MachineError> {
    let place = |device: Box<dyn VirtioDevice>| Transport::new(device, ram.clone()).map_err(MachineError::Device);
    let mut groups = Vec::new();
    for disk in common.disks {
        let layers: Vec<(_, File)> = disk.layers;
        let mut block = Block::new(Disk::open(disk.serial, disk.read_only, layers)?);
        if let Some(ring) = common.ring.take() {
            block.read_by(ring).map_err(MachineError::Ring)?;
        }
        groups.push((DISK_WORKER, vec![place(Box::new(block))?]));
    }
    let net = Net::new(common.tap, common.mac).map_err(MachineError::Device)?;
    groups.push((DEVICES_WORKER, vec![place(Box::new(net))?, place(Box::new(Entropy))?, place(Box::new(Balloon::new()))?]));
    Ok(groups)
}
