//! Chains of descriptors.

use super::Attacker;
use crate::arena::Zone;
use crate::device::{BALLOON, Device, INDIRECT, NEXT, Ring, WRITE, describe};
use crate::sys::Width;

/// Circles, ends that are none, pieces that are in no memory, rings offered as data, heads that are no descriptor, an index that runs away.
pub(super) fn broken(attacker: &mut Attacker) {
    for _ in 0..6 {
        let (device, queue, ring) = start_one(attacker);
        let zone = attacker.zone(&device);
        let (dice, arena) = (&mut attacker.dice, &attacker.arena);
        for index in 0..ring.size.min(32) {
            let piece = match dice.below(6) {
                // Its own rings, where a device would write over what it reads next. A balloon would take them for pages.
                0 if device.kind != BALLOON => (arena.physical(dice.pick(&[ring.descriptors, ring.available, ring.used])), 4096),
                _ => arena.piece(dice, zone),
            };
            let flags = dice.pick(&[0, NEXT, NEXT, NEXT, NEXT | WRITE, NEXT | WRITE, WRITE, dice.clone().word() as u16]);
            let next = dice.pick(&[index + 1, index + 1, index, 0, ring.size, u16::MAX]);
            ring.describe(arena, index, piece, flags, next);
        }
        for _ in 0..dice.below(12) {
            let head = dice.pick(&[0, 1, 2, 7, ring.size, u16::MAX]);
            ring.offer(arena, head);
            device.ring_bell(queue);
        }
        if dice.one_in(3) {
            arena.put(ring.available + 2, Width::Half, dice.word());
            device.ring_bell(queue);
        }
    }
}

/// Tables within tables, of odd sizes, outside of memory, on top of the rings, the largest there can be.
pub(super) fn indirect(attacker: &mut Attacker) {
    for _ in 0..6 {
        let (device, queue, ring) = start_one(attacker);
        let zone = attacker.zone(&device);
        let (dice, arena) = (&mut attacker.dice, &attacker.arena);
        let table = 0x10_0000;
        let entries = dice.pick(&[1, 2, 16, 255, 4096]);
        for index in 0..entries {
            let flags = dice.pick(&[NEXT, NEXT, NEXT, NEXT | WRITE, INDIRECT, NEXT | INDIRECT, 0]);
            let next = dice.pick(&[index as u16 + 1, index as u16 + 1, index as u16 + 1, 0, entries as u16, u16::MAX]);
            describe(arena, table + index * 16, arena.piece(dice, zone), flags, next);
        }
        let place = match dice.below(6) {
            0 => arena.piece(dice, zone),
            1 => (arena.physical(ring.descriptors), u32::from(ring.size) * 16),
            2 => (arena.physical(table) + 8, entries as u32 * 16),
            3 => (arena.physical(table), entries as u32 * 16 - 1),
            4 => (arena.physical(table), 65_535 * 16),
            _ => (arena.physical(table), entries as u32 * 16),
        };
        ring.describe(arena, 0, place, dice.pick(&[INDIRECT, INDIRECT, INDIRECT | NEXT, INDIRECT | WRITE]), 1);
        ring.describe(arena, 1, place, INDIRECT, 0);
        for _ in 0..4 {
            ring.offer(arena, dice.below(2) as u16);
            device.ring_bell(queue);
        }
    }
}

/// The guest's own end.
pub(super) fn wild(attacker: &mut Attacker) {
    let devices = attacker.devices.clone();
    // A disk, or the generator: what writes without being asked twice.
    for device in devices.iter().filter(|device| [2, 4].contains(&device.kind)) {
        let rings = device.start(&attacker.arena, &mut attacker.dice, false);
        for index in (0..rings[0].size.min(60)).step_by(3) {
            let (arena, dice) = (&attacker.arena, &mut attacker.dice);
            rings[0].describe(arena, index, (arena.physical(0x10_0000), 16), NEXT, index + 1);
            rings[0].describe(arena, index + 1, arena.piece(dice, Zone::Wild), NEXT | WRITE, index + 2);
            rings[0].describe(arena, index + 2, arena.piece(dice, Zone::Wild), WRITE, 0);
            rings[0].offer(arena, index);
        }
        device.ring_bell(0);
    }
}

fn start_one(attacker: &mut Attacker) -> (Device, u32, Ring) {
    let device = attacker.device();
    if device.kind == BALLOON {
        attacker.arena.poison();
    }
    let rings = device.start(&attacker.arena, &mut attacker.dice, true);
    let queue = attacker.dice.below(rings.len() as u64) as u32;
    (device, queue, rings[queue as usize])
}
