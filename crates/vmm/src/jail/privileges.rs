//! User, capabilities, limits.
#![allow(unsafe_code)]

use std::io;

use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};

/// Descriptors of the largest machine: disks' layers, bells and lines of its devices, vCPUs.
const OPEN_FILES: u64 = 256;
/// vCPUs, disks, devices, and the main thread.
const THREADS: u64 = 64;

pub(super) fn limit() -> io::Result<()> {
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    setrlimit(Resource::RLIMIT_NOFILE, OPEN_FILES, OPEN_FILES)?;
    setrlimit(Resource::RLIMIT_NPROC, THREADS, THREADS)?;
    setrlimit(Resource::RLIMIT_MSGQUEUE, 0, 0)?;
    Ok(())
}

/// Leaves root for good: no capability is left, and none can be gained.
pub(super) fn drop_all(uid: u32) -> io::Result<()> {
    if uid == 0 {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a monitor does not run as root"));
    }
    for capability in 0.. {
        // SAFETY: prctl with numbers changes this thread's bounding set and nothing else.
        if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) } != 0 {
            match io::Error::last_os_error() {
                // The kernel knows no more.
                error if error.raw_os_error() == Some(libc::EINVAL) => break,
                error => return Err(error),
            }
        }
    }
    let gid = Gid::from_raw(uid);
    setgroups(&[])?;
    setresgid(gid, gid, gid)?;
    let uid = Uid::from_raw(uid);
    // Leaving user 0 empties the permitted, effective and ambient sets.
    setresuid(uid, uid, uid)?;
    prctl::set_no_new_privs()?;
    // Neither core dumps nor the debugger of a neighbour with the same number.
    prctl::set_dumpable(false)?;
    Ok(())
}
