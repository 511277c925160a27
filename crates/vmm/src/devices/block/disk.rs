//! The host's side of a disk: layers of files, opened by the daemon. A layer's own idea of what backs it is never followed.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

use imago::io_buffers::{IoVector, IoVectorMut};
use imago::qcow2::Qcow2;
use imago::raw::Raw;
use imago::{DenyImplicitOpenGate, FormatAccess, FormatDriverBuilder, Mapping};
use serde::{Deserialize, Serialize};
use vm_memory::VolatileSlice;

use super::structure;
use super::together::MAX_EXTENTS;

pub(super) const SECTOR: u64 = 512;

/// How a layer is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DiskFormat {
    Raw,
    Qcow2,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum DiskError {
    #[error("a disk has no layers")]
    Empty,
    #[error("could not open layer {layer} of disk {serial}")]
    Open {
        serial: String,
        layer: usize,
        #[source]
        source: io::Error,
    },
}

type Layers = FormatAccess<imago::file::File>;

/// A disk as its device sees it. Used by one thread.
pub(crate) struct Disk {
    pub(super) serial: String,
    pub(super) read_only: bool,
    access: Layers,
    /// Of its layers, the one that is written first: the address of the library's own view of the file, and the file's descriptor, which that view owns.
    views: Vec<usize>,
    descriptors: Vec<RawFd>,
}

/// Bytes of a disk that lie behind each other in one of its files.
pub(super) struct Extent {
    /// By its place among the disk's [`Disk::descriptors`].
    pub(super) file: u32,
    pub(super) offset: u64,
    pub(super) length: u64,
}

impl Disk {
    /// A disk of these layers, the one that is written first; the last backs all others.
    pub(crate) fn open(serial: String, read_only: bool, layers: Vec<(DiskFormat, File)>) -> Result<Self, DiskError> {
        let descriptors = layers.iter().map(|(_, file)| file.as_raw_fd()).collect();
        let mut views = Vec::with_capacity(layers.len());
        let mut backing: Option<Arc<Layers>> = None;
        for (index, (format, file)) in layers.into_iter().enumerate().rev() {
            let write = index == 0 && !read_only;
            let access = open_layer(format, file, write, backing.take()).map_err(|source| DiskError::Open {
                serial: serial.clone(),
                layer: index,
                source,
            })?;
            // Those of what backs it come first.
            views.insert(0, access.inner().collect_storage_dependencies().last().map_or(0, |view| std::ptr::from_ref(*view).addr()));
            if index == 0 {
                return Ok(Self { serial, read_only, access, views, descriptors });
            }
            backing = Some(Arc::new(access));
        }
        Err(DiskError::Empty)
    }

    /// The files of its layers, open for as long as the disk is.
    pub(super) fn descriptors(&self) -> &[RawFd] {
        &self.descriptors
    }

    /// Where these bytes lie. None when they are not in files as they are, all of them, or in too many places.
    pub(super) fn extents(&self, mut offset: u64, mut length: u64) -> Option<Vec<Extent>> {
        let mut extents = Vec::new();
        while length > 0 {
            let (mapping, covered) = self.access.get_mapping(offset, length).ok()?;
            let Mapping::Raw { storage, offset: at, .. } = mapping else { return None };
            let view = std::ptr::from_ref(storage).addr();
            let file = self.views.iter().position(|known| *known == view)? as u32;
            if covered == 0 || extents.len() == MAX_EXTENTS {
                return None;
            }
            extents.push(Extent { file, offset: at, length: covered });
            offset += covered;
            length -= covered;
        }
        Some(extents)
    }

    pub(super) fn sectors(&self) -> u64 {
        self.access.size() / SECTOR
    }

