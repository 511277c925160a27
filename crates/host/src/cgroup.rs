//! Limits of virtual machine processes: a cgroup (v2, plain files) for each, `<hierarchy>/emberbox/<this daemon>/vm-<user number>`.
//!
//! A group holds what its guest was promised and the monitor's own needs, so that a monitor gone wild harms its own guest alone; under load, guests get processor
//! time by their size. Groups are outside of the daemon's own, so whoever ends the daemon's group does not end MicroVMs. Nothing is remembered: which group a
//! process is in the kernel knows, and a group without processes belongs to nobody.
//!
//! Where the host offers no controllers, machines run without limits, and the daemon says so once at its start.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::MachineShape;

const OURS: &str = "emberbox";
const NEEDED: [&str; 3] = ["cpu", "memory", "pids"];
/// What a monitor needs beside its guest's memory: QEMU's own 100 to 200 MiB, and under emulation a translation cache of 512 MiB at most.
const OVERHEAD_MIB: u64 = 768;
/// Threads beside those of the vCPUs: QEMU makes up to 64 for its disks.
const THREADS: u32 = 128;
/// cgroup v2: weights are 1 to 10000, and 100 where nobody says.
const WEIGHT_OF_A_VCPU: u32 = 100;
const MOST_WEIGHT: u32 = 10_000;
/// A process that has ended leaves its group a moment later.
const EMPTY_WITHIN: u32 = 50;
const EMPTY_POLL: Duration = Duration::from_millis(20);

/// Where this daemon's groups are, if the host can limit anything.
#[derive(Debug)]
pub(crate) struct Cgroups {
    parent: Option<PathBuf>,
}

/// The group of one process.
#[derive(Debug)]
pub(crate) struct Group {
    path: PathBuf,
    /// Processes that the kernel had ended in it for want of memory before this one came.
    earlier_kills: u64,
}

/// Why the kernel ended a process for want of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MemoryKill {
    /// The group was at its limit.
    Limit,
    /// The host, or a group above.
    Host,
}

/// Threads that the process of such a machine may have.
pub(crate) fn most_threads(shape: MachineShape) -> u32 {
    THREADS + shape.vcpus
}

impl Cgroups {
    /// Prepares `name` for this daemon's groups, and removes those whose processes have ended while there was no daemon.
    pub(crate) fn start(name: &str) -> Self {
        let parent = hierarchy().and_then(|hierarchy| prepare(&hierarchy, name));
        match &parent {
            Ok(parent) => sweep(parent),
            Err(missing) => {
                tracing::warn!(%missing, "machines run without limits of memory, processes and processor time (see docs/configuration.md)");
            }
        }
        Self { parent: parent.ok() }
    }

    /// A group for a process of user `uid` that waits for its machine; `None` where there are no limits. Moving a process costs the kernel milliseconds that a
    /// launch need not wait for.
    pub(crate) fn prepare(&self, uid: u32) -> io::Result<Option<Group>> {
        let Some(parent) = &self.parent else { return Ok(None) };
        let group = Group { path: parent.join(format!("vm-{uid}")), earlier_kills: 0 };
        match fs::create_dir(&group.path) {
            // Of a process that has just ended: the number is free again, so the group is as good as new.
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => Ok(Some(group)),
        }
    }

    /// The group for the process of user `uid` with a machine, prepared or not; `None` where there are no limits.
    pub(crate) fn create(&self, uid: u32, shape: MachineShape) -> io::Result<Option<Group>> {
        let Some(mut group) = self.prepare(uid)? else { return Ok(None) };
        let memory = (u64::from(shape.memory_mib) + OVERHEAD_MIB) << 20;
        group.write("memory.max", &memory.to_string())?;
        group.write("pids.max", &most_threads(shape).to_string())?;
        group.write("cpu.weight", &(WEIGHT_OF_A_VCPU * shape.vcpus).clamp(1, MOST_WEIGHT).to_string())?;
        group.earlier_kills = group.memory_event("oom_kill");
        Ok(Some(group))
    }
}

impl Group {
    /// The group of a living process, when it is one of ours.
    pub(crate) fn of_process(pid: i32) -> Option<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        let path = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
        let ours = Path::new(path).starts_with(OURS) && path.rsplit('/').next()?.starts_with("vm-");
        Some(Self { path: hierarchy().ok()?.join(path), earlier_kills: 0 }).filter(|_| ours)
    }

    /// Whether both are one.
    pub(crate) fn is(&self, other: &Self) -> bool {
        self.path == other.path
    }

    /// Where a process writes `0` to move in.
    pub(crate) fn entrance(&self) -> io::Result<File> {
        OpenOptions::new().write(true).open(self.path.join("cgroup.procs"))
    }

    /// Moves a process in. What it has used so far stays with the group it comes from.
    pub(crate) fn admit(&self, pid: i32) -> io::Result<()> {
        self.write("cgroup.procs", &pid.to_string())
    }

    /// Whether the kernel has ended a process of the group for want of memory.
    pub(crate) fn memory_kill(&self) -> Option<MemoryKill> {
        let killed = self.memory_event("oom_kill") > self.earlier_kills;
        // Counted at the group whose limit it was.
        let cause = if self.memory_event("oom") > 0 { MemoryKill::Limit } else { MemoryKill::Host };
        killed.then_some(cause)
    }

    /// How often that has happened.
    fn memory_event(&self, name: &str) -> u64 {
        let text = fs::read_to_string(self.path.join("memory.events")).unwrap_or_default();
        let count = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok());
        count.unwrap_or_default()
    }

    /// Removes the group when its process has ended.
    pub(crate) async fn remove(&self) {
        for _ in 0..EMPTY_WITHIN {
            match fs::remove_dir(&self.path) {
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => tokio::time::sleep(EMPTY_POLL).await,
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return tracing::warn!(%error, group = %self.path.display(), "a cgroup could not be removed");
                }
                _ => return,
            }
        }
        tracing::warn!(group = %self.path.display(), "a cgroup is still in use after its process has ended");
    }

    fn write(&self, file: &str, value: &str) -> io::Result<()> {
        fs::write(self.path.join(file), value).map_err(|error| io::Error::new(error.kind(), format!("{file} of a cgroup: {error}")))
    }
}

