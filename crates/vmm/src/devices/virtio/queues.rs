//! The queues of one device while it works, and the loop that most devices serve them with.

use std::time::{Duration, Instant};

use std::sync::atomic::{Ordering, fence};

use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::EventFd;

use super::{Fault, Segments, Served};
use crate::memory::{GuestMemory, GuestRam};

/// Chains served before a device gives way: a driver that rings without end holds up neither a pause nor its neighbours on the thread.
const BUDGET: usize = 256;
/// As long as a device works before it gives way, however few its chains: one may move 128 MiB, or clear ranges that are gigabytes.
pub(crate) const TURN: Duration = Duration::from_millis(20);

/// What a device may touch while it works.
pub(crate) struct Queues<'a> {
    pub queues: &'a mut [Queue],
    pub ram: &'a GuestRam,
    /// One a queue: for a device that waits for its host while it works, and goes on when the driver has more.
    pub bells: &'a [EventFd],
    /// Tells the driver of what it has been given back while the device goes on working. At the end of a turn [`Served`] does.
    pub tell: &'a dyn Fn(),
}

/// How much a device works before it gives way.
pub(crate) struct Turn {
    left: usize,
    began: Instant,
}

impl Turn {
    pub(crate) fn begin() -> Self {
        Self { left: BUDGET, began: Instant::now() }
    }

    /// One chain is taken.
    pub(crate) fn count(&mut self) {
        self.left = self.left.saturating_sub(1);
    }

    pub(crate) fn has_begun(&self) -> bool {
        self.left < BUDGET
    }

    /// Whatever the clock says, one chain is taken.
    pub(crate) fn is_over(&self) -> bool {
        self.left == 0 || self.has_begun() && self.began.elapsed() >= TURN
    }
}

/// Within the rings (virtio 1.2, 2.7): where the used ring's index and its elements are, and where in the available ring the entries begin.
const USED_INDEX: u64 = 2;
const USED_ELEMENTS: u64 = 4;
const USED_ELEMENT_BYTES: u64 = 8;
const AVAILABLE_ENTRIES: u64 = 4;

/// Gives chains back, each by its head with the bytes written into it. The driver sees all of them at once or none, as it must with the pieces of a frame
/// (5.1.6.4.1): a driver that looks between two of them takes the frame for a broken one.
pub(crate) fn add_used_together(queue: &mut Queue, memory: &GuestMemory, chains: &[(u16, u32)]) -> Result<(), Fault> {
    let (ring, mut index) = (queue.used_ring(), queue.next_used());
    for (head, written) in chains {
        if *head >= queue.size() {
            return Err(Fault::Chain);
        }
        let at = USED_ELEMENTS + u64::from(index % queue.size()) * USED_ELEMENT_BYTES;
        let address = GuestAddress(ring.checked_add(at).ok_or(Fault::Chain)?);
        // Head, then length, of 32 bits each.
        let element = u64::from(*head) | u64::from(*written) << 32;
        memory.write_obj(element.to_le(), address).map_err(|_| Fault::Chain)?;
        index = index.wrapping_add(1);
    }
    queue.set_next_used(index);
    let address = GuestAddress(ring.checked_add(USED_INDEX).ok_or(Fault::Chain)?);
    memory.store(index.to_le(), address, Ordering::Release).map_err(|_| Fault::Chain)
}

/// Whether the driver wants to be told of what [`add_used_together`] has given back since the queue's next used index was `before`.
pub(crate) fn wants_interrupt(queue: &Queue, memory: &GuestMemory, before: u16) -> Result<bool, Fault> {
    let now = queue.next_used();
    if !queue.event_idx_enabled() {
        return Ok(now != before);
    }
    // What has been given back is visible before the driver's wish is read: else both could miss the other.
    fence(Ordering::SeqCst);
    let at = AVAILABLE_ENTRIES + 2 * u64::from(queue.size());
    let address = GuestAddress(queue.avail_ring().checked_add(at).ok_or(Fault::Chain)?);
    let event: u16 = memory.load(address, Ordering::Relaxed).map_err(|_| Fault::Chain)?;
    Ok(now.wrapping_sub(u16::from_le(event)).wrapping_sub(1) < now.wrapping_sub(before))
}

/// Hands each chain that waits in queue `index` to `answer`, which returns how many bytes it wrote into it.
pub(crate) fn serve_chains(
    queues: &mut Queues<'_>,
    index: usize,
    mut answer: impl FnMut(Segments<'_>, &GuestRam) -> Result<u32, Fault>,
) -> Result<Served, Fault> {
    let memory = queues.ram.memory();
    let Some(queue) = queues.queues.get_mut(index).filter(|queue| queue.ready()) else { return Ok(Served::default()) };
    let mut served = Served::default();
    let mut turn = Turn::begin();
    loop {
        queue.disable_notification(memory)?;
        while !turn.is_over() {
            let Some(chain) = queue.iter(memory)?.next() else { break };
            let head = chain.head_index();
            let written = answer(Segments::of(memory, chain)?, queues.ram)?;
            queue.add_used(memory, head, written)?;
            turn.count();
        }
        served.more = turn.is_over();
        if served.more || !queue.enable_notification(memory)? {
            break;
        }
    }
    if turn.has_begun() {
        served.interrupt = queue.needs_notification(memory)?;
    }
    Ok(served)
}
