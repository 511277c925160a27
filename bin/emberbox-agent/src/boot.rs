//! From the kernel's hand-over to a machine that can be served: mounts, modules, a root of its own, the network.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

use anyhow::{Context, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::{chdir, chroot};

use crate::mounts::{self, Mount};
use crate::{console, modules, network};

/// Where the new root is built; a directory of the initramfs.
const NEW_ROOT: &str = "/newroot";

const SYSCTLS: [(&str, &str); 6] = [
    // A dead kernel ends the machine at once; the host sees its process end.
    ("kernel/panic", "-1"),
    ("kernel/printk", "3 4 1 3"),
    // As container engines set it: every group may ping.
    ("net/ipv4/ping_group_range", "0 2147483647"),
    // As container engines set it: applications of USER nobody may listen on port 80.
    ("net/ipv4/ip_unprivileged_port_start", "0"),
    // The link has fixed neighbours; nothing on it announces routes or addresses.
    ("net/ipv6/conf/default/disable_ipv6", "1"),
    ("vm/swappiness", "0"),
];

/// The whole boot. An error here is fatal: there is no one to report it to but the console.
pub(crate) fn boot() -> Result<()> {
    mount_kernel_file_systems()?;
    console::open();
    console::say("kernel file systems mounted");
    let loaded = modules::load(modules::BOOT_LIST)?;
    console::say(&format!("{loaded} modules loaded"));
    move_to_own_root()?;
    console::say("initramfs left");
    set_sysctls();
    network::bring_up()?;
    console::say("network up");
    protect_from_oom();
    Ok(())
}

fn mount_kernel_file_systems() -> Result<()> {
    let plain = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let device = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    let steps = [
        Mount { kind: "proc", target: "/proc", flags: plain, options: "" },
        Mount { kind: "sysfs", target: "/sys", flags: plain, options: "" },
        Mount { kind: "devtmpfs", target: "/dev", flags: device, options: "mode=0755" },
        Mount { kind: "devpts", target: "/dev/pts", flags: device, options: "mode=0620,gid=5,ptmxmode=0666" },
        Mount { kind: "tmpfs", target: "/dev/shm", flags: plain, options: "mode=1777" },
        Mount { kind: "mqueue", target: "/dev/mqueue", flags: plain, options: "" },
        Mount { kind: "tmpfs", target: "/run", flags: MsFlags::MS_NOSUID | MsFlags::MS_NODEV, options: "mode=0755" },
        Mount { kind: "cgroup2", target: "/sys/fs/cgroup", flags: plain, options: "" },
    ];
    for step in steps {
        step.make()?;
    }
    for (name, target) in mounts::DEVICE_LINKS {
        let _ = symlink(target, Path::new("/dev").join(name));
    }
    Ok(())
}

/// Moves from the kernel's rootfs, which pivot_root cannot leave, to a tmpfs, and gives the initramfs' memory back.
fn move_to_own_root() -> Result<()> {
    Mount { kind: "tmpfs", target: NEW_ROOT, flags: MsFlags::MS_NOSUID | MsFlags::MS_NODEV, options: "mode=0755,size=64m" }.make()?;
    modules::keep_extra(Path::new(NEW_ROOT))?;
    for directory in ["proc", "sys", "dev", "run"] {
        let target = Path::new(NEW_ROOT).join(directory);
        fs::create_dir(&target).with_context(|| format!("creating {}", target.display()))?;
        let source = Path::new("/").join(directory);
        mount(Some(&source), &target, None::<&str>, MsFlags::MS_MOVE, None::<&str>)
            .with_context(|| format!("moving {}", source.display()))?;
    }
    let root_device = fs::metadata("/").context("examining the initramfs")?.dev();
    empty_directory(Path::new("/"), root_device);
    chdir(NEW_ROOT).context("entering the new root")?;
    mount(Some("."), "/", None::<&str>, MsFlags::MS_MOVE, None::<&str>).context("moving the new root to /")?;
    chroot(".").context("changing to the new root")?;
    chdir("/").context("entering /")
}

/// Deletes what lies on `device` below `directory`. What cannot be deleted costs memory and nothing else.
fn empty_directory(directory: &Path, device: u64) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        match fs::symlink_metadata(&path) {
            Ok(found) if found.dev() != device => continue,
            Ok(found) if found.is_dir() => {
                empty_directory(&path, device);
                let _ = fs::remove_dir(&path);
            }
            _ => drop(fs::remove_file(&path)),
        }
    }
}

fn set_sysctls() {
    for (name, value) in SYSCTLS {
        if let Err(error) = fs::write(Path::new("/proc/sys").join(name), value) {
            console::say(&format!("sysctl {name}: {error}"));
        }
    }
}

/// When memory runs out, an application must die before the agent that reports it.
fn protect_from_oom() {
    let _ = fs::write("/proc/self/oom_score_adj", "-1000");
}

/// Detaches whatever is mounted at `target`, for clean-up paths that have nothing better to do with an error.
pub(crate) fn detach(target: &Path) {
    let _ = umount2(target, MntFlags::MNT_DETACH);
}
