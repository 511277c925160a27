//! Watching processes that may or may not be our children, without racing the reuse of their numbers.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use serde::{Deserialize, Serialize};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A process by number and start: the pair is never used again while the machine is up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessIdentity {
    pub pid: i32,
    /// Clock ticks since boot (`/proc/<pid>/stat`, field 22).
    pub start_ticks: u64,
}

/// A handle to one process.
#[derive(Debug)]
pub(crate) struct ProcessHandle {
    pub identity: ProcessIdentity,
    fd: AsyncFd<OwnedFd>,
}

impl ProcessIdentity {
    pub(crate) fn of(pid: i32) -> io::Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // The second field is the name in parentheses, which may itself hold spaces and parentheses.
        let after_name = stat.rsplit_once(')').map(|(_, rest)| rest).unwrap_or_default();
        let start_ticks = after_name.split_whitespace().nth(19).and_then(|field| field.parse().ok());
        start_ticks.map(|start_ticks| Self { pid, start_ticks }).ok_or_else(|| io::Error::other("no start time in /proc/<pid>/stat"))
    }
}

impl ProcessHandle {
    /// Fails with `NotFound` when that process is gone.
    pub(crate) fn open(identity: ProcessIdentity) -> io::Result<Self> {
        // SAFETY: pidfd_open takes two integers and returns a new descriptor or -1.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, identity.pid, 0) };
        if fd < 0 {
            let error = io::Error::last_os_error();
            let gone = error.raw_os_error() == Some(libc::ESRCH);
            return Err(if gone { io::ErrorKind::NotFound.into() } else { error });
        }
        // SAFETY: the kernel just gave us this descriptor and nobody else knows it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd as i32) };
        // The number may have been reused before the handle was opened, never after.
        if ProcessIdentity::of(identity.pid).ok() != Some(identity) {
            return Err(io::ErrorKind::NotFound.into());
        }
        // SAFETY: the descriptor is moved in and stays open until the AsyncFd drops it.
        let fd = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE)? };
        Ok(Self { identity, fd })
    }

    /// Returns once the process has ended.
    pub(crate) async fn ended(&self) {
        // The only error is that the runtime shuts down, and then nobody waits any more.
        let _ = self.fd.readable().await;
    }

    /// A copy of one of its descriptors.
    pub(crate) fn copy_descriptor(&self, number: i32) -> io::Result<OwnedFd> {
        // SAFETY: pidfd_getfd takes three integers and returns a new descriptor or -1.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_getfd, self.fd.get_ref().as_raw_fd(), number, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel just gave us this descriptor and nobody else knows it.
        Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
    }

    pub(crate) fn kill(&self) {
        // SAFETY: pidfd_send_signal with a descriptor we own, no siginfo and no flags; a process that has ended answers ESRCH, which is what we want.
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, self.fd.get_ref().as_raw_fd(), libc::SIGKILL, 0usize, 0) };
    }
}
