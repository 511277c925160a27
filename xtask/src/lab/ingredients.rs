//! What the outer machine boots from: made once from Debian packages by `xtask/lab/build`, and the managed base on a disk of its own.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use crate::workspace::Workspace;

/// What the root and the initramfs are made of; `start` comes with the checkout at each run.
const RECIPE: [&str; 5] =
    ["xtask/lab/build", "xtask/lab/init", "xtask/lab/root.packages", "xtask/lab/modules.boot", "tests/requirements.txt"];

/// The recipe's text as it was, beside what was made of it.
const MADE_OF: &str = "recipe";

pub(super) struct Ingredients {
    /// Held in common by labs that run; whoever makes the files anew holds it alone.
    _lock: File,
    /// A directory with QEMU and all that it needs, whatever the host has.
    pub emulator: PathBuf,
    pub kernel: PathBuf,
    pub initramfs: PathBuf,
    /// The root disk all runs start from. Never written: each run has a layer above it.
    pub root: PathBuf,
    /// The managed base, if it has been made.
    pub base: Option<PathBuf>,
}

impl Ingredients {
    pub(super) fn ensure(workspace: &Workspace, lab: &Path, rebuild: bool) -> anyhow::Result<Self> {
        fs::create_dir_all(lab).with_context(|| format!("making {}", lab.display()))?;
        forget_abandoned_runs(lab)?;
        let recipe = RECIPE
            .iter()
            .map(|name| fs::read(workspace.root.join(name)).with_context(|| format!("reading {name}")))
            .collect::<Result<Vec<_>, _>>()?
            .concat();
        let lock = File::create(lab.join("lock")).context("making the lab's lock")?;
        lock.lock_shared().context("locking the lab")?;
        let base = base_disk(&workspace.base, lab)?;
        let lacks_base = || base.as_ref().is_some_and(|disk| !disk.exists());
        if rebuild || !is_current(&recipe, lab) || lacks_base() {
            lock_alone(&lock)?;
            // Another lab may have made them meanwhile.
            if rebuild || !is_current(&recipe, lab) {
                build(workspace, &recipe, lab)?;
            }
            if let Some(disk) = base.as_ref().filter(|_| lacks_base()) {
                make_base_disk(&workspace.base, lab, disk)?;
            }
            lock.lock_shared().context("locking the lab")?;
        }
        let file = |name| lab.join(name);
        Ok(Self {
            _lock: lock,
            emulator: file("emulator"),
            kernel: file("vmlinuz"),
            initramfs: file("initramfs"),
            root: file("root.ext4"),
            base,
        })
    }
}

fn lock_alone(lock: &File) -> anyhow::Result<()> {
    // One that waits with a lock held in common would keep another that waits out for good.
    lock.unlock().context("unlocking the lab")?;
    if lock.try_lock().is_err() {
        eprintln!("lab: its root is to be made anew: waiting for the labs that run from it");
        lock.lock().context("locking the lab")?;
    }
    Ok(())
}

/// A run that was killed with -9 leaves its directory. The directory's owner holds no lock, but its age tells: no run takes a day.
fn forget_abandoned_runs(lab: &Path) -> anyhow::Result<()> {
    const LONGER_THAN_ANY_RUN: std::time::Duration = std::time::Duration::from_secs(86_400);
    for entry in fs::read_dir(lab)?.flatten() {
        let old = entry.metadata()?.modified()?.elapsed().is_ok_and(|age| age > LONGER_THAN_ANY_RUN);
        if old && entry.file_name().as_encoded_bytes().starts_with(b"run-") {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

/// Made of this very recipe. Debian's updates are for `--rebuild` and for CI's fresh machines: a test run must not wait for the archive.
fn is_current(recipe: &[u8], lab: &Path) -> bool {
    let files = ["emulator", "vmlinuz", "initramfs", "root.ext4"].iter().all(|name| lab.join(name).exists());
    files && fs::read(lab.join(MADE_OF)).is_ok_and(|made_of| made_of == recipe)
}

fn build(workspace: &Workspace, recipe: &[u8], lab: &Path) -> anyhow::Result<()> {
    eprintln!("lab: making its root from Debian packages: a minute or two");
    let status = Command::new(workspace.root.join("xtask/lab/build"))
        .args([Path::new("--python"), &workspace.python(), Path::new("--out"), lab, Path::new("--cache"), &workspace.package_cache()])
        .stdout(std::io::stderr())
        .status()
        .context("running xtask/lab/build")?;
    if !status.success() {
        bail!("the lab's root could not be made");
    }
    fs::write(lab.join(MADE_OF), recipe).context("noting the recipe")
}

/// Where the base's files are on a disk, once that has been made: one for each base.
fn base_disk(base: &Path, lab: &Path) -> anyhow::Result<Option<PathBuf>> {
    let Ok(description) = fs::read_to_string(base.join("base.json")) else {
        eprintln!("lab: no managed base at {} (make base): /lab/base will be missing", base.display());
        return Ok(None);
    };
    let description: serde_json::Value = serde_json::from_str(&description).context("reading base.json")?;
    let key = description["key"].as_str().context("base.json has no key")?;
    Ok(Some(lab.join(format!("base-{key}.ext4"))))
}

/// In place of those of former bases.
fn make_base_disk(base: &Path, lab: &Path, disk: &Path) -> anyhow::Result<()> {
    for old in fs::read_dir(lab)?.flatten().filter(|entry| entry.file_name().as_encoded_bytes().starts_with(b"base-")) {
        fs::remove_file(old.path())?;
    }
    let new = disk.with_extension("new");
    make_disk(base, &new)?;
    fs::rename(&new, disk)?;
    Ok(())
}

/// An ext4 disk that holds a directory and nothing more. Holes stay holes.
pub(super) fn make_disk(directory: &Path, disk: &Path) -> anyhow::Result<()> {
    /// File systems need room for inodes and maps beside the data.
    const SPARE: u64 = 64 << 20;
    let bytes = allocated(directory)?;
    let file = File::create(disk).with_context(|| format!("making {}", disk.display()))?;
    file.set_len(bytes + bytes / 16 + SPARE)?;
    let output = Command::new("mke2fs")
        .args(["-q", "-F", "-t", "ext4", "-O", "^has_journal", "-m", "0", "-E", "root_owner=0:0", "-d"])
        .args([directory, disk])
        .env("PATH", path_with_sbin())
        .output()
        .context("running mke2fs (e2fsprogs)")?;
    if !output.status.success() {
        bail!("mke2fs could not put {} on a disk: {}", directory.display(), String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

fn path_with_sbin() -> String {
    format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default())
}

/// What the files below take on disk.
fn allocated(directory: &Path) -> anyhow::Result<u64> {
    /// At least a block each, and room for its inode.
    const PER_FILE: u64 = 8192;
    let mut bytes = 0;
    for entry in fs::read_dir(directory).with_context(|| format!("reading {}", directory.display()))? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        bytes += PER_FILE + if metadata.is_dir() { allocated(&entry.path())? } else { metadata.blocks() * 512 };
    }
    Ok(bytes)
}
