//! The database's journal (SQLite's write-ahead log), looked at before SQLite does. SQLite ends the log at the first frame whose checksum does not fit and says
//! nothing: right for what a power cut left of a transaction nobody was told of, silent loss when a byte in the middle has decayed. Here the two are told
//! apart: frames that were written after the bad one can be recognised, and a small file beside the database says how far commits had come.
//!
//! Format: <https://www.sqlite.org/walformat.html>.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

const HEADER: usize = 32;
const FRAME_HEADER: usize = 24;
const MAGIC: u32 = 0x377f_0682;
/// Header of the wal-index: the last valid frame at 16, its checksum at 24, the salts at 32.
const INDEX_HEADER: usize = 48;
/// How often the head is written down. What was committed since is protected by the frames after it alone.
const HEAD_EVERY: Duration = Duration::from_millis(100);

/// Acknowledged transactions that the journal cannot give back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} is damaged {place}: records that were acknowledged are lost", file.display())]
pub struct JournalDamage {
    pub file: PathBuf,
    /// In words.
    pub place: String,
    /// Bytes of the journal up to the last transaction that can be trusted.
    pub good: u64,
}

type Sum = (u32, u32);
type Salts = [u8; 8];

/// Which frame was the last one of a commit, in which generation of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Head {
    salts: Salts,
    frame: u32,
}

pub(crate) fn path_of(database: &Path, suffix: &str) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Reads the journal of `database`, if it has one. Only a damage that can have cost acknowledged transactions is an error.
pub(crate) fn check(database: &Path) -> io::Result<Result<(), JournalDamage>> {
    let file = path_of(database, "-wal");
    let bytes = match fs::read(&file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Ok(())),
        bytes => bytes?,
    };
    let head = read_head(&path_of(database, "-head"));
    Ok(judge(&bytes, head).map_err(|(place, good)| JournalDamage { file, place, good: good as u64 }))
}

/// Cuts the journal after the last transaction that can be trusted; the whole of it is kept beside.
pub(crate) fn cut(database: &Path, damage: &JournalDamage) -> io::Result<PathBuf> {
    let mut kept = damage.file.clone().into_os_string();
    kept.push(".damaged");
    fs::copy(&damage.file, &kept)?;
    let file = File::options().write(true).open(&damage.file)?;
    file.set_len(damage.good)?;
    file.sync_all()?;
    // It claims what is given up.
    fs::remove_file(path_of(database, "-head"))
        .or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })?;
    Ok(kept.into())
}

struct Log<'a> {
    bytes: &'a [u8],
    big_endian: bool,
    page: usize,
    salts: Salts,
}

/// Where the damage is and how much comes before it.
fn judge(bytes: &[u8], head: Option<Head>) -> Result<(), (String, usize)> {
    if bytes.len() <= HEADER {
        return Ok(());
    }
    let (log, seed) = Log::open(bytes).ok_or_else(|| ("in its header".to_owned(), 0))?;
    let mut sum = seed;
    let mut good = (0, HEADER);
    let mut number = 0;
    while let Some(frame) = log.frame(number).filter(|frame| log.fits(frame, sum)) {
        sum = stored_sum(frame);
        number += 1;
        if is_commit(frame) {
            good = (number, log.offset(number));
        }
    }
    let place = format!("in frame {}", number + 1);
    // A frame is summed from the one before it, so those after a bad one still prove themselves.
    let later = (number + 1..log.frames())
        .any(|later| log.frame(later - 1).zip(log.frame(later)).is_some_and(|(before, frame)| log.fits(frame, stored_sum(before))));
    let acknowledged = head.is_some_and(|head| head.salts == log.salts && head.frame as usize > good.0);
    match later || acknowledged {
        true => Err((place, good.1)),
        false => Ok(()),
    }
}

impl<'a> Log<'a> {
    /// With the checksum that the first frame goes on from.
    fn open(bytes: &'a [u8]) -> Option<(Self, Sum)> {
        let word = |at: usize| Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        let magic = word(0)?;
        let page = usize::try_from(word(8)?).ok()?;
        let log = Self { bytes, big_endian: magic & 1 == 1, page, salts: bytes.get(16..24)?.try_into().ok()? };
        let sum = log.sum((0, 0), &bytes[..24]);
        let whole = magic & !1 == MAGIC && page.is_power_of_two() && (512..=65_536).contains(&page) && sum == (word(24)?, word(28)?);
        whole.then_some((log, sum))
    }

