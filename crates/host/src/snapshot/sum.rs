//! Sums of large sparse files: XXH3-128 over every block that is not all zero, with its number, and the length. Holes are not read, and whether zeroes are a
//! hole or blocks changes nothing. Against decay and half-written files, not against somebody who may write here.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::OnceLock;

use nix::unistd::{Whence, lseek};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use twox_hash::xxhash3_128::Hasher;

const BLOCK: usize = 64 * 1024;
static ZEROES: [u8; BLOCK] = [0; BLOCK];
const READ: usize = 16 * BLOCK;

/// What a file must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Sum {
    Xxh3 {
        bytes: u64,
        digest: String,
        /// The file that was summed: while it has not been touched since, reading it again would tell nothing.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        of: Option<Fingerprint>,
    },
    /// Of formats before 2.
    Sha256(String),
}

/// One file at one time: any write, by whomever, changes its change time. Valid until the host boots again: what the disk gives back after that has to be seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Fingerprint {
    boot: String,
    inode: u64,
    bytes: u64,
    modified_ns: i128,
    changed_ns: i128,
}

impl Fingerprint {
    pub(crate) fn of(path: &Path) -> io::Result<Self> {
        let metadata = std::fs::metadata(path)?;
        let nanoseconds = |seconds: i64, rest: i64| i128::from(seconds) * 1_000_000_000 + i128::from(rest);
        Ok(Self {
            boot: boot().to_owned(),
            inode: metadata.ino(),
            bytes: metadata.len(),
            modified_ns: nanoseconds(metadata.mtime(), metadata.mtime_nsec()),
            changed_ns: nanoseconds(metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

/// Which boot of the host this is.
fn boot() -> &'static str {
    static BOOT: OnceLock<String> = OnceLock::new();
    BOOT.get_or_init(|| std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned())
}

impl Sum {
    /// Reads the file.
    pub(crate) fn of(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        let mut summer = Summer::default();
        let mut buffer = vec![0; READ];
        let mut at = 0;
        while let Some(data) = next_data(&file, at)? {
            // A block is summed whole, its holes included.
            at = data / BLOCK as u64 * BLOCK as u64;
            let wanted = usize::try_from(length.saturating_sub(at)).unwrap_or(READ).min(READ);
            if wanted == 0 {
                break;
            }
            file.read_exact_at(&mut buffer[..wanted], at)?;
            summer.add(at, &buffer[..wanted]);
            at += wanted as u64;
        }
        Ok(summer.finish(length))
    }

    /// As [`Sum::of`], for a file that is complete and will be kept: the sum stands for as long as nobody touches it.
    pub(crate) fn standing(path: &Path) -> io::Result<Self> {
        // Taken first: whoever writes meanwhile spoils it.
        let fingerprint = Fingerprint::of(path)?;
        Ok(match Self::of(path)? {
            Self::Xxh3 { bytes, digest, .. } => Self::Xxh3 { bytes, digest, of: Some(fingerprint) },
            other => other,
        })
    }

    /// Whether the file is untouched since it was summed.
    pub(crate) fn stands(&self, now: &Fingerprint) -> bool {
        matches!(self, Self::Xxh3 { of: Some(of), .. } if of == now)
    }

    /// Reads the file and compares.
    pub(crate) fn fits(&self, path: &Path) -> io::Result<bool> {
        match self {
            Self::Sha256(expected) => {
                let mut digest = Sha256::new();
                io::copy(&mut File::open(path)?, &mut digest)?;
                Ok(hex::encode(digest.finalize()) == *expected)
            }
            Self::Xxh3 { bytes: expected, digest, .. } => {
                if std::fs::metadata(path)?.len() != *expected {
                    return Ok(false);
                }
                Ok(matches!(Self::of(path)?, Self::Xxh3 { digest: found, .. } if found == *digest))
            }
        }
    }
}

/// Where the next byte of data lies at or after `from`; `None` when only a hole follows.
fn next_data(file: &File, from: u64) -> io::Result<Option<u64>> {
    let from = i64::try_from(from).map_err(io::Error::other)?;
    match lseek(file, from, Whence::SeekData) {
        Ok(at) => Ok(Some(at.unsigned_abs())),
        Err(nix::errno::Errno::ENXIO) => Ok(None),
        Err(errno) => Err(io::Error::other(format!("seek data in descriptor {}: {errno}", file.as_raw_fd()))),
    }
}

/// Sums a file as it is written. What is never added counts as zeroes.
#[derive(Default)]
pub(crate) struct Summer {
    hash: Hasher,
    /// The block under way, when pieces smaller than blocks arrive.
    partial: Option<(u64, Vec<u8>)>,
}

impl Summer {
    /// Adds what the file holds at `offset`. Offsets ascend.
    pub(crate) fn add(&mut self, mut offset: u64, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (number, within) = (offset / BLOCK as u64, usize::try_from(offset % BLOCK as u64).unwrap_or_default());
            let count = bytes.len().min(BLOCK - within);
            let (piece, rest) = bytes.split_at(count);
            if self.partial.as_ref().is_some_and(|(under_way, _)| *under_way != number) {
                self.flush();
            }
            match (&mut self.partial, count == BLOCK) {
                (None, true) => add_block(&mut self.hash, number, piece),
                (partial, _) => {
                    let (_, block) = partial.get_or_insert_with(|| (number, Vec::with_capacity(BLOCK)));
                    block.resize(within, 0);
                    block.extend_from_slice(piece);
                }
            }
            (offset, bytes) = (offset + count as u64, rest);
        }
    }

    fn flush(&mut self) {
        if let Some((number, block)) = self.partial.take() {
            add_block(&mut self.hash, number, &block);
        }
    }

    /// The sum of a file of `length` bytes.
    pub(crate) fn finish(mut self, length: u64) -> Sum {
        self.flush();
        self.hash.write(&length.to_le_bytes());
        Sum::Xxh3 { bytes: length, digest: hex::encode(self.hash.finish_128().to_be_bytes()), of: None }
    }
}

/// Zeroes at the end of a block are as good as absent: a file's last block is short, one under way may be.
fn add_block(hash: &mut Hasher, number: u64, block: &[u8]) {
    if is_zero(block) {
        return;
    }
    hash.write(&number.to_le_bytes());
    hash.write(block);
    hash.write(&ZEROES[block.len()..]);
}

pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    bytes.chunks(BLOCK).all(|chunk| chunk == &ZEROES[..chunk.len()])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const LENGTH: u64 = 40 * BLOCK as u64 + 100;

    fn file() -> (tempfile::TempDir, std::path::PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let file = File::create(&path).unwrap();
        file.set_len(LENGTH).unwrap();
        file.write_all_at(&[7; 3000], 4096).unwrap();
        file.write_all_at(&vec![9; 3 * BLOCK], 20 * BLOCK as u64 - 8192).unwrap();
        file.write_all_at(&[1; 50], LENGTH - 50).unwrap();
        (directory, path)
    }

    #[test]
    fn a_sum_made_while_writing_is_the_files() {
        let (_directory, path) = file();
        let mut summer = Summer::default();
        summer.add(4096, &[7; 1000]);
        summer.add(5096, &[7; 2000]);
        summer.add(20 * BLOCK as u64 - 8192, &vec![9; 3 * BLOCK]);
        summer.add(LENGTH - 50, &[1; 50]);
        assert_eq!(summer.finish(LENGTH), Sum::of(&path).unwrap());
    }

    #[test]
    fn zeroes_written_are_a_hole() {
        let (_directory, path) = file();
        let before = Sum::of(&path).unwrap();
        let file = File::options().write(true).open(&path).unwrap();
        file.write_all_at(&vec![0; 5 * BLOCK], 30 * BLOCK as u64).unwrap();
        assert!(before.fits(&path).unwrap());
    }

    #[test]
    fn a_flipped_bit_anywhere_is_another_file() {
        let (_directory, path) = file();
        let sum = Sum::of(&path).unwrap();
        let file = File::options().read(true).write(true).open(&path).unwrap();
        for at in [0, 4096, 10 * BLOCK as u64 + 5, 20 * BLOCK as u64, LENGTH - 1] {
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).unwrap();
            file.write_all_at(&[byte[0] ^ 4], at).unwrap();
            assert!(!sum.fits(&path).unwrap(), "at {at}");
            file.write_all_at(&byte, at).unwrap();
            assert!(sum.fits(&path).unwrap(), "at {at}");
        }
        file.set_len(LENGTH + 1).unwrap();
        assert!(!sum.fits(&path).unwrap(), "longer");
    }

    #[test]
    fn a_touched_file_does_not_stand() {
        let (_directory, path) = file();
        let sum = Sum::standing(&path).unwrap();
        assert!(sum.stands(&Fingerprint::of(&path).unwrap()));
        let file = File::options().write(true).open(&path).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(20));
        file.write_all_at(&[8], 4096).unwrap();
        assert!(!sum.stands(&Fingerprint::of(&path).unwrap()));
    }
}
