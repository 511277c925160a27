//! Where a vCPU's accesses outside RAM go: the registers of devices, and ports.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::legacy::{PortWrite, Ports};
use super::virtio::{Interrupts, Transport};
use crate::arch::layout;

/// Every device of a machine, in the order of their slots.
pub(crate) struct Bus {
    pub slots: Vec<Arc<Mutex<Transport>>>,
    /// Of each of them.
    interrupts: Vec<Arc<Interrupts>>,
    ports: Mutex<Ports>,
}

/// A thread that panicked with a device locked took the machine with it: there is nobody left to see the device half done.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Bus {
    pub(crate) fn new(slots: Vec<Arc<Mutex<Transport>>>, ports: Ports) -> Self {
        let interrupts = slots.iter().map(|device| lock(device).interrupts().clone()).collect();
        Self { slots, interrupts, ports: Mutex::new(ports) }
    }

    pub(crate) fn ports(&self) -> MutexGuard<'_, Ports> {
        lock(&self.ports)
    }

    pub(crate) fn read(&self, address: u64, data: &mut [u8]) {
        match self.device(address) {
            Some((slot, offset)) => {
                if !self.interrupts[slot].read(offset, data) {
                    lock(&self.slots[slot]).read(offset, data);
                }
            }
            None => data.fill(0xff),
        }
    }

    pub(crate) fn write(&self, address: u64, data: &[u8]) {
        if let Some((slot, offset)) = self.device(address)
            && !self.interrupts[slot].write(offset, data)
        {
            lock(&self.slots[slot]).write(offset, data);
        }
    }

    pub(crate) fn read_port(&self, port: u16, data: &mut [u8]) {
        self.ports().read(port, data);
    }

    pub(crate) fn write_port(&self, port: u16, data: &[u8]) -> PortWrite {
        self.ports().write(port, data)
    }

    fn device(&self, address: u64) -> Option<(usize, u64)> {
        layout::device_at(address).filter(|(slot, _)| *slot < self.slots.len())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::devices::Entropy;
    use crate::memory::GuestRam;

    /// A worker holds its device's lock while a disk keeps it waiting; an interrupt that it has raised before must not.
    #[test]
    fn a_vcpu_handles_an_interrupt_while_the_device_is_at_work() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(1 << 20).unwrap();
        let device = Transport::new(Box::new(Entropy), Arc::new(GuestRam::shared(file, 1).unwrap())).unwrap();
        let bus = Bus::new(vec![Arc::new(Mutex::new(device))], Ports::new().unwrap());
        let mut record = lock(&bus.slots[0]).save();
        record.interrupt_status = 3;
        assert!(lock(&bus.slots[0]).load(&record));
        let at_work = lock(&bus.slots[0]);
        let (status, acknowledge) = (layout::device_address(0) + 0x60, layout::device_address(0) + 0x64);
        let mut word = [0xff; 4];
        bus.read(status, &mut word);
        assert_eq!(word, [3, 0, 0, 0]);
        bus.write(acknowledge, &[1, 0, 0, 0]);
        bus.read(status, &mut word);
        assert_eq!((word, at_work.save().interrupt_status), ([2, 0, 0, 0], 2));
    }

    #[test]
    fn registers_of_no_device_read_as_ones() {
        let bus = Bus::new(vec![], Ports::new().unwrap());
        let mut word = [0; 4];
        bus.read(layout::device_address(0) + 0x60, &mut word);
        assert_eq!(word, [0xff; 4]);
    }
}
