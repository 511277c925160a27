//! Where a vCPU's accesses outside RAM go: the registers of devices, and ports.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::legacy::{PortWrite, Ports};
use super::virtio::Transport;
use crate::arch::layout;

/// Every device of a machine, in the order of their slots.
pub(crate) struct Bus {
    pub slots: Vec<Arc<Mutex<Transport>>>,
    ports: Mutex<Ports>,
}

/// A thread that panicked with a device locked took the machine with it: there is nobody left to see the device half done.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Bus {
    pub(crate) fn new(slots: Vec<Arc<Mutex<Transport>>>, ports: Ports) -> Self {
        Self { slots, ports: Mutex::new(ports) }
    }

    pub(crate) fn ports(&self) -> MutexGuard<'_, Ports> {
        lock(&self.ports)
    }

    pub(crate) fn read(&self, address: u64, data: &mut [u8]) {
        match self.device(address) {
            Some((device, offset)) => lock(device).read(offset, data),
            None => data.fill(0xff),
        }
    }

    pub(crate) fn write(&self, address: u64, data: &[u8]) {
        if let Some((device, offset)) = self.device(address) {
            lock(device).write(offset, data);
        }
    }

    pub(crate) fn read_port(&self, port: u16, data: &mut [u8]) {
        self.ports().read(port, data);
    }

    pub(crate) fn write_port(&self, port: u16, data: &[u8]) -> PortWrite {
        self.ports().write(port, data)
    }

    fn device(&self, address: u64) -> Option<(&Mutex<Transport>, u64)> {
        let (slot, offset) = layout::device_at(address)?;
        Some((self.slots.get(slot)?, offset))
    }
}
