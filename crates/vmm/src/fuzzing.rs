//! Entries for fuzzing (`fuzz/fuzz_targets/vmm_*.rs`) and for tests with random bytes: everything that reads what a guest, a file or a peer wrote.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use vm_memory::{Bytes, GuestAddress};

use crate::devices::virtio::{Transport, VirtioDevice, Wake};
use crate::devices::{Balloon, Block, Disk, DiskFormat, Entropy, Net, Ring};
use crate::memory::GuestRam;

/// Small, so that random addresses meet.
const MEMORY_MIB: u32 = 1;
const DISK_BYTES: u64 = 64 * 1024;

thread_local! {
    /// A mapping of guest memory is for the life of the process, which has room for thousands of them, not for millions.
    static RAM: Option<Arc<GuestRam>> =
        file(u64::from(MEMORY_MIB) << 20).and_then(|file| GuestRam::shared(file, MEMORY_MIB).ok()).map(Arc::new);
}

/// A device by the number of its kind, from 0.
pub const DEVICES: [&str; 5] = ["block", "net", "entropy", "balloon", "block_ring"];

/// A snapshot's state file, and its list of pages.
pub fn snapshot(bytes: &[u8]) {
    crate::snapshot::fuzz(bytes);
    crate::memory::working_set::fuzz(bytes);
}

/// What a peer of the control socket sends.
pub fn control(bytes: &[u8]) {
    crate::control::fuzz(bytes);
}

/// Damage by the bytes: each four are a place in the file and what is there.
pub fn overlay_of(bytes: &[u8]) {
    let damage: Vec<_> = bytes
        .as_chunks::<4>()
        .0
        .iter()
        .map(|[low, middle, high, byte]| (u32::from_le_bytes([*low, *middle, *high, 0]).into(), *byte))
        .collect();
    let _ = overlay(&damage, bytes.len() as u64);
}

/// What a guest does to a device: each eight bytes are one access of its registers, or a piece of its memory, or a moment for the device to work in.
pub fn device(kind: usize, bytes: &[u8]) {
    // The first byte chooses among what is offered: those with which a driver gets more out of its device.
    let everything = bytes.first().is_some_and(|byte| byte & 0x80 != 0);
    let Some((mut transport, ram)) = start(kind, everything) else { return };
    for step in bytes.as_chunks::<8>().0 {
        let (what, low, value) = (step[0], u16::from_le_bytes([step[1], step[2]]), &step[3..8]);
        match what % 8 {
            0 => transport.write(u64::from(low), &value[..4]),
            1 => transport.write(u64::from(low), &value[..usize::from(value[4] % 5)]),
            2 => transport.read(u64::from(low), &mut [0; 8][..usize::from(value[4] % 9)]),
            3 => transport.serve(Wake::Queue(usize::from(low) % transport.bells().len())),
            4 => transport.serve(Wake::Host),
            5 => drop(transport.load(&transport.save())),
            // Where `set_up` has put the first queue's rings and chains.
            _ => drop(ram.memory().write_slice(value, GuestAddress(u64::from(low)))),
        }
    }
}

/// A qcow2 overlay whose bytes are damaged, read and written at a sector. None when it was refused.
pub(crate) fn overlay(damage: &[(u64, u8)], sector: u64) -> Option<()> {
    let top = file(0)?;
    write_empty_overlay(&top).ok()?;
    for (at, byte) in damage {
        top.write_all_at(&[*byte], *at).ok()?;
    }
    let mut disk = Disk::open("fuzz".into(), false, vec![(DiskFormat::Qcow2, top), (DiskFormat::Raw, file(DISK_BYTES)?)]).ok()?;
    disk.exercise(sector);
    Some(())
}

const CLUSTER: u64 = 1 << 16;

