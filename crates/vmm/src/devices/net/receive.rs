//! Frames from the host into buffers of the guest.

use virtio_queue::{DescriptorChain, Queue, QueueOwnedT, QueueT};
use vm_memory::Bytes;

use super::tap::{HEADER, MAX_FRAME, Tap};
use crate::devices::virtio::{Fault, Segments, Served, add_used_together, wants_interrupt};
use crate::memory::GuestMemory;

/// Frames taken from the host before others get their turn.
const BUDGET: usize = 256;
/// Where the header says over how many buffers a frame is spread.
const BUFFERS_AT: usize = 10;

/// The way in, with the frame that waits for a buffer.
pub(super) struct Receiver {
    buffer: Box<[u8]>,
    waiting: Option<usize>,
    used: Vec<(u16, u32)>,
}

impl Receiver {
    pub(super) fn new() -> Self {
        Self { buffer: vec![0; MAX_FRAME].into_boxed_slice(), waiting: None, used: Vec::new() }
    }

    /// Forgets what waits: the network loses packets.
    pub(super) fn reset(&mut self) {
        self.waiting = None;
    }

    /// Moves frames until the host has none, the guest has no buffers, or it is others' turn.
    pub(super) fn serve(&mut self, tap: &mut Tap, queue: &mut Queue, memory: &GuestMemory, merge: bool) -> Result<Served, Fault> {
        let mut served = Served::default();
        let (before, mut tries) = (queue.next_used(), 0);
        loop {
            if tries == BUDGET {
                served.more = true;
                break;
            }
            let length = match self.waiting.take() {
                Some(length) => length,
                None => match tap.receive(&mut self.buffer).map_err(Fault::Host)? {
                    Some(length) => length,
                    None => break,
                },
            };
            tries += 1;
            match place(&mut self.buffer[..length], queue, memory, merge, &mut self.used)? {
                Placed::Done => {}
                Placed::Again => self.waiting = Some(length),
                Placed::NoBuffers => {
                    self.waiting = Some(length);
                    break;
                }
            }
        }
        served.interrupt = wants_interrupt(queue, memory, before)?;
        Ok(served)
    }
}

enum Placed {
    Done,
    /// There are too few. The driver has been asked to ring when it has added some.
    NoBuffers,
    /// There were too few, and the driver has just added some.
    Again,
}

/// Puts one frame into as many buffers as it takes, and gives all of them back, or none: `used` is scratch.
fn place(frame: &mut [u8], queue: &mut Queue, memory: &GuestMemory, merge: bool, used: &mut Vec<(u16, u32)>) -> Result<Placed, Fault> {
    if frame.len() < HEADER {
        return Ok(Placed::Done);
    }
    let next = queue.next_avail();
    used.clear();
    // The first buffer, for the header is complete only when all are known. What is written into buffers that are not given back is nobody's.
    let mut first = None;
    let mut done = 0;
    while done < frame.len() && (merge || first.is_none()) {
        let Some(chain) = queue.iter(memory)?.next() else {
            // A bell for the next buffer beyond those that do not suffice. They are still there: that the ring is not empty says nothing.
            let added = queue.enable_notification(memory)?;
            queue.set_next_avail(next);
            return Ok(if added { Placed::Again } else { Placed::NoBuffers });
        };
        // A driver whose buffers hold nothing would be asked for ever.
        if used.len() == usize::from(queue.size()) {
            return Err(Fault::NoRoom);
        }
        let head = chain.head_index();
        let written = match first {
            None => first.insert(Segments::of(memory, chain)?).write(frame),
            Some(_) => fill(memory, chain, &frame[done..])?,
        };
        used.push((head, u32::try_from(written).map_err(|_| Fault::NoRoom)?));
        done += written;
    }
    if done < frame.len() {
        return Err(Fault::NoRoom);
    }
    let count = u16::try_from(used.len()).map_err(|_| Fault::NoRoom)?;
    frame[BUFFERS_AT..HEADER].copy_from_slice(&count.to_le_bytes());
    if let Some(first) = first {
        first.write(&frame[..HEADER]);
    }
    add_used_together(queue, memory, used)?;
    Ok(Placed::Done)
}

