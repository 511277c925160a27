//! A chain of descriptors as pieces of guest memory: checked once, here, for every device.

use virtio_queue::DescriptorChain;
use vm_memory::{GuestMemory as _, Permissions, VolatileSlice};

use super::Fault;
use crate::memory::GuestMemory;

/// As much as any driver sends at once, which is a balloon's full report: 32 free ranges of 4 MiB. Keeps the work of one chain bounded, for descriptors may name
/// the same memory again and again.
const MAX_BYTES: usize = 128 << 20;
/// As much as the largest indirect table of an honest driver.
const MAX_PIECES: usize = 4096;

/// What the device may read, then what it may write.
pub(crate) struct Segments<'a> {
    readable: Vec<VolatileSlice<'a>>,
    writable: Vec<VolatileSlice<'a>>,
}

impl<'a> Segments<'a> {
    pub(crate) fn of(memory: &'a GuestMemory, chain: DescriptorChain<&'a GuestMemory>) -> Result<Self, Fault> {
        let mut this = Self { readable: Vec::new(), writable: Vec::new() };
        let (mut bytes, mut pieces) = (0usize, 0);
        for descriptor in chain {
            let length = descriptor.len() as usize;
            bytes = bytes.saturating_add(length);
            let (list, access) = match descriptor.is_write_only() {
                true => (&mut this.writable, Permissions::Write),
                false => (&mut this.readable, Permissions::Read),
            };
            for slice in memory.get_slices(descriptor.addr(), length, access).map_err(|_| Fault::Chain)? {
                list.push(slice.map_err(|_| Fault::Chain)?);
                pieces += 1;
            }
            if bytes > MAX_BYTES || pieces > MAX_PIECES {
                return Err(Fault::Chain);
            }
        }
        Ok(this)
    }

    pub(crate) fn readable(&self) -> &[VolatileSlice<'a>] {
        &self.readable
    }

    pub(crate) fn writable(&self) -> &[VolatileSlice<'a>] {
        &self.writable
    }

    pub(crate) fn readable_bytes(&self) -> usize {
        total(&self.readable)
    }

    pub(crate) fn writable_bytes(&self) -> usize {
        total(&self.writable)
    }

    /// Takes `N` bytes from the front of what may be read.
    pub(crate) fn read_array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let mut bytes = [0; N];
        let mut done = 0;
        for piece in take_front(&mut self.readable, N).ok_or(Fault::NoRoom)? {
            done += piece.copy_to(&mut bytes[done..]);
        }
        Ok(bytes)
    }

    /// Takes the last byte of what may be written: where a device says how it went.
    pub(crate) fn take_last(&mut self) -> Result<VolatileSlice<'a>, Fault> {
        while let Some(last) = self.writable.pop() {
            let Some(rest) = last.len().checked_sub(1) else { continue };
            let (rest, status) = last.split_at(rest).map_err(|_| Fault::Chain)?;
            self.writable.push(rest);
            return Ok(status);
        }
        Err(Fault::NoRoom)
    }

    /// Copies `bytes` to the front of what may be written, as much as fits. Returns how much that is.
    pub(crate) fn write(&self, bytes: &[u8]) -> usize {
        let mut done = 0;
        for piece in &self.writable {
            let length = piece.len().min(bytes.len() - done);
            piece.copy_from(&bytes[done..done + length]);
            done += length;
        }
        done
    }
}

fn total(slices: &[VolatileSlice<'_>]) -> usize {
    slices.iter().map(VolatileSlice::len).sum()
}

fn take_front<'a>(slices: &mut Vec<VolatileSlice<'a>>, bytes: usize) -> Option<Vec<VolatileSlice<'a>>> {
    if total(slices) < bytes {
        return None;
    }
    let (mut taken, mut left) = (Vec::new(), bytes);
    while left > 0 {
        let first = slices.remove(0);
        let (front, rest) = first.split_at(first.len().min(left)).ok()?;
        left -= front.len();
        taken.push(front);
        if !rest.is_empty() {
            slices.insert(0, rest);
        }
    }
    Some(taken)
}
