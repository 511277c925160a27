//! Devices against drivers that keep to the rules, and against drivers that do not.
#![allow(clippy::unwrap_used)]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use proptest::prelude::*;
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress};

use super::virtio::testing::{Ring, ram};
use super::virtio::{DeviceRecord, Fault, Queues, Served, Transport, VirtioDevice, Wake};
use super::{Balloon, Block, Disk, DiskFormat, Entropy};
use crate::memory::GuestRam;

const SECTORS: u64 = 128;
const HEADER: u64 = 0x8000;
const DATA: u64 = 0x9000;
const STATUS: u64 = 0xb000;

fn disk(read_only: bool) -> (Block, File) {
    let file = tempfile::tempfile().unwrap();
    file.set_len(SECTORS * 512).unwrap();
    let disk = Disk::open("root".into(), read_only, vec![(DiskFormat::Raw, file.try_clone().unwrap())]).unwrap();
    (Block::new(disk), file)
}

fn serve(device: &mut dyn VirtioDevice, ring: &mut Ring<'_>, ram: &GuestRam) -> Result<Served, Fault> {
    device.serve(Wake::Queue(0), &mut Queues { queues: std::slice::from_mut(&mut ring.queue), ram, bells: &[], tell: &|| {} })
}

/// One request: kind, sector, and a data piece of so many bytes. Returns its status byte.
fn request(block: &mut Block, ram: &GuestRam, kind: u32, sector: u64, length: u32, device_writes: bool) -> u8 {
    let mut ring = Ring::new(ram.memory(), 8);
    clear(ram);
    ram.memory().write_obj(kind, GuestAddress(HEADER)).unwrap();
    ram.memory().write_obj(sector, GuestAddress(HEADER + 8)).unwrap();
    ram.memory().write_obj(0xffu8, GuestAddress(STATUS)).unwrap();
    let data = (DATA, length, device_writes);
    let pieces = [(HEADER, 16, false), data, (STATUS, 1, true)];
    ring.add(if length > 0 { &pieces } else { &[(HEADER, 16, false), (STATUS, 1, true)] });
    assert!(serve(block, &mut ring, ram).unwrap().interrupt);
    assert_eq!(ring.used().len(), 1);
    ram.memory().read_obj(GuestAddress(STATUS)).unwrap()
}

/// Rings of an earlier request.
fn clear(ram: &GuestRam) {
    ram.memory().write_slice(&[0; 0x3000], GuestAddress(0x1000)).unwrap();
}

#[test]
fn a_disk_reads_and_writes() {
    let (ram, (mut block, file)) = (ram(), disk(false));
    ram.memory().write_slice(&[7; 1024], GuestAddress(DATA)).unwrap();
    assert_eq!(request(&mut block, &ram, 1, 2, 1024, false), 0);
    let mut written = [0; 1024];
    file.read_exact_at(&mut written, 1024).unwrap();
    assert_eq!(written, [7; 1024]);
    file.write_all_at(&[9; 512], 0).unwrap();
    assert_eq!(request(&mut block, &ram, 0, 0, 512, true), 0);
    let mut read = [0; 512];
    ram.memory().read_slice(&mut read, GuestAddress(DATA)).unwrap();
    assert_eq!(read, [9; 512]);
    assert_eq!(request(&mut block, &ram, 4, 0, 0, false), 0, "flush");
    assert_eq!(request(&mut block, &ram, 8, 0, 20, true), 0, "serial");
    let mut serial = [0; 5];
    ram.memory().read_slice(&mut serial, GuestAddress(DATA)).unwrap();
    assert_eq!(&serial, b"root\0");
}

#[test]
fn a_disk_says_no_to_what_is_not_on_it() {
    let (ram, (mut block, _file)) = (ram(), disk(false));
    for (sector, length) in [(SECTORS, 512), (SECTORS - 1, 1024), (u64::MAX, 512), (u64::MAX / 512, 512), (0, 511)] {
        assert_eq!(request(&mut block, &ram, 0, sector, length, true), 1, "{sector} {length}");
        assert_eq!(request(&mut block, &ram, 1, sector, length, false), 1, "{sector} {length}");
    }
    assert_eq!(request(&mut block, &ram, 77, 0, 512, true), 2, "no such request");
    ram.memory().write_obj(SECTORS, GuestAddress(DATA)).unwrap();
    ram.memory().write_obj(u32::MAX, GuestAddress(DATA + 8)).unwrap();
    assert_eq!(request(&mut block, &ram, 11, 0, 16, false), 1, "a discard beyond the end");
    let (mut block, file) = disk(true);
    assert_eq!(request(&mut block, &ram, 1, 0, 512, false), 1, "a read-only disk");
    let mut untouched = [1; 512];
    file.read_exact_at(&mut untouched, 0).unwrap();
    assert_eq!(untouched, [0; 512]);
}

