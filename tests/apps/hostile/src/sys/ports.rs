//! Ports.

use std::arch::asm;
use std::io;

use super::Width;

/// Lets the calling thread use all ports.
pub(crate) fn allow_ports() -> io::Result<()> {
    // SAFETY: a call with a number.
    if unsafe { libc::iopl(3) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

pub(crate) fn port_out(port: u16, width: Width, value: u32) {
    // SAFETY: a port is no memory of this program. What it does to the machine is the purpose.
    unsafe {
        match width {
            Width::Byte => asm!("out dx, al", in("dx") port, in("al") value as u8),
            Width::Half => asm!("out dx, ax", in("dx") port, in("ax") value as u16),
            _ => asm!("out dx, eax", in("dx") port, in("eax") value),
        }
    }
}

pub(crate) fn port_in(port: u16, width: Width) -> u32 {
    let value: u32;
    // SAFETY: as above.
    unsafe {
        match width {
            Width::Byte => asm!("in al, dx", "movzx eax, al", in("dx") port, out("eax") value),
            Width::Half => asm!("in ax, dx", "movzx eax, ax", in("dx") port, out("eax") value),
            _ => asm!("in eax, dx", in("dx") port, out("eax") value),
        }
    }
    value
}

/// All bytes by one instruction.
pub(crate) fn string_out(port: u16, bytes: &[u8]) {
    // SAFETY: reads `bytes` and nothing else.
    unsafe { asm!("rep outsb", in("dx") port, inout("rsi") bytes.as_ptr() => _, inout("rcx") bytes.len() => _, options(readonly)) };
}
