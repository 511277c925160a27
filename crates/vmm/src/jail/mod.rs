//! Confinement of the monitor, before it has read a byte of a guest.
//!
//! The daemon starts it as root in a pid namespace of its own with nothing open but its control socket, `/dev/kvm` and its log. It then gives up, in this
//! order: the daemon's session, the host's namespaces (mounts, network, IPC, names), the file system (its root is an empty read-only one), names of files for
//! good (Landlock, where the kernel has it), all capabilities, its user, and every system call that it does not need. From then on it can only use what is
//! handed to it open. A monitor that cannot be confined does not run.

mod landlock;
mod privileges;
mod root;
pub(crate) mod seccomp;
mod seccomp_kvm;

use std::io;

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::setsid;

/// What was given up could not be, by its name.
#[derive(Debug, thiserror::Error)]
pub enum JailError {
    #[error("could not begin a session")]
    Session(#[source] nix::Error),
    #[error("could not leave the host's namespaces")]
    Namespaces(#[source] nix::Error),
    #[error("could not move into an empty root")]
    Root(#[source] nix::Error),
    #[error("could not give up names of files")]
    Landlock(#[source] io::Error),
    #[error("could not give up privileges")]
    Privileges(#[source] io::Error),
    #[error("could not install the filter of system calls")]
    Filter(#[source] io::Error),
}

/// Confines the calling process, which has one thread.
pub(crate) fn enter(uid: u32) -> Result<(), JailError> {
    // Outlives the daemon's terminal. The leader of a process group has left that already.
    match setsid() {
        Ok(_) | Err(Errno::EPERM) => {}
        Err(error) => return Err(JailError::Session(error)),
    }
    let namespaces = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS;
    unshare(namespaces).map_err(JailError::Namespaces)?;
    root::leave().map_err(JailError::Root)?;
    privileges::limit().map_err(JailError::Privileges)?;
    privileges::drop_all(uid).map_err(JailError::Privileges)?;
    landlock::deny_all().map_err(JailError::Landlock)?;
    seccomp::confine(seccomp::ThreadKind::Main).map_err(JailError::Filter)
}
