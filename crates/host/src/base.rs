//! The managed base: the kernel, the initramfs with the agent, and the builder's root disk, as `guest/build` makes them.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// The form of `base.json` that this version reads.
const FORMAT: u32 = 1;

#[derive(Debug, Clone)]
pub(crate) struct Base {
    directory: PathBuf,
    pub name: String,
    pub debian: String,
}

#[derive(Deserialize)]
struct Description {
    format: u32,
    name: String,
    debian: String,
}

#[derive(Debug, thiserror::Error)]
pub enum BaseError {
    #[error("no managed base in {}: make one with `guest/build` (see guest/README.md)", .directory.display())]
    Missing {
        directory: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{}/base.json is damaged or of another version: make the base again with `guest/build`", .directory.display())]
    Damaged { directory: PathBuf },
}

impl Base {
    pub(crate) fn open(directory: &Path) -> Result<Self, BaseError> {
        let missing = |source| BaseError::Missing { directory: directory.to_path_buf(), source };
        let text = std::fs::read(directory.join("base.json")).map_err(missing)?;
        let base = serde_json::from_slice(&text).ok().filter(|description: &Description| description.format == FORMAT);
        let Some(Description { name, debian, .. }) = base else {
            return Err(BaseError::Damaged { directory: directory.to_path_buf() });
        };
        let directory = directory.canonicalize().map_err(missing)?;
        let base = Self { directory, name, debian };
        for path in [base.path("vmlinuz"), base.path("initramfs"), base.builder_disk()] {
            std::fs::metadata(path).map_err(missing)?;
        }
        Ok(base)
    }

    pub(crate) fn kernel(&self) -> io::Result<File> {
        File::open(self.path("vmlinuz"))
    }

    pub(crate) fn initramfs(&self) -> io::Result<File> {
        File::open(self.path("initramfs"))
    }

    pub(crate) fn builder_disk(&self) -> PathBuf {
        self.path("builder.ext4")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}
