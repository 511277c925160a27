//! Writes an archive's tree into a fresh directory.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use flate2::bufread::DeflateDecoder;

use super::error::ArchiveError;
use super::index::{self, Entry, Method};
use super::limits::Limits;
use super::plan::{self, Node, Tree};

const CHUNK_BYTES: usize = 64 * 1024;
/// Of the root and of directories while they are being filled.
const PRIVATE: u32 = 0o700;

/// What an archive held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unpacked {
    /// Files, links and directories.
    pub entries: u64,
    /// Bytes of the files.
    pub bytes: u64,
}

/// Unpacks `archive` into `root`, which must not exist. On an error the caller deletes `root`, should it exist by then. Ends early once `abandoned` is set.
pub fn unpack<R: Read + Seek>(archive: R, root: &Path, limits: &Limits, abandoned: &AtomicBool) -> Result<Unpacked, ArchiveError> {
    let mut archive = archive;
    let length = archive.seek(SeekFrom::End(0)).map_err(ArchiveError::reading("the file"))?;
    if length > limits.archive_bytes {
        return Err(ArchiveError::Limit(format!("the archive is larger than {} bytes", limits.archive_bytes)));
    }
    let entries = index::read(&mut archive, limits)?;
    let tree = plan::plan(&entries, limits)?;
    plan::require_dockerfile(&tree)?;
    let allowed = if limits.ratio_applies_above_bytes < limits.unpacked_bytes {
        length.saturating_mul(limits.ratio).max(limits.ratio_applies_above_bytes).min(limits.unpacked_bytes)
    } else {
        limits.unpacked_bytes
    };
    let mut unpacking = Unpacking { archive, entries: &entries, root, limits, allowed, written: 0, abandoned };
    unpacking.write(&tree)?;
    Ok(Unpacked { entries: tree.len() as u64, bytes: unpacking.written })
}

struct Unpacking<'a, R> {
    archive: R,
    entries: &'a [Entry],
    root: &'a Path,
    limits: &'a Limits,
    /// Bytes that may be written in all.
    allowed: u64,
    written: u64,
    abandoned: &'a AtomicBool,
}

impl<R: Read + Seek> Unpacking<'_, R> {
    /// Directories, files, permissions of directories, links: in this order nothing is written through a link or into a read-only directory.
    fn write(&mut self, tree: &Tree) -> Result<(), ArchiveError> {
        let mut private = DirBuilder::new();
        private.mode(PRIVATE);
        private.create(self.root).map_err(ArchiveError::io("make the build context"))?;
        for (path, node) in tree {
            match *node {
                Node::Directory { .. } => private.create(self.root.join(path)).map_err(ArchiveError::io("make a directory"))?,
                Node::File { mode, entry } => self.write_file(path, mode, entry)?,
                Node::Link { .. } => {}
            }
        }
        for (path, node) in tree.iter().rev() {
            if let Node::Directory { mode } = *node {
                set_mode(&self.root.join(path), mode)?;
            }
        }
        for (path, node) in tree {
            if let Node::Link { entry } = *node {
                self.write_link(path, entry)?;
            }
        }
        Ok(())
    }

    fn write_file(&mut self, path: &str, mode: u32, entry: usize) -> Result<(), ArchiveError> {
        let to = self.root.join(path);
        // create_new is O_EXCL: it follows no link and opens nothing that is there.
        let file = OpenOptions::new().write(true).create_new(true).mode(PRIVATE).open(&to);
        let mut file = file.map_err(ArchiveError::io("make a file"))?;
        self.copy(entry, &mut file)?;
        set_open_mode(&file, mode)
    }

    fn write_link(&mut self, path: &str, entry: usize) -> Result<(), ArchiveError> {
        if self.entries[entry].bytes > self.limits.path_bytes {
            return Err(ArchiveError::refused(path, format!("it is a symbolic link to more than {} bytes", self.limits.path_bytes)));
        }
        let mut target = Vec::new();
        self.copy(entry, &mut target)?;
        let target = String::from_utf8(target).map_err(|_| ArchiveError::refused(path, "it is a symbolic link to what is not UTF-8"))?;
        plan::check_link(path, &target)?;
        symlink(target, self.root.join(path)).map_err(ArchiveError::io("make a symbolic link"))
    }

    /// Copies the content of an entry, checked against its size and checksum.
    fn copy(&mut self, entry: usize, to: &mut impl Write) -> Result<(), ArchiveError> {
        let entry = &self.entries[entry];
        let name = String::from_utf8_lossy(&entry.name);
        self.archive.seek(SeekFrom::Start(entry.data_offset)).map_err(ArchiveError::reading("an entry"))?;
        let mut packed = BufReader::with_capacity(CHUNK_BYTES, (&mut self.archive).take(entry.compressed_bytes));
        let budget = Budget { entry_bytes: entry.bytes, allowed: self.allowed, written: self.written, abandoned: self.abandoned };
        let (crc, consumed) = match entry.method {
            Method::Stored => (pour(&mut packed, to, &name, &budget)?, entry.compressed_bytes),
            Method::Deflated => {
                let mut inflate = DeflateDecoder::new(packed);
                let crc = pour(&mut inflate, to, &name, &budget)?;
                (crc, inflate.total_in())
            }
        };
        if crc != entry.crc {
            return Err(ArchiveError::entry_damaged(&name, "its checksum is wrong"));
        }
        if consumed != entry.compressed_bytes {
            return Err(ArchiveError::entry_damaged(&name, "its data ends early"));
        }
        self.written += entry.bytes;
        Ok(())
    }
}

