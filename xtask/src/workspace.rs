//! Where the checkout and what is built of it are.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

pub(crate) struct Workspace {
    pub root: PathBuf,
    /// Cargo's target directory, which may lie elsewhere.
    pub target: PathBuf,
    /// The managed base, whether it has been made or not.
    pub base: PathBuf,
}

impl Workspace {
    pub(crate) fn find() -> Self {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
        let root = manifest.parent().unwrap_or(manifest).to_owned();
        let from = |name: &str, default: &str| env::var_os(name).map_or_else(|| root.join(default), |path| root.join(path));
        Self { target: from("CARGO_TARGET_DIR", "target"), base: from("EMBERBOX_BASE", "target/base"), root }
    }

    /// The tests' Python, with pip in it.
    pub(crate) fn python(&self) -> PathBuf {
        env::var_os("EMBERBOX_PYTHON").map_or_else(|| self.root.join("target/venv/bin/python"), PathBuf::from)
    }

    /// Where make keeps the parts that guest/build and the lab's build have made.
    pub(crate) fn package_cache(&self) -> PathBuf {
        self.root.join("target/base-cache")
    }
}

/// Directories of the checkout that are no source.
pub(crate) fn is_source(name: &OsStr) -> bool {
    !matches!(name.to_str(), Some("target" | ".git" | "__pycache__" | ".venv"))
}
