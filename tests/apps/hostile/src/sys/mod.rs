//! Everything unsafe: memory that is devices, ports, and the calls that give access to both.
#![allow(unsafe_code)]

mod ports;

use std::arch::asm;
use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

pub(crate) use ports::{allow_ports, port_in, port_out, string_out};

pub(crate) const HUGE_PAGE: usize = 2 << 20;

/// How an access is made: its width, or an instruction that makes it in pieces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Width {
    Byte,
    Half,
    Word,
    Double,
    /// 16 bytes at once.
    Vector,
}

pub(crate) const WIDTHS: [Width; 5] = [Width::Byte, Width::Half, Width::Word, Width::Double, Width::Vector];

impl Width {
    fn bytes(self) -> usize {
        match self {
            Self::Byte => 1,
            Self::Half => 2,
            Self::Word => 4,
            Self::Double => 8,
            Self::Vector => 16,
        }
    }
}

/// Memory that others change at any time: devices' registers, or pages that devices work on. Never unmapped, never behind a reference.
#[derive(Clone, Copy)]
pub(crate) struct Mapping {
    start: *mut u8,
    length: usize,
}

// SAFETY: the mapping lasts as long as the process, and all access to it is by single instructions on raw pointers.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Physical addresses that no driver has claimed.
    pub(crate) fn physical(address: u64, length: usize) -> io::Result<Self> {
        let memory = File::options().read(true).write(true).open("/dev/mem")?;
        Self::map(length, libc::MAP_SHARED, memory.as_raw_fd(), address)
    }

    /// Two megabytes that are contiguous in physical memory.
    pub(crate) fn huge_page() -> io::Result<Self> {
        Self::map(HUGE_PAGE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_HUGETLB | libc::MAP_POPULATE | libc::MAP_LOCKED, -1, 0)
    }

    fn map(length: usize, flags: i32, fd: i32, offset: u64) -> io::Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), length, protection, flags, fd, offset as i64) };
        if start == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(Self { start: start.cast(), length }) }
    }

    pub(crate) fn virtual_address(&self) -> u64 {
        self.start as u64
    }

    fn at(&self, offset: usize, width: Width) -> *mut u8 {
        assert!(offset.checked_add(width.bytes()).is_some_and(|end| end <= self.length), "an access outside of the mapping");
        self.start.wrapping_add(offset)
    }

    /// One store, aligned or not.
    pub(crate) fn store(&self, offset: usize, width: Width, value: u64) {
        let at = self.at(offset, width);
        // SAFETY: the bytes lie within the mapping, as `at` checked, and nothing in this program has a reference to them.
        unsafe {
            match width {
                Width::Byte => asm!("mov byte ptr [{at}], {value}", at = in(reg) at, value = in(reg_byte) value as u8),
                Width::Half => asm!("mov word ptr [{at}], {value:x}", at = in(reg) at, value = in(reg) value),
                Width::Word => asm!("mov dword ptr [{at}], {value:e}", at = in(reg) at, value = in(reg) value),
                Width::Double => asm!("mov qword ptr [{at}], {value}", at = in(reg) at, value = in(reg) value),
                Width::Vector => {
                    asm!("movq {wide}, {value}", "movups [{at}], {wide}", at = in(reg) at, value = in(reg) value, wide = out(xmm_reg) _)
                }
            }
        }
    }

    /// One load, aligned or not; of a vector its first half.
    pub(crate) fn load(&self, offset: usize, width: Width) -> u64 {
        let at = self.at(offset, width);
        let value: u64;
        // SAFETY: as for `store`.
        unsafe {
            match width {
                Width::Byte => asm!("movzx {value:e}, byte ptr [{at}]", at = in(reg) at, value = out(reg) value),
                Width::Half => asm!("movzx {value:e}, word ptr [{at}]", at = in(reg) at, value = out(reg) value),
                Width::Word => asm!("mov {value:e}, dword ptr [{at}]", at = in(reg) at, value = out(reg) value),
                Width::Double => asm!("mov {value}, qword ptr [{at}]", at = in(reg) at, value = out(reg) value),
                Width::Vector => {
                    asm!("movups {wide}, [{at}]", "movq {value}, {wide}", at = in(reg) at, value = out(reg) value, wide = out(xmm_reg) _)
                }
            }
        }
        value
    }
}

pub(crate) fn mount(what: &CStr, on: &CStr) -> io::Result<()> {
    // SAFETY: both strings end in a zero byte; no flags, no data.
    let result = unsafe { libc::mount(what.as_ptr(), on.as_ptr(), what.as_ptr(), 0, std::ptr::null()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Resets the machine. Returns when the kernel refuses.
pub(crate) fn reset_machine() {
    // SAFETY: a call with a number.
    unsafe { libc::reboot(libc::RB_AUTOBOOT) };
}
