//! The state file of a snapshot: everything of a paused machine but its RAM and its disks.
//!
//! ```text
//! 0   8  magic "EMBERVMM"
//! 8   4  format, little-endian: raised whenever anything below changes its meaning or its shape
//! 12  4  length of the state in bytes
//! 16  4  CRC-32 of the state
//! 20     the state: `MachineRecord`, serialised by postcard
//! ```
//! A file is read whole and checked before anything of it is used; whatever it says is checked again by the part of the machine that takes it.

mod record;

use std::fs::File;
use std::io::{self, Read, Write};

pub(crate) use record::MachineRecord;

const MAGIC: &[u8; 8] = b"EMBERVMM";
/// What this version writes and reads.
pub const FORMAT: u32 = 1;
const HEADER: usize = 20;
/// Sixteen vCPUs take about 150 KB.
const MAX_STATE: usize = 4 << 20;

#[derive(Debug, thiserror::Error)]
pub(crate) enum SnapshotError {
    #[error("could not read the snapshot's state")]
    Read(#[source] io::Error),
    #[error("could not write the snapshot's state")]
    Write(#[source] io::Error),
    #[error("the snapshot's state is not one of this engine's")]
    NoState,
    #[error("the snapshot's state has format {0}, this version reads {FORMAT}")]
    Format(u32),
    #[error("the snapshot's state is damaged")]
    Damaged,
}

/// Writes `record` to an empty file.
pub(crate) fn write(record: &MachineRecord, mut to: &File) -> Result<(), SnapshotError> {
    to.write_all(&encode(record)?).map_err(SnapshotError::Write)
}

/// Reads what [`write`] wrote.
pub(crate) fn read(from: &File) -> Result<MachineRecord, SnapshotError> {
    let mut bytes = Vec::new();
    from.take((HEADER + MAX_STATE + 1) as u64).read_to_end(&mut bytes).map_err(SnapshotError::Read)?;
    decode(&bytes)
}

fn encode(record: &MachineRecord) -> Result<Vec<u8>, SnapshotError> {
    let state = postcard::to_stdvec(record).map_err(|error| SnapshotError::Write(io::Error::other(error)))?;
    let length = u32::try_from(state.len()).ok().filter(|_| state.len() <= MAX_STATE);
    let length = length.ok_or_else(|| SnapshotError::Write(io::ErrorKind::FileTooLarge.into()))?;
    let mut bytes = Vec::with_capacity(HEADER + state.len());
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&FORMAT.to_le_bytes());
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&crc32fast::hash(&state).to_le_bytes());
    bytes.extend_from_slice(&state);
    Ok(bytes)
}

fn decode(bytes: &[u8]) -> Result<MachineRecord, SnapshotError> {
    let (header, state) = bytes.split_first_chunk::<HEADER>().ok_or(SnapshotError::NoState)?;
    let word = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    if header[..8] != *MAGIC {
        return Err(SnapshotError::NoState);
    }
    if word(8) != FORMAT {
        return Err(SnapshotError::Format(word(8)));
    }
    if usize::try_from(word(12)) != Ok(state.len()) || crc32fast::hash(state) != word(16) {
        return Err(SnapshotError::Damaged);
    }
    match postcard::take_from_bytes(state) {
        Ok((record, [])) => Ok(record),
        _ => Err(SnapshotError::Damaged),
    }
}

/// For fuzzing: parses `bytes` as a state file, and as the state within one.
pub(crate) fn fuzz(bytes: &[u8]) {
    let _ = decode(bytes);
    let _ = postcard::take_from_bytes::<MachineRecord>(bytes);
}

#[cfg(test)]
mod tests;
