//! Memory that the devices are sent to: one huge page, so that a piece of any length up to its end is this program's own.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;

use crate::dice::Dice;
use crate::sys::{HUGE_PAGE, Mapping, Width};

/// What lies above is never handed out but for a balloon to read: numbers that are no page of this machine's.
const POISON: u64 = 3 * HUGE_PAGE as u64 / 4;
const PRESENT: u64 = 1 << 63;
const FRAME: u64 = (1 << 55) - 1;

/// Where a piece may lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Zone {
    /// In the arena or in no memory at all.
    Own,
    /// As above, where numbers are no pages.
    Poisoned,
    /// Anywhere in memory: what is written there may be the kernel.
    Wild,
}

#[derive(Clone, Copy)]
pub(crate) struct Arena {
    memory: Mapping,
    physical: u64,
    /// One past the last byte of memory.
    pub end_of_memory: u64,
}

impl Arena {
    pub(crate) fn new() -> io::Result<Self> {
        fs::write("/proc/sys/vm/nr_hugepages", "2")?;
        let memory = Mapping::huge_page()?;
        let mut entry = [0; 8];
        File::open("/proc/self/pagemap")?.read_exact_at(&mut entry, memory.virtual_address() / 4096 * 8)?;
        let entry = u64::from_le_bytes(entry);
        if entry & PRESENT == 0 || entry & FRAME == 0 {
            return Err(io::Error::other("the kernel does not tell where the huge page is"));
        }
        let arena = Self { memory, physical: (entry & FRAME) * 4096, end_of_memory: end_of_memory()? };
        arena.poison();
        Ok(arena)
    }

    pub(crate) fn physical(&self, offset: u64) -> u64 {
        self.physical + offset
    }

    pub(crate) fn put(&self, offset: u64, width: Width, value: u64) {
        self.memory.store(offset as usize, width, value);
    }

    pub(crate) fn get(&self, offset: u64, width: Width) -> u64 {
        self.memory.load(offset as usize, width)
    }

    /// Page numbers beyond the end of memory, over the whole zone.
    pub(crate) fn poison(&self) {
        for offset in (POISON..HUGE_PAGE as u64).step_by(8) {
            self.put(offset, Width::Double, 0xf0f0_f0f0_f0f0_f0f0);
        }
    }

    /// The address and the length of something, honest or not.
    pub(crate) fn piece(&self, dice: &mut Dice, zone: Zone) -> (u64, u32) {
        let anything = [0, 1, 11, 512, 4096, 65_535, 1 << 20, 1 << 31, u64::from(u32::MAX), dice.word() >> 32];
        let length = dice.pick(&anything) as u32;
        let address = match dice.below(16) {
            0 => return (self.end_of_memory - 8, length.max(16)),
            1 => self.end_of_memory + dice.below(4096),
            2 => 0xd000_0000 + dice.below(0x1_0000),
            3 => u64::MAX - dice.below(64),
            4 => 0xfee0_0000 + dice.below(4096),
            5 => dice.word() | 1 << 44,
            6 => return ((3 << 30) - 8, length.max(16)),
            _ => return self.memory_piece(dice, zone),
        };
        (address, length)
    }

    fn memory_piece(&self, dice: &mut Dice, zone: Zone) -> (u64, u32) {
        let (from, to) = match zone {
            Zone::Own => (0, POISON),
            Zone::Poisoned => (POISON, HUGE_PAGE as u64),
            Zone::Wild => return (dice.below(self.end_of_memory), dice.pick(&[8, 512, 4096])),
        };
        let start = from + dice.below(to - from);
        let most = to - start;
        let length = dice.pick(&[0, 1, 16, 512, 1024, 4096, 100_000, most, most / 2]).min(most);
        (self.physical(start), length as u32)
    }

    /// Where a ring may lie.
    pub(crate) fn ring(&self, dice: &mut Dice, zone: Zone) -> u64 {
        let (address, _) = self.piece(dice, zone);
        // Rings that are not aligned are refused at once: some of them are.
        if dice.one_in(4) { address } else { address & !0xf }
    }
}

/// From the kernel's own list.
fn end_of_memory() -> io::Result<u64> {
    let list = fs::read_to_string("/proc/iomem")?;
    let ends = list.lines().filter(|line| line.contains("System RAM")).filter_map(|line| {
        let (_, end) = line.split(" : ").next()?.trim().split_once('-')?;
        u64::from_str_radix(end, 16).ok()
    });
    ends.max().map(|last| last + 1).ok_or_else(|| io::Error::other("/proc/iomem lists no memory"))
}