/// A qcow2 file of 16 MiB with no cluster of its own.
pub(crate) fn write_empty_overlay(to: &File) -> std::io::Result<()> {
    for (at, bytes) in [(0, &overlay_header()[..]), (CLUSTER, &(2 * CLUSTER).to_be_bytes()), (2 * CLUSTER, &[0, 1, 0, 1, 0, 1, 0, 1])] {
        to.write_all_at(bytes, at)?;
    }
    to.set_len(4 * CLUSTER)
}

/// Version 3, 16 MiB, one cluster each for header, table of reference counts, their block, and the first table of clusters.
fn overlay_header() -> Vec<u8> {
    let mut header = b"QFI\xfb".to_vec();
    header.extend(3u32.to_be_bytes());
    // No name of what backs it.
    header.extend([0; 12]);
    header.extend(16u32.to_be_bytes());
    header.extend((16u64 << 20).to_be_bytes());
    // No encryption; one entry in the first table.
    header.extend([0, 0, 0, 0, 0, 0, 0, 1]);
    header.extend((3 * CLUSTER).to_be_bytes());
    header.extend(CLUSTER.to_be_bytes());
    // One cluster of reference counts; no snapshots; no features.
    header.extend([&[0, 0, 0, 1][..], &[0; 12], &[0; 24]].concat());
    // 16 bits to a count; this header's length.
    header.extend([0, 0, 0, 4, 0, 0, 0, 104]);
    header
}

/// A device whose driver has set up every queue in the first 64 KiB of memory and is ready.
fn start(kind: usize, everything: bool) -> Option<(Transport, Arc<GuestRam>)> {
    let ram = RAM.with(Clone::clone)?;
    // All of it reads as zeroes again.
    ram.discard(GuestAddress(0), u64::from(MEMORY_MIB) << 20).ok()?;
    let device: Box<dyn VirtioDevice> = match kind {
        0 => Box::new(disk()?),
        4 => {
            let mut block = disk()?;
            block.read_by(Ring::prepare().ok()?).ok()?;
            Box::new(block)
        }
        1 => Box::new(Net::on(peer_with_frames()?, [2; 6]).ok()?),
        2 => Box::new(Entropy),
        _ => Box::new(Balloon::new()),
    };
    let mut transport = Transport::new(device, ram.clone()).ok()?;
    transport.resume();
    set_up(&mut transport, everything);
    Some((transport, ram))
}

fn disk() -> Option<Block> {
    Some(Block::new(Disk::open("fuzz".into(), false, vec![(DiskFormat::Raw, file(DISK_BYTES)?)]).ok()?))
}

/// What stands in for a tap: frames wait in it, and what is sent is lost.
fn peer_with_frames() -> Option<OwnedFd> {
    let (ours, theirs) = std::os::unix::net::UnixDatagram::pair().ok()?;
    for length in [0, 5, 12, 60, 1514, 9000] {
        ours.send(&vec![0xee; length]).ok()?;
    }
    Some(theirs.into())
}

fn file(bytes: u64) -> Option<File> {
    let fd: OwnedFd = nix::sys::memfd::memfd_create(c"fuzz", nix::sys::memfd::MFdFlags::MFD_CLOEXEC).ok()?;
    let file = File::from(fd);
    file.set_len(bytes).ok()?;
    Some(file)
}

pub(crate) fn set_up(transport: &mut Transport, everything: bool) {
    let mut offered = [0; 4];
    transport.read(0x10, &mut offered);
    let mut write = |offset: u64, value: u32| transport.write(offset, &value.to_le_bytes());
    for status in [1, 3] {
        write(0x70, status);
    }
    if everything {
        write(0x20, u32::from_le_bytes(offered));
    }
    write(0x24, 1);
    write(0x20, 1);
    write(0x70, 11);
    for queue in 0..3 {
        write(0x30, queue);
        write(0x38, 16);
        for (offset, address) in [(0x80, 0x1000), (0x90, 0x2000), (0xa0, 0x3000)] {
            write(offset, address + queue * 0x4000);
        }
        write(0x44, 1);
    }
    write(0x70, 15);
}
