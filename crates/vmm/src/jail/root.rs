//! An empty root directory.

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::{chdir, chroot, pivot_root};

/// Exists on every Linux system; hidden in this mount namespace, and then gone with the old root.
const MOUNT_POINT: &str = "/tmp";

/// Makes an empty, read-only file system the root, and lets go of the old one.
pub(super) fn leave() -> nix::Result<()> {
    let none = None::<&str>;
    // What happens here must not be seen outside.
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("none"), MOUNT_POINT, Some("tmpfs"), flags, Some("size=4k,mode=0555"))?;
    mount(none, MOUNT_POINT, none, flags | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY, none)?;
    chdir(MOUNT_POINT)?;
    match pivot_root(".", ".") {
        Ok(()) => umount2(".", MntFlags::MNT_DETACH)?,
        // On a host that runs from its initramfs the root cannot be exchanged, only covered; without capabilities nobody gets below.
        Err(Errno::EINVAL) => {
            mount(Some("."), "/", none, MsFlags::MS_MOVE, none)?;
            chroot(".")?;
        }
        Err(error) => return Err(error),
    }
    chdir("/")
}
