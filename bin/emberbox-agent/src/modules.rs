//! Kernel modules: those every guest needs are loaded at boot, the others when something may use them.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::kmod::{ModuleInitFlags, finit_module};

/// Written by the recipe of the initramfs: one absolute path a line, in order of dependency.
pub(crate) const BOOT_LIST: &str = "/modules/load.list";
/// As [`BOOT_LIST`], for guests with all capabilities and for builders.
pub(crate) const EXTRA_LIST: &str = "/modules/extra.list";

/// Loads every module of `list`. Returns their number.
pub(crate) fn load(list: &str) -> Result<usize> {
    let paths = read_list(Path::new(list))?;
    for path in &paths {
        load_one(path)?;
    }
    Ok(paths.len())
}

/// Loads the extra modules, once, and gives their files' memory back. One that does not load is reported and left out.
pub(crate) fn load_extra() {
    for path in read_list(Path::new(EXTRA_LIST)).unwrap_or_default() {
        if let Err(error) = load_one(&path) {
            crate::console::say(&format!("{error:#}"));
        }
    }
    forget_extra();
}

/// Gives the memory of the extra modules' files back, once it is clear that nothing will need them.
pub(crate) fn forget_extra() {
    let _ = fs::remove_dir_all("/modules");
}

/// Copies the extra modules below `new_root`, which outlives the initramfs.
pub(crate) fn keep_extra(new_root: &Path) -> Result<()> {
    let mut files = read_list(Path::new(EXTRA_LIST))?;
    if files.is_empty() {
        return Ok(());
    }
    files.push(PathBuf::from(EXTRA_LIST));
    for file in files {
        let kept = new_root.join(file.strip_prefix("/").unwrap_or(&file));
        if let Some(parent) = kept.parent() {
            fs::create_dir_all(parent).with_context(|| format!("creating {}", parent.display()))?;
        }
        fs::copy(&file, &kept).with_context(|| format!("keeping {}", file.display()))?;
    }
    Ok(())
}

fn read_list(list: &Path) -> Result<Vec<PathBuf>> {
    match fs::read_to_string(list) {
        Ok(text) => Ok(parse_list(&text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error).with_context(|| format!("reading {}", list.display())),
    }
}

fn parse_list(text: &str) -> Vec<PathBuf> {
    text.lines().map(str::trim).filter(|line| line.starts_with('/')).map(PathBuf::from).collect()
}

fn load_one(path: &Path) -> Result<()> {
    let file = File::open(path).with_context(|| format!("opening module {}", path.display()))?;
    match finit_module(&file, c"", ModuleInitFlags::empty()) {
        Ok(()) | Err(Errno::EEXIST) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("loading module {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_absolute_paths_in_order() {
        let paths = parse_list("/modules/virtio_ring.ko\n\n # no\n/modules/virtio_blk.ko \n");
        assert_eq!(paths, [Path::new("/modules/virtio_ring.ko"), Path::new("/modules/virtio_blk.ko")]);
    }
}
