//! Memory files of suspended machines: only the pages that differ from the image's snapshot, at their own offsets in a sparse file, with a list of
//! the runs that hold pages (`memory.runs`: little-endian u64 pairs, offset and length).
//!
//! A resumed machine maps the image's memory, then these runs over it, all copy on write. When it is suspended again, its new file holds the pages
//! it has written since and, of the runs it was resumed with, what it has not.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use tokio_util::sync::CancellationToken;

use crate::layout::SnapshotFiles;
use crate::snapshot::packed::{Compression, Pages};
use crate::snapshot::sum::{Sum, Summer};
use crate::sys::memory::{PAGE, Page, read_process, touched_pages};

/// Clean pages between two dirty runs are written too when they are fewer: each run costs a mapping at resume and the kernel limits those to 65,530.
const GAP: u64 = 16 * PAGE;
/// Runs that one file may have; the gap grows until they fit.
const MAX_RUNS: usize = 16_384;
const COPY: usize = 1024 * 1024;

/// Pages `offset..offset + length`, both multiples of the page size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run {
    pub offset: u64,
    pub length: u64,
}

/// Joins ascending page offsets into runs, bridging small gaps.
#[derive(Debug, Default)]
pub(crate) struct Runs(Vec<Run>);

impl Runs {
    fn add(&mut self, page: u64) {
        match self.0.last_mut() {
            Some(last) if page <= last.offset + last.length + GAP => last.length = (page + PAGE - last.offset).max(last.length),
            _ => self.0.push(Run { offset: page, length: PAGE }),
        }
    }

    /// Adds the runs of an earlier suspension.
    fn join(mut self, earlier: &[Run]) -> Self {
        self.0.extend_from_slice(earlier);
        self.0.sort_unstable_by_key(|run| run.offset);
        let mut gap = GAP;
        loop {
            self.bridge(gap);
            if self.0.len() <= MAX_RUNS {
                return self;
            }
            gap *= 2;
        }
    }

    fn bridge(&mut self, gap: u64) {
        let mut joined: Vec<Run> = Vec::with_capacity(self.0.len());
        for run in self.0.drain(..) {
            match joined.last_mut() {
                Some(last) if run.offset <= last.offset + last.length + gap => {
                    last.length = last.length.max(run.offset + run.length - last.offset);
                }
                _ => joined.push(run),
            }
        }
        self.0 = joined;
    }
}

/// A stopped process whose guest memory is a private mapping of `base` and, where it was resumed before, of `earlier`'s runs over it.
#[derive(Debug, Clone)]
pub(crate) struct PrivateMemory {
    pub pid: i32,
    pub base: PathBuf,
    pub length: u64,
    pub earlier: SnapshotFiles,
}

/// What [`PrivateMemory::save`] has written.
#[derive(Debug)]
pub(crate) struct SavedMemory {
    /// Of the runs.
    pub bytes: u64,
    /// Of `memory`, packed or not.
    pub memory: Sum,
    pub runs: Sum,
}

impl PrivateMemory {
    /// Bytes that a save would write if it were made now.
    pub(crate) fn bytes(&self) -> io::Result<u64> {
        Ok(self.runs()?.0.iter().map(|run| run.length).sum())
    }

    /// The runs of pages that are not the base's, and the address of the guest's first byte.
    fn runs(&self) -> io::Result<(Vec<Run>, u64)> {
        let earlier = self.earlier.memory_runs().exists().then_some(&self.earlier);
        let address = guest_memory_address(self.pid, &self.base, earlier)?;
        let mut runs = Runs::default();
        touched_pages(self.pid, address, self.length, |page, whose| {
            if whose == Page::Own {
                runs.add(page);
            }
        })?;
        let earlier = match earlier {
            Some(files) => read_runs(&files.memory_runs(), self.length)?,
            None => Vec::new(),
        };
        Ok((runs.join(&earlier).0, address))
    }

    /// Writes `memory` (or `memory.zst`) and `memory.runs`, synced; no further when it has been given up.
    pub(crate) fn save(&self, to: &SnapshotFiles, compression: Compression, given_up: &CancellationToken) -> io::Result<SavedMemory> {
        let (runs, address) = self.runs()?;
        let mut pages = Pages::create(to, self.length, compression)?;
        let mut summer = Summer::default();
        let mut buffer = vec![0; COPY];
        for run in &runs {
            let mut at = run.offset;
            while at < run.offset + run.length {
                if given_up.is_cancelled() {
                    return Err(io::ErrorKind::Interrupted.into());
                }
                let chunk = usize::try_from(run.offset + run.length - at).unwrap_or(COPY).min(COPY);
                read_process(self.pid, address + at, &mut buffer[..chunk])?;
                pages.put(at, &buffer[..chunk])?;
                summer.add(at, &buffer[..chunk]);
                at += chunk as u64;
            }
        }
        pages.finish()?;
        if given_up.is_cancelled() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        write_runs(&to.memory_runs(), &runs)?;
        let bytes = runs.iter().map(|run| run.length).sum();
        Ok(SavedMemory { bytes, memory: summer.finish(self.length), runs: Sum::of(&to.memory_runs())? })
    }
}

