//! What a virtual machine has besides its vCPUs: interrupt controllers and the paravirtual clock.

use kvm_bindings::{KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE, kvm_clock_data, kvm_irqchip};
use kvm_ioctls::VmFd;
use serde::{Deserialize, Serialize};

use super::layout;

const CHIPS: [u32; 3] = [KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE, KVM_IRQCHIP_IOAPIC];

#[derive(Serialize, Deserialize)]
pub(crate) struct VmState {
    chips: [kvm_irqchip; CHIPS.len()],
    clock: kvm_clock_data,
}

/// What must exist before the first vCPU.
pub(crate) fn prepare(vm: &VmFd) -> Result<(), kvm_ioctls::Error> {
    vm.set_tss_address(layout::TSS)?;
    vm.create_irq_chip()
}

impl VmState {
    /// Reads a machine whose vCPUs are stopped.
    pub(crate) fn read(vm: &VmFd) -> Result<Self, kvm_ioctls::Error> {
        let mut chips = CHIPS.map(|chip_id| kvm_irqchip { chip_id, ..Default::default() });
        for chip in &mut chips {
            vm.get_irqchip(chip)?;
        }
        // Without flags the clock goes on where it stood, as the guest's counters do: its wall clock is the agent's errand.
        let clock = kvm_clock_data { flags: 0, ..vm.get_clock()? };
        Ok(Self { chips, clock })
    }

    /// Restores the interrupt controllers. Before vCPUs: their APICs get what these hold.
    pub(crate) fn write_chips(&self, vm: &VmFd) -> Result<(), kvm_ioctls::Error> {
        for (chip, expected) in self.chips.iter().zip(CHIPS) {
            vm.set_irqchip(&kvm_irqchip { chip_id: expected, ..*chip })?;
        }
        Ok(())
    }

    /// Restores the clock: last, for it starts to run.
    pub(crate) fn write_clock(&self, vm: &VmFd) -> Result<(), kvm_ioctls::Error> {
        vm.set_clock(&kvm_clock_data { flags: 0, clock: self.clock.clock, ..Default::default() })
    }
}
