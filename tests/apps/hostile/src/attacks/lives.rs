//! The life of a device in the wrong order, under load, and at full speed.

use super::Attacker;
use crate::device::{NOTIFY, STATUS, WRITE};
use crate::sys::Width;

/// Steps of setting up in any order; queues of any size anywhere.
pub(super) fn any_order(attacker: &mut Attacker) {
    let device = attacker.device();
    let zone = attacker.zone(&device);
    attacker.arena.poison();
    let (dice, arena) = (&mut attacker.dice, &attacker.arena);
    if dice.one_in(2) {
        device.begin(dice);
    }
    for _ in 0..60 {
        match dice.below(10) {
            0 => device.set(STATUS, dice.pick(&[0, 1, 2, 3, 4, 8, 11, 15, 0x40, 0x80, 0xff, u32::MAX])),
            1 => device.set(0x24, dice.below(3) as u32),
            2 => device.set(0x20, dice.pick(&[0, 1, u32::MAX, 1 << 29, 3 << 28])),
            3 => device.set(0x30, dice.pick(&[0, 1, 2, 3, 255, u32::MAX])),
            4 => device.set(0x38, dice.pick(&[0, 1, 2, 3, 8, 16, 255, 256, 257, 32_768, 65_535, 65_536, u32::MAX])),
            5 => device.set(0x44, dice.pick(&[0, 1, 1, 1, 2, u32::MAX])),
            6 | 7 => device.set_address(dice.pick(&[0x80, 0x90, 0xa0]), arena.ring(dice, zone)),
            8 => device.set(STATUS, 15),
            _ => device.set(NOTIFY, dice.pick(&[0, 1, 2, 3, u32::MAX])),
        }
    }
}

/// A device that works gets new sizes and addresses, its table is overwritten, and it is reset while chains wait.
pub(super) fn changes_under_load(attacker: &mut Attacker) {
    let device = attacker.device();
    let zone = attacker.zone(&device);
    let (dice, arena) = (&mut attacker.dice, &attacker.arena);
    for _ in 0..8 {
        let rings = device.start(arena, dice, false);
        let queue = dice.below(rings.len() as u64) as u32;
        let ring = rings[queue as usize];
        for index in 0..ring.size {
            let flags = if dice.one_in(2) { WRITE } else { 0 };
            ring.describe(arena, index, arena.piece(dice, zone), flags, 0);
            ring.offer(arena, index);
        }
        device.ring_bell(queue);
        for _ in 0..dice.below(40) {
            match dice.below(5) {
                0 => device.set(0x38, dice.pick(&[0, 1, 8, 256, 65_535])),
                1 => device.set_address(dice.pick(&[0x80, 0x90, 0xa0]), arena.ring(dice, zone)),
                2 => ring.describe(
                    arena,
                    dice.below(u64::from(ring.size)) as u16,
                    arena.piece(dice, zone),
                    dice.below(8) as u16,
                    dice.below(300) as u16,
                ),
                3 => arena.put(ring.available + 2, Width::Half, dice.word()),
                _ => device.ring_bell(queue),
            }
        }
        device.set(STATUS, 0);
    }
}

/// Bells of queues that are there and of some that are not, as fast as they can be rung.
pub(super) fn storms(attacker: &mut Attacker) {
    let device = attacker.device();
    let rings = device.start(&attacker.arena, &mut attacker.dice, false);
    for round in 0..1000 {
        let queue = attacker.dice.pick(&[0, 0, 1, 2, 3, 0xffff, u32::MAX]);
        if round % 16 == 0
            && let Some(ring) = rings.get(queue as usize)
        {
            // Chains without a piece: as much work for the device as little for the driver.
            arena_offer(attacker, ring);
        }
        device.ring_bell(queue);
    }
}

fn arena_offer(attacker: &Attacker, ring: &crate::device::Ring) {
    ring.describe(&attacker.arena, 0, (attacker.arena.physical(0), 0), 0, 0);
    ring.offer(&attacker.arena, 0);
}
