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
                push(list, slice.map_err(|_| Fault::Chain)?);
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
            push(&mut self.writable, rest);
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

/// A piece of nothing is no piece: libraries take a list of them for one of something.
fn push<'a>(list: &mut Vec<VolatileSlice<'a>>, slice: VolatileSlice<'a>) {
    if !slice.is_empty() {
        list.push(slice);
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::testing::{DESCRIPTORS, Ring, memory};
    use super::*;
    use proptest::prelude::*;
    use virtio_queue::QueueOwnedT;
    use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryRegion};

    const RAM: u64 = 1 << 20;

    /// Descriptors in and around memory, with flags (next, write, indirect) and successors of any kind.
    fn descriptor() -> impl Strategy<Value = (u64, u32, u16, u16)> {
        let address = prop_oneof![0x4000..RAM, RAM - 64..RAM + 64, Just(0x1000), Just(0x2000), any::<u64>(), u64::MAX - 64..=u64::MAX];
        let length = prop_oneof![0u32..64, 0u32..0x8000, any::<u32>()];
        (address, length, 0u16..8, prop_oneof![0u16..10, any::<u16>()])
    }

    /// Whatever a chain is made of: each piece lies in guest memory, and all of them are bounded. Says whether the chain was accepted.
    fn lies_in_memory(memory: &GuestMemory, ring: &mut Ring<'_>, head: u16) -> bool {
        ring.offer(head);
        let chain = ring.queue.iter(memory).unwrap().next().unwrap();
        let Ok(segments) = Segments::of(memory, chain) else { return false };
        assert!(segments.readable_bytes() + segments.writable_bytes() <= MAX_BYTES);
        for piece in segments.readable().iter().chain(segments.writable()) {
            let start = piece.ptr_guard().as_ptr() as usize;
            let holds = |from: usize, length: usize| from <= start && start + piece.len() <= from + length;
            assert!(memory.iter().any(|region| holds(region.get_mmap().as_ptr() as usize, region.len() as usize)));
        }
        true
    }

    /// All of them, not some: two descriptors at each edge of a memory with a hole, on their own table and at the end of the address space, with each
    /// combination of flags and each successor. They are chains, circles, and tables within each other.
    #[test]
    fn pieces_of_every_chain_of_two_lie_in_memory() {
        const BEYOND: u64 = 2 * RAM;
        let memory = GuestMemory::from_ranges(&[(GuestAddress(0), RAM as usize), (GuestAddress(BEYOND), RAM as usize)]).unwrap();
        let addresses = [DESCRIPTORS, DESCRIPTORS + 16, RAM - 64, RAM - 1, RAM, BEYOND - 1, BEYOND, u64::MAX - 63, u64::MAX];
        let lengths = [0, 1, 16, 32, 64, 65, u32::MAX];
        let choices = addresses.len() * lengths.len() * 8 * 3;
        let descriptor = |choice: usize| {
            let (flags, choice) = (choice % 8, choice / 8);
            let (next, choice) = (choice % 3, choice / 3);
            (addresses[choice % addresses.len()], lengths[choice / addresses.len()], flags as u16, next as u16)
        };
        let mut accepted = 0;
        for (first, second) in (0..choices).flat_map(|first| (0..choices).map(move |second| (first, second))) {
            let mut ring = Ring::new(&memory, 2);
            for (index, choice) in [(0, first), (1, second)] {
                let (address, length, flags, next) = descriptor(choice);
                ring.descriptor(index, address, length, flags, next);
            }
            accepted += usize::from(lies_in_memory(&memory, &mut ring, 0));
        }
        let refused = choices * choices - accepted;
        assert!(accepted > choices && refused > choices, "{accepted} were accepted, {refused} refused: both kinds are to be met");
    }

    proptest! {
        #[test]
        fn pieces_of_any_chain_lie_in_memory(descriptors in proptest::collection::vec(descriptor(), 8), head in 0u16..8) {
            let memory = memory();
            let mut ring = Ring::new(&memory, 8);
            for (index, (address, length, flags, next)) in (0u16..).zip(&descriptors) {
                ring.descriptor(index, *address, *length, *flags, *next);
            }
            lies_in_memory(&memory, &mut ring, head);
        }

        /// However a header and a status are cut into pieces: the bytes are those that the guest put there, and the status is the last of all.
        #[test]
        fn what_is_taken_is_what_the_guest_wrote(cuts in proptest::collection::vec(1u32..9, 1..7), data in 0u32..64) {
            let memory = memory();
            let mut ring = Ring::new(&memory, 16);
            let bytes: Vec<u8> = (0..64).collect();
            vm_memory::Bytes::write_slice(&memory, &bytes, vm_memory::GuestAddress(0x4000)).unwrap();
            let (mut pieces, mut at) = (Vec::new(), 0x4000);
            for cut in &cuts {
                pieces.push((at, *cut, false));
                at += u64::from(*cut);
            }
            pieces.extend([(0x5000, data, true), (0x6000, 1, true)]);
            ring.add(&pieces);
            let chain = ring.queue.iter(&memory).unwrap().next().unwrap();
            let mut segments = Segments::of(&memory, chain).unwrap();
            let length: u32 = cuts.iter().sum();
            match segments.read_array::<16>() {
                Ok(header) => prop_assert_eq!(&header[..], &bytes[..16]),
                Err(_) => prop_assert!(length < 16),
            }
            prop_assert_eq!(segments.readable_bytes(), if length < 16 { length } else { length - 16 } as usize);
            segments.take_last().unwrap().copy_from(&[0xaau8]);
            prop_assert_eq!(ring.bytes(0x6000, 1), [0xaa]);
            prop_assert_eq!(segments.writable_bytes(), data as usize);
            prop_assert_eq!(segments.write(&[7; 100]), data as usize);
        }
    }
}
