//! Landlock: no access to any file by name. It says what the empty root says, by another mechanism.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// `LANDLOCK_CREATE_RULESET_VERSION`
const ASK_VERSION: u32 = 1;
/// Accesses that each version of the interface knows: all of them are handled, and no rule allows any.
const ACCESSES: [u64; 5] = [0x1fff, 0x3fff, 0x7fff, 0x7fff, 0xffff];

/// Denies everything this kernel's Landlock knows. A kernel without it is no error: it is the second lock on a door.
pub(super) fn deny_all() -> io::Result<()> {
    // SAFETY: with a null pointer, size 0 and this flag the call only returns a number.
    let version = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<u64>(), 0usize, ASK_VERSION) };
    let Ok(version @ 1..) = usize::try_from(version) else { return Ok(()) };
    let handled = ACCESSES[version.min(ACCESSES.len()) - 1];
    // SAFETY: the attribute is one u64, its first member, and its size is given.
    let ruleset = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, &raw const handled, size_of::<u64>(), 0u32) };
    if ruleset < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us.
    let ruleset = unsafe { OwnedFd::from_raw_fd(ruleset as i32) };
    // SAFETY: two numbers.
    match unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0u32) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
