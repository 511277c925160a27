//! A driver for tests: a ring in guest memory and the chains it is given, honest or not.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress};

use crate::memory::{GuestMemory, GuestRam};

pub(crate) const DESCRIPTORS: u64 = 0x1000;
pub(crate) const AVAILABLE: u64 = 0x2000;
const USED: u64 = 0x3000;
const NEXT: u16 = 1;
const WRITE: u16 = 2;

pub(crate) fn memory() -> GuestMemory {
    GuestMemory::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap()
}

pub(crate) fn ram() -> Arc<GuestRam> {
    let file = tempfile::tempfile().unwrap();
    file.set_len(1 << 20).unwrap();
    Arc::new(GuestRam::shared(file, 1).unwrap())
}

pub(crate) struct Ring<'a> {
    pub queue: Queue,
    memory: &'a GuestMemory,
    /// How far its tables are moved from where they usually are.
    moved: u64,
    descriptors: u16,
    chains: u16,
}

impl<'a> Ring<'a> {
    pub(crate) fn new(memory: &'a GuestMemory, size: u16) -> Self {
        Self::at(memory, size, 0)
    }

    /// Another one in the same memory, with its tables moved by so much.
    pub(crate) fn at(memory: &'a GuestMemory, size: u16, moved: u64) -> Self {
        let mut queue = Queue::new(size).unwrap();
        queue.set_size(size);
        queue.set_desc_table_address(Some((moved + DESCRIPTORS) as u32), Some(0));
        queue.set_avail_ring_address(Some((moved + AVAILABLE) as u32), Some(0));
        queue.set_used_ring_address(Some((moved + USED) as u32), Some(0));
        queue.set_ready(true);
        Self { queue, memory, moved, descriptors: 0, chains: 0 }
    }

    /// For a device of several queues, which has them side by side. What the device gives back is still seen here; nothing can be added any more.
    pub(crate) fn take_queue(&mut self) -> Queue {
        std::mem::replace(&mut self.queue, Queue::new(1).unwrap())
    }

    /// Adds a chain: address, length, whether the device may write.
    pub(crate) fn add(&mut self, pieces: &[(u64, u32, bool)]) {
        let head = self.descriptors;
        for (index, (address, length, write)) in pieces.iter().enumerate() {
            let more = if index + 1 < pieces.len() { NEXT } else { 0 };
            let flags = more | if *write { WRITE } else { 0 };
            self.descriptor(self.descriptors, *address, *length, flags, self.descriptors + 1);
            self.descriptors += 1;
        }
        self.offer(head);
    }

    pub(crate) fn descriptor(&self, index: u16, address: u64, length: u32, flags: u16, next: u16) {
        let at = self.moved + DESCRIPTORS + u64::from(index) * 16;
        self.memory.write_obj(address, GuestAddress(at)).unwrap();
        self.memory.write_obj(length, GuestAddress(at + 8)).unwrap();
        self.memory.write_obj(flags, GuestAddress(at + 12)).unwrap();
        self.memory.write_obj(next, GuestAddress(at + 14)).unwrap();
    }

    pub(crate) fn offer(&mut self, head: u16) {
        let slot = u64::from(self.chains % self.queue.size());
        self.memory.write_obj(head, GuestAddress(self.moved + AVAILABLE + 4 + slot * 2)).unwrap();
        self.chains += 1;
        self.set_available(self.chains);
    }

    pub(crate) fn set_available(&self, index: u16) {
        self.memory.write_obj(index, GuestAddress(self.moved + AVAILABLE + 2)).unwrap();
    }

    /// What the device has given back: head and bytes written.
    pub(crate) fn used(&self) -> Vec<(u32, u32)> {
        let count: u16 = self.memory.read_obj(GuestAddress(self.moved + USED + 2)).unwrap();
        let entry = |index: u16| {
            let at = self.moved + USED + 4 + u64::from(index) * 8;
            (self.memory.read_obj(GuestAddress(at)).unwrap(), self.memory.read_obj(GuestAddress(at + 4)).unwrap())
        };
        (0..count).map(entry).collect()
    }

    pub(crate) fn bytes(&self, at: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.memory.read_slice(&mut bytes, GuestAddress(at)).unwrap();
        bytes
    }
}