/// How much an entry may write.
struct Budget<'a> {
    /// Exactly so many: what the index promises.
    entry_bytes: u64,
    allowed: u64,
    written: u64,
    abandoned: &'a AtomicBool,
}

/// Copies to the end and answers the checksum. Every byte is counted before it is written.
fn pour(from: &mut impl Read, to: &mut impl Write, name: &str, budget: &Budget<'_>) -> Result<u32, ArchiveError> {
    let mut checksum = crc32fast::Hasher::new();
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut bytes = 0_u64;
    loop {
        if budget.abandoned.load(Ordering::Relaxed) {
            return Err(ArchiveError::Abandoned);
        }
        let count = match from.read(&mut chunk) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(unreadable(name, error)),
        };
        bytes += count as u64;
        if bytes > budget.entry_bytes {
            return Err(ArchiveError::entry_damaged(name, "it is larger than the archive says"));
        }
        if budget.written + bytes > budget.allowed {
            return Err(ArchiveError::Limit(format!(
                "the archive unpacks to more than {} bytes, which is too much for its size",
                budget.allowed
            )));
        }
        checksum.update(&chunk[..count]);
        to.write_all(&chunk[..count]).map_err(ArchiveError::io("write an unpacked file"))?;
    }
    if bytes < budget.entry_bytes {
        return Err(ArchiveError::entry_damaged(name, "it is smaller than the archive says"));
    }
    Ok(checksum.finalize())
}

fn unreadable(name: &str, error: io::Error) -> ArchiveError {
    match error.kind() {
        io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput | io::ErrorKind::UnexpectedEof => {
            ArchiveError::entry_damaged(name, "its compressed data is broken")
        }
        _ => ArchiveError::Io { attempted: "read the archive", source: error },
    }
}

fn set_mode(path: &Path, mode: u32) -> Result<(), ArchiveError> {
    std::fs::set_permissions(path, Permissions::from_mode(mode)).map_err(ArchiveError::io("set permissions"))
}

fn set_open_mode(file: &File, mode: u32) -> Result<(), ArchiveError> {
    file.set_permissions(Permissions::from_mode(mode)).map_err(ArchiveError::io("set permissions"))
}
