//! One request of a driver (virtio 1.2, 5.2.6).

use std::io;

use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK, VIRTIO_BLK_S_UNSUPP, VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_GET_ID,
    VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_WRITE_ZEROES,
};
use vm_memory::VolatileSlice;

use super::disk::{Disk, Extent, SECTOR};
use crate::devices::virtio::{Fault, Segments};

/// Data pieces of one request, as the configuration says: the queue's entries but for header and status.
pub(super) const MAX_PIECES: u32 = 254;
/// Ranges that one discard may name, as the configuration says.
pub(super) const MAX_RANGES: usize = 16;
/// Sectors that one range may cover, as the configuration says: 1 GiB.
pub(super) const MAX_RANGE_SECTORS: u32 = 1 << 21;
const RANGE_BYTES: usize = 16;
const SERIAL_BYTES: usize = 20;

/// A request as it came: what it wants, and the memory it names.
pub(super) struct Request<'a> {
    kind: u32,
    sector: u64,
    segments: Segments<'a>,
    status: VolatileSlice<'a>,
}

impl<'a> Request<'a> {
    pub(super) fn of(mut segments: Segments<'a>) -> Result<Self, Fault> {
        let header: [u8; 16] = segments.read_array()?;
        let status = segments.take_last()?;
        Ok(Self { kind: number(&header[..4]) as u32, sector: number(&header[8..]), segments, status })
    }

    /// Carries it out and says in its last byte how it went. Returns the bytes written into guest memory.
    pub(super) fn serve(&self, disk: &mut Disk) -> u32 {
        self.answer(self.perform(disk))
    }

    /// Says of a read that was carried out elsewhere that it went well.
    pub(super) fn answer_read(&self) -> u32 {
        self.answer(Ok(self.segments.writable_bytes()))
    }

    /// Whether what the disk's files hold somewhere may be something else's afterwards.
    pub(super) fn gives_up_space(&self) -> bool {
        matches!(self.kind, VIRTIO_BLK_T_DISCARD | VIRTIO_BLK_T_WRITE_ZEROES)
    }

    /// What a read is read into.
    pub(super) fn writable(&self) -> &[VolatileSlice<'a>] {
        self.segments.writable()
    }

    /// Where a read finds its bytes, if it has no more pieces than the driver was told and they can be read from there as they are.
    pub(super) fn extents(&self, disk: &Disk) -> Option<Vec<Extent>> {
        if self.kind != VIRTIO_BLK_T_IN || self.segments.writable().len() > MAX_PIECES as usize {
            return None;
        }
        let bytes = self.segments.writable_bytes() as u64;
        disk.extents(checked(disk, self.sector, bytes).ok()?, bytes)
    }

    fn answer(&self, result: io::Result<usize>) -> u32 {
        let (code, written) = match result {
            Ok(written) => (VIRTIO_BLK_S_OK, written),
            Err(error) if error.kind() == io::ErrorKind::Unsupported => (VIRTIO_BLK_S_UNSUPP, 0),
            // A full host disk, among others: the guest's file system copes with it as with a broken disk.
            Err(_) => (VIRTIO_BLK_S_IOERR, 0),
        };
        self.status.copy_from(&[code as u8]);
        // The chain is bounded far below 4 GiB.
        u32::try_from(written + 1).unwrap_or(1)
    }

    fn perform(&self, disk: &mut Disk) -> io::Result<usize> {
        let Self { kind, sector, segments, .. } = self;
        match *kind {
            VIRTIO_BLK_T_IN => {
                let bytes = segments.writable_bytes();
                disk.read(segments.writable(), checked(disk, *sector, bytes as u64)?)?;
                Ok(bytes)
            }
            VIRTIO_BLK_T_OUT => {
                writable(disk)?;
                let offset = checked(disk, *sector, segments.readable_bytes() as u64)?;
                disk.write(segments.readable(), offset).map(|()| 0)
            }
            VIRTIO_BLK_T_FLUSH => disk.flush().map(|()| 0),
            VIRTIO_BLK_T_GET_ID => {
                let mut serial = [0; SERIAL_BYTES];
                let length = disk.serial.len().min(SERIAL_BYTES);
                serial[..length].copy_from_slice(&disk.serial.as_bytes()[..length]);
                Ok(segments.write(&serial))
            }
            VIRTIO_BLK_T_DISCARD | VIRTIO_BLK_T_WRITE_ZEROES => {
                writable(disk)?;
                for (sector, sectors) in ranges(segments)? {
                    let (offset, length) = (checked(disk, sector, u64::from(sectors) * SECTOR)?, u64::from(sectors) * SECTOR);
                    match *kind {
                        VIRTIO_BLK_T_DISCARD => disk.discard(offset, length)?,
                        _ => disk.write_zeroes(offset, length)?,
                    }
                }
                Ok(0)
            }
            _ => Err(io::ErrorKind::Unsupported.into()),
        }
    }
}

fn writable(disk: &Disk) -> io::Result<()> {
    if disk.read_only { Err(io::ErrorKind::ReadOnlyFilesystem.into()) } else { Ok(()) }
}

/// The offset of a range of whole sectors that lies on the disk.
fn checked(disk: &Disk, sector: u64, bytes: u64) -> io::Result<u64> {
    let end = bytes.is_multiple_of(SECTOR).then(|| sector.checked_add(bytes / SECTOR)).flatten();
    match end {
        Some(end) if end <= disk.sectors() => Ok(sector * SECTOR),
        _ => Err(io::ErrorKind::InvalidInput.into()),
    }
}

/// Sector and number of sectors of each range.
fn ranges(segments: &Segments<'_>) -> io::Result<Vec<(u64, u32)>> {
    let bytes = segments.readable_bytes();
    if bytes == 0 || !bytes.is_multiple_of(RANGE_BYTES) || bytes > MAX_RANGES * RANGE_BYTES {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut data = vec![0; bytes];
    let mut done = 0;
    for piece in segments.readable() {
        done += piece.copy_to(&mut data[done..]);
    }
    data.chunks_exact(RANGE_BYTES)
        .map(|range| match number(&range[8..12]) as u32 {
            sectors if sectors <= MAX_RANGE_SECTORS => Ok((number(&range[..8]), sectors)),
            _ => Err(io::ErrorKind::InvalidInput.into()),
        })
        .collect()
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}
