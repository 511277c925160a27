//! What a child gives up before it becomes the application.

use std::io;

/// `struct __user_cap_header_struct` and its data, version 3 (linux/capability.h).
#[repr(C)]
struct CapabilityHeader {
    version: u32,
    pid: libc::c_int,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct CapabilityData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

const VERSION_3: u32 = 0x2008_0522;
/// The kernel's sets have 64 bits.
const HIGHEST: u64 = 63;

/// Takes every capability that is not in `keep` out of the bounding set: no later exec can bring it back.
pub(crate) fn limit_bounding_set(keep: u64) -> io::Result<()> {
    for capability in (0..=HIGHEST).filter(|capability| keep & (1 << capability) == 0) {
        // SAFETY: this prctl takes one integer and touches no memory.
        let result = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
        if result != 0 {
            let error = io::Error::last_os_error();
            // Past the last capability this kernel knows.
            return if error.raw_os_error() == Some(libc::EINVAL) { Ok(()) } else { Err(error) };
        }
    }
    Ok(())
}

/// Sets the effective and permitted sets and clears the inheritable and ambient ones.
pub(crate) fn set_capabilities(capabilities: u64) -> io::Result<()> {
    // SAFETY: this prctl takes integers and touches no memory.
    check(unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) }.into())?;
    let half = |bits: u32| CapabilityData { effective: bits, permitted: bits, inheritable: 0 };
    let header = CapabilityHeader { version: VERSION_3, pid: 0 };
    let data = [half(capabilities as u32), half((capabilities >> 32) as u32)];
    // SAFETY: version 3 makes the kernel read one header and two data elements, which outlive the call.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) })
}

/// Undoes what Rust's runtime and tokio did to signals: SIGPIPE kills again, nothing is blocked.
pub(crate) fn reset_signals() -> io::Result<()> {
    // SAFETY: SIG_DFL is a valid disposition for every signal; no handler of ours is lost, for exec drops them anyway.
    if unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) } == libc::SIG_ERR {
        return Err(io::Error::last_os_error());
    }
    nix::sys::signal::SigSet::empty().thread_set_mask().map_err(io::Error::from)
}

/// Marks every descriptor but the standard three to be closed by exec.
pub(crate) fn close_descriptors_on_exec() -> io::Result<()> {
    // SAFETY: with CLOSE_RANGE_CLOEXEC no descriptor is closed now, so none that a value owns becomes invalid.
    check(unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) })
}

fn check(result: libc::c_long) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