/// Where the process has mapped the first byte of guest memory.
pub(crate) fn guest_memory_address(pid: i32, base: &Path, earlier: Option<&SnapshotFiles>) -> io::Result<u64> {
    let mut inodes = vec![std::fs::metadata(base)?.ino()];
    inodes.extend(earlier.and_then(|files| std::fs::metadata(files.memory()).ok()).map(|metadata| metadata.ino()));
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps"))?;
    maps.lines()
        .find_map(|line| inodes.iter().find_map(|inode| mapping_of(line, *inode)))
        .ok_or_else(|| io::Error::other("the process does not map the snapshot's memory"))
}

/// The address that offset 0 of the file has, when this line of `/proc/<pid>/maps` maps the file.
fn mapping_of(line: &str, inode: u64) -> Option<u64> {
    let mut fields = line.split_whitespace();
    let (start, _end) = fields.next()?.split_once('-')?;
    let (_permissions, offset, _device, ino) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
    let same = ino.parse() == Ok(inode) && line.ends_with("/memory");
    let hex = |text| u64::from_str_radix(text, 16).ok();
    same.then(|| hex(start)?.checked_sub(hex(offset)?)).flatten()
}

pub(crate) fn write_runs(path: &Path, runs: &[Run]) -> io::Result<()> {
    let bytes: Vec<u8> = runs.iter().flat_map(|run| [run.offset.to_le_bytes(), run.length.to_le_bytes()]).flatten().collect();
    let file = File::create_new(path)?;
    file.write_all_at(&bytes, 0)?;
    file.sync_all()
}

/// Reads a list of runs and checks that they ascend within `length`.
pub(crate) fn read_runs(path: &Path, length: u64) -> io::Result<Vec<Run>> {
    let bytes = std::fs::read(path)?;
    let number = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("halves of sixteen bytes"));
    let mut end = 0;
    let (pairs, rest) = bytes.as_chunks::<16>();
    let mut runs = Vec::with_capacity(pairs.len());
    for pair in pairs {
        let run = Run { offset: number(&pair[..8]), length: number(&pair[8..]) };
        let aligned = run.offset.is_multiple_of(PAGE) && run.length.is_multiple_of(PAGE) && run.length > 0;
        let next = run.offset.checked_add(run.length).filter(|next| aligned && run.offset >= end && *next <= length);
        end = next.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the list of memory runs is damaged"))?;
        runs.push(run);
    }
    match rest {
        [] => Ok(runs),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "the list of memory runs is cut off")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn run(offset: u64, length: u64) -> Run {
        Run { offset: offset * PAGE, length: length * PAGE }
    }

    #[test]
    fn near_pages_join_and_far_ones_do_not() {
        let mut runs = Runs::default();
        for page in [0, 1, 5, 100, 101] {
            runs.add(page * PAGE);
        }
        assert_eq!(runs.0, [run(0, 6), run(100, 2)]);
        assert_eq!(runs.join(&[run(50, 1), run(101, 4), run(300, 2)]).0, [run(0, 6), run(50, 1), run(100, 5), run(300, 2)]);
    }

    #[test]
    fn the_number_of_runs_is_bounded() {
        let scattered: Vec<Run> = (0..100_000).map(|page| run(page * 32, 1)).collect();
        let runs = Runs::default().join(&scattered).0;
        assert!(runs.len() <= MAX_RUNS);
        assert_eq!((runs[0].offset, runs.last().map(|last| last.offset + last.length)), (0, Some((99_999 * 32 + 1) * PAGE)));
    }

    #[test]
    fn a_list_of_runs_round_trips_and_a_damaged_one_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("runs");
        write_runs(&path, &[run(1, 2), run(7, 1)]).unwrap();
        assert_eq!(read_runs(&path, 8 * PAGE).unwrap(), [run(1, 2), run(7, 1)]);
        assert!(read_runs(&path, 7 * PAGE).is_err(), "beyond the end of memory");
        for damaged in [
            vec![0u8; 15],
            [run(3, 1), run(2, 1)].iter().flat_map(|r| [r.offset.to_le_bytes(), r.length.to_le_bytes()]).flatten().collect(),
        ] {
            std::fs::write(&path, damaged).unwrap();
            assert!(read_runs(&path, 8 * PAGE).is_err());
        }
    }

    #[test]
    fn a_line_of_maps_gives_the_address_of_offset_zero() {
        let line = "7f0000200000-7f0040000000 rw-p 00200000 fe:00 1234                       /data/images/x/snapshot/memory";
        assert_eq!(mapping_of(line, 1234), Some(0x7f00_0000_0000));
        assert_eq!(mapping_of(line, 1235), None);
    }
}