/// Copies as much of `bytes` as fits into what the chain lets be written. Without a list of its pieces: a large frame takes dozens of chains.
fn fill<'a>(memory: &'a GuestMemory, chain: DescriptorChain<&'a GuestMemory>, bytes: &[u8]) -> Result<usize, Fault> {
    let mut done = 0;
    for descriptor in chain.writable() {
        let length = (bytes.len() - done).min(descriptor.len() as usize);
        if length == 0 {
            continue;
        }
        memory.write_slice(&bytes[done..done + length], descriptor.addr()).map_err(|_| Fault::Chain)?;
        done += length;
        if done == bytes.len() {
            break;
        }
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::devices::virtio::testing::{Ring, memory};

    #[test]
    fn a_frame_is_spread_over_buffers_and_says_how_many() {
        let memory = memory();
        let mut ring = Ring::new(&memory, 8);
        for at in [0x4000, 0x5000, 0x6000] {
            ring.add(&[(at, 20, true)]);
        }
        let mut frame: Vec<u8> = (0..50).collect();
        assert!(matches!(place(&mut frame, &mut ring.queue, &memory, true, &mut Vec::new()).unwrap(), Placed::Done));
        assert_eq!(ring.used(), [(0, 20), (1, 20), (2, 10)]);
        assert_eq!(ring.bytes(0x4000, 20)[10..12], [3, 0]);
        assert_eq!(ring.bytes(0x6000, 10), (40..50).collect::<Vec<u8>>());
    }

    #[test]
    fn without_enough_buffers_none_is_used() {
        let memory = memory();
        let mut ring = Ring::new(&memory, 8);
        ring.add(&[(0x4000, 20, true)]);
        let mut frame = vec![0; 30];
        assert!(matches!(place(&mut frame, &mut ring.queue, &memory, true, &mut Vec::new()).unwrap(), Placed::NoBuffers));
        assert!(ring.used().is_empty());
        ring.add(&[(0x5000, 20, true)]);
        assert!(matches!(place(&mut frame, &mut ring.queue, &memory, true, &mut Vec::new()).unwrap(), Placed::Done));
        assert_eq!(ring.used(), [(0, 20), (1, 10)]);
    }

    /// A driver that meets the first piece of a frame without the others takes it for broken.
    #[test]
    fn the_pieces_of_a_frame_are_given_back_together() {
        let memory = memory();
        let mut ring = Ring::new(&memory, 8);
        ring.queue.set_next_used(65_534);
        for at in [0x4000, 0x5000, 0x6000] {
            ring.add(&[(at, 20, true)]);
        }
        let chains = [(0, 20), (1, 20), (2, 10)];
        assert!(matches!(add_used_together(&mut ring.queue, &memory, &[(0, 20), (8, 20)]), Err(Fault::Chain)));
        assert_eq!((ring.queue.next_used(), ring.used().len()), (65_534, 0), "a head that is none: nothing is given back");
        add_used_together(&mut ring.queue, &memory, &chains).unwrap();
        assert_eq!(ring.queue.next_used(), 1);
        assert!(wants_interrupt(&ring.queue, &memory, 65_534).unwrap() && !wants_interrupt(&ring.queue, &memory, 1).unwrap());
        ring.queue.set_event_idx(true);
        // The driver's wish is behind the available ring's entries: nothing of what has just been given back, then the last of it.
        for (event, wanted) in [(1u16, false), (65_533, false), (65_534, true), (0, true)] {
            memory.write_obj(event, vm_memory::GuestAddress(ring.queue.avail_ring() + 4 + 16)).unwrap();
            assert_eq!(wants_interrupt(&ring.queue, &memory, 65_534).unwrap(), wanted, "{event}");
        }
    }

    /// Found by the malicious guest: the buffers that are there were taken for new ones, without end.
    #[test]
    fn a_frame_waits_for_enough_buffers_without_turning_round() {
        let memory = memory();
        let (ours, theirs) = std::os::unix::net::UnixDatagram::pair().unwrap();
        let mut tap = Tap::new(theirs.into(), false).unwrap();
        ours.send(&[1; 50]).unwrap();
        for event_index in [false, true] {
            let mut ring = Ring::new(&memory, 8);
            ring.queue.set_event_idx(event_index);
            ring.add(&[(0x4000, 20, true)]);
            let mut receiver = Receiver::new();
            ours.send(&[1; 50]).unwrap();
            assert_eq!(receiver.serve(&mut tap, &mut ring.queue, &memory, true).unwrap(), Served::default());
            assert!(receiver.waiting.is_some() && ring.used().is_empty());
            ring.add(&[(0x5000, 40, true)]);
            assert!(receiver.serve(&mut tap, &mut ring.queue, &memory, true).unwrap().interrupt || event_index);
            assert_eq!(ring.used()[..2], [(0, 20), (1, 30)]);
            memory.write_slice(&[0; 0x3000], vm_memory::GuestAddress(0x1000)).unwrap();
        }
    }

    #[test]
    fn buffers_without_room_are_a_fault_and_not_a_loop() {
        let memory = memory();
        let mut ring = Ring::new(&memory, 8);
        for _ in 0..8 {
            ring.add(&[(0x4000, 16, false)]);
        }
        let mut frame = vec![0; 30];
        assert!(matches!(place(&mut frame, &mut ring.queue, &memory, true, &mut Vec::new()), Ok(Placed::NoBuffers) | Err(Fault::NoRoom)));
        let mut ring = Ring::new(&memory, 8);
        ring.add(&[(0x4000, 16, true)]);
        assert!(matches!(place(&mut frame, &mut ring.queue, &memory, false, &mut Vec::new()), Err(Fault::NoRoom)));
    }
}
