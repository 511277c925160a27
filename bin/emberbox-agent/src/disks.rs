//! Disks by serial.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use emberbox_agent_protocol::Disk;
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};

/// Disks are probed beside the boot; a serial that is not there after this long was never attached.
const APPEARANCE: Duration = Duration::from_secs(5);
const APPEARANCE_POLL: Duration = Duration::from_millis(10);

/// Every attached disk: its serial and its kernel name (`vda`).
pub(crate) fn attached() -> Vec<(String, String)> {
    let Ok(entries) = fs::read_dir("/sys/block") else { return Vec::new() };
    let with_serial = |entry: fs::DirEntry| {
        let serial = fs::read_to_string(entry.path().join("serial")).ok()?;
        let name = entry.file_name().into_string().ok()?;
        let serial = serial.trim_matches(|c: char| c.is_whitespace() || c == '\0');
        (!serial.is_empty()).then(|| (serial.to_owned(), name))
    };
    entries.flatten().filter_map(with_serial).collect()
}

/// The block device of a disk.
pub(crate) async fn device(serial: &str) -> Result<PathBuf> {
    let deadline = tokio::time::Instant::now() + APPEARANCE;
    loop {
        if let Some((_, name)) = attached().into_iter().find(|(found, _)| found == serial) {
            return Ok(Path::new("/dev").join(name));
        }
        if tokio::time::Instant::now() > deadline {
            bail!("no disk with serial {serial} is attached");
        }
        tokio::time::sleep(APPEARANCE_POLL).await;
    }
}

/// Mounts a disk's ext4 file system in the agent's tree, once, and returns where.
pub(crate) async fn mount_root(serial: &str) -> Result<PathBuf> {
    let device = device(serial).await?;
    let name = device.file_name().context("a device without a name")?;
    let target = Path::new("/disks").join(name);
    if is_mounted(&target) {
        return Ok(target);
    }
    fs::create_dir_all(&target).with_context(|| format!("creating {}", target.display()))?;
    mount_ext4(&device, &target, false).with_context(|| format!("mounting disk {serial}"))?;
    Ok(target)
}

/// Mounts a further disk on `target`; one that is mounted there already stays.
pub(crate) fn mount_at(device: &Path, disk: &Disk, target: &Path) -> Result<()> {
    if is_mounted(target) {
        return Ok(());
    }
    fs::create_dir_all(target).with_context(|| format!("creating {}", target.display()))?;
    mount_ext4(device, target, disk.read_only).with_context(|| format!("mounting disk {} on {}", disk.serial, target.display()))
}

/// No access times and no background initialisation: what an idle guest writes is copied into its overlay.
fn mount_ext4(device: &Path, target: &Path, read_only: bool) -> nix::Result<()> {
    let (flags, options) = if read_only { (MsFlags::MS_RDONLY, "") } else { (MsFlags::MS_NOATIME, "noinit_itable") };
    match mount(Some(device), target, Some("ext4"), flags, Some(options)) {
        // A read-only device whose journal needs no replay.
        Err(Errno::EROFS | Errno::EACCES) if read_only => mount(Some(device), target, Some("ext4"), flags, Some("noload")),
        done => done,
    }
}

fn is_mounted(path: &Path) -> bool {
    let Ok(table) = fs::read_to_string("/proc/self/mounts") else { return false };
    table.lines().any(|line| line.split(' ').nth(1) == path.to_str())
}
