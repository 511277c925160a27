//! The generator as the guest sees it.

use std::io;

use virtio_bindings::virtio_ids::VIRTIO_ID_RNG;

use crate::devices::virtio::{DeviceRecord, Fault, Queues, Served, VirtioDevice, Wake, serve_chains};
use crate::random;

const QUEUE: [u16; 1] = [64];
/// Bytes for one request; a driver asks for a cache line to a page.
const MAX_BYTES: usize = 4096;

/// The random number generator.
pub(crate) struct Entropy;

impl VirtioDevice for Entropy {
    fn kind(&self) -> u32 {
        VIRTIO_ID_RNG
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> &'static [u16] {
        &QUEUE
    }

    fn config(&self) -> &[u8] {
        &[]
    }

    fn start(&mut self, _features: u64) -> io::Result<()> {
        Ok(())
    }

    fn stop(&mut self) {}

    fn serve(&mut self, _wake: Wake, queues: &mut Queues<'_>) -> Result<Served, Fault> {
        let mut bytes = [0; MAX_BYTES];
        serve_chains(queues, 0, |segments, _| {
            let wanted = segments.writable_bytes().min(MAX_BYTES);
            random::fill(&mut bytes[..wanted]).map_err(Fault::Host)?;
            Ok(u32::try_from(segments.write(&bytes[..wanted])).unwrap_or(0))
        })
    }

    fn save(&self) -> DeviceRecord {
        DeviceRecord::Entropy
    }

    fn load(&mut self, record: &DeviceRecord) -> bool {
        *record == DeviceRecord::Entropy
    }
}
