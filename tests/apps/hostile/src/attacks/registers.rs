//! Accesses of registers and ports, one by one.

use super::Attacker;
use crate::arena::Zone;
use crate::device::WINDOW_BYTES;
use crate::sys::{WIDTHS, Width, port_in, port_out, string_out};

const BURST: usize = 400;
/// Serial port, keyboard controller, clock, delays, PCI, power management, firmware configuration, a second serial port, the last ports.
const PORTS: [(u16, u64); 10] =
    [(0x3f8, 8), (0x60, 8), (0x70, 8), (0x80, 16), (0xb2, 2), (0xcf8, 8), (0x510, 12), (0x2f8, 8), (0x600, 0x100), (0xfff0, 12)];
/// The lower halves of queues' addresses.
const ADDRESSES: [usize; 3] = [0x80, 0x90, 0xa0];
const RESET_PORT: u16 = 0x64;
const RESET: u32 = 0xfe;

/// Where status and queues are set up by chance too, so that what an honest driver would never do gets beyond the first check.
pub(super) fn accesses(attacker: &mut Attacker) {
    for _ in 0..BURST {
        let dice = &mut attacker.dice;
        let width = dice.pick(&WIDTHS);
        let known =
            [0x14, 0x20, 0x24, 0x30, 0x38, 0x44, 0x50, 0x64, 0x70, 0x80, 0x84, 0x90, 0x94, 0xa0, 0xa4, 0x100, 0x104, 0xfc, 0xffc, 0xfff];
        let within = if dice.one_in(2) { dice.pick(&known) } else { dice.below(0x1000) };
        // Over the end of a page too, but for the last one's.
        let offset = ((dice.below(16) * 0x1000 + within) as usize).min(WINDOW_BYTES - 16);
        if dice.one_in(3) {
            attacker.registers.load(offset, width);
        } else {
            let value = match dice.below(4) {
                0 => dice.below(4),
                1 => dice.below(256),
                2 => u64::MAX,
                _ => dice.word(),
            };
            // Not by chance in the kernel's memory.
            let value = if ADDRESSES.contains(&(offset % 0x1000)) { attacker.arena.ring(dice, Zone::Poisoned) } else { value };
            attacker.registers.store(offset, width, value);
        }
    }
}

pub(super) fn ports(attacker: &mut Attacker) {
    for _ in 0..BURST / 4 {
        let dice = &mut attacker.dice;
        let (first, count) = dice.pick(&PORTS);
        let port = first + dice.below(count) as u16;
        let width = dice.pick(&[Width::Byte, Width::Byte, Width::Half, Width::Word]);
        let value = if dice.one_in(2) { dice.word() as u32 } else { dice.below(256) as u32 };
        match dice.below(3) {
            0 => drop(port_in(port, width)),
            // That one would only end the attack.
            _ if port == RESET_PORT && value & 0xff == RESET => {}
            1 if dice.one_in(8) && port != RESET_PORT => string_out(port, &value.to_le_bytes().repeat(50)),
            _ => port_out(port, width, value),
        }
    }
}
