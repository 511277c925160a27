//! `memory.zst`: a suspended machine's own pages, compressed, for operators whose disk is dearer than their wakes (`snapshot.compress`).
//!
//! What is compressed cannot be mapped, so a wake unpacks all of it into the file it would have been otherwise, and proves it on the way: it costs what was
//! dirtied, not what is needed first. The unpacked file belongs to the page cache, unlike a memfd's, which would hold the memory twice until the machine ends.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;

use super::sum::{Sum, Summer, is_zero};
use crate::layout::SnapshotFiles;
use crate::memory::read_runs;

/// The fastest one: the guest stands still meanwhile.
const LEVEL: i32 = 1;
/// Beside the thread that reads the guest.
const THREADS: u32 = 2;
const COPY: usize = 1024 * 1024;

/// How suspensions write memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Compression {
    /// Sparse, to be mapped as it is.
    #[default]
    None,
    Zstd,
}

/// Where a save puts pages.
pub(crate) enum Pages {
    Plain(File),
    Packed(zstd::stream::write::Encoder<'static, File>),
}

impl Pages {
    pub(crate) fn create(to: &SnapshotFiles, length: u64, compression: Compression) -> io::Result<Self> {
        match compression {
            Compression::None => {
                let file = File::create_new(to.memory())?;
                file.set_len(length)?;
                Ok(Self::Plain(file))
            }
            Compression::Zstd => {
                let mut encoder = zstd::stream::write::Encoder::new(File::create_new(to.packed_memory())?, LEVEL)?;
                encoder.multithread(THREADS)?;
                Ok(Self::Packed(encoder))
            }
        }
    }

    /// The next pages. A hole reads as zeroes and takes no space.
    pub(crate) fn put(&mut self, offset: u64, pages: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(_) if is_zero(pages) => Ok(()),
            Self::Plain(file) => file.write_all_at(pages, offset),
            Self::Packed(encoder) => encoder.write_all(pages),
        }
    }

    pub(crate) fn finish(self) -> io::Result<()> {
        match self {
            Self::Plain(file) => file.sync_all(),
            Self::Packed(encoder) => encoder.finish()?.sync_all(),
        }
    }
}

/// Makes `memory` of `memory.zst`. False when what comes out is not what was put in.
pub(crate) fn unpack(snapshot: &SnapshotFiles, length: u64, expected: &Sum) -> io::Result<bool> {
    match std::fs::remove_file(snapshot.memory()) {
        // Of an attempt that was cut off.
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = File::create_new(snapshot.memory())?;
    file.set_len(length)?;
    let mut packed = zstd::stream::read::Decoder::new(File::open(snapshot.packed_memory())?)?;
    let (mut summer, mut buffer) = (Summer::default(), vec![0; COPY]);
    for run in read_runs(&snapshot.memory_runs(), length)? {
        let mut at = run.offset;
        while at < run.offset + run.length {
            let chunk = usize::try_from(run.offset + run.length - at).unwrap_or(COPY).min(COPY);
            match packed.read_exact(&mut buffer[..chunk]) {
                // The file's own trouble is said by its content not fitting; that of the disk is another.
                Err(error) if error.raw_os_error().is_none() => return Ok(false),
                read => read?,
            }
            if !is_zero(&buffer[..chunk]) {
                file.write_all_at(&buffer[..chunk], at)?;
            }
            summer.add(at, &buffer[..chunk]);
            at += chunk as u64;
        }
    }
    Ok(summer.finish(length) == *expected)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::memory::{Run, write_runs};
    use crate::sys::memory::PAGE;

    const LENGTH: u64 = 1000 * PAGE;

    fn packed() -> (tempfile::TempDir, SnapshotFiles, Sum) {
        let directory = tempfile::tempdir().unwrap();
        let files = SnapshotFiles(directory.path().to_path_buf());
        let runs = [Run { offset: 3 * PAGE, length: 400 * PAGE }, Run { offset: 900 * PAGE, length: PAGE }];
        write_runs(&files.memory_runs(), &runs).unwrap();
        let (mut pages, mut summer) = (Pages::create(&files, LENGTH, Compression::Zstd).unwrap(), Summer::default());
        for run in runs {
            let content: Vec<u8> = (0..run.length).map(|at| (at / 1000 % 251) as u8).collect();
            pages.put(run.offset, &content).unwrap();
            summer.add(run.offset, &content);
        }
        pages.finish().unwrap();
        (directory, files, summer.finish(LENGTH))
    }

    #[test]
    fn what_is_unpacked_is_what_was_packed() {
        let (_directory, files, sum) = packed();
        assert!(std::fs::metadata(files.packed_memory()).unwrap().len() < 20 * PAGE);
        for _ in 0..2 {
            assert!(unpack(&files, LENGTH, &sum).unwrap());
            assert!(sum.fits(&files.memory()).unwrap());
        }
    }

    #[test]
    fn damage_is_noticed() {
        let (_directory, files, sum) = packed();
        let whole = std::fs::read(files.packed_memory()).unwrap();
        for at in (0..whole.len()).step_by(whole.len() / 40 + 1) {
            let mut damaged = whole.clone();
            damaged[at] ^= 8;
            std::fs::write(files.packed_memory(), damaged).unwrap();
            assert!(!unpack(&files, LENGTH, &sum).unwrap_or(false), "byte {at}");
        }
        std::fs::write(files.packed_memory(), &whole[..whole.len() / 2]).unwrap();
        assert!(!unpack(&files, LENGTH, &sum).unwrap_or(false), "cut off");
    }
}
