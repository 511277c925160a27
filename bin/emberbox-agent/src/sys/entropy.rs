//! The kernel's randomness.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::AsRawFd;

/// More than this is never sent.
const CAPACITY: usize = 512;

/// `struct rand_pool_info` of linux/random.h with room for the data.
#[repr(C)]
struct PoolInfo {
    entropy_count_bits: libc::c_int,
    size_bytes: libc::c_int,
    data: [u8; CAPACITY],
}

const RNDADDENTROPY: libc::Ioctl = 0x4008_5203;
const RNDRESEEDCRNG: libc::Ioctl = 0x5207;

/// Mixes `fresh` into the pool, credited in full, and makes every generator of the kernel (vDSO included) start anew from it.
pub(crate) fn reseed(fresh: &[u8]) -> io::Result<()> {
    if fresh.len() > CAPACITY || fresh.is_empty() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut pool =
        PoolInfo { entropy_count_bits: fresh.len() as libc::c_int * 8, size_bytes: fresh.len() as libc::c_int, data: [0; CAPACITY] };
    pool.data[..fresh.len()].copy_from_slice(fresh);
    let device = OpenOptions::new().write(true).open("/dev/urandom")?;
    // SAFETY: the kernel reads two integers and `size_bytes` bytes behind them, all inside `pool` (checked above).
    check(unsafe { libc::ioctl(device.as_raw_fd(), RNDADDENTROPY, &raw const pool) })?;
    // SAFETY: this request has no argument.
    check(unsafe { libc::ioctl(device.as_raw_fd(), RNDRESEEDCRNG) })
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
