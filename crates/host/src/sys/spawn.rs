//! Starting a virtual machine process: in its cell, as a user of its own, with nothing inherited but what is named.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sched::{CloneFlags, unshare};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid, setsid, write};

use super::namespace::NetworkNamespace;

/// What a virtual machine process is confined to before it is executed.
pub(crate) struct Confinement {
    /// User and group of this process alone.
    pub uid: u32,
    /// Supplementary group, for `/dev/kvm`.
    pub group: Option<u32>,
    pub namespace: NetworkNamespace,
    /// The `cgroup.procs` of the cgroup it lives in.
    pub entrance: Option<File>,
    pub open_files: u64,
    /// Its user's, which is its own.
    pub threads: u64,
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

/// Executes `command` as root in a pid namespace of its own, for a program that confines itself and begins a session. It inherits nothing but its output and
/// `inherited`, under the same numbers.
///
/// Nothing is done between fork and exec, so the child never has a copy of this process: what a daemon with much memory takes for that, launches would wait for.
pub(crate) fn spawn_to_be_jailed(mut command: Command, inherited: &[OwnedFd]) -> io::Result<Child> {
    // The namespace is for children of the thread that asks, and the flags of descriptors are those of its own table: of a thread that ends with this. It owns
    // no descriptor that is open here, or would close its own alone.
    let spawn = || {
        unshare(CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_FILES)?;
        inherited.iter().try_for_each(keep_over_exec)?;
        command.spawn()
    };
    std::thread::scope(|scope| scope.spawn(spawn).join()).map_err(|_| io::Error::other("a thread that starts a process panicked"))?
}

fn confine(to: &Confinement) -> io::Result<()> {
    setsid()?;
    if let Some(entrance) = &to.entrance {
        // "0" is whoever writes.
        write(entrance, b"0")?;
    }
    to.namespace.enter()?;
    unshare(CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS)?;
    for fd in &to.inherited {
        keep_over_exec(fd)?;
    }
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    setrlimit(Resource::RLIMIT_NOFILE, to.open_files, to.open_files)?;
    // Not above what this process has: a container's root may not raise it.
    let threads = getrlimit(Resource::RLIMIT_NPROC)?.0.min(to.threads);
    setrlimit(Resource::RLIMIT_NPROC, threads, threads)?;
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

/// An in-memory file that confined processes can read and map as code. Sealed: all of them get the same file, and none may change it for the others.
pub(crate) fn sealed_file(name: &std::ffi::CStr, content: &[u8]) -> io::Result<OwnedFd> {
    use std::io::Write;
    let fd = memfd_create(name, MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
    let mut file = std::fs::File::from(fd);
    file.write_all(content)?;
    fcntl(&file, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL))?;
    Ok(file.into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::io::Write;

    #[test]
    fn nobody_who_holds_a_sealed_file_can_change_it() {
        let fd = sealed_file(c"test", b"code").unwrap();
        let mut copy = std::fs::File::from(fd.try_clone().unwrap());
        assert!(copy.write_all(b"other").is_err());
        let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
        assert!(std::fs::OpenOptions::new().write(true).open(path).and_then(|mut file| file.write_all(b"other")).is_err());
    }
}
