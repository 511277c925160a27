//! Starting a virtual machine process: in its cell, as a user of its own, with nothing inherited but what is named.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid, setsid};

use super::namespace::NetworkNamespace;

/// What a virtual machine process is confined to before it is executed.
pub(crate) struct Confinement {
    /// User and group of this process alone.
    pub uid: u32,
    /// Supplementary group, for `/dev/kvm`.
    pub group: Option<u32>,
    pub namespace: NetworkNamespace,
    pub open_files: u64,
    /// Descriptors the process inherits under the same numbers.
    pub inherited: Vec<OwnedFd>,
}

/// Executes `command` so confined. The child is a session leader: it outlives the daemon and its terminal.
pub(crate) fn spawn_confined(mut command: Command, confinement: Confinement) -> io::Result<Child> {
    let prepare = move || confine(&confinement);
    // SAFETY: between fork and exec only system calls are made; everything they need was allocated before, in `confinement`.
    unsafe { command.pre_exec(prepare) };
    command.spawn()
}

fn confine(to: &Confinement) -> io::Result<()> {
    setsid()?;
    to.namespace.enter()?;
    unshare(CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS)?;
    for fd in &to.inherited {
        keep_over_exec(fd)?;
    }
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    setrlimit(Resource::RLIMIT_NOFILE, to.open_files, to.open_files)?;
    let gid = Gid::from_raw(to.uid);
    match to.group {
        Some(group) => setgroups(&[Gid::from_raw(group)])?,
        None => setgroups(&[])?,
    }
    setresgid(gid, gid, gid)?;
    let uid = Uid::from_raw(to.uid);
    setresuid(uid, uid, uid)?;
    prctl::set_no_new_privs()?;
    Ok(())
}

fn keep_over_exec(fd: &OwnedFd) -> io::Result<()> {
    // SAFETY: F_SETFD on a descriptor we own changes its close-on-exec flag and nothing else.
    match unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFD, 0) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// An in-memory file of the daemon that a confined process can read and map as code.
pub(crate) fn memory_file(name: &std::ffi::CStr, content: &[u8]) -> io::Result<OwnedFd> {
    use std::io::Write;
    let fd = nix::sys::memfd::memfd_create(name, nix::sys::memfd::MFdFlags::MFD_CLOEXEC)?;
    let mut file = std::fs::File::from(fd);
    file.write_all(content)?;
    Ok(file.into())
}
