//! Chains that are sound, with requests in them that are not.

use super::Attacker;
use crate::arena::Arena;
use crate::device::{BALLOON, BLOCK, Device, NEXT, Ring, WRITE};
use crate::dice::Dice;
use crate::sys::Width;

const HEADER: u64 = 0x12_0000;
const DATA: u64 = 0x13_0000;

pub(super) fn nonsense(attacker: &mut Attacker) {
    let device = attacker.device();
    attacker.arena.poison();
    let rings = device.start(&attacker.arena, &mut attacker.dice, false);
    let (dice, arena) = (&mut attacker.dice, &attacker.arena);
    for _ in 0..24 {
        match device.kind {
            BLOCK => disk(&device, &rings[0], arena, dice),
            BALLOON => balloon(&device, &rings, arena, dice),
            _ => frame(&device, &rings, arena, dice),
        }
    }
}

/// Any kind of request anywhere on the disk or beyond it, its header in one piece or in many.
fn disk(device: &Device, ring: &Ring, arena: &Arena, dice: &mut Dice) {
    let kind = dice.pick(&[0, 0, 1, 1, 4, 8, 11, 11, 13, 13, 14, 0xffff]);
    let sector = dice.pick(&[0, 1, 0xffff, 1 << 20, (1 << 21) - 1, u64::MAX / 512, u64::MAX, dice.clone().below(1 << 22)]);
    arena.put(HEADER, Width::Double, kind);
    arena.put(HEADER + 8, Width::Double, sector);
    for range in 0..16 {
        arena.put(DATA + range * 16, Width::Double, dice.pick(&[0, 1 << 20, u64::MAX, dice.clone().below(1 << 21)]));
        arena.put(DATA + range * 16 + 8, Width::Double, dice.pick(&[1, 8, 1 << 21, 0xffff_ffff, 1 << 32 | 8]));
    }
    let to_guest = if matches!(kind, 0 | 8) { WRITE } else { 0 };
    let length = dice.pick(&[0, 1, 16, 256, 512, 513, 4096, 65_536, 0x4_0000]);
    let split = dice.below(16) as u32;
    ring.describe(arena, 0, (arena.physical(HEADER), split), NEXT, 1);
    ring.describe(arena, 1, (arena.physical(HEADER + u64::from(split)), 16 - split), NEXT, 2);
    ring.describe(arena, 2, (arena.physical(DATA), length), NEXT | to_guest, 3);
    // The status on top of the header, or of the data.
    ring.describe(arena, 3, (arena.physical(dice.pick(&[HEADER, DATA, DATA + 0x2_0000])), dice.pick(&[0, 1, 1, 1, 3])), WRITE, 0);
    ring.offer(arena, dice.pick(&[0, 0, 0, 1, 2]));
    device.ring_bell(0);
}

/// Page numbers that are none, free ranges that are odd.
fn balloon(device: &Device, rings: &[Ring], arena: &Arena, dice: &mut Dice) {
    let queue = dice.below(3) as u32;
    let ring = &rings[queue as usize];
    let poison = arena.physical(0x18_0000);
    for index in 0..8 {
        let flags = if queue == 2 { WRITE } else { 0 };
        let (address, length) = match queue {
            2 => (arena.physical(dice.below(0x18_0000)), dice.pick(&[0, 1, 4095, 4096, 0x1_0000])),
            _ => (poison + dice.below(64), dice.pick(&[0, 1, 2, 4, 4096, 8192])),
        };
        ring.describe(arena, index, (address, length), flags | if index < 7 { NEXT } else { 0 }, index + 1);
    }
    ring.offer(arena, dice.below(8) as u16);
    device.ring_bell(queue);
    device.set(0x104, dice.word() as u32);
}

/// Frames with headers that lie, of all sizes; buffers for frames that are too small, or are not to be written; and what is left for the generator.
fn frame(device: &Device, rings: &[Ring], arena: &Arena, dice: &mut Dice) {
    for offset in (0..64).step_by(8) {
        arena.put(HEADER + offset, Width::Double, dice.word());
    }
    let queue = dice.below(rings.len() as u64) as u32;
    let ring = &rings[queue as usize];
    let flags = if queue + 1 == rings.len() as u32 && device.kind == 1 { 0 } else { WRITE };
    for index in 0..8 {
        let length = dice.pick(&[0, 1, 11, 12, 60, 1514, 65_535, 65_562, 0x2_0000]);
        let flags = if dice.one_in(8) { flags ^ WRITE } else { flags };
        ring.describe(arena, index, (arena.physical(HEADER), length), flags | if dice.one_in(2) { NEXT } else { 0 }, (index + 1) % 8);
    }
    for head in 0..8 {
        ring.offer(arena, head);
    }
    device.ring_bell(queue);
}
