//! The balloon as the guest sees it (virtio 1.2, 5.5).

use std::io;

use virtio_bindings::virtio_ids::VIRTIO_ID_BALLOON;
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryRegion};

use super::BalloonRecord;
use crate::devices::virtio::{DeviceRecord, Fault, Queues, Segments, Served, VirtioDevice, Wake, serve_chains};
use crate::memory::GuestRam;

/// Feature bits, which the bindings lack.
const DEFLATE_ON_OOM: u32 = 2;
const REPORTING: u32 = 5;
const QUEUES: [u16; 3] = [128, 128, 32];
const INFLATE: usize = 0;
/// After the two of the balloon; queues of features that are not offered do not count.
const REPORT: usize = 2;
const PAGE_SHIFT: u32 = 12;
const ACTUAL_AT: u64 = 4;
/// The driver sends at most this many page numbers at once.
const MAX_NUMBERS: usize = 1024;

/// The balloon.
pub(crate) struct Balloon {
    /// Pages wanted, pages given: the configuration space.
    config: [u8; 8],
}

impl Balloon {
    pub(crate) fn new() -> Self {
        Self { config: [0; 8] }
    }

    fn half(&self, at: usize) -> u32 {
        let mut word = [0; 4];
        word.copy_from_slice(&self.config[at..at + 4]);
        u32::from_le_bytes(word)
    }

    fn record(&self) -> BalloonRecord {
        BalloonRecord { wanted: self.half(0), actual: self.half(4) }
    }
}

impl VirtioDevice for Balloon {
    fn kind(&self) -> u32 {
        VIRTIO_ID_BALLOON
    }

    fn features(&self) -> u64 {
        1 << DEFLATE_ON_OOM | 1 << REPORTING
    }

    fn queue_sizes(&self) -> &'static [u16] {
        &QUEUES
    }

    fn config(&self) -> &[u8] {
        &self.config
    }

    fn write_config(&mut self, offset: u64, data: &[u8]) {
        if offset == ACTUAL_AT && data.len() == 4 {
            self.config[4..].copy_from_slice(data);
        }
    }

    fn start(&mut self, _features: u64) -> io::Result<()> {
        Ok(())
    }

    fn stop(&mut self) {
        self.config[4..].fill(0);
    }

    fn serve(&mut self, wake: Wake, queues: &mut Queues<'_>) -> Result<Served, Fault> {
        match wake {
            Wake::Queue(INFLATE) => serve_chains(queues, INFLATE, inflate),
            Wake::Queue(REPORT) => serve_chains(queues, REPORT, report),
            // A page that the guest takes back comes with its next access.
            Wake::Queue(index) => serve_chains(queues, index, |_, _| Ok(0)),
            Wake::Host => Ok(Served::default()),
        }
    }

    fn save(&self) -> DeviceRecord {
        DeviceRecord::Balloon(self.record())
    }

    fn load(&mut self, record: &DeviceRecord) -> bool {
        let DeviceRecord::Balloon(record) = record else { return false };
        self.config[..4].copy_from_slice(&record.wanted.to_le_bytes());
        self.config[4..].copy_from_slice(&record.actual.to_le_bytes());
        true
    }

    fn ask_for_pages(&mut self, pages: u32) -> bool {
        self.config[..4].copy_from_slice(&pages.to_le_bytes());
        true
    }
}

/// Page numbers. One that is no page of RAM is passed over: the guest has only cheated itself.
fn inflate(segments: Segments<'_>, ram: &GuestRam) -> Result<u32, Fault> {
    let bytes = segments.readable_bytes();
    if !bytes.is_multiple_of(4) || bytes > MAX_NUMBERS * 4 {
        return Err(Fault::Chain);
    }
    let mut numbers = vec![0; bytes];
    let mut done = 0;
    for piece in segments.readable() {
        done += piece.copy_to(&mut numbers[done..]);
    }
    for number in numbers.as_chunks::<4>().0 {
        let _ = ram.discard(GuestAddress(u64::from(u32::from_le_bytes(*number)) << PAGE_SHIFT), 1 << PAGE_SHIFT);
    }
    Ok(0)
}

/// Free ranges: the descriptors themselves are the message.
fn report(segments: Segments<'_>, ram: &GuestRam) -> Result<u32, Fault> {
    for piece in segments.writable() {
        let address = piece.ptr_guard().as_ptr() as usize;
        if let Some(start) = guest_address(ram, address) {
            let _ = ram.discard(start, piece.len() as u64);
        }
    }
    Ok(0)
}

/// Where in the guest's memory an address of this process lies.
fn guest_address(ram: &GuestRam, address: usize) -> Option<GuestAddress> {
    ram.memory().iter().find_map(|region| {
        let offset = address.checked_sub(region.get_mmap().as_ptr() as usize)? as u64;
        (offset < region.len()).then(|| GuestAddress(region.start_addr().0 + offset))
    })
}
