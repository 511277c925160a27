//! Birth of a process in namespaces and a cgroup of its own.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::sched::CloneFlags;
use nix::unistd::Pid;

/// From linux/sched.h; libc's is of a type too narrow for it.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Makes a child that runs `child` and then exits with the code it returns.
///
/// The child starts in `cgroup`, so there is no moment at which it could not be frozen or killed.
pub(crate) fn spawn(namespaces: CloneFlags, cgroup: BorrowedFd<'_>, child: impl FnOnce() -> i32) -> io::Result<Pid> {
    assert_single_threaded()?;
    // SAFETY: all-zero is a valid clone_args: every field is an integer and 0 means unset.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.flags = u64::from(namespaces.bits().cast_unsigned()) | CLONE_INTO_CGROUP;
    arguments.exit_signal = libc::SIGCHLD as u64;
    arguments.cgroup = cgroup.as_raw_fd() as u64;
    // SAFETY: without CLONE_VM and with no stack given this is a fork: the child owns a copy of all memory and continues here. The process
    // has one thread (asserted above), so no lock can be held by a thread that does not exist in the child, and any code may run there.
    // `arguments` outlives the call and its size is passed.
    let result = unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size_of::<libc::clone_args>()) };
    match result {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            let code = child();
            // SAFETY: ends the child without running exit handlers or destructors, which belong to the parent.
            unsafe { libc::_exit(code) }
        }
        pid => Ok(Pid::from_raw(pid as i32)),
    }
}

fn assert_single_threaded() -> io::Result<()> {
    let threads = std::fs::read_dir("/proc/self/task")?.count();
    if threads == 1 { Ok(()) } else { Err(io::Error::other("a process with threads must not fork")) }
}