    pub(super) fn read(&self, to: &[VolatileSlice<'_>], offset: u64) -> io::Result<()> {
        let (vector, _guard) = IoVectorMut::from_volatile_slice(to);
        self.access.readv(vector, offset)
    }

    pub(super) fn write(&self, from: &[VolatileSlice<'_>], offset: u64) -> io::Result<()> {
        let (vector, _guard) = IoVector::from_volatile_slice(from);
        self.access.writev(vector, offset)
    }

    pub(super) fn write_zeroes(&self, offset: u64, length: u64) -> io::Result<()> {
        self.access.write_zeroes(offset, length)
    }

    /// The guest does not need this range any more; it reads as zeroes afterwards, or as anything.
    pub(super) fn discard(&mut self, offset: u64, length: u64) -> io::Result<()> {
        self.access.discard_to_any(offset, length)
    }

    /// For fuzzing: one of each kind of access.
    pub(crate) fn exercise(&mut self, sector: u64) {
        let mut bytes = [0; SECTOR as usize];
        let offset = sector * SECTOR;
        let _ = self.read(&[VolatileSlice::from(&mut bytes[..])], offset);
        let _ = self.write(&[VolatileSlice::from(&mut bytes[..])], offset);
        let _ = self.write_zeroes(offset, 1 << 16);
        let _ = self.discard(offset, 1 << 16);
        let _ = self.flush();
    }

    /// Hands what is held back to the host's kernel. Not to the host's disk: a machine that runs is lost with the host's power anyway, and whoever keeps a
    /// disk beyond its machine syncs the file.
    pub(super) fn flush(&self) -> io::Result<()> {
        self.access.flush()
    }
}

fn open_layer(format: DiskFormat, file: File, write: bool, backing: Option<Arc<Layers>>) -> io::Result<Layers> {
    if format == DiskFormat::Qcow2 && write {
        structure::check(&file)?;
    }
    let storage = imago::file::File::try_from(file)?;
    match format {
        DiskFormat::Raw => {
            Ok(FormatAccess::new(Raw::<imago::file::File>::builder(storage).write(write).open(DenyImplicitOpenGate::default())?))
        }
        DiskFormat::Qcow2 => {
            let builder = Qcow2::<imago::file::File, Arc<Layers>>::builder(storage).backing(backing).data_file(None).write(write);
            let qcow2 = builder.open(DenyImplicitOpenGate::default())?;
            if qcow2.requires_external_data_file() {
                return Err(io::Error::new(io::ErrorKind::Unsupported, "its data is in another file"));
            }
            Ok(FormatAccess::new(qcow2))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::FileExt;
    use vm_memory::VolatileSlice;

    /// Overlays are made by qemu-img, on a host that has it.
    fn overlay(directory: &std::path::Path) -> Option<File> {
        let path = directory.join("overlay.qcow2");
        let made = std::process::Command::new("qemu-img")
            .args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b", "/nowhere"])
            .args(["-u", path.to_str()?, "16M"])
            .status();
        if !made.is_ok_and(|status| status.success()) {
            println!("skipped: qemu-img is not installed");
            return None;
        }
        Some(File::options().read(true).write(true).open(path).unwrap())
    }

    fn slice(bytes: &mut [u8]) -> VolatileSlice<'_> {
        VolatileSlice::from(bytes)
    }

    #[test]
    fn an_overlay_is_written_and_what_backs_it_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let Some(top) = overlay(directory.path()) else { return };
        let base = tempfile::tempfile().unwrap();
        base.set_len(16 << 20).unwrap();
        base.write_all_at(b"from the base", 4096).unwrap();
        let layers = vec![(DiskFormat::Qcow2, top.try_clone().unwrap()), (DiskFormat::Raw, base.try_clone().unwrap())];
        let disk = Disk::open("root".into(), false, layers).unwrap();
        assert_eq!(disk.sectors(), (16 << 20) / SECTOR);
        let mut read = [0; 13];
        disk.read(&[slice(&mut read)], 4096).unwrap();
        assert_eq!(&read, b"from the base");
        disk.write(&[slice(&mut b"writ".to_vec()), slice(&mut b"ten".to_vec())], 4096).unwrap();
        disk.read(&[slice(&mut read)], 4096).unwrap();
        assert_eq!(&read, b"writtene base");
        disk.flush().unwrap();
        drop(disk);
        let again = Disk::open("root".into(), true, vec![(DiskFormat::Qcow2, top), (DiskFormat::Raw, base.try_clone().unwrap())]).unwrap();
        again.read(&[slice(&mut read)], 4096).unwrap();
        assert_eq!(&read, b"writtene base");
        base.read_exact_at(&mut read, 4096).unwrap();
        assert_eq!(&read, b"from the base");
    }

    /// What `qemu-img` finds in the file: an error's text when it is not clean.
    fn check(directory: &std::path::Path) -> serde_json::Value {
        let path = directory.join("overlay.qcow2");
        let image = serde_json::json!({"driver": "qcow2", "file": {"driver": "file", "filename": path}, "backing": null});
        let output = std::process::Command::new("qemu-img").args(["check", "--output=json", &format!("json:{image}")]).output().unwrap();
        assert!(output.status.success(), "{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// A request into new clusters is one write because they lie behind each other; what a flush leaves is a file without leaks and errors.
    #[test]
    fn new_clusters_lie_behind_each_other_and_the_file_is_clean() {
        const MIB: u64 = 1 << 20;
        let directory = tempfile::tempdir().unwrap();
        let Some(top) = overlay(directory.path()) else { return };
        let base = tempfile::tempfile().unwrap();
        base.write_all_at(&[0xbb; 2 * MIB as usize], 8 * MIB).unwrap();
        base.set_len(16 * MIB).unwrap();
        let mut disk = Disk::open("root".into(), false, vec![(DiskFormat::Qcow2, top), (DiskFormat::Raw, base)]).unwrap();
        for index in 0..4 {
            disk.write(&[slice(&mut vec![index as u8 + 1; MIB as usize])], index * MIB).unwrap();
        }
        disk.flush().unwrap();
        let found = check(directory.path());
        assert_eq!((&found["allocated-clusters"], found.get("fragmented-clusters")), (&64.into(), None), "{found}");
        assert!(found["image-end-offset"].as_u64().unwrap() <= 4 * MIB + 6 * 65_536, "{found}");
        // Pieces of clusters, some of which the base has, and clusters that are given up.
        disk.write(&[slice(&mut vec![9; MIB as usize])], 8 * MIB + 4096).unwrap();
        disk.write(&[slice(&mut vec![9; 4096])], 12 * MIB + 8192).unwrap();
        disk.discard(MIB, MIB).unwrap();
        disk.write_zeroes(9 * MIB, 128 * 1024).unwrap();
        disk.flush().unwrap();
        check(directory.path());
        let at = |offset| {
            let mut byte = [0];
            disk.read(&[slice(&mut byte)], offset).unwrap();
            byte[0]
        };
        let seen =
            [0, MIB - 1, 3 * MIB, 8 * MIB, 8 * MIB + 4096, 9 * MIB - 1, 9 * MIB, 9 * MIB + 128 * 1024, 12 * MIB, 12 * MIB + 8192].map(at);
        assert_eq!(seen, [1, 1, 4, 0xbb, 9, 9, 0, 0xbb, 0, 9]);
    }

    #[test]
    fn what_is_no_qcow2_is_refused() {
        for bytes in [&b""[..], b"QFI\xfb", &[0xff; 4096]] {
            let file = tempfile::tempfile().unwrap();
            file.write_all_at(bytes, 0).unwrap();
            assert!(matches!(Disk::open("root".into(), false, vec![(DiskFormat::Qcow2, file)]), Err(DiskError::Open { .. })));
        }
        assert!(matches!(Disk::open("root".into(), false, vec![]), Err(DiskError::Empty)));
    }
}
