//! Devices by their registers (virtio 1.2, 4.2.2), and rings in the arena.

use crate::arena::Arena;
use crate::dice::Dice;
use crate::sys::{Mapping, Width};

pub(crate) const WINDOW: u64 = 0xd000_0000;
/// More than there are devices: what lies behind them is accessed too.
pub(crate) const WINDOW_BYTES: usize = 0x1_0000;
const SLOT: usize = 0x1000;
const MAGIC: u32 = 0x7472_6976;
pub(crate) const STATUS: usize = 0x70;
pub(crate) const NOTIFY: usize = 0x50;
pub(crate) const BLOCK: u32 = 2;
pub(crate) const BALLOON: u32 = 5;
const VERSION_1: u32 = 1;
/// Queues that have a place of their own in the arena, 64 KiB each; what follows is for tables and data.
const RINGS: u64 = 16;

#[derive(Clone, Copy)]
pub(crate) struct Device {
    registers: Mapping,
    slot: usize,
    pub kind: u32,
}

/// A queue's three parts by their offsets in the arena.
#[derive(Clone, Copy)]
pub(crate) struct Ring {
    pub size: u16,
    pub descriptors: u64,
    pub available: u64,
    pub used: u64,
}

impl Device {
    pub(crate) fn all(registers: Mapping) -> Vec<Self> {
        let at = |slot| Self { registers, slot, kind: registers.load(slot * SLOT + 8, Width::Word) as u32 };
        let there = |slot: &usize| registers.load(slot * SLOT, Width::Word) as u32 == MAGIC;
        (0..WINDOW_BYTES / SLOT).filter(there).map(at).collect()
    }

    pub(crate) fn set(&self, register: usize, value: u32) {
        self.registers.store(self.slot * SLOT + register, Width::Word, value.into());
    }

    pub(crate) fn get(&self, register: usize) -> u32 {
        self.registers.load(self.slot * SLOT + register, Width::Word) as u32
    }

    /// As many as an honest driver uses of it.
    pub(crate) fn queues(&self) -> u32 {
        match self.kind {
            1 => 2,
            BALLOON => 3,
            _ => 1,
        }
    }

    pub(crate) fn set_address(&self, register: usize, address: u64) {
        self.set(register, address as u32);
        self.set(register + 4, (address >> 32) as u32);
    }

    /// Up to the choice of features, some of those offered.
    pub(crate) fn begin(&self, dice: &mut Dice) {
        for status in [0, 1, 3] {
            self.set(STATUS, status);
        }
        self.set(0x10 + 4, 0);
        let offered = self.get(0x10);
        self.set(0x24, 0);
        self.set(0x20, if dice.one_in(3) { offered & dice.word() as u32 } else { offered });
        self.set(0x24, 1);
        self.set(0x20, VERSION_1);
        self.set(STATUS, 11);
    }

    /// Sets up every queue as a driver does, and starts. Rings may lie on each other when few chains are sent: the number of chains, taken for an address, is
    /// then one in the first megabyte, which no kernel uses.
    pub(crate) fn start(&self, arena: &Arena, dice: &mut Dice, rings_may_overlap: bool) -> Vec<Ring> {
        self.begin(dice);
        let rings: Vec<_> = (0..self.queues()).map(|queue| self.set_up(queue, arena, dice, rings_may_overlap)).collect();
        self.set(STATUS, 15);
        rings
    }

    fn set_up(&self, queue: u32, arena: &Arena, dice: &mut Dice, may_overlap: bool) -> Ring {
        self.set(0x30, queue);
        let most = self.get(0x34).clamp(8, 256);
        let size = dice.pick(&[most, most, 8]);
        // A place for each queue: a balloon would take another device's descriptors for pages to give back.
        let start = (self.slot as u64 * 3 + u64::from(queue)) % RINGS * 0x1_0000;
        let apart = Ring { size: size as u16, descriptors: start, available: start + 0x4000, used: start + 0x8000 };
        let ring = match dice.below(6) {
            0 if may_overlap => Ring { used: apart.descriptors, ..apart },
            1 if may_overlap => Ring { available: apart.used, ..apart },
            _ => apart,
        };
        for offset in (0..0x9000).step_by(8) {
            arena.put(start + offset, Width::Double, 0);
        }
        self.set(0x38, size);
        for (register, offset) in [(0x80, ring.descriptors), (0x90, ring.available), (0xa0, ring.used)] {
            self.set_address(register, arena.physical(offset));
        }
        self.set(0x44, 1);
        ring
    }

    pub(crate) fn ring_bell(&self, queue: u32) {
        self.set(NOTIFY, queue);
    }
}

pub(crate) const NEXT: u16 = 1;
pub(crate) const WRITE: u16 = 2;
pub(crate) const INDIRECT: u16 = 4;

impl Ring {
    pub(crate) fn describe(&self, arena: &Arena, index: u16, (address, length): (u64, u32), flags: u16, next: u16) {
        describe(arena, self.descriptors + u64::from(index) * 16, (address, length), flags, next);
    }

    /// Offers a chain that begins at `head`, whatever that is.
    pub(crate) fn offer(&self, arena: &Arena, head: u16) {
        let index = arena.get(self.available + 2, Width::Half);
        arena.put(self.available + 4 + index % u64::from(self.size) * 2, Width::Half, head.into());
        arena.put(self.available + 2, Width::Half, index.wrapping_add(1));
    }
}

/// One descriptor at an offset of the arena.
pub(crate) fn describe(arena: &Arena, at: u64, (address, length): (u64, u32), flags: u16, next: u16) {
    arena.put(at, Width::Double, address);
    arena.put(at + 8, Width::Word, length.into());
    arena.put(at + 12, Width::Half, flags.into());
    arena.put(at + 14, Width::Half, next.into());
}
