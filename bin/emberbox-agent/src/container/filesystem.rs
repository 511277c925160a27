//! What the container sees as `/`.

use std::path::Path;

use anyhow::{Context, Result};
use emberbox_agent_protocol::Capabilities;
use nix::mount::{MntFlags, MsFlags, umount2};
use nix::unistd::{chdir, fchdir, pivot_root};

use super::identity::Files;
use crate::mounts::{DEVICE_LINKS, Mount, Root};

/// Devices every container has: name, major, minor.
const DEVICES: [(&str, u64, u64); 6] = [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

/// Hidden, and read-only, as container engines do: what tells of, or reaches, the machine below.
const MASKED: [&str; 11] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

const PLAIN: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV).union(MsFlags::MS_NOEXEC);
const DEVICE: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NOEXEC);

/// In the child, in its own mount, pid and cgroup namespaces: furnishes the disk mounted at `path` and makes it `/`.
pub(crate) fn enter(path: &Path, files: &Files, capabilities: Capabilities) -> Result<()> {
    let root = Root::open(path)?;
    Mount { kind: "proc", target: "/proc", flags: PLAIN, options: "" }.make_in(&root)?;
    mount_sys(&root, capabilities)?;
    match capabilities {
        Capabilities::Restricted => make_devices(&root)?,
        Capabilities::All => mount_all_devices(&root)?,
    }
    mount_device_file_systems(&root)?;
    if capabilities == Capabilities::Restricted {
        READ_ONLY.iter().try_for_each(|path| root.protect(path))?;
        MASKED.iter().try_for_each(|path| root.mask(path))?;
    }
    // After the protection of /proc/sys, which would hide what is mounted below.
    files.mount(&root)?;
    enter_root(&root)
}

fn mount_sys(root: &Root, capabilities: Capabilities) -> Result<()> {
    let flags = match capabilities {
        Capabilities::Restricted => PLAIN | MsFlags::MS_RDONLY,
        Capabilities::All => PLAIN,
    };
    Mount { kind: "sysfs", target: "/sys", flags, options: "" }.make_in(root)?;
    Mount { kind: "cgroup2", target: "/sys/fs/cgroup", flags, options: "" }.make_in(root)
}

fn make_devices(root: &Root) -> Result<()> {
    Mount { kind: "tmpfs", target: "/dev", flags: MsFlags::MS_NOSUID, options: "mode=0755,size=64m" }.make_in(root)?;
    for (name, major, minor) in DEVICES {
        root.character_device("/dev", name, major, minor)?;
    }
    for (name, target) in DEVICE_LINKS {
        root.link("/dev", name, target)?;
    }
    root.link("/dev", "ptmx", "pts/ptmx")
}

fn mount_all_devices(root: &Root) -> Result<()> {
    Mount { kind: "devtmpfs", target: "/dev", flags: DEVICE, options: "" }.make_in(root)
}

fn mount_device_file_systems(root: &Root) -> Result<()> {
    let pts = "newinstance,ptmxmode=0666,mode=0620,gid=5";
    Mount { kind: "devpts", target: "/dev/pts", flags: DEVICE, options: pts }.make_in(root)?;
    Mount { kind: "tmpfs", target: "/dev/shm", flags: PLAIN, options: "mode=1777,size=64m" }.make_in(root)?;
    Mount { kind: "mqueue", target: "/dev/mqueue", flags: PLAIN, options: "" }.make_in(root)
}

/// Makes `root` the `/` of this mount namespace and lets go of the old one.
pub(crate) fn enter_root(root: &Root) -> Result<()> {
    fchdir(root.descriptor()).context("entering the root disk")?;
    // The old root is stacked on the new one, and there taken away again: no directory is needed for it.
    pivot_root(".", ".").context("changing the root")?;
    umount2(".", MntFlags::MNT_DETACH).context("leaving the old root")?;
    chdir("/").context("entering /")
}
