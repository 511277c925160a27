//! A disk as the guest sees it.

use std::io;

use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_RO, VIRTIO_BLK_F_SEG_MAX, VIRTIO_BLK_F_WRITE_ZEROES,
};
use virtio_bindings::virtio_ids::VIRTIO_ID_BLOCK;

use super::disk::Disk;
use super::request::{self, Request};
use super::ring::Ring;
use super::together;
use crate::devices::virtio::{DeviceRecord, Fault, Queues, Served, VirtioDevice, Wake, serve_chains};

const QUEUE: [u16; 1] = [256];
const CONFIG_BYTES: usize = 60;

/// One disk.
pub(crate) struct Block {
    disk: Disk,
    ring: Option<Ring>,
    config: [u8; CONFIG_BYTES],
}

impl Block {
    pub(crate) fn new(disk: Disk) -> Self {
        let mut config = [0; CONFIG_BYTES];
        config[0..8].copy_from_slice(&disk.sectors().to_le_bytes());
        config[12..16].copy_from_slice(&request::MAX_PIECES.to_le_bytes());
        let (sectors, ranges) = (request::MAX_RANGE_SECTORS.to_le_bytes(), (request::MAX_RANGES as u32).to_le_bytes());
        // Discards, then zeroes: sectors, ranges; between them the alignment of a discard, 4 KiB.
        config[36..40].copy_from_slice(&sectors);
        config[40..44].copy_from_slice(&ranges);
        config[44..48].copy_from_slice(&8u32.to_le_bytes());
        config[48..52].copy_from_slice(&sectors);
        config[52..56].copy_from_slice(&ranges);
        Self { disk, ring: None, config }
    }

    /// From here on reads that come together are under way together.
    pub(crate) fn read_by(&mut self, ring: Ring) -> io::Result<()> {
        ring.enable(self.disk.descriptors())?;
        self.ring = Some(ring);
        Ok(())
    }
}

impl VirtioDevice for Block {
    fn kind(&self) -> u32 {
        VIRTIO_ID_BLOCK
    }

    fn features(&self) -> u64 {
        let common = 1 << VIRTIO_BLK_F_SEG_MAX | 1 << VIRTIO_BLK_F_FLUSH;
        match self.disk.read_only {
            true => common | 1 << VIRTIO_BLK_F_RO,
            false => common | 1 << VIRTIO_BLK_F_DISCARD | 1 << VIRTIO_BLK_F_WRITE_ZEROES,
        }
    }

    fn queue_sizes(&self) -> &'static [u16] {
        &QUEUE
    }

    fn config(&self) -> &[u8] {
        &self.config
    }

    fn start(&mut self, _features: u64) -> io::Result<()> {
        Ok(())
    }

    fn stop(&mut self) {}

    fn serve(&mut self, _wake: Wake, queues: &mut Queues<'_>) -> Result<Served, Fault> {
        match &mut self.ring {
            Some(ring) => together::serve(&mut self.disk, ring, queues),
            None => serve_chains(queues, 0, |segments, _| Ok(Request::of(segments)?.serve(&mut self.disk))),
        }
    }

    fn settle(&mut self) -> io::Result<()> {
        self.disk.flush()
    }

    fn save(&self) -> DeviceRecord {
        DeviceRecord::Block { serial: self.disk.serial.clone(), sectors: self.disk.sectors(), read_only: self.disk.read_only }
    }

    fn load(&mut self, record: &DeviceRecord) -> bool {
        *record == self.save()
    }
}