    fn offset(&self, number: usize) -> usize {
        HEADER + number * (FRAME_HEADER + self.page)
    }

    fn frames(&self) -> usize {
        (self.bytes.len() - HEADER) / (FRAME_HEADER + self.page)
    }

    fn frame(&self, number: usize) -> Option<&'a [u8]> {
        self.bytes.get(self.offset(number)..self.offset(number + 1))
    }

    /// Whether a frame is of this generation and follows one with the checksum `before`.
    fn fits(&self, frame: &[u8], before: Sum) -> bool {
        frame[8..16] == self.salts && self.sum(self.sum(before, &frame[..8]), &frame[FRAME_HEADER..]) == stored_sum(frame)
    }

    fn sum(&self, (mut s0, mut s1): Sum, bytes: &[u8]) -> Sum {
        let word = |bytes: &[u8]| {
            let bytes = bytes.try_into().expect("chunks of eight bytes have two halves");
            if self.big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
        };
        for pair in bytes.chunks_exact(8) {
            s0 = s0.wrapping_add(word(&pair[..4])).wrapping_add(s1);
            s1 = s1.wrapping_add(word(&pair[4..])).wrapping_add(s0);
        }
        (s0, s1)
    }
}

fn stored_sum(frame: &[u8]) -> Sum {
    let word = |at: usize| u32::from_be_bytes(frame[at..at + 4].try_into().expect("a frame's header is longer"));
    (word(16), word(20))
}

/// The last frame of a transaction holds the size of the database after it.
fn is_commit(frame: &[u8]) -> bool {
    frame[4..8] != [0; 4]
}

/// Writes down, now and then, how far commits have come; ends with its task. Not synced: after a power cut an older head claims less, which is no false alarm.
pub(crate) async fn keep_head(database: PathBuf) {
    let (index, head) = (path_of(&database, "-shm"), path_of(&database, "-head"));
    // Opened once and never closed before the database: SQLite's locks are on this file, and closing any descriptor of it takes them away.
    let index = loop {
        match File::open(&index) {
            Ok(index) => break index,
            Err(_) => tokio::time::sleep(HEAD_EVERY).await,
        }
    };
    let mut last = None;
    loop {
        tokio::time::sleep(HEAD_EVERY).await;
        let Some(found) = head_of_index(&index).filter(|found| Some(*found) != last) else { continue };
        // A full disk, say: tried again, and an old head claims less.
        if write_head(&head, found).is_ok() {
            last = Some(found);
        }
    }
}

/// SQLite keeps two copies, the second written first: they differ while a commit is being entered.
fn head_of_index(index: &File) -> Option<Head> {
    let mut bytes = [0; 2 * INDEX_HEADER];
    index.read_exact_at(&mut bytes, 0).ok()?;
    let (first, second) = bytes.split_at(INDEX_HEADER);
    let frame = u32::from_ne_bytes(first[16..20].try_into().ok()?);
    (first == second && frame > 0).then_some(Head { salts: first[32..40].try_into().ok()?, frame })
}

fn write_head(path: &Path, head: Head) -> io::Result<()> {
    let file = File::options().create(true).write(true).truncate(false).open(path)?;
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&head.salts);
    bytes[8..12].copy_from_slice(&head.frame.to_le_bytes());
    let check = check_of(&bytes[..12]);
    bytes[12..].copy_from_slice(&check);
    file.write_all_at(&bytes, 0)
}

/// `None` when there is none or it is not whole: then the frames alone must do.
fn read_head(path: &Path) -> Option<Head> {
    let bytes: [u8; 16] = fs::read(path).ok()?.try_into().ok()?;
    let frame = u32::from_le_bytes(bytes[8..12].try_into().ok()?);
    (bytes[12..] == check_of(&bytes[..12])).then_some(Head { salts: bytes[..8].try_into().ok()?, frame })
}

fn check_of(bytes: &[u8]) -> [u8; 4] {
    crc32fast::hash(bytes).to_le_bytes()
}

#[cfg(test)]
#[path = "journal_tests.rs"]
mod tests;
