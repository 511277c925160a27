//! Where everything lies in the data directory. All of it belongs to root; virtual machine processes get open descriptors, never a path.
//!
//! ```text
//! images/<key>/root.ext4          the file system the Dockerfile built
//!              disk.qcow2         what the application changed before the snapshot, backed by root.ext4
//!              overlay.qcow2      an empty overlay over disk.qcow2: launches copy it
//!              snapshot/{manifest.json,memory,state}
//! machines/<id>/disk.qcow2        private changes, backed by the image's disk.qcow2
//!              machine.json       which image, which process: what keeps the image from being deleted
//!              still              while its application may be frozen: a daemon that finds it thaws the machine
//!              qmp.sock           the engine's control socket
//!              snapshot/{manifest.json,memory,memory.runs,state}     while suspended; memory.zst instead of memory with `snapshot.compress`
//!              resuming/...                                          the snapshot while a resume has not succeeded
//!              resumed/{memory,memory.runs}                          pages of the last suspension, while running
//! kept/<id>/...                   what is kept of a machine that died: machines/<id> as it was left
//!           image-{disk.qcow2,root.ext4}     links to its image's disks, which it needs longer than the image may exist
//! work/                           half-made things: emptied at start
//! ```

use std::io;
use std::path::{Path, PathBuf};

use crate::{ImageKey, MachineId};

#[derive(Debug, Clone)]
pub(crate) struct Layout {
    root: PathBuf,
}

impl Layout {
    /// To look at, as it is.
    pub(crate) fn at(root: &Path) -> Self {
        Self { root: root.to_path_buf() }
    }

    /// Makes the directories and empties `work`.
    pub(crate) fn prepare(root: &Path) -> io::Result<Self> {
        let layout = Self::at(root);
        match std::fs::remove_dir_all(layout.work()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        for directory in [layout.work(), layout.images(), layout.machines(), layout.kept_root()] {
            std::fs::create_dir_all(directory)?;
        }
        Ok(layout)
    }

    pub(crate) fn work(&self) -> PathBuf {
        self.root.join("work")
    }

    pub(crate) fn images(&self) -> PathBuf {
        self.root.join("images")
    }

    pub(crate) fn machines(&self) -> PathBuf {
        self.root.join("machines")
    }

    /// Which addresses this host's cells use.
    pub(crate) fn network(&self) -> PathBuf {
        self.root.join("network")
    }

    fn kept_root(&self) -> PathBuf {
        self.root.join("kept")
    }

    pub(crate) fn kept(&self, machine: MachineId) -> MachineFiles {
        MachineFiles(self.kept_root().join(machine.to_string()))
    }

    pub(crate) fn kept_machines(&self) -> io::Result<Vec<MachineId>> {
        let names = std::fs::read_dir(self.kept_root())?.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>()?;
        Ok(names.iter().filter_map(|name| name.to_str()?.parse().ok().map(MachineId)).collect())
    }

    pub(crate) fn image(&self, key: &ImageKey) -> ImageFiles {
        ImageFiles(self.images().join(key.as_str()))
    }

    pub(crate) fn machine(&self, machine: MachineId) -> MachineFiles {
        MachineFiles(self.machines().join(machine.to_string()))
    }
}

/// The files of one image version.
#[derive(Debug, Clone)]
pub(crate) struct ImageFiles(pub PathBuf);

impl ImageFiles {
    pub(crate) fn root_disk(&self) -> PathBuf {
        self.0.join("root.ext4")
    }

    pub(crate) fn disk(&self) -> PathBuf {
        self.0.join("disk.qcow2")
    }

    pub(crate) fn overlay_template(&self) -> PathBuf {
        self.0.join("overlay.qcow2")
    }

    pub(crate) fn snapshot(&self) -> SnapshotFiles {
        SnapshotFiles(self.0.join("snapshot"))
    }
}

/// The files of one machine.
#[derive(Debug, Clone)]
pub(crate) struct MachineFiles(pub PathBuf);

impl MachineFiles {
    pub(crate) fn disk(&self) -> PathBuf {
        self.0.join("disk.qcow2")
    }

    /// Of one that is kept: the layers below its disk, by links of its own to the image's files.
    pub(crate) fn image_disk(&self) -> PathBuf {
        self.0.join("image-disk.qcow2")
    }

    pub(crate) fn image_root_disk(&self) -> PathBuf {
        self.0.join("image-root.ext4")
    }

    pub(crate) fn record(&self) -> PathBuf {
        self.0.join("machine.json")
    }

    /// Exists from before the application is frozen, or its process restored, until it has been thawed.
    pub(crate) fn still(&self) -> PathBuf {
        self.0.join("still")
    }

    pub(crate) fn snapshot(&self) -> SnapshotFiles {
        SnapshotFiles(self.0.join("snapshot"))
    }

    /// Where a snapshot is written before it counts.
    pub(crate) fn snapshot_in_progress(&self) -> SnapshotFiles {
        SnapshotFiles(self.0.join("snapshot.new"))
    }

    /// The snapshot while a process is being restored from it: the application has not run.
    pub(crate) fn resuming(&self) -> SnapshotFiles {
        SnapshotFiles(self.0.join("resuming"))
    }

    /// The snapshot a running machine was resumed from: its memory is still mapped.
    pub(crate) fn resumed(&self) -> SnapshotFiles {
        SnapshotFiles(self.0.join("resumed"))
    }
}

/// The files of one snapshot but for its disk.
#[derive(Debug, Clone)]
pub(crate) struct SnapshotFiles(pub PathBuf);

impl SnapshotFiles {
    pub(crate) fn manifest(&self) -> PathBuf {
        self.0.join("manifest.json")
    }

    pub(crate) fn memory(&self) -> PathBuf {
        self.0.join("memory")
    }

    /// Instead of `memory`, where suspensions compress.
    pub(crate) fn packed_memory(&self) -> PathBuf {
        self.0.join("memory.zst")
    }

    pub(crate) fn memory_runs(&self) -> PathBuf {
        self.0.join("memory.runs")
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.0.join("state")
    }

    /// Of an image: the pages that its copies touch when they come up.
    pub(crate) fn working_set(&self) -> PathBuf {
        self.0.join("workingset")
    }
}

/// Writes `path` so that it holds either its old content or all of the new one, whatever happens.
pub(crate) fn write_atomically(path: &Path, content: &[u8]) -> io::Result<()> {
    use std::io::Write;
    let directory = path.parent().ok_or_else(|| io::Error::other("a file has a directory"))?;
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    file.write_all(content)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    sync_directory(directory)
}

/// Makes the names in a directory durable.
pub(crate) fn sync_directory(path: &Path) -> io::Result<()> {
    std::fs::File::open(path)?.sync_all()
}

/// Bytes that a file occupies, holes not counted.
pub(crate) fn occupied_bytes(path: &Path) -> io::Result<u64> {
    use std::os::unix::fs::MetadataExt;
    Ok(std::fs::metadata(path)?.blocks() * 512)
}