#[test]
fn a_chain_that_breaks_the_rules_is_a_fault() {
    let (ram, (mut block, _file)) = (ram(), disk(false));
    let bad: [&dyn Fn(&mut Ring<'_>); 6] = [
        &|ring| ring.add(&[(HEADER, 4, false)]),
        &|ring| ring.add(&[(HEADER, 16, false), (DATA, 512, false)]),
        &|ring| ring.add(&[(u64::MAX - 8, 16, false), (STATUS, 1, true)]),
        &|ring| ring.add(&[(HEADER, 16, false), ((1 << 20) - 8, 16, true)]),
        &|ring| ring.add(&[(HEADER, u32::MAX, false), (STATUS, 1, true)]),
        &|ring| ring.set_available(999),
    ];
    for (index, make) in bad.iter().enumerate() {
        clear(&ram);
        let mut ring = Ring::new(ram.memory(), 8);
        make(&mut ring);
        assert!(serve(&mut block, &mut ring, &ram).is_err(), "case {index}");
    }
}

#[test]
fn a_chain_in_a_circle_ends() {
    let (ram, (mut block, _file)) = (ram(), disk(false));
    clear(&ram);
    let mut ring = Ring::new(ram.memory(), 8);
    ring.descriptor(0, DATA, 4096, 1 | 2, 1);
    ring.descriptor(1, DATA, 4096, 1 | 2, 0);
    ring.offer(0);
    // The header is missing: whatever it is taken for, it is an end.
    assert!(serve(&mut block, &mut ring, &ram).is_err());
}

#[test]
fn entropy_is_given_and_bounded() {
    let ram = ram();
    let mut ring = Ring::new(ram.memory(), 8);
    ring.add(&[(DATA, 64, true)]);
    ring.add(&[(DATA, 64, false)]);
    ring.add(&[(0x10000, 0x10000, true)]);
    serve(&mut Entropy, &mut ring, &ram).unwrap();
    assert_eq!(ring.used(), [(0, 64), (1, 0), (2, 4096)]);
    assert_ne!(ring.bytes(DATA, 64), [0; 64]);
}

#[test]
fn ballooned_pages_are_zero_again_and_pages_that_are_none_are_passed_over() {
    let ram = ram();
    ram.memory().write_obj(5u64, GuestAddress(0x20000)).unwrap();
    for (index, page) in [0x20u32, 0x7fff_ffff, u32::MAX].into_iter().enumerate() {
        ram.memory().write_obj(page, GuestAddress(DATA + index as u64 * 4)).unwrap();
    }
    let mut ring = Ring::new(ram.memory(), 8);
    ring.add(&[(DATA, 12, false)]);
    serve(&mut Balloon::new(), &mut ring, &ram).unwrap();
    assert_eq!(ram.memory().read_obj::<u64>(GuestAddress(0x20000)).unwrap(), 0);
    assert_eq!(ring.used(), [(0, 0)]);
}

/// What Linux sends when much of its memory is free: as many descriptors as a report may have, each the largest block of its allocator.
#[test]
fn a_report_of_much_free_memory_is_taken() {
    let file = tempfile::tempfile().unwrap();
    file.set_len(128 << 20).unwrap();
    let ram = GuestRam::shared(file.try_clone().unwrap(), 128).unwrap();
    ram.memory().write_obj(5u64, GuestAddress(127 << 20)).unwrap();
    let mut ring = Ring::new(ram.memory(), 32);
    let blocks: Vec<_> = (0..32).map(|block| (block << 22, 4 << 20, true)).rev().collect();
    // Above the rings: the last block is reported as itself, the first stands in for the one that they lie in.
    ring.add(&[&blocks[..31], &[(124 << 20, 4 << 20, true)]].concat());
    let mut balloon = Balloon::new();
    balloon
        .serve(
            Wake::Queue(2),
            &mut Queues {
                queues: &mut [unused(), unused(), std::mem::replace(&mut ring.queue, unused())],
                ram: &ram,
                bells: &[],
                tell: &|| {},
            },
        )
        .unwrap();
    assert_eq!(ram.memory().read_obj::<u64>(GuestAddress(127 << 20)).unwrap(), 0);
    assert_eq!(ring.used(), [(0, 0)]);
}

fn unused() -> Queue {
    Queue::new(8).unwrap()
}

/// Found by fuzzing: the table of reference counts beyond the end of the file, and none in it. Writing took the stack to its end.
#[test]
fn an_overlay_without_its_reference_counts_is_refused() {
    for damage in [&[(49, 42)][..], &[(0x1_0005, 0)], &[(0x1_0003, 9)], &[(59, 0)]] {
        assert_eq!(crate::fuzzing::overlay(damage, 0), None, "{damage:?}");
    }
    assert_eq!(crate::fuzzing::overlay(&[], 0), Some(()));
}

/// However many chains wait, and however long each takes: others get the device in between.
#[test]
fn a_device_gives_way_after_its_turn() {
    let ram = ram();
    let mut ring = Ring::new(ram.memory(), 8);
    for at in 0..8 {
        ring.add(&[(DATA + at, 1, true)]);
    }
    let slow = |_: super::virtio::Segments<'_>, _: &GuestRam| {
        std::thread::sleep(super::virtio::TURN);
        Ok(0)
    };
    let served = super::virtio::serve_chains(
        &mut Queues { queues: std::slice::from_mut(&mut ring.queue), ram: &ram, bells: &[], tell: &|| {} },
        0,
        slow,
    )
    .unwrap();
    assert!(served.more && served.interrupt);
    assert_eq!(ring.used().len(), 1);
}

