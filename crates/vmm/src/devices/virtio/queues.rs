//! The queues of one device while it works, and the loop that most devices serve them with.

use std::time::{Duration, Instant};

use virtio_queue::{Queue, QueueOwnedT, QueueT};

use super::{Fault, Segments, Served};
use crate::memory::GuestRam;

/// Chains served before a device gives way: a driver that rings without end holds up neither a pause nor its neighbours on the thread.
const BUDGET: usize = 256;
/// As long as a device works before it gives way, however few its chains: one may move 128 MiB, or clear ranges that are gigabytes.
pub(crate) const TURN: Duration = Duration::from_millis(20);

/// What a device may touch while it works.
pub(crate) struct Queues<'a> {
    pub queues: &'a mut [Queue],
    pub ram: &'a GuestRam,
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
    let mut left = BUDGET;
    let began = Instant::now();
    loop {
        queue.disable_notification(memory)?;
        while left > 0 && (left == BUDGET || began.elapsed() < TURN) {
            let Some(chain) = queue.iter(memory)?.next() else { break };
            let head = chain.head_index();
            let written = answer(Segments::of(memory, chain)?, queues.ram)?;
            queue.add_used(memory, head, written)?;
            left -= 1;
        }
        served.more = left == 0 || began.elapsed() >= TURN;
        if served.more || !queue.enable_notification(memory)? {
            break;
        }
    }
    if left < BUDGET {
        served.interrupt = queue.needs_notification(memory)?;
    }
    Ok(served)
}
