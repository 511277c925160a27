//! A whole machine: an empty VM with RAM, devices and a guest in it, and what can be done with it.

use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex};

use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::EventFd;

use crate::arch::boot::BootError;
use crate::arch::layout;
use crate::arch::vcpu_state::{VcpuError, VcpuState};
use crate::arch::vm_state::VmState;
use crate::control::Stats;
use crate::devices::virtio::Transport;
use crate::devices::{Bus, DiskError, Ports, lock};
use crate::memory::working_set::Touched;
use crate::memory::{GuestRam, MemoryError};
use crate::random;
use crate::snapshot::{self, MachineRecord, SnapshotError};
use crate::steps::Steps;
use crate::vcpu::prefault;
use crate::vm::{EmptyVm, VmError};

const GENERATION_BYTES: usize = 16;

#[derive(Debug, thiserror::Error)]
pub(crate) enum MachineError {
    #[error(transparent)]
    Memory(#[from] MemoryError),
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error(transparent)]
    Boot(#[from] BootError),
    #[error(transparent)]
    Vm(#[from] VmError),
    #[error(transparent)]
    Vcpu(#[from] VcpuError),
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    #[error("could not make a device")]
    Device(#[source] io::Error),
    #[error("could not hand a disk's files to the ring that reads them")]
    Ring(#[source] io::Error),
    #[error("what the guest wrote could not be handed to a disk's file")]
    Settle(#[source] io::Error),
    #[error("KVM could not save or restore the machine's clock and interrupt controllers")]
    VmState(#[source] kvm_ioctls::Error),
    #[error("this monitor was prepared for {0} vCPUs")]
    Prepared(u8),
    #[error("the snapshot is of a machine with {0}")]
    Shape(String),
    #[error("the snapshot's device in slot {0} is not this machine's, or is damaged")]
    DeviceState(usize),
    #[error("could not change the machine's generation identifier")]
    Generation(#[source] io::Error),
}

/// One machine.
pub(crate) struct Machine {
    vm: EmptyVm,
    ram: Arc<GuestRam>,
    memory_mib: u32,
    generation: EventFd,
    paused: bool,
}

impl Machine {
    /// Puts RAM and devices into an empty VM. Each of `groups` is served by a thread of its own; the slots are in their order.
    pub(crate) fn assemble(
        mut vm: EmptyVm,
        ram: Arc<GuestRam>,
        memory_mib: u32,
        groups: Vec<(&'static str, Vec<Transport>)>,
        steps: &mut Steps,
    ) -> Result<Self, MachineError> {
        vm.set_memory(&ram)?;
        steps.mark("memory_slots");
        let groups: Vec<(&'static str, Vec<_>)> = groups
            .into_iter()
            .map(|(name, devices)| (name, devices.into_iter().map(|device| Arc::new(Mutex::new(device))).collect()))
            .collect();
        let slots: Vec<_> = groups.iter().flat_map(|(_, devices): &(_, Vec<Arc<Mutex<Transport>>>)| devices.iter().cloned()).collect();
        for (slot, device) in slots.iter().enumerate() {
            vm.connect(slot, &lock(device))?;
        }
        let ports = Ports::new().map_err(MachineError::Device)?;
        vm.connect_line(ports.line(), layout::SERIAL_LINE)?;
        let generation = EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC).map_err(MachineError::Device)?;
        vm.connect_line(&generation, layout::GENERATION_LINE)?;
        steps.mark("lines");
        vm.workers.start(groups).map_err(MachineError::Device)?;
        vm.vcpus.attach(Bus::new(slots, ports));
        steps.mark("workers");
        Ok(Self { vm, ram, memory_mib, generation, paused: true })
    }

    pub(crate) fn vm(&self) -> &EmptyVm {
        &self.vm
    }

    pub(crate) fn ram(&self) -> &GuestRam {
        &self.ram
    }

    fn bus(&self) -> &Bus {
        self.vm.vcpus.bus().expect("a machine is made with its bus")
    }

    /// Lets everything go on. A machine that runs is left alone.
    pub(crate) fn resume(&mut self) {
        if !self.paused {
            return;
        }
        self.paused = false;
        for device in &self.bus().slots {
            lock(device).resume();
        }
        self.vm.vcpus.run();
    }

    /// Stops vCPUs, then devices; what devices hold back reaches its files. A machine that is paused is left alone.
    pub(crate) fn pause(&mut self, steps: &mut Steps) -> Result<(), MachineError> {
        if !self.paused {
            self.vm.vcpus.pause();
            self.paused = true;
        }
        steps.mark("vcpus");
        for device in &self.bus().slots {
            lock(device).pause().map_err(MachineError::Settle)?;
        }
        steps.mark("devices");
        Ok(())
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.paused
    }

    pub(crate) fn stats(&self) -> Stats {
        Stats { paused: self.paused, vcpus: self.vm.vcpus.count(), memory_mib: self.memory_mib }
    }

    /// Asks the guest to give back so much memory; it does so when it can. False for a machine without a balloon.
    pub(crate) fn ask_for_pages(&self, pages: u32) -> bool {
        self.bus().slots.iter().any(|device| lock(device).ask_for_pages(pages))
    }

    /// Writes the state of a paused machine.
    pub(crate) fn save(&self, to: &File) -> Result<(), MachineError> {
        let vcpus = self.vm.vcpus.each().map(|(_, vcpu)| VcpuState::read(&vcpu, &self.vm.msrs)).collect::<Result<_, _>>()?;
        let record = MachineRecord {
            profile: self.vm.profile.name.clone(),
            memory_mib: self.memory_mib,
            vcpus,
            vm: VmState::read(&self.vm.vm).map_err(MachineError::VmState)?,
            serial: self.bus().ports().save(),
            devices: self.bus().slots.iter().map(|device| lock(device).save()).collect(),
        };
        Ok(snapshot::write(&record, to)?)
    }

    /// Puts a machine that has never run into the state of a record.
    pub(crate) fn load(&self, record: &MachineRecord) -> Result<(), MachineError> {
        self.check_shape(record)?;
        record.vm.write_chips(&self.vm.vm).map_err(MachineError::VmState)?;
        for ((_, vcpu), state) in self.vm.vcpus.each().zip(&record.vcpus) {
            state.write(&vcpu)?;
        }
        record.vm.write_clock(&self.vm.vm).map_err(MachineError::VmState)?;
        for (slot, (device, record)) in self.bus().slots.iter().zip(&record.devices).enumerate() {
            if !lock(device).load(record) {
                return Err(MachineError::DeviceState(slot));
            }
        }
        self.bus().ports().load(&record.serial).map_err(MachineError::Device)?;
        self.change_generation()
    }

    /// Spares a machine that has never run the faults of its first accesses to these pages. What cannot be done is left to the faults.
    pub(crate) fn put_in_place(&self, pages: &[Touched]) {
        let Some((_, vcpu)) = self.vm.vcpus.each().next() else { return };
        let mut by_kvm = true;
        for touched in pages {
            if touched.written && self.ram.populate(*touched).is_err() {
                return;
            }
            by_kvm = by_kvm && self.ram.pieces(*touched).all(|(start, length)| prefault::map(&vcpu, start, length).is_ok());
            // KVM reads what is only read, where it can do this at all.
            if !by_kvm && !touched.written && self.ram.populate(*touched).is_err() {
                return;
            }
        }
    }

    /// Of a machine that runs: the next page costs no reading of the file.
    pub(crate) fn read_ahead(&self, pages: Touched) {
        // The guest's own access does what this could not.
        let _ = self.ram.populate(pages);
    }

    fn check_shape(&self, record: &MachineRecord) -> Result<(), MachineError> {
        let refuse = |text: String| Err(MachineError::Shape(text));
        if record.profile != self.vm.profile.name {
            return refuse(format!("CPU profile {}; this host offers {}", record.profile, self.vm.profile.name));
        }
        if record.memory_mib != self.memory_mib || record.vcpus.len() != usize::from(self.vm.vcpus.count()) {
            return refuse(format!("{} vCPUs and {} MiB", record.vcpus.len(), record.memory_mib));
        }
        if record.devices.len() != self.bus().slots.len() {
            return refuse(format!("{} devices", record.devices.len()));
        }
        Ok(())
    }

    /// Tells the guest's kernel that it is a copy, before it runs: it reseeds its random number generator on its own.
    fn change_generation(&self) -> Result<(), MachineError> {
        let mut identifier = [0; GENERATION_BYTES];
        random::fill(&mut identifier).map_err(MachineError::Generation)?;
        let written = self.ram.memory().write_slice(&identifier, GuestAddress(layout::GENERATION_ID));
        written.map_err(|error| MachineError::Generation(io::Error::other(error)))?;
        self.generation.write(1).map_err(MachineError::Generation)
    }
}

#[cfg(test)]
mod tests;
