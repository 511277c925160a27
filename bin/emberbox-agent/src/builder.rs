//! Root disks that commands run in: each has one mount namespace that all its commands share, so that what one mounts the next one finds.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::rc::Rc;

use anyhow::{Context, Result};
use emberbox_agent_protocol::DNS_ADDRESS;
use nix::mount::MsFlags;
use nix::sched::{CloneFlags, setns, unshare};

use crate::cgroup::Cgroup;
use crate::container::filesystem::enter_root;
use crate::mounts::{Mount, Root};
use crate::{disks, modules};

const FILES: &str = "/run/emberbox/builder";
const RESOLV_CONF: &str = "/run/emberbox/builder/resolv.conf";
/// Every attached disk by its serial.
const DISK_LINKS: &str = "/dev/emberbox";

/// The mount namespaces by the serial of their root disk.
#[derive(Default)]
pub(crate) struct Builders {
    namespaces: RefCell<HashMap<String, Rc<File>>>,
    runs: Cell<u64>,
}

impl Builders {
    /// A number no other command of this machine has.
    pub(crate) fn next_run(&self) -> u64 {
        self.runs.set(self.runs.get() + 1);
        self.runs.get()
    }

    /// The mount namespace in which `root_disk` is `/`, made on first use.
    pub(crate) async fn namespace(&self, root_disk: &str) -> Result<Rc<File>> {
        if let Some(found) = self.namespaces.borrow().get(root_disk) {
            return Ok(found.clone());
        }
        let root = disks::mount_root(root_disk).await?;
        // From here on nothing awaits: two first commands cannot both get here.
        if self.namespaces.borrow().is_empty() {
            prepare_machine()?;
        }
        let namespace = Rc::new(make_namespace(&root)?);
        self.namespaces.borrow_mut().insert(root_disk.to_owned(), namespace.clone());
        Ok(namespace)
    }
}

/// What a builder needs of the machine, once.
fn prepare_machine() -> Result<()> {
    modules::load_extra();
    Cgroup::delegate_controllers();
    fs::create_dir_all(FILES).context("creating the builder's files")?;
    fs::write(RESOLV_CONF, format!("nameserver {DNS_ADDRESS}\n")).context("writing resolv.conf")?;
    fs::create_dir_all(DISK_LINKS).context("creating /dev/emberbox")?;
    for (serial, device) in disks::attached().iter().filter(|(serial, _)| !serial.contains('/')) {
        let _ = symlink(format!("../{device}"), Path::new(DISK_LINKS).join(serial));
    }
    Ok(())
}

/// Makes the namespace by going there and coming back, which a process of one thread may.
fn make_namespace(root: &Path) -> Result<File> {
    let home = File::open("/proc/self/ns/mnt").context("opening the mount namespace")?;
    unshare(CloneFlags::CLONE_NEWNS).context("making a mount namespace")?;
    let made = furnish(root).and_then(|()| File::open("/proc/self/ns/mnt").context("opening the new mount namespace"));
    // A PID 1 that cannot find home is of no use: its end is the machine's end.
    setns(&home, CloneFlags::CLONE_NEWNS).expect("the namespace this process came from can be entered again");
    made
}

fn furnish(path: &Path) -> Result<()> {
    let root = Root::open(path)?;
    let device = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    let plain = device | MsFlags::MS_NODEV;
    let open = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    let steps = [
        Mount { kind: "proc", target: "/proc", flags: plain, options: "" },
        Mount { kind: "sysfs", target: "/sys", flags: plain, options: "" },
        Mount { kind: "cgroup2", target: "/sys/fs/cgroup", flags: plain, options: "" },
        Mount { kind: "devtmpfs", target: "/dev", flags: device, options: "" },
        Mount { kind: "devpts", target: "/dev/pts", flags: device, options: "newinstance,mode=0620,gid=5,ptmxmode=0666" },
        Mount { kind: "tmpfs", target: "/dev/shm", flags: plain, options: "mode=1777" },
        Mount { kind: "mqueue", target: "/dev/mqueue", flags: plain, options: "" },
        Mount { kind: "tmpfs", target: "/run", flags: open, options: "mode=0755" },
        Mount { kind: "tmpfs", target: "/tmp", flags: open, options: "mode=1777" },
    ];
    for step in steps {
        step.make_in(&root)?;
    }
    root.bind_file(Path::new(RESOLV_CONF), "/etc/resolv.conf", false)?;
    enter_root(&root)
}