#[test]
fn a_device_comes_back_as_it_was_and_takes_no_other_state() {
    let transport = |device: Box<dyn VirtioDevice>, ram: &Arc<GuestRam>| Transport::new(device, ram.clone()).unwrap();
    let ram = ram();
    let mut first = transport(Box::new(disk(false).0), &ram);
    crate::fuzzing::set_up(&mut first, false);
    let record = first.save();
    let bytes = postcard::to_stdvec(&record).unwrap();
    assert_eq!(postcard::from_bytes::<super::virtio::TransportRecord>(&bytes).unwrap(), record);
    let mut second = transport(Box::new(disk(false).0), &ram);
    assert!(second.load(&record));
    assert_eq!(second.save(), record);
    assert!(!transport(Box::new(Entropy), &ram).load(&record), "another kind of device");
    assert!(!transport(Box::new(disk(true).0), &ram).load(&record), "another disk");
    let mut other = record.clone();
    other.device = DeviceRecord::Entropy;
    assert!(!transport(Box::new(disk(false).0), &ram).load(&other));
    let mut other = record.clone();
    other.features |= 1 << 40;
    assert!(!transport(Box::new(disk(false).0), &ram).load(&other), "features that were never offered");
    let mut other = record;
    other.queues.clear();
    assert!(!transport(Box::new(disk(false).0), &ram).load(&other), "without queues");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// The rings are where the random bytes go, so chains are made of them.
    #[test]
    fn no_driver_breaks_a_device(kind in 0..crate::fuzzing::DEVICES.len(), bytes in proptest::collection::vec(any::<u8>(), 0..4096)) {
        crate::fuzzing::device(kind, &bytes);
    }

    /// Any request, anywhere: it is answered in its status, and nothing beyond the disk is touched.
    #[test]
    fn every_request_is_answered(
        kind in prop_oneof![0u32..16, any::<u32>()],
        sector in prop_oneof![0..SECTORS + 2, any::<u64>()],
        range in (prop_oneof![0..SECTORS, any::<u64>()], prop_oneof![0u32..200, any::<u32>()], any::<u32>()),
        length in prop_oneof![Just(0u32), Just(16), Just(512), Just(4096), 0u32..5000],
        write in any::<bool>(),
    ) {
        let (ram, (mut block, file)) = (ram(), disk(false));
        let (start, sectors, flags) = range;
        ram.memory().write_obj(start, GuestAddress(DATA)).unwrap();
        ram.memory().write_obj(sectors, GuestAddress(DATA + 8)).unwrap();
        ram.memory().write_obj(flags, GuestAddress(DATA + 12)).unwrap();
        prop_assert!(request(&mut block, &ram, kind, sector, length, write) <= 2);
        prop_assert_eq!(file.metadata().unwrap().len(), SECTORS * 512);
    }

    /// The files of a disk are the host's own, but a damaged one is refused or answers with errors: it ends nothing.
    #[test]
    fn no_damage_of_an_overlay_breaks_a_disk(damage in proptest::collection::vec((0u64..0x4_0200, any::<u8>()), 0..6), sector in 0u64..256) {
        let _ = crate::fuzzing::overlay(&damage, sector);
    }

    #[test]
    fn no_descriptor_breaks_a_disk(address in any::<u64>(), length in any::<u32>(), flags in any::<u16>(), next in any::<u16>(), head in any::<u16>()) {
        let (ram, (mut block, _file)) = (ram(), disk(false));
        let mut ring = Ring::new(ram.memory(), 8);
        for index in 0..8 {
            ring.descriptor(index, address.rotate_left(u32::from(index)), length, flags, next);
        }
        ring.offer(head);
        let _ = serve(&mut block, &mut ring, &ram);
    }
}