/// The mount of cgroup v2 that has controllers; an error says what is missing.
fn hierarchy() -> Result<PathBuf, String> {
    let mounts = fs::read_to_string("/proc/self/mounts").map_err(|error| format!("/proc/self/mounts: {error}"))?;
    let path = mounts.lines().find_map(|line| {
        let mut fields = line.split(' ');
        let (path, kind) = (fields.nth(1)?, fields.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(path))
    });
    path.ok_or_else(|| "cgroup v2 is not mounted".to_owned())
}

/// Makes `emberbox/<name>` below the hierarchy's root, controllers handed down.
fn prepare(hierarchy: &Path, name: &str) -> Result<PathBuf, String> {
    let offered = fs::read_to_string(hierarchy.join("cgroup.controllers")).unwrap_or_default();
    let lacking: Vec<&str> = NEEDED.into_iter().filter(|needed| !offered.split_whitespace().any(|found| found == *needed)).collect();
    if !lacking.is_empty() {
        return Err(format!("cgroup v2 at {} does not offer: {}", hierarchy.display(), lacking.join(", ")));
    }
    let ours = hierarchy.join(OURS);
    let parent = ours.join(name);
    fs::create_dir_all(&parent).map_err(|error| format!("{}: {error}", parent.display()))?;
    for group in [hierarchy, &ours, &parent] {
        for controller in NEEDED {
            let file = group.join("cgroup.subtree_control");
            fs::write(&file, format!("+{controller}")).map_err(|error| format!("{}: +{controller}: {error}", file.display()))?;
        }
    }
    Ok(parent)
}

/// The kernel refuses to remove groups that are in use.
fn sweep(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with("vm-") && fs::remove_dir(entry.path()).is_ok() {
            tracing::info!(group = %entry.path().display(), "removed the cgroup of a process that has ended");
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const SHAPE: MachineShape = MachineShape { vcpus: 4, memory_mib: 8192, disk_gib: 8 };

    #[test]
    fn limits_follow_the_size() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("cgroup.controllers"), "cpuset cpu io memory pids\n").unwrap();
        let parent = prepare(directory.path(), "eb07").unwrap();
        for group in ["", "emberbox", "emberbox/eb07"] {
            assert!(directory.path().join(group).join("cgroup.subtree_control").exists(), "{group}");
        }
        let group = Cgroups { parent: Some(parent) }.create(1234, SHAPE).unwrap().unwrap();
        let read = |file| fs::read_to_string(group.path.join(file)).unwrap();
        assert!(group.path.ends_with("emberbox/eb07/vm-1234"));
        assert_eq!(read("memory.max"), ((8192_u64 + 768) << 20).to_string());
        assert_eq!((read("pids.max"), read("cpu.weight")), ("132".into(), "400".into()));
    }

    #[test]
    fn a_kill_for_want_of_memory_is_told_from_others_and_from_earlier_ones() {
        let directory = tempfile::tempdir().unwrap();
        let cgroups = Cgroups { parent: Some(directory.path().to_path_buf()) };
        let count = |oom: u32, kills: u32| {
            let text = format!("low 0\nhigh 0\nmax 12\noom {oom}\noom_kill {kills}\noom_group_kill 0\n");
            fs::write(directory.path().join("vm-7/memory.events"), text).unwrap();
        };
        let group = cgroups.create(7, SHAPE).unwrap().unwrap();
        assert_eq!(group.memory_kill(), None, "a kernel that does not count");
        for (oom, kills, expected) in [(0, 0, None), (1, 0, None), (1, 1, Some(MemoryKill::Limit)), (0, 1, Some(MemoryKill::Host))] {
            count(oom, kills);
            assert_eq!(group.memory_kill(), expected);
        }
        let next = cgroups.create(7, SHAPE).unwrap().unwrap();
        assert_eq!(next.memory_kill(), None, "that was the one before");
        count(1, 2);
        assert_eq!(next.memory_kill(), Some(MemoryKill::Limit));
    }

    #[test]
    fn what_the_host_lacks_is_named() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("cgroup.controllers"), "cpu io\n").unwrap();
        assert!(prepare(directory.path(), "eb07").unwrap_err().ends_with("does not offer: memory, pids"));
        assert!(Cgroups { parent: None }.create(1, SHAPE).unwrap().is_none());
    }
}
